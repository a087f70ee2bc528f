"""Tables of all results, and which published findings they bear out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from descent import STEPS
from scipy.stats import t as student

HERE = Path(__file__).parent
NETWORKS = ("dense", "convolutional", "pooled")

Rows = dict[tuple[str, int, str], dict[str, Any]]
"""Results by network, draw and method."""


class Scores:
    """Accuracies by method; a value is one number for each draw."""

    def __init__(self, recorded: list[dict[str, Any]]) -> None:
        self.rows: Rows = {(r["network"], r["draw"], r["method"]): r for r in recorded}
        self.methods = list(dict.fromkeys(r["method"] for r in recorded))
        self.draws = sorted({r["draw"] for r in recorded})
        self.finite = [m for m in self.methods if m.startswith(("plain", "rate", "decay"))
                       and not m.endswith("ensemble")]

    def of(self, network: str, method: str, what: str = "score") -> np.ndarray:
        """One number for each draw; not a number where training diverged or is missing."""
        rows = [self.rows.get((network, d, method), {}) for d in self.draws]
        return np.array([np.nan if r.get(what) is None else r[what] for r in rows])

    def best(self, network: str, methods: list[str]) -> np.ndarray:
        """The accuracy of the method with the best validation accuracy, by draw."""
        validation = np.array([self.of(network, m, "validation") for m in methods])
        scores = np.array([self.of(network, m) for m in methods])
        validation = np.where(np.isnan(validation), -1, validation)
        return scores[np.argmax(validation, 0), np.arange(len(self.draws))]


class Finding(NamedTuple):
    """A published claim, and a difference by draw that is positive if it holds here."""

    claim: str
    where: str
    difference: np.ndarray
    unit: str = "accuracy"


def findings(s: Scores) -> list[Finding]:
    """The claims of the study, as differences."""
    out: list[Finding] = []
    kernel = lambda n: s.best(n, ["NNGP, ridge", "NTK, ridge"])

    def each(claim: str, difference: Callable[[str], Any], unit: str = "accuracy",
             networks: tuple[str, ...] = NETWORKS) -> None:
        out.extend(Finding(claim, n, difference(n), unit) for n in networks)

    rates = [m for m in s.methods if m.startswith("rate")]
    decays = [m for m in s.methods if m.startswith("decay")]
    each("Kernels beat trained dense networks", lambda n: kernel(n) - s.of(n, "plain"),
         networks=("dense",))
    each("Kernels beat the best trained dense network", lambda n: kernel(n) - s.best(n, s.finite),
         networks=("dense",))
    each("The best trained convolutional network beats kernels",
         lambda n: s.best(n, s.finite) - kernel(n), networks=NETWORKS[1:])
    each("The NNGP kernel does better than the tangent kernel",
         lambda n: s.of(n, "NNGP, ridge") - s.of(n, "NTK, ridge"))
    each("Pooling helps kernels and networks", lambda n: {
        "kernels": kernel("pooled") - kernel("convolutional"),
        "networks": s.best("pooled", s.finite) - s.best("convolutional", s.finite),
    }[n], networks=("kernels", "networks"))
    each("An ensemble does better than one network",
         lambda n: s.of(n, "plain, ensemble") - s.of(n, "plain"))
    each("An ensemble is closer to the infinite network",
         lambda n: s.of(n, "plain", "distance") - s.of(n, "plain, ensemble", "distance"),
         "distance")
    each("A centred network is closer to the infinite network",
         lambda n: s.of(n, "plain", "distance") - s.of(n, "centred", "distance"), "distance")
    each("A centred network does better", lambda n: s.of(n, "centred") - s.of(n, "plain"))
    each("A large learning rate does better", lambda n: s.best(n, rates) - s.of(n, "plain"))
    each("A large learning rate leads away from the infinite network",
         lambda n: np.fmax.reduce([s.of(n, m, "distance") for m in rates])
         - s.of(n, "plain", "distance"), "distance")
    each("Weight decay does better", lambda n: s.best(n, decays) - s.of(n, "plain"))
    each("Weight decay leads away from the infinite network",
         lambda n: np.fmax.reduce([s.of(n, m, "distance") for m in decays])
         - s.of(n, "plain", "distance"), "distance")
    each("NTK parameterization does better than the standard one",
         lambda n: s.of(n, "plain") - s.of(n, "standard parameterization"))
    each("A ridge helps the tangent kernel",
         lambda n: s.of(n, "NTK, ridge") - s.of(n, "NTK, ridgeless"))
    each("Regularised whitening helps the tangent kernel",
         lambda n: s.of(n, "NTK, ridge, whitened") - s.of(n, "NTK, ridge"))
    each("Regularised whitening helps the trained network",
         lambda n: s.of(n, "centred, whitened") - s.of(n, "centred"))
    return out


def verdict(f: Finding) -> str:
    """A line of the table: the mean difference, its standard error, and what follows."""
    found = f.difference[np.isfinite(f.difference)]
    if len(found) < 2:
        return f"| {f.claim} | {f.where} | {_difference(f, found)} | — |"
    mean, error = found.mean(), found.std(ddof=1) / len(found) ** 0.5
    bar = student.ppf(0.95, len(found) - 1) * error
    said = "yes" if mean > bar else "**no, the opposite**" if mean < -bar else "undecided"
    return f"| {f.claim} | {f.where} | {_difference(f, found)} | {said} |"


def _difference(f: Finding, found: np.ndarray) -> str:
    """The mean difference, and its standard error if there are several draws."""
    if not len(found):
        return "not measured"
    scale, sign = (100, " points") if f.unit == "accuracy" else (1, " of the outputs")
    error = f" ± {scale * found.std(ddof=1) / len(found) ** 0.5:.2f}" if len(found) > 1 else ""
    return f"{scale * found.mean():+.2f}{error}{sign}"


def equivalence(s: Scores) -> list[str]:
    """A ridge beside early stopping, for which the claim is that there is no difference."""
    out = []
    for n in NETWORKS:
        for kind in ("NNGP", "NTK"):
            d = 100 * (s.of(n, f"{kind}, ridge") - s.of(n, f"{kind}, stopped"))
            d = d[np.isfinite(d)]
            if len(d) > 1:
                out.append(f"| {n} | {kind} | {d.mean():+.2f} ± {d.std(ddof=1) / len(d)**0.5:.2f} "
                           f"| {np.abs(d).max():.2f} |")
    return out


HEADER = """# Finite networks beside their infinite limits

`python benchmarks/regimes/run.py compute`, after Lee et al. 2020 (arXiv:2007.15801), in small.
Fashion-MNIST at 14 × 14; 1,000 training images, 1,000 to choose by, 2,000 to report on; disjoint
draws of all three: {draws}. Three hidden layers with ReLU, weight variance 2, bias variance 0.01:
dense of width 512; 3 × 3 convolutions with 32 channels, the first of stride 2, flattened or
averaged over positions before the readout. Trained on half the squared error in batches of 100,
{steps} steps, at half of the critical rate 2/λ of the network's own tangent kernel unless stated,
and stopped at the best validation accuracy. *Centred* networks train f(θ) - f(θ₀). Decay is in
shares of λ/n. Ensembles have three networks. Standard errors are those over the draws; differences
are taken within a draw, and are decided at 5 % on each side by Student's t.
"""


def write(recorded: list[dict[str, Any]]) -> None:
    """Write ``results.md``, with ``notes.md`` at its end."""
    s = Scores(recorded)
    counts = {n: int(np.isfinite(s.of(n, "plain")).sum()) for n in NETWORKS}
    said = ", ".join(f"{count} for the {n} network" for n, count in counts.items())
    steps = ", ".join(f"{count:,} ({n})" for n, count in STEPS.items())
    lines = [HEADER.format(draws=said, steps=steps), "\n## Findings\n",
             "| published | network | difference here | borne out? |", "|---|---|--:|---|"]
    lines += [verdict(f) for f in findings(s)]
    lines += ["", "A ridge acts like early stopping: accuracy with the best ridge less that at the",
              "best time of gradient flow, both by validation.", "",
              "| network | kernel | points | largest of a draw |", "|---|---|--:|--:|",
              *equivalence(s)]
    lines += ["\n## Accuracies\n", "| method | " + " | ".join(NETWORKS) + " |",
              "|---|" + "--:|" * len(NETWORKS)]
    for m in s.methods:
        cells = []
        for n in NETWORKS:
            a = 100 * s.of(n, m)
            a = a[np.isfinite(a)]
            error = f" ± {a.std(ddof=1) / len(a) ** 0.5:.1f}" if len(a) > 1 else ""
            cells.append(f"{a.mean():.1f}{error}" if len(a) else "—")
        lines.append(f"| {m} | " + " | ".join(cells) + " |")
    lines += ["\n## Distance from the infinite network\n",
              "Root mean square difference of the outputs for the test images after all steps from",
              "those of the infinite network after the same time, as a share of the latter.\n",
              "| method | " + " | ".join(NETWORKS) + " |", "|---|" + "--:|" * len(NETWORKS)]
    for m in s.methods:
        values = [s.of(n, m, "distance") for n in NETWORKS]
        if any(np.isfinite(v).any() for v in values):
            cells = [f"{np.nanmean(v):.2f}" if np.isfinite(v).any() else "—" for v in values]
            lines.append(f"| {m} | " + " | ".join(cells) + " |")
    notes = (HERE / "notes.md").read_text()
    (HERE / "results.md").write_text("\n".join(lines) + "\n\n" + notes)
