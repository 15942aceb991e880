"""What can be known of the CUDA kernels without a device: registers, local memory, shared memory, occupancy, use of the
tensor cores, and a roofline from datasheets.

    python bench/cuda_static.py [--json FILE] [--ptx]

Needs nvcc; nvdisasm (PyPI: nvidia-cuda-nvdisasm) for the instructions. Exit code 1 when a kernel spills registers, uses
local memory, asks for more shared memory than a block can have, or a tensor-core kernel has no HMMA instruction.
``--ptx`` writes the portable variant's PTX and a description of its parameters to build/ptx/ instead.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "csrc" / "linear_attention" / "cuda"
VARIANTS = {0: "portable", 1: "fma", 2: "tensor"}  # by the values of Math
SIDES = {0: "query", 1: "key"}

# CUDA C++ programming guide, "technical specifications per compute capability".
LIMITS = {
    "sm_75": {"registers": 65536, "threads": 1024, "blocks": 16, "shared": 64 * 1024, "block_shared": 64 * 1024},
    "sm_80": {"registers": 65536, "threads": 2048, "blocks": 32, "shared": 164 * 1024, "block_shared": 163 * 1024},
    "sm_90": {"registers": 65536, "threads": 2048, "blocks": 32, "shared": 228 * 1024, "block_shared": 227 * 1024},
}
RESERVED = {"sm_75": 0, "sm_80": 1024, "sm_90": 1024}  # bytes of shared memory the system takes of each block

# Datasheets: bytes/s, dense bf16 tensor and float32 FLOP/s, multiprocessors.
DEVICES = {
    "A100 80GB SXM": {"bandwidth": 2039e9, "tensor": 312e12, "fma": 19.5e12, "multiprocessors": 108},
    "H100 SXM": {"bandwidth": 3350e9, "tensor": 989e12, "fma": 67e12, "multiprocessors": 132},
}


def tool(name: str) -> str | None:
    """Path of a CUDA binary: on PATH, or in the wheel that carries it."""
    found = shutil.which(name)
    if found:
        return found
    try:
        files = metadata.files(f"nvidia-cuda-{name}") or []
    except metadata.PackageNotFoundError:
        return None
    return next((str(f.locate()) for f in files if f.name == name), None)


def run(*command: object) -> str:
    done = subprocess.run([str(x) for x in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]}: {done.stderr.strip()[-2000:]}")
    return done.stdout + done.stderr


def instance(mangled: str) -> dict[str, object] | None:
    """Kernel, variant, d and side of an Itanium-mangled name."""
    kernel = re.search(r"\d+(sums|forward|backward|scan|reduce|step)_kernel", mangled)
    if not kernel:
        return None
    found: dict[str, object] = {"kernel": kernel[1]}
    traits = re.search(r"TraitsILNS\w*?4MathE(\d)ELi(\d+)E", mangled)
    if traits:
        found |= {"variant": VARIANTS[int(traits[1])], "d": int(traits[2])}
    side = re.search(r"4SideE(\d)E", mangled)
    if side:
        found["side"] = SIDES[int(side[1])]
    if not traits:
        d = re.search(r"_kernelILi(\d+)E", mangled)
        found |= {"variant": "any", "d": int(d[1]) if d else 0}
    return found


def compile_variant(name: str, architecture: str, folder: Path) -> tuple[Path, str]:
    cubin = folder / f"{name}.{architecture}.cubin"
    log = run(
        "nvcc", "-std=c++17", "-O3", f"-arch={architecture}", "-cubin", f"-I{ROOT / 'csrc'}", "-Xptxas", "-v",
        SOURCE / f"{name}.cu", "-o", cubin,
    )  # fmt: skip
    return cubin, log


def resources(log: str) -> dict[str, dict[str, int]]:
    """By mangled name, from ptxas -v."""
    found: dict[str, dict[str, int]] = {}
    name = ""
    for line in log.splitlines():
        if match := re.search(r"Compiling entry function '(\S+)'", line):
            name = match[1]
            found[name] = {}
        elif match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            found[name] |= {"local": int(match[1]), "spills": int(match[2]) + int(match[3])}
        elif match := re.search(r"Used (\d+) registers", line):
            found[name]["registers"] = int(match[1])
    return found


def hmma(cubin: Path, disassembler: str) -> dict[str, int]:
    """Tensor-core instructions of each kernel."""
    found: dict[str, int] = {}
    name = ""
    for line in run(disassembler, "-c", cubin).splitlines():
        if match := re.match(r"\s*\.section\s+\.text\.(\w+)", line):
            name = match[1]
            found[name] = 0
        elif name and re.search(r"\b[HG]G?MMA\.", line):
            found[name] += 1
    return found


def occupancy(architecture: str, threads: int, registers: int, shared: int) -> tuple[float, int]:
    """Resident warps over the most there can be, and blocks of a multiprocessor."""
    limit = LIMITS[architecture]
    registers_a_warp = -(-registers * 32 // 256) * 256  # given out 256 at a time
    by_registers = limit["registers"] // registers_a_warp // (threads // 32)
    by_shared = limit["shared"] // (-(-shared // 128) * 128 + RESERVED[architecture]) if shared else limit["blocks"]
    blocks = min(by_registers, by_shared, limit["threads"] // threads, limit["blocks"])
    return blocks * threads / limit["threads"], blocks


def shared_bytes(x: dict[str, int], kind: str, variant: str) -> int:
    """The carve-outs of Layout in traits.cuh, by formula: what the build reports must be this."""
    d, chunk, size = x["d"], x["chunk"], 2 if variant == "tensor" else 4
    pad = 16 // size
    tile, square, inner = chunk * (d + pad) * size, d * (d + pad) * size, chunk * (chunk + pad) * size
    raw = {"sums": 2, "forward": 3, "backward": 4}[kind]
    total = x["stages"] * raw * tile + tile * (1 if kind == "sums" else 2) + 2 * d * 4 + 2 * chunk * 4
    if kind != "sums":
        total += inner * (2 if kind == "backward" else 1)
        if variant != "portable" or d < 128:
            total += square  # the state as an operand
    return total + (square if variant == "tensor" else 0)


def roofline(x: dict[str, int], variant: str, sequences: int, length: int) -> list[dict[str, object]]:
    """Forward and backward with a feature map, causal. Model, not measured."""
    d, c, size = x["d"], x["chunk"], 2 if variant == "tensor" else 4
    rows = []
    for device, facts in DEVICES.items():
        chunks = -(-length // c)
        segments = max(1, min(-(-2 * facts["multiprocessors"] // sequences), chunks // 4))
        alone = segments == 1
        state = 4 * (d * d + d)
        tokens = sequences * length
        states = 0 if alone else sequences * segments * state * 4  # sums write, scan reads and writes, read
        square, inner = 2 * d * d, 2 * c * d  # FLOP a token of a product with a square, within a chunk
        forward = {
            "bytes": tokens * size * d * (4 + (0 if alone else 2)) + states,
            "minimum": tokens * size * d * 4,
            "flop": tokens * (4 * square + 2 * inner + (0 if alone else 2 * square)),
            "useful": tokens * 4 * square,
        }
        backward = {
            "bytes": tokens * (size * d * (6 + 6 + (0 if alone else 4)) + 16) + 2 * states
            + sequences * (2 * segments + 1) * 2 * state,
            "minimum": tokens * size * d * 8,
            "flop": tokens * (13 * square + 6 * inner + (0 if alone else 4 * square)),
            "useful": tokens * 8 * square,
        }  # fmt: skip
        rate = facts["tensor" if variant == "tensor" else "fma"]
        for name, work in (("forward", forward), ("backward", backward)):
            by_memory, by_math = work["bytes"] / facts["bandwidth"], work["flop"] / rate
            rows.append(
                {
                    "pass": name, "variant": variant, "d": d, "device": device, "segments": segments, **work,
                    "intensity": work["flop"] / work["bytes"],
                    "bound": "memory" if by_memory > by_math else "math",
                    "milliseconds": 1e3 * max(by_memory, by_math),
                }
            )  # fmt: skip
    return rows


def examine() -> tuple[list[dict[str, object]], list[dict[str, object]], list[str]]:
    from asi_evolve import _native

    instances = {(k["variant"], k["d"]): k for k in _native.cuda_kernels()}
    if not instances:
        raise SystemExit("cuda_static: this build of asi_evolve has no CUDA kernels")
    disassembler = tool("nvdisasm")
    wrong, table = [], []
    with tempfile.TemporaryDirectory() as folder:
        for architecture in LIMITS:
            for variant in ("portable", *(("fma", "tensor") if architecture != "sm_75" else ()), "step"):
                cubin, log = compile_variant(variant, architecture, Path(folder))
                counts = hmma(cubin, disassembler) if disassembler else {}
                for mangled, used in resources(log).items():
                    row = instance(mangled)
                    if row is None or (row["variant"] == "any" and variant not in ("step", "portable")):
                        continue
                    x = instances.get((row["variant"], row["d"]))
                    shared, threads = 0, 128 if row["kernel"] == "step" else 256
                    if x:
                        shared, threads = x[f"shared_{row['kernel']}"], x["threads"]
                        formula = shared_bytes(x, str(row["kernel"]), str(row["variant"]))
                        if shared != formula:
                            wrong.append(f"{row}: {shared} bytes of shared memory, by formula {formula}")
                    if shared > LIMITS[architecture]["block_shared"]:
                        wrong.append(f"{row} on {architecture}: {shared} bytes of shared memory are too many")
                    if used["spills"] or used["local"]:
                        wrong.append(f"{row} on {architecture}: {used['spills']} bytes spilled, {used['local']} local")
                    tensor_instructions = counts.get(mangled) if disassembler else None
                    if row["variant"] == "tensor" and tensor_instructions == 0:
                        wrong.append(f"{row} on {architecture}: no tensor-core instruction")
                    share, blocks = occupancy(architecture, threads, used["registers"], shared)
                    table.append(
                        {
                            "architecture": architecture, **row, **used, "shared": shared, "threads": threads,
                            "occupancy": share, "blocks": blocks, "hmma": tensor_instructions,
                        }
                    )  # fmt: skip
    model = [
        row
        for (variant, _), x in sorted(instances.items())
        if variant != "portable"
        for sequences in (8, 512)
        for row in ({"sequences": sequences, **r} for r in roofline(x, variant, sequences, 8192))
    ]
    return table, model, wrong


def show(table: list[dict[str, object]], model: list[dict[str, object]]) -> None:
    print(
        f"{'kernel':34}{'arch':>7}{'regs':>6}{'spill':>6}{'local':>6}{'shared':>8}{'blocks':>7}{'occup.':>7}{'HMMA':>6}"
    )
    for r in table:
        name = f"{r['variant']} {r['kernel']} {r.get('side', '')} d={r['d']}"
        count = "?" if r["hmma"] is None else r["hmma"]
        print(
            f"{name:34}{r['architecture']:>7}{r['registers']:>6}{r['spills']:>6}{r['local']:>6}{r['shared']:>8}"
            f"{r['blocks']:>7}{r['occupancy']:>7.0%}{count:>6}"
        )
    print("\nmodel, not measured: causal, feature map, N = 8192; bound by datasheet bandwidth and peak rate")
    print(
        f"{'pass':30}{'B*H':>5}{'segments':>9}{'MB':>8}{'x minimum':>10}{'FLOP/byte':>10}{'bound':>8}{'ms':>8}  device"
    )
    for r in model:
        name = f"{r['variant']} {r['pass']} d={r['d']}"
        print(
            f"{name:30}{r['sequences']:>5}{r['segments']:>9}{r['bytes'] / 1e6:>8.0f}{r['bytes'] / r['minimum']:>10.2f}"
            f"{r['intensity']:>10.0f}{r['bound']:>8}{r['milliseconds']:>8.3f}  {r['device']}"
        )


def write_ptx(folder: Path) -> None:
    """The portable variant, for whoever loads PTX with the driver API."""
    from asi_evolve import _native

    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "linear_attention_portable.ptx"
    run(
        "nvcc", "-std=c++17", "-O3", "-arch=compute_75", "-ptx", f"-I{ROOT / 'csrc'}",
        SOURCE / "portable.cu", "-o", target,
    )  # fmt: skip
    ptx = target.read_text()
    header = (SOURCE / "traits.cuh").read_text()
    size = re.search(r"_param_0\[(\d+)\]", ptx)
    structs = re.search(r"struct Rows \{.*?\nstruct KernelParams \{.*?\n\};", header, re.S)
    if size is None or structs is None:
        raise SystemExit("cuda_static: traits.cuh has no KernelParams any more")
    instances = {k["d"]: k for k in _native.cuda_kernels() if k["variant"] == "portable"}
    lines = [
        "# Portable linear attention kernels: PTX for compute capability 7.5 and up, float32\n",
        f"No mma, no cp.async. Each entry has one parameter, passed by value: `KernelParams` ({size[1]} bytes), below.",
        "Grid: `sequences * segments` blocks; scan and reduce: `elementwise_blocks`. The order of launches and the",
        "layout of the workspace are in `csrc/linear_attention/cuda/launch.cuh`.\n",
        "| entry | kernel | d | threads | dynamic shared memory (bytes) | rows of a chunk |",
        "|---|---|---|---|---|---|",
    ]
    entries = [(entry, row) for entry in re.findall(r"\.entry (\w+)\(", ptx) if (row := instance(entry))]
    for entry, row in entries:
        x = instances[row["d"]] if row["variant"] == "portable" else None
        shared, chunk = (x[f"shared_{row['kernel']}"], x["chunk"]) if x else (0, "-")
        name = f"{row['kernel']} {row.get('side', '')}".strip()
        lines.append(f"| `{entry}` | {name} | {row['d']} | {x['threads'] if x else 256} | {shared} | {chunk} |")
    lines += ["\n```c++", structs[0], "```\n"]
    (folder / "README.md").write_text("\n".join(lines))
    print(f"{target.relative_to(ROOT)}: {len(entries)} kernels")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="write the tables")
    parser.add_argument("--ptx", action="store_true", help="write build/ptx/ and nothing else")
    arguments = parser.parse_args()
    if shutil.which("nvcc") is None:
        raise SystemExit("cuda_static: no nvcc on PATH")
    if arguments.ptx:
        write_ptx(ROOT / "build" / "ptx")
        return
    table, model, wrong = examine()
    show(table, model)
    if tool("nvdisasm") is None:
        print("\nHMMA not looked for: no nvdisasm (pip install nvidia-cuda-nvdisasm)")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"kernels": table, "model, not measured": model}, indent=1) + "\n")
    for line in wrong:
        print(f"WRONG: {line}", file=sys.stderr)
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
