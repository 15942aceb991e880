"""``asi-evolve bench-domain``: can a benchmark be trusted?

The baseline and varied candidates of one domain, at the cheap and at the full stage: levels with their noise, what an
evaluation costs, and whether the cheap stage ranks candidates as the full one does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

import numpy as np
from scipy import stats

from asi_evolve.benchmarks import load_benchmark
from asi_evolve.candidate import Candidate
from asi_evolve.domain import Benchmark, Stage
from asi_evolve.errors import EvaluationFailure
from asi_evolve.execution.pool import LocalPool, benchmark_spec
from asi_evolve.fitness import Interval, t_interval

_ISOLATED, _FULL = Stage("isolated", 0.12, 120), Stage("full", 1.0, 900)


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        benchmark: name and options. vary: the domains that change.
        isolated, full: the two stages. seeds: repeats at the full stage. candidates: besides the baseline.
    """

    benchmark: str
    vary: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    isolated: Stage = _ISOLATED
    full: Stage = _FULL
    seeds: int = 3
    candidates: int = 14


def _plans() -> dict[str, tuple[Plan, Plan]]:
    """By name: the whole plan and the quick one."""
    every = ("architecture", "algorithm", "data")
    short = {"full_steps": 100, "held_out_windows": 128}
    early = Stage("isolated", 0.3, 120)
    plans = {
        name: (
            Plan("lm", domains),
            Plan("lm", domains, short, isolated=early, seeds=2, candidates=4),
        )
        for name, domains in (("architecture", every[:1]), ("data", every[2:]))
    }
    plans["triple"] = (
        Plan("joint", every),
        Plan("joint", every, {**short, "answers": 512}, isolated=early, seeds=2, candidates=2),
    )
    cart_pole = {"environments": ["CartPole-v1"], "full_steps": 20_000}
    plans["algorithm"] = (
        Plan("rl", ("algorithm",), {"environments": ["CartPole-v1", "Acrobot-v1"]}, seeds=5),
        Plan("rl", ("algorithm",), cart_pole, isolated=early, seeds=2, candidates=4),
    )
    return plans


NAMES = ("architecture", "algorithm", "data", "triple")


def varied(benchmark: Benchmark, names: tuple[str, ...], count: int, seed: int = 0) -> list[Candidate]:
    """Valid candidates one to four random edits away from the baseline in each of the named domains."""
    domains = {d.name: d for d in benchmark.domains()}
    base = Candidate([d.baseline() for d in domains.values()])
    found: dict[str, Candidate] = {}
    rng = np.random.default_rng(seed)
    while len(found) < count:
        candidate = base
        for name in names:
            for _ in range(1 + len(found) % 4):
                component = candidate[name]
                component = domains[name].apply(component, domains[name].mutate(component, rng))
                domains[name].validate(component)
                candidate = candidate.replace(component)
        if candidate != base:
            found.setdefault(candidate.hash, candidate)
    return list(found.values())


def rank_correlation(pairs: list[tuple[float, float]]) -> tuple[float, float, float] | None:
    """Kendall's tau-b with its 95 % interval (percentile bootstrap over candidates, 2000 draws); None below 4 pairs or
    where one side is constant."""
    x = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    if len(x) < 4 or np.ptp(x, axis=0).min() == 0:
        return None
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(2000):
        sample = x[rng.integers(len(x), size=len(x))]
        tau = float(stats.kendalltau(sample[:, 0], sample[:, 1]).statistic)
        if not math.isnan(tau):
            draws.append(tau)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(stats.kendalltau(x[:, 0], x[:, 1]).statistic), float(low), float(high)


def bench_domain(
    name: str,
    quick: bool,
    workers: int,
    show: Callable[[str], None],
    *,
    seeds: int | None = None,
    candidates: int | None = None,
) -> dict[str, Any]:
    """Measures and shows the table of one domain; returns everything measured, JSON-able.

    Args:
        name: one of :data:`NAMES`. quick: small budgets, within three minutes.
        workers: evaluations at a time. show: gets the table line by line.
        seeds, candidates: repeats at the full stage and varied candidates, where not the plan's.

    Raises:
        ConfigError: the benchmark needs something that is not installed. EvaluationFailure: the baseline failed.
    """
    plan = _plans()[name][int(quick)]
    plan = replace(plan, seeds=seeds or plan.seeds, candidates=candidates or plan.candidates)
    benchmark = load_benchmark(plan.benchmark, plan.options)
    benchmark.prepare()
    base = Candidate([d.baseline() for d in benchmark.domains()])
    measured = [base, *varied(benchmark, plan.vary, plan.candidates)]
    settings = ", ".join(f"{k} {v}" for k, v in plan.options.items()) or "default settings"
    show(f"{name}: benchmark {plan.benchmark} ({settings}), {benchmark.metric}, 95 % intervals over seeds")
    spec, options, isolation = benchmark_spec(benchmark), dict(benchmark.options), benchmark.isolation
    with LocalPool(spec, options, isolation, workers=workers) as pool:
        cheap = [pool.submit(c, plan.isolated, 0) for c in measured]
        dear = [[pool.submit(c, plan.full, s) for s in range(plan.seeds)] for c in measured]
        show(f"{'candidate':>10s}{'isolated':>11s}{'full':>24s}{'seconds':>16s}  changes")
        rows: list[dict[str, Any]] = []
        for number, candidate in enumerate(measured):
            first, repeats = cheap[number].result(), [job.result() for job in dear[number]]
            good = [r.metrics[benchmark.metric] for r in repeats if r.status == "ok"]
            interval = t_interval(good)
            failure = next((r for r in (first, *repeats) if r.status != "ok"), None)
            if number == 0 and failure is not None:
                raise EvaluationFailure(failure.failure_kind or "internal", f"the baseline failed: {failure.message}")
            changes = "; ".join(" ".join(base[d].diff(candidate[d]).split()) for d in candidate.changed(base))
            row = {
                "candidate": "baseline" if number == 0 else f"{number}",
                "isolated": first.metrics.get(benchmark.metric) if first.status == "ok" else None,
                "full": good,
                "mean": interval.mean if good else None,
                "half_width": interval.high - interval.mean if len(good) > 1 else None,
                "isolated_seconds": first.wall_seconds,
                "full_seconds": fmean(r.wall_seconds for r in repeats),
                "failure": None if failure is None else failure.failure_kind,
                "changes": changes,
            }
            rows.append(row)
            show(_line(row, interval))
    pairs = [(r["isolated"], r["mean"]) for r in rows if r["isolated"] is not None and len(r["full"]) == plan.seeds]
    tau = rank_correlation(pairs)
    if tau is None:
        show(f"Kendall's tau isolated -> full: {len(pairs)} candidates with both are too few to say")
    else:
        show(f"Kendall's tau isolated -> full: {tau[0]:.2f} [{tau[1]:.2f}, {tau[2]:.2f}], {len(pairs)} candidates")
    noise = np.std(rows[0]["full"], ddof=1) if len(rows[0]["full"]) > 1 else math.nan
    spread = np.std([r["mean"] for r in rows if r["mean"] is not None], ddof=1)
    show(f"deviation over seeds (baseline) {noise:.4f}, over candidates {spread:.4f}")
    return {"domain": name, "benchmark": plan.benchmark, "options": dict(plan.options), "rows": rows, "tau": tau}


def _line(row: Mapping[str, Any], interval: Interval) -> str:
    isolated = "failed" if row["isolated"] is None else f"{row['isolated']:.4f}"
    full = "failed" if row["mean"] is None else f"{row['mean']:.4f}"
    full += f" +- {row['half_width']:.4f}" if row["half_width"] is not None else ""
    seconds = f"{row['isolated_seconds']:.1f} / {row['full_seconds']:.1f}"
    note = f"({row['failure']}) " if row["failure"] else ""
    return f"{row['candidate']:>10s}{isolated:>11s}{full:>24s}{seconds:>16s}  {note}{row['changes'][:90]}"
