"""Two linear maps with squared ReLU between (So et al. 2021, Primer)."""

import torch.nn.functional as F
from torch import nn


class MLP(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        return self.down(F.relu(self.up(x)).square())
