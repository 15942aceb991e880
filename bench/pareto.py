"""Non-dominated sorting and the incremental front against moocore and pymoo, on one thread, in one run.

    python bench/pareto.py [--quick] [--json FILE]

Prints microseconds (median over repeats) and the ratio to the faster peer; above 1 is faster than it. Results of all
are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import moocore
import numpy as np
from pymoo.functions import is_compiled
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from asi_evolve import pareto


def inputs(kind, n, m, rng):
    x = rng.random((n, m))
    if kind == "one front":
        x[:, 0] -= x.sum(1)
    elif kind == "chain":
        x = np.arange(n)[rng.permutation(n), None] + 0.1 * x
    elif kind == "duplicates":
        x = x[rng.integers(0, max(1, n // 20), n)]
    return np.ascontiguousarray(x)


def pymoo_ranks(F):
    ranks = np.empty(len(F), np.int32)
    for r, members in enumerate(NonDominatedSorting().do(F), 1):
        ranks[members] = r
    return ranks


def median_seconds(call, budget):
    call()
    times, spent = [], 0.0
    while (spent < budget and len(times) < 200) or len(times) < 3:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
        spent += times[-1]
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100 000 points for M = 2 and 3 on uniform inputs only")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    rows = []
    print(f"pymoo compiled: {is_compiled()}; moocore {moocore.__version__}; times in microseconds")
    print(f"{'input':11s} {'N':>7s} {'M':>2s} {'ours':>11s} {'moocore':>11s} {'pymoo':>11s} {'ratio':>7s}")
    for kind in ("uniform", "one front", "chain", "duplicates"):
        for m in (2, 3, 5):
            for n in (100, 1000, 10_000, 100_000):
                if n == 100_000 and arguments.quick and (kind != "uniform" or m == 5):
                    continue
                if kind == "one front" and m == 5 and n > 10_000:
                    continue  # a quarter of an hour for every peer
                F = inputs(kind, n, m, rng)
                ranks = pareto.rank(F)
                assert np.array_equal(ranks, 1 + moocore.pareto_rank(F))
                budget = 0.15 if n < 10_000 else 0.5
                ours = median_seconds(lambda F=F: pareto.rank(F), budget)
                theirs = {"moocore": median_seconds(lambda F=F: moocore.pareto_rank(F), budget)}
                if n <= 1000:  # quadratic
                    assert np.array_equal(ranks, pymoo_ranks(F))
                    theirs["pymoo"] = median_seconds(lambda F=F: NonDominatedSorting().do(F), budget)
                ratio = min(theirs.values()) / ours
                pymoo = f"{theirs['pymoo'] * 1e6:11.1f}" if "pymoo" in theirs else f"{'-':>11s}"
                times = f"{ours * 1e6:11.1f} {theirs['moocore'] * 1e6:11.1f} {pymoo}"
                print(f"{kind:11s} {n:7d} {m:2d} {times} {ratio:6.2f}x", flush=True)
                rows.append({"input": kind, "n": n, "m": m, "ours": ours, **theirs, "ratio": ratio})
    print("\nFront.insert, M = 3, uniform: median microseconds of an insertion into N points")
    inserts = []
    for n in (1000, 10_000, 100_000):
        front = pareto.Front(3)
        for f in rng.random((n, 3)):
            front.insert(f)
        points = rng.random((500, 3))
        times = []
        for f in points:
            began = time.perf_counter()
            front.insert(f)
            times.append(time.perf_counter() - began)
        print(f"{n:7d} {statistics.median(times) * 1e6:9.1f}", flush=True)
        inserts.append({"n": n, "median": statistics.median(times)})
    if arguments.json:
        arguments.json.write_text(json.dumps({"sort": rows, "insert": inserts}, indent=1))


if __name__ == "__main__":
    main()
