"""Learned absolute position embeddings, added to the token embeddings (Gehring et al. 2017)."""

import torch
from torch import nn


class Position(nn.Module):
    def __init__(self, width, heads, max_length):
        super().__init__()
        self.table = nn.Parameter(0.02 * torch.randn(max_length, width))

    def embed(self, x, offset=0):
        return x + self.table[offset : offset + x.shape[1]]

    def rotate(self, q, k, offset=0):
        return q, k

    def bias(self, n, heads):
        return None
