"""Which models that other people published read as they are, which are refused, and why.

    pip install 'flax>=0.12' 'equimo==2.7.0' 'jaxonmodels==0.2.3'
    python benchmarks/models/run.py [--only NAME ...] [--write]

Every model is built by its own package and handed to ``wl.kernel`` unmodified; only sizes are
chosen here. What cannot be imported is reported as such. ``--write`` renews ``results.md``.
"""

from __future__ import annotations

import argparse
import importlib
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import widelimit as wl

HERE = Path(__file__).parent
KEY = jax.random.key(0)


class Case(NamedTuple):
    """A model: its package, how it is made, one example's shape, how it is called, fixed arrays."""

    name: str
    module: str
    make: Callable[[Any, Any], Any]
    shape: tuple[int, ...]
    call: Callable[[Any, Any], Any] | None = None
    tables: tuple[str, ...] = ()


def inference(model: Any, x: Any) -> Any:
    """A call without dropout, as the authors tell."""
    return model(x, key=KEY, inference=True)


def attention(module: Any, key: Any) -> Any:
    import equinox as eqx

    class SelfAttention(eqx.Module):
        layer: Any

        def __call__(self, x: Any) -> Any:
            return self.layer(x, x, x).mean(0)

    return SelfAttention(module.MultiheadAttention(48, 192, key=key))


def recurrent(cell: str) -> Callable[[Any, Any], Any]:
    def make(module: Any, key: Any) -> Any:
        import equinox as eqx

        class Recurrent(eqx.Module):
            cell: Any

            def __call__(self, xs: Any) -> Any:
                start = jnp.zeros(self.cell.hidden_size)
                start = (start, start) if cell == "LSTMCell" else start
                last, _ = jax.lax.scan(lambda h, x: (self.cell(x, h), None), start, xs)
                return last[0] if cell == "LSTMCell" else last

        return Recurrent(getattr(module, cell)(5, 128, key=key))

    return make


def nnx_model(make: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda nnx, key: make(nnx, nnx.Rngs(key))


def nnx_attention(nnx: Any, rngs: Any) -> Any:
    class SelfAttention(nnx.Module):
        def __init__(self) -> None:
            self.layer = nnx.MultiHeadAttention(48, 192, 192, decode=False, rngs=rngs)
            self.readout = nnx.Linear(192, 1, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.readout(self.layer(x).mean(0))

    return SelfAttention()


def nnx_convolutions(nnx: Any, rngs: Any) -> Any:
    class Network(nnx.Module):
        def __init__(self) -> None:
            self.one = nnx.Conv(3, 128, (3, 3), rngs=rngs)
            self.norm = nnx.GroupNorm(128, num_groups=4, rngs=rngs)
            self.two = nnx.Conv(128, 128, (3, 3), strides=2, rngs=rngs)
            self.readout = nnx.Linear(128, 1, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            x = nnx.relu(self.norm(self.one(x[None])))
            x = nnx.avg_pool(nnx.gelu(self.two(x)), (2, 2), (2, 2))
            return self.readout(x.mean((1, 2)))[0]

    return Network()


def nnx_recurrent(cell: str) -> Callable[[Any, Any], Any]:
    def make(nnx: Any, rngs: Any) -> Any:
        class Recurrent(nnx.Module):
            def __init__(self) -> None:
                self.rnn = nnx.RNN(getattr(nnx, cell)(5, 128, rngs=rngs))

            def __call__(self, x: Any) -> Any:
                return self.rnn(x[None])[0, -1]

        return Recurrent()

    return make


IMAGE = (3, 32, 32)
VIT = {"img_size": 32, "in_channels": 3, "dim": 192, "patch_size": 8, "num_heads": 48,
       "depths": [2], "num_classes": 1}
VISION, LAYERS = "equimo.vision.models", "equimo.core.layers"
CASES = (
    Case("MLP", "equinox.nn", lambda m, key: m.MLP(5, 1, 256, 3, key=key), (5,)),
    Case("MultiheadAttention", "equinox.nn", attention, (4, 192)),
    Case("GRUCell", "equinox.nn", recurrent("GRUCell"), (3, 5)),
    Case("LSTMCell", "equinox.nn", recurrent("LSTMCell"), (3, 5)),
    Case("Conv, GroupNorm, avg_pool", "flax.nnx", nnx_model(nnx_convolutions), (8, 8, 3)),
    Case("MultiHeadAttention", "flax.nnx", nnx_model(nnx_attention), (4, 192)),
    Case("SimpleCell", "flax.nnx", nnx_model(nnx_recurrent("SimpleCell")), (3, 5)),
    Case("GRUCell", "flax.nnx", nnx_model(nnx_recurrent("GRUCell")), (3, 5)),
    Case("VisionTransformer", VISION, lambda m, key: m.VisionTransformer(**VIT, key=key), IMAGE,
         inference),
    Case("ConvNeXt", VISION, lambda m, key: m.ConvNeXt(
        3, depths=[1, 1, 1, 1], dims=[64, 64, 128, 128], num_classes=1, key=key), IMAGE, inference),
    Case("MobileNetv3", VISION, lambda m, key: m.MobileNetv3(
        3, [(3, 64, 64, 1, False, "relu"), (3, 128, 64, 2, True, "hard_swish")],
        last_channels=128, num_classes=1, key=key), IMAGE, inference),
    Case("AttNet", VISION, lambda m, key: m.AttNet(
        3, dims=[64, 64, 64, 64], depths=[1, 1, 1, 1], num_classes=1, key=key), (3, 256, 256),
         inference),
    Case("LowFormer", VISION, lambda m, key: m.LowFormer(
        3, [256] * 3, [1, 1, 1], [1, 1, 1], ["conv", "conv", "attention"],
        attention_type="softmax", num_classes=1, key=key), IMAGE, inference),
    Case("ReduceFormer", VISION, lambda m, key: m.ReduceFormer(
        3, [256] * 3, [1, 1, 1], ["conv", "conv", "attention"], num_classes=1, key=key), IMAGE,
         inference),
    Case("Mlla", VISION, lambda m, key: m.Mlla(
        32, 3, dim=96, depths=[1, 1], num_heads=[3, 6], num_classes=1, key=key), IMAGE, inference,
         ("rotations",)),
    Case("Mlp", LAYERS, lambda m, key: m.Mlp(5, hidden_dim=256, out_dim=1, key=key), (4, 5),
         inference),
    Case("SwiGlu", LAYERS, lambda m, key: m.SwiGlu(128, hidden_dim=256, out_dim=1, key=key),
         (4, 128), inference),
    Case("AttentionBlock", LAYERS, lambda m, key: m.AttentionBlock(192, 48, key=key), (4, 192),
         inference),
    Case("VisionTransformer", "jaxonmodels.models.vit", lambda m, key: m.VisionTransformer(
        32, 8, 192, 2, 48, 1, key=key), IMAGE),
    Case("Mamba", "jaxonmodels.models.mamba", lambda m, key: m.Mamba(64, 16, 2, key=key), (4,)),
)


def judged(case: Case) -> dict[str, Any]:
    """Whether the model reads, its kernel on two examples, or the error."""
    row: dict[str, Any] = {"model": case.name, "package": case.module.split(".")[0]}
    try:
        module = importlib.import_module(case.module)
        make = lambda key: case.make(module, key)
        model = make(KEY)
    except ImportError as missing:
        return {**row, "state": "not installed", "why": str(missing)}
    except Exception as crash:
        return {**row, "state": "not built", "why": str(crash).splitlines()[0]}
    rng = np.random.default_rng(0)
    integers = case.name == "Mamba"
    x = rng.integers(0, 11, (2, *case.shape)) if integers else rng.normal(size=(2, *case.shape))
    begun = time.perf_counter()
    try:
        try:
            kernel = wl.kernel(case.call, model) if case.call else wl.kernel(model)
            row["prior"] = "from the layers"
        except wl.UnknownPriorError:  # arrays of the model's own: ask its constructor
            table = lambda name, _: "fixed" if case.tables and name.endswith(case.tables) else None
            prior = wl.prior_of(make, given=table)
            kernel = wl.kernel(case.call or (lambda f, z: f(z)), model, prior=prior)
            row["prior"] = "from the constructor"
        graph = kernel.graph(x)
        row["trace"] = time.perf_counter() - begun
        row["nodes"] = len(graph.nodes)
        begun = time.perf_counter()
        row["nngp"] = np.asarray(jax.tree.leaves(kernel.nngp(x))[0]).ravel()[:2].tolist()
        row["seconds"] = time.perf_counter() - begun
        return {**row, "state": "reads"}
    except wl.WideLimitError as refused:
        why = str(refused).splitlines()
        return {**row, "state": "refused", "kind": type(refused).__name__, "why": why[0],
                "where": str(refused.where)}
    except Exception as crash:  # a table of what happens, whatever it is
        return {**row, "state": "error", "kind": type(crash).__name__,
                "why": str(crash).splitlines()[0][:200]}


def report(rows: list[dict[str, Any]]) -> str:
    """The table of ``results.md``."""
    lines = [
        "# Models of other people", "",
        "Built by their own packages and read unmodified:",
        "`python benchmarks/models/run.py --write`.",
        "A prior is read from the layers where these are Equinox's or Flax's own, and from the",
        "model's constructor where it makes arrays itself. Seconds are those of the first reading.",
        "", "| package | model | outcome | prior | seconds | |", "|---|---|---|---|--:|---|",
    ]
    for row in rows:
        why = f"`{row['kind']}`: {row['why']}" if "kind" in row else row.get("why", "")
        seconds = f"{row['trace']:.1f}" if "trace" in row else ""
        lines.append(
            f"| {row['package']} | {row['model']} | {row['state']} | {row.get('prior', '')} "
            f"| {seconds} | {why} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="names of models")
    parser.add_argument("--write", action="store_true", help="renew results.md")
    options = parser.parse_args()
    rows = []
    for case in CASES:
        if options.only and case.name not in options.only:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows.append(judged(case))
        print(rows[-1], flush=True)
    if options.write:
        (HERE / "results.md").write_text(report(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
