"""Post-norm residual: norm(x + f(x)) (Vaswani et al. 2017)."""

from torch import nn


class Block(nn.Module):
    def __init__(self, width, mixing, mlp, make_norm):
        super().__init__()
        self.mixing, self.mlp = mixing, mlp
        self.norm1, self.norm2 = make_norm(), make_norm()

    def forward(self, x, position):
        x = self.norm1(x + self.mixing(x, position))
        return self.norm2(x + self.mlp(x))
