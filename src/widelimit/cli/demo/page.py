"""The report: one HTML file that needs nothing else."""

from __future__ import annotations

import html

import numpy as np

from widelimit.cli import demo
from widelimit.cli.demo import figures
from widelimit.cli.demo.experiment import Results
from widelimit.cli.shared.page import fill, pairs

_UNSURE = 12


def render(results: Results) -> str:
    """The page as text."""
    s, last = results.settings, results.finite[-1]
    nngp, ntk = results.rows[0], results.rows[1]
    return fill(demo, dict(
        test=s.test,
        train=s.train,
        steps=s.steps,
        seed=results.seed,
        nngp_accuracy=f"{nngp.accuracy:.1%}",
        ntk_accuracy=f"{ntk.accuracy:.1%}",
        width=last.width,
        agreement=f"{np.mean(last.agreement):.1%}",
        difference=f"{np.mean(last.difference):.0%}",
        first_width=results.finite[0].width,
        first_difference=f"{np.mean(results.finite[0].difference):.0%}",
        residuals=", ".join(f"{np.mean(f.residual):.3f}" for f in results.finite),
        widths=", ".join(str(f.width) for f in results.finite),
        source=html.escape(results.source.rstrip()),
        rows=_rows(results),
        convergence=figures.convergence(results),
        calibration=figures.calibration(results),
        digits=_unsure(results),
        versions=pairs(results.versions),
        machine=pairs(results.machine),
        seconds=f"{results.seconds:.0f}",
    ))  # fmt: skip


def _rows(results: Results) -> str:
    best = [
        max(r.accuracy for r in results.rows),
        min(r.nll for r in results.rows),
        min(r.ece for r in results.rows),
    ]
    lines = []
    for r in results.rows:
        cells = [f"{r.accuracy:.1%}", f"{r.nll:.4f}", f"{r.ece:.4f}"]
        marked = [
            f"<td><strong>{c}</strong></td>" if v == b else f"<td>{c}</td>"
            for c, v, b in zip(cells, (r.accuracy, r.nll, r.ece), best)
        ]
        lines.append(
            f'<tr class="{r.kind}"><th scope="row">{html.escape(r.name)}</th>'
            f"<td>{'∞' if r.width is None else r.width}</td>{''.join(marked)}"
            f"<td>{r.seconds:.1f}</td></tr>"
        )
    return "\n".join(lines)


def _unsure(results: Results) -> str:
    """The test images whose most probable digit is least probable under the NNGP."""
    p = results.probabilities[0]
    cards = []
    for i in np.argsort(p.max(1))[:_UNSURE]:
        label, guess = int(results.labels[i]), int(p[i].argmax())
        shown = [c for c in np.argsort(-p[i])[:3]]
        if label not in shown:
            shown[-1] = label
        bars = "".join(
            f'<div class="bar{" true" if c == label else ""}"><b>{c}</b>'
            f'<span><i style="width:{100 * p[i, c]:.1f}%"></i></span>{p[i, c]:.0%}</div>'
            for c in shown
        )
        verdict = "right" if guess == label else "wrong"
        cards.append(
            f'<div class="card {verdict}">{figures.digit(results.images[i])}<div class="bars">'
            f"<p>it is a <b>{label}</b>, says {guess}: {verdict}</p>{bars}</div></div>"
        )
    return "\n".join(cards)

