"""What the reference graphs learn: final return, steps to the threshold, seconds, and an aggregate with its interval.

    python bench/rl_training.py [--quick] [--graph NAME ...] [--environment NAME ...] [--seeds N] [--json FILE]

Every run is one learner in a sandbox and the judge's environments, which take turns: CPU seconds are those of both, and
what a run takes in wall-clock time on one core that nothing else uses. "reached" is after how many steps the mean of 20
training episodes first was at the threshold.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from asi_evolve.candidate import Candidate, Edit
from asi_evolve.domains.algorithm.reference import NAMES
from asi_evolve.domains.rl import RLBenchmark, RLGraphDomain
from asi_evolve.domains.rl.metrics import aggregate, judge_curve

STEPS = {"CartPole-v1": 330_000, "Acrobot-v1": 200_000}
SETTINGS = {"Pendulum-v1": {"normalize_rewards": True, "gamma": 0.95, "epochs": 10}}
# Without a limit on the change of the policy, data is used once. Group-relative returns need whole episodes.
_ONCE, _LONG = {"epochs": 1, "horizon": 16, "minibatches": 1}, {"horizon": 128, "environments": 32}
GRAPH_SETTINGS = {"reinforce": _ONCE, "a2c": _ONCE, "grpo": _LONG, "dapo": _LONG}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="CartPole, 60 000 steps, 2 seeds")
    parser.add_argument("--graph", nargs="+", default=["ppo"], choices=NAMES)
    parser.add_argument("--environment", nargs="+", default=list(STEPS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    environments = ["CartPole-v1"] if arguments.quick else arguments.environment
    seeds = 2 if arguments.quick else arguments.seeds
    benchmark, domain = RLBenchmark(environments=environments, tests=100), RLGraphDomain()
    benchmark.prepare()
    rows = []
    names = f"{'graph':10s} {'environment':25s} {'seed':>4s}"
    print(f"{names} {'return':>8s} {'reached':>8s} {'area':>6s} {'CPU s':>6s} {'wall s':>6s}")
    for graph in arguments.graph:
        scores = np.zeros((seeds, len(environments)))
        for e, name in enumerate(environments):
            edit = Edit(params={"graph": graph, **SETTINGS.get(name, {}), **GRAPH_SETTINGS.get(graph, {})})
            candidate = Candidate([domain.apply(domain.baseline(), edit)])
            steps = 60_000 if arguments.quick else STEPS.get(name, 200_000)
            for seed in range(seeds):
                judge = time.process_time()
                run = benchmark.train(candidate, name, steps, seed, time_limit=900)
                cpu = run.usage.cpu_seconds + time.process_time() - judge
                learned = judge_curve(run.curve, run.tests, steps, benchmark.task(name))
                scores[seed, e] = learned.normalized
                reached = f"{learned.steps_to_threshold}" if learned.solved else "never"
                print(
                    f"{graph:10s} {name:25s} {seed:4d} {learned.final_return:8.1f} {reached:>8s} {learned.area:6.3f} "
                    f"{cpu:6.1f} {run.seconds:6.1f}",
                    flush=True,
                )
                rows.append({"graph": graph, "environment": name, "seed": seed, "steps": steps, "cpu_seconds": cpu,
                             "wall_seconds": run.seconds, **asdict(learned)})  # fmt: skip
        mean, low, high = aggregate(scores)
        print(
            f"{graph:10s} normalised final return, interquartile mean: {mean:.3f} [{low:.3f}, {high:.3f}]", flush=True
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
