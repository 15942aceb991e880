"""Recorded answers: from an earlier run's knowledge base, or a JSON Lines file. For tests, soak runs and replay."""

from __future__ import annotations

import json
from pathlib import Path

from asi_evolve.errors import LLMError
from asi_evolve.llm.base import Completion, Request


class RecordedLLM:
    """Answers by key.

    A run directory answers with what its model answered under the same key. A JSON Lines file has an object per line:
    ``{"key": ..., "text": ...}`` for one call, or ``{"phase": "design", "text": ...}`` for a scripted answer; those of
    a phase are used in turn, by the call's cycle and position, so that the same call always gets the same answer.

    Raises:
        LLMError: the recording is missing or malformed (with its line), or has no answer for a call.
    """

    def __init__(self, source: str) -> None:
        self.name = "recorded"
        self._source = source
        self._by_key: dict[str, tuple[str, str]] = {}
        self._by_phase: dict[str, list[str]] = {}
        path = Path(source)
        if path.is_dir():
            self._load_run(path / "run.db")
        else:
            self._load_lines(path)

    def _load_run(self, path: Path) -> None:
        from asi_evolve.knowledge.store import Store

        store = Store(path, read_only=True)
        self._by_key = {c["key"]: (c["response"], c["finish_reason"]) for c in store.llm_calls()}
        store.close()

    def _load_lines(self, path: Path) -> None:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise LLMError(f"{path}: the recording cannot be read: {error.strerror}") from None
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                text = entry["text"] if isinstance(entry["text"], str) else json.dumps(entry["text"])
                if "key" in entry:
                    self._by_key[entry["key"]] = (text, entry.get("finish_reason", "stop"))
                else:
                    self._by_phase.setdefault(entry["phase"], []).append(text)
            except (ValueError, KeyError, TypeError) as error:
                raise LLMError(f"{path}: line {number}: not a recorded answer: {error!r}") from None

    def complete(self, request: Request) -> list[Completion]:
        """See :class:`asi_evolve.llm.base.LLM`."""
        return [self._answer(key) for key in request.keys]

    def _answer(self, key: str) -> Completion:
        if key in self._by_key:
            text, finish = self._by_key[key]
            return Completion(text, finish, 0, 0, 0.0)
        phase, cycle, attempt, position = key.split("/")
        scripted = self._by_phase.get(phase)
        if not scripted:
            raise LLMError(f"{self._source}: no recorded answer for call {key}")
        index = int(cycle) * 31 + int(attempt) * 7 + int(position)
        return Completion(scripted[index % len(scripted)], "stop", 0, 0, 0.0)

    def close(self) -> None:
        """Nothing to close."""
