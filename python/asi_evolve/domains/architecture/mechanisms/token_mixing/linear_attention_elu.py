"""Causal linear attention with the fixed feature map phi(x) = ELU(x) + 1 (Katharopoulos et al. 2020, equation 7)."""

import torch.nn.functional as F
from torch import nn

from asi_evolve.ops import linear_attention


class TokenMixing(nn.Module):
    def __init__(self, width, heads, window):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, position):
        return self.step(x, position, None, 0)[0]

    def step(self, x, position, state, index):
        b, n, w = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        q, k = position.rotate(q, k)
        y, state = linear_attention(F.elu(q) + 1, F.elu(k) + 1, v, initial_state=state, return_state=True)
        return self.out(y.transpose(1, 2).reshape(b, n, w)), state
