"""Torch functions over the native kernels: linear attention, one-token decoding and the plain torch reference."""

from asi_evolve.ops.attention import linear_attention, linear_attention_step
from asi_evolve.ops.reference import linear_attention_ref

__all__ = ["linear_attention", "linear_attention_ref", "linear_attention_step"]
