import numpy as np
import pytest

from asi_evolve.errors import EvaluationFailure
from asi_evolve.execution import Limits, Sandbox, ask

ECHO = """
from asi_evolve.execution import ask

def go(count):
    total = 0
    for i in range(count):
        total += int(ask({"number": i})["double"])
    return total
"""


@pytest.fixture(scope="module", params=["auto", "none"])
def sandbox(request):
    return Sandbox(request.param, Limits(wall_seconds=30))


def test_questions_are_answered_in_order(sandbox):
    seen = []

    def answer(question):
        seen.append(question["number"])
        return {"double": 2 * question["number"]}

    result = sandbox.run(ECHO, "go", {"count": 500}, on_question=answer)
    assert result.ok, result.error
    assert result.value == 500 * 499
    assert seen == list(range(500))


def test_arrays_larger_than_a_pipe(sandbox):
    source = "from asi_evolve.execution import ask\ndef go(x):\n    return ask(x) + 1\n"
    x = np.arange(300_000, dtype=np.float64)
    result = sandbox.run(source, "go", {"x": x}, on_question=lambda q: q * 2)
    assert result.ok, result.error
    np.testing.assert_array_equal(result.value, 2 * x + 1)


def test_what_the_answer_raises_ends_the_run(sandbox):
    def answer(_):
        raise EvaluationFailure("protocol", "no such question")

    with pytest.raises(EvaluationFailure, match="no such question"):
        sandbox.run(ECHO, "go", {"count": 3}, on_question=answer)


def test_nobody_to_ask(sandbox):
    result = sandbox.run(ECHO, "go", {"count": 1})
    assert result.status == "error"
    assert "nobody answers" in result.error
    with pytest.raises(RuntimeError, match="nobody answers"):
        ask(1)


def test_a_flood_of_questions_is_refused(sandbox):
    # The answers are never read, so they would pile up in the judge.
    source = """
from asi_evolve.execution import exchange, frames, child
import gc
def go():
    ask = exchange._asker
    cells = dict(zip(ask.__code__.co_freevars, (c.cell_contents for c in ask.__closure__)))
    for _ in range(100000):
        child.write_frame(cells["result_fd"], "question", 1)
"""
    count = [0]

    def answer(_):
        count[0] += 1
        return np.zeros(10_000)

    result = sandbox.run(source, "go", {}, on_question=answer)
    assert result.status == "protocol"
    assert "question" in result.error
    assert count[0] < 100
