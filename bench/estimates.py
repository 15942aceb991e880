"""How good are the estimates before training? Measured / estimated, for every reference mechanism and several sizes.

    python bench/estimates.py [--quick] [--steps 30] [--json FILE]

Each row is one training in a sandbox, as the benchmark runs it. A ratio between 0.5 and 2 is what is promised.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from asi_evolve.candidate import Edit, thaw
from asi_evolve.domains.algorithm import AlgorithmDomain
from asi_evolve.domains.architecture import ArchitectureDomain, estimate_training, machine_rates, model_files
from asi_evolve.domains.architecture.domain import REFERENCES
from asi_evolve.execution import Limits, Sandbox
from asi_evolve.execution.limits import MEBIBYTE

DOMAIN, ALGORITHM = ArchitectureDomain(10**9), AlgorithmDomain().baseline()
SIZES: list[tuple[dict[str, Any], int, int]] = [  # parameters, sequence length, batch
    ({"layers": 2, "width": 64}, 128, 16),
    ({"layers": 4, "width": 128}, 128, 16),
    ({"layers": 6, "width": 64, "heads": 2}, 256, 8),
]
COUNT = """
import torch
from asi_evolve.domains.lm_runner import _flops, _model
def count(architecture, length):
    model = _model(architecture, length, 0, 1)
    tokens = torch.zeros(1, length, dtype=torch.long)
    return {"parameters": sum(p.numel() for p in model.parameters()), "flops_per_token": _flops(model, tokens)}
"""


def measured(sandbox: Sandbox, params: dict[str, Any], length: int, batch: int, steps: int) -> dict[str, float]:
    """What one training takes, under the names of an Estimate. Raises RuntimeError when it does not run."""
    component = DOMAIN.apply(DOMAIN.baseline(), Edit(params=params))
    inputs = {
        "architecture": thaw(component.params),
        "spec": {**thaw(ALGORITHM.params), "batch_size": batch},
        "windows": np.random.default_rng(0).integers(32, 127, (steps * batch, length + 1)).astype(np.uint8),
        "seed": 0,
        "threads": 1,
        "limit": 10**9,
    }
    source = "from asi_evolve.domains.lm_runner import train\n"
    files = model_files(component)
    result = sandbox.run(source, "train", inputs, files={**files, **ALGORITHM.files})
    counted = sandbox.run(COUNT, "count", {"architecture": inputs["architecture"], "length": length}, files=files)
    if not (result.ok and counted.ok):
        raise RuntimeError(result.error or counted.error)
    usage = result.usage
    return {**counted.value, "peak_memory_mb": usage.max_rss_bytes / MEBIBYTE, "seconds": usage.cpu_seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the smallest size alone")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rates, sandbox = machine_rates(), Sandbox("auto", Limits(wall_seconds=600))
    print(
        f"{rates.flops / 1e9:.0f} GFLOP/s, {rates.floats / 1e9:.1f} G floats/s, {rates.call * 1e6:.1f} us per operator"
    )
    print(f"start {rates.start:.1f} s, {rates.resident_mb:.0f} MiB; {arguments.steps} steps; measured / estimated\n")
    names = ("parameters", "flops_per_token", "peak_memory_mb", "seconds")
    print(f"{'mechanism':40s}{'layers x width':>15s}{'n x batch':>11s}" + "".join(f"{n:>24s}" for n in names))
    rows: list[dict[str, Any]] = []
    for params, length, batch in SIZES[: 1 if arguments.quick else None]:
        for slot, known in REFERENCES.items():
            for name in known if slot == "token_mixing" else known[1:]:
                own = {**DOMAIN.baseline().params, **params, slot: name}
                expected = vars(estimate_training(own, length=length, batch=batch, steps=arguments.steps, rates=rates))
                found = measured(sandbox, {**params, slot: name}, length, batch, arguments.steps)
                size = f"{params['layers']} x {params['width']}"
                cells = [f"{found[n]:.0f}" if found[n] >= 1000 else f"{found[n]:.2f}" for n in names]
                shown = [f"{c} ({found[n] / expected[n]:.2f})" for c, n in zip(cells, names, strict=True)]
                print(f"{slot + ': ' + name:40s}{size:>15s}{f'{length} x {batch}':>11s}", end="")
                print("".join(f"{s:>24s}" for s in shown), flush=True)
                rows.append({"slot": slot, "name": name, **params, "length": length, "batch": batch}
                            | {n: {"measured": found[n], "estimated": expected[n]} for n in names})  # fmt: skip
    print()
    for n in names:
        ratios = [r[n]["measured"] / r[n]["estimated"] for r in rows]
        print(f"{n:16s} measured / estimated: {min(ratios):.2f} to {max(ratios):.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"rates": vars(rates), "steps": arguments.steps, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
