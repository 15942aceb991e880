"""What a phase starts from must not depend on which worker was first, nor on where a crash cut the results."""

import numpy as np
import pytest

from asi_evolve.campaign import Campaign
from asi_evolve.config import Config
from asi_evolve.domains.synthetic import SyntheticBenchmark
from asi_evolve.knowledge.store import Evaluation, Store
from asi_evolve.phases.learn import assemble


def candidates(campaign, count):
    rng = np.random.default_rng(0)
    made = [campaign.baseline]
    while len(made) < count:
        parent = made[int(rng.integers(len(made)))]
        name = str(rng.choice(list(campaign.domains)))
        domain = campaign.domains[name]
        child = parent.replace(domain.apply(parent[name], domain.mutate(parent[name], rng)))
        if child not in made:
            made.append(child)
    return made


def play(path, arrivals, look_after):
    """Stores results in this order, looking at them after some, as phases do; then what is known and chosen."""
    benchmark = SyntheticBenchmark()
    store = Store(path)
    campaign = Campaign(Config(), benchmark, store, None, None)
    made = candidates(campaign, 30)
    for i, c in enumerate(made):
        parents = [made[0].hash] if i else []
        store.add_candidate(c, 0, "random" if i else "baseline", c.changed(made[0])[0] if i else None, parents)
    rng = np.random.default_rng(1)
    values = [(round(float(v), 1), float(c)) for v, c in zip(rng.random(30), rng.integers(1, 3, 30), strict=True)]
    for position, i in enumerate(arrivals):
        failed = i % 7 == 5
        metrics = {} if failed else {"loss": values[i][0], "cost": values[i][1]}
        status, failure = ("failed", "crash") if failed else ("ok", None)
        store.add_evaluation(Evaluation(made[i].hash, "isolated", 0, 0, status, metrics, failure, f"failure {i}"))
        if position in look_after:
            campaign.ledger()
    population = campaign.population()
    chosen = [population.select(3, np.random.default_rng(s)) for s in range(40)]
    found = (assemble(campaign), chosen, population.best(30), list(campaign.best_components("data")))
    store.close()
    return found


@pytest.mark.parametrize("seed", range(4))
def test_order_and_batches_of_results_decide_nothing(tmp_path, seed):
    order = np.random.default_rng(seed).permutation(30)
    expected = play(tmp_path / "a.db", range(30), ())
    assert play(tmp_path / "b.db", order, {3, 4, 17}) == expected
