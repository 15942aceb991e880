"""Tasks, tuning by a graph, and the joint benchmark as a whole."""

import numpy as np
import pytest

from asi_evolve.candidate import Candidate, Edit
from asi_evolve.domain import Benchmark, Domain, Stage
from asi_evolve.domains import lm_tasks
from asi_evolve.domains.architecture import ArchitectureDomain, model_files
from asi_evolve.domains.lm_joint import START, JointBenchmark
from asi_evolve.execution.pool import LocalPool, benchmark_spec

STAGE = Stage("isolated", 1.0, 120.0)
SMALL = {"full_steps": 16, "sequence_length": 48, "held_out_windows": 8, "answers": 128, "held_out_tasks": 30}
SMALL["prompt_length"] = 32


# -- tasks ------------------------------------------------------------------------------------------------------------


def test_answers_are_right_and_held_out_prompts_are_in_no_training_text():
    rng = np.random.default_rng(0)
    training, held_out = lm_tasks.tasks(600, False, rng), lm_tasks.tasks(300, True, rng)
    for task in (*training, *held_out):
        kind, text = task.prompt[:-1].split(" ")
        assert task.prompt.endswith(">")
        assert 1 <= len(task.answer) < lm_tasks.ANSWER
        if kind == "copy":
            assert task.answer == text
        elif kind == "add":
            assert int(task.answer) == eval(text)
        else:
            assert [(a + b) in ("()", "[]", "{}") for a, b in zip(text, task.answer[::-1], strict=True)]
    assert {t.prompt.split(" ")[0] for t in held_out} == set(lm_tasks.KINDS)
    assert {len(t.answer) for t in training} == set(range(1, lm_tasks.ANSWER))  # easy ones and hard ones
    text = lm_tasks.training_text(100_000, rng).tobytes().decode()
    lines = {line.partition(">")[0] + ">" for line in text.splitlines()}
    assert not lines & {t.prompt for t in held_out}
    assert {t.prompt for t in training} & lines


def test_prompts_are_cut_at_the_left_and_end_in_the_task():
    rng = np.random.default_rng(0)
    some = lm_tasks.tasks(20, True, rng)
    for row, task in zip(lm_tasks.prompts(some, 40, rng), some, strict=True):
        assert row.tobytes().decode().endswith("\n" + task.prompt)


def test_right_bytes():
    expected = lm_tasks.answers([lm_tasks.Task("copy abc>", "abc"), lm_tasks.Task("add 1+1>", "2")])
    given = np.frombuffer(b"abc\nzz2x\nzzz", np.uint8).reshape(2, 6)
    assert lm_tasks.right_bytes(given, expected).tolist() == [1.0, 0.5]
    assert lm_tasks.right_bytes(np.roll(given, 1, axis=1), expected).tolist() == [0.0, 0.0]
    assert lm_tasks.right_bytes(expected, expected).tolist() == [1.0, 1.0]


# -- tuning -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def tune(tmp_path, monkeypatch):
    """Tuning in this process, on tasks that all have the same answer."""
    torch = pytest.importorskip("torch")
    import sys

    from asi_evolve.domains import lm_runner, lm_tuning
    from asi_evolve.domains.rl.domain import GRAPH_FILE

    domain = JointBenchmark(**SMALL).domains()[1]
    architecture = ArchitectureDomain()
    model = architecture.apply(architecture.baseline(), Edit(params={"layers": 1, "width": 32}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for path, text in model_files(model).items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    loaded = [m for m in sys.modules if m == "model" or m.startswith("model.")]
    for name in loaded:
        del sys.modules[name]

    def go(updates=60, answer="ab", **params):
        component = domain.apply(domain.baseline(), Edit(params=params))
        domain.validate(component)
        (tmp_path / GRAPH_FILE).write_text(component.files[GRAPH_FILE])
        fresh = lm_runner._model(dict(model.params), 24, 0, 1)
        weights = {n: t.detach().numpy().copy() for n, t in lm_runner._state(fresh)}
        rng = np.random.default_rng(0)
        of = [lm_tasks.Task(t.prompt, answer) for t in lm_tasks.tasks(32, False, rng)]
        return lm_tuning.tune(
            architecture=dict(model.params),
            weights=weights,
            params=dict(component.params),
            files=[GRAPH_FILE],
            prompts=lm_tasks.prompts(of, 16, rng),
            answers=lm_tasks.answers(of),
            length=24,
            updates=updates,
            seed=0,
            threads=1,
        )

    yield go
    torch.set_num_threads(max(1, torch.get_num_threads()))
    for name in [m for m in sys.modules if m == "model" or m.startswith("model.")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "graph", ["grpo", *(pytest.param(n, marks=pytest.mark.slow) for n in ("reinforce", "ppo", "dapo"))]
)
def test_every_kind_of_graph_raises_the_reward(tune, graph):
    """From random weights, where one answer in 256 begins right, to often right."""
    answer = tune(graph=graph, learning_rate=3e-3, prompts=32, group=16, epochs=2, minibatches=2)
    reward = answer["reward"]
    assert reward[:3].mean() < 0.05
    assert not (reward[-5:].mean() < 0.15)


def test_tuning_is_deterministic_and_changes_the_weights(tune):
    first, again = (tune(updates=3, learning_rate=1e-3) for _ in range(2))
    assert first["reward"].tolist() == again["reward"].tolist()
    assert all(np.array_equal(first["weights"][n], again["weights"][n]) for n in first["weights"])
    other = tune(updates=1, learning_rate=1e-3)
    assert any(not np.array_equal(first["weights"][n], other["weights"][n]) for n in first["weights"])


# -- the benchmark ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def benchmark(corpus_file, cache):
    made = JointBenchmark(corpus=str(corpus_file), cache=str(cache), **SMALL)
    made.prepare()
    return made


def test_protocol_and_options(benchmark):
    assert isinstance(benchmark, Benchmark)
    names = [d.name for d in benchmark.domains()]
    assert names == ["architecture", "algorithm", "data"]
    assert all(isinstance(d, Domain) for d in benchmark.domains())
    again = type(benchmark)(**benchmark.options)
    assert [d.baseline() for d in again.domains()] == [d.baseline() for d in benchmark.domains()]
    assert dict(again.domains()[1].baseline().params) == dict(START)
    for wrong in ({"answers": 0}, {"task_share": 1.5}, {"prompt_length": 200}, {"bits_weight": -1.0}):
        with pytest.raises(TypeError, match=next(iter(wrong))):
            JointBenchmark(**wrong)


@pytest.mark.slow
def test_a_triple_is_pretrained_tuned_and_judged(benchmark):
    domains = {d.name: d for d in benchmark.domains()}
    base = Candidate([d.baseline() for d in domains.values()])
    small = base.replace(domains["architecture"].apply(base.architecture, Edit(params={"layers": 1, "width": 32})))
    changes = {
        "base": Edit(),
        "again": Edit(),
        "grpo": Edit(params={"graph": "grpo"}),
        "diverges": Edit(params={"learning_rate": 1e-2, "graph": "ppo"}),
    }
    with LocalPool(benchmark_spec(benchmark), benchmark.options, "judge", workers=2) as pool:
        jobs = {
            n: pool.submit(small.replace(domains["algorithm"].apply(small.algorithm, e)), STAGE, 0)
            for n, e in changes.items()
        }
        done = {n: j.result() for n, j in jobs.items()}
    for name in ("base", "again", "grpo"):
        assert done[name].status == "ok", done[name]
        metrics = done[name].metrics
        assert metrics["score"] == pytest.approx(metrics["task_reward"] - 0.25 * metrics["bits_per_byte"])
        assert 0 <= metrics["task_reward"] <= 1
        assert 0 < metrics["bits_per_byte"] < 9
    for metric in ("score", "task_reward_before", "bits_per_byte"):
        assert done["base"].metrics[metric] == done["again"].metrics[metric]
    assert done["grpo"].metrics["bits_per_byte"] != done["base"].metrics["bits_per_byte"]
