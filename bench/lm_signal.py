"""Is the signal there? Known-good and known-bad changes of each domain against the baseline, by stage and seed.

    python bench/lm_signal.py [--seeds 3] [--budgets 0.12 1.0] [--workers 2] [--cache DIR] [--json FILE]

Prints per change the mean bits per byte, the deviation over seeds, and the mean paired difference from the baseline
with its standard error: a change matters where the difference is several standard errors.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from asi_evolve.candidate import Candidate, Edit
from asi_evolve.domain import Stage
from asi_evolve.domains.lm import LanguageModelBenchmark
from asi_evolve.execution.pool import LocalPool, benchmark_spec

CURATED = {"deduplicate": "near", "quality": "prose", "quality_strength": 1.0, "weight_docstrings": 8.0}
DIGITS = 'def score(doc):\n    t = doc["text"]\n    return sum(c.isdigit() for c in t) / (1 + len(t))\n'
CHANGES: dict[str, dict[str, Edit]] = {
    "baseline": {},
    "data: curated": {"data": Edit(params=CURATED)},
    "data: headers only": {
        "data": Edit(
            params={f"weight_{n}": 0.0 for n in LanguageModelBenchmark().domains()[2].sources if n != "headers"}
        )
    },
    "data: most digits (code)": {"data": Edit(files={"score.py": DIGITS})},
    "algorithm: rate 0.004": {"algorithm": Edit(params={"learning_rate": 0.004})},
    "algorithm: rate 0.004, cosine": {
        "algorithm": Edit(params={"learning_rate": 0.004, "schedule": "cosine", "warmup": 0.05})
    },
    "algorithm: muon 0.01, linear": {
        "algorithm": Edit(params={"optimizer": "muon", "learning_rate": 0.01, "schedule": "linear", "warmup": 0.05})
    },
    "algorithm: sgd 0.001": {"algorithm": Edit(params={"optimizer": "sgd"})},
    "architecture: rope": {"architecture": Edit(params={"position": "rope"})},
    "architecture: convolution": {"architecture": Edit(params={"token_mixing": "convolution", "window": 8})},
    "architecture: linear attention": {"architecture": Edit(params={"token_mixing": "linear_attention"})},
    "architecture: post-norm": {"architecture": Edit(params={"connectivity": "post_norm"})},
    "architecture: 1 layer of 32": {"architecture": Edit(params={"layers": 1, "width": 32})},
    "triple: curated, cosine, rope": {
        "data": Edit(params=CURATED),
        "algorithm": Edit(params={"learning_rate": 0.004, "schedule": "cosine", "warmup": 0.05}),
        "architecture": Edit(params={"position": "rope"}),
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.12, 1.0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*", help="changes whose names hold one of these words, and the baseline")
    parser.add_argument("--cache")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    benchmark = LanguageModelBenchmark(cache=arguments.cache)
    benchmark.prepare()
    domains = {d.name: d for d in benchmark.domains()}
    baseline = Candidate([d.baseline() for d in domains.values()])
    rows = []
    for budget in arguments.budgets:
        stage = Stage(f"budget {budget:g}", budget, 600)
        jobs = {}
        began = time.monotonic()
        with LocalPool(benchmark_spec(benchmark), benchmark.options, "judge", workers=arguments.workers) as pool:
            for name, edits in CHANGES.items():
                if arguments.only and name != "baseline" and not any(word in name for word in arguments.only):
                    continue
                changed = [domains[d].apply(baseline[d], edit) for d, edit in edits.items()]
                for component in changed:
                    domains[component.domain].validate(component)
                for seed in range(arguments.seeds):
                    jobs[name, seed] = pool.submit(baseline.replace(*changed), stage, seed)
            outcomes = {key: job.result() for key, job in jobs.items()}
        print(f"\nbudget {budget:g}, {arguments.seeds} seeds, {time.monotonic() - began:.0f} s in all")
        print(f"{'change':32s} {'bits/byte':>9s} {'sd':>6s} {'vs base':>8s} {'se':>6s} {'cpu s':>6s} {'wall s':>6s}")
        base = {s: o.metrics.get("bits_per_byte") for (n, s), o in outcomes.items() if n == "baseline"}
        for name in dict.fromkeys(n for n, _ in outcomes):
            mine = {s: o for (n, s), o in outcomes.items() if n == name}
            bad = [o for o in mine.values() if o.status != "ok"]
            if bad:
                print(f"{name:32s} {bad[0].failure_kind}: {bad[0].message.strip().splitlines()[-1][:100]}")
                continue
            bits = [o.metrics["bits_per_byte"] for o in mine.values()]
            deltas = [o.metrics["bits_per_byte"] - base[s] for s, o in mine.items()]
            spread = statistics.stdev(bits) if len(bits) > 1 else 0.0
            error = statistics.stdev(deltas) / len(deltas) ** 0.5 if len(deltas) > 1 else 0.0
            cpu = statistics.fmean(o.metrics["train_seconds"] for o in mine.values())
            wall = statistics.fmean(o.wall_seconds for o in mine.values())
            mean, delta = statistics.fmean(bits), statistics.fmean(deltas)
            print(f"{name:32s} {mean:9.4f} {spread:6.4f} {delta:+8.4f} {error:6.4f} {cpu:6.1f} {wall:6.1f}", flush=True)
            rows.append(
                {"budget": budget, "change": name, "bits": bits, "delta": delta, "se": error, "cpu": cpu, "wall": wall}
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
