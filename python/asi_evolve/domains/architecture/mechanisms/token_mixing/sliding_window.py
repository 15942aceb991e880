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
        return self.step(x, position, None, 0)[0]

    def step(self, x, position, state, index):
        b, n, w = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        q, k = position.rotate(q, k)
        if state is not None:
            k, v = torch.cat([state[0], k], dim=2), torch.cat([state[1], v], dim=2)
        t = torch.arange(index + n, device=x.device)
        distance = t[index:, None] - t[None, -k.shape[2] :]
        mask = x.new_zeros(distance.shape).masked_fill((distance < 0) | (distance >= self.window), float("-inf"))
        bias = position.bias(index + n, self.heads)
        mask = mask if bias is None else mask + bias[:, index:, -k.shape[2] :]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(y.transpose(1, 2).reshape(b, n, w)), (k[:, :, -self.window :], v[:, :, -self.window :])
