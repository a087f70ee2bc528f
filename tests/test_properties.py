"""Properties of the structured inputs everything else rests on: indices, tiles, programs."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle.numeric import run
from widelimit.graph.index import disjoint, full_index, rows_agree, same
from widelimit.tiles import balanced, tile_size, tiled

quiet = settings(max_examples=40, deadline=None)


@st.composite
def views(draw):
    """A view of the flat indices of a small matrix: sliced, reversed, transposed, reshaped."""
    index = full_index((draw(st.integers(1, 5)), draw(st.integers(1, 5))))
    for _ in range(draw(st.integers(0, 3))):
        match draw(st.sampled_from(["transpose", "slice", "reverse", "flatten"])):
            case "transpose":
                index = index.T
            case "slice" if index.shape[0] > 1:
                index = index[draw(st.integers(0, index.shape[0] - 1)) :]
            case "reverse":
                index = index[::-1]
            case "flatten":
                index = index.reshape(-1, 1)
    return index if index.ndim == 2 else index.reshape(-1, 1)


@quiet
@given(views(), views())
def test_relations_of_index_arrays_are_those_of_sets(a, b):
    assert same(a, b) == (a.shape == b.shape and a.tolist() == b.tolist())
    assert disjoint(a, b) == (not set(a.ravel().tolist()) & set(b.ravel().tolist()))

    def agree(x, y):
        """Every row of x equals a row of y, or shares no entry with any."""
        whole = {tuple(r) for r in y.tolist()}
        entries = {k for r in y.tolist() for k in r}
        return all(tuple(r) in whole or not set(r) & entries for r in x.tolist())

    assert rows_agree(a, b) == (agree(a, b) and agree(b, a))


@quiet
@given(
    st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([1, 3, 4]), st.booleans(), st.integers(0, 2**32),
)
def test_tiles_cover_every_pair_once(n1, n2, size, other_size, ahead, seed):
    rng = np.random.default_rng(seed)
    x, y = jnp.asarray(rng.normal(size=(n1, 2))), jnp.asarray(rng.normal(size=(n2, 2)))

    def block(a, b, real):
        assert a[0].shape[0] == size
        assert real[0] <= size
        other = a[0] if b is None else b[0]
        # Positions make the two halves of the trailing axes distinguishable.
        return lambda: [jnp.einsum("ni,mj->nmij", a[0], other)]

    (whole,) = tiled(block, [x], [y], (size, other_size), ahead=ahead)
    np.testing.assert_array_equal(whole, jnp.einsum("ni,mj->nmij", x, y))
    (symmetric,) = tiled(block, [x], None, (size, size), ahead=ahead)
    np.testing.assert_array_equal(symmetric, jnp.einsum("ni,mj->nmij", x, x))


@given(st.integers(1, 10**5), st.sampled_from([1, 16, 1024]))
def test_balanced_tiles_are_as_few(count, size):
    found = balanced(count, size)
    assert found <= size
    assert -(-count // found) == -(-count // size)


@quiet
@given(st.integers(1, 4096), st.integers(1, 10**6), st.integers(10**6, 10**10))
def test_tiles_fit_in_memory(limit, per_pair, memory):
    size = tile_size(limit, per_pair, memory)
    assert size <= limit
    assert size**2 * per_pair <= memory
    assert 2 * size > limit or (2 * size) ** 2 * per_pair > memory


ELEMENTWISE = [jnp.tanh, jnp.exp, jnp.abs, jax.nn.silu, lambda x: jnp.clip(x, -1, 1), jnp.cumsum]


@quiet
@given(st.lists(st.sampled_from(ELEMENTWISE), min_size=1, max_size=4), st.integers(0, 2**32))
def test_the_interpreter_agrees_with_jax(functions, seed):
    def f(x):
        for g in functions:
            x = g(0.3 * x) + x[::-1].mean()
        return x

    x = np.random.default_rng(seed).normal(size=7)
    np.testing.assert_allclose(run(jax.make_jaxpr(f)(x), x)[0], f(jnp.asarray(x)), rtol=1e-11)
