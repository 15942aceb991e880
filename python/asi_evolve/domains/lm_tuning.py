"""What runs inside the sandboxes of the joint benchmark beside :mod:`lm_runner`: tuning a language model on verifiable
tasks by an algorithm graph, and completing prompts. Nothing returned from here is trusted by the judge."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from asi_evolve.domains.algorithm.compile import CompiledLoss, minibatch
from asi_evolve.domains.lm_runner import _model, _state
from asi_evolve.domains.lm_tasks import ANSWER, right_bytes
from asi_evolve.domains.rl.domain import graph_of_files
from asi_evolve.domains.rl.learner import KINDS, Optimizer
from asi_evolve.execution.reporting import progress

_EXACT = 0.5  # of the training reward is for the whole answer, the rest for the right bytes before the first wrong one
_END = 10  # the end of a line ends an answer


def tune(
    *,
    architecture: Mapping[str, Any],
    weights: Mapping[str, np.ndarray],
    params: Mapping[str, Any],
    files: list[str],
    prompts: np.ndarray,
    answers: np.ndarray,
    length: int,
    updates: int,
    seed: int,
    threads: int,
    device: str = "cpu",
) -> dict[str, Any]:
    """Trains a model further with the rewards of tasks.

    Args:
        architecture: its parameters. weights: what pretraining returned.
        params: of the algorithm, see :data:`asi_evolve.domains.lm_joint.PARAMETERS`.
        files: names of the algorithm's files in the working directory.
        prompts: uint8 (tasks, n). answers: uint8 (tasks, ANSWER); tasks are used in this order, from the start again
            when they run out.
        length: longest sequence of the model.
        updates: rollouts, each followed by ``epochs`` passes over it.
        seed: of the draws. threads: of torch. device: of torch.

    Returns:
        ``weights`` as given, and ``reward`` float64 (updates,), the mean reward of each rollout; or ``non_finite``.
    """
    model = _load(architecture, weights, length, threads, device)
    torch.manual_seed(seed)
    graph = graph_of_files({name: Path(name).read_text(encoding="utf-8") for name in files})
    shared = {"learning_rate": params["learning_rate"], "gamma": 1.0, "lam": params["lam"], "max_grad_norm": 1.0}
    with torch.device(device):
        tuner = _Tuner(model, graph.compile(shared), set(graph.batch_names()), params, seed, device)
    rewards = []
    for update in range(updates):
        first = update * tuner.prompts
        index = np.arange(first, first + tuner.prompts) % len(prompts)
        try:
            with torch.device(device):
                rewards.append(tuner.update(prompts[index], answers[index], update / updates))
        except FloatingPointError as error:
            return {"non_finite": str(error)}
        progress((update + 1) / updates, f"reward {rewards[-1]:.2f} in tuning")
    return {
        "weights": {name: t.detach().cpu().numpy().copy() for name, t in _state(model)},
        "reward": np.array(rewards, np.float64),
    }


def complete(
    architecture: Mapping[str, Any],
    weights: Mapping[str, np.ndarray],
    prompts: np.ndarray,
    length: int,
    threads: int,
    device: str = "cpu",
) -> dict[str, Any]:
    """The likeliest continuation of each prompt: ``answers`` uint8 (prompts, ANSWER)."""
    model = _load(architecture, weights, length, threads, device)
    model.eval()
    rows = torch.from_numpy(prompts).long().to(device)
    with torch.no_grad(), torch.device(device):
        parts = [_generate(model, part, None) for part in torch.split(rows, 64)]
    return {"answers": torch.cat(parts)[:, -ANSWER:].cpu().numpy().astype(np.uint8)}


def _load(
    architecture: Mapping[str, Any], weights: Mapping[str, np.ndarray], length: int, threads: int, device: str
) -> Any:
    model = _model(architecture, length, 0, threads)
    with torch.no_grad():
        for name, tensor in _state(model):
            tensor.copy_(torch.from_numpy(weights[name].copy()))
    return model.to(device)


def _generate(model: Any, tokens: Tensor, generator: torch.Generator | None) -> Tensor:
    """int64 (rows, n) -> (rows, n + ANSWER): drawn from the model, or its likeliest bytes without a generator."""
    for _ in range(ANSWER):
        logits = model(tokens)[:, -1]
        if generator is None:
            following = logits.argmax(-1, keepdim=True)
        else:
            following = torch.multinomial(logits.softmax(-1), 1, generator=generator)
        tokens = torch.cat([tokens, following], dim=1)
    return tokens


class _Tuner:
    """Rollouts of completions, and updates by a compiled graph. T is ANSWER, N prompts times completions of each."""

    def __init__(
        self, model: Any, compiled: CompiledLoss, names: set[str], params: Mapping[str, Any], seed: int, device: str
    ) -> None:
        self.device = device
        self.model, self.compiled, self.params = model, compiled, params
        self.prompts, self.group = int(params["prompts"]), int(params["group"])
        self.reference = copy.deepcopy(model) if names & {"reference_policy", "reference_log_probs"} else None
        self.value = nn.Linear(model.head.in_features, 1)  # of a prefix; used by graphs with a critic
        nn.init.zeros_(self.value.weight)
        self.generator = torch.Generator(device).manual_seed(seed)
        trained = [p for p in (*model.parameters(), *self.value.parameters()) if p.requires_grad]
        self.weights = torch.cat([p.detach().reshape(-1) for p in trained])
        self.gradient = torch.zeros_like(self.weights)
        at = 0
        for p in trained:  # one vector of all weights, which the graph's optimiser works on
            p.data = self.weights[at : at + p.numel()].view_as(p)
            p.grad = self.gradient[at : at + p.numel()].view_as(p)
            at += p.numel()
        self.optimizer = Optimizer(*compiled.step, self.weights, self.gradient)

    def forward(self, model: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [T, N, 256] before each byte of the answer, and values [T + 1, N] of the prefixes."""
        start = tokens.shape[1] - ANSWER
        hidden = model.features(tokens)[:, start - 1 :]
        logits = model.head(hidden[:, :-1]).transpose(0, 1)
        return logits, self.value(hidden.detach()).squeeze(-1).transpose(0, 1)

    @torch.no_grad()
    def rollout(self, prompts: np.ndarray, answers: np.ndarray, share: float) -> tuple[dict[str, Tensor], Tensor]:
        self.model.eval()
        start = torch.from_numpy(prompts).long().to(self.device).repeat_interleave(self.group, 0)
        tokens = _generate(self.model, start, self.generator)
        given = tokens[:, -ANSWER:]
        shares = right_bytes(given.cpu().numpy(), np.repeat(answers, self.group, 0))
        right = torch.from_numpy(shares).float().to(self.device)
        reward = (1 - _EXACT) * right + _EXACT * (right == 1)
        # An answer ends with its line, or with the last byte there is.
        ended = (given == _END).long()
        ended[:, -1] = 1
        last = ended.argmax(1)
        steps = torch.arange(ANSWER)[:, None]
        dones = (steps == last).float()
        logits, values = self.forward(self.model, tokens)
        batch = {
            "actions": given.T.contiguous(),
            "rewards": dones * reward,
            "dones": dones,
            "mask": (steps <= last).float(),
            "old_values": values[:-1].clone(),
            "bootstrap_values": values[-1].clone(),
            "groups": torch.arange(self.prompts).repeat_interleave(self.group),
            "progress": torch.tensor(share),
            "visit_counts": torch.ones(ANSWER, len(given)),
            **_described("old_", logits, given.T),
        }
        if self.reference is not None:
            batch |= _described("reference_", self.forward(self.reference, tokens)[0], given.T)
        return batch, tokens

    def update(self, prompts: np.ndarray, answers: np.ndarray, share: float) -> float:
        """One rollout and the passes over it; the mean reward. Raises FloatingPointError."""
        batch, tokens = self.rollout(prompts, answers, share)
        compiled = self.compiled
        kinds = {**KINDS, **compiled.prepared}
        recorded = {k: v for k, v in batch.items() if k in kinds}
        named = {**recorded, **compiled.prepare(batch)}
        scale = compiled.step_scale(batch)
        for _ in range(int(self.params["epochs"])):
            order = torch.randperm(len(tokens), generator=self.generator)
            for index in order.chunk(int(self.params["minibatches"])):
                self._minimize(minibatch(named, kinds, index, True), tokens[index], scale)
        return float(batch["rewards"].sum(0).mean())

    def _minimize(self, part: dict[str, Tensor], tokens: Tensor, scale: float) -> None:
        self.model.train()
        logits, values = self.forward(self.model, tokens)
        part["logits"], part["values"] = logits, values[:-1]
        part["log_probs"] = _log_probs(logits, part["actions"])
        if "groups" in part:  # numbers of the groups that are left, from 0
            part["groups"] = torch.unique(part["groups"], return_inverse=True)[1]
        self.gradient.zero_()
        loss = self.compiled.rest(part)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss of the algorithm graph is {value}")
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step(scale)


def _log_probs(logits: Tensor, actions: Tensor) -> Tensor:
    return logits.log_softmax(-1).gather(-1, actions.unsqueeze(-1)).squeeze(-1)


def _described(prefix: str, logits: Tensor, actions: Tensor) -> dict[str, Tensor]:
    """A policy as recorded with a rollout. Contiguous copies: the model goes on changing."""
    return {f"{prefix}logits": logits.clone(), f"{prefix}log_probs": _log_probs(logits, actions)}
