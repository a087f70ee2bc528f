"""The scalar functions of a graph as dual activations, made once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np

from widelimit import duals
from widelimit.errors import NotGaussianError
from widelimit.graph import nodes as n
from widelimit.graph.scalar import evaluate
from widelimit.graph.walk import reachable
from widelimit.limit.singular import GRID, bounded_on_lines, is_finite, is_singular

Function = Callable[..., Any]


class Activations:
    """Activations by node, their products and their derivatives, shared by all evaluations."""

    def __init__(self) -> None:
        self._table: dict[tuple, Any] = {}
        self._keep: list[Any] = []

    def of(self, node: n.Apply) -> duals.Activation:
        """The activation of a pointwise node."""
        return self._once(("node", id(node)), (node,), lambda: _make(node))

    def product(self, a: duals.Activation, b: duals.Activation) -> duals.Activation:
        """U -> a(u) b(u); the parameters of both, one after the other."""

        def make() -> duals.Activation:
            k = a.n_params
            both = lambda u, *p: (a.fn(u, *p[:k]) * b.fn(u, *p[k:])).astype(u.dtype)
            return duals.shared(both, n_params=k + b.n_params)

        return self._once(("product", id(a), id(b)), (a, b), make)

    def derivative(self, a: duals.Activation) -> duals.Activation:
        """U -> a'(u), as automatic differentiation gives it."""
        return self._once(("derivative", id(a)), (a,), lambda: a.prime)

    def has_jump(self, a: duals.Activation) -> bool:
        """Whether a function jumps: its weak derivative is then no function."""
        return _remembered(_JUMPS, a, lambda: _jumps(a))

    def series(self, outputs: list[n.Node], *, derivative: bool) -> bool:
        """Whether a moment of pairs of examples has no closed form, and is a program to compile."""
        pairs: dict[tuple, tuple] = {}
        functions = [(x, self.of(x)) for x in _in_pairs(outputs) if isinstance(x, n.Apply)]
        for i, (x, f) in enumerate(functions):
            for y, g in functions[i:]:
                if f is g or set(x.draws) & set(y.draws):
                    pairs[id(f), id(g)] = f, g
        return not all(duals.is_closed(*p, derivative=derivative) for p in pairs.values())

    def kinked(self) -> bool:
        """Whether some function made so far has a kink, where close inputs lose digits."""
        made = [a for a in self._table.values() if isinstance(a, duals.Activation)]
        return any(a.n_params or a.analysis.kinks or not a.analysis.resolved for a in made)

    def check_derivative(self, node: n.Apply) -> None:
        """Refuse tangent kernels of functions whose derivative has no second moment.

        Raises
        ------
        NotGaussianError
            For a derivative that is infinite somewhere, like that of a square root at zero.
        """
        activation = self.of(node)
        if _remembered(_SLOPES, activation, lambda: not _steep(activation)):
            return
        raise steep(_name(node), node)

    def check_mixed(self, node: n.Mixed, *, derivative: bool = False) -> None:
        """Refuse functions of several fields without a second moment, or whose slope has none.

        Raises
        ------
        NotGaussianError
            For a pole, the logarithm of a negative number, or growth like exp(u²).
        """
        key = ("mixed", id(node), derivative)
        if self._once(key, (node,), lambda: bounded_on_lines(node, derivative=derivative)):
            return
        raise steep(node.name, node) if derivative else unbounded(node.name, node)

    def _once(self, key: tuple, keep: tuple, make: Callable[[], Any]) -> Any:
        if key not in self._table:
            self._keep.extend(keep)
            self._table[key] = make()
        return self._table[key]


def _in_pairs(outputs: list[n.Node]) -> list[n.Field]:
    """The fields whose moments are taken over pairs; of others only the mean is."""
    return [x for x in reachable(outputs, through_values=False) if isinstance(x, n.Field)]


_FINITE: WeakKeyDictionary = WeakKeyDictionary()
_SLOPES: WeakKeyDictionary = WeakKeyDictionary()
_JUMPS: WeakKeyDictionary = WeakKeyDictionary()
"""What was found out about each function, for as long as somebody uses it."""


def _remembered(table: WeakKeyDictionary, a: duals.Activation, find: Callable[[], bool]) -> bool:
    if a not in table:
        table[a] = find()
    return table[a]


def _make(node: n.Apply) -> duals.Activation:
    def function(u: Any, *parameters: Any) -> Any:
        u = jnp.asarray(u)
        out = jnp.asarray(evaluate(node.expression, u, parameters))
        shape = jnp.broadcast_shapes(u.shape, *(jnp.shape(p) for p in parameters))
        return jnp.broadcast_to(out, shape).astype(u.dtype)

    activation = duals.shared(function, n_params=len(node.values))
    check_finite(node, activation)
    return activation


def check_finite(node: n.Apply, activation: duals.Activation) -> None:
    """Refuse functions without a second moment under a Gaussian.

    Raises
    ------
    NotGaussianError
        For a pole, the logarithm of a negative number, or growth like exp(u²).
    """
    if node.values or _remembered(_FINITE, activation, lambda: is_finite(activation.fn)):
        return
    raise unbounded(_name(node), node)


def unbounded(name: str, node: n.Field) -> NotGaussianError:
    """The error for a function without a second moment."""
    return NotGaussianError(
        f"`{name}` is not finite, or grows too fast, on a Gaussian value",
        why="its second moment under a Gaussian does not exist (a pole, the logarithm of a "
        "negative number, or growth like exp(u²)).",
        remedy="bound the argument, for instance add a positive constant to a denominator that "
        "is a square.",
        where=node.where,
    )


def steep(name: str, node: n.Field) -> NotGaussianError:
    """The error for a function whose derivative has no second moment."""
    return NotGaussianError(
        f"the derivative of `{name}` is infinite somewhere",
        why="its second moment under a Gaussian does not exist, so the tangent kernel "
        "diverges; the NNGP is not affected.",
        remedy="smooth the function there, for instance sqrt(u² + ε) instead of |u|.",
        where=node.where,
    )


def _steep(activation: duals.Activation) -> bool:
    """Whether the derivative is singular; with parameters, at some typical values of them."""
    slope = activation.prime.fn
    if not activation.n_params:
        return is_singular(slope)
    rng = np.random.default_rng(0)
    for _ in range(2):
        typical = [np.asarray(p) for p in rng.uniform(0.6, 1.6, activation.n_params)]
        along = lambda u, p=typical: slope(u, *(jnp.asarray(x, u.dtype) for x in p))
        if np.all(np.isfinite(duals.probe(along, GRID))) and is_singular(along):
            return True
    return False


def _name(node: n.Apply) -> str:
    return getattr(node.expression, "name", "function")


def _jumps(a: duals.Activation) -> bool:
    """Look for a jump on a grid: halve the steepest cells until a step is all that is left."""
    rng = np.random.default_rng(0)
    trials = [[]] if a.n_params == 0 else [rng.uniform(-2, 2, a.n_params) for _ in range(8)]
    with np.errstate(all="ignore"), jax.ensure_compile_time_eval():
        run = jax.jit(a.fn)
        for trial in trials:
            call = lambda u, p=trial: np.asarray(run(jnp.asarray(u), *map(jnp.asarray, p)))
            grid = np.linspace(-8.0, 8.0, 4096) + 0.00123
            values = call(grid)
            order = np.argsort(-np.abs(np.diff(values)))[:64]
            low, high = grid[order], grid[order + 1]
            f_low, f_high = values[order], values[order + 1]
            for _ in range(18 if values.dtype == np.float32 else 34):
                middle = (low + high) / 2
                f_middle = call(middle)
                left = np.abs(f_middle - f_low) >= np.abs(f_high - f_middle)
                low, f_low = np.where(left, low, middle), np.where(left, f_low, f_middle)
                high, f_high = np.where(left, middle, high), np.where(left, f_middle, f_high)
            if np.max(np.abs(f_high - f_low)) > 1e-4 * (1e-6 + np.max(np.abs(values))):
                return True
    return False
