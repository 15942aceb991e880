"""Root mean square normalisation (Zhang and Sennrich 2019)."""

import torch
from torch import nn


class Normalization(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * self.scale
