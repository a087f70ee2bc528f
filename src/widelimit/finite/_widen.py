"""The same network with wider arrays, and priors that keep its limit."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import numpy as np

from widelimit.errors import NarrowWidthWarning, WideLimitError
from widelimit.finite._axes import Axes, Growth
from widelimit.graph import nodes as n
from widelimit.kernel import Kernel
from widelimit.models import Description
from widelimit.priors import Prior
from widelimit.trace import Graph

SAME_LIMIT = 1e-5


class CannotWidenError(Exception):
    """The network's code does not accept wider arrays; the text says why."""


@dataclass(frozen=True)
class Network:
    """A description with its kernels and its width axes."""

    description: Description
    kernel: Kernel
    graph: Graph
    axes: Axes

    @property
    def width(self) -> int:
        """The smallest number of terms in a sum over width, 0 if there is none."""
        return min(self.axes.widths(), default=0)


def network(description: Description, x: Any, *, quiet: bool = False) -> Network:
    """Read a description for inputs shaped like ``x``; raises WideLimitError."""
    kernel = Kernel(description)
    with warnings.catch_warnings():
        if quiet:
            warnings.simplefilter("ignore", NarrowWidthWarning)
        graph = kernel.graph(x)
    return Network(description, kernel, graph, Axes(graph))


def widen(base: Network, x: Any, multiplier: float, *, nngp: Any = None) -> Network:
    """The network with every hidden width times ``multiplier`` and the same NNGP limit.

    Raises
    ------
    CannotWidenError
        If the code refuses the wider arrays, or the limit changes with them.
    """
    if multiplier == 1:
        return base
    if not base.axes.hidden:
        msg = "it has no hidden width"
        raise CannotWidenError(msg)
    reference = base.kernel.nngp(x) if nngp is None else nngp
    return _first(base, x, multiplier, list(base.axes.hidden_growths()), reference)


def _first(
    base: Network, x: Any, multiplier: float, growths: list[Growth], reference: Any
) -> Network:
    problem: Exception | None = None
    for growth in growths:
        try:
            return _grown(base, x, growth, multiplier, reference)
        except CannotWidenError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _grown(base: Network, x: Any, growth: Growth, multiplier: float, reference: Any) -> Network:
    d = base.description
    structs = []
    for leaf, array in enumerate(d.arrays):
        shape = growth.sizes(leaf, tuple(array.shape), multiplier)
        if shape is None:
            msg = f"{d.names[leaf]} of shape {tuple(array.shape)} cannot grow by {multiplier:g}"
            raise CannotWidenError(msg)
        structs.append(jax.ShapeDtypeStruct(shape, array.dtype))
    wide = replace(
        d,
        arrays=tuple(structs),
        values=tuple(structs),
        unflatten=_resized(d.unflatten),
    )
    try:
        jax.eval_shape(wide.apply, list(structs), jax.tree.map(lambda a: a[0], x))
        first = network(wide, x, quiet=True)
    except WideLimitError as error:
        msg = f"the wider network has no limit as written ({error.what})"
        raise CannotWidenError(msg) from error
    except Exception as error:
        reason = str(error).strip().splitlines()
        msg = f"its code refuses wider arrays ({reason[0] if reason else type(error).__name__})"
        raise CannotWidenError(msg) from error
    factors = gains(base.graph, first.graph)
    if any(t != 1 for t in factors.values()):
        priors = tuple(
            Prior(p.mean, p.std * factors.get(leaf, 1.0), p.distribution)
            for leaf, p in enumerate(d.priors)
        )
        first = network(replace(wide, priors=priors), x, quiet=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NarrowWidthWarning)
            limit = first.kernel.nngp(x)
    except WideLimitError as error:
        msg = f"the wider network has no limit as written ({error.what})"
        raise CannotWidenError(msg) from error
    if not _alike(limit, reference):
        msg = "its code fixes a number that depends on the width, so that the limit would change"
        raise CannotWidenError(msg)
    return first


def _alike(a: Any, b: Any) -> bool:
    pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b)))
    for one, two in pairs:
        one, two = np.asarray(one, float), np.asarray(two, float)
        if one.shape != two.shape:
            return False
        tolerance = max(SAME_LIMIT, 1e3 * float(np.finfo(jax.tree.leaves(b)[0].dtype).eps))
        if not np.allclose(one, two, rtol=0, atol=tolerance * np.max(np.abs(two), initial=0)):
            return False
    return True


# --------------------------------------------------------------------------- sizes in modules


def _resized(unflatten: Callable[..., Any]) -> Callable[..., Any]:
    """Equinox normalisation layers check a stored shape: take it from their weights."""

    def rebuild(arrays: Any) -> Any:
        return _fit(unflatten(arrays))

    return rebuild


_NORMS = (eqx.nn.LayerNorm, eqx.nn.RMSNorm)


def _fit(model: Any) -> Any:
    is_norm = lambda node: isinstance(node, _NORMS)

    def fit(node: Any) -> Any:
        if not is_norm(node):
            return node
        held = node.weight if node.weight is not None else node.bias
        if held is None or tuple(held.shape) == tuple(node.shape):
            return node
        new = object.__new__(type(node))
        for name, value in vars(node).items():
            object.__setattr__(new, name, tuple(held.shape) if name == "shape" else value)
        return new

    if not isinstance(model, eqx.Module | dict | list | tuple):
        return model
    return jax.tree.map(fit, model, is_leaf=is_norm)


# --------------------------------------------------------------------------- priors


def gains(base: Graph, wide: Graph) -> dict[int, float]:
    """Factors on the standard deviations that give the wide network the magnitudes of the base.

    For a parameter contracted over n terms with scale c the invariant is n c² σ², with the
    constants on the way to the next nonlinearity counted into c.

    Raises
    ------
    CannotWidenError
        If the two graphs differ in more than sizes, or one parameter needs two factors.
    """
    walk = _Walk(wide)
    if len(base.outputs) != len(wide.outputs):
        raise CannotWidenError(_DIFFERENT)
    for a, b in zip(base.outputs, wide.outputs):
        walk.demand(a.node, b.node, 1.0)
    return walk.factors


_DIFFERENT = "with wider arrays its code computes something else"


class _Walk:
    """Walks two graphs of one program side by side."""

    def __init__(self, wide: Graph) -> None:
        self.leaves = wide.leaves
        self.factors: dict[int, float] = {}
        self._seen: set[tuple[int, int, float]] = set()

    def demand(self, a: n.Node, b: n.Node, gain: float) -> None:
        """Choose factors so that the wide node ``b`` is ``gain`` times ``a``."""
        key = (id(a), id(b), round(gain, 12))
        if key in self._seen:
            return
        self._seen.add(key)
        a, b, ratio = _without_constants(a, b)
        gain = gain / ratio
        if type(a) is not type(b):
            raise CannotWidenError(_DIFFERENT)
        match a, b:
            case n.Source(), n.Source():
                inside = self.free(a.operand, b.operand)
                own = math.sqrt(b.count / a.count) * abs(b.scale / a.scale) if a.scale else 1.0
                self._set(b.draw.leaf, gain / (own * inside))
            case n.Entry(), n.Entry():
                self._set(b.draw.leaf, gain / abs(b.scale / a.scale) if a.scale else 1.0)
            case n.Tangent(), n.Tangent():
                self.free(a.factor.node, b.factor.node)
            case n.Overlap(), n.Overlap():
                self.demand(a.operand, b.operand, 1.0)
            case n.Sum() | n.Join() | n.Map() | n.Spread() | n.Copied(), n.Field():
                self._pairs(a, b, gain)
            case n.Scale(), n.Scale():
                self.free(a.factor.node, b.factor.node)
                self.demand(a.operand.node, b.operand.node, gain)
            case (n.Product() | n.Together() | n.Mixed()), n.Field():
                self._pairs(a, b, 1.0)
            case n.Apply(), n.Apply():
                self.demand(a.root.node, b.root.node, 1.0)
                self._values([v.node for v in a.values], [v.node for v in b.values])
            case n.Value(), n.Value():
                self.free(a, b)

    def free(self, a: n.Node, b: n.Node) -> float:
        """The ratio of magnitudes that comes about when nothing is demanded of a node."""
        a, b, ratio = _without_constants(a, b)
        match a, b:
            case n.Expectation(), n.Expectation():
                self.demand(a.operand, b.operand, 1.0)
            case n.Compute(), n.Compute():
                self._values(list(a.arguments), list(b.arguments))
            case n.Value(), _:
                pass
            case _:
                self.demand(a, b, 1.0)
        return ratio

    def _pairs(self, a: n.Field, b: n.Field, gain: float) -> None:
        if len(a.parts) != len(b.parts):
            raise CannotWidenError(_DIFFERENT)
        for p, q in zip(a.parts, b.parts):
            self.demand(p.node, q.node, gain)

    def _values(self, a: list[Any], b: list[Any]) -> None:
        if len(a) != len(b):
            raise CannotWidenError(_DIFFERENT)
        for p, q in zip(a, b):
            self.free(p, q)

    def _set(self, leaf: int, factor: float) -> None:
        factor = 1.0 if abs(factor - 1) < 1e-5 else factor
        known = self.factors.setdefault(leaf, factor)
        if abs(known - factor) > 1e-5 * factor:
            msg = f"{self.leaves[leaf].name} is used in two ways that widen differently"
            raise CannotWidenError(msg)


def _without_constants(a: n.Node, b: n.Node) -> tuple[n.Node, n.Node, float]:
    """Strip factors that are one number; the ratio of the wide one's to the other's."""
    (a, first), (b, second) = _strip(a), _strip(b)
    return a, b, second / first


def _strip(node: n.Node) -> tuple[n.Node, float]:
    factor = 1.0
    while (
        isinstance(node, n.Scale)
        and isinstance(node.factor.node, n.Constant)
        and node.factor.node.array.size == 1
        and node.factor.node.array.item() != 0
    ):
        factor *= abs(float(node.factor.node.array.item()))
        node = node.operand.node
    return node, factor
