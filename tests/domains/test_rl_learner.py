import numpy as np
import pytest
import torch

pytest.importorskip("gymnasium")

from asi_evolve.domains.algorithm import reference
from asi_evolve.domains.rl.domain import START
from asi_evolve.domains.rl.environments import Judge
from asi_evolve.domains.rl.learner import ActorCritic, Optimizer, RunningScale, _Learner, _policy
from asi_evolve.execution import exchange

pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
CARTPOLE = {"observation": 4, "actions": 2, "discrete": True}
PENDULUM = {"observation": 3, "actions": 1, "discrete": False}


@pytest.fixture
def learner():
    def make(environment, graph, steps, **params):
        graph = reference(graph)
        params = {**START, "environments": 4, **params}
        judge = Judge(environment, 4, steps, 2, seed=0)
        exchange.connect(judge.answer)
        torch.manual_seed(0)
        made = _Learner(graph, graph.compile(params), params, judge.facts, steps, 0)
        made.rows = exchange.ask("start").copy()
        return made, judge

    yield make
    exchange.connect(None)


@pytest.mark.parametrize("facts", [CARTPOLE, PENDULUM], ids=["categorical", "gaussian"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_acting_follows_the_policy(facts, activation):
    torch.manual_seed(1)
    agent = ActorCritic(facts, 16, activation)
    agent.weights.add_(0.3 * torch.randn_like(agent.weights))  # as an update does
    x = np.random.default_rng(0).standard_normal((1, facts["observation"])).astype(np.float32)
    described = agent.policy(torch.from_numpy(x))
    rng = np.random.default_rng(2)
    drawn = agent.act(np.repeat(x, 20_000, 0), rng)
    if facts["discrete"]:
        p = torch.softmax(described["logits"], -1)[0].detach().numpy()
        assert abs((drawn == 1).mean() - p[1]) <= 0.015
        assert agent.act(x, None)[0] == p.argmax()
    else:
        assert abs(drawn.mean() - float(described["mean"])) <= 0.04 * float(described["log_std"].exp())
        assert abs(drawn.std() / float(described["log_std"].exp()) - 1) <= 0.03
        assert abs(float(agent.act(x, None)[0, 0]) - float(described["mean"])) <= 1e-5


def test_the_recorded_policy_is_the_one_that_acted(learner):
    for environment, graph in (("CartPole-v1", "ppo-kl"), ("Pendulum-v1", "ppo-kl"), ("CartPole-v1", "grpo")):
        made, _ = learner(environment, graph, 512)
        batch, seen = made.rollout()
        flat = seen.reshape(-1, made.size)
        now = {k: v.view(*seen.shape[:2], -1) for k, v in made.agent.policy(flat).items()}
        assert torch.allclose(_policy(now).log_prob(batch["actions"]), batch["old_log_probs"], atol=1e-6)
        recorded = _policy({k: batch[f"old_{k}"] for k in now})
        assert float(recorded.kl(_policy(now)).abs().max().detach()) <= 1e-6
        assert torch.allclose(made.agent.values(flat).view(seen.shape[:2]), batch["old_values"], atol=1e-6)
        before = {k: batch[f"old_{k}"].clone() for k in now}
        made.agent.weights.add_(1.0)
        assert all(torch.equal(batch[f"old_{k}"], v) for k, v in before.items())
        if graph == "grpo":
            # Of each sequence, the steps up to the first end of an episode count.
            for n in range(4):
                ends = torch.nonzero(batch["dones"][:, n]).flatten()
                length = int(ends[0]) + 1 if len(ends) else len(batch["dones"])
                assert float(batch["mask"][:, n].sum()) == length
                assert float(batch["mask"][:length, n].min()) == 1.0


def test_time_limits_are_not_the_end(learner):
    made, judge = learner("Pendulum-v1", "ppo", 4 * 256, horizon=256)
    ends = []

    def answer(question):
        told = judge.answer(question)
        if isinstance(told, list):
            ends.append(told[1].copy())
        return told

    exchange.connect(answer)
    batch, _ = made.rollout()
    # Pendulum ends only by its limit of 200 steps: there the value of the last state goes on in the reward.
    assert torch.equal(torch.nonzero(batch["dones"].sum(1)).flatten(), torch.tensor([199]))
    (last,) = ends
    ahead = START["gamma"] * made.agent.values(torch.from_numpy(last)).detach()
    earned = torch.tensor([r for _, r in judge.curve], dtype=torch.float32)
    assert float((batch["rewards"][:200].sum(0) - earned - ahead).abs().max()) <= 1e-2
    assert float(ahead.abs().max()) > 0.1


@pytest.mark.parametrize("name", ["adam", "sgd", "rmsprop"])
def test_optimizers_equal_torch(name):
    g = torch.Generator().manual_seed(0)
    ours, theirs = (torch.randn(50, generator=g.manual_seed(1)) for _ in range(2))
    gradient = torch.zeros(50)
    graph = reference("ppo")
    graph.nodes["optimizer"] = type(graph.nodes["optimizer"])(name, {"learning_rate": 0.01, "max_grad_norm": 1.0})
    kind, settings = graph.compile().step
    optimizer = Optimizer(kind, settings, ours, gradient)
    theirs.requires_grad_()
    if name == "adam":
        peer = torch.optim.Adam([theirs], lr=0.01, eps=settings["epsilon"])
    elif name == "sgd":
        peer = torch.optim.SGD([theirs], lr=0.01, momentum=0.9)
    else:
        peer = torch.optim.RMSprop([theirs], lr=0.01, alpha=0.99, eps=settings["epsilon"])
    for scale in (1.0, 1.0, 0.5, 0.25):
        value = 3 * torch.randn(50, generator=g)
        gradient.copy_(value)
        optimizer.step(scale)
        theirs.grad = value.clone()
        torch.nn.utils.clip_grad_norm_([theirs], 1.0)
        # torch's momentum keeps gradients without their rate, so a changed rate acts alike.
        peer.param_groups[0]["lr"] = 0.01 * scale
        peer.step()
        assert float((ours - theirs).abs().max().detach()) <= 1e-6


def test_gradients_land_in_one_vector():
    torch.manual_seed(0)
    agent = ActorCritic(CARTPOLE, 8, "tanh")
    x = torch.randn(5, 4)
    (agent.policy(x)["logits"].square().sum() + agent.values(x).sum()).backward()
    again = torch.cat([p.grad.flatten() for p in agent.parameters])
    assert torch.equal(again, agent.gradient)
    assert float(agent.gradient.abs().sum()) > 0
    assert len(agent.weights) == sum(p.numel() for p in agent.parameters)


def test_running_scale():
    rng = np.random.default_rng(0)
    x = rng.normal(3.0, 2.0, (1000, 2))
    scale = RunningScale(2)
    for part in np.array_split(x, 7):
        scale.update(part)
    np.testing.assert_allclose(scale.mean, x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(scale.variance, x.var(0), rtol=1e-3)
    assert abs(scale(x).mean()) < 0.01
