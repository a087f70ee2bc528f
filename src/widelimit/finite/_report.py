"""What verify() found, as data, as text and as a table."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

Verdict = Literal["agrees", "disagrees", "inconclusive"]


@dataclass(frozen=True)
class Estimate:
    r"""One kernel at one width.

    Attributes
    ----------
    draws
        The number of random networks.
    error
        max \|mean - limit\| / max \|limit\|.
    standard_error
        The largest standard error of the mean, in the same units.
    deviation, deviation_error
        Root mean square deviation of a single network from the limit, each entry in units of
        sqrt(K(x, x) K(x', x')), and its standard error.
    z_max, z_rms
        Largest and root mean square of (mean - limit) / standard error.
    """

    draws: int
    error: float
    standard_error: float
    deviation: float
    deviation_error: float
    z_max: float
    z_rms: float


@dataclass(frozen=True)
class Row:
    """One width: multiplier, smallest hidden width, estimates, time."""

    multiplier: float
    width: int
    nngp: Estimate
    ntk: Estimate | None
    seconds: float


@dataclass(frozen=True)
class Conclusion:
    """The decision on one kernel.

    Attributes
    ----------
    verdict
        ``"agrees"``, ``"disagrees"`` or ``"inconclusive"``.
    remaining, standard_error
        The deviation extrapolated to infinite width at the entry where it is most significant,
        in units of sqrt(K(x, x) K(x', x')), and its standard error.
    z
        The largest significance over entries, and ``critical`` the value that counts.
    resolution
        The largest error that could have gone unseen.
    slope, slope_error
        The exponent of a single network's deviation in the width, -1/2 in theory.
    """

    verdict: Verdict
    remaining: float
    standard_error: float
    z: float
    critical: float
    resolution: float
    slope: float | None
    slope_error: float | None


@dataclass(frozen=True)
class Report:
    """A comparison of limit kernels with sampled finite networks.

    Attributes
    ----------
    rows
        One for each width.
    nngp, ntk
        The conclusion on each kernel; ``ntk`` is None if it was not asked for.
    tolerance
        The relative error that the decision is about.
    notes
        What was not done as asked, and why.
    """

    rows: tuple[Row, ...]
    nngp: Conclusion
    ntk: Conclusion | None
    tolerance: float
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worse of the two conclusions."""
        found = [c.verdict for c in (self.nngp, self.ntk) if c is not None]
        if "disagrees" in found:
            return "disagrees"
        return "inconclusive" if "inconclusive" in found else "agrees"

    @property
    def agrees(self) -> bool:
        """Whether the finite networks confirm the limit within the tolerance."""
        return self.verdict == "agrees"

    @property
    def slopes(self) -> dict[str, float | None]:
        """The exponent of a single network's deviation in the width, for each kernel."""
        return {k: c.slope for k, c in self._conclusions()}

    def _conclusions(self) -> list[tuple[str, Conclusion]]:
        pairs = [("nngp", self.nngp), ("ntk", self.ntk)]
        return [(name, c) for name, c in pairs if c is not None]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain dicts, lists, numbers and strings; NaN as None."""
        out = {"verdict": self.verdict, **asdict(self)}
        out["rows"] = list(out["rows"])
        out["notes"] = list(out["notes"])
        return _plain(out)

    def table(self) -> Table:
        """The widths as a Rich table."""
        table = Table(title="finite networks against the limit", title_justify="left")
        table.add_column("width", justify="right")
        table.add_column("draws", justify="right")
        for name, _ in self._conclusions():
            table.add_column(f"{name}: error of mean", justify="right")
            table.add_column("± s.e.", justify="right")
            table.add_column("one network", justify="right")
        table.add_column("seconds", justify="right")
        for row in self.rows:
            cells = [f"{row.width or '—'} (×{row.multiplier:g})", str(row.nngp.draws)]
            for e in (row.nngp, row.ntk):
                if e is not None:
                    cells += [_percent(e.error), _percent(e.standard_error), _percent(e.deviation)]
            table.add_row(*cells, f"{row.seconds:.1f}")
        return table

    def lines(self) -> list[str]:
        """The conclusions and notes, a sentence each."""
        out = []
        for name, c in self._conclusions():
            text = (
                f"{name}: {c.verdict}; at infinite width {_percent(c.remaining)} "
                f"± {_percent(c.standard_error)} remain (z {c.z:.1f}, significant from "
                f"{c.critical:.1f}); errors above {_percent(c.resolution)} are excluded"
            )
            if c.slope is not None:
                text += f"; one network deviates as width^({c.slope:.2f}"
                if c.slope_error is not None and math.isfinite(c.slope_error):
                    text += f" ± {c.slope_error:.2f}"
                text += ")"
            out.append(text)
        return [*out, *(f"note: {note}" for note in self.notes), f"verdict: {self.verdict}"]

    def __rich__(self) -> Group:
        colour = {"agrees": "green", "disagrees": "bold red", "inconclusive": "yellow"}
        *rest, last = self.lines()
        return Group(
            self.table(), *(Text(line) for line in rest), Text(last, style=colour[self.verdict])
        )

    def __str__(self) -> str:
        console = Console(width=120, color_system=None, force_terminal=False)
        with console.capture() as captured:
            console.print(self)
        return captured.get().rstrip()


def _percent(value: float) -> str:
    if not math.isfinite(value):
        return "—"
    return f"{100 * value:.2g}%" if abs(value) < 1 else f"{100 * value:.0f}%"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
