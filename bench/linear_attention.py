"""Linear attention against its peers in the same run: torch SDPA, chunked torch (eager and compiled), naive.

    python bench/linear_attention.py [--quick] [--json FILE]

Every number is the best of several runs, alternating between the contenders; ratios are peer / native, so above 1 the
native kernel is faster. GFLOP/s counts the recurrent form only (4 d_phi d_v + 4 d_phi, and 4 d_phi d_k with a feature
map, per token and head): work a chunked algorithm does beyond it earns nothing.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from asi_evolve import _native
from asi_evolve.ops import linear_attention, linear_attention_ref, linear_attention_step
from asi_evolve.ops.reference import feature_map, linear_attention_chunked

BATCH, HEADS, D = 1, 8, 64
CHUNKS = (32, 64, 128, 256)


def best(contenders: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Milliseconds of each: the best of interleaved runs, so that a busy moment of the machine hits all alike."""
    times = {}
    for name, run in contenders.items():
        run()
        start = time.perf_counter()
        run()
        times[name] = time.perf_counter() - start
    end = time.perf_counter() + seconds * len(contenders)
    rounds = 0
    while rounds < 3 or (time.perf_counter() < end and rounds < 50):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            times[name] = min(times[name], time.perf_counter() - start)
        rounds += 1
    return {name: 1e3 * t for name, t in times.items()}


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def matmul_rate(dtype: torch.dtype, seconds: float) -> float:
    """GFLOP/s of torch's matrix product, the ceiling that the kernel is measured against."""
    n = 1024
    a, b = torch.randn(n, n).to(dtype), torch.randn(n, n).to(dtype)
    return 2e-6 * n**3 / best({"mm": lambda: a @ b}, seconds)["mm"]


def inputs(n: int, mapped: bool, dtype: torch.dtype = torch.float32) -> tuple[Tensor | None, ...]:
    torch.manual_seed(n)
    q, k, v = (torch.randn(BATCH, HEADS, n, D) for _ in range(3))
    if not mapped:
        q, k = functional.elu(q) + 1, functional.elu(k) + 1
    weight = torch.eye(D) + 0.1 * torch.randn(HEADS, D, D) if mapped else None
    bias = 0.1 * torch.randn(HEADS, D) if mapped else None
    return q.to(dtype), k.to(dtype), v.to(dtype), weight, bias


def useful(n: int, mapped: bool) -> float:
    return BATCH * HEADS * n * (4 * D * D + 4 * D + (4 * D * D if mapped else 0))


def cumsum(q: Tensor, k: Tensor, v: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """The definition with every S_i in memory."""
    q, k = feature_map(q, weight, bias), feature_map(k, weight, bias)
    s = (k.unsqueeze(-1) * v.unsqueeze(-2)).cumsum(2)
    z = k.cumsum(2)
    return (q.unsqueeze(-2) @ s).squeeze(-2) / ((q * z).sum(-1, keepdim=True) + 1e-6)


def peers(x: tuple[Any, ...], n: int, compiled: dict[int, Any]) -> dict[str, Callable[[], Any]]:
    q, k, v = x[:3]
    found: dict[str, Callable[[], Any]] = {
        f"chunked {c}": lambda c=c: linear_attention_chunked(*x, chunk=c)[0] for c in CHUNKS if c <= n
    }
    found |= {f"compiled chunked {c}": lambda f=f: f(*x) for c, f in compiled.items() if c <= n}
    found["sdpa"] = lambda: functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    if n <= 512:
        found["cumsum"] = lambda: cumsum(*x)
    return found


def row(times: dict[str, float], flops: float, peak: float) -> dict[str, Any]:
    mine = times["native"]
    linear = {name: t for name, t in times.items() if name not in ("native", "sdpa")}
    fastest = min(linear, key=linear.__getitem__)
    return {
        "ms": mine,
        "gflops": flops / mine * 1e-6,
        "of_matmul": flops / mine * 1e-6 / peak,
        "best_linear_peer": fastest,
        "best_linear_peer_ms": linear[fastest],
        "ratio": linear[fastest] / mine,
        "sdpa_ms": times.get("sdpa"),
        "sdpa_ratio": times["sdpa"] / mine if "sdpa" in times else None,
        "all_ms": times,
    }


def backward(run: Callable[[], Tensor], leaves: list[Tensor]) -> Callable[[], Any]:
    def both() -> Any:
        out = run()
        return torch.autograd.grad(out, leaves, torch.ones_like(out), allow_unused=True)

    return both


def compile_chunked(quick: bool) -> dict[int, Any]:
    if quick:
        return {}
    torch._dynamo.config.recompile_limit = 64  # one code object, compiled for each chunk and length
    return {
        c: torch.compile(lambda *x, c=c: linear_attention_chunked(*x, chunk=c)[0], dynamic=False) for c in (64, 128)
    }


def measure(quick: bool) -> dict[str, Any]:
    seconds = 0.3 if quick else 0.6
    lengths = (512, 2048, 8192)
    results: dict[str, Any] = {}
    with threads(1):
        peak = {str(d): matmul_rate(d, seconds) for d in (torch.float32, torch.bfloat16)}
        print(f"matrix product, 1 thread: {', '.join(f'{k[6:]} {v:.0f} GFLOP/s' for k, v in peak.items())}\n")
        compiled = compile_chunked(quick)
        print(
            f"{'B=1 H=8 d=64, 1 thread':34}{'ms':>9}{'GFLOP/s':>9}{'of mm':>7}{'best peer':>24}{'ratio':>7}{'sdpa':>7}"
        )
        for mapped in (False, True):
            for n in lengths:
                x = inputs(n, mapped)
                name = f"{'feature map' if mapped else 'phi given'} N={n}"
                with torch.no_grad():
                    times = best({"native": lambda x=x: linear_attention(*x), **peers(x, n, compiled)}, seconds)
                results[f"forward {name}"] = show(
                    f"forward {name}", row(times, useful(n, mapped), peak["torch.float32"])
                )
                results[f"forward {name}"]["error"] = error(x)
                leaves = [t.requires_grad_() for t in x if t is not None]
                contenders = {"native": lambda x=x: linear_attention(*x), **peers(x, n, {})}
                times = best({k: backward(f, leaves) for k, f in contenders.items()}, seconds)
                results[f"both {name}"] = show(
                    f"fwd+bwd {name}", row(times, 3 * useful(n, mapped), peak["torch.float32"])
                )
        print(
            "\nlargest error against float64, relative to the largest value: "
            f"{max(r.get('error', 0) for r in results.values()):.1e}"
        )
        for n in lengths[-2:]:
            results |= bfloat16(n, seconds)
        results |= decode(seconds)
    results |= scaling(lengths[-1], seconds)
    return {"machine": machine(), "matmul_gflops": peak, "results": results}


def error(x: tuple[Any, ...]) -> float:
    """Against float64, on at most 2048 positions: the reference is quadratic."""
    short = [t if t is None or t.dim() < 4 else t[:, :, :2048] for t in x]
    with torch.no_grad():
        want = linear_attention_ref(*(None if t is None else t.double() for t in short))
        return float((linear_attention(*short).double() - want).abs().max() / want.abs().max())


def bfloat16(n: int, seconds: float) -> dict[str, Any]:
    found = {}
    for mapped in (False, True):
        x, y = inputs(n, mapped), inputs(n, mapped, torch.bfloat16)
        with torch.no_grad():
            times = best(
                {"float32": lambda x=x: linear_attention(*x), "bfloat16": lambda y=y: linear_attention(*y)}, seconds
            )
        ratio = times["float32"] / times["bfloat16"]
        what = f"bfloat16 {'feature map' if mapped else 'phi given'} N={n}"
        print(f"{what}: {times['bfloat16']:.2f} ms, {ratio:.2f} x float32")
        found[what] = {"ms": times["bfloat16"], "ratio": ratio}
    return found


def decode(seconds: float) -> dict[str, Any]:
    found = {}
    for mapped in (False, True):
        q, k, v, weight, bias = inputs(1, mapped)
        q, k, v = (t[:, :, 0] for t in (q, k, v) if t is not None)
        state = (torch.randn(BATCH, HEADS, D, D), torch.rand(BATCH, HEADS, D))

        def eager(q=q, k=k, v=v, weight=weight, bias=bias, state=state) -> Any:
            if weight is not None:
                q = functional.elu((weight @ q.unsqueeze(-1)).squeeze(-1) + bias) + 1
                k = functional.elu((weight @ k.unsqueeze(-1)).squeeze(-1) + bias) + 1
            s, z = state[0] + k.unsqueeze(-1) * v.unsqueeze(-2), state[1] + k
            top = (q.unsqueeze(-2) @ s).squeeze(-2)
            return top / ((q * z).sum(-1, keepdim=True) + 1e-6), (s, z)

        def native(q=q, k=k, v=v, weight=weight, bias=bias, state=state) -> Any:
            return linear_attention_step(q, k, v, state, weight, bias)

        def many(run: Callable[[], Any]) -> Callable[[], None]:
            def steps() -> None:  # as a decoder, which keeps no state but the last
                for _ in range(100):
                    run()

            return steps

        with torch.inference_mode():
            times = best({"eager": many(eager), "native": many(native)}, seconds)
        what = f"decode step {'feature map' if mapped else 'phi given'}"
        print(
            f"{what}: {10 * times['native']:.1f} us, eager torch {10 * times['eager']:.1f} us, "
            f"ratio {times['eager'] / times['native']:.1f}"
        )
        found[what] = {"us": 10 * times["native"], "ratio": times["eager"] / times["native"]}
    return found


def scaling(n: int, seconds: float) -> dict[str, Any]:
    x = inputs(n, True)

    def on(count: int) -> Callable[[], Any]:
        def run() -> Any:
            with threads(count):
                return linear_attention(*x)

        return run

    with torch.no_grad():
        times = best({"1": on(1), "2": on(2)}, seconds)
    print(f"2 threads, feature map N={n}: {times['1'] / times['2']:.2f} x 1 thread")
    return {"two threads": {"ratio": times["1"] / times["2"]}}


def show(name: str, r: dict[str, Any]) -> dict[str, Any]:
    print(
        f"{name:34}{r['ms']:9.2f}{r['gflops']:9.1f}{r['of_matmul']:7.0%}"
        f"{r['best_linear_peer']:>16}{r['best_linear_peer_ms']:8.1f}{r['ratio']:6.1f}x{r['sdpa_ratio']:6.1f}x",
        flush=True,
    )
    return r


def machine() -> dict[str, Any]:
    return {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "isa": _native.isa(),
        "machine": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short runs, nothing compiled")
    parser.add_argument("--json", metavar="FILE", help="write everything measured")
    arguments = parser.parse_args()
    results = measure(arguments.quick)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
