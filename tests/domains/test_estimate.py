"""Estimates before training against the model as built, and against real training; and what they refuse."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from asi_evolve.campaign import Campaign  # noqa: E402
from asi_evolve.candidate import Candidate, Edit, thaw  # noqa: E402
from asi_evolve.config import Config  # noqa: E402
from asi_evolve.domain import Stage  # noqa: E402
from asi_evolve.domains.algorithm import AlgorithmDomain  # noqa: E402
from asi_evolve.domains.architecture import ArchitectureDomain, model_files  # noqa: E402
from asi_evolve.domains.architecture import estimate as estimates  # noqa: E402
from asi_evolve.domains.architecture.domain import REFERENCES, reference_source  # noqa: E402
from asi_evolve.domains.architecture.estimate import SLOW, MachineRates, estimate_training, machine_rates  # noqa: E402
from asi_evolve.domains.lm import LanguageModelBenchmark  # noqa: E402
from asi_evolve.domains.lm_joint import JointBenchmark  # noqa: E402
from asi_evolve.errors import InvalidCandidate  # noqa: E402
from asi_evolve.execution import Limits, Sandbox  # noqa: E402
from asi_evolve.execution.limits import MEBIBYTE  # noqa: E402
from asi_evolve.knowledge.store import Store  # noqa: E402
from asi_evolve.phases.design import Proposal, Slot, _Design  # noqa: E402

DOMAIN = ArchitectureDomain(10**9)
RATES = MachineRates(flops=70e9, floats=28e9, call=5e-6, start=1.5, resident_mb=240.0)
EVERY = [(slot, name) for slot, names in REFERENCES.items() for name in names]
SIZES = [  # parameters, sequence length
    ({"layers": 2, "width": 64, "heads": 4, "mlp_ratio": 4.0, "window": 16}, 128),
    ({"layers": 3, "width": 96, "heads": 2, "mlp_ratio": 1.0, "window": 4, "tie_embeddings": True}, 40),
    ({"layers": 1, "width": 32, "heads": 8, "mlp_ratio": 3.0, "window": 64}, 200),
]
# Every reference at every size in one process: no start of Python and torch for each.
COUNT = """
import importlib, sys
from pathlib import Path
import torch
from asi_evolve.domains.lm_runner import _flops
def count(cases):
    found = []
    for architecture, length, files in cases:
        for path, text in files.items():
            Path(path).parent.mkdir(exist_ok=True)
            Path(path).write_text(text)
        for name in [m for m in sys.modules if m.split(".")[0] == "model"]:
            del sys.modules[name]
        importlib.invalidate_caches()
        model = importlib.import_module("model").build(architecture, length)
        tokens = torch.zeros(1, length, dtype=torch.long)
        found.append([sum(p.numel() for p in model.parameters()), _flops(model, tokens)])
    return found
"""


def component(files=None, **params):
    return DOMAIN.apply(DOMAIN.baseline(), Edit(params=params, files=files or {}))


@pytest.fixture(scope="module")
def counted():
    """Parameters and FLOPs as built, by case."""
    keys = [(slot, name, i) for slot, name in EVERY for i in range(len(SIZES))]
    made = [component(**{**SIZES[i][0], slot: name}) for slot, name, i in keys]
    cases = [[thaw(c.params), SIZES[k[2]][1], model_files(c)] for c, k in zip(made, keys, strict=True)]
    result = Sandbox("auto").run(COUNT, "count", {"cases": cases})
    assert result.ok, result.error
    return dict(zip(keys, result.value, strict=True))


@pytest.mark.parametrize(("slot", "name"), EVERY)
def test_parameters_and_flops_of_every_reference(counted, slot, name):
    for i, (params, length) in enumerate(SIZES):
        made = component(**{**params, slot: name})
        found = estimate_training(made.params, length=length, batch=8, steps=10, rates=RATES)
        parameters, flops = counted[slot, name, i]
        assert found.parameters == pytest.approx(parameters, rel=0.02)
        assert flops / 1.25 < found.flops_per_token < flops * 1.25


@pytest.mark.parametrize("slot", REFERENCES)
def test_code_of_ones_own_counts_as_the_least_of_its_slot(slot):
    path = f"{slot}.py"
    own = component({path: reference_source(slot, REFERENCES[slot][0]) + "\n# mine\n"})
    assert own.params[slot] == "custom"
    found = vars(estimate_training(own.params, length=128, batch=8, steps=10, rates=RATES))
    every = [
        vars(estimate_training(component(**{slot: n}).params, length=128, batch=8, steps=10, rates=RATES))
        for n in REFERENCES[slot]
    ]
    for name, value in found.items():
        assert value <= min(e[name] for e in every) * 1.001


def test_estimates_grow_with_what_they_depend_on():
    base = {"length": 128, "batch": 16, "steps": 100, "rates": RATES}
    params = component().params
    start = estimate_training(params, **base)
    more = estimate_training(params, **{**base, "steps": 200})
    assert more.seconds - RATES.start == pytest.approx(2 * (start.seconds - RATES.start))
    wide = estimate_training(params, **{**base, "batch": 64})
    assert wide.peak_memory_mb > start.peak_memory_mb + 50
    assert estimate_training(params, **base, optimizer="muon").seconds > start.seconds > estimate_training(
        params, **base, optimizer="sgd"
    ).seconds  # fmt: skip
    slow = estimate_training(params, **{**base, "rates": SLOW})
    assert slow.seconds > 3 * start.seconds
    long = estimate_training(params, **{**base, "length": 512})
    assert long.flops_per_token > start.flops_per_token
    assert long.parameters == start.parameters + (512 - 128) * params["width"]  # learned positions


@pytest.fixture
def rates(monkeypatch):
    """Rates of a fixed machine, and how often they were asked for."""
    asked = []
    monkeypatch.setattr(estimates, "machine_rates", lambda: asked.append(1) or RATES)
    return asked


def triple(benchmark, algorithm=None, **params):
    domains = {d.name: d for d in benchmark.domains()}
    start = Candidate([d.baseline() for d in domains.values()])
    made = start.replace(domains["architecture"].apply(start.architecture, Edit(params=params)))
    return made.replace(domains["algorithm"].apply(made.algorithm, Edit(params=algorithm or {})))


STAGES = [Stage("isolated", 0.12, 120), Stage("full", 1.0, 600)]


def test_candidates_beyond_a_budget_are_refused(rates):
    benchmark = LanguageModelBenchmark(max_flops_per_token=1_000_000)
    assert type(benchmark)(**benchmark.options).max_flops_per_token == 1_000_000
    benchmark.check(triple(benchmark), STAGES)
    with pytest.raises(InvalidCandidate, match=r"width: about \d+ FLOPs per token; at most 1000000"):
        benchmark.check(triple(benchmark, width=96), STAGES)
    benchmark = LanguageModelBenchmark(max_memory_mb=350)
    benchmark.check(triple(benchmark), STAGES)
    with pytest.raises(InvalidCandidate, match=r"batch_size: about \d+ MiB in training; at most 350"):
        benchmark.check(triple(benchmark, algorithm={"batch_size": 64}), STAGES)
    with pytest.raises(InvalidCandidate, match=r"about \d+ s of training at the full stage; its time limit is 5 s"):
        benchmark.check(triple(benchmark), [STAGES[0], Stage("full", 1.0, 5)])


def test_the_machine_is_not_measured_without_need(rates):
    benchmark = LanguageModelBenchmark(full_steps=50)
    benchmark.check(triple(benchmark), STAGES)
    assert not rates
    joint = JointBenchmark(full_steps=50)
    joint.check(triple(joint), [Stage("full", 1.0, 20)])
    assert rates


def test_a_machine_that_cannot_be_measured_refuses_nothing(monkeypatch):
    def fails():
        raise RuntimeError

    monkeypatch.setattr(estimates, "machine_rates", fails)
    benchmark = LanguageModelBenchmark(max_memory_mb=1)
    benchmark.check(triple(benchmark), STAGES)


class Refusing(LanguageModelBenchmark):
    def check(self, candidate, stages):
        self.asked = [s.name for s in stages]
        if candidate.architecture.params["layers"] == 3:
            raise InvalidCandidate("layers: too slow")


def test_what_the_benchmark_refuses_is_not_admitted(tmp_path):
    benchmark = Refusing()
    store = Store(tmp_path / "a.db")
    campaign = Campaign(Config(), benchmark, store, None, None)
    store.add_candidate(campaign.baseline, 0, "baseline")
    phase = _Design(campaign, 1, "")
    made = []
    for layers in (3, 4):
        edit = Edit(params={"layers": layers})
        proposal = Proposal(Slot(0, "architecture", "random", "choice"), 0, campaign.baseline.hash, edit=edit)
        made.append(phase._admit(proposal))
    assert (made[0].status, made[0].cause) == ("invalid", "layers: too slow")
    assert made[1].status == "admitted"
    assert benchmark.asked == ["isolated", "cross", "full"]
    store.close()


def training(params, length, batch, steps):
    """CPU seconds and MiB of a real training."""
    made, algorithm = component(**params), AlgorithmDomain().baseline()
    inputs = {
        "architecture": thaw(made.params),
        "spec": {**thaw(algorithm.params), "batch_size": batch},
        "windows": np.random.default_rng(0).integers(32, 127, (steps * batch, length + 1)).astype(np.uint8),
        "seed": 0,
        "threads": 1,
        "limit": 10**9,
    }
    source, files = "from asi_evolve.domains.lm_runner import train\n", {**model_files(made), **algorithm.files}
    result = Sandbox("auto", Limits(wall_seconds=300)).run(source, "train", inputs, files=files)
    assert result.ok, result.error
    return result.usage.cpu_seconds, result.usage.max_rss_bytes / MEBIBYTE


def within_two(params, length, batch, steps):
    found = estimate_training(component(**params).params, length=length, batch=batch, steps=steps)
    seconds, memory = training(params, length, batch, steps)
    assert seconds / 2 < found.seconds < seconds * 2, (params, seconds, found)
    assert memory / 2 < found.peak_memory_mb < memory * 2, (params, memory, found)
    # What grows, without the start, which is most of a short training.
    rates = machine_rates()
    assert (memory - rates.resident_mb) / 2 < found.peak_memory_mb - rates.resident_mb


def test_time_and_memory_of_the_baseline():
    within_two({}, 128, 16, 30)


@pytest.mark.slow
@pytest.mark.parametrize("mixing", REFERENCES["token_mixing"])
def test_time_and_memory_of_every_token_mixing(mixing):
    within_two({"token_mixing": mixing, "layers": 4}, 128, 16, 60)
    within_two({"token_mixing": mixing, "layers": 2, "width": 128, "heads": 2}, 256, 16, 20)


@pytest.mark.slow
@pytest.mark.parametrize(("slot", "name"), [(s, n) for s, n in EVERY if s != "token_mixing"])
def test_time_and_memory_of_the_other_mechanisms(slot, name):
    within_two({slot: name, "layers": 4}, 128, 16, 60)
