"""People take part while a campaign runs: hypotheses, pins, retirements, agendas, notes."""

import json
import subprocess
import sys

import pytest

from asi_evolve import Engine
from asi_evolve.domains.synthetic import SyntheticBenchmark
from asi_evolve.knowledge.store import Store
from asi_evolve.steering import decide

CONFIG = {
    "cycles": 4,
    "seed": 3,
    "benchmark": {"name": "synthetic"},
    "design": {"proposals": 6},
    "cascade": {"confirm_seeds": 0},
    "llm": {"provider": "none"},
}


def asi(*words):
    command = [sys.executable, "-m", "asi_evolve.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def engine(tmp_path):
    engine = Engine(CONFIG, tmp_path / "run")
    engine.step()
    return engine


def rows(engine):
    return Store(engine.directory.database, read_only=True)


def test_all_decisions_between_two_cycles(engine):
    run = engine.directory.path
    for words in (
        ("hypotheses", "add", run, "--domain", "data", "--statement", "Cleaner data wins", "--minimum-effect", "0.02"),
        ("hypotheses", "pin", run, "H2"),
        ("hypotheses", "retire", run, "H3", "--reason", "not worth it"),
        ("agenda", "set", run, "data=3", "architecture=1"),
        ("note", run, "Look at the filter first."),
    ):
        done = asi(*words)
        assert done.returncode == 0, done.stderr
    engine.step()
    store = rows(engine)
    own = next(h for h in store.hypotheses() if h["provenance"] == "human")
    assert (own["domain"], own["statement"]) == ("data", "Cleaner data wins")
    assert own["prediction"] == {"metric": "loss", "direction": "decrease", "minimum_effect": 0.02}
    assert store.pinned() == {2, own["id"]}
    retired = store.hypotheses([3])[0]
    assert (retired["status"], retired["reason"]) == ("retired", "not worth it")
    made = [r["domain"] for r in store.candidates(1) if r["origin"] == "random"]
    assert made.count("data") >= 3  # no domain is forgotten, so not quite three quarters of six
    assert store.last_agenda()["shares"] == {"data": 0.75, "architecture": 0.25}
    context = store.done(1, "learn")["context"]
    assert "Note: Look at the filter first." in context
    assert f"H{own['id']} (data, active, pinned): Cleaner data wins" in context
    assert "H2 (" in context
    assert asi("agenda", "release", run).returncode == 0
    engine.step()
    assert store.human_agenda() is None
    assert "set by hand" not in rows(engine).last_agenda()["reason"]
    shown = asi("hypotheses", run).stdout
    assert f"H{own['id']} [active, pinned]" in shown
    listed = json.loads(asi("hypotheses", run, "--json").stdout)
    assert [h["id"] for h in listed if h["pinned"]] == [2, own["id"]]


def test_decisions_are_taken_once_and_survive_a_cut_line(engine):
    run = engine.directory.path
    decide(run, "note", {"title": "a", "text": "first"})
    with open(run / "steering.jsonl", "a") as file:
        file.write('{"action": "note", "pay')  # the writer was killed
    decide(run, "note", {"title": "b", "text": "second"})
    engine.step()
    engine.step()
    assert [n["text"] for n in rows(engine).notes()] == ["first", "second"]


def test_a_half_written_line_waits(engine):
    run = engine.directory.path
    line = json.dumps({"action": "note", "payload": {"title": "a", "text": "later"}})
    (run / "steering.jsonl").write_text(line[:20])
    engine.step()
    assert rows(engine).notes() == []
    (run / "steering.jsonl").write_text(line + "\n")
    engine.step()
    assert [n["text"] for n in rows(engine).notes()] == ["later"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("hypotheses", "pin", "RUN", "H999"), 2, "hypothesis: H999 is not there; there are H1 to H"),
        (("hypotheses", "pin", "RUN", "three"), 2, "'three' is not a hypothesis, such as H3"),
        (("hypotheses", "pin", "RUN"), 2, "usage: asi-evolve hypotheses pin DIR H3"),
        (("hypotheses", "add", "RUN", "--domain", "x", "--statement", "s"), 2, "domain: 'x' is not one of arch"),
        (("hypotheses", "add", "RUN", "--statement", "s"), 2, "--domain: is needed"),
        (("hypotheses", "add", "RUN", "--domain", "data", "--statement", " "), 2, "statement: empty"),
        (("hypotheses", "add", "RUN", "--domain", "data", "--statement", "s", "--metric", "x"), 2, "'x' is not one of"),
        (("agenda", "set", "RUN", "data=much"), 2, "'data=much' is not domain=share"),
        (("agenda", "set", "RUN", "cooking=1"), 2, "'cooking' is not one of architecture"),
        (("agenda", "set", "RUN", "data=0"), 2, "at least one share must be above 0"),
        (("note", "RUN", " "), 2, "note: empty"),
        (("note", "ELSEWHERE", "text"), 3, "holds no run"),
    ],
)
def test_bad_decisions_change_nothing(engine, words, code, message):
    run = str(engine.directory.path)
    done = asi(*(run if w == "RUN" else w + "/nowhere" if w == "ELSEWHERE" else w for w in words))
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (engine.directory.path / "steering.jsonl").exists()


def test_a_live_engine_takes_decisions_in(tmp_path):
    """From another process, while it runs."""
    benchmark = SyntheticBenchmark(sleep=0.02)
    seen = []

    def observer(event):
        if event.kind == "phase" and event.message == "experiment" and event.cycle == 0:
            seen.append(asi("note", tmp_path / "run", "from outside").returncode)

    Engine(CONFIG, tmp_path / "run", benchmark=benchmark, observers=[observer]).run()
    assert seen == [0]
    store = Store(tmp_path / "run" / "run.db", read_only=True)
    assert [s["cycle"] for s in store.steering()] == [1]
    assert "from outside" in store.done(1, "learn")["context"]
