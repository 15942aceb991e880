"""Gated causal depthwise convolution of `window` taps (the local half of Hyena and of gated linear units)."""

import torch.nn.functional as F
from torch import nn


class TokenMixing(nn.Module):
    def __init__(self, width, heads, window):
        super().__init__()
        self.taps = min(window, 16)
        self.gate = nn.Linear(width, 2 * width, bias=False)
        self.filter = nn.Conv1d(width, width, self.taps, groups=width)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, position):
        gate, value = self.gate(x).chunk(2, dim=-1)
        value = F.pad(value.transpose(1, 2), (self.taps - 1, 0))  # only the past
        return self.out(F.silu(gate) * self.filter(value).transpose(1, 2))
