"""What runs inside the sandbox: an actor-critic learner that minimises a graph's loss on the data of its own actions.

The environments are the judge's: actions go out, observations and rewards come back. Needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asi_evolve.domains.algorithm import RLAlgorithmGraph
from asi_evolve.domains.algorithm.code_slot import declared
from asi_evolve.domains.algorithm.compile import CompiledLoss, minibatch
from asi_evolve.domains.algorithm.operations import Categorical, Gaussian, Policy
from asi_evolve.domains.algorithm.primitives import ACTIONS, POLICY, SCALAR, TN, N
from asi_evolve.domains.algorithm.probe import check_gradient
from asi_evolve.errors import InvalidCandidate
from asi_evolve.execution import ask, progress

_HASH_BITS = 14


def learn(
    *,
    graph: str,
    code: str,
    params: Mapping[str, Any],
    facts: Mapping[str, Any],
    steps: int,
    seed: int,
    threads: int,
) -> dict[str, Any]:
    """Trains on ``steps`` steps of the environment and plays the test episodes.

    Args:
        graph: JSON of the algorithm. code: of its additional primitive, or empty.
        params: see :class:`asi_evolve.domains.rl.RLGraphDomain`.
        facts: see :func:`asi_evolve.domains.rl.environments.describe`.
        steps: over all environments.
        seed: of weights and actions.
        threads: of torch.

    Returns:
        ``{}``, or ``invalid`` / ``non_finite``: why training was given up.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    try:
        algorithm = RLAlgorithmGraph.from_json(graph, {"custom": declared(code)} if code else None, code)
        check_gradient(algorithm, params)
        compiled = algorithm.compile(params)
    except InvalidCandidate as error:
        return {"invalid": str(error)}
    try:
        _Learner(algorithm, compiled, params, facts, steps, seed).run()
    except FloatingPointError as error:
        return {"non_finite": str(error)}
    return {}


class ActorCritic:
    """Two perceptrons of two hidden layers, all weights in one vector, so that an optimiser step is a few operations.

    Args:
        facts: of the environment. hidden: width. activation: ``tanh`` or ``relu``.
    """

    def __init__(self, facts: Mapping[str, Any], hidden: int, activation: str) -> None:
        self.discrete = bool(facts["discrete"])
        inputs, outputs = int(facts["observation"]), int(facts["actions"])
        layers = [(inputs, hidden, math.sqrt(2)), (hidden, hidden, math.sqrt(2))]
        shapes = []
        for last, gain in ((outputs, 0.01), (1, 1.0)):
            shapes += [*layers, (hidden, last, gain)]
        sizes = [(i + 1) * o for i, o, _ in shapes] + ([] if self.discrete else [outputs])
        self.weights = torch.zeros(sum(sizes))
        self.gradient = torch.zeros_like(self.weights)
        self.parameters: list[Tensor] = []
        self._activation = torch.tanh if activation == "tanh" else torch.relu
        self._numpy_activation = np.tanh if activation == "tanh" else (lambda x: np.maximum(x, 0))
        at = 0
        for i, o, gain in shapes:
            weight = self._view(at, (o, i))
            torch.nn.init.orthogonal_(weight, gain)
            self._view(at + i * o, (o,))
            at += (i + 1) * o
        if not self.discrete:
            self._view(at, (outputs,))
        # The same memory: the acting side sees every update.
        self._arrays = [p.detach().numpy() for p in self.parameters]

    def _view(self, at: int, shape: tuple[int, ...]) -> Tensor:
        end = at + math.prod(shape)
        parameter = self.weights[at:end].view(shape).detach().requires_grad_()
        parameter.grad = self.gradient[at:end].view(shape)
        self.parameters.append(parameter)
        return parameter

    def _forward(self, x: Tensor, first: int) -> Tensor:
        p = self.parameters[first : first + 6]
        f = self._activation
        return torch.addmm(p[5], f(torch.addmm(p[3], f(torch.addmm(p[1], x, p[0].T)), p[2].T)), p[4].T)

    def policy(self, x: Tensor) -> dict[str, Tensor]:
        """Batch entries of the policy at observations [M, D]: logits [M, A], or mean and log_std [M, A]."""
        out = self._forward(x, 0)
        return {"logits": out} if self.discrete else {"mean": out, "log_std": self.parameters[12].expand_as(out)}

    def values(self, x: Tensor) -> Tensor:
        """Values [M] of observations [M, D]."""
        return self._forward(x, 6).squeeze(-1)

    def act(self, x: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        """Actions for observations [N, D], drawn, or the likeliest ones without ``rng``. In numpy: for so little data
        a torch call costs more than the arithmetic."""
        w0, b0, w1, b1, w2, b2 = self._arrays[:6]
        f = self._numpy_activation
        out: np.ndarray = f(f(x @ w0.T + b0) @ w1.T + b1) @ w2.T + b2
        if self.discrete:
            if rng is not None:
                out = out - np.log(-np.log(rng.random(out.shape, dtype=np.float32) + 1e-20) + 1e-20)  # Gumbel-max
            choice: np.ndarray = out.argmax(-1)
            return choice
        if rng is None:
            return out
        drawn: np.ndarray = out + np.exp(self._arrays[12]) * rng.standard_normal(out.shape, dtype=np.float32)
        return drawn


class Optimizer:
    """The step that a graph describes, on one vector of weights.

    Args:
        name: ``adam``, ``sgd`` or ``rmsprop``. settings: constants of the primitive.
        weights, gradient: vectors of one length.
    """

    def __init__(self, name: str, settings: Mapping[str, Any], weights: Tensor, gradient: Tensor) -> None:
        self.name, self.settings, self.weights, self.gradient = name, settings, weights, gradient
        self.first, self.second = torch.zeros_like(weights), torch.zeros_like(weights)
        self.steps = 0

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """One update with ``scale`` times the learning rate."""
        s, g = self.settings, self.gradient
        rate = float(s["learning_rate"]) * scale
        self.steps += 1
        if s["max_grad_norm"]:
            norm = float(g.norm())
            if norm > s["max_grad_norm"]:
                g.mul_(s["max_grad_norm"] / (norm + 1e-6))
        if self.name == "sgd":
            self.first.mul_(s["momentum"]).add_(g)
            self.weights.add_(self.first, alpha=-rate)
        elif self.name == "rmsprop":
            self.second.mul_(s["decay"]).addcmul_(g, g, value=1 - s["decay"])
            self.weights.addcdiv_(g, self.second.sqrt().add_(s["epsilon"]), value=-rate)
        else:
            self.first.lerp_(g, 1 - s["beta1"])
            self.second.mul_(s["beta2"]).addcmul_(g, g, value=1 - s["beta2"])
            deviation = (self.second / (1 - s["beta2"] ** self.steps)).sqrt_().add_(s["epsilon"])
            self.weights.addcdiv_(self.first, deviation, value=-rate / (1 - s["beta1"] ** self.steps))


class RunningScale:
    """Mean and variance of all that was seen (Chan et al. 1979), to normalise by."""

    def __init__(self, size: int) -> None:
        self.mean, self.variance, self.count = np.zeros(size), np.ones(size), 1e-4

    def update(self, x: np.ndarray) -> None:
        """Takes rows [M, size] into account."""
        count = len(x)
        total = self.count + count
        delta = x.mean(0) - self.mean
        spread = self.variance * self.count + x.var(0) * count + delta**2 * self.count * count / total
        self.mean, self.variance, self.count = self.mean + delta * count / total, spread / total, total

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Normalised and bounded to 10 deviations, float32."""
        scaled: np.ndarray = np.clip((x - self.mean) / np.sqrt(self.variance + 1e-8), -10, 10).astype(np.float32)
        return scaled


class _Learner:
    def __init__(
        self,
        graph: RLAlgorithmGraph,
        compiled: CompiledLoss,
        params: Mapping[str, Any],
        facts: Mapping[str, Any],
        steps: int,
        seed: int,
    ) -> None:
        self.compiled, self.params, self.steps = compiled, params, steps
        self.names = set(graph.batch_names())
        self.count, self.horizon = int(params["environments"]), int(params["horizon"])
        self.agent = ActorCritic(facts, int(params["hidden"]), str(params["activation"]))
        self.optimizer = Optimizer(*compiled.step, self.agent.weights, self.agent.gradient)
        self.rng = np.random.default_rng([seed, 1])
        self.size = int(facts["observation"])
        self.scale = RunningScale(self.size) if params["normalize_observations"] else None
        self.reward_scale = RunningScale(1) if params["normalize_rewards"] else None
        self.running_return = np.zeros(self.count)
        self.gamma = float(params["gamma"])
        self.reference: ActorCritic | None = None
        if self.names & {"reference_policy", "reference_log_probs"}:
            self.reference = ActorCritic(facts, int(params["hidden"]), str(params["activation"]))
            self.reference.weights.copy_(self.agent.weights)
        self.hash = np.random.default_rng(0).standard_normal((self.size, _HASH_BITS))
        self.visits = np.zeros(1 << _HASH_BITS)
        self.taken = 0

    def run(self) -> None:
        self.rows = np.asarray(ask("start"))
        while self.taken < self.steps:
            batch, observations = self.rollout()
            self.update(batch, observations)
            progress(self.taken / self.steps, f"{self.taken} of {self.steps} steps")
        self.test()

    def seen(self, rows: np.ndarray, learn: bool = False) -> np.ndarray:
        """Observations of the judge's rows as the networks see them."""
        raw = rows[:, : self.size]
        if self.scale is None:
            return raw
        if learn:
            self.scale.update(raw)
        return self.scale(raw)

    # -- collecting ---------------------------------------------------------------------------------------------------

    def rollout(self) -> tuple[dict[str, Tensor], Tensor]:
        """A batch without what depends on the current weights, and observations [T, N, D]."""
        left = -(-(self.steps - self.taken) // self.count)
        horizon = min(self.horizon, left)
        observations = np.zeros((horizon + 1, self.count, self.size), np.float32)
        outcome = np.zeros((horizon, self.count, 3), np.float32)
        actions = []
        cut: list[tuple[int, int, np.ndarray]] = []  # (t, n, last observation) of episodes that ran out of time
        for t in range(horizon):
            observations[t] = self.seen(self.rows, learn=True)
            actions.append(self.agent.act(observations[t], self.rng))
            answer = ask(actions[-1])
            self.rows, last = answer if isinstance(answer, list) else (answer, None)
            outcome[t] = self.rows[:, -3:]
            if last is not None:
                ended = np.flatnonzero(outcome[t, :, 1] + outcome[t, :, 2] > 0)
                for i, n in enumerate(ended):
                    if not outcome[t, n, 1]:
                        cut.append((t, int(n), self.seen(last[i : i + 1])[0]))
        observations[horizon] = self.seen(self.rows)
        self.taken += horizon * self.count
        return self.assemble(observations, np.stack(actions), outcome, cut)

    @torch.no_grad()
    def assemble(
        self, observations: np.ndarray, actions: np.ndarray, outcome: np.ndarray, cut: list[tuple[int, int, np.ndarray]]
    ) -> tuple[dict[str, Tensor], Tensor]:
        horizon = len(actions)
        shape = (horizon, self.count)
        seen = torch.from_numpy(observations)
        flat = seen[:-1].reshape(-1, self.size)
        rewards = outcome[..., 0].copy()
        dones = np.minimum(outcome[..., 1] + outcome[..., 2], 1)
        if self.reward_scale is not None:
            rewards = self.scaled_rewards(rewards, dones)
        values = self.agent.values(seen.reshape(-1, self.size)).reshape(horizon + 1, self.count)
        if cut:
            # An episode that only ran out of time goes on in the value of its last state (Pardo et al. 2018).
            ahead = self.agent.values(torch.from_numpy(np.stack([x for _, _, x in cut]))).numpy()
            for (t, n, _), value in zip(cut, ahead, strict=True):
                rewards[t, n] += self.gamma * value
        taken = torch.from_numpy(actions)
        batch = {
            "actions": taken,
            "rewards": torch.from_numpy(rewards),
            "dones": torch.from_numpy(dones),
            "mask": torch.from_numpy(self.real_steps(dones)),
            "old_values": values[:-1],
            "bootstrap_values": values[-1],
            "groups": torch.zeros(self.count, dtype=torch.int64),
            "progress": torch.tensor((self.taken - horizon * self.count) / self.steps),
        }
        agents = {"old_": self.agent} | ({"reference_": self.reference} if self.reference else {})
        for prefix, agent in agents.items():
            # Copies: a log_std that is the weights themselves would follow the updates.
            described = {k: v.reshape(*shape, -1).clone() for k, v in agent.policy(flat).items()}
            batch[f"{prefix}log_probs"] = _policy(described).log_prob(taken)
            batch |= {f"{prefix}{k}": v for k, v in described.items()}
        if "visit_counts" in self.names:
            batch["visit_counts"] = self.count_visits(observations[:-1])
        return batch, seen[:-1]

    def real_steps(self, dones: np.ndarray) -> np.ndarray:
        """1 for the steps that count: all, or, for a graph that compares sequences, those of the sequence's first
        episode, because a sum of rewards over parts of several says nothing."""
        if "groups" not in self.names:
            return np.ones_like(dones)
        ended = np.cumsum(dones, axis=0) - dones
        first: np.ndarray = (ended == 0).astype(np.float32)
        return first

    def scaled_rewards(self, rewards: np.ndarray, dones: np.ndarray) -> np.ndarray:
        """Rewards over the deviation of the discounted return, bounded (Engstrom et al. 2020)."""
        assert self.reward_scale is not None
        returns = []
        for r, d in zip(rewards, dones, strict=True):
            self.running_return = self.running_return * self.gamma + r
            returns.append(self.running_return.copy())
            self.running_return *= 1 - d
        self.reward_scale.update(np.concatenate(returns)[:, None])
        scaled: np.ndarray = np.clip(rewards / np.sqrt(self.reward_scale.variance[0] + 1e-8), -10, 10)
        return scaled.astype(np.float32)

    def count_visits(self, observations: np.ndarray) -> Tensor:
        """Visits of hash codes (Tang et al. 2017, SimHash) up to the end of this rollout, float [T, N]."""
        codes = (observations @ self.hash > 0) @ (1 << np.arange(_HASH_BITS))
        np.add.at(self.visits, codes.ravel(), 1)
        return torch.from_numpy(self.visits[codes].astype(np.float32))

    # -- learning -----------------------------------------------------------------------------------------------------

    def update(self, batch: dict[str, Tensor], observations: Tensor) -> None:
        compiled = self.compiled
        prepared = compiled.prepare(batch)
        scale = compiled.step_scale(batch)
        kinds = {**KINDS, **compiled.prepared}
        named = {**{k: batch[k] for k in self.wanted(batch)}, **prepared}
        steps, count = observations.shape[:2]
        total = count if compiled.columns else steps * count
        parts = min(int(self.params["minibatches"]), total)
        kinds["observations"] = TN
        named["observations"] = observations
        for _ in range(int(self.params["epochs"])):
            order = torch.from_numpy(self.rng.permutation(total))
            for index in order.chunk(parts):
                self.minimize(minibatch(named, kinds, index, compiled.columns), scale)

    def wanted(self, batch: Mapping[str, Tensor]) -> list[str]:
        """Names of the recorded tensors that the minibatch part of the graph reads."""
        found = []
        for name in self.compiled.inputs:
            prefix = {"old_policy": "old_", "reference_policy": "reference_"}.get(name)
            if prefix is not None:
                found += [f"{prefix}{k}" for k in ("logits", "mean", "log_std") if f"{prefix}{k}" in batch]
            elif name not in ("policy", "values", "log_probs"):
                found.append(name)
        return found

    def minimize(self, part: dict[str, Tensor], scale: float) -> None:
        x = part.pop("observations")
        shape = x.shape[:2]
        flat = x.reshape(-1, self.size)
        described = {k: v.view(*shape, -1) for k, v in self.agent.policy(flat).items()}
        part |= described
        if "log_probs" in self.compiled.inputs:
            part["log_probs"] = _policy(described).log_prob(part["actions"])
        if "values" in self.compiled.inputs:
            part["values"] = self.agent.values(flat).view(shape)
        self.agent.gradient.zero_()
        loss = self.compiled.rest(part)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value} after {self.taken} steps")
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step(scale)

    def test(self) -> None:
        rows = np.asarray(ask("test"))
        alive = np.ones(len(rows), bool)
        while alive.any():
            rows = np.asarray(ask(self.agent.act(self.seen(rows), None)))
            alive &= rows[:, -2:].sum(-1) == 0


KINDS = {
    "actions": ACTIONS,
    "rewards": TN,
    "dones": TN,
    "mask": TN,
    "old_log_probs": TN,
    "old_values": TN,
    "reference_log_probs": TN,
    "visit_counts": TN,
    "bootstrap_values": N,
    "groups": "groups",
    "progress": SCALAR,
    **{f"{p}{k}": POLICY for p in ("old_", "reference_") for k in ("logits", "mean", "log_std")},
}


def _policy(described: Mapping[str, Tensor]) -> Policy:
    if "logits" in described:
        return Categorical(described["logits"])
    return Gaussian(described["mean"], described["log_std"])
