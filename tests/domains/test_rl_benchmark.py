import importlib.util
import json
import re
import time

import numpy as np
import pytest

from asi_evolve.benchmarks import load_benchmark
from asi_evolve.candidate import Candidate, Component, Edit
from asi_evolve.domain import Benchmark, Domain, Stage
from asi_evolve.domains.algorithm import RLAlgorithmGraph, reference
from asi_evolve.domains.algorithm.reference import NAMES
from asi_evolve.domains.rl.domain import GRAPH_FILE, PARAMETERS, START, RLGraphDomain, uses_code
from asi_evolve.domains.rl.environments import TASKS, Judge, Task
from asi_evolve.domains.rl.metrics import WINDOW, aggregate, interquartile_mean, judge_curve
from asi_evolve.errors import ConfigError, EvaluationFailure, InvalidCandidate
from asi_evolve.execution import Limits, Sandbox

pytest.importorskip("gymnasium")
from asi_evolve.domains.rl import RLBenchmark

DOMAIN = RLGraphDomain()


def candidate(files=None, **params):
    return Candidate([DOMAIN.apply(DOMAIN.baseline(), Edit(params=params, files=files or {}))])


# -- metrics --------------------------------------------------------------------------------------------------------


class TestMetrics:
    task = Task(0.0, 100.0)

    def test_a_curve_that_rises_at_half_time(self):
        curve = [(s, 0.0 if s <= 500 else 100.0) for s in range(1, 1001)]
        learned = judge_curve(curve, np.full(5, 100.0), 1000, self.task)
        assert learned.normalized == 1.0
        assert learned.area == pytest.approx(0.5, abs=0.02)
        assert learned.steps_to_threshold == 500 + WINDOW
        assert learned.solved
        assert not learned.collapsed

    def test_collapse_after_success(self):
        curve = [(s, 100.0 if s < 500 else 0.0) for s in range(1, 1001)]
        learned = judge_curve(curve, np.zeros(5), 1000, self.task)
        assert learned.solved
        assert learned.collapsed
        assert learned.steps_to_threshold == WINDOW

    def test_never_and_nothing(self):
        learned = judge_curve([(10, 100.0)] * (WINDOW - 1), np.zeros(1), 1000, self.task)
        assert not learned.solved
        assert learned.steps_to_threshold == 1000
        nothing = judge_curve([], np.full(1, -1e9), 1000, self.task)
        assert (nothing.area, nothing.normalized) == (0.0, -1.0)

    def test_interquartile_mean(self):
        assert interquartile_mean(np.array([[0.0, 1, 2, 3], [4, 5, 6, 1000]])) == pytest.approx(np.mean([2, 3, 4, 5]))

    def test_interval_covers_and_is_stratified(self):
        rng = np.random.default_rng(0)
        hits = 0
        for i in range(60):
            # Environments differ a lot; seeds within one little: only a stratified bootstrap gives a narrow interval.
            scores = np.array([0.0, 10.0, 20.0, 30.0]) + rng.normal(0, 1, (10, 4))
            mean, low, high = aggregate(scores, resamples=300, seed=i)
            assert low <= mean <= high
            assert high - low < 3
            hits += low <= 15.0 <= high
        assert hits >= 48
        with pytest.raises(ValueError, match="scores"):
            aggregate(np.array([1.0]))
        with pytest.raises(ValueError, match="finite"):
            aggregate(np.array([[np.nan]]))


# -- domain ---------------------------------------------------------------------------------------------------------


class TestDomain:
    def test_protocol(self):
        assert isinstance(DOMAIN, Domain)
        baseline = DOMAIN.baseline()
        DOMAIN.validate(baseline)
        assert Component.from_json(json.loads(json.dumps(baseline.to_json()))) == baseline
        rng = np.random.default_rng(0)
        component, seen, graphs = baseline, set(), set()
        for _ in range(16):
            child = DOMAIN.apply(component, DOMAIN.mutate(component, rng))
            DOMAIN.validate(child)
            features = DOMAIN.features(child)
            assert features.shape == DOMAIN.features(baseline).shape
            assert np.isfinite(features).all()
            assert np.abs(features).max() <= 5
            seen.add(child.hash)
            graphs.add(child.files[GRAPH_FILE])
            component = child
        assert len(seen) > 13
        assert len(graphs) > 4
        for name in (*baseline.params, *baseline.files):
            assert name in DOMAIN.describe()

    @pytest.mark.parametrize("name", NAMES)
    def test_a_name_brings_its_graph(self, name):
        component = candidate(graph=name).algorithm
        assert RLAlgorithmGraph.from_json(component.files[GRAPH_FILE]) == reference(name)
        DOMAIN.validate(component)

    def test_operations_instead_of_a_graph(self):
        operations = [
            {"op": "add_node", "node": "tc", "primitive": "temporal_consistency"},
            {"op": "add_edge", "source": "values", "target": "tc"},
            {"op": "add_edge", "source": "tc", "target": "loss_output", "transform": "ScaleBy(0.01)"},
        ]
        component = candidate({GRAPH_FILE: json.dumps({"operations": operations})}).algorithm
        assert component.params["graph"] == "custom"
        DOMAIN.validate(component)
        graph = RLAlgorithmGraph.from_json(component.files[GRAPH_FILE])
        assert len(reference("ppo").diff(graph)) == 3
        with pytest.raises(InvalidCandidate, match="operation 1"):
            candidate({GRAPH_FILE: json.dumps({"operations": [{"op": "nothing"}]})})

    def test_a_cycle_is_refused_in_one_line(self):
        graph = reference("ppo")
        graph.add_edge("ratio", "log_prob", "actions")
        with pytest.raises(InvalidCandidate, match=r"cycle: .*ratio -> log_prob\.actions") as raised:
            DOMAIN.validate(candidate({GRAPH_FILE: graph.to_json()}).algorithm)
        assert "\n" not in str(raised.value)

    def test_features_are_of_the_structure(self):
        plain = DOMAIN.features(candidate().algorithm)
        renamed = (
            candidate()
            .algorithm.files[GRAPH_FILE]
            .replace('"gae"', '"g"')
            .replace('"primitive": "g"', '"primitive": "gae"')
        )
        other = DOMAIN.features(candidate({GRAPH_FILE: renamed}).algorithm)
        named = len(NAMES) + 1  # the graph's name is a parameter
        np.testing.assert_array_equal(plain[named:], other[named:])
        assert not np.array_equal(plain[named:], DOMAIN.features(candidate(graph="a2c").algorithm)[named:])

    def test_the_code_slot_counts_where_it_is_used(self):
        code = 'PORTS = {"x": "[T, N]"}\nOUTPUT = "[T, N]"\ndef custom(x):\n    return 2 * x\n'
        unused = candidate({"primitive.py": code}).algorithm
        assert not uses_code(unused.files)
        DOMAIN.validate(unused)
        operations = [
            {"op": "add_node", "node": "mine", "primitive": "custom"},
            {"op": "remove_edge", "source": "advantages", "target": "policy_loss"},
            {"op": "add_edge", "source": "advantages", "target": "mine"},
            {"op": "add_edge", "source": "mine", "target": "policy_loss", "port": "advantages"},
        ]
        used = candidate({"primitive.py": code, GRAPH_FILE: json.dumps({"operations": operations})}).algorithm
        assert uses_code(used.files)
        DOMAIN.validate(used)
        child = DOMAIN.apply(used, DOMAIN.mutate(used, np.random.default_rng(3)))
        DOMAIN.validate(child)

    def test_start_is_in_the_space(self):
        assert [p.name for p in PARAMETERS] == list(START)


# -- judge ----------------------------------------------------------------------------------------------------------


class TestJudge:
    def test_books(self):
        judge = Judge("CartPole-v1", 4, 400, 3, seed=0)
        rows = judge.answer("start")
        assert rows.shape == (4, 7)
        assert rows.dtype == np.float32
        rng = np.random.default_rng(0)
        total, ended = 0.0, 0
        for _ in range(100):
            answer = judge.answer(rng.integers(0, 2, 4))
            rows, last = answer if isinstance(answer, list) else (answer, np.zeros((0, 4)))
            over = (rows[:, -2:].sum(1) > 0).sum()
            assert len(last) == over
            ended += over
            total += rows[:, -3].sum()
        assert judge.taken == 400
        assert len(judge.curve) == ended > 10
        assert sum(r for _, r in judge.curve) <= total == 400
        assert [s for s, _ in judge.curve] == sorted(s for s, _ in judge.curve)
        with pytest.raises(EvaluationFailure, match="more than 400 steps"):
            judge.answer(rng.integers(0, 2, 4))
        rows = judge.answer("test")
        while not judge.finished:
            judge.answer(rng.integers(0, 2, 3))
        assert (judge.test_returns > 5).all()
        judge.close()

    def test_the_same_seed_the_same_world(self):
        first, second, other = (Judge("Acrobot-v1", 2, 10, 1, seed=s) for s in (1, 1, 2))
        a, b, c = (j.answer("start") for j in (first, second, other))
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)

    def test_actions_are_scaled_and_clipped(self):
        judge = Judge("Pendulum-v1", 1, 10, 1, seed=0)
        judge.answer("start")
        np.testing.assert_array_equal(judge._actions(np.array([[0.5]], np.float32), 1), [[1.0]])
        np.testing.assert_array_equal(judge._actions(np.array([[7.0]], np.float32), 1), [[2.0]])
        with pytest.raises(EvaluationFailure, match="NaN") as raised:
            judge.answer(np.array([[np.nan]], np.float32))
        assert raised.value.kind == "non-finite"

    @pytest.mark.parametrize(
        "question",
        ["test", "start", None, 3, {"a": 1}, np.zeros(3, np.int64), np.zeros(2), np.array([0, 2]), np.array([-1, 0])],
    )
    def test_what_is_no_answer_is_refused(self, question):
        judge = Judge("CartPole-v1", 2, 10, 1, seed=0)
        judge.answer("start")
        with pytest.raises(EvaluationFailure) as raised:
            judge.answer(question)
        assert raised.value.kind == "protocol"

    def test_random_play_is_the_zero_of_the_scale(self):
        judge = Judge("CartPole-v1", 8, 8000, 1, seed=5)
        judge.answer("start")
        rng = np.random.default_rng(0)
        while judge.taken < 8000:
            judge.answer(rng.integers(0, 2, 8))
        assert np.mean([r for _, r in judge.curve]) == pytest.approx(TASKS["CartPole-v1"].low, abs=3)


class TestMissing:
    def test_environments_that_are_not_there(self):
        for name in ("NoSuchThing-v0", "Nowhere/Land-v1"):
            benchmark = RLBenchmark(environments=[name], low=0.0, high=1.0)
            with pytest.raises(ConfigError, match=name) as raised:
                benchmark.prepare()
            assert "\n" not in str(raised.value)
            with pytest.raises(ConfigError):
                benchmark.evaluate(candidate(), Stage("isolated", 0.1, 10), 0)

    def test_packages_that_are_not_there(self, monkeypatch):
        import builtins

        real = builtins.__import__

        def without(name, *rest, **more):
            if name.split(".")[0] in ("gymnasium", "ale_py", "mujoco"):
                raise ImportError(f"No module named {name!r}", name=name.split(".")[0])
            return real(name, *rest, **more)

        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(ConfigError, match=r"Gymnasium.*asi-evolve-engine\[rl\]"):
            RLBenchmark().prepare()

    def test_scale_of_an_unknown_environment(self):
        with pytest.raises(ConfigError, match="give low and high"):
            RLBenchmark(environments=["Blackjack-v1"]).prepare()
        with pytest.raises(ConfigError, match="vectors of numbers are supported"):
            RLBenchmark(environments=["Blackjack-v1"], low=-1.0, high=1.0).prepare()

    @pytest.mark.parametrize(
        "options",
        [{"environments": "CartPole-v1"}, {"environments": []}, {"full_steps": 0}, {"tests": True}, {"low": 1.0}],
    )
    def test_options(self, options):
        with pytest.raises(ConfigError, match=next(iter(options))):
            load_benchmark("rl", options)


# -- the whole ------------------------------------------------------------------------------------------------------

SHORT = Stage("isolated", 1.0, 60)


def test_protocol_and_a_short_run():
    benchmark = load_benchmark("rl", {"full_steps": 2000, "tests": 4})
    assert isinstance(benchmark, Benchmark)
    benchmark.prepare()
    first, second = (benchmark.evaluate(candidate(), SHORT, 1) for _ in range(2))
    assert {k: v for k, v in first.items() if k not in benchmark.costs} == {
        k: v for k, v in second.items() if k not in benchmark.costs
    }
    assert first["score"] == pytest.approx((first["final_return"] + first["area"]) / 2)
    assert first["CartPole-v1/final_return"] >= 8
    assert all(np.isfinite(list(first.values())))
    assert first["train_seconds"] > 0.2


@pytest.mark.parametrize("name", ["grpo", "ppo-kl"])
def test_continuous_actions_and_whole_sequences(name):
    benchmark = RLBenchmark(environments=["Pendulum-v1"], full_steps=1200, tests=2)
    params = {
        "graph": name,
        "horizon": 32,
        "environments": 8,
        "normalize_observations": True,
        "normalize_rewards": True,
    }
    metrics = benchmark.evaluate(candidate(**params), SHORT, 0)
    assert -2500 < metrics["Pendulum-v1/final_return"] < 0


def with_code(code, port="x"):
    operations = [
        {"op": "add_node", "node": "mine", "primitive": "custom"},
        {"op": "remove_edge", "source": "ratio", "target": "policy_loss"},
        {"op": "add_edge", "source": "ratio", "target": "mine", "port": port},
        {"op": "add_edge", "source": "mine", "target": "policy_loss", "port": "ratio"},
    ]
    head = 'import torch\nPORTS = {"x": "[T, N]"}\nOUTPUT = "[T, N]"\ndef custom(x):\n    '
    return candidate({"primitive.py": head + code, GRAPH_FILE: json.dumps({"operations": operations})})


def learned(made):
    """What the learner says of a candidate, in this process."""
    from asi_evolve.domains.rl.learner import learn

    component = made.algorithm
    DOMAIN.validate(component)
    facts = {"observation": 4, "actions": 2, "discrete": True}
    graph, code = component.files[GRAPH_FILE], component.files["primitive.py"]
    return learn(graph=graph, code=code, params=dict(component.params), facts=facts, steps=10, seed=0, threads=1)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("return x.detach()", "loss does not depend|no gradient"),
        ("return x * float('nan')", "the loss is nan"),
        ("return x[:-1]", "cannot be computed"),
        ("raise ValueError('mine')", "mine"),
        ("return [1]", "cannot be computed"),
    ],
)
def test_bad_code_is_found_before_training(code, words):
    made = with_code(code)
    if "detach" in code:  # the entropy still has a gradient
        operations = [{"op": "remove_edge", "source": "entropy_mean", "target": "loss_output"}]
        files = {GRAPH_FILE: json.dumps({"operations": operations})}
        made = Candidate([DOMAIN.apply(made.algorithm, Edit(files=files))])
    assert re.search(words, learned(made)["invalid"])


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("from asi_evolve.execution import ask\n    ask('test')\n    return x", "protocol", "out of order"),
        pytest.param("while True: pass", "timeout", "still running|CPU", marks=pytest.mark.slow),
        pytest.param("raise SystemExit(3)", "crash", "SystemExit|exit", marks=pytest.mark.slow),
    ],
)
def test_hostile_code_is_a_recorded_failure(code, kind, words):
    limit = 8 if kind == "timeout" else 60
    made = with_code(code)
    with pytest.raises(EvaluationFailure, match=words) as raised:
        RLBenchmark(full_steps=2000, tests=2).evaluate(made, Stage("isolated", 1.0, limit), 0)
    assert raised.value.kind == kind


@pytest.mark.slow
def test_good_code_trains():
    metrics = RLBenchmark(full_steps=2000, tests=2).evaluate(with_code("return torch.tanh(x - 1) + 1"), SHORT, 0)
    assert metrics["CartPole-v1/final_return"] >= 8


def test_rewards_cannot_be_claimed():
    """Who ends early, or answers with numbers of its own, gets nothing."""
    judge = Judge("CartPole-v1", 4, 100, 2, seed=0)
    source = "from asi_evolve.execution import ask\ndef learn():\n    ask('start')\n    return {'score': 1e9}\n"
    result = Sandbox.configured().run(source, "learn", {}, limits=Limits(wall_seconds=20), on_question=judge.answer)
    assert result.ok
    assert not judge.finished
    assert judge.curve == []


def test_a_language_model_edits_the_graph(tmp_path):
    """Its operations become candidates; a mistake among them goes back with the reason."""
    from asi_evolve.engine import Engine
    from asi_evolve.knowledge.store import Store

    says = {"statement": "smooth values help", "file": GRAPH_FILE, "metric": "score", "direction": "increase"}
    says["minimum_effect"] = "1%"
    good = [
        {"op": "add_node", "node": "tc", "primitive": "temporal_consistency"},
        {"op": "add_edge", "source": "values", "target": "tc"},
        {"op": "add_edge", "source": "tc", "target": "loss_output", "transform": "ScaleBy(0.01)"},
    ]
    bad = [{"op": "add_edge", "source": "loss_output", "target": "gae", "port": "rewards"}]
    analysis = {"text": "nothing", "phase": "analyze"}
    lines = [{"phase": "design", "text": {**says, "operations": x}} for x in (bad, good)]
    script = tmp_path / "script.jsonl"
    script.write_text("\n".join(map(json.dumps, [*lines, analysis])))
    config = {
        "seed": 0,  # with which the file to be edited is the graph
        "cycles": 1,
        "workers": 2,
        "benchmark": {"name": "rl", "options": {"full_steps": 600, "tests": 1}},
        "cascade": {"isolated": {"budget": 1.0, "time_limit": 60}, "full": {"seeds": 1}, "confirm_seeds": 0},
        "design": {"proposals": 1, "code_share": 1.0, "fill": False},
        "llm": {"provider": "recorded", "recording": str(script)},
    }
    Engine(config, tmp_path / "run").run()
    store = Store(tmp_path / "run" / "run.db", read_only=True)
    made = store.proposals()
    store.close()
    assert [p["status"] for p in made] == ["invalid", "admitted"]
    assert "cycle: " in made[0]["cause"]
    assert made[1]["kind"] == "code"


@pytest.mark.slow
@pytest.mark.parametrize(("package", "name"), [("mujoco", "Hopper-v5"), ("ale_py", "ALE/Pong-v5")])
def test_optional_environments(package, name):
    if importlib.util.find_spec(package) is None:
        with pytest.raises(ConfigError, match=r"rl-(mujoco|atari)") as raised:
            RLBenchmark(environments=[name]).prepare()
        assert "\n" not in str(raised.value)
        return
    benchmark = RLBenchmark(environments=[name], full_steps=2000, tests=1)
    benchmark.prepare()
    metrics = benchmark.evaluate(candidate(environments=4, normalize_observations=True), Stage("full", 1.0, 200), 0)
    assert np.isfinite(metrics["score"])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps", "goal"), [("CartPole-v1", 330_000, 475.0), ("Acrobot-v1", 200_000, -90.0)])
def test_ppo_as_a_graph_solves(name, steps, goal):
    benchmark = RLBenchmark(environments=[name], tests=50)
    solved, seconds = 0, []
    for seed in range(5):
        began = time.monotonic()
        run = benchmark.train(candidate(), name, steps, seed)
        seconds.append(time.monotonic() - began)
        solved += run.tests.mean() >= goal
    assert solved >= 4, (solved, seconds)
