"""Pre-norm residual: x + f(norm(x)) (Xiong et al. 2020)."""

from torch import nn


class Block(nn.Module):
    def __init__(self, width, mixing, mlp, make_norm):
        super().__init__()
        self.mixing, self.mlp = mixing, mlp
        self.norm1, self.norm2 = make_norm(), make_norm()

    def forward(self, x, position):
        x = x + self.mixing(self.norm1(x), position)
        return x + self.mlp(self.norm2(x))
