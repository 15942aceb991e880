"""Decoding token by token: the model goes on from a state instead of reading everything again.

The state is what ``TokenMixing.step`` returns: a recurrent state of constant size for linear mechanisms, keys and
values for attention, the last inputs for convolutions. That the rest of a block acts per token is a convention of the
reference mechanisms which evolved code may break; :func:`agrees` finds out.
"""

import inspect

import torch

from .token_mixing import TokenMixing


class Decoding(TokenMixing):
    """The token mixing, which goes on from a state when a :class:`Cursor` is its position."""

    def forward(self, x, position):
        """x: (batch, n, width) -> as x."""
        return position.mix(self, x) if isinstance(position, Cursor) else super().forward(x, position)


class Cursor:
    """A Position whose first token has the number ``index``, with the states of one block's mixings.

    Args:
        position: the model's.
        index: number of tokens before.
        states: of the mixings of the block, in the order of their calls; None before the first token.
    """

    def __init__(self, position, index, states):
        self.position, self.index, self.before, self.after = position, index, states, []

    def rotate(self, q, k):
        """q, k: (batch, heads, n, d), of the tokens from ``index`` on."""
        return self.position.rotate(q, k, self.index)

    def bias(self, n, heads):
        """The mask of n tokens, those before included."""
        return self.position.bias(n, heads)

    def mix(self, mixing, x):
        """One call of a mixing; what it remembers goes to ``after``."""
        state = None if self.before is None else self.before[len(self.after)]
        y, state = mixing.step(x, self, state, self.index)
        self.after.append(state)
        return y


class State:
    """What decoding remembers.

    Attributes:
        tokens: int64 (batch, n), all tokens so far.
        blocks: per block the states of its mixings; None where the model has to read all tokens again.
    """

    def __init__(self, tokens, blocks):
        self.tokens, self.blocks = tokens, blocks

    def matching(self, tokens):
        """The state whose rows are beginnings of the rows of ``tokens`` (batch, m): this one, this one with its rows
        in another order (beam search), or None when there is none that leaves a token to read."""
        seen = self.tokens.shape[1]
        if tokens.shape[1] <= seen:
            return None
        start = tokens[:, :seen]
        if torch.equal(start, self.tokens):
            return self
        same = (start[:, None] == self.tokens[None]).all(-1)
        if not same.any(1).all():
            return None
        rows = same.int().argmax(1)
        return State(start, None if self.blocks is None else _select(self.blocks, rows))


def _select(tree, rows):
    if isinstance(tree, torch.Tensor):
        return tree.index_select(0, rows)
    return type(tree)(_select(x, rows) for x in tree)


def resumes(model):
    """Whether every mechanism that has to has the methods for decoding with a state."""
    mixings = [m for m in model.modules() if isinstance(m, TokenMixing)]
    methods = [inspect.signature(f).parameters for f in (model.position.embed, model.position.rotate)]
    return all(hasattr(m, "step") for m in mixings) and all("offset" in parameters for parameters in methods)


def advance(model, tokens, state, resume):
    """Reads further tokens.

    Args:
        model: a LanguageModel with :class:`Decoding` as token mixing.
        tokens: int64 (batch, n), those after ``state``.
        state: None at the beginning.
        resume: False to read all tokens again, which is slow and right for any mechanism.

    Returns:
        Logits (batch, n, 256) of the further tokens, and the state after them.
    """
    seen = tokens if state is None else torch.cat([state.tokens, tokens], dim=1)
    if not resume:
        return model(seen)[:, seen.shape[1] - tokens.shape[1] :], State(seen, None)
    if state is None:
        return _read(model, tokens, None)
    logits = []
    for token in tokens.split(1, dim=1):
        one, state = _read(model, token, state)
        logits.append(one)
    return torch.cat(logits, dim=1), state


def _read(model, tokens, state):
    index = 0 if state is None else state.tokens.shape[1]
    x = model.position.embed(model.embedding(tokens), index)
    blocks = []
    for i, block in enumerate(model.blocks):
        cursor = Cursor(model.position, index, None if state is None else state.blocks[i])
        x = block(x, cursor)
        blocks.append(cursor.after)
    seen = tokens if state is None else torch.cat([state.tokens, tokens], dim=1)
    return model.head(model.norm(x)), State(seen, blocks)


@torch.no_grad()
def agrees(model, tokens, tolerance=1e-4):
    """Whether decoding ``tokens``, int64 (batch, n), with states gives the logits of reading them at once, up to
    ``tolerance`` of the largest logit."""
    if not resumes(model):
        return False
    whole, (first, rest) = model(tokens), tokens.tensor_split([max(1, tokens.shape[1] // 2)], dim=1)
    try:
        before, state = advance(model, first, None, True)
        after, _ = advance(model, rest, state, True)
    except Exception:  # evolved code: whatever it raises, it cannot go on from a state
        return False
    difference = (torch.cat([before, after], dim=1) - whole).abs().max()
    return bool(difference <= tolerance * (1 + whole.abs().max()))
