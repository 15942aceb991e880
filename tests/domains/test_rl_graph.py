import inspect
import json
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent, Normal, kl_divergence

from asi_evolve.domains.algorithm import PRIMITIVES, RLAlgorithmGraph, ScaleBy, Transform, operations, reference
from asi_evolve.domains.algorithm.code_slot import TEMPLATE, declared
from asi_evolve.domains.algorithm.compile import minibatch
from asi_evolve.domains.algorithm.edits import MAX_OPERATIONS, apply_operations, operations_schema
from asi_evolve.domains.algorithm.graph_features import SIZE, graph_features
from asi_evolve.domains.algorithm.mutate import mutate_graph
from asi_evolve.domains.algorithm.probe import example_batch
from asi_evolve.domains.algorithm.reference import NAMES
from asi_evolve.domains.rl.learner import KINDS
from asi_evolve.errors import InvalidCandidate

GAMMA, LAM = 0.99, 0.95
pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")


def leaves(batch):
    return [batch[n] for n in ("logits", "mean", "log_std", "values") if n in batch]


def gradients(loss, batch):
    return torch.autograd.grad(loss, leaves(batch), allow_unused=True)


# -- hand-written losses: torch.distributions and loops over steps ----------------------------------------------------


def policy(batch, prefix=""):
    if f"{prefix}logits" in batch:
        return TorchCategorical(logits=batch[f"{prefix}logits"])
    return Independent(Normal(batch[f"{prefix}mean"], batch[f"{prefix}log_std"].exp()), 1)


def hand_returns(b):
    out = torch.zeros_like(b["rewards"])
    for n in range(out.shape[1]):
        after = b["bootstrap_values"][n]
        for t in reversed(range(out.shape[0])):
            after = b["rewards"][t, n] + GAMMA * (0.0 if b["dones"][t, n] else after)
            out[t, n] = after
    return out


def hand_gae(b, values="old_values"):
    v = b[values].detach()
    out = torch.zeros_like(b["rewards"])
    steps = out.shape[0]
    for n in range(out.shape[1]):
        for t in range(steps):
            weight = 1.0
            for k in range(t, steps):
                done = bool(b["dones"][k, n])
                after = 0.0 if done else (v[k + 1, n] if k + 1 < steps else b["bootstrap_values"][n])
                out[t, n] += weight * (b["rewards"][k, n] + GAMMA * after - v[k, n])
                if done:
                    break
                weight *= GAMMA * LAM
    return out


def hand_reinforce(b):
    returns = hand_returns(b)
    log_prob = policy(b).log_prob(b["actions"])
    return -(log_prob * (returns - b["old_values"])).mean() + 0.25 * ((b["values"] - returns) ** 2).mean()


def hand_a2c(b):
    a = hand_gae(b)
    value = 0.25 * ((b["values"] - a - b["old_values"]) ** 2).mean()
    return -(policy(b).log_prob(b["actions"]) * a).mean() + value - 0.01 * policy(b).entropy().mean()


def normal(a):
    return (a - a.mean()) / (a.std() + 1e-8)


def hand_ppo(b):
    a = hand_gae(b)
    target = a + b["old_values"]
    ratio = (policy(b).log_prob(b["actions"]) - b["old_log_probs"]).exp()
    surrogate = torch.min(ratio * normal(a), ratio.clamp(0.8, 1.2) * normal(a)).mean()
    clipped = b["old_values"] + (b["values"] - b["old_values"]).clamp(-0.2, 0.2)
    value = 0.5 * torch.max((b["values"] - target) ** 2, (clipped - target) ** 2).mean()
    return -surrogate + 0.5 * value - 0.01 * policy(b).entropy().mean()


def hand_ppo_kl(b):
    a = hand_gae(b)
    ratio = (policy(b).log_prob(b["actions"]) - b["old_log_probs"]).exp()
    kl = kl_divergence(policy(b, "old_"), policy(b)).mean()
    value = 0.25 * ((b["values"] - a - b["old_values"]) ** 2).mean()
    return -(ratio * normal(a)).mean() + kl + value - 0.01 * policy(b).entropy().mean()


def hand_group_advantages(b):
    returns = (b["rewards"] * b["mask"]).sum(0)
    out = torch.zeros_like(returns)
    for g in b["groups"].unique():
        members = b["groups"] == g
        out[members] = (returns[members] - returns[members].mean()) / (returns[members].std() + 1e-6)
    return out


def hand_grpo(b):
    a = hand_group_advantages(b)
    new = policy(b).log_prob(b["actions"])
    ratio = (new - b["old_log_probs"]).exp()
    total = 0.0
    for n in range(ratio.shape[1]):
        real = b["mask"][:, n] > 0
        r, x = ratio[real, n], (b["reference_log_probs"] - new)[real, n]
        term = torch.min(r * a[n], r.clamp(0.8, 1.2) * a[n]) - 0.04 * (x.exp() - x - 1)
        total = total - term.mean() / ratio.shape[1]
    return total


def hand_dapo(b):
    a = hand_group_advantages(b)
    ratio = (policy(b).log_prob(b["actions"]) - b["old_log_probs"]).exp()
    terms = -torch.min(ratio * a, ratio.clamp(0.8, 1.28) * a)
    return terms[b["mask"] > 0].mean()


HAND = {
    "reinforce": hand_reinforce,
    "a2c": hand_a2c,
    "ppo": hand_ppo,
    "ppo-kl": hand_ppo_kl,
    "grpo": hand_grpo,
    "dapo": hand_dapo,
}


def consistent(seed, gaussian):
    """A batch whose old log-probabilities are near to the current policy's, so that clips do and do not bite."""
    batch = example_batch(12, 6, seed=seed, gaussian=gaussian)
    with torch.no_grad():
        batch["old_log_probs"] = policy(batch, "old_").log_prob(batch["actions"])
        batch["reference_log_probs"] = policy(batch, "reference_").log_prob(batch["actions"])
    return batch


@pytest.mark.parametrize("gaussian", [False, True], ids=["categorical", "gaussian"])
@pytest.mark.parametrize("name", NAMES)
def test_references_equal_hand_written_losses(name, gaussian):
    graph = reference(name)
    graph.validate()
    for seed in range(3):
        batch = consistent(seed, gaussian)
        ours, theirs = graph.loss(batch), HAND[name](batch)
        assert ours.shape == ()
        assert abs(float(ours - theirs)) <= 1e-6 * max(1.0, abs(float(theirs)))
        for a, b in zip(gradients(ours, batch), gradients(theirs, batch), strict=True):
            assert (a is None) == (b is None)
            assert a is None or float((a - b).abs().max()) <= 1e-6 * max(1.0, float(b.abs().max()))


@pytest.mark.parametrize("name", NAMES)
def test_prepared_parts_give_the_same_loss(name):
    compiled = reference(name).compile()
    batch = consistent(0, False)
    kinds = {**KINDS, "logits": "distribution", "values": "[T, N]", **compiled.prepared}
    recorded = {k: v for k, v in batch.items() if k in kinds}
    whole = {**recorded, **compiled.prepare(batch)}
    steps, count = batch["rewards"].shape
    everything = torch.arange(count if compiled.columns else steps * count)
    loss = compiled.rest(minibatch(whole, kinds, everything, compiled.columns))
    expected = compiled.loss(batch)
    assert abs(float(loss - expected)) <= 1e-12
    for a, b in zip(gradients(loss, batch), gradients(expected, batch), strict=True):
        assert (a is None) == (b is None)
        assert a is None or float((a - b).abs().max()) <= 1e-12
    shuffled = everything.flip(0)
    assert abs(float(compiled.rest(minibatch(whole, kinds, shuffled, compiled.columns)) - expected)) <= 1e-12


def test_the_published_example():
    graph = reference("ppo")
    before = graph.copy()
    graph.add_node("temporal_consistency", "temporal_consistency")
    graph.add_edge("values", "temporal_consistency")
    graph.add_edge("temporal_consistency", "loss_output", transform="ScaleBy(0.01)")
    graph.validate()
    batch = consistent(1, False)
    v = batch["values"]
    expected = hand_ppo(batch) + 0.01 * ((v[1:] - v[:-1]) ** 2).mean()
    loss = graph.loss(batch)
    assert abs(float(loss - expected)) <= 1e-6
    for a, b in zip(gradients(loss, batch), gradients(expected, batch), strict=True):
        assert float((a - b).abs().max()) <= 1e-6
    assert before.diff(graph) == [
        "+ node temporal_consistency: temporal_consistency",
        "+ edge values -> temporal_consistency.values",
        "+ edge temporal_consistency -> ScaleBy(0.01) loss_output.x",
    ]
    assert before == reference("ppo")
    assert graph != before
    # Neighbours in time are compared, so minibatches have to keep them together.
    assert graph.compile().columns
    assert not before.compile().columns


class TestPrimitives:
    b = example_batch(9, 5, seed=3)

    def close(self, a, b):
        assert a.shape == b.shape
        assert float((a - b).abs().max()) <= 1e-10

    def ends(self):
        return self.b["rewards"], self.b["old_values"], self.b["bootstrap_values"], self.b["dones"]

    def test_every_primitive_has_its_function_and_its_papers(self):
        for name, p in PRIMITIVES.items():
            assert p.formula
            if p.kind in ("input", "step"):
                continue
            parameters = inspect.signature(getattr(operations, name)).parameters.values()
            if any(q.many for q in p.ports.values()):
                assert [q.kind for q in parameters] == [inspect.Parameter.VAR_POSITIONAL]
                continue
            assert [q.name for q in parameters if q.kind is q.POSITIONAL_OR_KEYWORD] == list(p.ports)
            assert [q.name for q in parameters if q.kind is q.KEYWORD_ONLY] == list(p.constants)
            for constant_name, c in p.constants.items():
                assert c.parameter.name == constant_name
                assert c.parameter.check(c.default) == c.default

    def test_n_step_returns(self):
        r, v, last, d = self.ends()
        for n in (1, 3, 50):
            ours = operations.n_step_returns(r, v, last, d, n=n, gamma=GAMMA)
            expected = torch.zeros_like(r)
            for i in range(r.shape[1]):
                for t in range(r.shape[0]):
                    end = min(t + n, r.shape[0])
                    weight, alive = 1.0, True
                    for k in range(t, end):
                        expected[t, i] += weight * r[k, i]
                        weight *= GAMMA
                        if d[k, i]:
                            alive = False
                            break
                    if alive:
                        expected[t, i] += weight * (last[i] if end == r.shape[0] else v[end, i])
            self.close(ours, expected)

    def test_v_trace(self):
        r, v, last, d = self.ends()
        new, old = self.b["log_probs"].detach(), self.b["old_log_probs"]
        weight = (new - old).exp()
        rho, c = weight.clamp(max=1.1), weight.clamp(max=0.9)
        steps = r.shape[0]
        expected = torch.zeros_like(r)
        for i in range(r.shape[1]):
            for s in range(steps):
                expected[s, i] = v[s, i]
                factor = 1.0
                for t in range(s, steps):
                    alive = 1 - d[t, i]
                    after = last[i] if t + 1 == steps else v[t + 1, i]
                    expected[s, i] += factor * rho[t, i] * (r[t, i] + GAMMA * alive * after - v[t, i])
                    factor *= GAMMA * alive * c[t, i]
        arguments = (new, old, r, v, last, d)
        constants = {"gamma": GAMMA, "rho_clip": 1.1, "c_clip": 0.9}
        self.close(operations.v_trace_returns(*arguments, **constants), expected)
        after = torch.cat([expected[1:], last[None]])
        advantages = rho * (r + GAMMA * (1 - d) * after - v)
        self.close(operations.v_trace_advantages(*arguments, **constants), advantages)

    def test_v_trace_on_policy_is_gae_with_lambda_one(self):
        r, v, last, d = self.ends()
        same = self.b["old_log_probs"]
        ours = operations.v_trace_returns(same, same, r, v, last, d, gamma=GAMMA, rho_clip=1.0, c_clip=1.0)
        self.close(ours, v + operations.gae(r, v, last, d, gamma=GAMMA, lam=1.0))

    def test_shaping_does_not_change_advantages_against_the_shifted_values(self):
        r, v, last, d = self.ends()
        potential = 3 * v + 1
        shaped = operations.potential_shaping(r, potential, 3 * last + 1, d, gamma=GAMMA)
        plain = operations.gae(r, v, last, d, gamma=GAMMA, lam=LAM)
        self.close(operations.gae(shaped, v - potential, -2 * last - 1, d, gamma=GAMMA, lam=LAM), plain)

    def test_distributions(self):
        for gaussian in (False, True):
            b = example_batch(gaussian=gaussian)
            ours, old = operations.distribution(b, ""), operations.distribution(b, "old_")
            self.close(ours.log_prob(b["actions"]), policy(b).log_prob(b["actions"]))
            self.close(ours.entropy(), policy(b).entropy())
            self.close(old.kl(ours), kl_divergence(policy(b, "old_"), policy(b)))

    def test_kl_estimate_is_unbiased(self):
        g = torch.Generator().manual_seed(0)
        logits, other = torch.randn(2, 4, generator=g, dtype=torch.float64)
        p, q = TorchCategorical(logits=logits), TorchCategorical(logits=other)
        actions = torch.arange(4)
        estimate = operations.kl_estimate(p.log_prob(actions), q.log_prob(actions))
        assert abs(float((p.probs * estimate).sum() - kl_divergence(p, q))) <= 1e-12

    def test_losses(self):
        x, y = self.b["old_values"], self.b["rewards"]
        self.close(operations.huber(x, y, delta=0.7), torch.nn.functional.huber_loss(x, y, reduction="none", delta=0.7))
        ratio, a = torch.tensor([0.5, 5.0, 5.0]), torch.tensor([-1.0, -1.0, 1.0])
        dual = operations.dual_clipped_surrogate(ratio, a, low=0.2, high=0.2, limit=3.0)
        self.close(dual, torch.tensor([0.8, 3.0, -1.2]))

    def test_masks(self):
        x, m = self.b["rewards"], self.b["mask"]
        real = x[m > 0]
        self.close(operations.mean(x, m), real.mean())
        self.close(operations.normalize(x, m)[m > 0], normal(real))
        self.close(operations.center(x, m)[m > 0], real - real.mean())
        one = torch.ones_like(m)
        self.close(operations.normalize(x, one), operations.normalize(x, None))
        self.close(operations.sequence_mean(x, one), operations.sequence_mean(x, None))
        none = torch.zeros_like(m)
        assert float(operations.mean(x, none)) == 0.0

    def test_group_of_one_is_neutral(self):
        out = operations.group_relative(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([2, 0, 0]), divide=True)
        assert float(out[0]) == 0.0
        assert float(out[1]) < 0 < float(out[2])

    def test_schedules(self):
        half = torch.tensor(0.5)
        assert float(operations.linear_schedule(half, start=1.0, end=0.2)) == pytest.approx(0.6)
        assert float(operations.cosine_schedule(half, start=1.0, end=0.2)) == pytest.approx(0.6)


class TestForms:
    @pytest.mark.parametrize("name", NAMES)
    def test_json_round_trip_and_copy(self, name):
        graph = reference(name)
        again = RLAlgorithmGraph.from_json(graph.to_json())
        assert again == graph
        assert again.to_json() == graph.to_json()
        copy = graph.copy()
        copy.remove_node(next(iter(copy.nodes)))
        assert len(copy.nodes) == len(graph.nodes) - 1
        assert graph.diff(again) == []

    def test_hash_ignores_names_and_order_and_shared_work(self):
        content = json.loads(reference("ppo").to_json())
        content["nodes"].reverse()
        content["edges"].reverse()
        assert RLAlgorithmGraph.from_json(json.dumps(content)).hash == reference("ppo").hash
        renamed = json.loads(
            reference("ppo").to_json().replace('"gae"', '"x7"').replace('"primitive": "x7"', '"primitive": "gae"')
        )
        other = RLAlgorithmGraph.from_json(json.dumps(renamed))
        assert "x7" in other.nodes
        assert other.hash == reference("ppo").hash
        assert not reference("ppo").diff(other)
        twice = reference("a2c")
        twice.add_node("entropy_again", "entropy")
        twice.add_edge("policy", "entropy_again")
        edge = next(e for e in twice.edges if e.target == "entropy_mean")
        twice.remove_edge(edge)
        twice.add_edge("entropy_again", "entropy_mean", "x")
        twice.prune()
        assert twice == reference("a2c")

    def test_hash_sees_everything_else(self):
        seen = {reference(n).hash for n in NAMES}
        for change in (
            lambda g: g.set_params("gae", gamma=0.9),
            lambda g: g.set_params("optimizer", beta1=0.8),
            lambda g: g.add_edge("entropy_mean", "loss_output", "x", ScaleBy(0.1)),
            lambda g: g.add_edge("entropy_mean", "loss_output", "x", ScaleBy(0.2)),
            lambda g: g.add_edge("entropy_mean", "loss_output", "x"),
        ):
            graph = reference("ppo")
            change(graph)
            seen.add(graph.hash)
        assert len(seen) == len(NAMES) + 5

    def test_drawing_is_svg_with_every_node(self):
        graph = reference("ppo")
        graph.add_node("a_rather_long_name_of_a_node_for_a_drawing", "temporal_consistency")
        graph.add_edge("values", "a_rather_long_name_of_a_node_for_a_drawing")
        graph.add_edge("a_rather_long_name_of_a_node_for_a_drawing", "loss_output")
        root = ET.fromstring(graph.svg())
        space = "{http://www.w3.org/2000/svg}"
        boxes = root.findall(f"{space}g/{space}rect")
        assert len(boxes) == len(graph.nodes)
        places = {(b.get("x"), b.get("y")) for b in boxes}
        assert len(places) == len(boxes)
        assert len(root.findall(f"{space}path")) == len(graph.edges)
        assert "ScaleBy(-0.01)" in graph.svg()
        width, height = (float(x) for x in root.get("viewBox").split()[2:])
        assert all(0 <= float(b.get("x")) < width and 0 <= float(b.get("y")) < height for b in boxes)

    def test_transforms(self):
        for text in ("ScaleBy(0.01)", "ShiftBy(-2)", "ClipTo(-1, 1)", "Detach()", "ScaleBy(0.123456789)"):
            assert str(Transform.parse(text)) == text
        assert Transform.parse(" Detach ") == Transform("Detach")
        bad = (
            "Scale(1)",
            "ScaleBy()",
            "ScaleBy(x)",
            "ScaleBy(nan)",
            "ScaleBy(1e9)",
            "ClipTo(1, 0)",
            "__import__('os')",
        )
        for text in bad:
            with pytest.raises(InvalidCandidate, match="transform"):
                Transform.parse(text)

    def test_shared_constants(self):
        graph = reference("ppo")
        assert "gamma=0.5" in graph.compile({"gamma": 0.5}).source
        graph.set_params("gae", gamma=0.7)
        assert "gamma=0.7" in graph.compile({"gamma": 0.5}).source
        assert graph.compile({"learning_rate": 0.1}).step[1]["learning_rate"] == 0.1
        assert reference("ppo").compile().step_scale({"progress": torch.tensor(0.25)}) == 0.75

    def test_loss_after_a_change_is_the_new_one(self):
        graph, batch = reference("a2c"), example_batch()
        before = float(graph.loss(batch))
        graph.set_params("gae", gamma=0.5)
        assert float(graph.loss(batch)) != before

    def test_missing_tensor_is_named(self):
        with pytest.raises(KeyError, match="old_log_probs"):
            reference("ppo").loss({k: v for k, v in example_batch().items() if k != "old_log_probs"})

    def test_import_without_torch(self):
        code = "import sys, asi_evolve.domains.algorithm as a; g = a.reference('ppo'); g.validate(run=False); g.svg()"
        subprocess.run([sys.executable, "-c", f"{code}; assert 'torch' not in sys.modules"], check=True)


def without(graph, source, target):
    for edge in [e for e in graph.edges if (e.source, e.target) == (source, target)]:
        graph.remove_edge(edge)


def bypass_policy(graph):
    without(graph, "policy_mean", "loss_output")
    without(graph, "entropy_mean", "loss_output")
    graph.prune()


def blocked(graph):
    for name in ("policy_mean", "entropy_mean"):
        without(graph, name, "loss_output")
        graph.add_edge(name, "loss_output", transform="Detach()")


def add(graph, *nodes):
    for id, primitive in nodes:
        graph.add_node(id, primitive)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda g: add(g, ("x", "no_such")), "node 'x': unknown primitive 'no_such'"),
        (lambda g: g.set_params("gae", nonsense=1), "node 'gae'.*no constant 'nonsense'"),
        (lambda g: g.set_params("gae", gamma=2.0), "node 'gae'.*gamma.*outside"),
        (lambda g: g.add_edge("loss_output", "ratio", "log_probs"), "cycle: .*loss_output -> ratio.log_probs"),
        (lambda g: g.remove_node("loss_output"), "loss_output: missing"),
        (lambda g: g.remove_node("old_log_probs"), "node 'ratio': dangling input.*'old_log_probs'"),
        (lambda g: g.remove_node("bootstrap_values"), "node 'gae': dangling input.*'bootstrap'"),
        (
            lambda g: g.add_edge("gae", "loss_output"),
            "edge gae -> loss_output.x: gae gives .T, N., the port takes scalar",
        ),
        (lambda g: g.add_edge("policy", "gae", "rewards"), "edge policy -> gae.rewards"),
        (lambda g: g.add_edge("entropy", "mean_2" if "mean_2" in g.nodes else "ratio", "nowhere"), "no port 'nowhere'"),
        (lambda g: g.add_edge("values", "gae", "values"), "edge values -> gae.values: the port is taken by"),
        (lambda g: add(g, ("unused", "count_bonus")), "node 'unused': dangling input"),
        (lambda g: add(g, ("visit_counts", "visit_counts")), "node 'visit_counts': its value is not used"),
        (lambda g: add(g, ("second", "loss_output")), "node 'second': a second loss node"),
        (bypass_policy, "no gradient path to the policy"),
        (blocked, "no gradient path to the policy"),
        (lambda g: g.add_edge("policy", "entropy", "policy", "ScaleBy(2)"), "taken|transformed"),
    ],
)
def test_what_is_wrong_is_named(change, words):
    graph = reference("ppo")
    change(graph)
    with pytest.raises(InvalidCandidate, match=words) as raised:
        graph.validate(run=False)
    assert "\n" not in str(raised.value)


def test_a_gradient_of_zero_is_found_by_running():
    graph = reference("reinforce")
    for edge in [e for e in graph.edges if e.source == "policy_mean"]:
        graph.remove_edge(edge)
        graph.add_edge(edge.source, edge.target, edge.port, "ScaleBy(0)")
    graph.validate(run=False)
    with pytest.raises(InvalidCandidate, match="its gradient is 0"):
        graph.validate()
    graph = reference("a2c")
    add(graph, ("boom", "exponential"), ("bigger", "exponential"), ("boom_mean", "mean"))
    graph.add_edge("values", "boom", "x", "ScaleBy(1000000)")
    graph.add_edge("boom", "bigger", "x")
    graph.add_edge("bigger", "boom_mean", "x", ["ScaleBy(1000000)"] * 60)
    graph.add_edge("boom_mean", "loss_output")
    with pytest.raises(InvalidCandidate, match="on an ordinary batch"):
        graph.validate()


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"nodes": {}, "edges": []}',
        '{"nodes": [{"id": "a b", "primitive": "values"}], "edges": []}',
        '{"nodes": [{"id": "a"}], "edges": []}',
        '{"nodes": [{"id": "a", "primitive": "values"}], "edges": [{"source": "a", "target": "b"}]}',
        '{"nodes": [{"id": "a", "primitive": "values"}, {"id": "a", "primitive": "values"}], "edges": []}',
        '{"version": 9, "nodes": [], "edges": []}',
        "[" * 100_000,
    ],
)
def test_malformed_json_is_refused(text):
    with pytest.raises(InvalidCandidate):
        RLAlgorithmGraph.from_json(text)


def test_constants_of_another_kind_are_refused():
    for value in ('"1"', "true", "1" + "0" * 400, "[1]", "{}", "1e999", "null"):
        text = f'{{"nodes": [{{"id": "g", "primitive": "gae", "params": {{"gamma": {value}}}}}], "edges": []}}'
        with pytest.raises(InvalidCandidate, match="gamma"):
            RLAlgorithmGraph.from_json(text).validate()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(NAMES))
def test_mutations_are_valid_and_different(seed, name):
    rng = np.random.default_rng(seed)
    graph = reference(name)
    for _ in range(3):
        child = mutate_graph(graph, rng)
        child.validate()
        assert child.hash != graph.hash
        assert graph.diff(child)
        assert RLAlgorithmGraph.from_json(child.to_json()) == child
        assert graph_features(child).shape == (SIZE,)
        assert np.abs(graph_features(child)).max() <= 5
        graph = child


def test_mutations_repeat_for_a_seed_and_reach_far():
    seen, lines = set(), ""
    for seed in range(30):
        child = mutate_graph(reference("ppo"), np.random.default_rng(seed))
        if seed < 5:
            assert child.to_json() == mutate_graph(reference("ppo"), np.random.default_rng(seed)).to_json()
        seen.add(child.hash)
        lines += "\n".join(reference("ppo").diff(child)) + "\n"
    assert len(seen) >= 27
    for kind in ("+ node", "- node", "~ node", "+ edge", "- edge", "~ edge"):
        assert kind in lines


class TestEdits:
    def test_the_published_example_as_operations(self):
        operations = [
            {"op": "add_node", "node": "tc", "primitive": "temporal_consistency"},
            {"op": "add_edge", "source": "values", "target": "tc"},
            {"op": "add_edge", "source": "tc", "target": "loss_output", "transform": "ScaleBy(0.01)"},
            {"op": "set_param", "node": "gae", "param": "lam", "value": 0.9},
            {"op": "replace", "node": "value_loss", "primitive": "huber"},
        ]
        base = reference("ppo")
        edited = apply_operations(base, operations)
        edited.validate()
        assert base == reference("ppo")
        assert edited.nodes["value_loss"].primitive == "huber"
        assert {(e.source, e.port) for e in edited.inputs_of("value_loss")} == {
            ("values", "prediction"),
            ("returns", "target"),
        }
        assert edited.nodes["gae"].params == {"lam": 0.9}

    def test_removal_takes_what_is_left_over_along(self):
        edited = apply_operations(
            reference("ppo"), [{"op": "remove_edge", "source": "entropy_mean", "target": "loss_output"}]
        )
        assert "entropy" not in edited.nodes
        edited.validate()

    @pytest.mark.parametrize(
        ("operations", "words"),
        [
            ([], "at least one"),
            ("text", "at least one"),
            ([{"op": "explode"}], "operation 1: 'op'"),
            ([{"op": "add_node", "node": "x"}], "needs 'primitive'"),
            ([{"op": "remove_node", "node": "x"}], "'x'"),
            ([{"op": "add_edge", "source": "values", "target": "x"}], "no node 'x'"),
            ([{"op": "remove_edge", "source": "values", "target": "gae"}], "no edge"),
            ([{"op": "set_param", "node": "gae", "param": 3, "value": 1}], "'param' has to be text"),
            ([{"op": "remove_node", "node": "values"}] * (MAX_OPERATIONS + 1), "at most"),
            ([7], "operation 1"),
        ],
    )
    def test_bad_operations(self, operations, words):
        with pytest.raises(InvalidCandidate, match=words):
            apply_operations(reference("ppo"), operations)

    def test_schema_uses_simple_keywords(self):
        allowed = {"type", "enum", "required", "minimum", "maximum", "maxLength", "items", "maxItems", "properties"}

        def walk(schema):
            assert set(schema) <= allowed
            for value in schema.get("properties", {}).values():
                walk(value)
            if "items" in schema:
                walk(schema["items"])

        walk(operations_schema())


class TestCodeSlot:
    code = (
        'import torch\nPORTS = {"values": "[T, N]", "rewards": "[T, N]"}\nOUTPUT = "[T, N]"\n\n\n'
        "def custom(values, rewards):\n    return torch.tanh(values - rewards)\n"
    )

    def graph(self, code):
        graph = RLAlgorithmGraph({"custom": declared(code)}, code)
        base = reference("a2c")
        graph.nodes, graph.edges = dict(base.nodes), list(base.edges)
        graph.add_node("mine", "custom")
        graph.add_edge("values", "mine", "values")
        graph.add_edge("rewards", "mine", "rewards")
        graph.add_node("mine_mean", "mean")
        graph.add_edge("mine", "mine_mean")
        graph.add_edge("mine_mean", "loss_output")
        return graph

    def test_used_in_a_loss(self):
        graph, batch = self.graph(self.code), example_batch()
        graph.validate()
        expected = hand_a2c(batch) + torch.tanh(batch["values"] - batch["rewards"]).mean()
        assert abs(float(graph.loss(batch) - expected)) <= 1e-9

    def test_validation_does_not_run_it(self):
        graph = self.graph(self.code + "\nraise RuntimeError('ran')\n")
        graph.validate()
        with pytest.raises(RuntimeError, match="ran"):
            graph.compile()

    @pytest.mark.parametrize(
        ("code", "words"),
        [
            ("x = 1", "does not define PORTS"),
            (TEMPLATE.replace("[T, N]", "[T]"), "not one of"),
            (TEMPLATE.replace("(x)", "(y)"), "does not take x"),
            (TEMPLATE.replace('{"x": "[T, N]"}', "dict(x=1)"), "literally"),
            ("import os\n" + TEMPLATE, "import of 'os'"),
            (TEMPLATE + "(", "line"),
        ],
    )
    def test_bad_declarations(self, code, words):
        with pytest.raises(InvalidCandidate, match=words):
            declared(code)
