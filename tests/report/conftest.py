"""Run directories to report on: a finished one, and ones made row by row for what a campaign rarely does."""

import json
import random

import pytest

from asi_evolve.benchmarks import load_benchmark
from asi_evolve.candidate import Candidate, Edit
from asi_evolve.config import load_config
from asi_evolve.engine import Engine
from asi_evolve.knowledge.store import Evaluation, Store
from asi_evolve.rundir import RunDirectory

QUIET = {"llm": {"provider": "none"}, "benchmark": {"name": "synthetic"}, "workers": 1}
ENVIRONMENT = {"python": "3", "platform": "here", "packages": {"torch": "2"}, "sandbox": {"level": "none"}}


@pytest.fixture
def quiet():
    """A configuration without LLM and without training."""
    return QUIET


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A synthetic campaign, run to its end. Not to be written to."""
    directory = tmp_path_factory.mktemp("finished") / "run"
    Engine({**QUIET, "cycles": 3}, directory).run()
    return directory


class Written:
    """A run directory written by hand: ``store`` and the baseline ``start`` (C1)."""

    def __init__(self, path, **config):
        self.config = load_config({**QUIET, "cycles": 2, **config})
        self.directory = RunDirectory(path)
        self.directory.path.mkdir(parents=True, exist_ok=True)
        self.directory.write_config(self.config)
        self.path = self.directory.path
        self.store = Store(self.directory.database)
        self.benchmark = load_benchmark(self.config.benchmark.name, self.config.benchmark.options)
        self.domains = {d.name: d for d in self.benchmark.domains()}
        self.start = Candidate([d.baseline() for d in self.domains.values()])
        self.store.add_run(self.config.model_dump(mode="json"), ENVIRONMENT, "run")
        self.store.add_candidate(self.start, 0, "baseline")

    def edited(self, domain, hypothesis=None, parent=None, **params):
        parent = parent or self.start
        made = parent.replace(self.domains[domain].apply(parent[domain], Edit(params=params)))
        self.store.add_candidate(
            made, 0, "llm", domain, [parent.hash], Edit(params=params).to_json(), hypothesis=hypothesis
        )
        return made

    def measured(self, candidate, stage, values, cost=1.0):
        for seed, value in zip(self.config.seeds(stage), values, strict=False):
            metrics = {"loss": value, "cost": cost}
            self.store.add_evaluation(Evaluation(candidate.hash, stage, seed, 0, "ok", metrics=metrics, seconds=1.5))

    def failed(self, candidate, stage, kind, message, seed=0):
        self.store.add_evaluation(
            Evaluation(candidate.hash, stage, seed, 0, "failed", failure=kind, message=message, seconds=0.2)
        )


@pytest.fixture
def written_with(tmp_path):
    """``written_with(**config)``: a run directory to write to."""
    made = []

    def make(**config):
        made.append(Written(tmp_path / f"run{len(made)}", **config))
        return made[-1]

    yield make
    for each in made:
        each.store.close()


@pytest.fixture
def written(written_with):
    return written_with()


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory):
    """A corpus of two kinds of documents with duplicates and near-duplicates."""
    rng = random.Random(0)
    text = "the a model learns data from text and bytes while we wait for results of small tests in every run"
    words = text.split()

    def prose():
        return " ".join(" ".join(rng.choices(words, k=8)).capitalize() + f" {rng.randrange(999)}." for _ in range(30))

    rows = [{"text": prose(), "source": "prose"} for _ in range(150)]
    rows += [{"text": "".join(rng.choices("0123456789;,#", k=1500)), "source": "noise"} for _ in range(60)]
    rows += rows[:15]
    rows += [{"text": r["text"] + " One more sentence.", "source": "copies"} for r in rows[20:50]]
    rng.shuffle(rows)
    path = tmp_path_factory.mktemp("corpus") / "small.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path
