"""``kill -9`` at any point, then resume: the same campaign, no evaluation lost, none repeated."""

import sqlite3
from collections import Counter

import pytest

from asi_evolve.knowledge.store import Store

# Everything but times, which differ, and the journal's starts, which say how often a phase was begun.
TABLES = {
    "candidates": "hash, cycle, origin, domain, parents, edit, hypothesis",
    "components": "hash, domain, params, files",
    "proposals": "cycle, position, attempt, source, kind, domain, parent, status, cause, candidate",
    "hypotheses": "key, cycle, domain, statement, mechanism, prediction, provenance",
    "hypothesis_events": "hypothesis, cycle, status, reason",
    "evidence": "hypothesis, cycle, candidate, reference, stage, metric, effect, low, high, seeds, p_value, level",
    "explanations": "cycle, candidate, reference, mechanism, provenance",
    "explanation_tests": "explanation, cycle, status, reason, gain, effect, low, high",
    "agenda": "cycle, shares, reason, provenance",
    "analyses": "cycle, facts, interpretation, claims",
    "llm_calls": "key, phase, cycle, request, response, finish_reason",
}
POINTS = [
    ("phase/learn", 1),
    ("phase/learn", 2),
    ("phase/design", 1),
    ("proposal", 8),
    ("phase/experiment", 2),
    ("evaluated", 1),
    ("evaluated", 11),
    ("started", 20),
    ("incumbent", 1),
    ("phase/analyze", 1),
    ("phase/analyze", 3),
    ("phase/explain", 2),
    ("explained", 1),
    ("explained", 5),
    ("phase/confirm", 1),
    ("finished", 1),
]


def rows(directory):
    connection = sqlite3.connect(directory / "run.db")
    try:
        found = {
            t: connection.execute(f"SELECT {c} FROM {t} ORDER BY id").fetchall()
            for t, c in TABLES.items()
            if t != "components"
        }
        found["components"] = sorted(connection.execute(f"SELECT {TABLES['components']} FROM components").fetchall())
        columns = "candidate, stage, seed, cycle, status, metrics, failure, message"
        found["evaluations"] = sorted(connection.execute(f"SELECT {columns} FROM evaluations").fetchall())
        found["done"] = connection.execute(
            "SELECT cycle, phase, event, payload FROM journal WHERE event = 'done' ORDER BY id"
        ).fetchall()
        return found
    finally:
        connection.close()


@pytest.fixture(scope="module")
def undisturbed(recording, run_engine, tmp_path_factory):
    directory = tmp_path_factory.mktemp("undisturbed")
    done = run_engine(directory / "run", directory / "log", recording)
    assert done.returncode == 0, done.stderr
    return directory


def test_a_replay_of_recorded_answers_is_the_recorded_campaign(recording, undisturbed):
    ours, theirs = rows(undisturbed / "run"), rows(recording)
    for table in ours:
        assert ours[table] == theirs[table], table


@pytest.mark.parametrize(("event", "number"), POINTS)
def test_killed_and_resumed(recording, run_engine, undisturbed, tmp_path, event, number):
    directory, log = tmp_path / "run", tmp_path / "log"
    killed = run_engine(directory, log, recording, event, number)
    assert killed.returncode == -9, killed.stderr or "the event did not come"
    stored = len(rows(directory)["evaluations"]) if (directory / "run.db").exists() else 0
    resumed = run_engine(directory, log, recording)
    assert resumed.returncode == 0, resumed.stderr
    ours, expected = rows(directory), rows(undisturbed / "run")
    for table in expected:
        assert ours[table] == expected[table], table
    begun = Counter(log.read_text().splitlines())
    in_flight = sum(n - 1 for n in begun.values())
    assert in_flight <= 2, "only what two workers had in hand may be computed again"
    assert len(begun) == len(ours["evaluations"]) >= stored
    assert (undisturbed / "log").read_text().count("\n") == len(expected["evaluations"])


def test_killed_again_and_again(recording, run_engine, undisturbed, tmp_path):
    directory, log = tmp_path / "run", tmp_path / "log"
    for _ in range(60):
        done = run_engine(directory, log, recording, "evaluated", 4)
        if done.returncode == 0:
            break
    assert done.returncode == 0
    ours, expected = rows(directory), rows(undisturbed / "run")
    for table in expected:
        assert ours[table] == expected[table], table


def test_another_baseline_cannot_be_resumed(recording, run_engine, tmp_path):
    from engine_process import CONFIG, TwoDomains

    from asi_evolve import Engine
    from asi_evolve.errors import RunDirectoryError

    run_engine(tmp_path / "run", tmp_path / "log", recording, "evaluated", 2)
    with pytest.raises(RunDirectoryError, match="another baseline"):
        Engine({**CONFIG, "llm": {"provider": "none"}}, tmp_path / "run", benchmark=TwoDomains()).resume()
    store = Store(tmp_path / "run" / "run.db", read_only=True)
    assert len(store.candidates()) >= 1
    store.close()
