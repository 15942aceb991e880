"""Running candidates' code: the sandbox, the evaluator process and the local pool."""

from __future__ import annotations

from asi_evolve.execution.exchange import ask
from asi_evolve.execution.levels import describe_level
from asi_evolve.execution.limits import Limits, Result, Usage
from asi_evolve.execution.reporting import progress
from asi_evolve.execution.sandbox import Sandbox

__all__ = ["Limits", "Result", "Sandbox", "Usage", "ask", "describe_level", "progress"]
