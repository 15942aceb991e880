"""The engine's own cost per candidate, by the size of what it knows, against OpenEvolve's database in the same run.

    python bench/engine_overhead.py [--sizes 1000 10000 100000] [--peer-sizes 1000 10000] [--json FILE]

Ours, per new candidate: take its result into ledger, ranks, crowding and novelty archive; pick 8 parents by Pareto
tournament; novelty of a proposal; assemble the context for the language model. The candidates are those of the
language-model benchmark (phi(x) has about 500 entries), bred by its operators, with made-up results; the knowledge base
is a real one, in a file. OpenEvolve, per new program: `ProgramDatabase.add` and 8 x `sample`, its population cap raised
so that it forgets nothing either. What a durable write to the knowledge base costs is a line of its own:
OpenEvolve keeps everything in memory.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import insert

from asi_evolve.campaign import Campaign
from asi_evolve.candidate import Candidate
from asi_evolve.config import Config
from asi_evolve.domains.lm import LanguageModelBenchmark
from asi_evolve.knowledge import schema
from asi_evolve.knowledge.store import Evaluation, Store
from asi_evolve.phases.learn import assemble

REPEATS = 60
PARENTS = 8


class Ours:
    """A campaign whose knowledge base is filled to a size."""

    def __init__(self, directory: Path) -> None:
        self.store = Store(directory / "run.db")
        config = Config(llm={"max_context_tokens": 1500})
        self.campaign = Campaign(config, LanguageModelBenchmark(), self.store, None, None)  # no pool: nothing runs
        self.rng = np.random.default_rng(0)
        self.base = self.campaign.baseline
        self.store.add_candidate(self.base, 0, "baseline")
        self.store.add_evaluation(self.measured(self.base))
        self.made: list[Candidate] = [self.base]

    def measured(self, candidate: Candidate) -> Evaluation:
        """A made-up result that depends on the candidate alone."""
        draw = np.random.default_rng(int(candidate.hash[:12], 16))
        metrics = {
            "bits_per_byte": 4.0 + 0.2 * draw.normal(),
            "train_seconds": float(draw.lognormal(1.0, 0.4)),
            "flops_per_token": float(draw.lognormal(14.0, 0.4)),
            "peak_memory_mb": float(draw.lognormal(6.0, 0.1)),
        }
        return Evaluation(candidate.hash, "isolated", 0, 0, "ok", metrics)

    def breed(self) -> Candidate:
        """A new candidate: one domain of a recent one changed by the domain's own operator."""
        while True:
            parent = self.made[int(self.rng.integers(max(0, len(self.made) - 2000), len(self.made)))]
            name = str(self.rng.choice(list(self.campaign.domains)))
            domain = self.campaign.domains[name]
            child = parent.replace(domain.apply(parent[name], domain.mutate(parent[name], self.rng)))
            if child.hash not in self.store.numbers:
                return child

    def fill(self, size: int) -> None:
        """To ``size`` candidates, in one transaction: not what is measured."""
        t = schema
        rows: dict[Any, list[dict[str, Any]]] = {}

        def write(table: Any, **values: Any) -> None:
            rows.setdefault(table, []).append(values)

        with self.store.transaction():
            components = {c.hash for x in self.made for c in x.components}
            while len(self.made) < size:
                candidate = self.breed()
                number = len(self.made) + 1
                for c in candidate.components:
                    if c.hash not in components:
                        components.add(c.hash)
                        write(t.components, hash=c.hash, **c.to_json())
                row = {"id": number, "hash": candidate.hash, "cycle": number // 6, "origin": "random"}
                changed = candidate.changed(self.base) or ("data",)
                write(t.candidates, **row, domain=changed[0], parents=[self.base.hash])
                for c in candidate.components:
                    link = {"candidate": candidate.hash, "domain": c.domain, "component": c.hash}
                    write(t.candidate_components, **link)
                self.store.numbers[candidate.hash] = number  # type: ignore[index]
                self.store._candidates[candidate.hash] = candidate
                e = self.measured(candidate)
                values = {"candidate": e.candidate, "stage": e.stage, "seed": e.seed, "cycle": number // 6}
                values |= {"status": "ok", "metrics": dict(e.metrics), "failure": None, "message": "", "usage": {}}
                write(t.evaluations, **values, seconds=1.0, finished=0.0)
                statement = f"Hypothesis {number} names a mechanism of the {changed[0]} domain."
                hypothesis = {
                    "id": number,
                    "key": f"design/{number}",
                    "cycle": number // 6,
                    "domain": changed[0],
                    "mechanism": "",
                }
                prediction = {"metric": "bits_per_byte", "direction": "decrease", "minimum_effect": 0.01}
                hypothesis |= {"statement": statement, "prediction": prediction, "provenance": "random"}
                write(t.hypotheses, **hypothesis)
                status = ("active", "supported", "refuted", "inconclusive")[number % 4]
                event = {"hypothesis": number, "cycle": number // 6, "status": status, "reason": "made up"}
                write(t.hypothesis_events, **event)
                self.made.append(candidate)
            for table in t.metadata.sorted_tables:  # referenced ones first
                if rows.get(table):
                    self.store._connection.execute(insert(table), rows[table])
        self.campaign.population()
        assemble(self.campaign)

    def measure(self) -> dict[str, float]:
        """Median milliseconds of the parts, and of all but the durable write."""
        parts: dict[str, list[float]] = {n: [] for n in ("write", "rank and archive", "parents", "novelty", "context")}

        def timed(name: str, work: Callable[[], Any]) -> Any:
            began = time.perf_counter()
            result = work()
            parts[name].append(1e3 * (time.perf_counter() - began))
            return result

        for _ in range(REPEATS):
            candidate, proposal = self.breed(), self.breed()
            evaluation = self.measured(candidate)

            def write(candidate: Candidate = candidate, evaluation: Evaluation = evaluation) -> None:
                with self.store.transaction():
                    self.store.add_candidate(candidate, 0, "random", "data", [self.base.hash])
                    self.store.add_evaluation(evaluation)

            timed("write", write)
            population = timed("rank and archive", self.campaign.population)
            timed("parents", lambda p=population: [p.select(3, self.rng) for _ in range(PARENTS)])
            timed("novelty", lambda p=population, c=proposal: p.novelty(c))
            timed("context", lambda: assemble(self.campaign))
            self.made.append(candidate)
        rows = list(zip(*(parts[n] for n in parts if n != "write"), strict=True))
        return {**{n: statistics.median(v) for n, v in parts.items()}, "total": statistics.median(map(sum, rows))}


def openevolve(size: int, source: str, repeats: int) -> dict[str, float]:
    """Median milliseconds of `add` and 8 x `sample` with ``size`` programs in the database."""
    logging.disable(logging.WARNING)
    from openevolve.config import DatabaseConfig
    from openevolve.database import Program, ProgramDatabase

    database = ProgramDatabase(DatabaseConfig(in_memory=True, population_size=10**9, random_seed=0))
    rng = np.random.default_rng(0)

    def program(i: int) -> Any:
        code = source + f"\n# {rng.integers(10**9)}\n" + "x = 1\n" * int(rng.integers(40))
        return Program(id=f"p{i}", code=code, generation=i // 6, metrics={"combined_score": float(rng.random())})

    for i in range(size):
        p = program(i)
        if i < 500:
            database.add(p, iteration=i, target_island=i % 5)
        else:  # the same state without the cost of `add`, which is what is measured below
            p.metadata["island"] = i % 5
            database.programs[p.id] = p
            database.islands[i % 5].add(p.id)
    adds, samples = [], []
    for i in range(size, size + repeats):
        p = program(i)
        began = time.perf_counter()
        database.add(p, iteration=i, target_island=i % 5)
        middle = time.perf_counter()
        for _ in range(PARENTS):
            database.sample()
        adds.append(1e3 * (middle - began))
        samples.append(1e3 * (time.perf_counter() - middle))
    both = [a + s for a, s in zip(adds, samples, strict=True)]
    return {"add": statistics.median(adds), "sample": statistics.median(samples), "total": statistics.median(both)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--peer-sizes", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--quick", action="store_true", help="up to 10,000 candidates")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    sizes = arguments.sizes or ([1000, 10_000] if arguments.quick else [1000, 10_000, 100_000])
    results: dict[str, Any] = {"ours": {}, "openevolve": {}}
    columns = ("rank and archive", "parents", "novelty", "context", "total", "write")
    print("Median milliseconds per candidate; total is without the durable write")
    print(f"{'candidates':>11s}" + "".join(f"{c:>18s}" for c in columns))
    with tempfile.TemporaryDirectory() as directory:
        ours = Ours(Path(directory))
        for size in sizes:
            ours.fill(size)
            row = ours.measure()
            results["ours"][size] = row
            print(f"{size:11d}" + "".join(f"{row[c]:18.3f}" for c in columns), flush=True)
        ours.store.close()
    try:
        import openevolve as _  # noqa: F401
    except ImportError:
        print("openevolve is not installed: no comparison", file=sys.stderr)
    else:
        source = "\n".join(ours.made[-1]["architecture"].files.values())
        print(f"\nOpenEvolve, the same repeated{'add':>10s}{'8 x sample':>12s}{'total':>10s}{'ratio':>9s}")
        for size in arguments.peer_sizes:
            row = openevolve(size, source, 20)
            results["openevolve"][size] = row
            mine = results["ours"].get(size)
            ratio = f"{row['total'] / mine['total']:8.0f}x" if mine else ""
            print(f"{size:29d}{row['add']:10.2f}{row['sample']:12.2f}{row['total']:10.2f}{ratio}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
