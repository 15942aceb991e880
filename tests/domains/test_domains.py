import json
import math

import numpy as np
import pytest

from asi_evolve.candidate import Candidate, Component, Edit
from asi_evolve.domain import Benchmark, Domain, Stage
from asi_evolve.domains.algorithm import AlgorithmDomain, TrainingSpec
from asi_evolve.domains.architecture import ArchitectureDomain, mechanisms, reference_source
from asi_evolve.domains.data import DataDomain, select, uses_code
from asi_evolve.domains.lm import LanguageModelBenchmark
from asi_evolve.domains.synthetic import FLOOR, SyntheticBenchmark
from asi_evolve.errors import InvalidCandidate, InvalidEdit

DOMAINS = [ArchitectureDomain(), AlgorithmDomain(), DataDomain()]


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda d: d.name)
def test_domain_protocol(domain):
    assert isinstance(domain, Domain)
    baseline = domain.baseline()
    domain.validate(baseline)
    assert Component.from_json(json.loads(json.dumps(baseline.to_json()))) == baseline
    rng = np.random.default_rng(0)
    length = len(domain.features(baseline))
    component, seen = baseline, set()
    for _ in range(60):
        edit = domain.mutate(component, rng)
        child = domain.apply(component, edit)
        domain.validate(child)
        features = domain.features(child)
        assert features.shape == (length,)
        assert np.isfinite(features).all()
        assert np.abs(features).max() <= 4
        seen.add(child.hash)
        component = child
    assert len(seen) > 40
    assert domain.apply(baseline, Edit()) == baseline
    for name in (*baseline.params, *baseline.files):
        assert name in domain.describe()
    with pytest.raises(InvalidCandidate, match="nonsense"):
        domain.apply(baseline, Edit(params={"nonsense": 1}))
    with pytest.raises(InvalidCandidate, match="domain"):
        domain.validate(Component("other", baseline.params, baseline.files))


def test_benchmarks_fulfil_the_protocol():
    for benchmark in (LanguageModelBenchmark(), SyntheticBenchmark()):
        assert isinstance(benchmark, Benchmark)
        assert [d.name for d in benchmark.domains()] == ["architecture", "algorithm", "data"]
        again = type(benchmark)(**benchmark.options)
        assert [d.baseline() for d in again.domains()] == [d.baseline() for d in benchmark.domains()]
    with pytest.raises(TypeError):
        LanguageModelBenchmark(full_steps=0)


class TestMechanisms:
    domain = DOMAINS[0]

    def test_a_parameter_brings_its_code(self):
        child = self.domain.apply(self.domain.baseline(), Edit(params={"mlp": "swiglu"}))
        assert child.files["mlp.py"] == reference_source("mlp", "swiglu")

    def test_edited_code_is_custom_and_keeps_moving(self):
        baseline = self.domain.baseline()
        code = reference_source("mlp", "gelu").replace("F.gelu(self.up(x)", "F.gelu(2 * self.up(x)")
        child = self.domain.apply(baseline, Edit(files={"mlp.py": code}))
        assert child.params["mlp"] == "custom"
        self.domain.validate(child)
        assert not np.array_equal(self.domain.features(child), self.domain.features(baseline))
        other = self.domain.apply(child, Edit(params={"layers": 3}))
        assert (other.params["mlp"], other.files["mlp.py"]) == ("custom", code)
        back = self.domain.apply(other, Edit(params={"mlp": "relu2"}))
        assert back.files["mlp.py"] == reference_source("mlp", "relu2")
        rewritten = self.domain.apply(other, Edit(files={"mlp.py": reference_source("mlp", "relu2")}))
        assert rewritten.params["mlp"] == "relu2"

    def test_custom_needs_code(self):
        with pytest.raises(InvalidCandidate, match="custom"):
            self.domain.apply(self.domain.baseline(), Edit(params={"mlp": "custom"}))
        assert "custom" not in json.dumps(self.domain.space["mlp"].schema())
        assert "custom" not in self.domain.space["mlp"].options("gelu")

    def test_validation(self):
        apply, baseline = self.domain.apply, self.domain.baseline()
        for edit, words in (
            (Edit(params={"width": 80, "heads": 8, "layers": 1}), None),
            (Edit(params={"width": 48, "heads": 8}), None),
            (Edit(params={"width": 80, "heads": 4, "layers": 1}), None),
            (Edit(params={"width": 48, "heads": 8, "layers": 1}), None),
            (Edit(params={"width": 32, "heads": 8, "layers": 1}), None),
            (Edit(params={"width": 160, "layers": 8}), "parameters; at most"),
            (Edit(files={"mlp.py": "import os\nclass MLP: pass\n"}), "import of 'os'"),
            (Edit(files={"mlp.py": "class Other: pass\n"}), "does not define MLP"),
            (Edit(files={"mlp.py": "class MLP(:\n"}), "line 1"),
            (Edit(files={"extra.py": "x = 1\n"}), "not a file"),
        ):
            child = apply(baseline, edit)
            if words is None:
                self.domain.validate(child)
            else:
                with pytest.raises(InvalidCandidate, match=words):
                    self.domain.validate(child)
        with pytest.raises((InvalidCandidate, InvalidEdit), match="removed"):
            apply(baseline, Edit(files={"mlp.py": None}))

    def test_every_reference_is_in_the_space(self):
        for slot, known in mechanisms().items():
            assert tuple(known) == self.domain.space[slot].values


def test_training_spec_round_trip_and_range():
    spec = TrainingSpec(optimizer="muon", learning_rate=0.01)
    assert TrainingSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    with pytest.raises(InvalidCandidate, match="learning_rate"):
        TrainingSpec(learning_rate=7.0)
    with pytest.raises(InvalidCandidate, match="missing"):
        TrainingSpec.from_json({"optimizer": "sgd"})


STATISTICS = {
    "bytes": np.array([100.0, 300, 300, 1000, 50]),
    "alpha": np.array([0.9, 0.2, 0.2, 0.8, 0.7]),
    "digit": np.array([0.0, 0.7, 0.7, 0.1, 0.0]),
    "symbol": np.array([0.0, 0.1, 0.1, 0.05, 0.1]),
    "repeated_lines": np.array([0.0, 0.5, 0.5, 0.0, 0.0]),
    "stop_words": np.array([0.4, 0.0, 0.0, 0.3, 0.1]),
    "sentences": np.array([1.0, 0.0, 0.0, 0.5, 0.5]),
    "word_length": np.array([5.0, 2.0, 2.0, 5.0, 4.0]),
    "compression": np.array([0.5, 0.2, 0.2, 0.4, 0.9]),
}


class TestPipeline:
    def run(self, kept=None, scores=None, **params):
        start = dict(DataDomain(["good", "bad"]).baseline().params)
        sources, exact, near = np.array([0, 1, 1, 0, 1]), np.array([0, 1, 1, 3, 4]), np.array([0, 1, 1, 0, 4])
        return select(
            STATISTICS, sources, ["good", "bad"], exact, near, params={**start, **params}, kept=kept, scores=scores
        )

    def test_baseline_is_uniform(self):
        selection = self.run()
        np.testing.assert_array_equal(selection.documents, np.arange(5))
        np.testing.assert_array_equal(selection.weights, np.ones(5))
        assert not uses_code(DataDomain().baseline())

    def test_steps(self):
        assert list(self.run(deduplicate="exact").documents) == [0, 1, 3, 4]
        assert list(self.run(deduplicate="near").documents) == [0, 1, 4]
        assert list(self.run(deduplicate="near", min_bytes=200).documents) == [1, 3]
        assert list(self.run(min_alpha=0.5).documents) == [0, 3, 4]
        assert list(self.run(weight_bad=0.0).documents) == [0, 3]
        assert self.run(weight_bad=0.5).weights[1] == 0.5
        quality = self.run(quality="prose", quality_strength=1.0).weights
        assert quality[0] > quality[3] > quality[1]

    def test_temperature_balances_sources(self):
        selection = self.run(temperature=10.0)
        drawn = selection.weights * STATISTICS["bytes"]
        good, bad = drawn[[0, 3]].sum(), drawn[[1, 2, 4]].sum()
        assert good / bad == pytest.approx((1100 / 650) ** 0.1, rel=1e-6)

    def test_code_answers(self):
        kept = np.array([True, False, True, True, False])
        selection = self.run(kept=kept, scores=np.array([1.0, 9.0, 0.0, 2.0, 9.0]))
        assert list(selection.documents) == [0, 3]
        assert list(selection.weights) == [0.5, 1.0]
        assert len(self.run(kept=np.zeros(5, bool)).documents) == 0


class TestSynthetic:
    benchmark = SyntheticBenchmark(noise=0.0)

    def at(self, **changes):
        parts = [
            d.apply(d.baseline(), Edit(params={**self.benchmark.optimum()[d.name], **changes.get(d.name, {})}))
            for d in self.benchmark.domains()
        ]
        return self.benchmark.evaluate(Candidate(parts), Stage("full", 1.0, 1.0), 0)["loss"]

    def test_optimum_is_the_minimum(self):
        assert self.at() == pytest.approx(FLOOR)
        rng = np.random.default_rng(0)
        for _ in range(300):
            point = {d.name: d.space.sample(rng) for d in self.benchmark.domains()}
            assert self.at(**point) >= FLOOR - 1e-12

    def test_domains_interact(self):
        small = {"architecture": {"width": 32}}
        better = {**small, "algorithm": {"learning_rate": 0.002 * math.sqrt(8)}}
        assert self.at(**better) < self.at(**small)
        dirty, other = {"data": {"filter": 0.4}}, {"architecture": {"mixer": "attention"}}
        assert self.at(**dirty, **other) < self.at(**dirty)
        assert self.at(**other) > self.at()

    def test_noise_is_seeded(self):
        noisy = SyntheticBenchmark(noise=0.1)
        triple = Candidate([d.baseline() for d in noisy.domains()])
        values = [noisy.evaluate(triple, Stage("full", 1.0, 1.0), s)["loss"] for s in (0, 0, 1)]
        assert values[0] == values[1] != values[2]
