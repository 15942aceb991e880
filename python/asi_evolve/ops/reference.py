"""Linear attention in plain torch: the definition, and a chunked form for devices without a kernel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

State = tuple[Tensor, Tensor]


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The type in which weights, states and sums are kept: float64 for float64, float32 for everything smaller."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def feature_map(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """ELU(W x + b) + 1 (Katharopoulos et al. 2020, equation 7, of a learned projection); ``x`` without a weight.

    Args:
        x: (B, H, N, d_k). weight: (d_phi, d_k), (H, d_phi, d_k) or None. bias: (d_phi), (H, d_phi) or None.
    """
    if weight is None:
        return x
    u = x @ weight.transpose(-1, -2)
    if bias is not None:
        u = u + bias.unsqueeze(-2)
    return functional.elu(u) + 1


def linear_attention_ref(
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
    """The definition in plain torch, with the N x N matrix: slow, differentiable, on any device, in float64 too.

    Arguments and results as :func:`asi_evolve.ops.linear_attention`; nothing is checked.
    """
    wide, narrow = accumulator(q.dtype), q.dtype
    q, k, v, weight, bias, initial_state = _widen(q, k, v, weight, bias, initial_state, wide)
    fq, fk = feature_map(q, weight, bias), feature_map(k, weight, bias)
    scores = fq @ fk.transpose(-1, -2)
    if causal:
        scores = scores.tril()
    top, bottom = scores @ v, scores.sum(-1)
    s, z = fk.transpose(-1, -2) @ v, fk.sum(-2)
    if initial_state is not None:
        s0, z0 = initial_state
        top, bottom = top + fq @ s0, bottom + (fq @ z0.unsqueeze(-1)).squeeze(-1)
        s, z = s + s0, z + z0
    out = (top / (bottom + eps).unsqueeze(-1)).to(narrow)
    return (out, (s, z)) if return_state else out


def linear_attention_chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    causal: bool = True,
    eps: float = 1e-6,
    initial_state: State | None = None,
    chunk: int = 64,
) -> tuple[Tensor, State]:
    """The same in time linear in N: products within chunks, a running state between them, all chunks at once.

    Arguments and results as :func:`asi_evolve.ops.linear_attention` with ``return_state``.
    """
    wide, narrow = accumulator(q.dtype), q.dtype
    q, k, v, weight, bias, initial_state = _widen(q, k, v, weight, bias, initial_state, wide)
    fq, fk = feature_map(q, weight, bias), feature_map(k, weight, bias)
    batch, heads, length, d_phi = fq.shape
    d_v = v.shape[-1]
    if initial_state is None:
        initial_state = (fq.new_zeros(batch, heads, d_phi, d_v), fq.new_zeros(batch, heads, d_phi))
    s0, z0 = initial_state
    if not causal or length == 0:
        s, z = s0 + fk.transpose(-1, -2) @ v, z0 + fk.sum(-2)
        out = (fq @ s) / ((fq @ z.unsqueeze(-1)) + eps)
        return out.to(narrow), (s, z)
    pad = -length % chunk
    if pad:
        fq, fk, v = (functional.pad(x, (0, 0, 0, pad)) for x in (fq, fk, v))
    fq, fk, v = (x.reshape(batch, heads, -1, chunk, x.shape[-1]) for x in (fq, fk, v))
    scores = (fq @ fk.transpose(-1, -2)).tril()
    steps = fk.transpose(-1, -2) @ v
    s = s0.unsqueeze(2) + steps.cumsum(2)
    z = z0.unsqueeze(2) + fk.sum(-2).cumsum(2)
    before_s = torch.cat([s0.unsqueeze(2), s[:, :, :-1]], 2)
    before_z = torch.cat([z0.unsqueeze(2), z[:, :, :-1]], 2)
    top = scores @ v + fq @ before_s
    bottom = scores.sum(-1, keepdim=True) + fq @ before_z.unsqueeze(-1) + eps
    out = (top / bottom).flatten(2, 3)[:, :, :length]
    return out.to(narrow), (s[:, :, -1], z[:, :, -1])


def _widen(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    state: State | None,
    wide: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None, State | None]:
    return (
        q.to(wide),
        k.to(wide),
        v.to(wide),
        None if weight is None else weight.to(wide),
        None if bias is None else bias.to(wide),
        None if state is None else (state[0].to(wide), state[1].to(wide)),
    )
