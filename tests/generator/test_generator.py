"""Random networks are refused, or agree with Monte Carlo."""

import pytest
import run
import tangents

QUICK = (4, 5, 6, 8, 9, 10, 11, 12, 13, 15, 16, 20, 22, 24, 28)
"""Seeds that are cheap to compile; refusals are among them."""


@pytest.fixture(autouse=True)
def _numbers_of_the_library_only():
    """Float64, and generated programs may use what JAX warns about."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check(verdicts):
    bad = [(v.seed, v.kind, v.error, v.detail) for v in verdicts if v.kind in ("silent", "crash")]
    assert not bad, bad


def test_some_random_networks():
    verdicts = run.run(QUICK)
    check(verdicts)
    assert any(v.kind == "refused" for v in verdicts)
    assert sum(v.kind == "read" for v in verdicts) >= 4


QUICK_OVER_POSITIONS = (5003, 5008, 5011, 5014, 5019, 5031, 5033, 5052, 5053)


def test_some_random_networks_over_positions():
    verdicts = run.run(QUICK_OVER_POSITIONS, kind="spatial")
    check(verdicts)
    assert sum(v.kind == "read" for v in verdicts) >= 4


@pytest.mark.slow
def test_two_hundred_random_networks_over_positions():
    verdicts = run.run(range(200), kind="spatial")
    check(verdicts)
    assert sum(v.kind == "read" for v in verdicts) > 90


@pytest.mark.slow
def test_three_hundred_random_networks():
    verdicts = run.run(range(300))
    check(verdicts)
    read = [v for v in verdicts if v.kind == "read"]
    assert len(read) > 100
    assert len(set().union(*(v.primitives for v in read))) >= 25


def test_tangent_kernels_of_some_random_functions():
    found = tangents.run((3, 7))
    assert [f.kind for f in found] == ["agrees"] * 2, found
