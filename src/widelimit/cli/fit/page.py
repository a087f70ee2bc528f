"""The report of a fit: one HTML file that needs nothing else."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri

from widelimit.cli import fit
from widelimit.cli.fit import figures
from widelimit.cli.fit.experiment import Results
from widelimit.cli.fit.measures import MEASURES, best, rounded, shown
from widelimit.cli.shared.page import fill, pairs
from widelimit.cli.tabular.columns import Column
from widelimit.estimators._recipe import network_kernel

_WORST, _CONTEXT, _CELL = 10, 4, 28
_KIND = {"nngp": "NNGP kernel (networks drawn from the prior)",
         "ntk": "NTK kernel (all parameters moving a little)"}  # fmt: skip


def render(results: Results) -> str:
    """The page as text."""
    classes = results.target.task == "classification"
    return fill(fit, dict(
        target=html.escape(results.settings.target),
        lead=_lead(results),
        numbers=_numbers(results),
        compared=_compared(results),
        heads="".join(f"<th>{m.title}</th>" for m in MEASURES[results.target.task]),
        rows=_rows(results),
        calibrated=_CLASSES_CALIBRATED if classes else _NUMBERS_CALIBRATED,
        figures=_figures(results),
        surprising_words=_CLASSES_SURPRISE if classes else _NUMBERS_SURPRISE,
        surprising=_table(results, _surprising(results)),
        uncertain_words=_CLASSES_UNSURE if classes else _NUMBERS_UNSURE,
        uncertain=_table(results, _uncertain(results)),
        network=html.escape(results.settings.network),
        kind_words=_KIND[results.settings.kind],
        evidence_words=_evidence(results),
        scales=_scales(results),
        notes=_notes(results.notes),
        columns="\n".join(_column(results, c) for c in results.columns),
        how=_how(results),
        versions=pairs(results.versions),
        machine=pairs(results.machine),
        seconds=f"{results.seconds:.0f}",
    ))  # fmt: skip


_NUMBERS_CALIBRATED = (
    "Every prediction comes with a standard deviation. Left: of the intervals that should hold the "
    "answer with some probability, how many do; a line above the diagonal is too careful, one "
    "below it too sure. The baselines have one standard deviation for all rows. Right: predictions "
    "of held-out rows with their 95% intervals."
)
_CLASSES_CALIBRATED = (
    "Dots on the dashed line are honest: of the predictions made with 80% confidence, 80% are "
    "right. Bars are 95% intervals, long where few rows fall. Beside it, how often each class is "
    "taken for each other, with the numbers of rows."
)
_NUMBERS_SURPRISE = (
    "Held-out rows whose answer is the most standard deviations away from the prediction: rare "
    "cases, or mistakes in the table."
)
_CLASSES_SURPRISE = (
    "Held-out rows whose class had the lowest probability: rare cases, or mistakes in the table."
)
_NUMBERS_UNSURE = "Held-out rows with the largest standard deviation, far from the others."
_CLASSES_UNSURE = "Held-out rows whose most probable class is the least probable."


def _lead(results: Results) -> str:
    task = results.target.task
    name = html.escape(results.table.path.name)
    return (
        f"{len(results.answers)} rows of <b>{name}</b>, {len(results.model.training.used)} columns "
        f"made into {len(results.model.encoder.features)} features; {task}, because "
        f"{html.escape(results.target.why)}. Exact Bayesian inference, no training loop; every "
        f"score is of rows that were held out in {results.folds}-fold cross-validation."
    )


def _numbers(results: Results) -> str:
    colours = ("blue", "orange", "green")
    row = results.rows[0]
    cards = []
    for measure, colour in zip([m for m in MEASURES[results.target.task] if m.card], colours):
        value = shown(measure, row.scores[measure.key])
        cards.append(f'<div style="--c:var(--{colour})"><b>{value}</b>{measure.card}</div>')
    return "\n".join(cards)


def _compared(results: Results) -> str:
    words = (
        "All predictors see the same features and the same folds; best in bold. Negative "
        "log-likelihood (NLL, in nats) "
    )
    if results.target.task == "regression":
        return words + (
            "and RMSE are better when lower. 50%, 90%, 95%: how many answers are inside the "
            "intervals of that probability. The baselines' standard deviation is that of their "
            "errors on training rows that were held out from them."
        )
    return words + (
        "and calibration error (ECE) are better when lower. For NLL, probabilities below 1e-6 "
        "count as 1e-6."
    )


def _rows(results: Results) -> str:
    measures = MEASURES[results.target.task]
    top = {m.key: best(m, [r.scores[m.key] for r in results.rows]) for m in measures}
    lines = []
    for r in results.rows:
        cells = []
        for m in measures:
            text = shown(m, r.scores[m.key])
            strong = r.scores[m.key] == top[m.key]
            cells.append(f"<td><strong>{text}</strong></td>" if strong else f"<td>{text}</td>")
        lines.append(
            f'<tr class="{r.kind}"><th scope="row">{html.escape(r.name)}</th>{"".join(cells)}'
            f"<td>{r.seconds:.1f}</td></tr>"
        )
    return "\n".join(lines)


def _figures(results: Results) -> str:
    if results.target.task == "regression":
        drawn = [figures.intervals(results), figures.answers(results)]
    else:
        drawn = [figures.calibration(results), figures.confusion(results)]
    return "\n".join(f"<figure>{one}</figure>" for one in drawn)


def _scales(results: Results) -> str:
    estimator = results.model.estimator
    found = {k: float(v) for k, v in estimator.scales_.items()}
    kernel = network_kernel(results.settings.network, results.model.features.shape[1])
    start = {k: float(prior.std) for k, prior in kernel.priors.items()}
    parts = [figures.scales(found, start)]
    if results.relevance is not None:
        parts.append(figures.relevance(results.relevance))
    return "\n".join(f"<figure>{one}</figure>" for one in parts)


def _evidence(results: Results) -> str:
    estimator = results.model.estimator
    unit = "the target's" if results.target.task == "regression" else "the class indicators'"
    how = (
        "Learning moved the standard deviations of its parameters and the noise to where the "
        "data are most probable"
        if results.settings.learn
        else "The standard deviations of its parameters and the noise are the defaults"
    )
    evidence = f"{float(estimator.log_marginal_likelihood_):.1f}".replace("-", "−")
    return (
        f"{how}: log evidence {evidence} nats, noise {rounded(float(estimator.noise_))} of {unit} "
        "variance."
    )


# --------------------------------------------------------------------------- single rows


def _surprising(results: Results) -> np.ndarray:
    found = results.predictions[0]
    if found.probabilities is not None:
        given = found.probabilities[np.arange(len(results.answers)), results.answers]
        return np.argsort(given, kind="stable")[:_WORST]
    z = np.abs(results.answers - np.asarray(found.mean)) / np.asarray(found.std)
    return np.argsort(-z, kind="stable")[:_WORST]


def _uncertain(results: Results) -> np.ndarray:
    found = results.predictions[0]
    if found.probabilities is not None:
        return np.argsort(found.probabilities.max(1), kind="stable")[:_WORST]
    return np.argsort(-np.asarray(found.std), kind="stable")[:_WORST]


def _table(results: Results, chosen: np.ndarray) -> str:
    found, answers = results.predictions[0], results.answers
    context = [c.name for c in results.model.training.used][:_CONTEXT]
    if found.probabilities is None:
        heads = ["row", "answer", "prediction", "95% interval", "deviations"]
    else:
        heads = ["row", "class", "its probability", "predicted", "probability"]
    lines = []
    for i in chosen:
        if found.probabilities is None:
            mean, std = float(np.asarray(found.mean)[i]), float(np.asarray(found.std)[i])
            half = float(ndtri(0.975)) * std
            cells = [
                rounded(float(answers[i])), rounded(mean),
                f"{rounded(mean - half)} to {rounded(mean + half)}",
                f"{(float(answers[i]) - mean) / std:+.1f}".replace("-", "−"),
            ]  # fmt: skip
        else:
            p, names = found.probabilities[i], results.target.classes
            guess = int(p.argmax())
            cells = [_cut(names[answers[i]]), f"{p[answers[i]]:.1%}", _cut(names[guess]),
                     f"{p[guess]:.1%}"]  # fmt: skip
        place = int(results.places[i])
        shown_values = [_cut(str(results.table.frame[c].iloc[place - 1])) for c in context]
        body = "".join(f"<td>{html.escape(c)}</td>" for c in [*cells, *shown_values])
        lines.append(f'<tr><th scope="row">{place}</th>{body}</tr>')
    top = "".join(f"<th>{html.escape(_cut(h))}</th>" for h in [*heads, *context])
    return f"<thead><tr>{top}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody>"


def _cut(text: str) -> str:
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


# --------------------------------------------------------------------------- columns


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    return "<ul>\n" + "\n".join(f"<li>{html.escape(n)}</li>" for n in notes) + "\n</ul>"


_DONE = {
    "number": "missing values by the median; mean 0, variance 1",
    "boolean": "yes 1, no 0; missing values by the more frequent one",
    "date": "days, and place in the year, the week and the day",
    "category": "one feature for each category; rare ones together",
}


def _column(results: Results, column: Column) -> str:
    name = html.escape(_cut(column.name))
    notes = " ".join(column.notes)
    if column.kind == "dropped":
        words = html.escape(f"{column.why}. {notes}".strip())
        return (
            f'<tr class="dropped"><th scope="row">{name}</th><td class="text">not used</td>'
            f'<td></td><td>0</td><td class="words">{words}</td></tr>'
        )
    values = results.model.training.values[column.name]
    missing = int(np.sum(values == "")) if values.dtype == object else int(np.isnan(values).sum())
    count = Counter(f.column for f in results.model.encoder.features)[column.name]
    words = _DONE[column.kind]
    if missing and column.kind != "category":
        words += "; one feature says where values are missing"
    return (
        f'<tr><th scope="row">{name}</th><td class="text">{column.kind}</td><td>{missing}</td>'
        f'<td>{count}</td><td class="words">{html.escape(f"{words}. {notes}".strip())}</td></tr>'
    )


def _how(results: Results) -> str:
    s = results.settings
    learned = (
        "Standard deviations of the parameters and the noise are learned anew in every fold by "
        "the marginal likelihood of its training rows."
        if s.learn
        else "Standard deviations of the parameters and the noise were left at their defaults."
    )
    return (
        f"Fillings, scales and categories come from the training rows of each fold alone. "
        f"{learned} Rows are numbered from 1 below the column names. Standard deviations are "
        f"those of a new observation, noise included. Seed {s.seed}."
    )
