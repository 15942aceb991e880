"""Runs the benchmarks and keeps what they print: bench/results/<name>.json and summary.md.

python bench/run.py [--full]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from asi_evolve import _native

HERE = Path(__file__).parent
NAMES = ("linear_attention", "pareto", "rl_graph")


def machine():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((x.split(":")[1].strip() for x in lines if "model name" in x), "unknown")
    packages = ("torch", "numpy", "moocore", "pymoo")
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "isa": _native.isa(),
        "python": platform.python_version(),
        **{p: metadata.version(p) for p in packages},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="all sizes; takes longer than ten minutes")
    arguments = parser.parse_args()
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    facts = machine()
    print(", ".join(f"{k} {v}" for k, v in facts.items()))
    parts = ["# Results of `make bench`\n", ", ".join(f"{k} {v}" for k, v in facts.items()) + "\n"]
    for name in NAMES:
        command = [sys.executable, str(HERE / f"{name}.py"), "--json", str(results / f"{name}.json")]
        command += [] if arguments.full else ["--quick"]
        print(f"\n## {name}\n", flush=True)
        lines = []
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                print(line, end="", flush=True)
                lines.append(line)
        if process.returncode:
            raise SystemExit(f"{name}: failed with exit code {process.returncode}")
        parts.append(f"## {name}\n\n```\n{''.join(lines)}```\n")
    (results / "summary.md").write_text("\n".join(parts))
    (results / "machine.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
