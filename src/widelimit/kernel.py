"""What a user holds: a network's kernels as functions of batches of inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from widelimit.graph import nodes as n
from widelimit.graph.show import table
from widelimit.graph.simplify import simplified
from widelimit.graph.walk import reachable
from widelimit.limit.activations import Activations
from widelimit.limit.differences import has_close_pairs
from widelimit.limit.evaluate import ZERO, Evaluation, Side, deep
from widelimit.limit.moments import moment
from widelimit.limit.place import stretch
from widelimit.limit.tangents import tangent
from widelimit.models import Description, describe
from widelimit.priors import Prior
from widelimit.tiles import filled_up, tile_size, tiled, whole
from widelimit.trace import Graph, Leaf, read
from widelimit.trace.arrays import Array as Seen
from widelimit.trace.arrays import Channel, Position, Repeat

TILE = 1024
"""Examples per tile, at most."""
MEMORY = 2 << 30
"""Bytes that one tile's intermediate results may take."""


class Kernels(NamedTuple):
    """Both kernels of one call."""

    nngp: Any
    ntk: Any


class _Cache:
    """One description with its graphs and compiled functions, shared between copies.

    It is compared by identity, so that kernels can be arguments of jitted functions.
    """

    def __init__(self, description: Description) -> None:
        self.description = description
        self.constant = tuple(_is_zero(p.std) for p in description.priors)
        self.graphs: dict[Any, Graph] = {}
        self.evaluated: dict[int, tuple[Graph, Activations]] = {}
        self.compiled: dict[Any, Callable[..., Any]] = {}
        self.staged: dict[Any, bool] = {}


@jax.tree_util.register_pytree_node_class
class Kernel:
    """The infinite-width kernels of a network.

    A kernel is a pytree whose leaves are the standard deviations of the random parameters, in the
    order of ``names``, so that ``jax.grad`` and ``jax.vmap`` go through it; inputs may be traced
    too.

    Make one with :func:`widelimit.kernel`.
    """

    def __init__(
        self, description: Description, stds: tuple[Any, ...] | None = None, cache: Any = None
    ) -> None:
        self.description = description
        self.stds = tuple(p.std for p in description.priors) if stds is None else stds
        self._cache = cache or _Cache(description)

    def tree_flatten(self) -> tuple[tuple[Any, ...], Any]:
        """The standard deviations are the leaves; those of constants, being zero, are fixed."""
        children = tuple(
            s for s, zero in zip(self.stds, self._cache.constant, strict=True) if not zero
        )
        return children, self._cache

    @classmethod
    def tree_unflatten(cls, aux: Any, children: Any) -> Kernel:
        """Rebuild from the leaves."""
        rest = iter(children)
        stds = tuple(0.0 if zero else next(rest) for zero in aux.constant)
        return cls(aux.description, stds, aux)

    def __repr__(self) -> str:
        arrays = ", ".join(
            f"{name}{tuple(a.shape)}"
            for name, a in zip(self.description.names[:6], self.description.arrays[:6])
        )
        more = ", …" if len(self.description.names) > 6 else ""
        return f"Kernel({arrays}{more})"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters."""
        return self.description.names

    @property
    def priors(self) -> dict[str, Prior]:
        """The prior of each parameter, by name."""
        return {
            name: Prior(p.mean, s, p.distribution)
            for name, p, s in zip(self.names, self.description.priors, self.stds)
        }

    def with_stds(self, stds: Mapping[str, Any]) -> Kernel:
        """The same network with other standard deviations for some of its random parameters.

        Parameters
        ----------
        stds
            Standard deviations, numbers or tracers, by the names of ``names``.

        Raises
        ------
        ValueError
            For a name that the network does not have, a negative or infinite number, or a
            parameter that is constant in this kernel, or would become so: describe the network
            anew for that.
        """
        unknown = sorted(set(stds) - set(self.names))
        if unknown:
            msg = f"the network has no parameters {', '.join(unknown)}; it has {self.names}"
            raise ValueError(msg)
        new = list(self.stds)
        for i, name in enumerate(self.names):
            if name not in stds:
                continue
            std = stds[name]
            known = not isinstance(std, jax.core.Tracer)
            if known and not (np.isfinite(std) and std >= 0):
                msg = f"the standard deviation of {name} is finite and at least 0, got {std}"
                raise ValueError(msg)
            if self._cache.constant[i] != (known and float(std) == 0):
                msg = f"{name} cannot change between a constant and a random parameter"
                raise ValueError(msg)
            new[i] = std
        return Kernel(self.description, tuple(new), self._cache)

    # ----------------------------------------------------------------- readings

    def nngp(self, x1: PyTree, x2: PyTree | None = None) -> PyTree[Float[Array, "n1 n2 ..."]]:
        """The NNGP kernel E[f(x1) f(x2)] over random parameters, per output channel.

        Parameters
        ----------
        x1, x2
            Batches of inputs, shape (n, *shape), or pytrees of them; ``x2=None`` is ``x1``.

        Returns
        -------
        Array of shape (n1, n2, *positions, *positions), in the pytree of the network's output.
        Channel axes of the output disappear: channels are independent and identically
        distributed in the limit. Axes of size one disappear too.

        Raises
        ------
        WideLimitError
            If the network has no limit as written; it names the line of code.
        ValueError
            If shapes do not agree, or inputs are not finite.

        Notes
        -----
        Lee et al., Deep neural networks as Gaussian processes, 2018.
        """
        return self._kernels(x1, x2, ("nngp",))[0]

    def ntk(self, x1: PyTree, x2: PyTree | None = None) -> PyTree[Float[Array, "n1 n2 ..."]]:
        """The NTK Σ_θ ⟨∂f(x1)/∂θ, ∂f(x2)/∂θ⟩ over trainable parameters, per output channel.

        Arguments, shapes and errors are those of :meth:`nngp`.

        Notes
        -----
        Jacot, Gabriel, Hongler, Neural tangent kernel, 2018; for weights of standard
        parameterization Sohl-Dickstein et al., 2020.
        """
        return self._kernels(x1, x2, ("ntk",))[0]

    def both(self, x1: PyTree, x2: PyTree | None = None) -> Kernels:
        """NNGP and NTK, computed together; arguments as in :meth:`nngp`."""
        return Kernels(*self._kernels(x1, x2, ("nngp", "ntk")))

    def nngp_diagonal(self, x: PyTree) -> PyTree[Float[Array, "n ..."]]:
        """E[f(x)²] of each example with itself, shape (n, *positions)."""
        return self._diagonals(x, ("nngp",))[0]

    def ntk_diagonal(self, x: PyTree) -> PyTree[Float[Array, "n ..."]]:
        """The NTK of each example with itself, shape (n, *positions)."""
        return self._diagonals(x, ("ntk",))[0]

    def graph(self, x: PyTree) -> Graph:
        """The network as read for inputs shaped like the batch ``x``."""
        return self._graph(_example(jax.tree.map(jnp.asarray, x)))

    def describe(self, x: PyTree) -> str:
        """A table of the network as read: node, positions, channels, source line."""
        return table(self.graph(x).outputs, self.names)

    # ----------------------------------------------------------------- inside

    def _graph(self, example: Any) -> Graph:
        leaves, structure = jax.tree.flatten(example)
        key = (structure, tuple((s.shape, str(s.dtype)) for s in leaves))
        if key not in self._cache.graphs:
            d = self.description
            infos = tuple(
                Leaf(name, tuple(a.shape), float(p.mean), zero, _number(p.std))
                for name, a, p, zero in zip(d.names, d.arrays, d.priors, self._cache.constant)
            )
            self._cache.graphs[key] = read(d.apply, d.arrays, infos, example)
        return self._cache.graphs[key]

    def _evaluated(self, example: Any) -> tuple[Graph, Activations]:
        """The graph that kernels are computed from, without what vanishes in the limit."""
        graph = self._graph(example)
        key = id(graph)
        if key not in self._cache.evaluated:
            nodes = simplified([o.node for o in graph.outputs])
            outputs = tuple(replace(o, node=x) for o, x in zip(graph.outputs, nodes))
            plain = replace(graph, outputs=outputs, nodes=tuple(reachable(nodes)))
            self._cache.evaluated[key] = (plain, Activations())
        return self._cache.evaluated[key]

    def _kernels(self, x1: PyTree, x2: PyTree | None, kinds: tuple[str, ...]) -> tuple:
        x1, x2, example = check_inputs(x1, x2)
        graph, activations = self._evaluated(example)
        leaves1 = jax.tree.leaves(x1)
        leaves2 = None if x2 is None else jax.tree.leaves(x2)

        def run(stds: Any, a: Any, b: Any, real: Any, careful: bool) -> Any:
            return self._evaluate(graph, activations, stds, a, b, real, kinds, careful=careful)

        arrays = (*leaves1, *(leaves2 or ()), *self.stds)
        # Inside a trace even operations on constants give tracers.
        if any(isinstance(v, jax.core.Tracer) for v in (*arrays, jnp.zeros(()))):
            out, _ = run(self.stds, leaves1, leaves2, None, True)
            return _as_output(graph, out)

        staged = self._staged(graph, activations, kinds)

        def block(a: list[Any], b: list[Any] | None, real: tuple[int, int]) -> list[Any]:
            for careful in (False, True):
                if staged:
                    out, close = run(self.stds, a, b, real, careful)
                else:
                    key = (id(graph), kinds, careful)
                    if key not in self._cache.compiled:
                        self._cache.compiled[key] = jax.jit(
                            lambda s, a, b, real, c=careful: run(s, a, b, real, c)
                        )
                    out, close = self._cache.compiled[key](self.stds, a, b, real)
                if careful or not bool(close) or not activations.kinked():
                    break
            return [x for one in out for x in one]  # type: ignore[union-attr]

        count = max(leaves1[0].shape[0], (leaves2 or leaves1)[0].shape[0])
        size = tile_size(TILE, self._bytes_per_pair(graph, leaves1, staged=staged), MEMORY)
        if count <= size:
            flat = whole(block, leaves1, leaves2, filled=_positions(graph) == 1)
        else:
            flat = tiled(block, leaves1, leaves2, size, name=" and ".join(kinds).upper())
        per = len(graph.outputs)
        return _as_output(graph, [flat[i : i + per] for i in range(0, len(flat), per)])

    def _staged(self, graph: Graph, activations: Activations, kinds: tuple[str, ...]) -> bool:
        """Whether to run step by step, so that a series is compiled once for all layers.

        Closed forms are compiled together instead, into one program for the whole network.
        """
        key = (id(graph), kinds)
        if key not in self._cache.staged:
            nodes = [o.node for o in graph.outputs]
            self._cache.staged[key] = activations.series(nodes, derivative="ntk" in kinds)
        return self._cache.staged[key]

    @staticmethod
    def _bytes_per_pair(graph: Graph, leaves: list[Any], *, staged: bool) -> int:
        """A bound on what one pair of examples needs while it is computed.

        Step by step every moment stays until the end; a compiled program lets go of them.
        """
        fields = sum(isinstance(x, n.Field) for x in graph.nodes)
        held = max(12, 4 * fields) if staged else 12
        return held * _positions(graph) ** 2 * np.dtype(_dtype(leaves)).itemsize

    def _evaluate(
        self,
        graph: Graph,
        activations: Activations,
        stds: Any,
        a: Any,
        b: Any,
        real: Any,
        kinds: tuple[str, ...],
        *,
        careful: bool,
    ) -> tuple[list[list[Any]], Any]:
        left = Side(a, a[0].shape[0])
        right = left if b is None else Side(b, b[0].shape[0])
        ev = Evaluation(
            (left, right), stds, self.description.trainable, _dtype([*a, *(b or [])]),
            activations, with_tangent="ntk" in kinds, careful=careful,
        )
        with deep(len(graph.nodes)):
            results = [[_block(ev, out, kind) for out in graph.outputs] for kind in kinds]
        flags = [
            has_close_pairs(x, y, real, symmetric=ev.symmetric) for x, y in _distinct(ev.close)
        ]
        close = jnp.any(jnp.stack(flags)) if flags else jnp.zeros((), bool)
        return results, close

    def _diagonals(self, x: PyTree, kinds: tuple[str, ...]) -> tuple:
        x, _, example = check_inputs(x, None)
        graph, activations = self._evaluated(example)

        def run(stds: Any, leaves: Any) -> Any:
            side = Side(leaves, leaves[0].shape[0])
            ev = Evaluation(
                (side, side), stds, self.description.trainable, _dtype(leaves), activations,
                with_tangent="ntk" in kinds,
            )
            with deep(len(graph.nodes)):
                return [[_diagonal_block(ev, out, kind) for out in graph.outputs] for kind in kinds]

        leaves = jax.tree.leaves(x)
        if self._staged(graph, activations, kinds):
            return _as_output(graph, run(self.stds, leaves))
        key = (id(graph), kinds, "diagonal")
        if key not in self._cache.compiled:
            self._cache.compiled[key] = jax.jit(run)
        if any(isinstance(v, jax.core.Tracer) for v in (*leaves, *self.stds)):
            return _as_output(graph, self._cache.compiled[key](self.stds, leaves))
        out = self._cache.compiled[key](self.stds, filled_up(leaves))
        return _as_output(graph, [[b[: leaves[0].shape[0]] for b in one] for one in out])


def kernel(model: Any, params: Any = None, *, prior: Any = None, trainable: Any = None) -> Kernel:
    """The infinite-width kernels of a network, read from its own code.

    Parameters
    ----------
    model
        A function ``f(params, x)`` of ONE example; an Equinox module; or a Flax NNX module.
        Modules are used as they are, and called as ``model(x)`` on one example.
    params
        For a function: a pytree of arrays or of ``jax.ShapeDtypeStruct``. Only shapes are used.
    prior
        What is random. For functions the default is independent N(0, 1) entries in every array;
        modules carry their initialisation. See :func:`widelimit.models.describe`.
    trainable
        Which arrays contribute to the NTK: a bool, a pytree prefix of bools, or a callable of
        (name, struct). Frozen arrays stay random in the prior.

    Returns
    -------
    Kernel

    Raises
    ------
    WideLimitError
        If a prior cannot be determined; on first use, if the network has no limit as written.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, widelimit as wl
    >>> def f(params, x):
    ...     w1, w2 = params
    ...     return w2 @ jax.nn.relu(w1 @ x / jnp.sqrt(3)) / jnp.sqrt(256)
    >>> shapes = [jax.ShapeDtypeStruct((256, 3), float), jax.ShapeDtypeStruct((1, 256), float)]
    >>> wl.kernel(f, shapes).nngp(jnp.eye(3)).shape
    (3, 3)
    """
    return Kernel(describe(model, params, prior=prior, trainable=trainable))


# --------------------------------------------------------------------------- helpers


def check_inputs(x1: PyTree, x2: PyTree | None) -> tuple[PyTree, PyTree | None, PyTree]:
    """Inputs as arrays, and the shape of one example.

    Raises
    ------
    ValueError
        If there is no batch axis, the leaves disagree on it, the two batches hold examples of
        different shapes, or an input is not finite.
    """
    x1 = jax.tree.map(jnp.asarray, x1)
    first = _example(x1)
    if x2 is not None:
        x2 = jax.tree.map(jnp.asarray, x2)
        second = _example(x2)
        shapes = lambda e: [(s.shape, s.dtype) for s in jax.tree.leaves(e)]
        if jax.tree.structure(first) != jax.tree.structure(second) or shapes(first) != shapes(
            second
        ):
            msg = f"x1 holds examples of {first} and x2 of {second}; they must be alike"
            raise ValueError(msg)
    for name, x in (("x1", x1), ("x2", x2)):
        for leaf in jax.tree.leaves(x):
            if isinstance(leaf, jax.core.Tracer) or not jnp.issubdtype(leaf.dtype, jnp.floating):
                continue
            if not np.all(np.isfinite(np.asarray(leaf))):
                msg = f"{name} contains NaN or infinite values"
                raise ValueError(msg)
    return x1, x2, first


def _example(x: PyTree) -> PyTree:
    leaves = jax.tree.leaves(x)
    if not leaves:
        msg = "the input is empty"
        raise ValueError(msg)
    if any(leaf.ndim == 0 for leaf in leaves):
        msg = "inputs need a batch axis: shape (n, *shape_of_one_example)"
        raise ValueError(msg)
    sizes = {leaf.shape[0] for leaf in leaves}
    if len(sizes) > 1:
        msg = f"the leaves of the input disagree on the number of examples: {sorted(sizes)}"
        raise ValueError(msg)
    if sizes == {0}:
        msg = "the input holds no examples"
        raise ValueError(msg)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), x)


def _positions(graph: Graph) -> int:
    """Positions of the largest field."""
    fields = [x.shape for x in graph.nodes if isinstance(x, n.Field)]
    return max((int(np.prod(shape, dtype=int)) for shape in fields), default=1)


def _is_zero(std: Any) -> bool:
    if isinstance(std, jax.core.Tracer):
        return False
    return float(std) == 0.0


def _number(std: Any) -> float | None:
    return None if isinstance(std, jax.core.Tracer) else float(std)


def _dtype(leaves: list[Any]) -> Any:
    floats = [x.dtype for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.result_type(*floats) if floats else jnp.zeros(()).dtype


def _distinct(pairs: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    seen: dict[tuple[int, int], tuple[Any, Any]] = {}
    for x, y in pairs:
        seen.setdefault((id(x), id(y)), (x, y))
    return list(seen.values())


def _as_output(graph: Graph, out: list[list[Any]]) -> tuple:
    return tuple(jax.tree.unflatten(graph.structure, one) for one in out)


def _block(ev: Evaluation, out: Seen, kind: str) -> Any:
    """One output's kernel, shape (n1, n2, *positions, *positions)."""
    n1, n2 = ev.sides[0].size, ev.sides[1].size
    full = _full(ev, out, kind, "cross", (n1, n2))
    if ev.symmetric:
        own = _full(ev, out, kind, "left", (n1,))
        on = jnp.eye(n1, dtype=bool).reshape(n1, n1, *(1,) * (full.ndim - 2))
        full = jnp.where(on, own[:, None], full)
    return full


def _full(ev: Evaluation, out: Seen, kind: str, pairing: Any, batch: tuple[int, ...]) -> Any:
    node = out.node
    r = len(node.shape)
    rule = moment if kind == "nngp" else tangent
    block = ev.at(rule, node, tuple(range(r)), node, tuple(range(r, 2 * r)), 2 * r, pairing)
    if block is ZERO:
        block = jnp.zeros((1,) * (len(batch) + 2 * r), ev.dtype)
    for k, size in enumerate((*batch, *node.shape, *node.shape)):
        block = stretch(block, k, size)
    order, sizes = _seen(out)
    b = len(batch)
    block = jnp.transpose(block, (*range(b), *(b + k for k in order), *(b + r + k for k in order)))
    return _with_repeats(block, b, out, sizes)


def _seen(out: Seen) -> tuple[list[int], list[tuple[int, bool]]]:
    """Positions in the order the program shows them, and every non-channel atom's size."""
    order, sizes = [], []
    for axis in out.axes:
        for atom in axis:
            if isinstance(atom, Position):
                order.append(atom.axis)
                sizes.append((out.size(atom), True))
            elif isinstance(atom, Repeat):
                sizes.append((out.size(atom), False))
    return order, sizes


def _axes_sizes(out: Seen) -> list[int]:
    """The sizes of the output's axes, without channels and axes of size one."""
    sizes = []
    for axis in out.axes:
        kept = [out.size(a) for a in axis if not isinstance(a, Channel)]
        if kept:
            sizes.append(int(np.prod(kept, dtype=int)))
    return sizes


def _with_repeats(block: Any, b: int, out: Seen, sizes: list[tuple[int, bool]]) -> Any:
    batch = block.shape[:b]
    thin = [s if real else 1 for s, real in sizes]
    full = [s for s, _ in sizes]
    block = block.reshape(*batch, *thin, *thin)
    block = jnp.broadcast_to(block, (*batch, *full, *full))
    axes = _axes_sizes(out)
    return block.reshape(*batch, *axes, *axes)


def _diagonal_block(ev: Evaluation, out: Seen, kind: str) -> Any:
    node = out.node
    r = len(node.shape)
    own = tuple(range(r))
    block = ev.at(moment if kind == "nngp" else tangent, node, own, node, own, r, "left")
    count = ev.sides[0].size
    if block is ZERO:
        block = jnp.zeros((1,) * (1 + r), ev.dtype)
    for k, size in enumerate((count, *node.shape)):
        block = stretch(block, k, size)
    order, sizes = _seen(out)
    block = jnp.transpose(block, (0, *(1 + k for k in order)))
    block = block.reshape(count, *(s if real else 1 for s, real in sizes))
    block = jnp.broadcast_to(block, (count, *(s for s, _ in sizes)))
    return block.reshape(count, *_axes_sizes(out))


