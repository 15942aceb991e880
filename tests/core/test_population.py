"""The incremental population against everything computed anew."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asi_evolve import Candidate, Component
from asi_evolve.fitness import Fitness
from asi_evolve.novelty import Archive
from asi_evolve.population import Population
from asi_evolve.selection import rank_and_crowding


def candidate(i, rng):
    return Candidate([Component("data", {"i": i, "x": rng.integers(0, 6, 3).tolist()})])


def embed(c):
    return np.array(c["data"].params["x"], np.float64)


def stream(seed, n):
    """Batches of (candidate, stage) and the value of each at each stage."""
    rng = np.random.default_rng(seed)
    made = [candidate(i, rng) for i in range(n)]
    values = {
        c.hash: {s: (round(rng.random(), 1), 1.0 + round(rng.random(), 1)) for s in ("isolated", "full")} for c in made
    }
    failed = {c.hash for c in made if rng.random() < 0.15}
    events = [(c, "isolated") for c in made] + [(c, "full") for c in made if rng.random() < 0.3]
    cut = sorted(rng.integers(0, len(events), 4).tolist())
    batches = [events[a:b] for a, b in zip([0, *cut], [*cut, len(events)], strict=True)]
    return batches, values, failed


def play(batches, values, failed):
    population = Population(embed, Archive(3, 2))
    reached = {}
    for batch in batches:
        for c, stage in batch:
            reached[c.hash] = stage

        def value(key, novelty):
            return None if key in failed else Fitness(reached[key], *values[key][reached[key]], novelty, 1)

        population.update([c for c, _ in batch], value)
    return population, reached


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 40))
def test_it_stays_equal_to_everything_computed_anew(seed, n):
    batches, values, failed = stream(seed, n)
    population, reached = play(batches, values, failed)
    members = list(dict.fromkeys(c for batch in batches for c, _ in batch))
    x = np.array([embed(c) for c in members])
    distances = np.linalg.norm(x[:, None] - x[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    novelty = np.sort(distances, axis=1)[:, : min(2, n - 1)].mean(axis=1) if n > 1 else np.zeros(1)
    expected = {
        c.hash: Fitness(reached[c.hash], *values[c.hash][reached[c.hash]], float(v), 1)
        for c, v in zip(members, novelty, strict=True)
        if c.hash not in failed
    }
    assert len(population) == len(expected)
    keys = sorted(expected)
    for key in keys:
        assert population.fitness(key).vector() == pytest.approx(expected[key].vector(), abs=1e-6)
    ranks, crowding = rank_and_crowding([population.fitness(k) for k in keys])
    assert [population.rank(k) for k in keys] == ranks.tolist()
    assert [population.crowding(k) for k in keys] == crowding.tolist()
    order = sorted(range(len(keys)), key=lambda i: (ranks[i], -crowding[i], -expected[keys[i]].performance, keys[i]))
    assert [k for k, _ in population.best(5)] == [keys[i] for i in order[:5]]


def test_a_tournament_prefers_the_better_and_breaks_ties_by_chance():
    rng = np.random.default_rng(0)
    made = [candidate(i, rng) for i in range(4)]
    # One dominates, one is dominated by all, two are equal and in between.
    values = dict(zip((c.hash for c in made), [(3.0, 1.0), (2.0, 1.0), (2.0, 1.0), (1.0, 1.0)], strict=True))
    population = Population(lambda c: np.zeros(3), Archive(3, 2))
    population.update(made, lambda key, novelty: Fitness("isolated", *values[key], novelty, 1))
    wins = [population.select(2, np.random.default_rng(i)) for i in range(600)]
    share = [wins.count(c.hash) / 600 for c in made]
    assert share[3] == 0.0  # the worst never beats another
    assert share[0] == pytest.approx(0.5, abs=0.06)
    assert share[1] == pytest.approx(0.25, abs=0.06)
    assert share[2] == pytest.approx(0.25, abs=0.06)


def test_nothing_to_choose_from():
    population = Population(embed, Archive(3, 2))
    assert population.best(3) == []
    with pytest.raises(ValueError, match="nothing to choose"):
        population.select(3, np.random.default_rng(0))
