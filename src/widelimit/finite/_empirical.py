"""Kernels of single finite networks: one draw of the parameters, averaged over output channels."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from widelimit.batches import check_inputs
from widelimit.kernel import Kernel, Kernels
from widelimit.models import Description
from widelimit.trace import Graph
from widelimit.trace.arrays import Array as Seen
from widelimit.trace.arrays import Channel

MEMORY = 1 << 26
"""Bytes that intermediate results of one step may take."""

CHANNELS = 4
"""Output channels that the tangent kernel is averaged over, at most."""


def channels_last(out: Seen, array: Any) -> Any:
    """A batch of outputs with the channels moved to one last axis.

    Takes shape (n, *output) to (n, *positions, channels), with the positions of
    ``Kernel.nngp``.
    """
    sizes = [out.size(atom) for axis in out.axes for atom in axis]
    wide = [isinstance(atom, Channel) for axis in out.axes for atom in axis]
    order = [k for k, w in enumerate(wide) if not w] + [k for k, w in enumerate(wide) if w]
    array = array.reshape(array.shape[0], *sizes)
    array = jnp.transpose(array, (0, *(1 + k for k in order)))
    kept = []
    for axis in out.axes:
        here = [out.size(a) for a in axis if not isinstance(a, Channel)]
        if here or not axis:
            kept.append(math.prod(here))
    return array.reshape(array.shape[0], *kept, -1)


def _arrange(block: Any, n: int, positions: tuple[int, ...]) -> Any:
    """From (n * P, n * P) to the layout of ``Kernel.nngp``."""
    r = len(positions)
    block = block.reshape(n, *positions, n, *positions)
    order = (0, r + 1, *range(1, r + 1), *range(r + 2, 2 * r + 2))
    return jnp.transpose(block, order)


def _outputs(description: Description, graph: Graph, x: Any) -> Callable[[list[Any]], list[Any]]:
    def run(arrays: list[Any]) -> list[Any]:
        out = jax.vmap(lambda e: description.apply(arrays, e))(x)
        return [channels_last(o, v) for o, v in zip(graph.outputs, jax.tree.leaves(out))]

    return run


def nngp_of_draw(
    description: Description,
    graph: Graph,
    arrays: list[Any],
    x: Any,
    integrated: tuple[int, ...] = (),
) -> list[Any]:
    r"""The mean of f(x) f(x') over output channels, one array for each output.

    Over the parameters in ``integrated``, in which f must be linear, the expectation is exact:

    .. math:: E[f(x) f(x') \mid \theta] = f_0(x) f_0(x') + \sigma^2 J(x) J(x')^T

    with those parameters at their mean in f_0 and J the derivative with respect to them.
    """
    full = list(arrays)
    for k in integrated:
        full[k] = jnp.full_like(arrays[k], description.priors[k].mean)
    out = []
    for f in _outputs(description, graph, x)(full):
        n, *positions, c = f.shape
        flat = f.reshape(-1, c)
        out.append(_arrange(flat @ flat.T / c, n, tuple(positions)))
    if not integrated:
        return out
    variances = [description.priors[k].std ** 2 for k in integrated]
    own = _gram(description, graph, full, x, integrated, variances)
    return [a + b for a, b in zip(out, own)]


def ntk_of_draw(description: Description, graph: Graph, arrays: list[Any], x: Any) -> list[Any]:
    """(1/C) sum_c sum_theta df_c(x)/dtheta df_c(x')/dtheta, one array for each output."""
    train = tuple(k for k, t in enumerate(description.trainable) if t)
    return _gram(description, graph, arrays, x, train, [1.0] * len(train))


def _gram(
    description: Description,
    graph: Graph,
    arrays: list[Any],
    x: Any,
    chosen: tuple[int, ...],
    weights: list[Any],
) -> list[Any]:
    """Inner products of the derivatives with respect to the chosen parameters.

    One backward and one forward pass for each output entry, so that no Jacobian is stored.
    Averages over at most ``CHANNELS`` channels.
    """
    run = _outputs(description, graph, x)

    def selected(theta: list[Any], number: int) -> Any:
        full = list(arrays)
        for k, t in zip(chosen, theta):
            full[k] = t
        f = run(full)[number]
        some = np.unique(np.linspace(0, f.shape[-1] - 1, CHANNELS).astype(int))
        return f[..., some].reshape(-1, len(some))

    theta = [arrays[k] for k in chosen]
    size = sum(t.size * t.dtype.itemsize for t in theta)
    result = []
    for number, f in enumerate(jax.eval_shape(run, arrays)):
        n, *positions, _ = f.shape
        value, back, forward = _derivatives(partial(selected, number=number), theta)
        rows, c = value.shape

        def column(index: Any, back=back, forward=forward, like=value) -> Any:
            row, channel = index
            seed = jnp.zeros_like(like).at[row, channel].set(1)
            tangent = [t * w for t, w in zip(back(seed), weights)]
            return jnp.take(forward(tangent), channel, axis=1)

        row, channel = jnp.unravel_index(jnp.arange(rows * c), (rows, c))
        columns = _map(column, (row, channel), rows * c, MEMORY // max(size, 1))
        block = columns.reshape(rows, c, rows).mean(1)
        result.append(_arrange(block, n, tuple(positions)))
    return result


def is_linear(
    description: Description, graph: Graph, x: Any, chosen: tuple[int, ...], key: Any
) -> bool:
    """Whether the outputs are linear in the chosen parameters, at a random draw."""
    dtype = floating(x)
    arrays = draw(description, key, dtype)
    run = _outputs(description, graph, x)

    def outputs(theta: list[Any]) -> list[Any]:
        full = list(arrays)
        for k, t in zip(chosen, theta):
            full[k] = t
        return run(full)

    theta = [arrays[k] for k in chosen]
    at = [jax.jit(outputs)([s * t for t in theta]) for s in (0.0, 1.0, -2.0)]
    for f0, f1, f2 in zip(*at):
        gap = jnp.abs((f2 - f0) + 2 * (f1 - f0))
        scale = jnp.max(jnp.abs(f0)) + jnp.max(jnp.abs(f1)) + jnp.max(jnp.abs(f2))
        if not bool(jnp.all(gap <= 1e3 * jnp.finfo(dtype).eps * scale)):
            return False
    return True


def _derivatives(f: Callable[[Any], Any], theta: Any) -> tuple[Any, Callable, Callable]:
    """The value, the map of cotangents and the map of tangents.

    Tangents go through the transpose of the backward map, so that functions with a ``custom_vjp``
    have them too.
    """
    value, pull = jax.vjp(f, theta)
    backward = lambda seed: pull(seed)[0]
    _, push = jax.vjp(backward, jnp.zeros_like(value))
    return value, backward, lambda tangent: push(tangent)[0]


def empirical_nngp(kernel: Kernel, arrays: list[Array], x: PyTree) -> PyTree:
    """The NNGP estimate of one finite network, averaged over its output channels.

    Parameters
    ----------
    kernel
        The network.
    arrays
        One draw of its parameters, in the order of ``kernel.names``.
    x
        A batch of inputs, shape (n, *shape), or a pytree of them.

    Returns
    -------
    Array of shape (n, n, *positions, *positions), in the pytree of the network's output.
    """
    x, _, _ = check_inputs(x, None)
    graph = kernel.graph(x)
    blocks = nngp_of_draw(kernel.description, graph, list(arrays), x)
    return jax.tree.unflatten(graph.structure, blocks)


def empirical_ntk(kernel: Kernel, arrays: list[Array], x: PyTree) -> PyTree:
    """The NTK of one finite network, averaged over output channels; as ``empirical_nngp``.

    Notes
    -----
    At most four output channels are averaged.
    """
    x, _, _ = check_inputs(x, None)
    graph = kernel.graph(x)
    blocks = ntk_of_draw(kernel.description, graph, list(arrays), x)
    return jax.tree.unflatten(graph.structure, blocks)


def sample_kernels(
    kernel: Kernel, x: PyTree, key: Array, draws: int, *, ntk: bool = True
) -> Kernels:
    """Kernels of random finite networks.

    Parameters
    ----------
    kernel
        The network.
    x
        A batch of inputs, shape (n, *shape), or a pytree of them.
    key
        A random key.
    draws
        The number of networks.
    ntk
        Whether to compute tangent kernels; otherwise they are None.

    Returns
    -------
    Kernels
        Arrays of shape (draws, n, n, *positions, *positions), in the pytree of the output.

    Raises
    ------
    WideLimitError
        If the network cannot be read, so that its output channels are not known.
    """
    if draws < 1:
        msg = f"draws is at least 1, got {draws}"
        raise ValueError(msg)
    x, _, _ = check_inputs(x, None)
    graph = kernel.graph(x)
    keys = jax.random.split(key, draws)
    found = sampler(kernel.description, graph, ntk=ntk)(keys, x)
    trees = [jax.tree.unflatten(graph.structure, f) for f in found]
    return Kernels(trees[0], trees[1] if ntk else None)


def sampler(
    description: Description, graph: Graph, *, ntk: bool, integrated: tuple[int, ...] = ()
) -> Callable[[Any, Any], list[list[Any]]]:
    """A compiled function of (keys, x): the kernels of one draw per key, by kind and output."""

    @jax.jit
    def run(keys: Any, x: Any) -> list[list[Any]]:
        one = of_key(description, graph, x, ntk=ntk, integrated=integrated)
        itemsize = jnp.dtype(floating(x)).itemsize
        size = itemsize * sum(math.prod(a.shape) for a in description.arrays)
        per_draw = size * (2 + _rows(graph, size, x))
        return _map(one, keys, keys.shape[0], MEMORY // max(per_draw, 1))

    return run


def _map(f: Callable[[Any], Any], xs: Any, count: int, batch: int) -> Any:
    """``jax.lax.map`` in equal batches, so that ``f`` is compiled once."""
    batch = max(k for k in range(1, count + 1) if count % k == 0 and k <= max(batch, 1))
    if batch == count:
        return jax.vmap(f)(xs)
    split = jax.tree.map(lambda a: a.reshape(count // batch, batch, *a.shape[1:]), xs)
    out = jax.lax.map(jax.vmap(f), split)
    return jax.tree.map(lambda a: a.reshape(count, *a.shape[2:]), out)


def _rows(graph: Graph, size: int, x: Any) -> int:
    """Output entries whose derivatives are held at the same time."""
    n = jax.tree.leaves(x)[0].shape[0]
    most = max(n * math.prod(out.shape) for out in graph.outputs)
    return min(most, max(1, MEMORY // max(size, 1)))


def of_key(
    description: Description,
    graph: Graph,
    x: Any,
    *,
    ntk: bool,
    integrated: tuple[int, ...] = (),
) -> Callable[[Any], list[list[Any]]]:
    """The kernels of the network drawn with a key: NNGP, then NTK if asked for."""
    dtype = floating(x)

    def one(key: Any) -> list[list[Any]]:
        arrays = draw(description, key, dtype)
        out = [nngp_of_draw(description, graph, arrays, x, integrated)]
        return [*out, ntk_of_draw(description, graph, arrays, x)] if ntk else out

    return one


def draw(description: Description, key: Any, dtype: Any) -> list[Any]:
    """Gaussian parameters with the means and standard deviations of the priors.

    All of them come from one call of the generator, in single precision, which is several times
    faster to compile and to run than one call for each array.
    """
    sizes = [math.prod(a.shape) for a in description.arrays]
    fixed = [isinstance(p.std, int | float) and p.std == 0 for p in description.priors]
    flat = jax.random.normal(key, (sum(s for s, f in zip(sizes, fixed) if not f),), jnp.float32)
    out, start = [], 0
    for array, prior, size, constant in zip(description.arrays, description.priors, sizes, fixed):
        mean = jnp.asarray(prior.mean, dtype)
        if constant:
            out.append(jnp.full(array.shape, mean, dtype))
            continue
        z = flat[start : start + size].reshape(array.shape).astype(dtype)
        out.append(mean + jnp.asarray(prior.std, dtype) * z)
        start += size
    return out


def floating(x: Any) -> Any:
    """The dtype of the network: that of the inputs, where they are floating."""
    floats = [v.dtype for v in jax.tree.leaves(x) if jnp.issubdtype(v.dtype, jnp.floating)]
    return jnp.result_type(*floats) if floats else jnp.zeros(()).dtype
