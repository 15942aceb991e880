"""Attention with linear biases (Press et al. 2021): scores fall with distance, at a slope per head."""

import torch
from torch import nn


class Position(nn.Module):
    def __init__(self, width, heads, max_length):
        super().__init__()
        slopes = 2.0 ** (-8.0 * torch.arange(1, heads + 1) / heads)
        t = torch.arange(max_length)
        distance = t[:, None] - t[None, :]
        bias = (-slopes[:, None, None] * distance).masked_fill(distance < 0, float("-inf"))
        self.register_buffer("table", bias, persistent=False)

    def embed(self, x, offset=0):
        return x

    def rotate(self, q, k, offset=0):
        return q, k

    def bias(self, n, heads):
        return self.table[:, :n, :n]
