"""Comparing the limit of a network with random finite networks of growing width."""

from __future__ import annotations

import functools
import inspect
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from widelimit.batches import check_inputs
from widelimit.errors import NarrowWidthWarning
from widelimit.finite._axes import last_layer
from widelimit.finite._empirical import CHANNELS, is_linear, of_key, sampler
from widelimit.finite._report import Conclusion, Estimate, Report, Row
from widelimit.finite._statistics import (
    Moments,
    decide,
    extrapolate,
    log_slope,
    natural_scale,
    summary,
)
from widelimit.finite._widen import CannotWidenError, Network, network, widen
from widelimit.kernel import Kernel
from widelimit.models import Description, describe
from widelimit.priors import Prior

WORK = 4e11
"""Floating-point operations spent on one width, unless draws are given."""

PILOT, CHUNK, MOST = 256, 256, 60_000
"""Draws before their number is chosen, in one compiled call, and at most."""

FEWEST = 16
"""Draws at any cost."""

PRECISION = 12
"""The standard error aimed at is the tolerance over this."""

SAMPLING = 150.0
"""Floating-point operations that one random number is worth."""


def verify(
    model: Any,
    *arguments: Any,
    params: Any = None,
    x: PyTree = None,
    prior: Any = None,
    trainable: Any = None,
    draws: int | None = None,
    multipliers: Sequence[float] = (1, 2, 4, 8),
    make: Callable[[float], Any] | None = None,
    key: Any = None,
    ntk: bool = True,
    tolerance: float = 0.03,
    progress: bool = True,
) -> Report:
    r"""Compare the limit kernels of a network with finite networks drawn from its prior.

    .. math::
        \hat K_n(x, x') = \frac{1}{C} \sum_c f_c(x) f_c(x'), \qquad
        \hat\Theta_n(x, x') = \frac{1}{C} \sum_c \Big\langle
        \frac{\partial f_c(x)}{\partial\theta}, \frac{\partial f_c(x')}{\partial\theta}
        \Big\rangle

    (the first with the last layer's parameters integrated out exactly, where f is linear in them)
    are averaged over draws of the parameters at each width n, and their deviation from the limit
    is extrapolated to infinite width. The network is widened by enlarging the arrays that its
    own code is run with; standard deviations change so that the NNGP limit does not. Wider
    networks are compared with their own limit, since the NTK may depend on the width.

    Parameters
    ----------
    model, params
        As for :func:`widelimit.kernel`: ``verify(f, params, x)`` or ``verify(module, x)``; also a
        :class:`widelimit.Kernel`, ``verify(kernel, x)``.
    x
        A batch of inputs, shape (n, *shape), or a pytree of them; a few examples suffice.
    prior, trainable
        As for :func:`widelimit.kernel`.
    draws
        Random networks at each width; by default as many as the tolerance asks for, within a
        fixed amount of work.
    multipliers
        Multiples of the given widths; fractions are allowed where sizes stay whole.
    make
        A function of the multiplier that returns ``(f, params)`` or a module, used in place of
        automatic widening. Its priors are its own.
    key
        A random key, ``jax.random.key(0)`` by default.
    ntk
        Whether to compare tangent kernels as well.
    tolerance
        The relative error, in units of sqrt(K(x, x) K(x', x')), that the verdict is about:
        "agrees" means that errors above it are excluded, "disagrees" that an error above a fifth
        of it is significant at five standard errors.
    progress
        Whether to show a progress bar where work takes longer than a second, on terminals.

    Returns
    -------
    Report

    Raises
    ------
    WideLimitError
        If the network has no limit as written.
    ValueError
        If the inputs, draws, multipliers or tolerance make no sense.

    Notes
    -----
    Finite-width corrections in powers of 1/n: Dyer, Gur-Ari, 2020, arXiv:1909.11304. Parameters
    are drawn as Gaussians with the mean and the standard deviation of the prior.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, widelimit as wl
    >>> def f(params, x):
    ...     w1, w2 = params
    ...     h = jax.nn.relu(w1 @ x / jnp.sqrt(x.size))
    ...     return w2 @ h / jnp.sqrt(h.size)
    >>> shapes = [jax.ShapeDtypeStruct((64, 3), float), jax.ShapeDtypeStruct((1, 64), float)]
    >>> wl.verify(f, shapes, jnp.eye(3)[:2]).agrees
    True
    """
    params, x = _arguments(arguments, params, x)
    multipliers = _multipliers(multipliers)
    if draws is not None and (not isinstance(draws, int) or draws < 2):
        msg = f"draws is a whole number of at least 2, got {draws!r}"
        raise ValueError(msg)
    if not 0 < tolerance < 1:
        msg = f"tolerance is a relative error between 0 and 1, got {tolerance!r}"
        raise ValueError(msg)
    x, _, _ = check_inputs(x, None)
    key = jax.random.key(0) if key is None else key
    if make is None:
        base = network(_description(model, params, prior, trainable), x)
        networks, notes = _widened(base, x, multipliers)
    else:
        networks, notes = _made(make, x, multipliers, prior, trainable)
    kinds = ("nngp", "ntk") if ntk else ("nngp",)
    with _Bar(len(networks), progress) as bar:
        results = []
        for i, (multiplier, net) in enumerate(networks):
            start = time.perf_counter()
            moments = _sample(net, x, kinds, jax.random.fold_in(key, i), draws, tolerance, bar)
            results.append(_Width(multiplier, net, moments, time.perf_counter() - start))
    return _report(results, kinds, tolerance, notes)


@dataclass(frozen=True)
class _Width:
    multiplier: float
    network: Network
    moments: dict[str, Moments]
    seconds: float


# --------------------------------------------------------------------------- arguments


def _arguments(arguments: tuple[Any, ...], params: Any, x: Any) -> tuple[Any, Any]:
    given = list(arguments)
    if x is None:
        if not given:
            msg = "verify needs inputs: verify(f, params, x) or verify(module, x)"
            raise ValueError(msg)
        x = given.pop()
    if given and params is None:
        params = given.pop(0)
    if given:
        msg = "verify takes a model, its parameters if it is a function, and a batch of inputs"
        raise ValueError(msg)
    return params, x


def _multipliers(multipliers: Sequence[float]) -> tuple[float, ...]:
    out = tuple(sorted({float(m) for m in multipliers}))
    if not out or not all(math.isfinite(m) and m > 0 for m in out):
        msg = f"multipliers are positive numbers, got {tuple(multipliers)!r}"
        raise ValueError(msg)
    return out


def _description(model: Any, params: Any, prior: Any, trainable: Any) -> Description:
    if not isinstance(model, Kernel):
        return describe(model, params, prior=prior, trainable=trainable)
    if params is not None or prior is not None or trainable is not None:
        msg = "a Kernel has its parameters and priors already: verify(kernel, x)"
        raise ValueError(msg)
    priors = tuple(
        Prior(p.mean, std, p.distribution)
        for p, std in zip(model.description.priors, model.stds)
    )
    return replace(model.description, priors=priors)


def _widened(
    base: Network, x: Any, multipliers: tuple[float, ...]
) -> tuple[list[tuple[float, Network]], list[str]]:
    if not base.width:
        note = "the network has no hidden width: its kernels are exact at any size"
        return [(1.0, base)], [note]
    if multipliers == (1.0,):
        return [(1.0, base)], []
    nngp = base.kernel.nngp(x)
    out: list[tuple[float, Network]] = []
    notes: list[str] = []
    for m in multipliers:
        try:
            out.append((m, widen(base, x, m, nngp=nngp)))
        except CannotWidenError as error:
            notes.append(f"not widened by {m:g}: {error}")
    if all(m == 1 for m, _ in out) and notes:
        reason = notes[0].split(": ", 1)[1]
        notes = [f"not widened: {reason}; make=... builds wider networks"]
    if not out:
        out.append((1.0, base))
    return out, notes


def _made(
    make: Callable[[float], Any],
    x: Any,
    multipliers: tuple[float, ...],
    prior: Any,
    trainable: Any,
) -> tuple[list[tuple[float, Network]], list[str]]:
    out = []
    for m in multipliers:
        made = make(int(m) if m == int(m) else m)
        plain = isinstance(made, tuple) and len(made) == 2 and _is_function(made[0])
        model, params = made if plain else (made, None)
        out.append((m, network(_description(model, params, prior, trainable), x)))
    return out, []


def _is_function(model: Any) -> bool:
    """Whether a pair (model, other) is a function with its parameters, not a stateful module."""
    return inspect.isroutine(model) or isinstance(model, functools.partial)


# --------------------------------------------------------------------------- sampling


def _limit(net: Network, x: Any, kind: str) -> list[np.ndarray]:
    """The limit kernel of each output."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NarrowWidthWarning)
        blocks = net.kernel.nngp(x) if kind == "nngp" else net.kernel.ntk(x)
    return [np.asarray(b, np.float64) for b in jax.tree.leaves(blocks)]


def _sample(
    net: Network,
    x: Any,
    kinds: tuple[str, ...],
    key: Any,
    draws: int | None,
    tolerance: float,
    bar: _Bar,
) -> dict[str, Moments]:
    """Mean and spread of the kernels over random networks of one width."""
    moments = {}
    for kind in kinds:
        limit = _limit(net, x, kind)
        moments[kind] = Moments(
            np.concatenate([b.ravel() for b in limit]),
            np.concatenate([natural_scale(b).ravel() for b in limit]),
        )
    ntk = "ntk" in kinds
    run = sampler(net.description, net.graph, ntk=ntk, integrated=_integrated(net, x))
    affordable = int(np.clip(WORK / _cost(net, x, ntk=ntk), FEWEST, MOST))
    goal = draws or min(PILOT, affordable)
    chunk = min(CHUNK, goal)
    planned, done = draws is not None, 0
    while done < goal:
        keys = jax.random.split(jax.random.fold_in(key, done), chunk)
        kept = min(chunk, goal - done)
        for kind, blocks in zip(kinds, run(keys, x)):
            values = [np.asarray(b, np.float64).reshape(chunk, -1) for b in blocks]
            moments[kind].add(np.concatenate(values, axis=1)[:kept])
        done += kept
        bar.show(f"width {net.width or 1}", done / goal)
        if done >= goal and not planned:
            spread = max(float(np.max(m.variance, initial=0)) for m in moments.values())
            wanted = math.ceil(1.5 * spread / (tolerance / PRECISION) ** 2)
            goal = min(max(goal, wanted), affordable)
            planned = True
    bar.advance()
    return moments


def _integrated(net: Network, x: Any) -> tuple[int, ...]:
    """The parameters over which one draw of the NNGP can be averaged exactly."""
    chosen = last_layer(net.graph)
    if not chosen or not is_linear(net.description, net.graph, x, chosen, jax.random.key(1)):
        return ()
    return chosen


def _cost(net: Network, x: Any, *, ntk: bool) -> float:
    """Floating-point operations of one draw, roughly."""
    size = sum(math.prod(a.shape) for a in net.description.arrays)
    examples = jax.tree.leaves(x)[0].shape[0]
    run = of_key(net.description, net.graph, x, ntk=False)
    flops = 2.0 * size * examples
    found = jax.jit(run).lower(jax.random.key(0)).cost_analysis()
    if isinstance(found, dict):
        flops = max(flops, float(found.get("flops", 0.0)))
    if ntk:
        (blocks,) = jax.eval_shape(run, jax.random.key(0))
        entries = sum(
            min(CHANNELS * math.isqrt(math.prod(b.shape)), examples * math.prod(out.shape))
            for b, out in zip(blocks, net.graph.outputs)
        )
        flops *= 4 * max(entries, 1)
    return 2 * flops + SAMPLING * size


# --------------------------------------------------------------------------- the report


def _report(
    results: list[_Width], kinds: tuple[str, ...], tolerance: float, notes: list[str]
) -> Report:
    rows = tuple(
        Row(
            r.multiplier,
            r.network.width,
            _estimate(r.moments["nngp"]),
            _estimate(r.moments["ntk"]) if "ntk" in kinds else None,
            r.seconds,
        )
        for r in results
    )
    conclusions = {kind: _conclude(results, kind, tolerance) for kind in kinds}
    if any(c.verdict == "inconclusive" for c in conclusions.values()):
        hint = "inconclusive"
        if len(results) == 1 and results[0].network.width:
            hint += ": at one width a finite-width bias cannot be told from an error"
        else:
            hint += f": {tolerance:.2g} was not resolved; give more draws or larger multipliers"
        notes = [*notes, hint]
    return Report(rows, conclusions["nngp"], conclusions.get("ntk"), tolerance, tuple(notes))


def _estimate(m: Moments) -> Estimate:
    top = max(float(np.max(np.abs(m.limit), initial=0)), 1e-300)
    error = float(np.max(np.abs(m.mean) * m.scale, initial=0)) / top
    noise = float(np.max(m.standard_error * m.scale, initial=0)) / top
    z = m.mean / np.maximum(m.standard_error, 1e-12)
    deviation, deviation_error = m.deviation()
    return Estimate(m.count, error, noise, deviation, deviation_error, *summary(z))


def _conclude(results: list[_Width], kind: str, tolerance: float) -> Conclusion:
    moments = [r.moments[kind] for r in results]
    widths = [r.network.width or 1 for r in results]
    sizes = np.array([r.network.width or r.multiplier for r in results], float)
    biased = any(r.network.width for r in results)
    fit = extrapolate(
        np.min(sizes) / sizes,
        np.stack([m.mean for m in moments]),
        np.stack([m.standard_error for m in moments]),
        np.stack([m.skewness for m in moments]),
        np.array([m.count for m in moments]),
        biased=biased,
    )
    allowance = 0.0
    if biased and len(set(widths)) == 1:
        allowance = 10.0 * results[0].network.axes.depth() / widths[0]
    verdict, resolution = decide(fit, tolerance, allowance)
    worst = int(np.argmax(np.abs(fit.z))) if fit.z.size else 0
    spread = [m.deviation() for m in moments]
    line = log_slope([float(w) for w in widths], [d for d, _ in spread], [e for _, e in spread])
    return Conclusion(
        verdict,  # type: ignore[arg-type]
        float(fit.value[worst]),
        float(fit.standard_error[worst]),
        float(fit.z[worst]),
        fit.critical,
        resolution,
        None if line is None else line.slope,
        None if line is None else line.standard_error,
    )


# --------------------------------------------------------------------------- progress


class _Bar:
    """A progress bar that appears after a second, on terminals."""

    def __init__(self, total: int, wanted: bool) -> None:
        self._console = Console(stderr=True)
        self._wanted = wanted and self._console.is_terminal
        self._total, self._done = total, 0
        self._start = time.perf_counter()
        self._bar: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, label: str, part: float) -> None:
        """The state of the current step, ``part`` of it done."""
        if not self._wanted:
            return
        if self._bar is None:
            if time.perf_counter() - self._start < 1:
                return
            bar = self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
                console=self._console, transient=True,
            )
            bar.start()
            self._task = bar.add_task(label, total=self._total)
        self._bar.update(self._task, description=label, completed=self._done + part)

    def advance(self) -> None:
        """One step is done."""
        self._done += 1
