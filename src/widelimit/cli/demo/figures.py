"""The report's figures."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator, PercentFormatter

from widelimit import predict
from widelimit.cli.demo.experiment import Results
from widelimit.cli.shared.figures import BLUE, FAINT, GREEN, INK, ORANGE, style, svg, wilson


def convergence(results: Results) -> str:
    """Difference to the limit, and accuracy, against width."""
    finite, widths = results.finite, [f.width for f in results.finite]
    with style():
        figure = Figure(figsize=(9.6, 3.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        for f in finite:
            left.plot([f.width] * len(f.difference), f.difference, "o", color=GREEN, alpha=0.75)
        middle = [float(np.exp(np.mean(np.log(f.difference)))) for f in finite]
        left.plot(widths, middle, "-", color=GREEN, lw=2)
        left.set_xscale("log")
        left.set_yscale("log")
        guide = [middle[-1] * (w / widths[-1]) ** -0.5 for w in widths]
        left.plot(widths, guide, "--", color=FAINT, lw=1.5)
        left.annotate(
            "slope −1/2", (widths[0], guide[0]), xytext=(14, -2), textcoords="offset points",
            color=INK, va="center",
        )  # fmt: skip
        left.annotate(
            f"measured slope {results.slope:.2f}".replace("-", "−"), (widths[1], middle[1]),
            xytext=(-10, -8), textcoords="offset points", color=GREEN, va="top", ha="right",
        )  # fmt: skip
        ticks = [t for t in (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0)]
        low, high = min([*guide, *_all(finite, "difference")]), max(_all(finite, "difference"))
        left.set_ylim(0.85 * low, 1.3 * max(high, guide[0]))
        left.yaxis.set_major_locator(FixedLocator(ticks))
        left.yaxis.set_minor_locator(NullLocator())
        left.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        _width_axis(left, widths)
        left.set_ylabel("difference to the NTK limit (relative RMS)")
        left.set_title("Difference to the limit", loc="left")
        for f in finite:
            right.plot([f.width] * len(f.accuracy), f.accuracy, "o", color=GREEN, alpha=0.75)
        right.plot(widths, [np.mean(f.accuracy) for f in finite], "-", color=GREEN, lw=2)
        nngp, ntk = results.rows[0].accuracy, results.rows[1].accuracy
        right.set_xscale("log")
        _width_axis(right, widths)
        right.axhline(nngp, color=BLUE, lw=2, ls=(0, (5, 2)), label="NNGP, infinite width")
        right.axhline(ntk, color=ORANGE, lw=2, ls=(0, (1, 1.5)), label="NTK, infinite width")
        right.plot([], [], "o-", color=GREEN, label="trained networks")
        right.legend(loc="lower right")
        right.yaxis.set_major_formatter(PercentFormatter(1))
        right.set_ylabel("accuracy on unseen digits")
        right.set_title("Accuracy", loc="left")
    return svg(figure, "Difference to the limit and accuracy against width")


def calibration(results: Results) -> str:
    """Accuracy against confidence, with 95% intervals, and how the confidences are spread."""
    shown = [
        (0, BLUE, "o", "NNGP, infinite width"),
        (1, ORANGE, "s", "NTK, infinite width"),
        (len(results.rows) - 1, GREEN, "^", f"trained, width {results.finite[-1].width}"),
    ]
    bins = 5
    with style():
        figure = Figure(figsize=(9.6, 4.4), layout="constrained")
        top, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        top.plot([0, 1], [0, 1], "--", color=FAINT, lw=1.5)
        top.annotate(
            "perfectly calibrated", (0.31, 0.31), xytext=(14, -10), textcoords="offset points",
            color=INK, va="center",
        )  # fmt: skip
        for k, (row, colour, marker, name) in enumerate(shown):
            p = results.probabilities[row]
            curve = predict.calibration_curve(p, results.labels, bins=bins)
            low, high = wilson(curve.accuracy, curve.examples)
            x = curve.confidence
            top.plot(x, curve.accuracy, marker, color=colour, label=name, ms=7)
            top.vlines(x, low, high, color=colour, lw=1.5)
            count, edges = np.histogram(p.max(1), bins=10, range=(0, 1))
            below.bar(edges[:-1] + 0.022 + 0.028 * k, count, 0.024, color=colour, align="center")
        top.set_xlim(0.2, 1.02)
        top.set_ylim(0, 1.05)
        top.yaxis.set_major_formatter(PercentFormatter(1))
        top.set_ylabel("fraction right")
        top.legend(loc="lower right")
        top.set_title("When it says 80%, is it right 80% of the time?", loc="left")
        below.set_yscale("log")
        below.set_ylim(0.7, 2 * len(results.labels))
        below.yaxis.set_minor_formatter(NullFormatter())
        below.set_ylabel("images")
        below.set_xlabel("confidence: probability of the predicted digit")
        below.xaxis.set_major_formatter(PercentFormatter(1))
    return svg(figure, "Calibration: fraction right against confidence")


def digit(image: np.ndarray) -> str:
    """One scanned digit as SVG squares."""
    squares = "".join(
        f'<rect x="{j}" y="{i}" width="1.02" height="1.02" opacity="{value / 16:.2f}"/>'
        for i, line in enumerate(image)
        for j, value in enumerate(line)
        if value > 0
    )
    return f'<svg class="digit" viewBox="0 0 8 8" role="img" aria-label="scan">{squares}</svg>'


def _width_axis(axes: Axes, widths: list[int]) -> None:
    axes.xaxis.set_major_locator(FixedLocator(widths))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([str(w) for w in widths])
    axes.set_xlabel("width (hidden units per layer)")


def _all(finite: list, field: str) -> list[float]:
    return [v for f in finite for v in getattr(f, field)]
