"""Gated causal depthwise convolution of `window` taps (the local half of Hyena and of gated linear units)."""

import torch
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
        return self.step(x, position, None, 0)[0]

    def step(self, x, position, state, index):
        gate, value = self.gate(x).chunk(2, dim=-1)
        value = value.transpose(1, 2)
        past = value.new_zeros(*value.shape[:2], self.taps - 1) if state is None else state
        value = torch.cat([past, value], dim=2)
        y = self.out(F.silu(gate) * self.filter(value).transpose(1, 2))
        return y, value[:, :, value.shape[2] - self.taps + 1 :]
