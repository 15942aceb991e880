"""Every reference mechanism of the architecture domain at equal parameters and equal training bytes.

    python bench/architectures.py [--steps 600] [--seeds 3] [--quick] [--workers 2] [--json FILE]

One mechanism differs from the baseline at a time; the hidden size of the MLP makes up for the parameters it has more or
less (none where the MLP itself is what differs: these have the baseline's count to within a few per cent of the hidden
size's step of 8). Prints held-out bits per byte with its 95 % interval over seeds, the paired difference from the
baseline with its interval, and CPU seconds of training relative to the baseline's.
"""

from __future__ import annotations

import argparse
import json
import statistics
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from asi_evolve.candidate import Candidate, Component, Edit, thaw
from asi_evolve.domain import Stage
from asi_evolve.domains.architecture.domain import REFERENCES, ArchitectureDomain
from asi_evolve.domains.lm import LanguageModelBenchmark
from asi_evolve.execution.pool import EvaluationOutcome, LocalPool, benchmark_spec
from asi_evolve.fitness import improvements, t_interval

DOMAIN = ArchitectureDomain()


def parameters(component: Component) -> int:
    """Exact parameter count of a model, from building it."""
    import importlib.util
    import sys
    import tempfile

    from asi_evolve.domains.architecture import model_files

    with tempfile.TemporaryDirectory() as directory:
        for path, text in model_files(component).items():
            (Path(directory) / path).parent.mkdir(exist_ok=True)
            (Path(directory) / path).write_text(text)
        where = Path(directory) / "model" / "__init__.py"
        spec = importlib.util.spec_from_file_location("model", where, submodule_search_locations=[str(where.parent)])
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["model"] = module
        try:
            spec.loader.exec_module(module)
            return sum(p.numel() for p in module.build(thaw(component.params), 128).parameters())
        finally:
            for name in [n for n in sys.modules if n == "model" or n.startswith("model.")]:
                del sys.modules[name]


def matched(component: Component, target: int) -> Component:
    """The component with an MLP as wide as brings the model's parameters nearest to ``target``."""
    best = component
    for hidden in range(16, 8 * component.params["width"], 8):
        ratio = hidden / component.params["width"]
        other = Component("architecture", {**component.params, "mlp_ratio": ratio}, component.files)
        if abs(parameters(other) - target) < abs(parameters(best) - target):
            best = other
        elif parameters(other) > target:
            break
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="token mixing alone, 60 steps")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    steps = 60 if arguments.quick else arguments.steps
    benchmark = LanguageModelBenchmark(full_steps=steps)
    benchmark.prepare()
    baseline = Candidate([d.baseline() for d in benchmark.domains()])
    target = parameters(baseline.architecture)
    entries: dict[str, Candidate] = {"baseline": baseline}
    for slot, names in REFERENCES.items():
        if arguments.quick and slot != "token_mixing":
            continue
        for name in names[1:]:
            component = matched(DOMAIN.apply(baseline.architecture, Edit(params={slot: name})), target)
            entries[f"{slot}: {name}"] = baseline.replace(component)
    stage, seeds = Stage("full", 1.0, 600), range(arguments.seeds)
    jobs: dict[tuple[str, int], Future[EvaluationOutcome]] = {}
    with LocalPool(benchmark_spec(benchmark), benchmark.options, "judge", workers=arguments.workers) as pool:
        for seed in seeds:  # a seed of all before the next one: what the machine does hits all alike
            for name, candidate in entries.items():
                jobs[name, seed] = pool.submit(candidate, stage, seed)
        done = {key: job.result() for key, job in jobs.items()}
    print(
        f"{steps} steps of {benchmark.batch_size} x {benchmark.length} bytes, {arguments.seeds} seeds, baseline: ",
        end="",
    )
    print(", ".join(names[0] for names in REFERENCES.values()))
    print(f"{'mechanism':38s}{'parameters':>11s}{'bits/byte':>17s}{'less than baseline':>23s}{'CPU time':>10s}")
    rows: list[dict[str, Any]] = []
    own = {s: done["baseline", s].metrics for s in seeds}
    for name, candidate in entries.items():
        failed = [done[name, s].message for s in seeds if done[name, s].status != "ok"]
        if failed:
            print(f"{name:38s} failed: {failed[0].strip().splitlines()[-1][:80]}")
            rows.append({"name": name, "failed": failed[0]})
            continue
        metrics = {s: done[name, s].metrics for s in seeds}
        bits = t_interval([m["bits_per_byte"] for m in metrics.values()])
        gain = t_interval(improvements(metrics, own, "bits_per_byte", maximize=False))
        time = statistics.median(metrics[s]["train_seconds"] / own[s]["train_seconds"] for s in seeds)
        count = parameters(candidate.architecture)
        value = f"{bits.mean:.4f} +- {bits.high - bits.mean:.4f}"
        less = "" if name == "baseline" else f"{gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
        print(f"{name:38s}{count:11d}{value:>17s}{less:>27s}{time:8.2f}x")
        row = {"name": name, "parameters": count, "bits_per_byte": bits.mean, "half_width": bits.high - bits.mean}
        rows.append({**row, "gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high, "cpu_ratio": time})
    if arguments.json:
        arguments.json.write_text(json.dumps({"steps": steps, "seeds": arguments.seeds, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
