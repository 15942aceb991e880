"""Does curation pay? Reference pipelines against uniform sampling at equal training bytes, on the default corpus.

    python bench/data_curation.py [--steps 600] [--seeds 5] [--workers 2] [--quick] [--json FILE]

Held-out bits per byte (English documentation text) of the baseline model trained on what each pipeline selects; the
paired difference from uniform sampling with its 95 % interval over seeds. `heuristics + dedup` is the reference of the
issue: published rules and near-deduplication, nothing tuned on the held-out text.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from asi_evolve.candidate import Candidate, Edit
from asi_evolve.domain import Stage
from asi_evolve.domains.corpus_statistics import NAMES
from asi_evolve.domains.data import select
from asi_evolve.domains.data.pipeline import LIKE_REFERENCE
from asi_evolve.domains.lm import LanguageModelBenchmark
from asi_evolve.execution.pool import LocalPool, benchmark_spec
from asi_evolve.fitness import improvements, t_interval

PIPELINES: dict[str, dict[str, Any]] = {
    "uniform": {},
    "near-deduplication": {"deduplicate": "near"},
    "C4 rules": {"rules": "c4"},
    "Gopher rules": {"rules": "gopher"},
    "FineWeb rules": {"rules": "fineweb"},
    "heuristics + dedup": {"rules": "gopher", "min_stop_words": 0.1, "max_symbol": 0.2, "deduplicate": "near"},
    "classifier + dedup": {
        "quality": "classifier",
        "reference": "docstrings",
        "quality_strength": 2.0,
        "deduplicate": "near",
    },
    "likelihood + dedup": {
        "quality": "likelihood",
        "reference": "docstrings",
        "quality_strength": 2.0,
        "deduplicate": "near",
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="60 steps, 2 seeds, uniform and heuristics + dedup")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    steps, seeds = (60, range(2)) if arguments.quick else (arguments.steps, range(arguments.seeds))
    names = ("uniform", "heuristics + dedup") if arguments.quick else tuple(PIPELINES)
    benchmark = LanguageModelBenchmark(full_steps=steps)
    benchmark.prepare()
    corpus = benchmark.corpus()
    domain = benchmark.domains()[2]
    baseline = Candidate([d.baseline() for d in benchmark.domains()])
    candidates = {n: baseline.replace(domain.apply(baseline.data, Edit(params=PIPELINES[n]))) for n in names}
    stage = Stage("full", 1.0, 900)
    with LocalPool(benchmark_spec(benchmark), benchmark.options, "judge", workers=arguments.workers) as pool:
        jobs = {(n, s): pool.submit(candidates[n], stage, s) for s in seeds for n in names}
        done = {key: job.result() for key, job in jobs.items()}
    m = corpus.manifest
    print(
        f"pool {m['pool']['bytes'] / 1e6:.1f} MB in {m['pool']['documents']} documents, "
        f"{m['pool']['near_duplicates']} near-duplicates, {m['pool']['dropped_for_held_out']} dropped for overlap with "
        f"{m['held_out']['bytes'] / 1e6:.2f} MB held out; "
        f"{steps} steps of {benchmark.batch_size} x {benchmark.length} bytes"
    )
    print(f"{'pipeline':22s}{'documents':>11s}{'bytes':>9s}{'bits/byte':>11s}{'less than uniform (95 %)':>32s}")
    own = {s: done["uniform", s].metrics for s in seeds}
    rows = []
    statistics = {n: corpus.statistics[:, i] for i, n in enumerate(NAMES)}
    sizes = statistics["bytes"]
    for n in names:
        params = dict(candidates[n].data.params)
        known = dict(statistics)
        if params["quality"] in LIKE_REFERENCE:
            known |= dict(zip(LIKE_REFERENCE, corpus.reference_scores(params["reference"]).T, strict=True))
        groups = (corpus.exact_groups, corpus.near_groups)
        kept = select(known, corpus.source_ids, corpus.sources, *groups, params=params).documents
        row: dict[str, Any] = {"pipeline": n, "documents": len(kept), "bytes": float(sizes[kept].sum())}
        failed = [done[n, s].message for s in seeds if done[n, s].status != "ok"]
        if failed:
            print(f"{n:22s} failed: {failed[0].strip().splitlines()[-1][:90]}")
            rows.append({**row, "failed": failed[0]})
            continue
        metrics = {s: done[n, s].metrics for s in seeds}
        bits = float(np.mean([x["bits_per_byte"] for x in metrics.values()]))
        gain = t_interval(improvements(metrics, own, "bits_per_byte", maximize=False))
        less = "" if n == "uniform" else f"{gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
        print(f"{n:22s}{len(kept):11d}{row['bytes'] / 1e6:7.1f}MB{bits:11.4f}{less:>32s}")
        rows.append({**row, "bits_per_byte": bits, "gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high})
    if arguments.json:
        arguments.json.write_text(json.dumps({"steps": steps, "seeds": len(seeds), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
