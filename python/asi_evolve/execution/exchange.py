"""Questions from a contained process to whoever started it, for evaluations in which the two take turns.

In reinforcement learning the judge holds the environment: the process asks what its actions lead to, the judge answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_asker: Callable[[Any], Any] | None = None


def ask(question: Any) -> Any:
    """The answer to a question; waits for it.

    Args:
        question: JSON values, numpy arrays of numbers and bytes.

    Returns:
        The same kind of value.

    Raises:
        RuntimeError: outside of a process that was started with somebody to answer.
    """
    if _asker is None:
        raise RuntimeError("nobody answers: Sandbox.run was not given on_question")
    return _asker(question)


def connect(asker: Callable[[Any], Any] | None) -> None:
    """Sets who answers; None: nobody."""
    global _asker  # noqa: PLW0603  one channel per process
    _asker = asker
