"""Linear attention and its one-token step: what is public of the native kernel."""

from __future__ import annotations

import math
from typing import Any, Literal, overload

import torch
from torch import Tensor

from asi_evolve import _native
from asi_evolve.ops import cuda, kernel
from asi_evolve.ops.reference import State, accumulator, linear_attention_chunked

_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@overload
def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    causal: bool = True,
    eps: float = 1e-6,
    initial_state: State | None = None,
    return_state: Literal[False] = False,
) -> Tensor: ...
@overload
def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    causal: bool = True,
    eps: float = 1e-6,
    initial_state: State | None = None,
    return_state: Literal[True],
) -> tuple[Tensor, State]: ...
def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    causal: bool = True,
    eps: float = 1e-6,
    initial_state: State | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, State]:
    """Linear attention (Katharopoulos et al. 2020), in time and memory linear in N.

    ``out_i = phi(q_i)^T S_i / (phi(q_i)^T z_i + eps)`` with ``S_i = S_0 + sum_j phi(k_j) v_j^T`` and
    ``z_i = z_0 + sum_j phi(k_j)`` over ``j <= i`` (causal, equations 8 to 12) or all j (equations 4 to 6).
    ``phi(x) = ELU(W x + b) + 1`` (equation 7 of a projection), fused; without a weight q and k are taken to be phi(q)
    and phi(k). Differentiable (once) in every tensor; works in ``torch.compile``, ``torch.func`` and autocast, where
    q, k and v are cast to the autocast type. Sums are float32 for bfloat16, float16 and float32, float64 for float64.

    On CPU float32, float64 and bfloat16 run in the native kernel with ``torch.get_num_threads()`` threads, whose
    number does not change the result. Where the CPU has AVX512_BF16, the forward pass of bfloat16 multiplies in it:
    weight, phi and the S that q meets are rounded to bfloat16 (not the sums, so without a weight the returned state is
    exact to float32); gradients are not. On CUDA devices float32, bfloat16 and float16 run in native kernels where
    d_k = d_phi = d_v is 32, 64 or 128 and the build and the device have them; bfloat16 and float16 are multiplied in
    bfloat16, W too. Everything else runs the same mathematics in plain torch.

    Args:
        q, k: (B, H, N, d_k), any strides. v: (B, H, N, d_v), of the same dtype and device.
        weight: (d_phi, d_k), or (H, d_phi, d_k) for one per head; any float dtype.
        bias: (d_phi) or (H, d_phi); only with a weight.
        causal: whether position i sees only positions up to i.
        eps: added to the normaliser; finite and not negative.
        initial_state: (S_0, z_0) of shapes (B, H, d_phi, d_v) and (B, H, d_phi), as returned by an earlier call.
        return_state: also return the state after the last token.

    Returns:
        (B, H, N, d_v) of q's dtype; with ``return_state`` the pair of it and (S, z) in the accumulation type.

    Raises:
        TypeError: an argument that is no tensor or of a wrong or another dtype.
        ValueError: a wrong shape, device or eps, or a bias without a weight.
    """
    for name, x in (("q", q), ("k", k), ("v", v)):
        _check_tensor(name, x)
    if torch.is_autocast_enabled(q.device.type):
        lower = torch.get_autocast_dtype(q.device.type)
        q, k, v = (x if x.dtype == torch.float64 else x.to(lower) for x in (q, k, v))
    _check(q, k, v, weight, bias, eps, initial_state, 4)
    wide = accumulator(q.dtype)
    weight = None if weight is None else weight.to(wide)
    bias = None if bias is None else bias.to(wide)
    state = None if initial_state is None else (initial_state[0].to(wide), initial_state[1].to(wide))
    if _has_kernel(q, v, weight):
        s0, z0 = (None, None) if state is None else state
        inputs = (q, k, v, weight, bias, s0, z0, causal, float(eps))
        if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
            out, s, z = kernel.Transformed.apply(*inputs)  # type: ignore[no-untyped-call]
        else:
            out, s, z = torch.ops.asi_evolve.linear_attention(*inputs)
    else:
        with torch.autocast(q.device.type, enabled=False):
            out, (s, z) = linear_attention_chunked(q, k, v, weight, bias, causal=causal, eps=eps, initial_state=state)
    return (out, (s, z)) if return_state else out


def linear_attention_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: State,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    eps: float = 1e-6,
) -> tuple[Tensor, State]:
    """One token of causal linear attention: :func:`linear_attention` at N = 1, at the cost of reading the state once
    (Katharopoulos et al. 2020, equations 18 to 20).

    Args:
        q, k: (B, H, d_k). v: (B, H, d_v).
        state: (S, z), of shapes (B, H, d_phi, d_v) and (B, H, d_phi); zeros before the first token. Not changed.
        weight, bias, eps: as :func:`linear_attention`.

    Returns:
        The output (B, H, d_v) and the new state.

    Raises:
        TypeError, ValueError: as :func:`linear_attention`.
    """
    if not isinstance(state, (tuple, list)) or len(state) != 2:
        raise TypeError(f"state: {type(state).__name__}; expected a tuple (S, z)")
    s, z = state
    if weight is None and bias is None:
        tensors: tuple[Any, ...] = (q, k, v, s, z)
    else:
        tensors = (q, k, v, s, z, *(x for x in (weight, bias) if x is not None))
    on_cuda = isinstance(q, Tensor) and q.is_cuda and cuda.COMPILED
    if not _eager(tensors, on_cuda) or q.dtype not in (cuda.DTYPES if on_cuda else kernel.DTYPES):
        return _step_in_torch(q, k, v, (s, z), weight, bias, eps)
    # A decoder calls with the same tensors over and over: what was found good once is not looked into again.
    where = [x.device for x in tensors] if on_cuda else ()
    signature = (eps, weight is None, *where, *[x.shape for x in tensors], *[x.dtype for x in tensors])
    known = _known_good.get(signature)
    if known is None:
        _check(q, k, v, weight, bias, eps, state, 3)
        known = (*s.shape[:2], 1, q.shape[-1], *s.shape[2:]), all(x.dtype == accumulator(q.dtype) for x in tensors[3:])
        if len(_known_good) < 1000:
            _known_good[signature] = known
    sizes, wide = known
    if not wide:
        wider = accumulator(q.dtype)
        s, z = s.to(wider), z.to(wider)
        weight, bias = (None if x is None else x.to(wider) for x in (weight, bias))
    s, z = s.contiguous(), z.contiguous()
    if on_cuda:
        weight, bias = (None if x is None else x.contiguous() for x in (weight, bias))
        return cuda.step(q, k, v, s, z, weight, bias, float(eps))
    out = torch.empty_like(v, memory_format=torch.contiguous_format)
    new_s, new_z = torch.empty_like(s), torch.empty_like(z)
    if weight is None:
        weights = _NO_WEIGHTS
    else:
        weights = kernel.weights(weight.contiguous(), None if bias is None else bias.contiguous())
    _native.linear_attention_step(
        kernel.DTYPES[q.dtype],
        eps,
        torch.get_num_threads(),
        sizes,
        (q.data_ptr(), k.data_ptr(), v.data_ptr(), out.data_ptr()),
        q.stride(),
        k.stride(),
        v.stride(),
        weights,
        (s.data_ptr(), z.data_ptr()),
        (new_s.data_ptr(), new_z.data_ptr()),
    )
    return out, (new_s, new_z)


def _has_kernel(q: Tensor, v: Tensor, weight: Tensor | None) -> bool:
    if q.device.type == "cuda":
        return cuda.supports(q, v, weight)
    return q.device.type in ("cpu", "meta") and q.dtype in kernel.DTYPES


_NO_WEIGHTS = kernel.weights(None, None)
# By what the checks look at: the sizes the kernel wants, and whether state and weights are in its type.
_known_good: dict[tuple[object, ...], tuple[tuple[int, ...], bool]] = {}


def _step_in_torch(
    q: Tensor, k: Tensor, v: Tensor, state: State, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, State]:
    """The step as a sequence of one token: with gradient, in a graph, on any device."""
    for name, x in (("q", q), ("k", k), ("v", v)):
        _check_tensor(name, x)
        if x.dim() != 3:
            raise ValueError(f"{name}: {x.dim()} dimensions, shape {tuple(x.shape)}; expected 3, (B, H, d)")
    q, k, v = (x.unsqueeze(2) for x in (q, k, v))
    out, new = linear_attention(q, k, v, weight, bias, eps=eps, initial_state=state, return_state=True)
    return out.squeeze(2), new


def _eager(tensors: tuple[Any, ...], on_cuda: bool) -> bool:
    """Whether the kernel may be called past torch's dispatcher, which would take longer than the kernel: nobody
    differentiates, traces, transforms or watches these tensors."""
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cuda" if on_cuda else "cpu"):
        return False
    if torch._C._len_torch_dispatch_stack() or torch._C._are_functorch_transforms_active():
        return False
    grad = torch.is_grad_enabled()
    for x in tensors:
        if type(x) is not Tensor and type(x) is not torch.nn.Parameter:
            return False
        if not (x.is_cuda if on_cuda else x.is_cpu) or (grad and x.requires_grad) or x.is_neg():
            return False
    return True


def _check_tensor(name: str, x: object) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: {type(x).__name__}; expected a torch.Tensor")
    if x.dtype not in _FLOATS:
        raise TypeError(f"{name}: dtype {x.dtype}; expected one of {', '.join(str(d) for d in _FLOATS)}")


def _check_shape(name: str, x: Tensor, device: torch.device, *allowed: tuple[int, ...]) -> None:
    if x.device != device:
        raise ValueError(f"{name}: on device {x.device}; expected {device}, as q")
    if tuple(x.shape) not in allowed:
        raise ValueError(f"{name}: shape {tuple(x.shape)}; expected {' or '.join(str(tuple(a)) for a in allowed)}")


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    state: State | None,
    dimensions: int,
) -> None:
    layout = "(B, H, N, d)" if dimensions == 4 else "(B, H, d)"
    if q.dim() != dimensions:
        raise ValueError(f"q: {q.dim()} dimensions, shape {tuple(q.shape)}; expected {dimensions}, {layout}")
    if v.dim() != dimensions:
        raise ValueError(f"v: {v.dim()} dimensions, shape {tuple(v.shape)}; expected {dimensions}, {layout}")
    leading, d_k, d_v = tuple(q.shape[:-1]), q.shape[-1], v.shape[-1]
    if d_k == 0:
        raise ValueError(f"q: shape {tuple(q.shape)}; the last dimension must be at least 1")
    _check_shape("k", k, q.device, tuple(q.shape))
    _check_shape("v", v, q.device, (*leading, d_v))
    if not (k.dtype == q.dtype == v.dtype):
        raise TypeError(f"q, k, v: dtypes {q.dtype}, {k.dtype}, {v.dtype}; expected the same for all three")
    if isinstance(eps, bool) or not isinstance(eps, (int, float)) or not 0 <= eps < math.inf:
        raise ValueError(f"eps: {eps!r}; expected a finite number, at least 0")
    heads, d_phi = q.shape[1], d_k
    if weight is not None:
        _check_tensor("weight", weight)
        if weight.dim() not in (2, 3) or weight.shape[-2] == 0:
            raise ValueError(f"weight: shape {tuple(weight.shape)}; expected (d_phi, {d_k}) or ({heads}, d_phi, {d_k})")
        d_phi = weight.shape[-2]
        _check_shape("weight", weight, q.device, (d_phi, d_k), (heads, d_phi, d_k))
    if bias is not None:
        _check_tensor("bias", bias)
        if weight is None:
            raise ValueError("bias: given without a weight; expected None, or both")
        _check_shape("bias", bias, q.device, (d_phi,), (heads, d_phi))
    if state is not None:
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            raise TypeError(f"initial_state: {type(state).__name__}; expected a tuple (S, z)")
        _check_tensor("S of the state", state[0])
        _check_tensor("z of the state", state[1])
        _check_shape("S of the state", state[0], q.device, (*q.shape[:2], d_phi, d_v))
        _check_shape("z of the state", state[1], q.device, (*q.shape[:2], d_phi))
