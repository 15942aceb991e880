"""No normalisation."""

from torch import nn


class Normalization(nn.Module):
    def __init__(self, width):
        super().__init__()

    def forward(self, x):
        return x
