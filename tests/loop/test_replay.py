"""A recorded campaign, made again, comes to the same rows; what differs is said."""

import json
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asi_evolve import Engine
from asi_evolve.domains.synthetic import SyntheticBenchmark
from asi_evolve.knowledge.store import Store
from asi_evolve.replay import COMPARED, replay
from asi_evolve.steering import decide

ROOT = Path(__file__).parents[2]


def asi(*words):
    command = [sys.executable, "-m", "asi_evolve.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


@pytest.fixture(scope="module")
def soak(tmp_path_factory):
    directory = tmp_path_factory.mktemp("soak") / "run"
    began = time.monotonic()
    done = asi("run", ROOT / "examples" / "soak.yaml", "--out", directory)
    assert done.returncode == 0, done.stderr
    return directory, time.monotonic() - began


def test_soak_campaign(soak):
    directory, seconds = soak
    store = Store(directory / "run.db", read_only=True)
    assert len(store.evaluations()) >= 300
    assert seconds < 60
    assert {p["source"] for p in store.proposals()} == {"llm", "random"}
    made = [p["status"] for p in store.proposals() if p["source"] == "llm"]
    assert made.count("unusable") == 0, "record the answers again: python tests/loop/soak_answers.py"
    assert store.explanations()


@pytest.mark.parametrize("workers", [1, 4])
def test_replay_of_the_soak_campaign(soak, workers, tmp_path):
    done = asi("replay", soak[0], "--workers", workers, "--json", "--out", tmp_path / "again")
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(done.stdout)
    assert facts["exact"]
    assert facts["differences"] == []
    assert set(facts["tables"]) == {*COMPARED, "evaluations"}
    assert all(t["rows"] > 0 for t in facts["tables"].values())
    assert facts["evaluations"] == facts["tables"]["evaluations"]["rows"]


def tampered(directory, tmp_path, statement):
    """A copy of a run with one row changed, past the triggers that forbid it."""
    copy = tmp_path / "tampered"
    shutil.copytree(directory, copy)
    raw = sqlite3.connect(copy / "run.db")
    for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        raw.execute(f"DROP TRIGGER {name}")
    raw.execute(statement)
    raw.commit()
    raw.close()
    return copy


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE evaluations SET metrics = json_set(metrics, '$.loss', 1.5) WHERE id = 9", "loss"),
        ("UPDATE evaluations SET status = 'failed', failure = 'crash', metrics = '{}' WHERE id = 9", "recorded crash"),
        ("UPDATE analyses SET interpretation = 'something else' WHERE id = 2", "analyses: row 2"),
    ],
)
def test_a_changed_recording_is_found(soak, tmp_path, statement, words):
    done = asi("replay", tampered(soak[0], tmp_path, statement))
    assert done.returncode == 1, done.stdout + done.stderr
    assert words in done.stdout
    assert "the same campaign" not in done.stdout


def test_a_run_cut_short_with_decisions_of_people(tmp_path):
    """Two whole cycles of an interrupted run, random operators, a note and an agenda in between."""
    config = {"cycles": 5, "seed": 2, "benchmark": {"name": "synthetic"}, "llm": {"provider": "none"}}
    engine = Engine(config, tmp_path / "run")
    engine.step()
    decide(engine.directory.path, "note", {"title": "a", "text": "b"})
    decide(engine.directory.path, "agenda", {"shares": {"data": 1.0}})
    engine.step()
    engine.step()
    decide(engine.directory.path, "note", {"title": "later", "text": "never taken in"})
    result = replay(tmp_path / "run", tmp_path / "again", workers=3)
    assert result.exact, result.differences
    assert result.rows["evaluations"][0] == result.evaluations
    store = Store(tmp_path / "again" / "run.db", read_only=True)
    assert [(s["cycle"], s["action"]) for s in store.steering()] == [(1, "note"), (1, "agenda")]


class Clocked(SyntheticBenchmark):
    """One of its costs is measured, and decides between candidates."""

    costs = ("cost", "seconds")
    measured = ("seconds",)

    def evaluate(self, candidate, stage, seed):
        return {**super().evaluate(candidate, stage, seed), "seconds": time.perf_counter() % 1 + 0.1}


def test_what_a_clock_measured_is_the_recordings(tmp_path):
    config = {"cycles": 3, "seed": 2, "llm": {"provider": "none"}}
    Engine(config, tmp_path / "run", benchmark=Clocked()).run()
    result = replay(tmp_path / "run", tmp_path / "again", benchmark=Clocked())
    assert result.exact, result.differences
    values = [
        [e.metrics["seconds"] for e in Store(tmp_path / n / "run.db", read_only=True).evaluations()]
        for n in ("run", "again")
    ]
    assert sorted(values[0]) == sorted(values[1])


def test_bad_requests(tmp_path, soak):
    assert asi("replay", tmp_path / "missing").returncode == 3
    done = asi("replay", soak[0], "--workers", 0)
    assert done.returncode == 2
    assert "--workers: 0" in done.stderr
