"""Gated linear attention (Yang et al. 2023, equations 3 and 4): S_t = diag(a_t) S_{t-1} + k_t v_t^T, y_t = q_t^T S_t,
with a forget gate a_t per key dimension that depends on the token. Chunk by chunk (their section 4.2)."""

import torch
import torch.nn.functional as F
from torch import nn

CHUNK = 16


def gated_attention(q, k, v, log_a, state=None):
    """q, k, log_a: (batch, heads, n, d_k), log_a in [-1, 0]; v: (batch, heads, n, d_v), state: (batch,
    heads, d_k, d_v), None for zeros -> (batch, heads, n, d_v), state after the last token."""
    b, h, n, d = q.shape
    pad = -n % CHUNK
    q, k, v, log_a = (F.pad(x, (0, 0, 0, pad)).view(b, h, -1, CHUNK, x.shape[-1]) for x in (q, k, v, log_a))
    decay = log_a.cumsum(3)  # at most CHUNK in size, so that its exponential and that of its negative are fine
    q, k = q * decay.exp(), k * (-decay).exp()
    scores = (q @ k.transpose(-1, -2)).tril()
    inside = scores @ v
    last = decay[:, :, :, -1:]
    added = (k * last.exp()).transpose(-1, -2) @ v  # what each chunk leaves in the state
    keep = last.exp().transpose(-1, -2)
    state, before = q.new_zeros(b, h, d, v.shape[-1]) if state is None else state, []
    for i in range(q.shape[2]):
        before.append(state)
        state = keep[:, :, i] * state + added[:, :, i]
    y = inside + q @ torch.stack(before, dim=2)
    return y.reshape(b, h, n + pad, -1)[:, :, :n], state


class TokenMixing(nn.Module):
    def __init__(self, width, heads, window):
        super().__init__()
        self.heads = heads
        d = width // heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.forget = nn.Sequential(nn.Linear(width, 16, bias=False), nn.Linear(16, width))
        self.gate = nn.Linear(width, width, bias=False)
        self.scale = nn.Parameter(torch.ones(d))
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, position):
        return self.step(x, position, None, 0)[0]

    def step(self, x, position, state, index):
        b, n, w = x.shape
        d = w // self.heads
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, d).permute(2, 0, 3, 1, 4)
        q, k = position.rotate(q, k)
        log_a = (F.logsigmoid(self.forget(x) + 4.0) / 16).clamp(min=-1).view(b, n, self.heads, d).transpose(1, 2)
        y, state = gated_attention(q * d**-0.5, k, v, log_a, state)
        y = y * (y.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * self.scale
        return self.out(y.transpose(1, 2).reshape(b, n, w) * F.silu(self.gate(x))), state
