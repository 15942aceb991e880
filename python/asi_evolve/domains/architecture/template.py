"""A small byte-level causal language model. Its five mechanisms are the modules beside this file.

Choices: 256 symbols (bytes), no dropout, no biases outside the mechanisms, a final norm, weights drawn from
N(0, 0.02^2), with residual outputs, called ``out`` or ``down``, scaled down by depth.
"""

import torch
from torch import nn

from .connectivity import Block
from .mlp import MLP
from .normalization import Normalization
from .position import Position
from .token_mixing import TokenMixing


class LanguageModel(nn.Module):
    """Logits of the next byte.

    Args:
        width, layers, heads: sizes; ``width`` is a multiple of ``2 * heads``.
        mlp_ratio: hidden size of the MLP / width.
        window: taps or tokens that local mechanisms look back.
        tie_embeddings: use the embedding as the output matrix.
        max_length: longest sequence.
        token_mixing: class of the token mixing.
    """

    def __init__(
        self, *, width, layers, heads, mlp_ratio, window, tie_embeddings, max_length, token_mixing=TokenMixing
    ):
        super().__init__()
        self.embedding = nn.Embedding(256, width)
        self.position = Position(width, heads, max_length)
        hidden = max(8, int(width * mlp_ratio) // 8 * 8)
        self.blocks = nn.ModuleList(
            Block(width, token_mixing(width, heads, window), MLP(width, hidden), lambda: Normalization(width))
            for _ in range(layers)
        )
        self.norm = Normalization(width)
        self.head = nn.Linear(width, 256, bias=False)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                residual = name.endswith((".out", ".down"))
                nn.init.normal_(module.weight, std=0.02 * (2 * layers) ** -0.5 if residual else 0.02)
        if tie_embeddings:
            self.head.weight = self.embedding.weight

    def features(self, tokens):
        """tokens: int64 (batch, n) -> hidden state after the final norm (batch, n, width)."""
        x = self.position.embed(self.embedding(tokens))
        for block in self.blocks:
            x = block(x, self.position)
        return self.norm(x)

    def forward(self, tokens):
        """tokens: int64 (batch, n) -> logits (batch, n, 256)."""
        return self.head(self.features(tokens))


def build(params, max_length, token_mixing=TokenMixing):
    """The model of an architecture's parameters."""
    names = ("width", "layers", "heads", "mlp_ratio", "window", "tie_embeddings")
    return LanguageModel(**{name: params[name] for name in names}, max_length=max_length, token_mixing=token_mixing)


@torch.no_grad()
def generate(model, prompt, length, max_length, temperature=0.8):
    """``prompt`` (bytes) continued by ``length`` sampled bytes."""
    tokens = list(prompt) or [10]
    model.eval()
    for _ in range(length):
        logits = model(torch.tensor([tokens[-max_length:]]))[0, -1] / temperature
        tokens.append(int(torch.multinomial(logits.softmax(-1), 1)))
    return bytes(tokens)
