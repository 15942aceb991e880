"""Explanations are tested by experiments: planted false ones are refuted, planted true ones supported."""

import numpy as np
import pytest

from asi_evolve import Candidate
from asi_evolve.campaign import Campaign
from asi_evolve.candidate import Edit
from asi_evolve.config import load_config
from asi_evolve.domains.architecture import ArchitectureDomain
from asi_evolve.domains.data import DataDomain
from asi_evolve.domains.synthetic import SyntheticBenchmark
from asi_evolve.execution.pool import LocalPool, benchmark_spec
from asi_evolve.knowledge.store import Store
from asi_evolve.phases.experiment import evaluate
from asi_evolve.phases.explain import explain, judge, mechanisms, precision, transplant
from asi_evolve.report.summary import summarize

# Warm-up 0 and 0.2, and temperature 3 and 1/3, are equally far from the optimum: changing them changes nothing.
IRRELEVANT = {"algorithm": {"warmup": 0.2}, "data": {"temperature": 1 / 3}}
RELEVANT = [
    ("algorithm.optimizer", {"optimizer": "adam"}),
    ("data.deduplicate", {"deduplicate": True}),
    ("architecture.depth", {"depth": 5}),
]
TRIALS = 30


class Trial:
    """A campaign in which a better candidate has been measured, and somebody says why it is better."""

    def __init__(self, path, seed, relevant, **analyze):
        benchmark = SyntheticBenchmark()
        self.config = load_config({"seed": seed, "llm": {"provider": "none"}, "analyze": analyze})
        self.store = Store(path)
        self.pool = LocalPool(benchmark_spec(benchmark), dict(benchmark.options), "judge")
        self.campaign = Campaign(self.config, benchmark, self.store, None, self.pool)
        base = self.campaign.baseline
        changes = {name: dict(params) for name, params in IRRELEVANT.items()}
        for mechanism, params in relevant:
            changes.setdefault(mechanism.split(".")[0], {}).update(params)
        winner = base
        for name, params in changes.items():
            winner = winner.replace(self.campaign.domains[name].apply(base[name], Edit(params=params)))
        self.winner = winner
        self.store.add_candidate(base, 0, "baseline")
        self.store.add_candidate(winner, 0, "cross", None, [base.hash])
        for stage in ("isolated", "cross", "full", "confirm"):
            evaluate(self.campaign, 0, stage, [base.hash, winner.hash])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pool.__exit__(None, None, None)
        self.store.close()

    def verdict(self, mechanism, cycle=0):
        base = self.campaign.baseline.hash
        self.store.add_explanation(
            cycle=cycle, candidate=self.winner.hash, reference=base, mechanism=mechanism, provenance="llm"
        )
        explain(self.campaign, cycle)
        return self.store.explanations()[-1]


def test_planted_explanations(tmp_path):
    """At the default budget, 30 trials each."""
    said = {"true": [], "false": []}
    for seed in range(TRIALS):
        relevant = RELEVANT[seed % len(RELEVANT)]
        false = ("algorithm.warmup", "data.temperature")[seed % 2]
        for kind, mechanism in (("true", relevant[0]), ("false", false)):
            with Trial(tmp_path / f"{seed}{kind}.db", seed, [relevant]) as trial:
                said[kind].append(trial.verdict(mechanism)["status"])
    assert said["false"].count("refuted") >= 0.9 * TRIALS, said
    assert said["true"].count("supported") >= 0.8 * TRIALS, said
    assert "supported" not in said["false"]
    assert "refuted" not in said["true"]


def test_a_minor_part_of_the_gain_is_not_the_reason(tmp_path):
    with Trial(tmp_path / "t.db", 1, [RELEVANT[0], RELEVANT[1]], explanation_seeds=8, explanation_share=0.9) as trial:
        minor = trial.verdict("data.deduplicate")  # 0.05 of 0.2
        assert minor["status"] == "refuted"
        assert minor["low"] > 0
        major = trial.verdict("algorithm.optimizer", 1)
        assert major["status"] == "supported"
        assert major["effect"] == pytest.approx(0.15, abs=0.03)
        assert precision(trial.store.explanations()) == (1, 2)


def test_the_share_of_the_budget_is_kept(tmp_path):
    with Trial(tmp_path / "t.db", 1, [RELEVANT[0]]) as trial:
        assert trial.verdict("algorithm.optimizer")["status"] == "supported"
        for cycle in range(1, 9):  # nothing else is spent in between
            later = trial.verdict("data.temperature", cycle)
        assert later["status"] == "untested"
        evaluations = trial.store.evaluations()
        spent = {s: sum(trial.config.stage(e.stage).budget for e in evaluations if (e.stage == "explain") == s)
                 for s in (True, False)}  # fmt: skip
        assert 0 < spent[True] <= 0.2 * (spent[True] + spent[False])
        assert precision(trial.store.explanations()) == (1, 1)
    with Trial(tmp_path / "off.db", 1, [RELEVANT[0]], explanation_share=0) as trial:
        assert trial.verdict("algorithm.optimizer")["status"] == "untested"


def test_a_test_is_made_once(tmp_path):
    with Trial(tmp_path / "t.db", 1, [RELEVANT[0]]) as trial:
        first = trial.verdict("algorithm.optimizer")
        count = len(trial.store.evaluations())
        explain(trial.campaign, 0)
        assert len(trial.store.evaluations()) == count
        assert trial.store.explanations() == [first]


def test_counterfactuals_that_fail_or_do_not_fit(tmp_path):
    with Trial(tmp_path / "t.db", 1, [RELEVANT[0]]) as trial:
        said = trial.verdict("algorithm.no_such_parameter")
        assert said["status"] == "inconclusive"
        assert "not valid" in said["reason"]


def test_verdict_of_numbers():
    assert judge([1.0, 1.1, 0.9], [1.0, 1.1, 0.9], [1.0, 1.1, 0.9])[0] == "supported"
    assert judge([1.0, 1.1, 0.9], [0.01, -0.02, 0.0], [0.0, 0.01, -0.01])[0] == "refuted"
    assert judge([1.0, 1.1, 0.9], [2.0, -2.0, 0.5], [1.0, -1.0, 0.5])[0] == "inconclusive"
    status, reason, _ = judge([-0.1, 0.0, -0.1], [1.0, 1.1, 0.9], [1.0, 1.1, 0.9])
    assert status == "refuted"
    assert "not better on fresh seeds" in reason
    # One experiment counted twice would make the interval too narrow.
    same = judge([1.0, 1.2], [1.0, 1.2], [1.0, 1.2])[2]
    apart = judge([1.0, 1.2], [1.0, 1.2], [1.2, 1.0])[2]
    assert same.high - same.low > apart.high - apart.low


@pytest.mark.parametrize("seed", range(8))
def test_a_mechanism_moves_with_its_file(seed):
    """Putting every mechanism of one candidate into another, in any order that works, gives the first one."""
    rng = np.random.default_rng(seed)
    domains = {d.name: d for d in (ArchitectureDomain(), DataDomain())}
    base = Candidate([d.baseline() for d in domains.values()])
    other = base
    for name, domain in domains.items():
        for _ in range(3):
            other = other.replace(domain.apply(other[name], domain.mutate(other[name], rng)))
    names = mechanisms(other, base)
    assert names
    assert mechanisms(base, base) == []
    moved = base
    waiting = list(names)
    for _ in range(len(names)):
        for name in list(waiting):
            try:
                moved = transplant(domains, moved, other, name)
            except ValueError:
                continue  # needs another one first
            waiting.remove(name)
    assert not waiting
    assert moved == other


def test_code_of_a_slot_is_one_mechanism():
    domain = ArchitectureDomain()
    base = Candidate([domain.baseline()])
    path = "mlp.py"
    text = base["architecture"].files[path].replace("class MLP", "# another\nclass MLP")
    child = base.replace(domain.apply(base["architecture"], Edit(files={path: text})))
    assert mechanisms(child, base) == ["architecture.mlp"]
    assert transplant({"architecture": domain}, base, child, "architecture.mlp") == child
    assert transplant({"architecture": domain}, child, base, "architecture.mlp") == base


def test_a_campaign_reports_its_precision(tmp_path, recording):
    summary = summarize(recording, SyntheticBenchmark(failure_rate=0.1))
    assert summary.explanations
    assert {e["status"] for e in summary.explanations} - {"untested"}
    j = summary.to_json()
    assert j["explanations"]["given"] == len(summary.explanations)
    assert j["evaluations"]["explain"] > 0
    assert "explanations:" in summary.text()
