"""The custom operators on CUDA devices, where this build has kernels; a plain torch path does for all that they lack.

``ASI_EVOLVE_CUDA_VARIANT=portable`` chooses the float32 variant without asynchronous copies, as on Turing.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import torch
from torch import Tensor

from asi_evolve import _native
from asi_evolve.ops import kernel
from asi_evolve.ops.reference import State

DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
_ALIGNMENT = 16  # bytes: the kernels copy so many at once

COMPILED = bool(_native.cuda_kernels())


def supports(q: Tensor, v: Tensor, weight: Tensor | None) -> bool:
    """Whether a kernel of this build runs these types and sizes on q's device."""
    if not COMPILED or q.dtype not in DTYPES:
        return False
    *_, d_k, d_phi, d_v = kernel.sizes(q, v, weight)
    return _supports(DTYPES[q.dtype], int(d_k), int(d_phi), int(d_v), q.device.index)


@functools.cache
def _supports(dtype: str, d_k: int, d_phi: int, d_v: int, device: int | None) -> bool:
    index = torch.cuda.current_device() if device is None else device
    return not _native.linear_attention_cuda_unsupported(dtype, (1, 1, 1, d_k, d_phi, d_v), index)


def _portable() -> bool:
    variant = os.environ.get("ASI_EVOLVE_CUDA_VARIANT", "")
    if variant not in ("", "portable"):
        raise RuntimeError(f"ASI_EVOLVE_CUDA_VARIANT: {variant!r}; expected 'portable', or nothing")
    return variant == "portable"


def _run(x: Tensor, workspace: Tensor | None = None) -> tuple[int, int, int, bool]:
    """Device, current stream, workspace and variant of a call."""
    stream: Any = torch.cuda.current_stream(x.device)
    return x.device.index or 0, stream.cuda_stream, 0 if workspace is None else workspace.data_ptr(), _portable()


def _aligned(x: Tensor) -> Tensor:
    """x where the kernels can read it: last stride 1, address and other strides multiples of 16 bytes."""
    strides = x.stride()
    bytes_of = x.element_size()
    good = strides[-1] == 1 and x.data_ptr() % _ALIGNMENT == 0
    if good and all(s * bytes_of % _ALIGNMENT == 0 for s in strides[:-1]):
        return x
    copy = x.contiguous()
    return copy.clone() if copy.data_ptr() % _ALIGNMENT else copy


def _dense(x: Tensor | None) -> Tensor | None:
    """x contiguous and aligned, or None."""
    return None if x is None else _aligned(x.contiguous())


def _workspace(q: Tensor, v: Tensor, weight: Tensor | None, backward: bool) -> Tensor:
    size = _native.linear_attention_cuda_workspace(
        DTYPES[q.dtype], _run(q), kernel.sizes(q, v, weight), weight is not None, backward
    )
    # At least one byte, as an empty tensor has no address. Freed in the order of the stream.
    return torch.empty(max(size, 1), dtype=torch.uint8, device=q.device)


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    s: Tensor | None,
    z: Tensor | None,
    causal: bool,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """``asi_evolve::linear_attention`` on q's device and its current stream."""
    kernel.check_dtypes(q, k, v, weight, bias, s, z, allowed=DTYPES)
    q, k, v = (_aligned(x) for x in (q, k, v))
    weight, bias, s, z = (_dense(x) for x in (weight, bias, s, z))
    out, new_s, new_z = kernel.empty_outputs(q, v, weight)
    workspace = _workspace(q, v, weight, False)
    _native.linear_attention_cuda_forward(
        DTYPES[q.dtype],
        causal,
        eps,
        _run(q, workspace),
        kernel.sizes(q, v, weight),
        kernel.view(q),
        kernel.view(k),
        kernel.view(v),
        kernel.weights(weight, bias),
        kernel.pair(s, z),
        kernel.view(out),
        kernel.pair(new_s, new_z),
    )
    return out, new_s, new_z


def backward(
    grad_out: Tensor,
    grad_s: Tensor | None,
    grad_z: Tensor | None,
    out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    s: Tensor | None,
    z: Tensor | None,
    causal: bool,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``asi_evolve::linear_attention_backward`` on q's device and its current stream."""
    kernel.check_dtypes(q, k, v, weight, bias, s, z, allowed=DTYPES)
    q, k, v, out, grad_out = (_aligned(x) for x in (q, k, v, out, grad_out))
    weight, bias, s, z, grad_s, grad_z = (_dense(x) for x in (weight, bias, s, z, grad_s, grad_z))
    grads, (grad_w, grad_b), (grad_s0, grad_z0) = kernel.empty_gradients(q, v, weight, bias, s)
    workspace = _workspace(q, v, weight, True)
    _native.linear_attention_cuda_backward(
        DTYPES[q.dtype],
        causal,
        eps,
        _run(q, workspace),
        kernel.sizes(q, v, weight),
        kernel.view(q),
        kernel.view(k),
        kernel.view(v),
        kernel.weights(weight, bias),
        kernel.pair(s, z),
        kernel.view(out),
        kernel.view(grad_out),
        kernel.pair(grad_s, grad_z),
        kernel.view(grads[0]),
        kernel.view(grads[1]),
        kernel.view(grads[2]),
        kernel.pair(grad_w, grad_b),
        kernel.pair(grad_s0, grad_z0),
    )
    return kernel.sum_gradients(q, grads, weight, bias, grad_w, grad_b, grad_s0, grad_z0)


def step(
    q: Tensor, k: Tensor, v: Tensor, s: Tensor, z: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, State]:
    """One token, any sizes and strides; s, z, weight and bias in float32, contiguous."""
    batch, heads, d_phi, d_v = s.shape
    out = torch.empty((batch, heads, d_v), dtype=q.dtype, device=q.device)
    new_s, new_z = torch.empty_like(s), torch.empty_like(z)
    _native.linear_attention_cuda_step(
        DTYPES[q.dtype],
        eps,
        _run(q),
        (batch, heads, 1, q.shape[-1], d_phi, d_v),
        kernel.token(q),
        kernel.token(k),
        kernel.token(v),
        kernel.weights(weight, bias),
        kernel.pair(s, z),
        kernel.token(out),
        kernel.pair(new_s, new_z),
    )
    return out, (new_s, new_z)


if COMPILED:
    torch.library.impl("asi_evolve::linear_attention", "CUDA", forward)
    torch.library.impl("asi_evolve::linear_attention_backward", "CUDA", backward)
