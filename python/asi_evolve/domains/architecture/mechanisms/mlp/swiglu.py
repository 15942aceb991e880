"""Gated linear unit with SiLU (Shazeer 2020); two thirds of the hidden size, so that parameters are equal."""

import torch.nn.functional as F
from torch import nn


class MLP(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        hidden = max(8, int(hidden * 2 / 3) // 8 * 8)
        self.up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        gate, value = self.up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * value)
