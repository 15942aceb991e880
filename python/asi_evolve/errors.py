"""Every error the engine raises on purpose. The command line turns each into one line and an exit code."""

from __future__ import annotations


class AsiEvolveError(Exception):
    """Base class. ``exit_code`` is what the command line returns when the error ends a command."""

    exit_code = 1


class ConfigError(AsiEvolveError):
    """A configuration key or value is wrong; the message names the key, the value and what is allowed."""

    exit_code = 2


class RunDirectoryError(AsiEvolveError):
    """A run directory cannot be created, read, written or locked, or holds no (or another) run."""

    exit_code = 3


class CorpusError(AsiEvolveError):
    """The text corpus is missing, unreadable or too small."""

    exit_code = 4


class LLMError(AsiEvolveError):
    """The LLM server cannot be reached or answers with errors after bounded retries. The run is resumable."""

    exit_code = 5


class BudgetExhausted(AsiEvolveError):
    """The campaign's budget is used up; it ends in order, with its report."""

    exit_code = 0


class InvalidEdit(AsiEvolveError, ValueError):
    """An edit cannot be applied; the message says which file, block and line did not match."""


class InvalidCandidate(AsiEvolveError, ValueError):
    """A component is outside its domain's search space or fails the domain's static validation."""


class EvaluationFailure(AsiEvolveError):
    """An evaluation ended without usable metrics.

    ``kind`` is one of :data:`FAILURE_KINDS`; it is stored with the evaluation and counted in the report.
    """

    def __init__(self, kind: str, message: str) -> None:
        if kind not in FAILURE_KINDS:
            raise ValueError(f"kind: {kind!r} is not one of {', '.join(FAILURE_KINDS)}")
        super().__init__(message)
        self.kind = kind


FAILURE_KINDS = (
    "invalid",  # the candidate's code does not compile, build or satisfy its contract
    "timeout",  # wall-clock limit
    "memory",  # memory limit
    "crash",  # the process died or raised
    "non-finite",  # NaN or infinity in a metric, logit or weight
    "acausal",  # an output depends on later input
    "protocol",  # the candidate's process answered something that is not a result
    "internal",  # the evaluator itself failed: not the candidate's fault
)
