"""Draw time against examples, depth and pixels, for us and the reference, alternating.

    python benchmarks/kernels/figure.py --peer PEER/bin/python

Writes ``scaling.json`` and ``docs/speed.png``; float32, NNGP and NTK together, medians.
"""

import argparse
import json
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from run import Worker  # noqa: E402

RELU, RESNET = "relu, 3 layers", "ResNet, 4 blocks, pooled, 12 × 12"
FLAT = "CNN, 5 layers, flattened, 32 × 32"
PANELS = {
    "examples": [(k, {"workload": RELU, "n": k}) for k in (250, 500, 1000, 2000, 4000)],
    "hidden layers": [(k, {"workload": RELU, "n": 1000, "depth": k}) for k in (1, 3, 10, 30)],
    "pixels, pooled": [
        (k * k, {"workload": RESNET, "n": 4, "shape": [k, k, 3]}) for k in (4, 8, 12, 16)
    ],
    "pixels, flattened": [
        (k * k, {"workload": FLAT, "n": 50, "shape": [k, k, 3]}) for k in (8, 16, 32)
    ],
}
TITLES = {
    "examples": "3 layers, all pairs of n examples", "hidden layers": "1000 × 1000 pairs",
    "pixels, pooled": "ResNet, pooled, 4 × 4 images",
    "pixels, flattened": "5 convolutions, flattened, 50 × 50 images",
}
REPEATS = 5


def measure(peer, spec):
    spec = {"dtype": "float32", "square": False, **spec}
    with ExitStack() as stack:
        workers = {
            library: stack.enter_context(Worker(python, library=library, **spec))
            for library, python in (("ours", sys.executable), ("peer", peer))
        }
        for worker in workers.values():
            worker.ask("call")
        times = {library: [] for library in workers}
        for _ in range(REPEATS):
            for library, worker in workers.items():
                times[library].append(worker.ask("call"))
    return {library: statistics.median(t) for library, t in times.items()}


def draw(found, target):
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.6), layout="constrained")
    for ax, (name, points) in zip(axes, found.items(), strict=True):
        for library, label, style in (
            ("peer", "neural-tangents 0.6.5", "o--"), ("ours", "widelimit", "o-"),
        ):
            ax.loglog([p["x"] for p in points], [p[library] for p in points], style, label=label)
        last = points[-1]
        ax.annotate(f"{last['peer'] / last['ours']:.1f}×", (last["x"], last["ours"]),
                    textcoords="offset points", xytext=(0, -14), ha="center", va="top")
        ticks = [p["x"] for p in points]
        ax.set_xticks(ticks, [str(t) for t in ticks])
        ax.minorticks_off()
        ax.set(xlabel=name, title=TITLES[name])
        ax.title.set_fontsize(10)
        ax.margins(0.1, 0.15)
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("seconds")
    axes[0].legend(frameon=False)
    figure.savefig(target, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", required=True, help="the Python of the reference's environment")
    parser.add_argument("--again", action="store_true", help="draw what was measured before")
    arguments = parser.parse_args()
    table = HERE / "scaling.json"
    if not arguments.again:
        found = {
            name: [{"x": x, **measure(arguments.peer, spec)} for x, spec in points]
            for name, points in PANELS.items()
        }
        table.write_text(json.dumps(found, indent=1) + "\n")
    draw(json.loads(table.read_text()), HERE.parents[1] / "docs" / "speed.png")


if __name__ == "__main__":
    main()
