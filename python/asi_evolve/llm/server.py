"""Client of any OpenAI-compatible server: vLLM (the reference), llama.cpp, or a hosted one."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from asi_evolve.config import LLMConfig
from asi_evolve.errors import ConfigError, LLMError
from asi_evolve.llm.base import Completion, Request

T = TypeVar("T")


class ServerLLM:
    """Completions from ``base_url`` through the ``openai`` client.

    Failed requests are retried at most ``retries`` times with growing pauses (``Retry-After`` is honoured).

    Raises:
        LLMError: the server cannot be reached, or keeps failing; the message has the address and the cause.
    """

    def __init__(
        self, base_url: str, model: str | None = None, api_key: str = "none", timeout: float = 120.0, retries: int = 4
    ) -> None:
        import openai

        self._openai = openai
        self.base_url = base_url
        self._client = openai.OpenAI(base_url=base_url, api_key=api_key, timeout=timeout, max_retries=retries)
        self._retries = retries
        self._max_n: int | None = None
        self.name = model or self._only_model()

    @classmethod
    def from_config(cls, config: LLMConfig) -> ServerLLM:
        """From the ``llm`` section and the usual environment variables."""
        base_url = config.base_url or os.environ.get("OPENAI_BASE_URL")
        if not base_url:
            raise ConfigError("llm.base_url: needed with provider 'openai' (or set OPENAI_BASE_URL)")
        key = os.environ.get(config.api_key_env, "none")
        llm = cls(base_url, config.model, key, config.timeout, config.retries)
        if config.model:
            llm._only_model()  # fails now, not after the first experiments
        return llm

    def _only_model(self) -> str:
        """The first model the server lists."""
        models = self._guard(lambda: self._client.models.list().data)
        if not models:
            raise LLMError(f"{self.base_url}: the server lists no model")
        return str(models[0].id)

    def _guard(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except Exception as error:
            raise self._explained(error) from None

    def _explained(self, error: Exception) -> Exception:
        """The one-line LLMError for an exception of the client."""
        where = self.base_url
        if isinstance(error, self._openai.APIConnectionError):
            cause = error.__cause__ or error
            tries = self._retries + 1
            return LLMError(
                f"{where}: no LLM answers after {tries} tries ({type(cause).__name__}: {cause}); "
                "start the server and `asi-evolve resume` the run"
            )
        if isinstance(error, self._openai.APIStatusError):
            message = " ".join(str(error.message).split())
            return LLMError(f"{where}: the LLM server answers {error.status_code}: {message:.300}")
        if isinstance(error, self._openai.OpenAIError):
            return LLMError(f"{where}: {type(error).__name__}: {error}")
        if isinstance(error, ValueError):  # an answer that is not JSON
            return LLMError(f"{where}: the answer is not an OpenAI-compatible response: {error}")
        return error

    def complete(self, request: Request) -> list[Completion]:
        """See :class:`asi_evolve.llm.base.LLM`. Asks for all completions in one call where the server allows it."""
        step = min(request.n, self._max_n or request.n)
        try:
            return self._in_calls(request, step)
        except self._openai.BadRequestError as error:
            # llama.cpp answers at most as many completions per call as it has slots, and says how many.
            limit = re.search(r"<= (\d+)", str(error.message)) if step > 1 else None
            if step == 1:
                raise self._explained(error) from None
            self._max_n = int(limit.group(1)) if limit and "'n'" in str(error.message) else 1
            return self._guard(lambda: self._in_calls(request, min(step, self._max_n or 1)))

    def _in_calls(self, request: Request, step: int) -> list[Completion]:
        starts = range(0, request.n, step)
        if len(starts) == 1:
            return self._call(request, 0, request.n)
        with ThreadPoolExecutor(max_workers=4) as pool:
            parts = list(pool.map(lambda at: self._call(request, at, min(step, request.n - at)), starts))
        return [c for part in parts for c in part]

    def _call(self, request: Request, at: int, n: int) -> list[Completion]:
        began = time.monotonic()
        messages: Any = [dict(m) for m in request.messages]
        schema = {"name": "answer", "schema": dict(request.schema), "strict": True}

        shape: Any = {"type": "json_schema", "json_schema": schema}
        try:
            response = self._client.chat.completions.create(
                model=self.name,
                messages=messages,
                response_format=shape,
                temperature=request.temperature,
                max_tokens=request.max_tokens,
                seed=(request.seed + at) % 2**31,
                n=n,
            )
        except self._openai.BadRequestError:
            raise  # `complete` asks for fewer at a time
        except Exception as error:
            raise self._explained(error) from None
        choices = sorted(getattr(response, "choices", None) or [], key=lambda c: c.index)
        if not choices:
            raise LLMError(f"{self.base_url}: the answer has no choices")
        seconds = (time.monotonic() - began) / n
        usage = getattr(response, "usage", None)
        prompt = int(getattr(usage, "prompt_tokens", 0) or 0)
        made = int(getattr(usage, "completion_tokens", 0) or 0)
        completions = [
            Completion(
                c.message.content or "", str(c.finish_reason), prompt // len(choices), made // len(choices), seconds
            )
            for c in choices[:n]
        ]
        for missing in range(len(completions), n):  # a server that ignores `n`
            completions += self._call(request, at + missing, 1)
        return completions

    def close(self) -> None:
        """Closes the connections; the server is not ours to stop."""
        self._client.close()
