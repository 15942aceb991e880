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

    def embed(self, x, offset=0):
        return x

    def rotate(self, q, k, offset=0):
        return self._turn(q, offset), self._turn(k, offset)

    def bias(self, n, heads):
        return None

    def _turn(self, x, offset):
        a, b = x.chunk(2, dim=-1)
        where = slice(offset, offset + x.shape[-2])
        cos, sin = self.cos[where], self.sin[where]
        return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
