"""Linear attention in plain PyTorch, in the place of the engine's native kernel, with the same signature."""

import torch
import torch.nn.functional as F

CHUNK = 64  # tokens; the work is linear in the sequence length and quadratic in this


def linear_attention(q, k, v, weight=None, bias=None, *, causal=True, eps=1e-6, initial_state=None, return_state=False):
    """Linear attention (Katharopoulos et al. 2020): phi(q)^T S / (phi(q)^T z + eps), with S the sum of phi(k) v^T and z
    the sum of phi(k), over the past and present (causal) or over all tokens.

    Args:
        q, k: (batch, heads, n, d_k). v: (batch, heads, n, d_v).
        weight: (d_phi, d_k) or (heads, d_phi, d_k): phi(x) = ELU(W x + b) + 1. None: q, k are phi(q), phi(k).
        bias: (d_phi,) or (heads, d_phi).
        eps: added to the denominator.
        initial_state: (S, z) of what came before: (batch, heads, d_phi, d_v) and (batch, heads, d_phi).
        return_state: also return (S, z) after the last token.

    Returns:
        (batch, heads, n, d_v), with ``return_state`` also the state.
    """
    if weight is not None:
        q, k = _features(q, weight, bias), _features(k, weight, bias)
    if initial_state is None:
        s = q.new_zeros(*q.shape[:2], q.shape[-1], v.shape[-1])
        z = q.new_zeros(*q.shape[:2], q.shape[-1])
    else:
        s, z = initial_state
    if not causal:
        s, z = s + k.transpose(-1, -2) @ v, z + k.sum(-2)
        out = (q @ s) / ((q @ z[..., None]) + eps)
        return (out, (s, z)) if return_state else out
    parts = []
    for start in range(0, q.shape[2], CHUNK):
        qc, kc, vc = (x[:, :, start : start + CHUNK] for x in (q, k, v))
        inside = (qc @ kc.transpose(-1, -2)).tril()
        numerator = inside @ vc + qc @ s
        denominator = inside.sum(-1, keepdim=True) + qc @ z[..., None]
        parts.append(numerator / (denominator + eps))
        s, z = s + kc.transpose(-1, -2) @ vc, z + kc.sum(-2)
    out = torch.cat(parts, dim=2) if parts else v[..., :0, :]
    return (out, (s, z)) if return_state else out


def _features(x, weight, bias):
    y = x @ weight.transpose(-1, -2)
    if bias is not None:
        y = y + (bias if bias.dim() == 1 else bias[:, None, :])
    return F.elu(y) + 1
