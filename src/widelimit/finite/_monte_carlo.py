"""Kernels of any network by sampling it: means over random parameters, with standard errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from widelimit.batches import check_inputs
from widelimit.finite._empirical import draw, floating
from widelimit.kernel import Kernels
from widelimit.models import Description, describe
from widelimit.tangent import empirical_nngp, empirical_ntk
from widelimit.tiles import watched

CHUNK = 32
"""Draws in one compiled call."""

PILOT = 128
"""Draws before a precision is judged."""

KINDS = ("nngp", "ntk")


class Sampled(NamedTuple):
    """A kernel estimated by sampling.

    Attributes
    ----------
    mean, standard_error
        Arrays of the kernel's shape, in the pytree of the network's output.
    draws
        The number of networks.
    """

    mean: Any
    standard_error: Any
    draws: int


@dataclass
class _Sums:
    """Mean and sum of squared deviations of the draws so far, one of each for each output."""

    count: int
    mean: list[np.ndarray]
    square: list[np.ndarray]

    def add(self, count: int, means: list[np.ndarray], squares: list[np.ndarray]) -> None:
        """Join with those of other draws (Chan, Golub, LeVeque 1983)."""
        total = self.count + count
        for k, (m, s) in enumerate(zip(means, squares)):
            gap = m - self.mean[k]
            self.square[k] = self.square[k] + s + gap**2 * (self.count * count / total)
            self.mean[k] = self.mean[k] + gap * (count / total)
        self.count = total

    def standard_error(self, k: int) -> np.ndarray:
        return np.sqrt(self.square[k] / max(self.count - 1, 1) / self.count)


class MonteCarlo:
    """Kernels of random finite networks, averaged; used like :class:`widelimit.Kernel`.

    Draw k uses the same parameters for all inputs and both kernels, so that blocks of one kernel
    fit together and the whole is positive semidefinite. Draws are kept for the inputs seen last,
    and more of them continue where the last ones ended.

    Make one with :func:`widelimit.monte_carlo`.
    """

    def __init__(
        self, description: Description, key: Any, draws: int | None, precision: float | None,
        most: int, trace_axes: Any, memory: int, integers_as: Any,
    ) -> None:
        self.description = description
        self.key, self.draws, self.precision, self.most = key, draws, precision, most
        self.trace_axes, self.memory = trace_axes, memory
        self._dtype = integers_as
        self._programs: dict[Any, Callable[..., Any]] = {}
        self._last: dict[str, tuple[Any, _Sums, Any]] = {}

    def __repr__(self) -> str:
        told = f"{self.draws} draws" if self.draws else f"precision {self.precision}"
        return f"MonteCarlo({len(self.description.arrays)} arrays, {told})"

    # ----------------------------------------------------------------- readings

    def nngp(self, x1: PyTree, x2: PyTree | None = None) -> PyTree[Float[Array, "n1 n2 ..."]]:
        """The mean of f(x1) f(x2) over draws and over ``trace_axes``."""
        return self.sampled(x1, x2, "nngp").mean

    def ntk(self, x1: PyTree, x2: PyTree | None = None) -> PyTree[Float[Array, "n1 n2 ..."]]:
        """The mean of the tangent kernel over draws and over ``trace_axes``."""
        return self.sampled(x1, x2, "ntk").mean

    def both(self, x1: PyTree, x2: PyTree | None = None) -> Kernels:
        """NNGP and NTK, from the same draws."""
        return Kernels(self.nngp(x1, x2), self.ntk(x1, x2))

    def nngp_diagonal(self, x: PyTree) -> PyTree[Float[Array, "n ..."]]:
        """The mean of f(x)² for each example, shape (n, *positions)."""
        return self._diagonal(x, "nngp")

    def ntk_diagonal(self, x: PyTree) -> PyTree[Float[Array, "n ..."]]:
        """The mean tangent kernel of each example with itself, shape (n, *positions)."""
        return self._diagonal(x, "ntk")

    def sampled(self, x1: PyTree, x2: PyTree | None = None, kind: str = "nngp") -> Sampled:
        """A kernel with its standard error and the number of draws.

        Raises
        ------
        ValueError
            If shapes do not agree, inputs are not finite, or ``kind`` is neither nngp nor ntk.
        """
        if kind not in KINDS:
            msg = f"kind={kind!r}; there are nngp and ntk"
            raise ValueError(msg)
        x1, x2, _ = check_inputs(x1, x2)
        same = kind in self._last and _equal(self._last[kind][0], (x1, x2))
        sums = self._last[kind][1] if same else None
        goal = self.draws if self.draws is not None else PILOT
        sums, tree = self._until(goal, x1, x2, kind, sums)
        if self.draws is None:
            goal = self._needed(sums)
            sums, tree = self._until(goal, x1, x2, kind, sums)
            # Later blocks are made of the same draws.
            self.draws = sums.count
        self._last[kind] = ((x1, x2), sums, tree)
        dtype = self._dtype_of(x1)
        put = lambda arrays: jax.tree.unflatten(tree, [jnp.asarray(a, dtype) for a in arrays])
        errors = [sums.standard_error(k) for k in range(len(sums.mean))]
        return Sampled(put(sums.mean), put(errors), sums.count)

    def more(self, draws: int) -> None:
        """Add draws to those that every kernel is averaged over from now on."""
        if draws < 1:
            msg = f"draws is at least 1, got {draws}"
            raise ValueError(msg)
        self.draws = (self.draws or PILOT) + draws

    # ----------------------------------------------------------------- inside

    def _needed(self, sums: _Sums) -> int:
        """Draws until the largest standard error is ``precision`` of the largest entry."""
        worst = 0.0
        for k, mean in enumerate(sums.mean):
            top = np.max(np.abs(mean), initial=0.0)
            if top > 0:
                worst = max(worst, float(np.max(sums.standard_error(k)) / top))
        wanted = math.ceil(sums.count * (worst / (self.precision or 1)) ** 2)
        return min(max(wanted, sums.count), self.most)

    def _until(
        self, goal: int, x1: Any, x2: Any, kind: str, sums: _Sums | None
    ) -> tuple[_Sums, Any]:
        run = self._program(kind)
        tree = jax.tree.structure(jax.eval_shape(
            lambda x: self.description.apply(self._abstract(x1), x),
            jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x1),
        ))
        begun = 0 if sums is None else sums.count
        for start in watched(range(begun, goal, CHUNK), f"{kind} by sampling"):
            count = min(CHUNK, goal - start)
            numbers = jnp.arange(start, start + count)
            keys = jax.vmap(lambda k: jax.random.fold_in(self.key, k))(numbers)
            found = run(keys, x1, x2)
            means = [np.asarray(m, np.float64) for m, _ in found]
            squares = [np.asarray(s, np.float64) for _, s in found]
            if sums is None:
                sums = _Sums(0, [0 * m for m in means], [0 * s for s in squares])
            sums.add(count, means, squares)
        assert sums is not None
        return sums, tree

    def _abstract(self, x: Any) -> list[Any]:
        dtype = self._dtype_of(x)
        return [jnp.zeros(a.shape, dtype) for a in self.description.arrays]

    def _dtype_of(self, x: Any) -> Any:
        return self._dtype or floating(x)

    def _program(self, kind: str) -> Callable[..., Any]:
        if kind in self._programs:
            return self._programs[kind]
        d = self.description
        train = [bool(t) for t in d.trainable]

        def one(key: Any, x1: Any, x2: Any) -> list[Any]:
            arrays = draw(d, key, self._dtype_of(x1))
            apply = lambda p, x: d.apply(p, x)
            if kind == "nngp":
                out = empirical_nngp(apply, arrays, x1, x2, trace_axes=self.trace_axes)
            else:
                out = empirical_ntk(
                    apply, arrays, x1, x2, trace_axes=self.trace_axes, trainable=train
                )
            return jax.tree.leaves(out)

        def chunk(keys: Any, x1: Any, x2: Any) -> list[Any]:
            n1 = jax.tree.leaves(x1)[0].shape[0]
            n2 = n1 if x2 is None else jax.tree.leaves(x2)[0].shape[0]
            size = sum(math.prod(a.shape) for a in d.arrays)
            each = 8 * (4 * size + n1 * n2 * 4 + (n1 + n2) * math.isqrt(size) * 8)
            batch = int(np.clip(self.memory // max(each, 1), 1, keys.shape[0]))
            found = jax.lax.map(lambda k: one(k, x1, x2), keys, batch_size=batch)
            centre = [f.mean(0) for f in found]
            return [(c, ((f - c) ** 2).sum(0)) for f, c in zip(found, centre)]

        self._programs[kind] = jax.jit(chunk)
        return self._programs[kind]

    def _diagonal(self, x: PyTree, kind: str) -> Any:
        """Each example with itself: from the block of a few examples at a time."""
        x, _, _ = check_inputs(x, None)
        kernel = self.sampled(x, None, kind).mean

        def cut(k: Any) -> Any:
            half = (k.ndim - 2) // 2
            letters = "cdefghijk"[:half]
            return jnp.einsum(f"aa{letters}{letters}->a{letters}", k)

        return jax.tree.map(cut, kernel)


def _equal(old: Any, new: Any) -> bool:
    a, b = jax.tree.leaves(old), jax.tree.leaves(new)
    return jax.tree.structure(old) == jax.tree.structure(new) and all(
        x.shape == y.shape and bool(jnp.all(x == y)) for x, y in zip(a, b)
    )


def monte_carlo(
    model: Any,
    params: Any = None,
    *,
    key: Array,
    draws: int | None = None,
    precision: float | None = None,
    most: int = 100_000,
    trace_axes: Any = -1,
    prior: Any = None,
    trainable: Any = None,
    memory: int = 1 << 28,
    dtype: Any = None,
) -> MonteCarlo:
    r"""Kernels of a network's own width by sampling, for networks without a limit too.

    .. math:: \hat K(x, x') = \frac1S \sum_s \frac1C \sum_c f_c(\theta_s, x) f_c(\theta_s, x')

    and the same for the tangent kernel, with standard errors over the draws θ_s.

    Parameters
    ----------
    model, params, prior, trainable
        As for :func:`widelimit.kernel`; parameters are drawn as Gaussians with the means and
        standard deviations of the priors.
    key
        A random key; the same key is the same kernel.
    draws
        The number of networks.
    precision
        Instead of ``draws``: sample until the largest standard error is this share of the largest
        entry. It is decided for the first inputs; later ones use the same draws, so that blocks
        of one kernel fit together.
    most
        The largest number of draws for a precision.
    trace_axes
        Output axes that are averaged over: the channels. As for :func:`widelimit.empirical_ntk`;
        () for outputs without channels.
    memory
        A bound in bytes, roughly, on what draws take at the same time.
    dtype
        Of parameters and results, for inputs that are integers.

    Returns
    -------
    MonteCarlo

    Raises
    ------
    ValueError
        Unless one of ``draws`` and ``precision`` is given, and positive.
    UnknownPriorError
        If a prior cannot be determined.

    Notes
    -----
    Novak et al., Bayesian deep convolutional networks with many channels are Gaussian processes,
    2019, section 3.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, widelimit as wl
    >>> f = lambda w, x: w[1] @ jnp.maximum(w[0] @ x, 0) / 8
    >>> shapes = [jax.ShapeDtypeStruct((64, 3), float), jax.ShapeDtypeStruct((1, 64), float)]
    >>> mc = wl.monte_carlo(f, shapes, key=jax.random.key(0), draws=100)
    >>> mc.nngp(jnp.eye(3)).shape
    (3, 3)
    """
    if (draws is None) == (precision is None):
        msg = "give either draws or precision"
        raise ValueError(msg)
    if (draws is not None and draws < 2) or (precision is not None and not precision > 0):
        msg = f"draws is at least 2 and precision positive, got {draws} and {precision}"
        raise ValueError(msg)
    description = describe(model, params, prior=prior, trainable=trainable)
    return MonteCarlo(description, key, draws, precision, most, trace_axes, memory, dtype)
