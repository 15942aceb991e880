"""The engine in a process that kills itself at a chosen event: SIGKILL, so that nothing can be tidied up.

    python engine_process.py DIR LOG RECORDING [EVENT NUMBER]

EVENT is ``kind`` or ``kind/message`` of an event; the process dies at the NUMBER-th one. LOG gets a line per evaluation
that is begun.
"""

import os
import signal
import sys
from pathlib import Path

from asi_evolve import Engine
from asi_evolve.domains.synthetic import SyntheticBenchmark

CONFIG = {
    "cycles": 3,
    "workers": 2,
    "seed": 5,
    "design": {"proposals": 5, "code_share": 0.0},
    "cascade": {"full": {"seeds": 2}, "confirm_seeds": 2},
}


class Counted(SyntheticBenchmark):
    log = None

    def evaluate(self, candidate, stage, seed):
        if self.log:
            with open(self.log, "a") as handle:
                handle.write(f"{candidate.hash} {stage.name} {seed}\n")
        if all(candidate[d.name] == d.baseline() for d in self.domains()):  # nothing can be said if this one fails
            return SyntheticBenchmark().evaluate(candidate, stage, seed)
        return super().evaluate(candidate, stage, seed)


class TwoDomains(Counted):
    """Another benchmark than the one a run was started with."""

    def domains(self):
        return super().domains()[:2]


class OnlyBaseline(Counted):
    """Everything but the baseline fails."""

    def __init__(self):
        super().__init__(failure_rate=1.0)
        self.options = {}


def main():
    directory, log, recording = sys.argv[1:4]
    Counted.log = log
    wanted, number = (sys.argv[4], int(sys.argv[5])) if len(sys.argv) > 4 else (None, 0)
    seen = 0

    def observer(event):
        nonlocal seen
        # "explained": an evaluation of an explanation's test has ended
        kinds = (event.kind, f"{event.kind}/{event.message}")
        if event.kind == "evaluated" and event.data["stage"] == "explain":
            kinds = ("explained", *kinds)
        if wanted in kinds:
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    llm = {"provider": "none"} if recording == "none" else {"provider": "recorded", "recording": recording}
    benchmark = Counted(failure_rate=0.1)
    engine = Engine({**CONFIG, "llm": llm}, directory, benchmark=benchmark, observers=[observer])
    result = engine.resume() if engine.directory.has_run() else engine.run()
    print(result.best.hash, result.evaluations)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    import engine_process  # so that the class has a module that the pool can import

    engine_process.main()
