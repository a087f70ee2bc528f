"""The figures of a fit's report; narrow enough to be read on a phone."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter
from scipy.special import ndtri

from widelimit import predict
from widelimit.cli.fit.experiment import Results
from widelimit.cli.fit.scores import coverage
from widelimit.cli.shared.figures import BLUE, FAINT, GREEN, INK, ORANGE, style, svg, wilson

_SIZE = (4.8, 4.2)
_MOST_BARS = 20
_STYLES = ((BLUE, "-"), (ORANGE, (0, (5, 2))), (GREEN, (0, (1, 1.5))), (INK, (0, (3, 1, 1, 1))))


def intervals(results: Results) -> str:
    """How often intervals of each probability hold the answer, for every predictor."""
    levels = np.linspace(0, 1, 51)[1:-1]
    with style():
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], "-", color=FAINT, lw=1)
        shown = [r for r in range(len(results.rows)) if results.rows[r].name != "mean"]
        for r, (colour, dashes) in zip(shown, _STYLES):
            found = results.predictions[r]
            z = (results.answers - np.asarray(found.mean)) / np.asarray(found.std)
            held = [coverage(z, level) for level in levels]
            axes.plot(levels, held, color=colour, ls=dashes, lw=2, label=results.rows[r].name)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlabel("probability of the interval")
        axes.set_ylabel("answers inside")
        axes.legend(loc="upper left", fontsize=9)
    return svg(figure, "Coverage of prediction intervals against their probability")


def answers(results: Results) -> str:
    """Held-out answers against predictions, with 95% intervals."""
    found = results.predictions[0]
    mean, std = np.asarray(found.mean), np.asarray(found.std)
    truth, most = results.answers, 500
    chosen = np.arange(len(truth))
    if len(truth) > most:
        chosen = np.random.default_rng(0).choice(chosen, most, replace=False)
    half = float(ndtri(0.975)) * std[chosen]
    with style():
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        axes.errorbar(truth[chosen], mean[chosen], yerr=half, fmt="none", ecolor=BLUE,
                      elinewidth=0.7, alpha=0.25)  # fmt: skip
        axes.plot(truth[chosen], mean[chosen], "o", color=BLUE, ms=3.5, alpha=0.8, mew=0)
        low, high = float(truth.min()), float(truth.max())
        axes.plot([low, high], [low, high], "--", color=FAINT, lw=1.5)
        axes.set_xlabel("answer")
        axes.set_ylabel("prediction for the held-out row")
    return svg(figure, "Predictions of held-out rows against answers")


def calibration(results: Results) -> str:
    """Share of right classes against confidence, with 95% intervals."""
    with style():
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], "--", color=FAINT, lw=1.5)
        shown = [r for r in range(len(results.rows)) if results.rows[r].name != "class shares"]
        for k, (r, (colour, _), marker) in enumerate(zip(shown, _STYLES, "os^D")):
            p = np.asarray(results.predictions[r].probabilities)
            labels = results.answers
            curve = predict.calibration_curve(p, labels, bins=8)
            low, high = wilson(curve.accuracy, curve.examples)
            x = curve.confidence + 0.006 * (k - 1.5)
            axes.plot(x, curve.accuracy, marker, color=colour, ms=6 if k == 0 else 4,
                      label=results.rows[r].name, alpha=1 if k == 0 else 0.7)  # fmt: skip
            axes.vlines(x, low, high, color=colour, lw=1.8 if k == 0 else 0.8)
        axes.set_xlim(max(0.0, 1 / len(results.target.classes) - 0.08), 1.03)
        axes.set_ylim(0, 1.05)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlabel("probability of the predicted class")
        axes.set_ylabel("fraction right")
        axes.legend(loc="lower right", fontsize=9)
    return svg(figure, "Calibration: fraction right against probability of the predicted class")


def confusion(results: Results) -> str:
    """How often each class is predicted for each answer."""
    classes = results.target.classes
    p = np.asarray(results.predictions[0].probabilities)
    count = np.zeros((len(classes), len(classes)), int)
    np.add.at(count, (results.answers, p.argmax(1)), 1)
    share = count / np.maximum(count.sum(1, keepdims=True), 1)
    names = [_plain(c) if len(c) <= 14 else _plain(c[:13]) + "…" for c in classes]
    places = range(len(classes))
    with style():
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        for i in places:
            for j in places:
                if count[i, j]:
                    colour = BLUE if i == j else ORANGE
                    axes.fill_between([j - 0.5, j + 0.5], i - 0.5, i + 0.5, color=colour, lw=0,
                                      alpha=0.08 + 0.52 * share[i, j])  # fmt: skip
                    if len(classes) <= 12:
                        axes.text(j, i, str(count[i, j]), ha="center", va="center", fontsize=10)
        axes.set_xlim(-0.5, len(classes) - 0.5)
        axes.set_ylim(len(classes) - 0.5, -0.5)
        if len(classes) <= 30:
            long = max(map(len, names)) > 3
            axes.set_xticks(places, names, rotation=90 if long and len(classes) > 4 else 0)
            axes.set_yticks(places, names)
        axes.tick_params(length=0)
        axes.set_xlabel("predicted class of the held-out row")
        axes.set_ylabel("class")
    return svg(figure, "How often each class is predicted for each class")


def scales(values: dict[str, float], start: dict[str, float]) -> str:
    """Standard deviations of parameters, as bars from where learning started."""
    names = [*values][:_MOST_BARS]
    found = [max(values[n], 1e-12) for n in names]
    begin = [max(start[n], 1e-12) for n in names]
    with style():
        figure = Figure(figsize=(_SIZE[0], 1.1 + 0.3 * len(names)), layout="constrained")
        axes = figure.subplots()
        axes.set_xscale("log")
        places = range(len(names))
        for i, one, other in zip(places, found, begin):
            axes.barh(i, one - other, left=other, color=BLUE, height=0.5, alpha=0.35)
        axes.plot(begin, places, "|", color=INK, ms=11, label="start")
        axes.plot(found, places, "o", color=BLUE, ms=6, label="learned")
        for i, one in zip(places, found):
            axes.annotate(f"{one:.2g}", (1.01, i), xycoords=("axes fraction", "data"), va="center",
                          fontsize=10)  # fmt: skip
        low, high = min([*found, *begin]), max([*found, *begin])
        axes.set_xlim(low / 2, high * 2)
        _names(axes, names)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("standard deviation of the prior")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=9)
    return svg(figure, "Standard deviations of the parameters")


def relevance(values: dict[str, float]) -> str:
    """The factors of the most relevant columns, as bars."""
    names = [*values][:_MOST_BARS]
    sizes = [values[n] for n in names]
    with style():
        figure = Figure(figsize=(_SIZE[0], 0.9 + 0.3 * len(names)), layout="constrained")
        axes = figure.subplots()
        axes.barh(range(len(names)), sizes, color=BLUE, height=0.62)
        for i, v in enumerate(sizes):
            axes.text(v + 0.015, i, f"{v:.2f}", va="center", fontsize=10)
        _names(axes, names)
        axes.set_xlim(0, 1.14)
        axes.set_xlabel("relevance of the column")
    return svg(figure, "Relevance of the columns")


def _names(axes: Axes, names: list[str]) -> None:
    short = [n if len(n) <= 24 else n[:23] + "…" for n in names]
    axes.set_yticks(range(len(names)), [_plain(s) for s in short])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _plain(text: str) -> str:
    """Text that is not taken for mathematics."""
    return text.replace("$", r"\$")
