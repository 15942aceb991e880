"""Two linear maps with GELU between (Hendrycks and Gimpel 2016)."""

import torch.nn.functional as F
from torch import nn


class MLP(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        return self.down(F.gelu(self.up(x), approximate="tanh"))
