"""Softmax attention over the last `window` tokens only (Beltagy et al. 2020)."""

import torch
import torch.nn.functional as F
from torch import nn


class TokenMixing(nn.Module):
    def __init__(self, width, heads, window):
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, position):
        b, n, w = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        q, k = position.rotate(q, k)
        t = torch.arange(n)
        distance = t[:, None] - t[None, :]
        allowed = (distance >= 0) & (distance < self.window)
        mask = torch.zeros(n, n).masked_fill(~allowed, float("-inf"))
        bias = position.bias(n, self.heads)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask if bias is None else mask + bias)
        return self.out(y.transpose(1, 2).reshape(b, n, w))
