"""Layer normalisation (Ba et al. 2016)."""

from torch import nn


class Normalization(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        return self.norm(x)
