"""Graph convolutional networks."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from widelimit.nn._layers import Linear


class GCN(eqx.Module):
    r"""A graph convolutional network; the graph is part of the input.

    .. math:: H_{l+1} = \phi(\hat A H_l W_l), \quad
              \hat A = D^{-1/2} (A + 1) D^{-1/2}, \quad D_{ii} = 1 + \textstyle\sum_j A_{ij}

    Parameters
    ----------
    in_features, out_features, width
        Sizes of the vector at a node, of an output, and of the hidden layers.
    depth
        The number of layers; the last has no activation.
    pool
        Whether to give one output for the graph, the mean over its nodes before the last layer's
        weights, instead of one for each node.
    activation
        The activation phi.
    options
        ``parameterization``, ``weight_std`` and ``bias_std`` of the dense layers, as for
        :class:`widelimit.nn.Linear`.
    key
        A random key for the initial values.

    Raises
    ------
    ValueError
        For a depth below 1, and for wrong options.

    Notes
    -----
    Kipf and Welling, Semi-supervised classification with graph convolutional networks, 2017
    (arXiv:1609.02907), equation 2; its limit: Du et al., Graph neural tangent kernel, 2019
    (arXiv:1905.13192).
    """

    layers: tuple[Linear, ...]
    activation: Callable
    pool: bool = eqx.field(static=True)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        width: int,
        depth: int = 2,
        *,
        pool: bool = False,
        activation: Callable = jax.nn.relu,
        key: jax.Array,
        **options,
    ):
        if depth < 1:
            msg = f"depth is at least 1, got {depth}"
            raise ValueError(msg)
        sizes = [in_features, *[width] * (depth - 1), out_features]
        self.layers = tuple(
            Linear(a, b, key=k, **options)
            for a, b, k in zip(sizes, sizes[1:], jax.random.split(key, depth))
        )
        self.activation, self.pool = activation, pool

    def __call__(
        self,
        x: Float[Array, "nodes inputs"],
        graph: Float[Array, "nodes nodes"] | Int[Array, "2 edges"],
    ) -> Float[Array, "*nodes outputs"]:
        """Apply the network to one graph.

        ``graph`` is the adjacency matrix A as floating-point numbers, symmetric, or the pairs
        (from, to) of its edges as integers, each undirected edge twice.
        """
        spread = _by_edges(graph, len(x)) if jnp.issubdtype(graph.dtype, jnp.integer) else (
            _by_matrix(graph))
        *hidden, last = self.layers
        for layer in hidden:
            x = self.activation(layer(spread(x)))
        x = spread(x)
        return last(x.mean(0) if self.pool else x)


def _by_matrix(a: Array) -> Callable[[Array], Array]:
    a = a + jnp.eye(len(a), dtype=a.dtype)
    scale = jax.lax.rsqrt(a.sum(1))
    weights = scale[:, None] * a * scale
    return lambda x: weights @ x


def _by_edges(edges: Array, nodes: int) -> Callable[[Array], Array]:
    loops = jnp.arange(nodes)
    send = jnp.concatenate([edges[0], loops])
    receive = jnp.concatenate([edges[1], loops])
    degree = jax.ops.segment_sum(jnp.ones(len(receive)), receive, num_segments=nodes)
    scale = jax.lax.rsqrt(degree)
    weights = (scale[send] * scale[receive])[:, None]
    return lambda x: jax.ops.segment_sum(weights * x[send], receive, num_segments=nodes)
