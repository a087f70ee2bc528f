"""Drawing what a tracker has recorded."""

from __future__ import annotations

from typing import Any

import numpy as np


def draw(results: dict[str, np.ndarray], names: dict[str, str], axes: Any) -> Any:
    """One panel for each quantity, over the steps; returns the figure.

    Raises
    ------
    ValueError
        If there is nothing to draw, or too few axes to draw on.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatterSciNotation, MaxNLocator

    shown = [name for name in names if name in results]
    if not shown:
        msg = "nothing is recorded: call the tracker with parameters first"
        raise ValueError(msg)
    if axes is None:
        columns = min(4, len(shown))
        rows = -(-len(shown) // columns)
        figure = Figure(figsize=(3.2 * columns, 2.5 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for extra in grid[len(shown) :]:
            extra.remove()
        axes = grid[: len(shown)]
    axes = list(np.ravel(axes))
    if len(axes) < len(shown):
        msg = f"{len(shown)} quantities need as many axes, got {len(axes)}"
        raise ValueError(msg)
    for ax, name in zip(axes, shown):
        values = results[name]
        marker = "o" if len(values) < 30 else None
        ax.plot(results["step"], values, marker=marker, markersize=3, linewidth=1.4)
        ax.set_title(names[name], fontsize=10, loc="left")
        ax.set_xlabel("step", fontsize=9)
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        positive = values[values > 0]
        if len(positive) and name in ("loss", "sharpness") and (
            positive.max() > 30 * positive.min() and len(positive) == len(values)
        ):
            ax.set_yscale("log")
            ax.yaxis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(0, 0)))
        else:
            ax.set_ylim(bottom=min(0, values.min()) if name != "alignment" else None)
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25, linewidth=0.6)
    return axes[0].figure
