"""Benchmarks that misbehave, run by the pool in its own processes."""

import os
import time
from pathlib import Path

from asi_evolve.candidate import Component
from asi_evolve.domain import BenchmarkBase, ParametricDomain
from asi_evolve.errors import EvaluationFailure
from asi_evolve.execution import Sandbox, progress
from asi_evolve.space import Choice

MODES = ("good", "nan", "missing", "text", "failure", "raise", "exit", "sleep", "memory", "write", "read")
MODES += ("progress", "sandbox", "daemon", "number", "environment")


class Moody(BenchmarkBase):
    metric = "loss"
    costs = ("seconds",)

    def __init__(self, isolation="sandbox", marker=""):
        self.isolation = isolation
        self.options = {"isolation": isolation, "marker": marker}

    def domains(self):
        return [ParametricDomain("algorithm", [Choice("mode", MODES)], {"mode": "good"})]

    def evaluate(self, candidate, stage, seed):
        mode = candidate["algorithm"].params["mode"]
        answer = {"loss": 1.0 + seed, "seconds": stage.budget}
        if mode == "nan":
            answer["loss"] = float("nan")
        elif mode == "missing":
            del answer["seconds"]
        elif mode == "text":
            answer["loss"] = "low"
        elif mode == "number":
            return 3
        elif mode == "failure":
            raise EvaluationFailure("acausal", "looked ahead")
        elif mode == "raise":
            raise RuntimeError("my own mistake")
        elif mode == "exit":
            os._exit(0)
        elif mode == "sleep":
            time.sleep(100)
        elif mode == "memory":
            time.sleep(len(bytearray(b"x") * (2 << 30)))
        elif mode == "write":
            Path(__file__).with_name("intruder.txt").write_text("x")
        elif mode == "read":
            assert "Moody" in Path(__file__).read_text()
            assert not Path("/etc/passwd").exists()
        elif mode == "environment":
            assert "SECRET_OF_THE_TEST" not in os.environ
        elif mode == "progress":
            for i in range(3):
                progress(i / 2, f"step {i}")
                time.sleep(0.15)
        elif mode == "daemon":
            if os.fork() == 0:
                os.setsid()
                time.sleep(100)
        elif mode == "sandbox":
            source = "import time\ndef f(marker):\n    time.sleep(100)\n"
            Sandbox.configured().run(source, "f", {"marker": self.options["marker"]})
        return answer


def component(mode):
    return Component("algorithm", {"mode": mode})
