"""The client against a server that answers, stumbles and lies; recorded answers; what counts as an answer."""

import json
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from asi_evolve.config import LLMConfig
from asi_evolve.errors import ConfigError, LLMError
from asi_evolve.knowledge.store import Store
from asi_evolve.llm.base import Completion, Request, connect
from asi_evolve.llm.structured import ask

sys.path.insert(0, str(Path(__file__).parent))
from fake_server import FakeServer

SCHEMA = {
    "type": "object",
    "properties": {"choice": {"enum": ["a", "b"]}, "size": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["choice", "size"],
    "additionalProperties": False,
}


def request(n=1, schema=SCHEMA):
    keys = tuple(f"design/0/0/{i}" for i in range(n))
    return Request(keys, [{"role": "user", "content": "choose"}], schema, 0.5, 50, 7)


def server_llm(fake, **options):
    return connect(LLMConfig(provider="openai", base_url=fake.url, model="fake", timeout=5, **options))


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "run.db")
    yield made
    made.close()


def test_answers_are_valid_stored_whole_and_asked_once(store):
    with FakeServer() as fake:
        llm = server_llm(fake)
        first = ask(llm, store, request(3), "design", 0)
        assert all(a.value["choice"] in "ab" and 1 <= a.value["size"] <= 9 for a in first)
        assert len(fake.requests) == 1
        assert fake.requests[0]["n"] == 3
        assert fake.requests[0]["response_format"]["json_schema"]["schema"] == SCHEMA
        assert ask(llm, store, request(3), "design", 0) == first
        assert len(fake.requests) == 1
    call = store.llm_call("design/0/0/1")
    assert json.loads(call["response"]) == first[1].value
    assert call["request"]["messages"] == request().messages
    assert call["request"]["seed"] == 7
    assert call["completion_tokens"] == 5


@pytest.mark.parametrize("options", [{"max_n": 2}, {"ignore_n": True}])
def test_every_completion_is_got_whatever_the_server_makes_of_n(options):
    with FakeServer(**options) as fake:
        assert len(server_llm(fake).complete(request(5))) == 5


@pytest.mark.parametrize(
    ("mode", "problem"), [("garbage", "not JSON"), ("length", "token limit"), ("ignore_schema", "required property")]
)
def test_useless_answers_are_named(store, mode, problem):
    with FakeServer(mode) as fake:
        (answer,) = ask(server_llm(fake), store, request(), "design", 0)
    assert answer.value is None
    assert problem in answer.problem


def test_a_server_that_is_still_loading_is_waited_for():
    with FakeServer(fail_first=2) as fake:
        assert server_llm(fake, retries=3).complete(request())
        assert len(fake.requests) == 3


def test_a_server_that_keeps_failing_is_an_error_of_one_line():
    with FakeServer(fail_first=99) as fake, pytest.raises(LLMError, match=r"^http.* 503: .*loading model") as caught:
        server_llm(fake, retries=1).complete(request())
    assert "\n" not in str(caught.value)


def test_something_else_than_an_api_is_an_error():
    with FakeServer("html") as fake, pytest.raises(LLMError):
        server_llm(fake).complete(request())


def test_nobody_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    began = time.monotonic()
    with pytest.raises(LLMError, match="no LLM answers after 2 tries"):
        connect(LLMConfig(provider="openai", base_url=url, model="m", retries=1))
    assert time.monotonic() - began < 20


def test_no_address(monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ConfigError, match=r"llm\.base_url"):
        connect(LLMConfig(provider="openai"))


def test_the_only_model_is_taken_when_none_is_named():
    with FakeServer() as fake:
        assert connect(LLMConfig(provider="openai", base_url=fake.url)).name == "fake"


def test_recordings(tmp_path, store):
    path = tmp_path / "answers.jsonl"
    good = {"choice": "a", "size": 3}
    path.write_text(
        json.dumps({"key": "design/0/0/0", "text": good}) + "\n\n" + json.dumps({"phase": "design", "text": "x"}) + "\n"
    )
    llm = connect(LLMConfig(provider="recorded", recording=str(path)))
    first, second = ask(llm, store, request(2), "design", 0)
    assert first.value == good
    assert second.value is None
    with pytest.raises(LLMError, match="no recorded answer for call analyze/0/0/0"):
        llm.complete(Request(("analyze/0/0/0",), [], SCHEMA, 0, 9, 0))
    path.write_text("{}\n")
    with pytest.raises(LLMError, match="line 1"):
        connect(LLMConfig(provider="recorded", recording=str(path)))
    with pytest.raises(LLMError, match="cannot be read"):
        connect(LLMConfig(provider="recorded", recording=str(tmp_path / "none.jsonl")))


def test_a_run_is_a_recording_of_itself(store, tmp_path):
    with FakeServer() as fake:
        answers = ask(server_llm(fake), store, request(2), "design", 0)
    store.close()
    other = Store(tmp_path / "other.db")
    replayed = ask(connect(LLMConfig(provider="recorded", recording=str(tmp_path))), other, request(2), "design", 0)
    other.close()
    assert replayed == answers


def test_a_call_that_is_stored_is_not_made_again(tmp_path):
    """What lets a killed phase go on with the answers it had: only the missing ones are asked for."""

    class Counting:
        name = "counting"
        asked = ()

        def complete(self, request):
            self.asked += request.keys
            return [Completion('{"x": 1}', "stop", 1, 1, 0.0) for _ in request.keys]

    store, llm = Store(tmp_path / "run.db"), Counting()
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    request = Request(("a", "b"), [{"role": "user", "content": "?"}], schema, 0.0, 16, 0)
    ask(llm, store, request, "design", 0)
    answers = ask(llm, store, replace(request, keys=("a", "c", "b")), "design", 0)
    assert llm.asked == ("a", "b", "c")
    assert [a.value for a in answers] == [{"x": 1}] * 3
    assert [r["key"] for r in store.llm_calls()] == ["a", "b", "c"]
    store.close()
