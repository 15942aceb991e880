"""Softmax attention over the last `window` tokens and linear attention over all, mixed per head: exact recall nearby, a
summary of the rest (Arora et al. 2024, Based; in parallel as the heads of Dong et al. 2024, Hymba)."""

import torch
import torch.nn.functional as F
from torch import nn

from asi_evolve.ops import linear_attention


class TokenMixing(nn.Module):
    def __init__(self, width, heads, window):
        super().__init__()
        self.heads, self.window = heads, window
        d = width // heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.weight = nn.Parameter(torch.eye(d).repeat(heads, 1, 1) + 0.02 * torch.randn(heads, d, d))
        self.feature_bias = nn.Parameter(torch.zeros(heads, d))
        self.share = nn.Parameter(torch.zeros(heads, 1, 1))

    def forward(self, x, position):
        return self.step(x, position, None, 0)[0]

    def step(self, x, position, state, index):
        b, n, w = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        q, k = position.rotate(q, k)
        past = None if state is None else state[2:]
        far, summary = linear_attention(q, k, v, self.weight, self.feature_bias, initial_state=past, return_state=True)
        if state is not None:
            k, v = torch.cat([state[0], k], dim=2), torch.cat([state[1], v], dim=2)
        t = torch.arange(index + n, device=x.device)
        distance = t[index:, None] - t[None, -k.shape[2] :]
        mask = x.new_zeros(distance.shape).masked_fill((distance < 0) | (distance >= self.window), float("-inf"))
        bias = position.bias(index + n, self.heads)
        mask = mask if bias is None else mask + bias[:, index:, -k.shape[2] :]
        local = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        share = self.share.sigmoid()
        y = share * local + (1 - share) * far
        state = (k[:, :, -self.window :], v[:, :, -self.window :], *summary)
        return self.out(y.transpose(1, 2).reshape(b, n, w)), state
