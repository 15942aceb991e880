"""Does the machinery help? Arms of the engine at equal evaluation cost.

    python bench/search_efficiency.py [--quick] [--seeds N] [--json FILE] [--on joint --llm URL --model NAME]

On the synthetic landscape (known optimum, interactions between domains, noise) what counts is the regret of the
incumbent: its noiseless loss less the optimum's. Arms with a language model use a scripted proposer that knows the
optimum (oracle.py): an upper bound, no evidence for any real model. On the joint benchmark (--on joint) it is the
incumbent's measured improvement, and the language model is a real one (--llm).

Cost is counted in full-stage evaluations: an evaluation at budget b costs b, whatever the clock says. Confirmation is
switched off. Curves are steps: an incumbent counts from the cost at which its cycle ended.

Ends with one JSON line per arm: arm, seeds, IQM of the final value, 95 % bootstrap interval.
"""

import argparse
import concurrent.futures
import itertools
import json
import math
import multiprocessing as mp
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean

import numpy as np
from scipy import stats

from asi_evolve import Candidate, Engine
from asi_evolve.benchmarks import load_benchmark
from asi_evolve.cascade import promoted
from asi_evolve.config import load_config
from asi_evolve.domains.synthetic import FLOOR, SyntheticBenchmark
from asi_evolve.fitness import t_interval
from asi_evolve.knowledge.store import Store
from oracle import Oracle

PROPOSALS, PROMOTE = 8, 0.34
ARMS = {  # changes of the configuration; llm: whether the arm has a language model
    "full": {"llm": True},
    "no-analyze": {"llm": True, "analyze": {"language_model": False, "explanation_share": 0}},
    "no-hypotheses": {"llm": True, "analyze": {"hypotheses": False}},
    "no-explanations": {"llm": True, "analyze": {"explanation_share": 0}},
    "scalar": {"llm": True, "design": {"selection": "scalar"}},
    "domain-isolated": {"llm": True},
    "evolution": {"llm": False},
    "evolution-scalar": {"llm": False, "design": {"selection": "scalar"}},
    "random": {"llm": False},
}


class Task:
    """What is searched on: ``value`` of a triple (smaller is better), and how evaluations are configured."""

    def __init__(self, name, options, budget, llm):
        self.name, self.options, self.budget, self.llm = name, options, budget, llm
        self.benchmark = load_benchmark(name, options)
        self.domains = {d.name: d for d in self.benchmark.domains()}
        self.baseline = Candidate([d.baseline() for d in self.domains.values()])

    def config(self, arm, seed, **more):
        """The engine's configuration of an arm."""
        settings = {k: v for k, v in ARMS[arm].items() if k != "llm"}
        llm = {"provider": "none"}
        if ARMS[arm]["llm"]:
            llm = {"provider": "openai", "max_tokens": 300, "max_context_tokens": 900, **self.llm}
        return {
            "seed": seed,
            "cycles": 1000,
            "workers": 2,
            "benchmark": {"name": self.name, "options": self.options},
            "cascade": {"promote": PROMOTE, "confirm_seeds": 0, "isolated": {"budget": 0.12}, "cross": {"budget": 0.3}},
            "llm": llm,
            "analyze": settings.get("analyze", {}),
            "design": {"proposals": PROPOSALS, "code_share": 0.0, **settings.get("design", {})},
            **more,
        }

    def value(self, candidate, improvement):
        """Regret on the synthetic landscape; elsewhere the measured improvement, negative."""
        if isinstance(self.benchmark, SyntheticBenchmark):
            triple = [candidate[n].params for n in ("architecture", "algorithm", "data")]
            return SyntheticBenchmark.loss(*triple) - FLOOR
        return -improvement


def spent_on(config, evaluations):
    budget = {s: config.stage(s).budget for s in ("isolated", "cross", "full", "explain")}
    return sum(budget[e.stage] for e in evaluations)


def engine_curve(task, arm, seed, directory, budget, **more):
    """[(cost, value)] after each cycle, and the last incumbent."""
    engine = Engine(task.config(arm, seed, **more), directory)
    curve, best = [(0.0, task.value(task.baseline, 0.0))], task.baseline
    while True:
        result = engine.step()
        store = Store(engine.directory.database, read_only=True)
        spent = spent_on(engine.config, store.evaluations())
        store.close()
        if spent > budget:
            return curve, best
        best = result.best
        gain = result.improvement.mean if result.improvement else 0.0
        curve.append((spent, task.value(best, gain)))


def isolated_curve(task, arm, seed, directory, budget):
    """Each domain searched alone from the baseline with a third of the budget; then the three winners together, kept
    if they are better than the best of them alone on the full stage's seeds."""
    config = load_config(task.config(arm, seed))
    seeds = config.seeds("full")
    share = (budget - 4 * len(seeds)) / len(task.domains)
    curve, winners, used = [(0.0, task.value(task.baseline, 0.0))], [], 0.0
    for name in task.domains:
        own, best = engine_curve(task, arm, seed, directory / name, share, domains=[name])
        winners.append((own[-1][1], best, name))
        used += share
        curve.append((used, min(curve[-1][1], own[-1][1])))
    together = task.baseline
    for _, best, name in winners:
        together = together.replace(best[name])
    tried = [together, *(best for _, best, _ in winners)]
    measured = [(fmean(measure(task, c, config.stage("full"), s) for s in seeds), c) for c in tried]
    value, best = min(measured, key=lambda pair: pair[0])
    base = fmean(measure(task, task.baseline, config.stage("full"), s) for s in seeds)
    curve.append((budget, task.value(best, base - value)))
    return curve, best


def measure(task, candidate, stage, seed):
    """The metric, turned so that smaller is better; infinite for a failure."""
    try:
        value = task.benchmark.evaluate(candidate, stage, seed)[task.benchmark.metric]
    except Exception:
        return math.inf
    return -value if task.benchmark.maximize else value


def random_curve(task, arm, seed, directory, budget):
    """Triples drawn uniformly, through the same cascade: the best of a round go on, the last are measured in full."""
    config = load_config(task.config(arm, seed))
    rng = np.random.default_rng([seed, 99])
    full, seeds = config.stage("full"), config.seeds("full")
    best, spent = task.baseline, len(seeds) * full.budget
    bar = base = fmean(measure(task, task.baseline, full, s) for s in seeds)
    curve = [(0.0, task.value(best, 0.0))]
    while True:
        drawn = [Candidate([d.apply(d.baseline(), sampled(d, rng)) for d in task.domains.values()])
                 for _ in range(PROPOSALS)]  # fmt: skip
        for name in ("isolated", "cross"):
            stage, count = config.stage(name), promoted(len(drawn), PROMOTE)
            spent += len(drawn) * stage.budget
            drawn = sorted(drawn, key=lambda c: measure(task, c, stage, seeds[0]))[:count]
        spent += len(seeds) * full.budget * len(drawn)
        if spent > budget:
            return curve, best
        for candidate in drawn:
            value = fmean(measure(task, candidate, full, s) for s in seeds)
            if value < bar:
                best, bar = candidate, value
        curve.append((spent, task.value(best, base - bar)))


def sampled(domain, rng):
    from asi_evolve import Edit

    return Edit(params=domain.space.sample(rng))


CURVES = {"domain-isolated": isolated_curve, "random": random_curve}


def one_curve(settings, arm, seed):
    """The curve of one arm and seed, in a process of its own."""
    *task, folder = settings
    budget = task[2]
    curve, _ = CURVES.get(arm, engine_curve)(Task(*task), arm, seed, Path(folder) / f"{arm}-{seed}", budget)
    return curve


def at(curve, cost):
    """The value of a step curve."""
    return [v for c, v in curve if c <= cost][-1]


def iqm(values):
    return float(stats.trim_mean(values, 0.25))


def bootstrap(values, statistic=iqm, draws=4000):
    rng = np.random.default_rng(0)
    values = np.asarray(values)
    sample = [statistic(values[rng.integers(len(values), size=len(values))]) for _ in range(draws)]
    return [float(x) for x in np.percentile(sample, [2.5, 97.5])]


def factorial(task, best, seeds):
    """All eight mixtures of the baseline's and the winner's components: main effects and interactions on the loss, each
    the mean over seeds of a contrast of the eight, with its 95 % interval (Box, Hunter and Hunter 2005, chapter 5)."""
    names = list(task.domains)
    stage = load_config(task.config("evolution", 0)).stage("full")
    signs = list(itertools.product((0, 1), repeat=3))
    table = {}
    for present in signs:
        candidate = task.baseline
        for name, there in zip(names, present, strict=True):
            candidate = candidate.replace(best[name]) if there else candidate
        table[present] = [measure(task, candidate, stage, s) for s in seeds]
    effects = {}
    for size in (1, 2, 3):
        for group in itertools.combinations(range(3), size):
            contrast = [
                sum(math.prod(2 * present[i] - 1 for i in group) * table[present][k] for present in signs) / 4
                for k in range(len(seeds))
            ]
            effects[" x ".join(names[i] for i in group)] = t_interval(contrast)
    return effects


def _fast():
    """Memory where there is some: what is measured is the search, not how fast a disk syncs."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="5 seeds and a smaller budget; within four minutes")
    parser.add_argument("--seeds", type=int, help="repeats (default 5 with --quick, else 20)")
    parser.add_argument("--budget", type=float, help="cost of an arm in full-stage evaluations")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="campaigns at a time")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--on", choices=("synthetic", "joint"), default="synthetic")
    parser.add_argument("--options", default="{}", help="JSON options of the joint benchmark")
    parser.add_argument("--llm", help="with --on joint: OpenAI-compatible server")
    parser.add_argument("--model", help="with --on joint: the model's name there")
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    if arguments.on == "joint" and not arguments.llm and any(ARMS[a]["llm"] for a in arguments.arms):
        parser.error("--on joint: give --llm, or only arms without a language model")
    seeds = range(arguments.seeds or (5 if arguments.quick else 20))
    budget = arguments.budget or (100.0 if arguments.quick else 200.0)
    began = time.monotonic()
    with Oracle() as oracle, tempfile.TemporaryDirectory(dir=_fast()) as folder:
        if arguments.on == "synthetic":
            task = Task("synthetic", {}, budget, {"base_url": oracle.url, "model": "oracle"})
            unit = "regret (loss above the optimum)"
        else:
            task = Task(
                "joint", json.loads(arguments.options), budget, {"base_url": arguments.llm, "model": arguments.model}
            )
            unit = f"improvement in {task.benchmark.metric}, negative"
        print(
            f"{task.name}: {unit}; budget {budget:g} full evaluations, {len(seeds)} seeds; IQM, 95 % bootstrap interval"
        )
        print(f"{'arm':18s}{'at 25 %':>10s}{'at 50 %':>10s}{'at 75 %':>10s}{'at the end':>12s}  interval")
        results = {}
        with concurrent.futures.ProcessPoolExecutor(arguments.workers, mp_context=mp.get_context("spawn")) as pool:
            settings = (task.name, task.options, budget, task.llm, folder)
            jobs = {arm: [pool.submit(one_curve, settings, arm, seed) for seed in seeds] for arm in arguments.arms}
            for arm in arguments.arms:
                curves = [job.result() for job in jobs[arm]]
                finals = [at(c, budget) for c in curves]
                low, high = bootstrap(finals)
                marks = [iqm([at(c, budget * share) for c in curves]) for share in (0.25, 0.5, 0.75)]
                shown = "".join(f"{m:10.4f}" for m in marks)
                print(f"{arm:18s}{shown}{iqm(finals):12.4f}  [{low:.4f}, {high:.4f}]", flush=True)
                results[arm] = {"finals": finals, "iqm": iqm(finals), "low": low, "high": high, "curves": curves}
        print("\nmean difference at the end, paired by seed (negative: the first is better)")
        differences = {}
        for one, other in (("evolution", "random"), ("full", "evolution"), ("full", "domain-isolated"),
                           ("full", "scalar"), ("evolution", "evolution-scalar"), ("full", "no-analyze"),
                           ("full", "no-hypotheses"), ("full", "no-explanations")):  # fmt: skip
            if one in results and other in results:
                gaps = np.subtract(results[one]["finals"], results[other]["finals"])
                low, high = bootstrap(gaps, np.mean)
                differences[f"{one} - {other}"] = [float(gaps.mean()), low, high]
                print(f"{one + ' - ' + other:28s}{gaps.mean():+9.4f}  [{low:+.4f}, {high:+.4f}]")
        interactions = {}
        if arguments.on == "synthetic":
            optimum = task.baseline
            for name, params in task.benchmark.optimum().items():
                optimum = optimum.replace(type(optimum[name])(name, params, optimum[name].files))
            for name, interval in factorial(task, optimum, range(8)).items():
                interactions[name] = [interval.mean, interval.low, interval.high]
            print("\n2^3 factorial, baseline against the optimum, effect on the loss and 95 % interval")
            for name, (mean, low, high) in interactions.items():
                print(f"{name:32s}{mean:+9.4f}  [{low:+.4f}, {high:+.4f}]")
    print(f"\n{time.monotonic() - began:.0f} s")
    if arguments.json:
        data = {"budget": budget, "on": arguments.on, "arms": results, "differences": differences,
                "factorial": interactions}  # fmt: skip
        Path(arguments.json).write_text(json.dumps(data, indent=1))
    for arm, r in results.items():
        row = {"arm": arm, "seeds": len(seeds), "iqm": r["iqm"], "low": r["low"], "high": r["high"]}
        print(json.dumps(row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
