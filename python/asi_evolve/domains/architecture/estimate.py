"""What training a model will take, before anything of it runs: parameters, FLOPs, memory and CPU time.

Parameters and FLOPs follow from the sizes of the reference mechanisms. Memory and time are linear models whose
coefficients (floats kept for the backward pass, floats moved, operators called, per token and layer) were fitted to
measurements of every reference mechanism, times rates of this machine that a sandbox measures once per process. Code of
the candidate's own is not run and not guessed: a custom mechanism counts as the least that any reference of its slot
takes, so what is refused would have been too large with any of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from asi_evolve.execution import Limits, Sandbox
from asi_evolve.execution.limits import MEBIBYTE

_BYTES = 4  # of a float32
# How training is slower than the measured rates: products have other shapes, memory is fresh and not in a cache,
# operators have more arguments. And what the allocator holds beside what is kept.
_SLOWER_FLOPS, _SLOWER_FLOATS, _SLOWER_CALLS, _SLACK = 1.5, 7.0, 3.2, 1.22
_PER_PARAMETER = 13  # floats: weight, gradient, moments, the optimiser's intermediate results, the answer


@dataclass(frozen=True)
class Estimate:
    """Of one training.

    Attributes:
        parameters: trainable numbers.
        flops_per_token: of training, as the benchmark counts them: thrice the matrix products of the forward pass.
        peak_memory_mb: largest resident set of the training process, MiB.
        seconds: CPU seconds of the training process with one thread, its start included.
    """

    parameters: int
    flops_per_token: float
    peak_memory_mb: float
    seconds: float


@dataclass(frozen=True)
class MachineRates:
    """What one core does, in a process such as those that train.

    Attributes:
        flops: of float32 matrix products, per second.
        floats: that an element-wise operator reads or writes, per second.
        call: seconds of a small operator with its gradient.
        start: CPU seconds before the first step.
        resident_mb: resident set before the first step, MiB.
    """

    flops: float
    floats: float
    call: float
    start: float
    resident_mb: float


# Of a machine slower than any that trains: what is fast enough there need not be measured.
SLOW = MachineRates(flops=3e9, floats=1e9, call=5e-5, start=15.0, resident_mb=500.0)


@dataclass(frozen=True)
class _Sizes:
    width: int
    heads: int
    hidden: int
    window: int
    length: int

    @property
    def d(self) -> int:
        """Of a head."""
        return self.width // self.heads

    def padded(self, chunk: int) -> float:
        """Tokens computed per token where the length is rounded up to chunks."""
        return math.ceil(self.length / chunk) * chunk / self.length


@dataclass(frozen=True)
class _Cost:
    """Of one mechanism in one place.

    Attributes:
        parameters: see :class:`Estimate`.
        flops: of the forward pass, per token.
        kept: floats kept for the backward pass, per token.
        moved: floats that element-wise work reads or writes in both passes, per token.
        calls: operators of both passes, per step.
    """

    parameters: float = 0
    flops: float = 0
    kept: float = 0
    moved: float = 0
    calls: float = 0

    def __add__(self, other: _Cost) -> _Cost:
        return _Cost(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def __mul__(self, times: float) -> _Cost:
        return _Cost(*(times * a for a in vars(self).values()))


def _linear(n_in: float, n_out: float, *, bias: bool = False) -> _Cost:
    parameters = n_in * n_out
    return _Cost(parameters + n_out * bias, 2 * parameters, 0, 3 * (n_in + n_out), 4)


def _attention(s: _Sizes) -> _Cost:
    """Projections and what softmax attention keeps: q, k, v, its output, and that in another layout."""
    return _linear(s.width, 3 * s.width) + _linear(s.width, s.width) + _Cost(0, 0, 5 * s.width, 8 * s.width, 14)


def _scores(s: _Sizes) -> _Cost:
    """Softmax of length x length scores, masked ones included; nothing of them is kept."""
    return _Cost(0, 4 * s.length * s.width, s.heads, 3 * s.heads * s.length, 4)


def _kernel(s: _Sizes, features: float, mapped: bool) -> _Cost:
    """``asi_evolve.ops.linear_attention`` with ``features`` per head; see its FLOP formula."""
    state, of_map = features * s.d + features, features * s.d if mapped else 0
    own = s.heads * features * (s.d + 1) if mapped else 0
    return _Cost(own, 4 * s.heads * (state + of_map), 0, 6 * s.heads * (s.d + features), 12)


def _mask(s: _Sizes) -> _Cost:
    """The mask of a window is made in every layer, of length x length numbers."""
    return _Cost(0, 0, 0, 0, 12)


def _chunks(s: _Sizes, chunk: int, within: int, between: int) -> _Cost:
    """Matrix products of a chunked form: ``within`` of chunk x chunk, ``between`` with the state, of a width each."""
    padded = s.padded(chunk)
    flops = 2 * s.width * (within * chunk + between * s.d) * padded
    return _Cost(0, flops, 0, 0, 14 * math.ceil(s.length / chunk))


def _gated(s: _Sizes) -> _Cost:
    w = s.width
    forget = _linear(w, 16) + _linear(16, w, bias=True)
    states = _Cost(0, 0, w * s.d / 16, 8 * w * s.d / 16, 0)
    return _attention(s) + forget + _linear(w, w) + _chunks(s, 16, 2, 2) + states + _Cost(s.d, 0, 36 * w, 180 * w, 100)


def _deltanet(s: _Sizes) -> _Cost:
    w = s.width
    states = _Cost(0, 0, w * s.d / 32, 8 * w * s.d / 32, 0)
    # Many small triangular systems, each a call of LAPACK.
    solve = _Cost(0, 0, 4 * 32 * s.heads, 8800 * s.heads * s.d / (s.d + 8), 30)
    rate = _linear(w, s.heads, bias=True)
    return _attention(s) + rate + _chunks(s, 32, 3, 3) + states + solve + _Cost(s.d, 0, 28 * w, 80 * w, 120)


def _convolution(s: _Sizes) -> _Cost:
    w, taps = s.width, min(s.window, 16)
    taken = _Cost(w * taps + w, 2 * taps * w, 8 * w, 8 * w + 6 * taps * w, 20)
    return _linear(w, 2 * w) + _linear(w, w) + taken


def _normalized(s: _Sizes, parameters: int, kept: float, moved: float, calls: int) -> _Cost:
    return _Cost(parameters * s.width, 0, kept * s.width, moved * s.width, calls)


def _mlp(s: _Sizes, activation: _Cost) -> _Cost:
    return _linear(s.width, s.hidden) + _linear(s.hidden, s.width) + activation * s.hidden


def _swiglu(s: _Sizes) -> _Cost:
    hidden = max(8, int(s.hidden * 2 / 3) // 8 * 8)
    return _linear(s.width, 2 * hidden) + _linear(hidden, s.width) + _Cost(0, 0, 4, 16) * hidden + _Cost(calls=6)


_COSTS: Mapping[str, Mapping[str, Callable[[_Sizes], _Cost]]] = {
    "token_mixing": {
        "softmax_attention": lambda s: _attention(s) + _scores(s),
        "linear_attention": lambda s: _attention(s) + _kernel(s, s.d, True),
        "linear_attention_elu": lambda s: _attention(s) + _kernel(s, s.d, False) + _normalized(s, 0, 4, 16, 8),
        "performer": lambda s: (
            _attention(s) + _kernel(s, 2 * s.d, False) + _Cost(0, 8 * s.width * s.d, 18 * s.width, 60 * s.width, 30)
        ),
        "gated_linear_attention": _gated,
        "deltanet": _deltanet,
        "sliding_window": lambda s: _attention(s) + _scores(s) + _mask(s),
        "hybrid": lambda s: (
            _attention(s)
            + _scores(s)
            + _mask(s)
            + _kernel(s, s.d, True)
            + _Cost(s.heads, 0, 3 * s.width, 14 * s.width, 14)
        ),
        "convolution": _convolution,
    },
    "normalization": {
        "layernorm": lambda s: _normalized(s, 2, 1, 8, 4),
        "rmsnorm": lambda s: _normalized(s, 1, 3, 20, 16),
        "none": lambda s: _Cost(),
    },
    "mlp": {
        "gelu": lambda s: _mlp(s, _Cost(0, 0, 2, 10, 0)) + _Cost(calls=2),
        "swiglu": _swiglu,
        "relu2": lambda s: _mlp(s, _Cost(0, 0, 3, 10, 0)) + _Cost(calls=4),
    },
    "position": {  # once
        "learned": lambda s: _Cost(parameters=s.length * s.width, moved=4 * s.width, calls=4),
        "rope": lambda s: _Cost(),
        "alibi": lambda s: _Cost(),
        "none": lambda s: _Cost(),
    },
    "rotation": {  # in every layer that attends
        "learned": lambda s: _Cost(),
        "rope": lambda s: _Cost(0, 0, 2 * s.width, 24 * s.width, 40),
        # With a mask per head torch keeps all scores, and what became of them.
        "alibi": lambda s: _Cost(0, 0, 2.2 * s.heads * s.length, 28 * s.heads * s.length, 10),
        "none": lambda s: _Cost(),
    },
    "connectivity": {  # residual sums; norms are counted apart
        "pre_norm": lambda s: _Cost(0, 0, 2 * s.width, 8 * s.width, 4),
        "post_norm": lambda s: _Cost(0, 0, 2 * s.width, 8 * s.width, 4),
        "parallel": lambda s: _Cost(0, 0, 1 * s.width, 8 * s.width, 4),
    },
}
_MASKED = ("softmax_attention", "sliding_window", "hybrid")
_ROTATED = (*_MASKED, "linear_attention", "linear_attention_elu", "performer", "gated_linear_attention", "deltanet")
_NORMS = {"pre_norm": 2, "post_norm": 2, "parallel": 1}
# Floats moved by an optimiser per parameter and step, and its operators per tensor.
_OPTIMIZERS = {"adamw": (26, 12), "sgd": (9, 4), "lion": (18, 8), "muon": (26, 12)}


def _cost(slot: str, name: str, s: _Sizes) -> _Cost:
    """Of one reference; of custom code the least of its slot, entry by entry."""
    known = _COSTS[slot]
    if name in known:
        return known[name](s)
    every = [vars(make(s)).values() for make in known.values()]
    return _Cost(*(min(column) for column in zip(*every, strict=True)))


def model_cost(params: Mapping[str, Any], length: int) -> _Cost:
    """Of the whole model."""
    width = int(params["width"])
    hidden = max(8, int(width * params["mlp_ratio"]) // 8 * 8)
    s = _Sizes(width, int(params["heads"]), hidden, int(params["window"]), length)
    norm = _cost("normalization", params["normalization"], s)
    block = _cost("token_mixing", params["token_mixing"], s) + _cost("mlp", params["mlp"], s)
    block += _cost("connectivity", params["connectivity"], s) + norm * _NORMS.get(params["connectivity"], 1)
    if params["token_mixing"] in (_MASKED if params["position"] == "alibi" else _ROTATED):
        block += _cost("rotation", params["position"], s)
    head = _linear(width, 256) + _Cost(0, 0, 5 * 256, 14 * 256, 10)
    embedding = _Cost(0 if params["tie_embeddings"] else 256 * width, 0, width, 6 * width, 6)
    return block * int(params["layers"]) + norm + head + embedding + _cost("position", params["position"], s)


def estimate_parameters(params: Mapping[str, Any], length: int = 128) -> int:
    """Parameters of the model for sequences of this length; a lower bound where code is custom."""
    return round(model_cost(params, length).parameters)


def estimate_training(
    params: Mapping[str, Any],
    *,
    length: int,
    batch: int,
    steps: int,
    optimizer: str = "adamw",
    ema: bool = False,
    rates: MachineRates | None = None,
) -> Estimate:
    """What training a model of the architecture domain will take.

    Args:
        params: the domain's parameters.
        length: of a sequence. batch: sequences per step. steps: of the optimiser.
        optimizer, ema: of the training algorithm.
        rates: of the machine; measured by :func:`machine_rates` where not given.

    Raises:
        RuntimeError: the rates cannot be measured.
    """
    rates = machine_rates() if rates is None else rates
    cost, tokens = model_cost(params, length), length * batch
    moved, calls = _OPTIMIZERS.get(optimizer, _OPTIMIZERS["adamw"])
    tensors = 3 + 8 * int(params["layers"])
    work = _SLOWER_FLOPS * 3 * cost.flops * tokens / rates.flops
    work += _SLOWER_FLOATS * (cost.moved * tokens + (moved + 4 * ema) * cost.parameters) / rates.floats
    work += _SLOWER_CALLS * (cost.calls + calls * tensors) * rates.call
    if optimizer == "muon":  # Newton-Schulz: five times three products of the smaller side
        work += 5 * 6 * int(params["width"]) * cost.parameters / rates.flops
    held = _BYTES * ((_PER_PARAMETER + ema) * cost.parameters + _SLACK * cost.kept * tokens)
    held += 3 * steps * batch * (length + 1)  # the windows arrive as bytes, and are an array
    return Estimate(
        parameters=round(cost.parameters),
        flops_per_token=3 * cost.flops,
        peak_memory_mb=rates.resident_mb + held / MEBIBYTE,
        seconds=rates.start + steps * work,
    )


@lru_cache(maxsize=1)
def machine_rates() -> MachineRates:
    """Measured once per process, in a sandbox: two to three CPU seconds. Raises RuntimeError."""
    source = f"from {__name__} import measure_rates\n"
    result = Sandbox.configured().run(source, "measure_rates", {}, limits=Limits(wall_seconds=60))
    if not result.ok:
        raise RuntimeError(f"the machine's rates could not be measured: {result.error}")
    return MachineRates(**result.value, resident_mb=result.usage.max_rss_bytes / MEBIBYTE)


def measure_rates() -> dict[str, float]:
    """What :func:`machine_rates` runs: :class:`MachineRates` without ``resident_mb``. The best of many short tries, so
    that others on the machine disturb little; the kernel's count of CPU time is too coarse."""
    import torch

    from asi_evolve import ops  # loaded by every training process too
    from asi_evolve.domains.algorithm import training

    assert ops
    assert training
    start = time.process_time()
    torch.set_num_threads(1)

    def seconds(work: Callable[[], Any], times: int) -> float:
        best = math.inf
        for _ in range(50):
            began = time.perf_counter()
            for _ in range(times):
                work()
            best = min(best, (time.perf_counter() - began) / times)
        return best

    x, weight, y = torch.ones(2048, 64), torch.ones(64, 192), torch.ones(2048, 256)
    small = torch.ones(8, requires_grad=True)

    def chain() -> None:
        z = small
        for _ in range(50):
            z = z * 1.01
        z.sum().backward()  # type: ignore[no-untyped-call]

    return {
        "flops": 2 * x.numel() * weight.shape[1] / seconds(lambda: x @ weight, 4),
        "floats": 3 * y.numel() / seconds(lambda: y * y, 4),
        "call": seconds(chain, 1) / 100,
        "start": start,
    }
