"""Statistics against scipy, fitness against hand-made ledgers, the cascade's arithmetic."""

import math

import numpy as np
import pytest
from scipy import stats

from asi_evolve import Candidate, Component
from asi_evolve.cascade import combine, promoted
from asi_evolve.fitness import improvements, noise_interval, pooled_deviation, relative_cost, t_interval
from asi_evolve.knowledge.store import Evaluation
from asi_evolve.ledger import Ledger
from asi_evolve.selection import tournament


class Metric:
    metric, maximize, costs = "loss", False, ("seconds", "memory")


def evaluations(table):
    """{(candidate, stage): {seed: (loss, seconds)}}"""
    return [
        Evaluation(c, stage, seed, 0, "ok", {"loss": loss, "seconds": s, "memory": 1.0})
        for (c, stage), seeds in table.items()
        for seed, (loss, s) in seeds.items()
    ]


def test_interval_is_students():
    x = np.random.default_rng(0).normal(2, 3, 7)
    ours = t_interval(x)
    low, high = stats.t.interval(0.95, 6, x.mean(), stats.sem(x))
    assert (ours.low, ours.high, ours.n) == (pytest.approx(low), pytest.approx(high), 7)
    assert t_interval([1.0]).low == -math.inf
    assert math.isnan(t_interval([]).mean)


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = sum(t.low <= 5 <= t.high for t in (t_interval(rng.normal(5, 2, 4)) for _ in range(2000)))
    assert 0.93 < hits / 2000 < 0.97


def test_pooled_noise_gives_single_measurements_an_interval():
    noise = pooled_deviation([[1.0, 3.0], [10.0, 12.0, 14.0], [7.0]])
    assert noise == (pytest.approx(math.sqrt((2 + 8) / 3)), 3)
    single = noise_interval([4.0], noise)
    assert single.high - 4.0 == pytest.approx(stats.t.ppf(0.975, 3) * noise[0])
    assert pooled_deviation([[1.0]]) is None


def test_improvements_are_paired_by_seed():
    ours = {0: {"loss": 1.0}, 1: {"loss": 2.0}, 5: {"loss": 9.0}}
    base = {1: {"loss": 2.5}, 0: {"loss": 1.25}}
    assert improvements(ours, base, "loss", maximize=False) == [0.25, 0.5]
    assert improvements(ours, base, "loss", maximize=True) == [-0.25, -0.5]


def test_cost_is_the_geometric_mean_of_ratios():
    ours, base = {0: {"a": 4.0, "b": 1.0}}, {0: {"a": 1.0, "b": 1.0}}
    assert relative_cost(ours, base, ("a", "b")) == pytest.approx(2.0)
    assert relative_cost(ours, base, ()) == 1.0


def test_a_candidate_is_valued_at_its_highest_stage_on_common_seeds():
    table = {
        ("base", "isolated"): {0: (2.0, 1.0)},
        ("base", "full"): {0: (1.5, 8.0), 1: (1.6, 8.0)},
        ("x", "isolated"): {0: (1.0, 2.0)},
        ("x", "full"): {0: (1.4, 16.0), 1: (1.4, 16.0)},
        ("y", "isolated"): {0: (1.9, 1.0)},
        ("z", "cross"): {0: (0.1, 1.0)},
    }
    ledger = Ledger(evaluations(table), "base", Metric)
    x = ledger.fitness("x", 0.5)
    assert (x.stage, x.performance, x.novelty, x.seeds) == ("full", pytest.approx(0.15), 0.5, 2)
    assert x.cost == pytest.approx(math.sqrt(2))
    assert ledger.fitness("y", 0.0).performance == pytest.approx(0.1)
    assert ledger.fitness("z", 0.0) is None  # nothing to compare it with
    assert ledger.incumbent([0, 1]) == "x"
    assert ledger.incumbent([0, 1, 2]) == "base"  # not measured on all seeds
    assert ledger.fitness("base", 0.0).performance == 0.0


def test_only_the_full_stage_makes_an_incumbent():
    table = {("base", "full"): {0: (1.5, 1.0)}, ("x", "isolated"): {0: (0.1, 1.0)}, ("y", "full"): {0: (1.6, 1.0)}}
    assert Ledger(evaluations(table), "base", Metric).incumbent([0]) == "base"


# -- cascade ----------------------------------------------------------------------------------------------------------


def component(domain, x):
    return Component(domain, {"x": x})


def test_combinations_join_domains_and_always_hold_something_fresh():
    incumbent = Candidate([component(d, 0) for d in ("architecture", "algorithm", "data")])
    a1, a2, d1 = component("architecture", 1), component("architecture", 2), component("data", 1)
    promising = {"architecture": [(a1, 0.3, "A1"), (a2, 0.1, "A2")], "data": [(d1, 0.2, "D1")]}
    triples = combine(incumbent, promising, {a1.hash}, set(), 10)
    assert triples[0].candidate == incumbent.replace(a1, d1)
    assert triples[0].predicted == pytest.approx(0.5)
    assert set(triples[0].sources) == {"A1", "D1"}
    assert all(t.candidate.architecture == a1 for t in triples)
    assert len(combine(incumbent, promising, {a1.hash, a2.hash, d1.hash}, set(), 10)) == 3 * 2 - 1
    assert not combine(incumbent, promising, set(), set(), 10)
    known = {triples[0].candidate.hash}
    assert known.isdisjoint(t.candidate.hash for t in combine(incumbent, promising, {a1.hash}, known, 10))


def test_promotion_rounds_up():
    assert [promoted(n, 0.34) for n in (0, 1, 2, 3, 6, 10)] == [0, 1, 1, 2, 3, 4]
    assert promoted(3, 1.0) == 3


def test_tournament_prefers_rank_then_crowding_then_the_first():
    assert tournament([2, 1, 1, 3], [9.0, 1.0, 2.0, 9.0]) == 2
    assert tournament([1, 1], [3.0, 3.0]) == 0
    with pytest.raises(ValueError, match="nothing to choose"):
        tournament([], [])
