"""Tables of the knowledge base, and the triggers that make them append-only.

A change of state is a new row: nothing here is ever updated or deleted.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

SCHEMA_VERSION = 2

metadata = MetaData()

runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("started", Float, nullable=False, doc="Unix time, seconds"),
    Column("config", JSON, nullable=False),
    Column("environment", JSON, nullable=False, doc="versions, hardware, git state"),
    Column("event", String, nullable=False, doc="run | resume"),
)

components = Table(
    "components",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("domain", String, nullable=False),
    Column("params", JSON, nullable=False),
    Column("files", JSON, nullable=False),
)

hypotheses = Table(
    "hypotheses",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", String, nullable=False, unique=True, doc="where it came from: what makes a repeated write harmless"),
    Column("cycle", Integer, nullable=False),
    Column("domain", String, nullable=False),
    Column("statement", Text, nullable=False),
    Column("mechanism", String, nullable=False, doc="the parameter or file the statement names"),
    Column("prediction", JSON, nullable=False, doc="metric, direction, minimum relative effect"),
    Column("provenance", String, nullable=False, doc="llm | random | human"),
)

candidates = Table(
    "candidates",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("hash", String(64), nullable=False, unique=True),
    Column("cycle", Integer, nullable=False),
    Column("origin", String, nullable=False, doc="baseline | llm | random | cross | counterfactual"),
    Column("domain", String, doc="the one domain an edit changed; null for crosses and the baseline"),
    Column("parents", JSON, nullable=False, doc="hashes; the candidate compared with first"),
    Column("edit", JSON),
    Column("hypothesis", Integer, ForeignKey("hypotheses.id")),
    Index("candidates_by_cycle", "cycle"),
)

candidate_components = Table(
    "candidate_components",
    metadata,
    Column("candidate", String(64), ForeignKey("candidates.hash"), primary_key=True),
    Column("domain", String, primary_key=True),
    Column("component", String(64), ForeignKey("components.hash"), nullable=False),
)

proposals = Table(
    "proposals",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("cycle", Integer, nullable=False),
    Column("position", Integer, nullable=False),
    Column("attempt", Integer, nullable=False, doc="0, or 1 for the repair of a refused proposal"),
    Column("source", String, nullable=False, doc="llm | random"),
    Column("kind", String, nullable=False, doc="choice | code"),
    Column("domain", String, nullable=False),
    Column("parent", String(64), ForeignKey("candidates.hash"), nullable=False),
    Column("status", String, nullable=False, doc="admitted | unusable | invalid | duplicate"),
    Column("cause", Text, nullable=False, doc="why it was refused"),
    Column("candidate", String(64), ForeignKey("candidates.hash")),
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("candidate", String(64), ForeignKey("candidates.hash"), nullable=False),
    Column("stage", String, nullable=False),
    Column("seed", Integer, nullable=False),
    Column("cycle", Integer, nullable=False),
    Column("status", String, nullable=False, doc="ok | failed"),
    Column("metrics", JSON, nullable=False),
    Column("failure", String, doc="one of errors.FAILURE_KINDS"),
    Column("message", Text, nullable=False),
    Column("usage", JSON, nullable=False),
    Column("seconds", Float, nullable=False, doc="wall-clock"),
    Column("finished", Float, nullable=False, doc="Unix time, seconds"),
    UniqueConstraint("candidate", "stage", "seed", name="one_evaluation"),
)

hypothesis_events = Table(
    "hypothesis_events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("hypothesis", Integer, ForeignKey("hypotheses.id"), nullable=False),
    Column("cycle", Integer, nullable=False),
    Column("status", String, nullable=False, doc="active | supported | refuted | inconclusive | retired"),
    Column("reason", Text, nullable=False),
    Index("hypothesis_events_by_hypothesis", "hypothesis"),
)

evidence = Table(
    "evidence",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("hypothesis", Integer, ForeignKey("hypotheses.id"), nullable=False),
    Column("cycle", Integer, nullable=False),
    Column("candidate", String(64), ForeignKey("candidates.hash"), nullable=False),
    Column("reference", String(64), ForeignKey("candidates.hash"), nullable=False),
    Column("stage", String, nullable=False),
    Column("metric", String, nullable=False),
    Column("effect", Float, nullable=False, doc="relative change of the metric, candidate against reference"),
    Column("low", Float, doc="95 % interval; null when unknown"),
    Column("high", Float),
    Column("seeds", Integer, nullable=False),
    Column("p_value", Float, doc="one-sided, against no effect in the predicted direction; null when unknown"),
    Column("level", Float, doc="the level that the false-discovery control gave the test; null without a test"),
)

explanations = Table(
    "explanations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("cycle", Integer, nullable=False, unique=True, doc="of the analysis that gave it"),
    Column("candidate", String(64), ForeignKey("candidates.hash"), nullable=False, doc="what is better"),
    Column("reference", String(64), ForeignKey("candidates.hash"), nullable=False, doc="than what"),
    Column("mechanism", String, nullable=False, doc="because of which change: domain.parameter or domain.file"),
    Column("provenance", String, nullable=False, doc="llm | human"),
)

explanation_tests = Table(
    "explanation_tests",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("explanation", Integer, ForeignKey("explanations.id"), nullable=False, unique=True),
    Column("cycle", Integer, nullable=False, doc="in which it was tested"),
    Column("status", String, nullable=False, doc="supported | refuted | inconclusive"),
    Column("reason", Text, nullable=False),
    Column("gain", Float, doc="of the candidate over the reference, metric units, positive is better"),
    Column("effect", Float, doc="of the mechanism, mean over taking it out and putting it in"),
    Column("low", Float, doc="95 % interval"),
    Column("high", Float),
)

agenda = Table(
    "agenda",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("cycle", Integer, nullable=False),
    Column("shares", JSON, nullable=False, doc="share of proposals by domain, sums to 1"),
    Column("reason", Text, nullable=False),
    Column("provenance", String, nullable=False, doc="engine | llm | human"),
)

analyses = Table(
    "analyses",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("cycle", Integer, nullable=False),
    Column("facts", JSON, nullable=False, doc="computed by code"),
    Column("interpretation", Text, nullable=False, doc="the LLM's words: a claim"),
    Column("claims", JSON, nullable=False, doc="each claim with what the table says of it"),
)

llm_calls = Table(
    "llm_calls",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", String, nullable=False, unique=True, doc="phase/cycle/attempt/position"),
    Column("phase", String, nullable=False),
    Column("cycle", Integer, nullable=False),
    Column("model", String, nullable=False),
    Column("request", JSON, nullable=False, doc="messages, schema, temperature, seed, max_tokens"),
    Column("response", Text, nullable=False),
    Column("finish_reason", String, nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("seconds", Float, nullable=False),
)

notes = Table(
    "notes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("cycle", Integer, nullable=False),
    Column("title", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("source", Text, nullable=False),
)

journal = Table(
    "journal",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("time", Float, nullable=False, doc="Unix time, seconds"),
    Column("cycle", Integer, nullable=False),
    Column("phase", String, nullable=False),
    Column("event", String, nullable=False, doc="started | done | failed"),
    Column("payload", JSON, nullable=False),
    Index("journal_by_phase", "cycle", "phase", "event"),
)


steering = Table(
    "steering",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", String, nullable=False, unique=True, doc="of the line in steering.jsonl"),
    Column("cycle", Integer, nullable=False, doc="from which on it counts"),
    Column("action", String, nullable=False, doc="hypothesis | pin | unpin | retire | agenda | release | note"),
    Column("payload", JSON, nullable=False),
)

# What brings a knowledge base of version n to n + 1, besides new tables.
MIGRATIONS = {
    1: ("ALTER TABLE evidence ADD COLUMN p_value FLOAT", "ALTER TABLE evidence ADD COLUMN level FLOAT"),
}


def make_append_only(connection: Connection) -> None:
    """SQLite triggers that refuse UPDATE and DELETE on every table, whoever asks."""
    for table in metadata.tables.values():
        for action in ("UPDATE", "DELETE"):
            connection.execute(
                text(
                    f"CREATE TRIGGER IF NOT EXISTS {table.name}_no_{action.lower()} BEFORE {action} ON {table.name} "
                    f"BEGIN SELECT RAISE(ABORT, '{table.name} is append-only'); END"
                )
            )
