"""Pareto code against the definition, moocore and pymoo, on friendly and unfriendly input."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from asi_evolve import pareto

moocore = pytest.importorskip("moocore")
pymoo_sorting = pytest.importorskip("pymoo.util.nds.non_dominated_sorting")
pymoo_crowding = pytest.importorskip("pymoo.operators.survival.rank_and_crowding.metrics")

few_values = st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 1.0, 2.0, math.inf])
many_values = st.floats(allow_nan=False, width=64)
matrices = st.integers(1, 7).flatmap(
    lambda m: hnp.arrays(np.float64, st.tuples(st.integers(0, 24), st.just(m)), elements=few_values | many_values)
)


def by_definition(F):
    F = np.asarray(F, np.float64)
    ranks = np.zeros(len(F), np.int32)
    current = 0
    while (ranks == 0).any():
        current += 1
        left = np.flatnonzero(ranks == 0)
        G = F[left]
        dominated = [any((g <= f).all() and (g < f).any() for g in G) for f in G]
        ranks[left[~np.array(dominated)]] = current
    return ranks


def crowding_by_definition(F):
    """Of one front, as the docstring has it."""
    F = np.asarray(F, np.float64)
    n, m = F.shape
    if n <= 2:
        return np.full(n, np.inf)
    total = np.zeros(n)
    for j in range(m):
        order = sorted(range(n), key=lambda i: (F[i, j], *F[i], i))
        v = F[order, j]
        if v[0] == v[-1]:
            continue
        finite = v[np.isfinite(v)]
        size = finite.max() - finite.min() if len(finite) and finite.max() > finite.min() else 1.0
        total[order[0]] = total[order[-1]] = np.inf
        for k in range(1, n - 1):
            gap = 0.0 if v[k + 1] == v[k - 1] else v[k + 1] - v[k - 1]
            total[order[k]] += gap / size
    return total


@settings(deadline=None, max_examples=300)
@given(matrices)
def test_rank_is_the_definition(F):
    ranks = pareto.rank(F)
    assert ranks.dtype == np.int32
    assert np.array_equal(ranks, by_definition(F))


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(140, 700),
    m=st.integers(2, 7),
    levels=st.sampled_from([2, 5, 40, 2**52]),
    slope=st.sampled_from([0.0, 0.5, 1.0]),
    conflict=st.booleans(),
    special=st.lists(st.sampled_from([-math.inf, math.inf, 1e300, -0.0, 5e-324]), max_size=3),
    seed=st.integers(0, 2**32 - 1),
)
def test_rank_of_many_is_the_definition(n, m, levels, slope, conflict, special, seed):
    rng = np.random.default_rng(seed)
    F = rng.integers(0, levels, (n, m)) / levels + slope * rng.permutation(n)[:, None]
    if conflict:
        F[:, 0] = -F[:, 1:].sum(1)
    for value in special:
        F[rng.random(F.shape) < 0.1] = value
    ranks = pareto.rank(F)
    dominates = (F[:, None] <= F).all(2) & (F[:, None] < F).any(2)
    # One more than the largest rank among those that dominate: that is true of nothing else.
    assert np.array_equal(ranks, 1 + np.where(dominates, ranks[:, None], 0).max(0))
    permutation = rng.permutation(n)
    assert np.array_equal(pareto.rank(F[permutation]), ranks[permutation])


@settings(deadline=None, max_examples=100)
@given(matrices, st.randoms(use_true_random=False))
def test_rank_does_not_depend_on_order_or_scale(F, random):
    permutation = list(range(len(F)))
    random.shuffle(permutation)
    ranks = pareto.rank(F)
    assert np.array_equal(pareto.rank(F[permutation]), ranks[permutation])
    assert np.array_equal(pareto.rank(np.arctan(F.astype(np.longdouble)).astype(np.float64)), pareto.rank(np.arctan(F)))
    assert np.array_equal(pareto.rank(-F, maximize=True), ranks)


@settings(deadline=None, max_examples=200)
@given(matrices)
def test_crowding_is_the_definition(F):
    ranks = pareto.rank(F)
    with np.errstate(over="ignore", invalid="ignore"):
        distance = pareto.crowding_distance(F, ranks)
        assert not (distance < 0).any()
        for r in np.unique(ranks):
            expected = crowding_by_definition(F[ranks == r])
            np.testing.assert_allclose(distance[ranks == r], expected, rtol=1e-12)
    np.testing.assert_array_equal(distance, pareto.crowding_distance(F))


@settings(deadline=None, max_examples=150)
@given(matrices)
def test_the_incremental_front_agrees_after_every_insertion(F):
    if not len(F):
        return
    front = pareto.Front(F.shape[1])
    for i, f in enumerate(F):
        assert front.insert(f) == front.ranks[i]
        assert np.array_equal(front.ranks, by_definition(F[: i + 1]))
    assert len(front) == len(F)


def samples():
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 50, 400, 1100):
        for m in (1, 2, 3, 4, 5, 7):
            yield f"uniform {n}x{m}", rng.random((n, m))
            yield f"tied {n}x{m}", rng.integers(0, 4, (n, m)).astype(float)
            yield f"duplicated {n}x{m}", rng.random((n, m))[rng.integers(0, max(1, n // 3), n)]
            yield f"constant {n}x{m}", np.ones((n, m))
            one = rng.random((n, m))
            one[:, 0] -= one.sum(1)
            yield f"one front {n}x{m}", one
            half = rng.random((n, m))
            half[:, 0] = 0.5
            yield f"constant objective {n}x{m}", half


@pytest.mark.parametrize(("name", "F"), list(samples()), ids=lambda v: v if isinstance(v, str) else "")
def test_rank_agrees_with_moocore_and_pymoo(name, F):
    ranks = pareto.rank(F)
    assert np.array_equal(ranks, 1 + moocore.pareto_rank(F)), name  # counts from 0
    fronts = pymoo_sorting.NonDominatedSorting().do(F)
    theirs = np.zeros(len(F), np.int32)
    for r, members in enumerate(fronts, 1):
        theirs[members] = r
    assert np.array_equal(ranks, theirs), name
    front = pareto.Front(F.shape[1])
    for f in F:
        front.insert(f)
    assert np.array_equal(front.ranks, ranks)


@pytest.mark.parametrize("m", [2, 3, 5])
def test_crowding_agrees_with_pymoo(m):
    """pymoo divides by the number of objectives, which changes no order; ties are left to its sort."""
    F = np.random.default_rng(m).random((200, m))
    F[:, 0] -= F.sum(1)
    np.testing.assert_allclose(pareto.crowding_distance(F), m * pymoo_crowding.calc_crowding_distance(F), rtol=1e-9)


def test_maximize():
    F = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 0.0]])
    assert pareto.rank(F).tolist() == [1, 2, 1]
    assert pareto.rank(F, maximize=True).tolist() == [2, 1, 1]
    assert pareto.rank(F, maximize=[True, False]).tolist() == [2, 2, 1]
    assert pareto.rank(F, maximize=np.array([False, True])).tolist() == [1, 1, 2]
    front = pareto.Front(2, maximize=[True, False])
    assert [front.insert(f) for f in F] == [1, 1, 1]
    assert front.ranks.tolist() == [2, 2, 1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8, bool])
def test_any_real_dtype_and_stride(dtype):
    big = (np.random.default_rng(0).random((60, 9)) * 5).astype(dtype)
    for view in (big[::2, 1::3], big.T[:5], np.asfortranarray(big), big[::-1]):
        assert np.array_equal(pareto.rank(view), by_definition(view))
    assert np.array_equal(pareto.rank([[1, 2], [2, 1], [3, 3]]), [1, 1, 2])


def test_infinities_are_ordered_like_numbers():
    F = np.array([[math.inf, -math.inf], [0.0, 0.0], [math.inf, 0.0], [math.inf, math.inf]])
    assert pareto.rank(F).tolist() == [1, 1, 2, 3]
    assert not np.isnan(pareto.crowding_distance(F)).any()


def test_nan_is_named_by_row_and_column():
    F = np.zeros((5, 3))
    F[3, 1] = np.nan
    for call in (pareto.rank, pareto.crowding_distance):
        with pytest.raises(ValueError, match="F: NaN at row 3, column 1"):
            call(F)
        with pytest.raises(ValueError, match="NaN at row 3, column 1"):
            call(F.astype(np.float32))
    front = pareto.Front(3)
    front.insert([0, 0, 0])
    with pytest.raises(ValueError, match="NaN at row 1, column 2"):
        front.insert([0, 0, math.nan])
    assert len(front) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.zeros(3),), ValueError, "1 dimensions; expected 2"),
        ((np.zeros((3, 0)),), ValueError, "no objectives"),
        ((np.zeros((3, 2)), [True]), ValueError, "1 flags for 2 objectives"),
        ((np.zeros((3, 2), complex),), TypeError, "complex128 is not real"),
        ((np.array([["a", "b"]]),), TypeError, "not real numbers"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        pareto.rank(*arguments)


def test_bad_ranks_and_points():
    with pytest.raises(ValueError, match=r"ranks: .*\(3,\)"):
        pareto.crowding_distance(np.zeros((3, 2)), [1, 1])
    with pytest.raises(ValueError, match="n_objectives: 0"):
        pareto.Front(0)
    with pytest.raises(ValueError, match="expected 2 objectives"):
        pareto.Front(2).insert([1, 2, 3])


def test_importing_the_package_is_quick_and_does_not_import_torch():
    code = "import sys, asi_evolve; print('torch' in sys.modules, 'numpy' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "False"]
    timing = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import asi_evolve"], capture_output=True, text=True, check=True
    )
    microseconds = int(timing.stderr.splitlines()[-1].split("|")[1])
    assert microseconds < 300_000
