"""Causal multi-head softmax attention (Vaswani et al. 2017)."""

import torch.nn.functional as F
from torch import nn


class TokenMixing(nn.Module):
    def __init__(self, width, heads, window):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, position):
        b, n, w = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        q, k = position.rotate(q, k)
        bias = position.bias(n, self.heads)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=bias is None)
        return self.out(y.transpose(1, 2).reshape(b, n, w))
