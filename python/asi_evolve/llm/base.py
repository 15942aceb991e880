"""What the engine asks of a language model, whatever serves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from asi_evolve.config import LLMConfig


@dataclass(frozen=True)
class Request:
    """One chat request for ``n`` completions.

    Attributes:
        keys: one key per completion, ``phase/cycle/attempt/position``; recordings answer by key.
        messages: chat messages, constant part first, so that a server can reuse its prefix cache.
        schema: JSON schema of the answer; kept to type, enum, required, minimum, maximum, maxLength and items, the
            part that every server enforces.
        seed: sampling seed of the first completion; the i-th has seed + i where they are asked for one by one.
    """

    keys: tuple[str, ...]
    messages: Sequence[Mapping[str, str]]
    schema: Mapping[str, Any]
    temperature: float
    max_tokens: int
    seed: int

    @property
    def n(self) -> int:
        """Number of completions wanted."""
        return len(self.keys)

    def to_json(self) -> dict[str, Any]:
        """As stored with the call."""
        return {
            "messages": [dict(m) for m in self.messages],
            "schema": dict(self.schema),
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
            "n": self.n,
        }


@dataclass(frozen=True)
class Completion:
    """One answer. ``finish_reason`` is ``stop`` or ``length`` (cut off: never usable)."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float


class LLM(Protocol):
    """A source of completions. ``close`` stops whatever was started for it."""

    name: str

    def complete(self, request: Request) -> list[Completion]:
        """Exactly ``request.n`` completions. Raises LLMError when the source fails for good."""
        ...

    def close(self) -> None:
        """Stops a server that was started, closes connections."""
        ...


def connect(config: LLMConfig, log_path: str | None = None) -> LLM | None:
    """The language model of a configuration; None for provider ``none``.

    Args:
        config: the ``llm`` section.
        log_path: file for the log of an embedded server.

    Raises:
        LLMError: nothing answers at the address, the embedded model is missing, or the recording cannot be read.
    """
    if config.provider == "none":
        return None
    if config.provider == "recorded":
        from asi_evolve.llm.recorded import RecordedLLM

        return RecordedLLM(str(config.recording))
    if config.provider == "embedded":
        from asi_evolve.llm.embedded import EmbeddedLLM

        return EmbeddedLLM(config, log_path)
    from asi_evolve.llm.server import ServerLLM

    return ServerLLM.from_config(config)
