"""Real networks trained on digits against what their tangent kernels predict.

    python benchmarks/dynamics/run.py [--report]

Two questions. *Widths*: how far is one network, trained by full-batch gradient descent, from the
linearised one, and how does that fall with the width? *Ensembles*: are many trained networks
distributed like the predicted Gaussian? Every training run is appended to ``results.jsonl`` as it
ends and not repeated; ``--report`` only writes ``results.md`` and ``docs/dynamics.png``.
"""

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from scipy.stats import chi2, wishart
from sklearn.datasets import load_digits

import widelimit as wl

HERE = Path(__file__).parent
RESULTS = HERE / "results.jsonl"
FIGURE = HERE.parents[1] / "docs" / "dynamics.png"

TIMES = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256]
SEEDS = {64: 10, 128: 10, 256: 10, 512: 8, 1024: 6, 2048: 8, 4096: 6}
EXAMPLES, SHOWN = 64, 6

EARLY = 16


def share(row, name, k):
    """A deviation as a share of how far the outputs moved; both depend on the draw alike."""
    return row[name][k] / row["movement"][k]


MOVED = lambda r: r["movement"][-1]
COLUMNS = {
    "own early": lambda r: share(r, "own", TIMES.index(EARLY)),
    "own": lambda r: share(r, "own", -1),
    "limit early": lambda r: share(r, "limit", TIMES.index(EARLY)),
    "limit": lambda r: share(r, "limit", -1),
    "drift": lambda r: r["kernel_drift"],
    "weights": lambda r: r["weights"],
}

ENSEMBLES = {64: 4000, 128: 4000, 512: 4000}
CHUNK, FEW, OTHERS = 250, 16, 12


def network(p, x):
    """Two hidden layers in NTK parameterization; every weight is drawn from N(0, 1)."""
    h = jax.nn.relu(p[0] @ x * (2 / x.size) ** 0.5)
    h = jax.nn.relu(p[1] @ h * (2 / h.size) ** 0.5)
    return p[2] @ h / h.size**0.5


def shapes(width, outputs):
    return [(width, 64), (width, width), (outputs, width)]


def structs(width, outputs):
    return [jax.ShapeDtypeStruct(s, jnp.float64) for s in shapes(width, outputs)]


def drawn(key, width, outputs):
    keys = jax.random.split(key, 3)
    return [jax.random.normal(k, s, jnp.float32) for k, s in zip(keys, shapes(width, outputs))]


def digits(classes=range(10)):
    """Standardised images and labels, in a random order."""
    images, labels = load_digits(return_X_y=True)
    kept = np.isin(labels, list(classes))
    images, labels = images[kept], labels[kept]
    images = (images - images.mean()) / images.std()
    order = np.random.default_rng(0).permutation(len(labels))
    return images[order], labels[order]


def descent(p, x, y, rate, times):
    """The parameters after some numbers of steps on ½ Σ (f - y)²."""
    outputs = lambda p: jax.vmap(lambda e: network(p, e))(x)
    slope = jax.grad(lambda p: jnp.sum((outputs(p) - y) ** 2) / 2)
    step = lambda _, p: jax.tree.map(lambda a, g: a - rate * g, p, slope(p))
    passed = 0
    for time in times:
        p = jax.lax.fori_loop(0, time - passed, step, p)
        passed = time
        yield p


# ------------------------------------------------------------------------ widths


def width_problem():
    images, labels = digits()
    y = np.eye(10)[labels] - 0.1
    kernel = wl.kernel(network, structs(64, 10))
    x, x_star = images[:EXAMPLES], images[EXAMPLES : 2 * EXAMPLES]
    stable = wl.dynamics.largest_learning_rate(kernel.ntk(x))
    return kernel, x, y[:EXAMPLES], x_star, stable.safe / 4


def one_width(problem, width, seed):
    """Deviations of one trained network from its own linearisation and from the limit's."""
    kernel, x, y, x_star, rate = problem
    start = drawn(jax.random.fold_in(jax.random.key(1), seed), width, 10)
    single = lambda a: jnp.asarray(a, jnp.float32)
    batch = jax.jit(lambda p, x: jax.vmap(lambda e: network(p, e))(x))
    initial = lambda x: np.asarray(batch(start, single(x)), float)

    def own(a, b):
        return wl.empirical_ntk(network, start, single(a), single(b)).astype(float)

    given = {"start": initial, "method": "descent", "learning_rate": rate}
    predicted = {
        "own": wl.dynamics.of_kernel(own, x, y, **given).outputs(x_star, TIMES),
        "limit": wl.dynamics.of_kernel(kernel.ntk, x, y, **given).outputs(x_star, TIMES),
    }
    tracker = wl.track(network, start, single(x), single(y), trace_axes=-1, sharpness_steps=0)
    run = jax.jit(lambda p: list(descent(p, single(x), single(y), rate, TIMES)))
    params = run(start)
    found = np.stack([np.asarray(batch(p, single(x_star)), float) for p in params])
    last = tracker(params[-1], TIMES[-1])
    middle = float(jnp.linalg.norm(params[-1][1] - start[1]) / jnp.linalg.norm(start[1]))
    rms = lambda a: np.sqrt(np.mean(np.asarray(a) ** 2, (1, 2)))
    out = {
        "part": "width", "width": width, "seed": seed,
        "own": rms(found - predicted["own"]).tolist(),
        "limit": rms(found - predicted["limit"]).tolist(),
        "movement": rms(found - found[0]).tolist(),
        "kernel_drift": last["kernel_drift"], "weights": middle,
    }  # fmt: skip
    if seed == 0:
        # The true class of some test digits, for the figure.
        which = np.argmax(np.eye(10)[digits()[1][EXAMPLES : 2 * EXAMPLES]], 1)[:SHOWN]
        pick = lambda a: np.asarray(a)[:, np.arange(SHOWN), which].round(5).tolist()
        out |= {"found": pick(found), "predicted": pick(predicted["own"])}
    return out


# --------------------------------------------------------------------- ensembles


def ensemble_problem():
    images, labels = digits((3, 8))
    y = np.where(labels == 3, 1.0, -1.0)
    kernel = wl.kernel(network, structs(64, 1))
    x, x_star = images[:FEW], images[FEW : FEW + OTHERS]
    rate = wl.dynamics.largest_learning_rate(kernel.ntk(x)).safe / 4
    return kernel, x, y[:FEW], x_star, rate


def trainer(problem, width):
    """A compiled function from keys to outputs of trained networks, shape (networks, OTHERS)."""
    _, x, y, x_star, rate = problem
    x, y, x_star = (jnp.asarray(a, jnp.float32) for a in (x, y[:, None], x_star))

    def one(key):
        (p,) = descent(drawn(key, width, 1), x, y, rate, [TIMES[-1]])
        return jax.vmap(lambda e: network(p, e)[0])(x_star)

    return jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=10))


def one_chunk(train, width, chunk):
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(2), width), chunk)
    found = np.asarray(train(jax.random.split(key, CHUNK)), float)
    return {
        "part": "ensemble", "width": width, "chunk": chunk, "count": CHUNK,
        "sum": found.sum(0).tolist(), "products": (found.T @ found).tolist(),
    }  # fmt: skip


# ------------------------------------------------------------------------ report


def fitted(widths, values):
    """The slope of log values against log widths, and its standard error."""
    u, v = np.log(widths), np.log(values)
    u = u - u.mean()
    slope = np.sum(u * v) / np.sum(u * u)
    rest = v - v.mean() - slope * u
    return slope, np.sqrt(np.sum(rest**2) / (len(v) - 2) / np.sum(u * u))


def null_of_covariance(cov, spread, half, count, draws=2000):
    """Root mean squares of z of the covariance's entries, for samples of the Gaussian itself."""
    samples = wishart.rvs(count - 1, cov / (count - 1), size=draws, random_state=0)
    z = ((samples - cov) / spread)[:, half[0], half[1]]
    return np.sqrt(np.mean(z**2, 1))


def ensemble_rows(rows, problem):
    """Moments of the trained networks beside the predicted ones, for each width."""
    kernel, x, y, x_star, rate = problem
    gaussian = wl.predict.gradient_flow(
        kernel, x, y[:, None], method="descent", learning_rate=rate
    )
    mean = np.asarray(gaussian.mean(x_star, TIMES[-1]))[:, 0]
    cov = np.asarray(gaussian.covariance(x_star, TIMES[-1]))
    out = []
    for width in ENSEMBLES:
        mine = [r for r in rows if r["part"] == "ensemble" and r["width"] == width]
        if not mine:
            continue
        count = sum(r["count"] for r in mine)
        total = sum(np.array(r["sum"]) for r in mine) / count
        product = sum(np.array(r["products"]) for r in mine) / count
        found = (product - np.outer(total, total)) * count / (count - 1)
        error = np.sqrt(np.diag(cov) / count)
        variances = np.diag(cov)
        spread = np.sqrt((np.outer(variances, variances) + cov**2) / (count - 1))
        half = np.triu_indices(len(cov))
        # Var(Σ sample variances / Σ variances) for a Gaussian is 2 tr(C²) / tr(C)² / (n - 1).
        ratio_error = np.sqrt(2 * np.sum(cov**2) / (count - 1)) / np.trace(cov)
        out.append({
            "width": width, "count": count, "mean": total, "cov": found,
            "z_mean": (total - mean) / error, "z_cov": ((found - cov) / spread)[half],
            "null": null_of_covariance(cov, spread, half, count),
            # The mean's whole deviation in units of its covariance: χ² with OTHERS degrees.
            "chi2": float((total - mean) @ np.linalg.solve(cov / count, total - mean)),
            "ratio": np.trace(found) / np.trace(cov), "ratio_error": ratio_error,
            "offset": np.sqrt(np.mean((total - mean) ** 2)) / np.sqrt(np.mean(mean**2)),
            "offset_error": np.sqrt(np.mean(error**2)) / np.sqrt(np.mean(mean**2)),
        })  # fmt: skip
    return mean, cov, out


def report(rows):
    by_width = {
        w: [r for r in rows if r["part"] == "width" and r["width"] == w] for w in SEEDS
    }
    by_width = {w: r for w, r in by_width.items() if r}
    lines = [
        "# Training against its prediction", "",
        f"Digits, two hidden ReLU layers in NTK parameterization, full-batch gradient descent for "
        f"{TIMES[-1]} steps at a quarter", "of the largest stable learning rate, trained in "
        "float32.", "",
        "## Widths", "",
        f"{EXAMPLES} training and {EXAMPLES} test digits, ten outputs; means over seeds ± standard "
        "error. How far the test outputs moved in all", "steps (root mean square). How far the "
        "network is from the prediction of its own tangent kernel at initialisation (*own*), and",
        "from that of the infinitely wide network that starts at the same outputs (*infinite*), "
        f"after {EARLY} steps and after {TIMES[-1]}, as a share of how far", "the outputs have "
        "moved by then. The relative change of the tangent kernel (its mean over outputs) and of "
        "the middle weight matrix.", "",
        f"| width | seeds | outputs moved | own, step {EARLY} | own, step {TIMES[-1]} | infinite, "
        f"step {EARLY} | infinite, step {TIMES[-1]} | kernel drift | weights |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]  # fmt: skip

    def cell(values):
        values = np.asarray(values)
        error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
        return f"{values.mean():.4f} ± {error:.4f}"

    for w, mine in by_width.items():
        cells = [cell([value(r) for r in mine]) for value in (MOVED, *COLUMNS.values())]
        lines.append(f"| {w} | {len(mine)} | " + " | ".join(cells) + " |")
    slopes = {}
    w = np.array([w for w, mine in by_width.items() for _ in mine])
    for name, value in COLUMNS.items():
        v = np.array([value(r) for mine in by_width.values() for r in mine])
        slopes[name] = [fitted(w[part], v[part]) for part in (w >= 0, w >= 512)]
    for k, title in enumerate(("slope, all", "slope, 512 up")):
        cells = [f"{s[k][0]:.3f} ± {s[k][1]:.3f}" for s in slopes.values()]
        lines.append(f"| {title} | | | " + " | ".join(cells) + " |")
    lines += [
        "", "Slopes are of log against log, one point for each network, with the standard error of "
        "the fit. Lee et al. 2019 prove", "that the deviation from the own kernel's prediction "
        "falls as width^(-1/2) or faster. The kernel at initialisation", "differs from the limit "
        "by width^(-1/2); late in training that deviation falls more slowly at narrow widths,",
        "presumably because directions with small eigenvalues, in which the two kernels differ "
        "most, have been learned by then.", "",
    ]  # fmt: skip
    problem = ensemble_problem()
    mean, cov, ensembles = ensemble_rows(rows, problem)
    lines += [
        "## Ensembles", "",
        f"Threes against eights, {FEW} training digits, {OTHERS} test digits, one output. Mean and "
        "covariance of trained networks", "beside those of `wl.predict.gradient_flow(..., method="
        "\"descent\")`. z is in units of the standard error for a sample of the", "predicted "
        "Gaussian; p is the probability of a larger χ², or rms z (by simulation, as the entries "
        "are correlated), for such a sample.", "Finite width adds a bias to the mean, in units of "
        f"the covariance bias² = (χ² − {OTHERS}) / networks, and to the variance.", "",
        f"| width | networks | mean: largest abs z | χ² ({OTHERS} degrees) | p | bias² | "
        "deviation, relative (its sampling error) | covariance: largest abs z | rms z | p | total "
        "variance / predicted |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    for e in ensembles:
        excess = e["chi2"] - OTHERS
        error = np.sqrt(2 * OTHERS + 4 * max(excess, 0))
        rms = np.sqrt(np.mean(e["z_cov"] ** 2))
        lines.append(
            f"| {e['width']} | {e['count']} | {np.abs(e['z_mean']).max():.2f} | {e['chi2']:.1f} | "
            f"{chi2.sf(e['chi2'], OTHERS):.2g} | "
            f"{excess / e['count']:.4f} ± {error / e['count']:.4f} | "
            f"{e['offset']:.4f} ({e['offset_error']:.4f}) | "
            f"{np.abs(e['z_cov']).max():.2f} | {rms:.2f} | {np.mean(e['null'] >= rms):.2g} | "
            f"{e['ratio']:.4f} ± {e['ratio_error']:.4f} |"
        )
    HERE.joinpath("results.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    draw(by_width, slopes, mean, cov, ensembles)


def draw(by_width, slopes, mean, cov, ensembles):
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

    figure = Figure(figsize=(12, 3.7), layout="constrained")
    a, b, c = figure.subplots(1, 3, width_ratios=(1, 1.15, 1))
    widths = np.array(list(by_width))
    for name, label, colour in (
        ("own", f"own kernel, step {TIMES[-1]}", "#1b6ca8"),
        ("limit early", f"infinite kernel, step {EARLY}", "#e0a030"),
        ("limit", f"infinite kernel, step {TIMES[-1]}", "#c7522a"),
    ):
        value = COLUMNS[name]
        for w, mine in by_width.items():
            a.plot([w] * len(mine), [value(r) for r in mine], ".", color=colour, alpha=0.4,
                   markersize=4)
        means = [np.exp(np.mean([np.log(value(r)) for r in mine])) for mine in by_width.values()]
        slope = slopes[name][0]
        label = f"{label}: slope {slope[0]:.2f} ± {slope[1]:.2f}"
        a.plot(widths, means, "-o", color=colour, markersize=4, linewidth=1.3, label=label)
    guide = 0.55 * np.exp(np.mean([np.log(COLUMNS["own"](r)) for r in by_width[512]]))
    a.plot(widths, guide * (widths / 512.0) ** -0.5, ":", color="0.4", label="width$^{-1/2}$")
    a.set(xscale="log", yscale="log", xlabel="width", ylabel="deviation / movement of test outputs")
    a.xaxis.set_major_locator(FixedLocator(widths))
    a.xaxis.set_major_formatter(ScalarFormatter())
    a.yaxis.set_major_locator(FixedLocator([0.01, 0.02, 0.05, 0.1, 0.2, 0.5]))
    a.yaxis.set_major_formatter(ScalarFormatter())
    a.set_ylim(0.007, 0.4)
    a.xaxis.set_minor_locator(NullLocator())
    a.yaxis.set_minor_locator(NullLocator())
    a.tick_params(axis="x", labelrotation=45)
    a.set_title("One network and its prediction", loc="left", fontsize=10)
    a.legend(fontsize=7.5, frameon=False, loc="lower left")

    for width, style, shade in ((min(by_width), "o", "#c7522a"), (max(by_width), "s", "#1b6ca8")):
        first = next((r for r in by_width[width] if r["seed"] == 0), None)
        if first is None:
            continue
        found, predicted = np.array(first["found"]), np.array(first["predicted"])
        for k in range(3):
            line = f"width {width}, predicted" if k == 0 else None
            dots = f"width {width}, trained" if k == 0 else None
            b.plot(TIMES, predicted[:, k], "-", color=shade, linewidth=1.2, label=line)
            b.plot(TIMES, found[:, k], style, color=shade, markersize=3.5, label=dots)
    b.set_xscale("symlog", linthresh=1)
    b.set_xlim(0, 300)
    b.xaxis.set_major_locator(FixedLocator([0, 1, 4, 16, 64, 256]))
    b.xaxis.set_major_formatter(ScalarFormatter())
    b.xaxis.set_minor_locator(NullLocator())
    b.set(xlabel="step", ylabel="output of the true class")
    b.set_title("Three test digits during training", loc="left", fontsize=10)
    b.legend(fontsize=8, frameon=False)

    place = np.arange(len(mean))
    sd = np.sqrt(np.diag(cov))
    c.errorbar(place, mean, sd, fmt="none", ecolor="0.75", elinewidth=7, label="predicted ± sd")
    for e, colour, shift in zip(ensembles[::2], ("#c7522a", "#1b6ca8"), (-0.18, 0.18)):
        c.errorbar(
            place + shift, e["mean"], np.sqrt(np.diag(e["cov"])), fmt="o", color=colour,
            markersize=3, elinewidth=1.2, label=f"{e['count']} networks of width {e['width']}",
        )  # fmt: skip
    c.set(xlabel="test digit", ylabel="output", xticks=place[::2])
    c.set_ylim(top=max(mean + sd) + 0.9)
    c.set_title("Trained ensembles", loc="left", fontsize=10)
    c.legend(fontsize=8, frameon=False, loc="upper left")
    for ax in (a, b, c):
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
    figure.savefig(FIGURE, dpi=150)


def main():
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser()
    parser.add_argument("--report", action="store_true")
    only_report = parser.parse_args().report
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()] if (
        RESULTS.exists()) else []
    name = lambda r: (r["part"], r["width"], r["seed"] if r["part"] == "width" else r["chunk"])
    done = {name(r) for r in rows}
    jobs = [("width", w, s) for w, seeds in SEEDS.items() for s in range(seeds)]
    jobs += [("ensemble", w, c) for w, count in ENSEMBLES.items() for c in range(count // CHUNK)]
    jobs = [] if only_report else [j for j in jobs if j not in done]
    widths, ensembles = (width_problem(), ensemble_problem()) if jobs else (None, None)
    trainers = {}
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn(),
               TextColumn("{task.fields[now]}"))
    with Progress(*columns) as progress, RESULTS.open("a") as out:
        bar = progress.add_task("training", total=len(jobs), now="")
        for part, width, number in jobs:
            progress.update(bar, now=f"{part} {width}")
            if part == "width":
                row = one_width(widths, width, number)
            else:
                if width not in trainers:
                    trainers[width] = trainer(ensembles, width)
                row = one_chunk(trainers[width], width, number)
            rows.append(row)
            out.write(json.dumps(row) + "\n")
            out.flush()
            progress.advance(bar)
    report(rows)


if __name__ == "__main__":
    main()
