import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asi_evolve import Choice, Integer, Real, SearchSpace
from asi_evolve.errors import InvalidCandidate

PARAMETERS = [
    Choice("c", ("a", "b", "c")),
    Choice("n", (0, 2, 4.5)),
    Choice("b", (False, True)),
    Integer("i", 1, 12),
    Integer("w", 32, 512, log=True),
    Real("r", -1.0, 3.0),
    Real("l", 1e-4, 1e-1, log=True),
]
SPACE = SearchSpace(PARAMETERS)
seeds = st.integers(0, 2**31)


@given(st.sampled_from(PARAMETERS), seeds)
def test_what_is_drawn_is_allowed_and_encodes_to_the_unit_interval(p, seed):
    rng = np.random.default_rng(seed)
    value = p.sample(rng)
    for v in (value, p.neighbour(value, rng), *p.options(value)):
        assert p.check(v) == v
        assert all(0 <= x <= 1 for x in p.encode(v))
    assert value not in p.options(value)
    assert len(p.options(value)) <= 9


@given(seeds)
def test_a_mutation_changes_something_and_stays_inside(seed):
    rng = np.random.default_rng(seed)
    params = {p.name: p.sample(rng) for p in PARAMETERS}
    change = SPACE.mutate(params, rng)
    assert change
    assert any(params[k] != v for k, v in change.items())
    SPACE.check({**params, **change})


@pytest.mark.parametrize(
    ("p", "bad"),
    [
        (PARAMETERS[0], "d"),
        (PARAMETERS[1], 3),
        (PARAMETERS[2], 1),
        (PARAMETERS[3], 0),
        (PARAMETERS[3], 1.5),
        (PARAMETERS[3], True),
        (PARAMETERS[5], math.nan),
        (PARAMETERS[5], math.inf),
        (PARAMETERS[6], "0.01"),
        (PARAMETERS[6], 0.2),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(p, bad):
    with pytest.raises(InvalidCandidate, match=rf"^{p.name}: "):
        p.check(bad)


def test_a_choice_of_numbers_takes_equal_numbers():
    assert PARAMETERS[1].check(2.0) == 2
    assert type(PARAMETERS[1].check(2.0)) is int


def test_unknown_and_missing_parameters_are_named():
    good = {p.name: p.options(None)[0] if isinstance(p, Choice) else p.low for p in PARAMETERS}
    with pytest.raises(InvalidCandidate, match="zzz"):
        SPACE.check({**good, "zzz": 1})
    del good["c"]
    with pytest.raises(InvalidCandidate, match="c"):
        SPACE.check(good)
