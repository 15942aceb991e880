"""Half of a surrogate pair in an answer is refused like any other bad answer; it must not end the run."""

import pytest

from asi_evolve.knowledge.store import Store
from asi_evolve.llm.base import Completion, Request
from asi_evolve.llm.structured import ask

SCHEMA = {"type": "object", "properties": {"statement": {"type": "string"}}, "required": ["statement"]}


class Fixed:
    name = "fixed"

    def __init__(self, text):
        self.text = text

    def complete(self, request):
        return [Completion(self.text, "stop", 1, 1, 0.1) for _ in request.keys]


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "run.db")
    yield made
    made.close()


def request():
    return Request(keys=("k",), messages=[], schema=SCHEMA, temperature=0.0, max_tokens=10, seed=0)


def test_an_escaped_one_is_refused(store):
    (answer,) = ask(Fixed('{"statement": "\\ud800"}'), store, request(), "design", 0)
    assert answer.value is None
    assert "surrogate" in answer.problem


def test_a_raw_one_is_stored_and_replayed_alike(store):
    (answer,) = ask(Fixed('{"statement": "a\ud800b"}'), store, request(), "design", 0)
    assert answer.value == {"statement": "a?b"}
    (again,) = ask(Fixed("never asked"), store, request(), "design", 0)
    assert again == answer


def test_a_whole_pair_is_text(store):
    (answer,) = ask(Fixed('{"statement": "\\ud83d\\ude00"}'), store, request(), "design", 0)
    assert answer.value == {"statement": "\U0001f600"}
