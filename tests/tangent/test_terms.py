"""The tensor networks underneath: splitting indices, like terms, orders of multiplication."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from widelimit.tangent._cost import cost
from widelimit.tangent._order import multiplied, plan, remembered
from widelimit.tangent._terms import Seeds, Term, axes, collected, dense, fresh


def outer(rng, *sizes):
    """A term x ⊗ c, with its value."""
    names = [fresh() for _ in sizes]
    arrays = [jnp.asarray(rng.normal(size=s)) for s in sizes]
    term = Term((), (), tuple(names), dict(zip(names, sizes)), ())
    for a, n in zip(arrays, names):
        term = term.with_factor(a, (n,), True)
    value = arrays[0]
    for a in arrays[1:]:
        value = jnp.multiply.outer(value, a)
    return term, np.asarray(value)


SCALAR = Seeds.of((), jnp.float64)


@pytest.mark.parametrize(
    "shape", [(24,), (6, 4), (2, 3, 4), (2, 12), (3, 2, 4), (8, 3), (1, 24, 1)]
)
def test_any_shape_of_the_same_entries(rng, shape):
    term, value = outer(rng, 6, 4)
    split, groups = axes(term, shape, SCALAR)
    sizes = [int(np.prod([split.sizes[a] for a in g])) for g in groups]
    assert tuple(sizes) == shape
    np.testing.assert_allclose(dense(split, 24, SCALAR), value.ravel())


def test_like_terms_become_one(rng):
    first, a = outer(rng, 3, 4)
    second, b = outer(rng, 3, 4)
    third, c = outer(rng, 4, 3)
    joined = collected([first, second], SCALAR)
    assert len(joined) == 1
    np.testing.assert_allclose(dense(joined[0], 12, SCALAR), (a + b).ravel())
    apart = collected([first, third, second], SCALAR)
    assert len(apart) == 2
    total = sum(dense(t, 12, SCALAR) for t in apart)
    np.testing.assert_allclose(total, (a + b).ravel() + c.ravel())
    # One factor in common: the others are added, and nothing is stacked.
    other = jnp.asarray(rng.normal(size=4))
    same = Term((first.factors[0], other), first.labels, first.out, first.sizes, first.late)
    (both,) = collected([first, same], SCALAR)
    assert [f.shape for f in both.factors] == [(3,), (4,)]


def left_to_right(order, sets, result, sizes):
    """The cost of multiplying one factor after the other."""
    have, total, rest = sets[order[0]], 0.0, list(order[1:])
    while rest:
        k = rest.pop(0)
        needed = result.union(*(sets[j] for j in rest)) if rest else result
        out = (have | sets[k]) & needed
        total += plan((have, sets[k]), out, sizes, np.inf).cost
        have = out
    return total


def test_the_best_order_is_at_most_any_other(rng):
    size = {k: int(s) for k, s in enumerate(rng.integers(2, 30, 6))}
    factors = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0, 5)]
    sets = tuple(map(frozenset, factors))
    result, sizes = frozenset({1, 5}), tuple(size.items())
    best = plan(sets, result, sizes, np.inf)
    costs = [
        left_to_right(order, sets, result, sizes) for order in itertools.permutations(range(5))
    ]
    assert best.cost <= min(costs) * (1 + 1e-12)
    assert min(costs) < max(costs)
    arrays = [jnp.asarray(rng.normal(size=[size[a] for a in f])) for f in factors]
    found = multiplied(arrays, factors, [5, 1], best)
    expected = np.einsum("ab,bc,cd,de,eaf->fb", *map(np.asarray, arrays))
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_a_chain_of_matrices_is_multiplied_from_its_thin_end():
    sizes = ((0, 1000), (1, 1000), (2, 1000), (3, 1))
    chain = (frozenset({0, 1}), frozenset({1, 2}), frozenset({2, 3}))
    best = plan(chain, frozenset({0, 3}), sizes, np.inf)
    assert best.flops == pytest.approx(4e6)


def test_large_intermediate_results_are_avoided():
    # Cheapest is to join the first two first, which makes 250,000 entries.
    sizes = ((0, 500), (1, 2), (2, 500), (3, 40))
    factors = (frozenset({0, 1}), frozenset({1, 2}), frozenset({0, 2, 3}))
    bound = plan(factors, frozenset({3}), sizes, 45_000)
    assert bound.largest <= 45_000


def test_steps_of_a_loop_are_counted():
    import jax

    w = jnp.ones((64, 64))
    loop = lambda n: jax.make_jaxpr(
        lambda x: jax.lax.scan(lambda h, _: (w @ h, None), x, None, length=n)[0]
    )(jnp.ones(64))
    assert cost(loop(10)).flops == pytest.approx(10 * cost(loop(1)).flops)
    assert cost(loop(1)).flops == pytest.approx(2 * 64 * 64)


def test_products_that_are_known_are_used_again(rng):
    """A bias' kernel is a part of its weight's, under any labels, where both have its factors."""
    outputs, width, examples = 40, 300, 3
    w = jnp.asarray(rng.normal(size=(width, outputs)))
    masks = [jnp.asarray(rng.normal(size=(examples, width))) for _ in range(2)]
    seen = [jnp.asarray(rng.normal(size=(examples, 5))) for _ in range(2)]
    size = {1: outputs, 2: examples, 3: width, 24: outputs, 25: examples, 5: 5}
    sizes = tuple(sorted(size.items()))
    result = [2, 25, 1, 24]
    known = {}
    bias = [w, masks[0], w, masks[1]], [(3, 1), (2, 3), (3, 24), (25, 3)]
    assert remembered(*bias, result, known) == ()
    order = plan(tuple(map(frozenset, bias[1])), frozenset(result), sizes, np.inf)
    first = multiplied(*bias, result, order, known)
    weight = (
        [w, masks[0], seen[0], w, masks[1], seen[1]],
        [(3, 1), (2, 3), (2, 5), (3, 24), (25, 3), (25, 5)],
    )
    trees = remembered(*weight, result, known)
    assert 0b011011 in dict(trees)
    alone = plan(tuple(map(frozenset, weight[1])), frozenset(result), sizes, np.inf)
    shared = plan(tuple(map(frozenset, weight[1])), frozenset(result), sizes, np.inf, trees)
    assert shared.flops < alone.flops / 10
    found = multiplied(*weight, result, shared, known)
    expected = np.einsum("wo,iw,wp,jw,ia,ja->ijop", w, masks[0], w, masks[1], *seen)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        first, np.einsum("wo,iw,wp,jw->ijop", w, masks[0], w, masks[1]), rtol=1e-12, atol=1e-12
    )
    # The masks the other way round: the same product, transposed.
    turned = [w, masks[1], w, masks[0]], bias[1]
    trees = remembered(*turned, result, known)
    order = plan(tuple(map(frozenset, turned[1])), frozenset(result), sizes, np.inf, trees)
    back = multiplied(*turned, result, order, known)
    np.testing.assert_allclose(back, np.transpose(first, (1, 0, 3, 2)), rtol=1e-12, atol=1e-12)
