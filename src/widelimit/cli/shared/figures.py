"""Figures as SVG text that takes its colours from the page."""

from __future__ import annotations

import io
import re
import warnings
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

# Stand-ins for the page's colours; none of them occurs otherwise.
INK, FAINT = "#010203", "#040506"
BLUE, ORANGE, GREEN = "#010207", "#010208", "#010209"
_PAGE = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    BLUE: "var(--blue)",
    ORANGE: "var(--orange)",
    GREEN: "var(--green)",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def style() -> AbstractContextManager[Any]:
    """The settings that figures are drawn with."""
    return matplotlib.rc_context(_STYLE)


def wilson(fraction: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95% interval of a binomial proportion."""
    z2 = 1.96**2
    middle = (fraction + z2 / (2 * count)) / (1 + z2 / count)
    half = np.sqrt(z2 * (fraction * (1 - fraction) / count + z2 / (4 * count**2)))
    half = half / (1 + z2 / count)
    return middle - half, middle + half


def svg(figure: Figure, label: str) -> str:
    """The figure as an SVG element; labels differ between the figures of one page."""
    buffer = io.StringIO()
    # Names inside the figures of one page must differ.
    settings = {**_STYLE, "svg.hashsalt": label}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # Text stays text: the reader's fonts have the letters that Matplotlib's lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for stand_in, colour in _PAGE.items():
        text = text.replace(stand_in, colour)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return text.replace("<svg", f'<svg class="figure" role="img" aria-label="{label}"', 1)
