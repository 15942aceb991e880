"""Token mixing and MLP side by side on one norm: x + f(norm(x)) + g(norm(x)) (Wang and Komatsuzaki 2021, GPT-J)."""

from torch import nn


class Block(nn.Module):
    def __init__(self, width, mixing, mlp, make_norm):
        super().__init__()
        self.mixing, self.mlp = mixing, mlp
        self.norm = make_norm()

    def forward(self, x, position):
        y = self.norm(x)
        return x + self.mixing(y, position) + self.mlp(y)
