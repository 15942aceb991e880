"""The knowledge base: append-only whoever asks, all or nothing, idempotent, readable beside a writer."""

import sqlite3
import threading
from pathlib import Path

import pytest

from asi_evolve import Candidate, Component
from asi_evolve.errors import RunDirectoryError
from asi_evolve.knowledge import schema
from asi_evolve.knowledge.store import Evaluation, Store

HERE = Path(__file__).parent


def triple(x=0):
    return Candidate([Component(d, {"x": x}, {"m.py": f"x = {x}\n"}) for d in ("architecture", "algorithm", "data")])


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "run.db")
    yield made
    made.close()


def fill(store):
    store.add_run({"a": 1}, {"b": 2}, "run")
    assert store.add_candidate(triple(), 0, "baseline")
    key = triple().hash
    h = store.add_hypothesis(
        "design/0/0", cycle=0, domain="data", statement="s", mechanism="x", prediction={}, provenance="llm"
    )
    store.add_proposal(
        cycle=0,
        position=0,
        attempt=0,
        source="llm",
        kind="choice",
        domain="data",
        parent=key,
        status="invalid",
        cause="",
    )
    store.add_evaluation(Evaluation(key, "full", 0, 0, "ok", {"loss": 1.5}))
    store.add_evidence(
        hypothesis=h,
        cycle=0,
        candidate=key,
        reference=key,
        stage="full",
        metric="loss",
        effect=0.1,
        low=None,
        high=None,
        seeds=1,
    )
    store.add_agenda(1, {"data": 1.0}, "r", "engine")
    store.add_analysis(cycle=0, facts={}, interpretation="", claims=[])
    store.add_llm_call(
        "k", phase="design", cycle=0, model="m", request={}, response="{}", finish_reason="stop",
        prompt_tokens=1, completion_tokens=1, seconds=0.1,
    )  # fmt: skip
    store.add_note(0, "t", "b", "s")
    store.add_explanation(cycle=0, candidate=key, reference=key, mechanism="data.x", provenance="llm")
    store.add_explanation_test(explanation=1, cycle=0, status="refuted", reason="r")
    store.add_steering("steering/0", 0, "note", {"title": "t", "text": "b"})
    store.log(0, "learn", "done", {"x": 1})


def test_no_row_of_any_table_can_be_changed_or_removed(store, tmp_path):
    fill(store)
    raw = sqlite3.connect(tmp_path / "run.db")
    for table in schema.metadata.tables.values():
        (count,) = raw.execute(f"SELECT count(*) FROM {table.name}").fetchone()
        assert count > 0, f"{table.name}: the test has no row for it"
        column = next(iter(table.columns)).name
        for statement in (f"DELETE FROM {table.name}", f"UPDATE {table.name} SET {column} = {column}"):
            with pytest.raises(sqlite3.IntegrityError, match=f"{table.name} is append-only"):
                raw.execute(statement)
    raw.close()


def test_the_same_key_twice_is_stored_once(store):
    fill(store)
    assert not store.add_candidate(triple(), 3, "llm")
    assert not store.add_evaluation(Evaluation(triple().hash, "full", 0, 2, "ok", {"loss": 9.0}))
    assert store.add_evaluation(Evaluation(triple().hash, "full", 1, 2, "failed", {}, "timeout", "late"))
    assert [e.metrics.get("loss") for e in store.evaluations()] == [1.5, None]
    assert store.candidate(triple().hash) == triple()
    one = store.add_hypothesis(
        "design/0/0", cycle=5, domain="data", statement="other", mechanism="", prediction={}, provenance="llm"
    )
    assert [h["statement"] for h in store.hypotheses()] == ["s"]
    assert one == store.hypotheses()[0]["id"]


def test_a_transaction_that_fails_leaves_nothing(store):
    fill(store)
    before = len(store.journal()), len(store.candidates())

    class Crash(BaseException):
        pass

    def work():
        with store.transaction():
            store.add_candidate(triple(1), 1, "llm")
            store.log(1, "design", "done")
            raise Crash

    with pytest.raises(Crash):
        work()
    assert (len(store.journal()), len(store.candidates())) == before
    with pytest.raises(KeyError):
        store.candidate(triple(1).hash)
    store.add_candidate(triple(1), 1, "llm")
    assert store.candidate(triple(1).hash) == triple(1)


def test_threads_may_write_together(store):
    store.add_candidate(triple(), 0, "baseline")
    threads = [
        threading.Thread(
            target=lambda s=s: store.add_evaluation(Evaluation(triple().hash, "full", s % 10, 0, "ok", {}))
        )
        for s in range(40)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(e.seed for e in store.evaluations()) == list(range(10))


def test_a_reader_sees_what_the_writer_has_committed(store, tmp_path):
    reader = Store(tmp_path / "run.db", read_only=True)
    assert reader.runs() == []
    fill(store)
    assert len(reader.evaluations()) == 1
    reader.close()


def test_hypotheses_have_a_history(store):
    fill(store)
    store.set_hypothesis(1, 2, "refuted", "because")
    (h,) = store.hypotheses()
    assert (h["status"], h["reason"]) == ("refuted", "because")
    assert [e["status"] for e in h["history"]] == ["active", "refuted"]


def test_other_databases_are_refused(tmp_path):
    with pytest.raises(RunDirectoryError, match="no such knowledge base"):
        Store(tmp_path / "none.db", read_only=True)
    (tmp_path / "text.db").write_text("hello, I am not a database at all" * 50)
    with pytest.raises(RunDirectoryError, match="cannot be opened"):
        Store(tmp_path / "text.db")
    raw = sqlite3.connect(tmp_path / "future.db")
    raw.execute("PRAGMA user_version = 99")
    raw.close()
    with pytest.raises(RunDirectoryError, match="schema version 99"):
        Store(tmp_path / "future.db")


def test_a_reader_sees_what_the_engine_writes_after_it_looked(tmp_path):
    """Also when there was nothing to see at first, and what a writer keeps in mind is what it wrote."""
    writer = Store(tmp_path / "run.db")
    writer.add_candidate(triple(), 0, "baseline")
    reader = Store(tmp_path / "run.db", read_only=True)
    assert reader.evaluations() == writer.evaluations() == []
    for seed in (1, 0):
        writer.add_evaluation(Evaluation(triple().hash, "isolated", seed, 0, "ok", {"loss": 1.0 + seed}))
        assert len(reader.evaluations()) == 2 - seed
    new, last = writer.evaluations_after(0)
    assert [e.seed for e in new] == [0, 1]
    assert new == reader.evaluations() == writer.evaluations()
    assert writer.evaluations_after(last) == ([], last)
    reader.close()
    writer.close()


def test_a_run_of_the_first_schema_goes_on(tmp_path):
    """A database that schema version 1 wrote, one cycle long: it is brought up to date and the campaign continues."""
    from asi_evolve import Engine

    run = tmp_path / "run"
    run.mkdir()
    raw = sqlite3.connect(run / "run.db")
    raw.executescript((HERE / "schema_1.sql").read_text())
    before = {t: raw.execute(f"SELECT * FROM {t}").fetchall() for t in ("candidates", "evaluations", "evidence")}
    raw.close()
    (run / "config.yaml").write_text((HERE / "schema_1.yaml").read_text().replace("cycles: 1", "cycles: 2"))
    with pytest.raises(RunDirectoryError, match="schema version 1; this release reads version 2; resume the run"):
        Store(run / "run.db", read_only=True)
    result = Engine(run).resume()
    raw = sqlite3.connect(run / "run.db")
    assert raw.execute("PRAGMA user_version").fetchone() == (schema.SCHEMA_VERSION,)
    for table, rows in before.items():
        now = raw.execute(f"SELECT * FROM {table} ORDER BY rowid").fetchall()
        assert [r[: len(rows[0])] for r in now[: len(rows)]] == rows
        assert len(now) > len(rows)
    assert raw.execute("SELECT count(*) FROM evidence WHERE level IS NOT NULL").fetchone()[0] > 0
    with pytest.raises(sqlite3.DatabaseError, match="append-only"):
        raw.execute("DELETE FROM evidence")
    assert result.evaluations > len(before["evaluations"])
