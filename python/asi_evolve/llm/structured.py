"""Answers that are checked: JSON by schema, validated here whatever the server promised, stored whole, asked once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jsonschema

from asi_evolve.knowledge.store import Store
from asi_evolve.llm.base import LLM, Completion, Request


@dataclass(frozen=True)
class Answer:
    """A validated answer, or why there is none."""

    key: str
    value: Mapping[str, Any] | None
    problem: str
    text: str


def ask(llm: LLM, store: Store, request: Request, phase: str, cycle: int) -> list[Answer]:
    """One answer per key of the request, in order.

    Calls already in the knowledge base are not made again: that is how an interrupted phase continues with the same
    answers. New ones are stored whole before they are used.

    Raises:
        LLMError: the model cannot be reached.
    """
    known = {key: store.llm_call(key) for key in request.keys}
    missing = tuple(key for key, row in known.items() if row is None)
    texts = {key: (row["response"], row["finish_reason"]) for key, row in known.items() if row is not None}
    if missing:
        part = Request(missing, request.messages, request.schema, request.temperature, request.max_tokens, request.seed)
        for key, completion in zip(missing, llm.complete(part), strict=True):
            # A server may send half of a surrogate pair, which no database stores.
            completion = replace(completion, text=completion.text.encode("utf-8", "replace").decode("utf-8"))
            _record(store, key, phase, cycle, llm.name, part, completion)
            texts[key] = (completion.text, completion.finish_reason)
    return [_validate(key, *texts[key], schema=request.schema) for key in request.keys]


def _record(
    store: Store, key: str, phase: str, cycle: int, model: str, request: Request, completion: Completion
) -> None:
    store.add_llm_call(
        key,
        phase=phase,
        cycle=cycle,
        model=model,
        request=request.to_json(),
        response=completion.text,
        finish_reason=completion.finish_reason,
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.completion_tokens,
        seconds=completion.seconds,
    )


def _validate(key: str, text: str, finish_reason: str, schema: Mapping[str, Any]) -> Answer:
    if finish_reason == "length":
        return Answer(key, None, "the answer was cut off at the token limit", text)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Answer(key, None, f"the answer is not JSON: {error}", text)
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:  # written out as an escape in the JSON text
        return Answer(key, None, "the answer holds half of a surrogate pair, which is no text", text)
    problem = next(iter(_problems(value, schema)), "")
    return Answer(key, None if problem else value, problem, text)


def _problems(value: Any, schema: Mapping[str, Any]) -> Sequence[str]:
    errors = sorted(jsonschema.Draft202012Validator(schema).iter_errors(value), key=lambda e: list(map(str, e.path)))
    return [f"{'.'.join(map(str, e.path)) or 'answer'}: {e.message:.200}" for e in errors]
