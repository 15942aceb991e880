"""The joint benchmark: pretrain architecture a on data d, then improve it with the reinforcement-learning algorithm r.

An evaluation is that of :mod:`lm` with two parts more, and the judge trusts none of what they return:

B. pretraining mixes in a fixed share of solved tasks (copying, addition, brackets), the same for every candidate;
T. a sandbox tunes the weights by the candidate's algorithm graph on rewards of training tasks;
J. fresh sandboxes get the tuned weights: bits per byte and causality as in :mod:`lm`, and completions of held-out
   prompts, which the judge compares with answers that no sandbox has.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from asi_evolve.candidate import Candidate, Component, thaw
from asi_evolve.domain import ParametricDomain, Stage
from asi_evolve.domains import lm_tasks
from asi_evolve.domains.algorithm.code_slot import CODE_FILE
from asi_evolve.domains.algorithm.domain import LOSS, TrainingSpec
from asi_evolve.domains.algorithm.reference import NAMES
from asi_evolve.domains.architecture import model_files
from asi_evolve.domains.data import Selection
from asi_evolve.domains.lm import Evaluation, LanguageModelBenchmark
from asi_evolve.domains.rl.domain import GRAPH_DOC, GRAPH_FILE, RLGraphDomain, uses_code
from asi_evolve.domains.slots import Mechanism
from asi_evolve.errors import EvaluationFailure
from asi_evolve.execution import Result
from asi_evolve.execution.limits import MEBIBYTE
from asi_evolve.space import Choice, Integer, Real

PARAMETERS = [
    Mechanism("graph", NAMES, doc="the loss, as a graph in graph.json"),
    Real("learning_rate", 1e-6, 1e-2, log=True, doc="where the graph's optimiser gives none"),
    Real("lam", 0.0, 1.0, doc="lambda of advantages, where a node gives none"),
    Choice("prompts", (4, 8, 16, 32), doc="tasks per rollout"),
    Choice("group", (4, 8, 16), doc="answers drawn for each task"),
    Integer("epochs", 1, 4, doc="passes over a rollout"),
    Choice("minibatches", (1, 2, 4), doc="optimiser steps per pass"),
]
START: Mapping[str, Any] = {
    "graph": "reinforce",
    "learning_rate": 1e-4,
    "lam": 0.95,
    "prompts": 16,
    "group": 4,
    "epochs": 1,
    "minibatches": 1,
}
_DOC = """How a pretrained language model is tuned on tasks with a verifiable answer: it draws answers, is rewarded (1
for a right one, less for a right beginning), and its weights move to lower the loss that graph.json computes. Steps are
the bytes of an answer; the discount is 1; every candidate draws the same number of answers in all.
"""
_MODULE = "lm_tuning"


class JointBenchmark(LanguageModelBenchmark):
    """A triple as a whole: ``score`` = held-out task reward - ``bits_weight`` * held-out bits per byte.

    ``task_reward`` is the share of held-out tasks that are answered exactly right; ``bits_per_byte`` is measured after
    tuning, ``task_reward_before`` before it. Costs as for the language model, ``train_seconds`` with the tuning. The
    algorithm domain is a graph (:class:`asi_evolve.domains.rl.RLGraphDomain`), the baseline's REINFORCE; pretraining
    has fixed settings.

    Args:
        answers: answers drawn in tuning at the full stage, over all updates.
        task_share: share of the pretraining windows that are solved tasks.
        held_out_tasks: tasks that the reward is measured on.
        prompt_length: bytes of a prompt, solved tasks before it included.
        bits_weight: see above.
        options: of :class:`LanguageModelBenchmark`.
    """

    metric = "score"
    maximize = True

    def __init__(
        self,
        *,
        answers: int = 8192,
        task_share: float = 0.4,
        held_out_tasks: int = 240,
        prompt_length: int = 48,
        bits_weight: float = 0.25,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        own = {"answers": answers, "held_out_tasks": held_out_tasks, "prompt_length": prompt_length}
        for name, value in own.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise TypeError(f"{name}: {value!r} is not a positive whole number")
        if not 0 < task_share < 1 or not bits_weight >= 0:
            raise TypeError(f"task_share: {task_share!r} is not in (0, 1), or bits_weight: {bits_weight!r} is negative")
        if prompt_length + lm_tasks.ANSWER > self.length:
            raise TypeError(f"prompt_length: {prompt_length} and an answer do not fit into {self.length} bytes")
        self.answers, self.task_share, self.held_out_tasks = answers, task_share, held_out_tasks
        self.prompt_length, self.bits_weight = prompt_length, bits_weight
        self.options = {**self.options, **own, "task_share": task_share, "bits_weight": bits_weight}
        self.pretraining = TrainingSpec(learning_rate=3e-3, schedule="cosine", warmup=0.05).to_json()

    def domains(self) -> list[ParametricDomain]:
        """Architecture, algorithm (a graph) and data."""
        architecture, _, data = super().domains()
        return [architecture, RLGraphDomain(PARAMETERS, START, _DOC + GRAPH_DOC), data]

    def training_spec(self, candidate: Candidate) -> dict[str, Any]:
        """Settings of the pretraining, the same for every candidate."""
        return self.pretraining

    def export(self, candidate: Candidate, target: Path) -> list[Path]:
        """The pretraining as :meth:`LanguageModelBenchmark.export` writes it; the algorithm's files in ``tuning/``."""
        pretraining = Component("algorithm", self.pretraining, {"loss.py": LOSS})
        written = super().export(candidate.replace(pretraining), target)
        folder = target / "tuning"
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in candidate.algorithm.files.items():
            (folder / name).write_text(text, encoding="utf-8")
            written.append(folder / name)
        return written

    def evaluate(self, candidate: Candidate, stage: Stage, seed: int) -> dict[str, float]:
        """Pretrains, tunes and judges one triple; deterministic but for times and memory.

        Raises:
            EvaluationFailure: with the kind of what went wrong. CorpusError: the corpus has gone.
        """
        run = _JointEvaluation(self, candidate, stage, seed)
        weights, training = run.train(run.curate())
        before = run.task_reward(weights)
        weights, tuning = run.tune(weights)
        reward = run.task_reward(weights)
        bits, flops = run.judge(weights)
        return {
            "score": reward - self.bits_weight * bits,
            "task_reward": reward,
            "task_reward_before": before,
            "bits_per_byte": bits,
            "train_seconds": training.usage.cpu_seconds + tuning.usage.cpu_seconds,
            "flops_per_token": flops,
            "peak_memory_mb": max(training.usage.max_rss_bytes, tuning.usage.max_rss_bytes) / MEBIBYTE,
        }


class _JointEvaluation(Evaluation):
    benchmark: JointBenchmark

    def training_files(self) -> dict[str, str]:
        return {"loss.py": LOSS}

    def windows(self, selection: Selection) -> np.ndarray:
        """Windows of documents with windows of solved tasks spread among them."""
        b = self.benchmark
        rows = super().windows(selection)
        rng = self.rng(3)
        solved = rng.permutation(len(rows))[: round(b.task_share * len(rows))]
        text = lm_tasks.training_text(len(solved) * (b.length + 1), rng)
        rows[np.sort(solved)] = text[: len(solved) * (b.length + 1)].reshape(len(solved), -1)
        return rows

    def tune(self, weights: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], Result]:
        b = self.benchmark
        params, files = thaw(self.candidate.algorithm.params), dict(self.candidate.algorithm.files)
        if not uses_code(files):
            files.pop(CODE_FILE, None)
        drawn = max(1, round(b.answers * self.stage.budget))
        updates = max(1, drawn // (params["prompts"] * params["group"]))
        rng = self.rng(4)
        training = lm_tasks.tasks(min(updates * params["prompts"], 4096), False, rng)
        inputs = {
            "architecture": self.architecture,
            "weights": weights,
            "params": params,
            "files": [GRAPH_FILE, *([CODE_FILE] if CODE_FILE in files else [])],
            "prompts": lm_tasks.prompts(training, b.prompt_length, rng),
            "answers": lm_tasks.answers(training),
            "length": b.length,
            "updates": updates,
            "seed": self.seed,
            "threads": b.threads,
            "device": b.spread["device"],
        }
        files |= model_files(self.candidate.architecture)
        result = self.run("tune", inputs, files, 16 * b.max_parameters + (1 << 20), (0.6, 0.85), module=_MODULE)
        return self.checked_weights(result, "tune", weights), result

    def task_reward(self, weights: dict[str, np.ndarray]) -> float:
        """Share of the held-out tasks that are answered exactly right."""
        b = self.benchmark
        rng = np.random.default_rng([b.data_seed, 5])  # the same for every candidate and seed
        held_out = lm_tasks.tasks(b.held_out_tasks, True, rng)
        inputs = {
            "architecture": self.architecture,
            "weights": weights,
            "prompts": lm_tasks.prompts(held_out, b.prompt_length, rng),
            "length": b.length,
            "threads": b.threads,
            "device": b.spread["device"],
        }
        files = model_files(self.candidate.architecture)
        answer = self.run("complete", inputs, files, 1 << 20, (0.85, 0.9), module=_MODULE).value
        given = answer.get("answers") if isinstance(answer, dict) else None
        shape = (b.held_out_tasks, lm_tasks.ANSWER)
        if not isinstance(given, np.ndarray) or given.shape != shape or given.dtype != np.uint8:
            raise EvaluationFailure("protocol", f"complete: answers is not uint8 {shape}")
        return float((lm_tasks.right_bytes(given, lm_tasks.answers(held_out)) == 1).mean())
