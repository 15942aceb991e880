"""One class between the engine and SQL. Phases call its verbs; none of them sees a table."""

from __future__ import annotations

import bisect
import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, bindparam, create_engine, event, func, insert, select, text
from sqlalchemy.exc import SQLAlchemyError

from asi_evolve.candidate import Candidate, Component
from asi_evolve.errors import RunDirectoryError
from asi_evolve.knowledge import schema as t

Row = dict[str, Any]

# What is asked for every candidate, built once: SQLAlchemy takes longer to build a query than SQLite to answer it.
_CANDIDATE = select(t.candidates).where(t.candidates.c.hash == bindparam("key"))
_EVALUATIONS_AFTER = (
    select(t.evaluations)
    .join(t.candidates, t.candidates.c.hash == t.evaluations.c.candidate)
    .where(t.evaluations.c.id > bindparam("last"))
    .order_by(t.evaluations.c.cycle, t.candidates.c.id, t.evaluations.c.stage, t.evaluations.c.seed)
)
_HYPOTHESES = (
    select(t.hypotheses).where(t.hypotheses.c.id.in_(bindparam("ids", expanding=True))).order_by(t.hypotheses.c.id)
)
_TEST = t.explanation_tests.c
_EXPLANATIONS = (
    select(t.explanations, _TEST.status, _TEST.reason, _TEST.gain, _TEST.effect, _TEST.low, _TEST.high)
    .outerjoin(t.explanation_tests, _TEST.explanation == t.explanations.c.id)
    .order_by(t.explanations.c.id)
)
_DECIDED = (
    select(t.explanations.c.candidate, t.explanations.c.reference, t.explanations.c.mechanism, t.explanation_tests)
    .join(t.explanation_tests, t.explanation_tests.c.explanation == t.explanations.c.id)
    .where(t.explanation_tests.c.status.in_(("supported", "refuted")))
    .order_by(t.explanation_tests.c.id.desc())
    .limit(bindparam("n"))
)
_LAST_ANALYSIS = select(t.analyses).order_by(t.analyses.c.id.desc()).limit(1)


@dataclass(frozen=True)
class Evaluation:
    """One measurement of one candidate at one stage with one seed."""

    candidate: str
    stage: str
    seed: int
    cycle: int
    status: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    failure: str | None = None
    message: str = ""
    usage: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether there are metrics to use."""
        return self.status == "ok"


class Store:
    """The knowledge base of one run.

    Thread-safe. Every method that writes commits before it returns, unless called inside :meth:`transaction`. Writes of
    candidates, hypotheses, evaluations and LLM calls are idempotent: the same key again changes nothing, which is what
    lets a killed phase be run again from its start.

    Args:
        url: a SQLAlchemy URL, or the path of an SQLite file.
        read_only: open for looking (status, report, export) beside a running engine.

    Raises:
        RunDirectoryError: the database cannot be opened or has another schema version.
    """

    def __init__(self, url: str | Path, read_only: bool = False) -> None:
        self.url = str(url)
        if "://" not in self.url:
            if read_only and not Path(self.url).is_file():
                raise RunDirectoryError(f"{self.url}: no such knowledge base")
            self.url = f"sqlite:///{self.url}"
        self._lock = threading.RLock()
        self._read_only = read_only
        self._open: Connection | None = None
        try:
            self._engine = create_engine(self.url, connect_args=_connect_args(self.url))
            if self._engine.dialect.name == "sqlite":
                event.listen(self._engine, "connect", _pragmas)
            self._connection = self._engine.connect()
            self._prepare(read_only)
        except SQLAlchemyError as error:
            raise RunDirectoryError(f"{url}: cannot be opened as a knowledge base: {_short(error)}") from None
        self._candidates: dict[str, Candidate] = {}
        self._components: dict[str, Component] = {}
        self._numbers: dict[str, int] | None = None
        # What this store has written since it was asked last: a run has one writer, so nothing else is new then.
        self._written: list[Evaluation] | None = None
        self._newest = self._asked = 0  # rows of the newest evaluation, and of the newest one returned
        self._rows_by_hash: dict[str, Row] = {}
        self._states: HypothesisStates | None = None
        self._steering: list[Row] | None = None

    def _prepare(self, read_only: bool) -> None:
        sqlite = self._engine.dialect.name == "sqlite"
        version = self._connection.execute(text("PRAGMA user_version")).scalar() if sqlite else t.SCHEMA_VERSION
        if read_only and version == 0:
            raise RunDirectoryError(f"{self.url}: the knowledge base is still being made; try again")
        if version not in (0, t.SCHEMA_VERSION) and (read_only or version not in t.MIGRATIONS):
            older = "; resume the run to bring it up to date" if version in t.MIGRATIONS else ""
            raise RunDirectoryError(
                f"{self.url}: schema version {version}; this release reads version {t.SCHEMA_VERSION}{older}"
            )
        if not read_only:
            for old in range(version or t.SCHEMA_VERSION, t.SCHEMA_VERSION):
                for statement in t.MIGRATIONS[old]:
                    self._connection.execute(text(statement))
            t.metadata.create_all(self._connection)
            if sqlite:
                t.make_append_only(self._connection)
                self._connection.execute(text(f"PRAGMA user_version = {t.SCHEMA_VERSION}"))
        self._connection.commit()

    def close(self) -> None:
        """Closes the database."""
        with self._lock:
            self._connection.close()
            self._engine.dispose()

    # -- transactions -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside become visible together, or not at all."""
        with self._lock:
            if self._open is not None:
                yield
                return
            self._open = self._connection
            try:
                yield
                self._connection.commit()
            except BaseException:
                self._connection.rollback()
                self._candidates.clear()
                self._components.clear()
                self._numbers = self._states = self._written = self._steering = None
                self._rows_by_hash.clear()
                raise
            finally:
                self._open = None

    def _insert(self, table: Table, values: Mapping[str, Any]) -> int:
        with self.transaction():
            result = self._connection.execute(insert(table).values(**values))
            key = result.inserted_primary_key
            return int(key[0]) if key is not None and isinstance(key[0], int) else 0

    def _rows(self, query: Any, **values: Any) -> list[Row]:
        with self._lock:
            rows = [dict(r) for r in self._connection.execute(query, values).mappings()]
            if self._open is None:
                self._connection.rollback()  # ends the read transaction, so that the next one sees new rows
            return rows

    def _one(self, query: Any, **values: Any) -> Row | None:
        rows = self._rows(query, **values)
        return rows[0] if rows else None

    # -- runs and journal ---------------------------------------------------------------------------------------------

    def add_run(self, config: Mapping[str, Any], environment: Mapping[str, Any], what: str) -> None:
        """Records a start or a resume."""
        self._insert(
            t.runs, {"started": time.time(), "config": dict(config), "environment": dict(environment), "event": what}
        )

    def runs(self) -> list[Row]:
        """All starts and resumes, oldest first."""
        return self._rows(select(t.runs).order_by(t.runs.c.id))

    def log(self, cycle: int, phase: str, what: str, payload: Mapping[str, Any] | None = None) -> None:
        """A journal row: ``what`` is started, done or failed."""
        self._insert(
            t.journal,
            {"time": time.time(), "cycle": cycle, "phase": phase, "event": what, "payload": dict(payload or {})},
        )

    def done(self, cycle: int, phase: str) -> Row | None:
        """The payload of a finished phase, or None."""
        j = t.journal.c
        row = self._one(select(j.payload).where(j.cycle == cycle, j.phase == phase, j.event == "done"))
        return None if row is None else dict(row["payload"])

    def journal(self) -> list[Row]:
        """The whole journal, oldest first."""
        return self._rows(select(t.journal).order_by(t.journal.c.id))

    def count_events(self, cycle: int, phase: str, what: str) -> int:
        """How often an event is in the journal."""
        j = t.journal.c
        query = select(func.count()).select_from(t.journal).where(j.cycle == cycle, j.phase == phase, j.event == what)
        return int(self._rows(query)[0]["count_1"])

    # -- candidates ---------------------------------------------------------------------------------------------------

    def add_candidate(
        self,
        candidate: Candidate,
        cycle: int,
        origin: str,
        domain: str | None = None,
        parents: Sequence[str] = (),
        edit: Mapping[str, Any] | None = None,
        hypothesis: int | None = None,
    ) -> bool:
        """Stores a candidate and its components; False when it was there already (nothing is changed then)."""
        with self.transaction():
            if self._one(select(t.candidates.c.id).where(t.candidates.c.hash == candidate.hash)) is not None:
                return False
            for component in candidate.components:
                if self._one(select(t.components.c.hash).where(t.components.c.hash == component.hash)) is None:
                    self._insert(t.components, {"hash": component.hash, **component.to_json()})
            row = {
                "hash": candidate.hash,
                "cycle": cycle,
                "origin": origin,
                "domain": domain,
                "parents": list(parents),
                "edit": edit,
                "hypothesis": hypothesis,
            }
            number = self._insert(t.candidates, row)
            for component in candidate.components:
                self._insert(
                    t.candidate_components,
                    {"candidate": candidate.hash, "domain": component.domain, "component": component.hash},
                )
            if self._numbers is not None:
                self._numbers[candidate.hash] = number
            self._candidates[candidate.hash] = candidate
            self._rows_by_hash[candidate.hash] = {"id": number, **row}
            return True

    @property
    def numbers(self) -> Mapping[str, int]:
        """Numbers of all candidates in order of admission, by hash."""
        if self._numbers is None:
            c = t.candidates.c
            self._numbers = {r["hash"]: r["id"] for r in self._rows(select(c.hash, c.id).order_by(c.id))}
        return self._numbers

    def candidate_row(self, key: str) -> Row:
        """The row of one candidate; see :meth:`candidates`. Raises KeyError."""
        row = self._rows_by_hash.get(key) or self._one(_CANDIDATE, key=key)
        if row is None:
            raise KeyError(key)
        self._rows_by_hash[key] = row
        return row

    def candidate(self, key: str) -> Candidate:
        """The candidate with this hash. Raises KeyError."""
        if key not in self._candidates:
            cc = t.candidate_components.c
            rows = self._rows(select(cc.component).where(cc.candidate == key))
            if not rows:
                raise KeyError(key)
            self._candidates[key] = Candidate([self._component(r["component"]) for r in rows])
        return self._candidates[key]

    def _component(self, key: str) -> Component:
        if key not in self._components:
            row = self._one(select(t.components).where(t.components.c.hash == key))
            if row is None:
                raise KeyError(key)
            self._components[key] = Component(row["domain"], row["params"], row["files"])
        return self._components[key]

    def candidates(self, cycle: int | None = None) -> list[Row]:
        """Rows of candidates (hash, cycle, origin, domain, parents, edit, hypothesis), in order of admission."""
        query = select(t.candidates).order_by(t.candidates.c.id)
        return self._rows(query if cycle is None else query.where(t.candidates.c.cycle == cycle))

    def add_proposal(self, **values: Any) -> None:
        """A proposal and what became of it; see schema.proposals for the fields."""
        self._insert(t.proposals, values)

    def proposals(self) -> list[Row]:
        """All proposals, oldest first."""
        return self._rows(select(t.proposals).order_by(t.proposals.c.id))

    # -- evaluations --------------------------------------------------------------------------------------------------

    def add_evaluation(self, evaluation: Evaluation) -> bool:
        """Stores a finished evaluation; False when that candidate, stage and seed is there already."""
        with self.transaction():
            if self.evaluation(evaluation.candidate, evaluation.stage, evaluation.seed) is not None:
                return False
            row = self._insert(
                t.evaluations,
                {
                    **{k: getattr(evaluation, k) for k in ("candidate", "stage", "seed", "cycle", "status", "failure")},
                    "metrics": dict(evaluation.metrics),
                    "message": evaluation.message,
                    "usage": dict(evaluation.usage),
                    "seconds": evaluation.seconds,
                    "finished": time.time(),
                },
            )
            self._newest = row
            if self._written is not None:
                self._written.append(evaluation)
            return True

    def evaluation(self, candidate: str, stage: str, seed: int) -> Evaluation | None:
        """The evaluation with this key, or None."""
        e = t.evaluations.c
        row = self._one(select(t.evaluations).where(e.candidate == candidate, e.stage == stage, e.seed == seed))
        return None if row is None else _evaluation(row)

    def evaluations(self) -> list[Evaluation]:
        """All evaluations by cycle, candidate (in order of admission), stage and seed: an order that does not depend on
        which worker was first, so that what is computed from it replays."""
        return self.evaluations_after(0)[0]

    def evaluations_after(self, last: int) -> tuple[list[Evaluation], int]:
        """The evaluations stored after the row with id ``last``, in the order of :meth:`evaluations`, and the id of the
        newest row."""
        with self._lock:
            if self._written is not None and last == self._asked:
                new = sorted(self._written, key=lambda e: (e.cycle, self.numbers[e.candidate], e.stage, e.seed))
            else:
                rows = self._rows(_EVALUATIONS_AFTER, last=last)
                new, self._newest = [_evaluation(r) for r in rows], max((r["id"] for r in rows), default=last)
            if not self._read_only:  # beside a running engine others write
                self._written, self._asked = [], self._newest
            return new, self._newest

    def evaluation_rows(self) -> list[Row]:
        """All evaluations with id and time, in order of completion."""
        return self._rows(select(t.evaluations).order_by(t.evaluations.c.id))

    # -- hypotheses, agenda, analyses, notes --------------------------------------------------------------------------

    def add_hypothesis(self, key: str, **values: Any) -> int:
        """Stores a hypothesis as active, once per key; returns its id."""
        with self.transaction():
            row = self._one(select(t.hypotheses.c.id).where(t.hypotheses.c.key == key))
            if row is not None:
                return int(row["id"])
            new = self._insert(t.hypotheses, {"key": key, **values})
            self.set_hypothesis(new, values["cycle"], "active", "proposed")
            return new

    def set_hypothesis(self, hypothesis: int, cycle: int, status: str, reason: str) -> None:
        """A new status of a hypothesis."""
        self._insert(
            t.hypothesis_events, {"hypothesis": hypothesis, "cycle": cycle, "status": status, "reason": reason}
        )
        if self._states is not None:
            self._states.set(hypothesis, status)

    def add_evidence(self, **values: Any) -> None:
        """A measured effect that speaks for or against a hypothesis."""
        self._insert(t.evidence, values)

    def evidence(self) -> list[Row]:
        """All evidence, oldest first."""
        return self._rows(select(t.evidence).order_by(t.evidence.c.id))

    def newest_hypotheses(self, statuses: Sequence[str], count: int, by_status: bool = False) -> list[Row]:
        """The newest ``count`` hypotheses that are in one of the statuses now, with their ``status``, oldest first.

        With ``by_status`` those of an earlier status come before those of a later one, however new these are.
        """
        if self._states is None:
            self._states = HypothesisStates()
            e = t.hypothesis_events.c
            for row in self._rows(select(e.hypothesis, e.status).order_by(e.id)):
                self._states.set(row["hypothesis"], row["status"])
        rows = self._rows(_HYPOTHESES, ids=self._states.newest(statuses, count, by_status))
        return [{**row, "status": self._states.status(row["id"])} for row in rows]

    def hypotheses(self, ids: Sequence[int] | None = None) -> list[Row]:
        """All hypotheses, or those named, with their current ``status`` and ``reason``, and their ``history``."""
        of, past = select(t.hypotheses), select(t.hypothesis_events)
        if ids is not None:
            of, past = of.where(t.hypotheses.c.id.in_(ids)), past.where(t.hypothesis_events.c.hypothesis.in_(ids))
        rows = self._rows(of.order_by(t.hypotheses.c.id))
        history: dict[int, list[Row]] = {}
        for e in self._rows(past.order_by(t.hypothesis_events.c.id)):
            history.setdefault(e["hypothesis"], []).append(e)
        for row in rows:
            events = history.get(row["id"], [])
            row["history"] = events
            row["status"] = events[-1]["status"] if events else "active"
            row["reason"] = events[-1]["reason"] if events else ""
        return rows

    def p_values(self, after: int = 0) -> list[float]:
        """Of the tests of hypotheses after the first ``after``, in the order in which they were made."""
        query = select(t.evidence.c.p_value).where(t.evidence.c.p_value.is_not(None)).order_by(t.evidence.c.id)
        return [row["p_value"] for row in self._rows(query.offset(after))]

    def add_explanation(self, **values: Any) -> None:
        """Why a candidate is better: a claim, one per analysis."""
        self._insert(t.explanations, values)

    def add_explanation_test(self, **values: Any) -> None:
        """What experiments say of an explanation."""
        self._insert(t.explanation_tests, values)

    def explanations(self) -> list[Row]:
        """All explanations with ``status`` ("untested" at first) and what the test measured, oldest first."""
        return [{**row, "status": row["status"] or "untested"} for row in self._rows(_EXPLANATIONS)]

    def decided_explanations(self, count: int) -> list[Row]:
        """The newest explanations that a test supported or refuted, newest first."""
        return self._rows(_DECIDED, n=count)

    def add_steering(self, key: str, cycle: int, action: str, payload: Mapping[str, Any]) -> bool:
        """Something a person decided, once per key; False when it was known."""
        with self.transaction():
            if self._one(select(t.steering.c.id).where(t.steering.c.key == key)) is not None:
                return False
            self._insert(t.steering, {"key": key, "cycle": cycle, "action": action, "payload": dict(payload)})
            self._steering = None
            return True

    def steering(self) -> list[Row]:
        """All that people decided, oldest first."""
        if self._read_only:
            return self._rows(select(t.steering).order_by(t.steering.c.id))
        if self._steering is None:  # a run has one writer
            self._steering = self._rows(select(t.steering).order_by(t.steering.c.id))
        return self._steering

    def pinned(self) -> set[int]:
        """Hypotheses that a person has pinned or made: they stay in every context."""
        ids: set[int] = set()
        for row in self.steering():
            if row["action"] == "pin":
                ids.add(row["payload"]["id"])
            elif row["action"] in ("unpin", "retire"):
                ids.discard(row["payload"]["id"])
        return ids

    def human_agenda(self) -> dict[str, float] | None:
        """Shares that a person has set, until released; they sum to 1."""
        last = [row for row in self.steering() if row["action"] in ("agenda", "release")]
        if not last or last[-1]["action"] == "release":
            return None
        shares = last[-1]["payload"]["shares"]
        total = sum(shares.values())
        return {name: share / total for name, share in shares.items()}

    def add_agenda(self, cycle: int, shares: Mapping[str, float], reason: str, provenance: str) -> None:
        """The agenda from ``cycle`` on."""
        self._insert(t.agenda, {"cycle": cycle, "shares": dict(shares), "reason": reason, "provenance": provenance})

    def agenda(self) -> list[Row]:
        """The agenda's history, oldest first."""
        return self._rows(select(t.agenda).order_by(t.agenda.c.id))

    def last_agenda(self) -> Row | None:
        """The agenda in force, or None."""
        return self._one(select(t.agenda).order_by(t.agenda.c.id.desc()).limit(1))

    def add_analysis(self, **values: Any) -> None:
        """The analysis of a cycle."""
        self._insert(t.analyses, values)

    def analyses(self) -> list[Row]:
        """All analyses, oldest first."""
        return self._rows(select(t.analyses).order_by(t.analyses.c.id))

    def last_analysis(self) -> Row | None:
        """The newest analysis, or None."""
        return self._one(_LAST_ANALYSIS)

    def add_note(self, cycle: int, title: str, body: str, source: str) -> None:
        """A literature or human note."""
        self._insert(t.notes, {"cycle": cycle, "title": title, "text": body, "source": source})

    def notes(self) -> list[Row]:
        """All notes, oldest first."""
        return self._rows(select(t.notes).order_by(t.notes.c.id))

    # -- LLM calls ----------------------------------------------------------------------------------------------------

    def add_llm_call(self, key: str, **values: Any) -> None:
        """Stores a call whole, once per key."""
        with self.transaction():
            if self.llm_call(key) is None:
                self._insert(t.llm_calls, {"key": key, **values})

    def llm_call(self, key: str) -> Row | None:
        """The call with this key, or None."""
        return self._one(select(t.llm_calls).where(t.llm_calls.c.key == key))

    def llm_calls(self) -> list[Row]:
        """All calls, oldest first."""
        return self._rows(select(t.llm_calls).order_by(t.llm_calls.c.id))


class HypothesisStates:
    """Ids of hypotheses by their current status, each list ascending."""

    def __init__(self) -> None:
        self._status: dict[int, str] = {}
        self._ids: dict[str, list[int]] = {}

    def set(self, hypothesis: int, status: str) -> None:
        """The status of a hypothesis from now on."""
        before = self._status.get(hypothesis)
        if before is not None:
            ids = self._ids[before]
            ids.pop(bisect.bisect_left(ids, hypothesis))
        self._status[hypothesis] = status
        bisect.insort(self._ids.setdefault(status, []), hypothesis)

    def status(self, hypothesis: int) -> str:
        """The status of a hypothesis now."""
        return self._status[hypothesis]

    def newest(self, statuses: Sequence[str], count: int, by_status: bool) -> list[int]:
        """The largest ``count`` ids in these statuses, ascending; see Store.newest_hypotheses."""
        ids = [i for s in statuses for i in self._ids.get(s, [])[: -count - 1 : -1]]
        return sorted(ids[:count] if by_status else sorted(ids)[-count:])


def _evaluation(row: Row) -> Evaluation:
    return Evaluation(**{k: row[k] for k in Evaluation.__dataclass_fields__})


def _connect_args(url: str) -> dict[str, Any]:
    return {"check_same_thread": False, "timeout": 30} if url.startswith("sqlite") else {}


def _pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # WAL lets status and report read while the engine writes; FULL makes a commit survive a power cut.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        with contextlib.suppress(Exception):  # a read-only file system has no WAL to switch to
            cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _short(error: SQLAlchemyError) -> str:
    return str(getattr(error, "orig", error)).splitlines()[0]
