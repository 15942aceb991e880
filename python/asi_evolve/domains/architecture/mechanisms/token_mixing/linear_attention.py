"""Causal linear attention (Katharopoulos et al. 2020) with the learned feature map phi(x) = ELU(W x + b) + 1."""

import torch
from torch import nn

from asi_evolve.ops import linear_attention


class TokenMixing(nn.Module):
    def __init__(self, width, heads, window):
        super().__init__()
        self.heads = heads
        d = width // heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.weight = nn.Parameter(torch.eye(d).repeat(heads, 1, 1) + 0.02 * torch.randn(heads, d, d))
        self.feature_bias = nn.Parameter(torch.zeros(heads, d))

    def forward(self, x, position):
        return self.step(x, position, None, 0)[0]

    def step(self, x, position, state, index):
        b, n, w = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        q, k = position.rotate(q, k)
        y, state = linear_attention(q, k, v, self.weight, self.feature_bias, initial_state=state, return_state=True)
        return self.out(y.transpose(1, 2).reshape(b, n, w)), state
