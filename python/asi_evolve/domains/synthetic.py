"""A synthetic benchmark: the same three domains, a landscape with a known optimum, and no training.

For tests of the engine itself: an evaluation takes well under a millisecond. Searching the domains one by one is not
enough here: the best learning rate depends on the width, the best mixer on how clean the data is.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from asi_evolve.candidate import Candidate
from asi_evolve.domain import BenchmarkBase, ParametricDomain, Stage
from asi_evolve.errors import EvaluationFailure
from asi_evolve.space import Choice, Integer, Real

FLOOR = 1.0  # the loss at the optimum at full budget, without noise

_MIXERS = ("attention", "linear", "convolution")
_OPTIMIZERS = ("sgd", "adam", "lion")


class SyntheticBenchmark(BenchmarkBase):
    """Loss and cost of a triple as formulas.

    With x the parameters, the noiseless full-budget loss is :data:`FLOOR` plus squares that vanish at the optimum
    (depth 6, width 256, linear mixer, adam at learning rate 0.002 * sqrt(256 / width), warm-up 0.1, filter 0.7,
    temperature 1, deduplicated). A linear mixer pays off only when ``filter`` is above 0.5. A budget b < 1 adds
    ``0.3 (1 - b)`` times the depth's and the learning rate's distance, so that small budgets mislead a little.

    Args:
        noise: standard deviation of the seeded noise at full budget; grows with ``budget ** -0.5``.
        failure_rate: share of (candidate, stage, seed) that end in an EvaluationFailure.
        crash_rate: share whose process dies. Not inline.
        hang_rate: share that never end. Not inline.
        sleep: seconds slept per evaluation at full budget.
        salt: another draw of what fails.
    """

    metric = "loss"
    maximize = False
    costs = ("cost",)
    isolation: Literal["sandbox", "judge"] = "judge"

    def __init__(
        self,
        *,
        noise: float = 0.005,
        failure_rate: float = 0.0,
        crash_rate: float = 0.0,
        hang_rate: float = 0.0,
        sleep: float = 0.0,
        salt: int = 0,
    ) -> None:
        self.options: Mapping[str, Any] = {
            "noise": noise,
            "failure_rate": failure_rate,
            "crash_rate": crash_rate,
            "hang_rate": hang_rate,
            "sleep": sleep,
            "salt": salt,
        }
        for name, value in self.options.items():
            if not value >= 0 or (name.endswith("_rate") and value > 1):
                raise TypeError(f"{name}: {value!r} is out of range")
        # Real crashes and hangs need a process that can die.
        self.inline = crash_rate == 0 and hang_rate == 0

    def domains(self) -> list[ParametricDomain]:
        """Three domains of three parameters each."""
        return [
            ParametricDomain(
                "architecture",
                [
                    Integer("depth", 1, 12, doc="number of layers"),
                    Integer("width", 32, 512, log=True, doc="model width"),
                    Choice("mixer", _MIXERS, doc="token mixing"),
                ],
                {"depth": 2, "width": 64, "mixer": "attention"},
                doc="A model of which only three numbers matter.",
            ),
            ParametricDomain(
                "algorithm",
                [
                    Choice("optimizer", _OPTIMIZERS, doc="optimiser"),
                    Real("learning_rate", 1e-4, 1e-1, log=True, doc="peak learning rate"),
                    Real("warmup", 0.0, 0.5, doc="share of the steps spent warming up"),
                ],
                {"optimizer": "sgd", "learning_rate": 0.02, "warmup": 0.0},
                doc="How it is trained.",
            ),
            ParametricDomain(
                "data",
                [
                    Real("filter", 0.0, 1.0, doc="how much of the worst data is dropped"),
                    Real("temperature", 0.2, 5.0, log=True, doc="temperature of the source mixture"),
                    Choice("deduplicate", (False, True), doc="drop duplicates"),
                ],
                {"filter": 0.0, "temperature": 3.0, "deduplicate": False},
                doc="What it is trained on.",
            ),
        ]

    def optimum(self) -> dict[str, dict[str, Any]]:
        """Parameters of the global optimum by domain; its noiseless full-budget loss is :data:`FLOOR`."""
        return {
            "architecture": {"depth": 6, "width": 256, "mixer": "linear"},
            "algorithm": {"optimizer": "adam", "learning_rate": 0.002, "warmup": 0.1},
            "data": {"filter": 0.7, "temperature": 1.0, "deduplicate": True},
        }

    @staticmethod
    def loss(a: Mapping[str, Any], r: Mapping[str, Any], d: Mapping[str, Any], budget: float = 1.0) -> float:
        """The noiseless loss of parameters of the three domains."""
        depth: float = (a["depth"] - 6) / 6
        width = math.log2(a["width"] / 256) / 4
        best = 0.002 * math.sqrt(256 / a["width"])
        rate = math.log10(r["learning_rate"] / best)
        clean = d["filter"] - 0.7
        mixer = {"attention": 0.06, "linear": 0.0 if d["filter"] > 0.5 else 0.12, "convolution": 0.1}[a["mixer"]]
        optimizer = {"sgd": 0.15, "adam": 0.0, "lion": 0.02}[r["optimizer"]]
        total: float = 0.3 * depth**2 + 0.2 * width**2 + mixer + 0.25 * rate**2 + optimizer
        total += 0.4 * (r["warmup"] - 0.1) ** 2 + 0.5 * clean**2 + 0.05 * math.log2(d["temperature"]) ** 2
        total += 0.0 if d["deduplicate"] else 0.05
        return FLOOR + total + 0.3 * (1 - budget) * (abs(depth) + abs(rate))

    def evaluate(self, candidate: Candidate, stage: Stage, seed: int) -> dict[str, float]:
        """``loss`` with noise drawn from (candidate, stage, seed), and ``cost``, relative to depth 2 and width 64.

        Raises:
            EvaluationFailure: for the share ``failure_rate``.
        """
        identity = f"{candidate.hash}/{stage.name}/{seed}/{self.options['salt']}"
        digest = hashlib.sha256(identity.encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        fate = rng.random()
        for name in ("failure_rate", "crash_rate", "hang_rate"):
            if fate < self.options[name]:
                self._fault(name)
            fate -= self.options[name]
        if self.options["sleep"]:
            time.sleep(self.options["sleep"] * stage.budget)
        a, r, d = (candidate[n].params for n in ("architecture", "algorithm", "data"))
        noise = self.options["noise"] * stage.budget**-0.5 * rng.normal()
        cost = stage.budget * a["depth"] * a["width"] ** 1.5 / (2 * 64**1.5)
        return {"loss": self.loss(a, r, d, stage.budget) + noise, "cost": cost}

    @staticmethod
    def _fault(name: str) -> None:
        if name == "failure_rate":
            raise EvaluationFailure("invalid", "injected failure")
        if name == "crash_rate":
            os._exit(13)
        while True:
            time.sleep(3600)
