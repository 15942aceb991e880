"""DeltaNet: S_t = S_{t-1} - b_t (S_{t-1} k_t - v_t) k_t^T, y_t = S_t q_t (Schlag et al. 2021, equation 23): a state
that corrects what it holds for a key instead of adding to it. Chunk by chunk in WY form (Yang et al. 2024)."""

import torch
import torch.nn.functional as F
from torch import nn

CHUNK = 32


def delta_rule(q, k, v, beta, state=None):
    """q, k: (batch, heads, n, d_k), k of length 1; v: (batch, heads, n, d_v); beta: (batch, heads, n) in [0, 1],
    state: (batch, heads, d_k, d_v), None for zeros -> (batch, heads, n, d_v), state after the last token."""
    b, h, n, d = q.shape
    pad = -n % CHUNK
    q, k, v = (F.pad(x, (0, 0, 0, pad)).view(b, h, -1, CHUNK, x.shape[-1]) for x in (q, k, v))
    beta = F.pad(beta, (0, pad)).view(b, h, -1, CHUNK, 1)
    # (I + tril(diag(b) K K^T, -1)) [W U] = diag(b) [K V]: what each token writes, once the earlier ones are undone.
    lower = (beta * k @ k.transpose(-1, -2)).tril(-1) + torch.eye(CHUNK, dtype=q.dtype, device=q.device)
    solved = torch.linalg.solve_triangular(lower, beta * torch.cat([k, v], -1), upper=False, unitriangular=True)
    w, u = solved.split([d, v.shape[-1]], -1)
    scores = (q @ k.transpose(-1, -2)).tril()
    state, outputs = q.new_zeros(b, h, d, v.shape[-1]) if state is None else state, []
    for i in range(q.shape[2]):
        written = u[:, :, i] - w[:, :, i] @ state
        outputs.append(q[:, :, i] @ state + scores[:, :, i] @ written)
        state = state + k[:, :, i].transpose(-1, -2) @ written
    return torch.cat(outputs, dim=2)[:, :, :n], state


class TokenMixing(nn.Module):
    def __init__(self, width, heads, window):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.rate = nn.Linear(width, heads)
        self.scale = nn.Parameter(torch.ones(width // heads))
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, position):
        return self.step(x, position, None, 0)[0]

    def step(self, x, position, state, index):
        b, n, w = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        q, k = position.rotate(F.silu(q), F.silu(k))
        beta = self.rate(x).sigmoid().transpose(1, 2)
        y, state = delta_rule(F.normalize(q, dim=-1), F.normalize(k, dim=-1), v, beta, state)
        y = y * (y.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * self.scale
        return self.out(y.transpose(1, 2).reshape(b, n, w)), state
