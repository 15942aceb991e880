"""Rotary position embedding (Su et al. 2021)."""

import torch
from torch import nn


class Position(nn.Module):
    def __init__(self, width, heads, max_length):
        super().__init__()
        half = width // heads // 2
        angle = torch.arange(max_length)[:, None] * 1000.0 ** (-torch.arange(half) / half)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def embed(self, x):
        return x

    def rotate(self, q, k):
        return self._turn(q), self._turn(k)

    def bias(self, n, heads):
        return None

    def _turn(self, x):
        a, b = x.chunk(2, dim=-1)
        cos, sin = self.cos[: x.shape[-2]], self.sin[: x.shape[-2]]
        return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
