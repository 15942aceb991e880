"""Runs benchmarks and keeps what they print: bench/results/<name>.json and <name>.md, with machine and versions.

    python bench/run.py [NAME ...] [--full]

Without names: those of `make bench`, in their quick form, under ten minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
QUICK = ("linear_attention", "pareto", "engine_overhead", "rl_graph", "cuda_static")
LONG = (
    "search_efficiency",
    "architectures",
    "data_curation",
    "rl_training",
    "lm_signal",
    "estimates",
)  # these train: minutes to an hour
NEEDS = {"cuda_static": "nvcc"}  # a program without which a benchmark says nothing
PLAIN = ("cuda_static", "lm_signal")  # have no quick form


def machine():
    import torch

    from asi_evolve import _native

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((x.split(":")[1].strip() for x in lines if "model name" in x), "unknown")
    packages = ("torch", "numpy", "faiss-cpu", "moocore", "pymoo", "openevolve", "gymnasium")
    versions = {}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "none"
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "load": f"{os.getloadavg()[0]:.1f}",
        "isa": _native.isa(),
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **versions,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join((*QUICK, *LONG))}")
    parser.add_argument("--full", action="store_true", help="all sizes; takes longer than ten minutes")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - {*QUICK, *LONG}
    if unknown:
        parser.error(f"{sorted(unknown)[0]!r} is not one of {', '.join((*QUICK, *LONG))}")
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    for name in arguments.names or QUICK:
        print(f"\n## {name}\n", flush=True)
        if name in NEEDS and shutil.which(NEEDS[name]) is None:
            print(f"left out: there is no {NEEDS[name]}")
            continue
        facts = machine()
        quick = [] if arguments.full or name in PLAIN else ["--quick"]
        file = results / f"{name}.json"
        command = [sys.executable, str(HERE / f"{name}.py"), "--json", str(file), *quick]
        lines = []
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                print(line, end="", flush=True)
                lines.append(line)
        if process.returncode:
            raise SystemExit(f"{name}: failed with exit code {process.returncode}")
        measured = json.loads(file.read_text())
        file.write_text(json.dumps({"machine": facts, "quick": bool(quick), "measured": measured}, indent=1) + "\n")
        shown = " ".join(["python", f"bench/{name}.py", *quick])
        about = ", ".join(f"{k} {v}" for k, v in facts.items())
        (results / f"{name}.md").write_text(f"# `{shown}`\n\n{about}\n\n```\n{''.join(lines)}```\n")


if __name__ == "__main__":
    main()
