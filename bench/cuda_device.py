"""Linear attention on the CUDA device of this machine: one page to paste into an issue.

    python bench/cuda_device.py [--check] [--json FILE]

Against flash-linear-attention (when installed), chunked torch and SDPA, forward, forward + backward and decoding, as
ratios peer / native (above 1 the native kernel is faster), as a fraction of the measured copy bandwidth (bytes of
inputs and outputs once) and of the measured matrix product rate (recurrent form only). ``--check`` only says whether
there is a device to run on.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from asi_evolve import _native
from asi_evolve.ops import cuda, linear_attention, linear_attention_ref, linear_attention_step
from asi_evolve.ops.reference import linear_attention_chunked

BATCH, HEADS, D = 2, 16, 64
LENGTHS = (1024, 4096, 16384, 65536)
SDPA_MOST = 16384  # quadratic


def require_device() -> None:
    if not cuda.COMPILED:
        raise SystemExit(
            "bench/cuda_device.py: this build of asi_evolve has no CUDA kernels (no nvcc when it was built)"
        )
    if not torch.cuda.is_available():
        raise SystemExit(f"bench/cuda_device.py: torch {torch.__version__} finds no CUDA device")
    if not _native.cuda_info()["devices"]:
        raise SystemExit(f"bench/cuda_device.py: no CUDA device: {_native.cuda_info()['error']}")


def milliseconds(run: Callable[[], Any], repeats: int = 20) -> float:
    """The median of single runs on the device."""
    for _ in range(3):
        run()
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times)[repeats // 2]


def ceilings() -> dict[str, float]:
    """Measured bytes/s of a copy, and FLOP/s of a matrix product by type."""
    x = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
    y = torch.empty_like(x)
    found = {"copy": 2 * x.numel() / milliseconds(lambda: y.copy_(x)) * 1e3}
    torch.backends.cuda.matmul.allow_tf32 = False
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(4096, 4096, device="cuda").to(dtype)
        found[str(dtype)[6:]] = 2 * 4096**3 / milliseconds(lambda a=a: a @ a) * 1e3
    return found


def fla() -> Callable[..., Any] | None:
    """Chunked linear attention of flash-linear-attention, on (B, N, H, d)."""
    try:
        return importlib.import_module("fla.ops.linear_attn").chunk_linear_attn
    except ImportError:
        return None


def contenders(q: Tensor, k: Tensor, v: Tensor) -> dict[str, Callable[[], Tensor]]:
    found: dict[str, Callable[[], Tensor]] = {
        "native": lambda: linear_attention(q, k, v),
        "chunked torch": lambda: linear_attention_chunked(q, k, v)[0],
    }
    if q.shape[2] <= SDPA_MOST:
        found["sdpa"] = lambda: functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    peer = fla()
    if peer is not None:
        turned = [x.transpose(1, 2).contiguous() for x in (q, k, v)]
        found["fla"] = lambda: peer(*turned, scale=1.0, normalize=True)[0]
    return found


def attempt(run: Callable[[], Any]) -> float | None:
    """Milliseconds, or None where a peer does not fit the memory or does not know the call."""
    try:
        return milliseconds(run)
    except (torch.OutOfMemoryError, RuntimeError, TypeError, ValueError) as error:
        print(f"    a peer failed: {type(error).__name__}: {str(error).splitlines()[0][:90]}")
        return None


def row(
    name: str, times: dict[str, float | None], moved: float, flop: float, top: dict[str, float], rate: float
) -> Any:
    mine = times["native"]
    assert mine is not None, "the native kernel failed"
    ratios = {k: t / mine for k, t in times.items() if k != "native" and t is not None}
    shown = "  ".join(f"{k} {r:.2f}x" for k, r in ratios.items())
    bandwidth, math = moved / mine * 1e3 / top["copy"], flop / mine * 1e3 / rate
    print(f"{name:34}{mine:9.3f} ms {bandwidth:6.0%} of copy {math:6.0%} of mm   {shown}", flush=True)
    return {"ms": mine, "of_copy": bandwidth, "of_matmul": math, "ratios": ratios}


def measure() -> dict[str, Any]:
    torch.manual_seed(0)
    top = ceilings()
    results: dict[str, Any] = {}
    print(f"copy {top['copy'] / 1e9:.0f} GB/s, matrix product float32 {top['float32'] / 1e12:.1f} TFLOP/s, "
          f"bfloat16 {top['bfloat16'] / 1e12:.0f} TFLOP/s; fla {'found' if fla() else 'not installed'}")  # fmt: skip
    print(f"B={BATCH} H={HEADS} d={D}, causal, phi given; peer / native, above 1 the native kernel is faster\n")
    for dtype in (torch.bfloat16, torch.float32):
        short, rate = str(dtype)[6:], top[str(dtype)[6:]]
        for n in LENGTHS:
            q, k, v = (torch.rand(BATCH, HEADS, n, D, device="cuda").to(dtype) for _ in range(3))
            tensor = q.numel() * q.element_size()
            flop = BATCH * HEADS * n * (4 * D * D + 4 * D)
            with torch.no_grad():
                times = {name: attempt(run) for name, run in contenders(q, k, v).items()}
            results[f"forward {short} {n}"] = row(f"forward {short} N={n}", times, 4 * tensor, flop, top, rate)
            leaves = [x.requires_grad_() for x in (q, k, v)]
            grad = torch.randn(BATCH, HEADS, n, D, device="cuda").to(dtype)

            def both(run: Callable[[], Tensor], leaves: Any = leaves, grad: Tensor = grad) -> Callable[[], Any]:
                def call() -> Any:
                    out = run()
                    return torch.autograd.grad(out, leaves, grad if out.shape == grad.shape else grad.transpose(1, 2))

                return call

            times = {name: attempt(both(run)) for name, run in contenders(*leaves).items()}
            results[f"both {short} {n}"] = row(f"fwd+bwd {short} N={n}", times, 12 * tensor, 3 * flop, top, rate)
        results[f"decode {short}"] = decode(dtype, top, rate)
        results[f"error {short}"] = error(dtype)
    return {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "ceilings": top, "results": results}


def decode(dtype: torch.dtype, top: dict[str, float], rate: float) -> Any:
    q, k, v = (torch.rand(BATCH, HEADS, D, device="cuda").to(dtype) for _ in range(3))
    s, z = torch.rand(BATCH, HEADS, D, D, device="cuda"), torch.rand(BATCH, HEADS, D, device="cuda")

    def eager() -> Any:
        new_s, new_z = s + k.float().unsqueeze(-1) * v.float().unsqueeze(-2), z + k.float()
        return (q.float().unsqueeze(-2) @ new_s).squeeze(-2) / ((q.float() * new_z).sum(-1, keepdim=True) + 1e-6)

    with torch.inference_mode():
        times = {
            "native": milliseconds(lambda: linear_attention_step(q, k, v, (s, z)), 100),
            "eager torch": milliseconds(eager, 100),
        }
    moved = 2 * (s.numel() + z.numel()) * 4
    return row(f"decode {str(dtype)[6:]}", times, moved, BATCH * HEADS * 4 * D * D, top, rate)


def error(dtype: torch.dtype) -> float:
    """Largest error against float64 at N = 2048, relative to the largest value."""
    q, k, v = (torch.rand(BATCH, HEADS, 2048, D, device="cuda").to(dtype) for _ in range(3))
    want = linear_attention_ref(q.double(), k.double(), v.double())
    found = float((linear_attention(q, k, v).double() - want).abs().max() / want.abs().max())
    print(f"error against float64, {str(dtype)[6:]}: {found:.1e}\n")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say whether there is a device")
    parser.add_argument("--json", metavar="FILE", help="write everything measured")
    arguments = parser.parse_args()
    require_device()
    capability = ".".join(map(str, torch.cuda.get_device_capability()))
    print(f"{torch.cuda.get_device_name()}, compute capability {capability}, torch {torch.__version__}, "
          f"kernels for {', '.join(_native.cuda_architectures())}")  # fmt: skip
    if arguments.check:
        return
    results = measure()
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
