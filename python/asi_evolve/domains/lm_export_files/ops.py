"""Linear attention in plain PyTorch, in the place of the engine's native kernel, with the same signatures."""

from .reference import linear_attention_chunked, linear_attention_ref

__all__ = ["linear_attention", "linear_attention_ref", "linear_attention_step"]


def linear_attention(q, k, v, weight=None, bias=None, *, causal=True, eps=1e-6, initial_state=None, return_state=False):
    """Linear attention in chunks of 64 tokens, with time linear in the length; reference.py has the definition."""
    out, state = linear_attention_chunked(q, k, v, weight, bias, causal=causal, eps=eps, initial_state=initial_state)
    return (out, state) if return_state else out


def linear_attention_step(q, k, v, state, weight=None, bias=None, *, eps=1e-6):
    """One token: q, k (batch, heads, d_k), v (batch, heads, d_v), state (S, z). The output and the new state."""
    q, k, v = (x.unsqueeze(2) for x in (q, k, v))
    out, new = linear_attention_chunked(q, k, v, weight, bias, eps=eps, initial_state=state, chunk=1)
    return out.squeeze(2), new
