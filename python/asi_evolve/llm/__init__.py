"""One protocol for language models, and the ways to have one: a server, an embedded model, a recording, none."""

from asi_evolve.llm.base import LLM, Completion, Request, connect
from asi_evolve.llm.structured import Answer, ask

__all__ = ["LLM", "Answer", "Completion", "Request", "ask", "connect"]
