"""Causal linear attention with positive random features, phi(x) = exp(w x - |x|^2 / 2) / sqrt(m) with orthogonal w
(Choromanski et al. 2020, Performer, equation 7): an unbiased estimate of softmax attention."""

import torch
from torch import nn

from asi_evolve.ops import linear_attention


def orthogonal_features(heads, m, d):
    """Rows of orthogonal blocks, with the lengths of Gaussian vectors: (heads, m, d)."""
    blocks = [torch.linalg.qr(torch.randn(heads, d, d))[0] for _ in range(-(-m // d))]
    return torch.cat(blocks, dim=1)[:, :m] * torch.randn(heads, m, d).norm(dim=-1, keepdim=True)


class TokenMixing(nn.Module):
    def __init__(self, width, heads, window):
        super().__init__()
        self.heads = heads
        d = width // heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.register_buffer("directions", orthogonal_features(heads, 2 * d, d))

    def phi(self, x, largest):
        x = x * x.shape[-1] ** -0.25  # softmax's temperature, half on each side
        projected = torch.einsum("bhnd,hmd->bhnm", x, self.directions)
        y = projected - x.square().sum(-1, keepdim=True) / 2
        # A factor per query cancels; keys share one, that no later key can change (y is at most |w|^2 / 2).
        top = y.amax(-1, keepdim=True).detach() if largest is None else largest
        return torch.exp(y - top) + 1e-6

    def forward(self, x, position):
        return self.step(x, position, None, 0)[0]

    def step(self, x, position, state, index):
        b, n, w = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        q, k = position.rotate(q, k)
        y, state = linear_attention(self.phi(q, None), self.phi(k, 4.0), v, initial_state=state, return_state=True)
        return self.out(y.transpose(1, 2).reshape(b, n, w)), state
