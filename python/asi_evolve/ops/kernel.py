"""The custom operators ``asi_evolve::linear_attention`` and ``..._backward``: kernel, shapes, gradient, vmap.

The operators want what :mod:`asi_evolve.ops.attention` prepares: q, k, v of one dtype; weight, bias and state in the
accumulation type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from asi_evolve import _native
from asi_evolve.ops.reference import accumulator

DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}

_Outputs = tuple[Tensor, Tensor, Tensor]
_Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
_Tensor4 = tuple[int, tuple[int, ...]]

_INPUTS = "Tensor q, Tensor k, Tensor v, Tensor? weight, Tensor? bias, Tensor? s, Tensor? z, bool causal, float eps"
torch.library.define(
    "asi_evolve::linear_attention", f"({_INPUTS}) -> (Tensor, Tensor, Tensor)", tags=torch.Tag.pt2_compliant_tag
)
torch.library.define(
    "asi_evolve::linear_attention_backward",
    f"(Tensor grad_out, Tensor? grad_s, Tensor? grad_z, Tensor out, {_INPUTS}) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    tags=torch.Tag.pt2_compliant_tag,
)


def view(x: Tensor) -> _Tensor4:
    """Address and strides of a 4-dimensional tensor."""
    return x.data_ptr(), x.stride()


def weights(weight: Tensor | None, bias: Tensor | None) -> tuple[int, int, int, int]:
    """Address and head stride of contiguous weight and bias."""
    if weight is None:
        return 0, 0, 0, 0
    w_head = weight.stride(0) if weight.dim() == 3 else 0
    if bias is None:
        return weight.data_ptr(), w_head, 0, 0
    return weight.data_ptr(), w_head, bias.data_ptr(), bias.stride(0) if bias.dim() == 2 else 0


def pair(s: Tensor | None, z: Tensor | None) -> tuple[int, int]:
    """Addresses of two tensors, 0 for none."""
    return (0 if s is None else s.data_ptr()), (0 if z is None else z.data_ptr())


def sizes(q: Tensor, v: Tensor, weight: Tensor | None) -> tuple[int, int, int, int, int, int]:
    """Batch, heads, length, d_k, d_phi, d_v."""
    batch, heads, length, d_k = q.shape
    return batch, heads, length, d_k, d_k if weight is None else weight.shape[-2], v.shape[-1]


def token(x: Tensor) -> _Tensor4:
    """Address and strides of a (B, H, d) tensor, as of one token of a sequence."""
    batch, head, last = x.stride()
    return x.data_ptr(), (batch, head, 0, last)


def _contiguous(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if x is None else x.contiguous() for x in tensors]


@torch.library.impl("asi_evolve::linear_attention", "CPU")
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    s: Tensor | None,
    z: Tensor | None,
    causal: bool,
    eps: float,
) -> _Outputs:
    check_dtypes(q, k, v, weight, bias, s, z)
    weight, bias, s, z = _contiguous(weight, bias, s, z)
    out, new_s, new_z = empty_outputs(q, v, weight)
    _native.linear_attention_forward(
        DTYPES[q.dtype],
        causal,
        eps,
        torch.get_num_threads(),
        sizes(q, v, weight),
        view(q),
        view(k),
        view(v),
        weights(weight, bias),
        pair(s, z),
        view(out),
        pair(new_s, new_z),
    )
    return out, new_s, new_z


@torch.library.register_fake("asi_evolve::linear_attention")  # type: ignore[untyped-decorator]
def _forward_fake(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    s: Tensor | None,
    z: Tensor | None,
    causal: bool,
    eps: float,
) -> _Outputs:
    return empty_outputs(q, v, weight)


def empty_outputs(q: Tensor, v: Tensor, weight: Tensor | None) -> _Outputs:
    """Memory for out, S and z."""
    batch, heads, length, _, d_phi, d_v = sizes(q, v, weight)
    wide = accumulator(q.dtype)
    return (
        q.new_empty((batch, heads, length, d_v)),
        q.new_empty((batch, heads, d_phi, d_v), dtype=wide),
        q.new_empty((batch, heads, d_phi), dtype=wide),
    )


@torch.library.impl("asi_evolve::linear_attention_backward", "CPU")
def _backward(
    grad_out: Tensor,
    grad_s: Tensor | None,
    grad_z: Tensor | None,
    out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    s: Tensor | None,
    z: Tensor | None,
    causal: bool,
    eps: float,
) -> _Gradients:
    check_dtypes(q, k, v, weight, bias, s, z)
    weight, bias, s, z, grad_s, grad_z = _contiguous(weight, bias, s, z, grad_s, grad_z)
    grads, (grad_w, grad_b), (grad_s0, grad_z0) = empty_gradients(q, v, weight, bias, s)
    _native.linear_attention_backward(
        DTYPES[q.dtype],
        causal,
        eps,
        torch.get_num_threads(),
        sizes(q, v, weight),
        view(q),
        view(k),
        view(v),
        weights(weight, bias),
        pair(s, z),
        view(out),
        view(grad_out),
        pair(grad_s, grad_z),
        view(grads[0]),
        view(grads[1]),
        view(grads[2]),
        pair(grad_w, grad_b),
        pair(grad_s0, grad_z0),
    )
    return sum_gradients(q, grads, weight, bias, grad_w, grad_b, grad_s0, grad_z0)


_Pair = tuple[Tensor | None, Tensor | None]


def empty_gradients(
    q: Tensor, v: Tensor, weight: Tensor | None, bias: Tensor | None, s: Tensor | None
) -> tuple[list[Tensor], _Pair, _Pair]:
    """Memory for the gradients of (q, k, v), (W, b) and (S, z). One weight gradient per sequence, which
    :func:`sum_gradients` sums in a fixed order: the result does not depend on the threads."""
    batch, heads, length, d_k, d_phi, d_v = sizes(q, v, weight)
    wide = accumulator(q.dtype)
    grads = [q.new_empty((batch, heads, length, d)) for d in (d_k, d_k, d_v)]
    grad_w = None if weight is None else q.new_empty((batch, heads, d_phi, d_k), dtype=wide)
    grad_b = None if bias is None else q.new_empty((batch, heads, d_phi), dtype=wide)
    grad_s0 = None if s is None else q.new_empty((batch, heads, d_phi, d_v), dtype=wide)
    grad_z0 = None if s is None else q.new_empty((batch, heads, d_phi), dtype=wide)
    return grads, (grad_w, grad_b), (grad_s0, grad_z0)


def sum_gradients(
    q: Tensor,
    grads: list[Tensor],
    weight: Tensor | None,
    bias: Tensor | None,
    grad_w: Tensor | None,
    grad_b: Tensor | None,
    grad_s0: Tensor | None,
    grad_z0: Tensor | None,
) -> _Gradients:
    """What the backward operator returns: weight gradients in the shapes of the weights, empty ones for None."""
    if grad_w is not None and weight is not None:
        grad_w = grad_w.sum(0) if weight.dim() == 3 else grad_w.sum((0, 1))
    if grad_b is not None and bias is not None:
        grad_b = grad_b.sum(0) if bias.dim() == 2 else grad_b.sum((0, 1))
    wide = accumulator(q.dtype)
    empty = [q.new_empty(0, dtype=wide) if x is None else x for x in (grad_w, grad_b, grad_s0, grad_z0)]
    return grads[0], grads[1], grads[2], empty[0], empty[1], empty[2], empty[3]


@torch.library.register_fake("asi_evolve::linear_attention_backward")  # type: ignore[untyped-decorator]
def _backward_fake(
    grad_out: Tensor,
    grad_s: Tensor | None,
    grad_z: Tensor | None,
    out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    s: Tensor | None,
    z: Tensor | None,
    causal: bool,
    eps: float,
) -> _Gradients:
    wide = accumulator(q.dtype)

    def like(x: Tensor | None, dtype: torch.dtype) -> Tensor:
        return q.new_empty(0 if x is None else x.shape, dtype=dtype)

    return (
        like(q, q.dtype),
        like(k, q.dtype),
        like(v, q.dtype),
        like(weight, wide),
        like(bias, wide),
        like(s, wide),
        like(z, wide),
    )


def check_dtypes(
    q: Tensor, k: Tensor, v: Tensor, *others: Tensor | None, allowed: Mapping[torch.dtype, str] = DTYPES
) -> None:
    """Raises TypeError unless q, k, v are of one allowed type and the others of its accumulation type."""
    if q.dtype not in allowed or k.dtype != q.dtype or v.dtype != q.dtype:
        raise TypeError(
            f"q, k, v: dtypes {q.dtype}, {k.dtype}, {v.dtype}; expected one of {', '.join(map(str, allowed))} for all"
        )
    for x in others:
        if x is not None and x.dtype != accumulator(q.dtype):
            raise TypeError(f"weight, bias, state: dtype {x.dtype}; expected {accumulator(q.dtype)} with {q.dtype}")


def _save(ctx: Any, inputs: tuple[Any, ...], output: _Outputs) -> None:
    *tensors, ctx.causal, ctx.eps = inputs
    ctx.save_for_backward(output[0], *tensors)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad_out: Tensor | None, grad_s: Tensor | None, grad_z: Tensor | None) -> tuple[Any, ...]:
    out, *tensors = ctx.saved_tensors
    if grad_out is None:
        grad_out = torch.zeros_like(out)
    grads = torch.ops.asi_evolve.linear_attention_backward(grad_out, grad_s, grad_z, out, *tensors, ctx.causal, ctx.eps)
    return *(None if x is None else g for x, g in zip(tensors, grads, strict=True)), None, None


torch.library.register_autograd("asi_evolve::linear_attention", _differentiate, setup_context=_save)


class Transformed(torch.autograd.Function):
    """The operator for ``torch.func``, whose transforms do not know the gradient registered above."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> Any:
        """The operator."""
        return torch.ops.asi_evolve.linear_attention(*inputs)

    setup_context = staticmethod(_save)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """The backward operator."""
        return _differentiate(ctx, *grads)


# --- vmap: the new dimension becomes part of the heads, which may have weights of their own ---------------------


def _fold(x: Tensor | None, dim: int | None, size: int) -> Tensor | None:
    """(B, H, ...) with a mapped dimension -> (B, size * H, ...)."""
    if x is None:
        return None
    x = x.unsqueeze(1).expand(-1, size, *x.shape[1:]) if dim is None else x.movedim(dim, 1)
    return x.flatten(1, 2)


def _fold_weight(x: Tensor | None, dim: int | None, size: int, heads: int, rank: int) -> Tensor | None:
    """(...) or (H, ...) of `rank` dimensions per head, with a mapped dimension -> (size * H, ...)."""
    if x is None:
        return None
    x = x.unsqueeze(0).expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
    if x.dim() == rank + 1:
        x = x.unsqueeze(1).expand(-1, heads, *x.shape[1:])
    return x.flatten(0, 1)


def _fold_inputs(size: int, dims: Sequence[Any], args: Sequence[Any]) -> tuple[list[Any], int]:
    q = args[0]
    heads = q.shape[1] if dims[0] is None else q.movedim(dims[0], 0).shape[2]
    folded = [_fold(x, d, size) for x, d in zip(args[:3], dims[:3], strict=True)]
    folded += [_fold_weight(args[3], dims[3], size, heads, 2), _fold_weight(args[4], dims[4], size, heads, 1)]
    folded += [_fold(x, d, size) for x, d in zip(args[5:7], dims[5:7], strict=True)]
    return [*folded, *args[7:]], heads


@torch.library.register_vmap("asi_evolve::linear_attention")  # type: ignore[untyped-decorator]
def _forward_vmap(info: Any, dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
    size = info.batch_size
    inputs, heads = _fold_inputs(size, dims, args)
    outputs = torch.ops.asi_evolve.linear_attention(*inputs)
    return tuple(x.unflatten(1, (size, heads)) for x in outputs), (1, 1, 1)


@torch.library.register_vmap("asi_evolve::linear_attention_backward")  # type: ignore[untyped-decorator]
def _backward_vmap(info: Any, dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
    size = info.batch_size
    inputs, heads = _fold_inputs(size, dims[4:], args[4:])
    first = [_fold(x, d, size) for x, d in zip(args[:4], dims[:4], strict=True)]
    grads = list(torch.ops.asi_evolve.linear_attention_backward(*first, *inputs))
    out_dims: list[int | None] = [1, 1, 1, 0, 0, 1, 1]
    for i, (x, d, rank) in enumerate(zip(args[7:11], dims[7:11], (2, 1, 0, 0), strict=True), start=3):
        if x is None:
            out_dims[i] = None
        elif rank:
            grads[i] = grads[i].unflatten(0, (size, heads))
            if x.dim() - (d is not None) == rank:  # one weight for all heads
                grads[i] = grads[i].sum(1)
        else:
            grads[i] = grads[i].unflatten(1, (size, heads))
    for i in range(3):
        grads[i] = grads[i].unflatten(1, (size, heads))
    return tuple(grads), tuple(out_dims)


# --- floating-point operations, by torch.utils.flop_counter ------------------------------------------------------


def _counts(q_shape: Sequence[int], v_shape: Sequence[int], weight_shape: Sequence[int] | None) -> tuple[int, int, int]:
    """Tokens times heads; d_phi d_v + d_phi; d_phi d_k when mapped."""
    batch, heads, length, d_k = q_shape
    d_phi = d_k if weight_shape is None else weight_shape[-2]
    return batch * heads * length, d_phi * v_shape[-1] + d_phi, 0 if weight_shape is None else d_phi * d_k


@register_flop_formula(torch.ops.asi_evolve.linear_attention)
def _forward_flops(q: Any, k: Any, v: Any, weight: Any = None, *_: Any, **__: Any) -> int:
    """The recurrent form (Katharopoulos et al. 2020, equations 18 to 20): per token and head 2 d_phi d_v each for
    the state and the output, 2 d_phi each for the normaliser and its product, and with the feature map 2 d_phi d_k
    each for query and key."""
    tokens, of_state, of_map = _counts(q, v, weight)
    return 4 * tokens * (of_state + of_map)


@register_flop_formula(torch.ops.asi_evolve.linear_attention_backward)
def _backward_flops(
    grad_out: Any, grad_s: Any, grad_z: Any, out: Any, q: Any, k: Any, v: Any, weight: Any = None, *_: Any, **__: Any
) -> int:
    """Twice the forward pass, as for a matrix product; what is computed anew is not counted."""
    tokens, of_state, of_map = _counts(q, v, weight)
    return 8 * tokens * (of_state + of_map)
