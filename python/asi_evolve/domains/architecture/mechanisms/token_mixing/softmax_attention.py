"""Causal multi-head softmax attention (Vaswani et al. 2017)."""

import torch
import torch.nn.functional as F
from torch import nn


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
        if state is not None:
            k, v = torch.cat([state[0], k], dim=2), torch.cat([state[1], v], dim=2)
        bias = position.bias(index + n, self.heads)
        bias = None if bias is None else bias[:, index:]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=bias is None and state is None)
        return self.out(y.transpose(1, 2).reshape(b, n, w)), (k, v)
