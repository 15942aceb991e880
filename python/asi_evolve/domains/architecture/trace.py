"""What a model computes, as counts over its traced graph. Runs in a sandbox: the code is the candidate's.

The graph is that of ATen operators in their core set, without mutation, dead code and repetition, and with operators
that only move data taken out; so neither names, nor the order of lines, nor most ways to write the same thing matter.
"""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

# Sizes of the traced model, all different so that an axis is known by its size; LENGTH is that of time.
WIDTH, HEADS, HIDDEN, WINDOW, LENGTH, BATCH = 16, 2, 40, 4, 23, 3

FAMILIES = {  # family -> core operators
    "matmul": "mm bmm addmm baddbmm dot mv addmv linear matmul",
    "convolution": "convolution _conv_depthwise2d im2col unfold",
    "softmax": "_softmax _log_softmax _safe_softmax",
    "scan": "cumsum cumprod logcumsumexp cummax cummin",
    "sum": "sum mean var var_mean prod amax amin max min argmax argmin any all linalg_vector_norm logsumexp",
    "normalize": "native_layer_norm native_group_norm native_batch_norm rsqrt _fused_rms_norm",
    "sigmoid": "sigmoid tanh silu log_sigmoid_forward hardtanh erf gelu softplus mish",
    "rectify": "relu elu leaky_relu clamp clamp_min clamp_max maximum minimum abs threshold sign",
    "exponential": "exp exp2 log log2 log1p expm1 pow sqrt reciprocal sin cos",
    "multiply": "mul div neg addcmul addcdiv",
    "add": "add sub rsub lerp",
    "select": "where masked_fill masked_scatter gather index index_select index_put scatter scatter_add topk sort eq "
    "ne lt le gt ge logical_and logical_or logical_not bitwise_and bitwise_or bitwise_not tril triu embedding",
    "join": "cat constant_pad_nd roll flip stack repeat select_scatter slice_scatter",
    "solve": "linalg_solve_triangular triangular_solve linalg_inv_ex _linalg_solve_ex linalg_qr _fft_r2c _fft_c2r",
    "special": "",  # everything else that computes
}
_MOVING = {  # what moves data, changes types or makes constants: computes nothing
    "view": "view _unsafe_view reshape permute transpose t mT expand expand_as squeeze unsqueeze slice select unbind "
    "split split_with_sizes chunk as_strided diagonal movedim unflatten flatten narrow alias detach",
    "copy": "clone contiguous copy _to_copy to lift_fresh lift_fresh_copy _local_scalar_dense fill zero",
    "make": "full full_like zeros zeros_like ones ones_like empty empty_like new_zeros new_ones new_full new_empty "
    "arange eye scalar_tensor",
}
_MOVES = frozenset(name for names in _MOVING.values() for name in names.split())
_FAMILY = {name: family for family, names in FAMILIES.items() for name in names.split()}
_ATTENTION = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_attention_math",
    "_scaled_dot_product_attention_math_for_mps",
    "_scaled_dot_product_fused_attention_overrideable",
)
# Kernels that do several things at once, written out.
_WRITTEN_OUT = {
    **dict.fromkeys(_ATTENTION, ("matmul", "multiply", "select", "softmax", "matmul")),
    "linear_attention": ("matmul", "scan", "scan", "matmul", "matmul", "multiply"),
    "addmm": ("matmul", "add"),
    "baddbmm": ("matmul", "add"),
    "native_layer_norm": ("sum", "sum", "add", "normalize", "multiply", "multiply", "add"),
}
_ENDS = {"native_layer_norm": "reduce"}  # what it is to those that use it; a scale and a shift are details
_OVER_TIME = (*_ATTENTION, "linear_attention")
# For pairs: what feeds what.
GROUPS = {
    "matmul": ("matmul", "convolution", "solve"),
    "time": ("softmax", "scan", "join"),
    "reduce": ("sum", "normalize"),
    "bend": ("sigmoid", "rectify", "exponential", "select", "special"),
    "multiply": ("multiply",),
    "add": ("add",),
}
_GROUP = {family: group for group, families in GROUPS.items() for family in families}
OTHER = (
    "reductions over time",
    "products over time",
    "depth",
    "branching",
    "operators",
    "reach",
    "parameters",
    "FLOPs",
)
SIZE = len(FAMILIES) + len(GROUPS) ** 2 + len(OTHER)


def trace(cases: Sequence[Mapping[str, str]]) -> list[list[float]]:
    """Counts of the graph of one model per case, in the order FAMILIES, pairs of GROUPS, OTHER.

    Args:
        cases: files of a package with ``build(params, max_length)``, by relative path without a folder.

    Raises:
        Exception: whatever the code of a case raises, or torch when it cannot be traced.
    """
    import torch

    torch.set_num_threads(1)
    sys.path[:0] = [""] if "" not in sys.path else []
    params = {"width": WIDTH, "layers": 1, "heads": HEADS, "mlp_ratio": HIDDEN / WIDTH, "window": WINDOW}
    found = []
    for i, files in enumerate(cases):
        for path, text in files.items():
            Path(f"traced{i}").mkdir(exist_ok=True)
            Path(f"traced{i}", path).write_text(text, encoding="utf-8")
        importlib.invalidate_caches()
        torch.manual_seed(0)
        model = importlib.import_module(f"traced{i}").build({**params, "tie_embeddings": False}, LENGTH)
        found.append([*_counts(_graph(model.eval())), _reach(model), *_sizes(model)])
    return found


def _reach(model: Any) -> float:
    """How many tokens, itself included, the first one has an influence on: a mask is a table, which the graph does not
    show."""
    import torch

    tokens = torch.arange(LENGTH)[None] * 7 % 256
    changed = torch.cat([(tokens[:, :1] + 1) % 256, tokens[:, 1:]], dim=1)
    with torch.no_grad():
        difference = (model.features(tokens) - model.features(changed)).abs().amax(-1)[0]
    return float((difference > 0).sum())


def _sizes(model: Any) -> tuple[float, float]:
    """Parameters of the blocks and FLOPs per token before the head, in units that make their logarithms of order 1."""
    import torch

    from asi_evolve.domains.lm_runner import count_flops

    parameters = sum(p.numel() for p in model.blocks.parameters())
    tokens = torch.arange(LENGTH)[None] * 7 % 256
    flops = count_flops(lambda: model.features(tokens))
    return float(parameters // 64), float(flops // LENGTH // 128)


def _graph(model: Any) -> Any:
    import torch
    from torch._decomp import core_aten_decompositions
    from torch.fx.experimental.proxy_tensor import make_fx

    tokens = torch.arange(BATCH * LENGTH).reshape(BATCH, LENGTH) * 7 % 256
    # Kept whole: what they decompose to says how they are computed, not what.
    whole = ("_safe_softmax", "native_layer_norm", "gelu", "silu", "elu", "hardtanh", *_ATTENTION)
    core: dict[Any, Any] = core_aten_decompositions()
    table = {op: f for op, f in core.items() if op.overloadpacket.__name__ not in whole}
    with torch.no_grad():
        module = make_fx(lambda t: model.features(t), decomposition_table=table)(tokens)  # noqa: PLW0108
    module.graph.eliminate_dead_code()
    return module


def _name(node: Any) -> str:
    """``add`` of aten.add.Tensor and of aten.add_.Tensor."""
    packet = getattr(node.target, "overloadpacket", None)  # operator.getitem has none
    return "" if packet is None else str(packet.__name__).removesuffix("_copy").rstrip("_")


def _counts(module: Any) -> list[float]:
    families: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    over_time = products = 0
    # Per node what the nearest operators before it that compute are: those that move data are looked through.
    sources: dict[Any, list[Any]] = {}
    depth: dict[Any, int] = {}
    ends: dict[Any, tuple[str, str]] = {}
    same: dict[object, Any] = {}
    uses: Counter[Any] = Counter()
    live: set[Any] = set()  # depends on the tokens or on something trained: not a table
    for node in module.graph.nodes:
        before = list(dict.fromkeys(s for x in node.all_input_nodes for s in sources[x]))
        if node.op == "placeholder" or any(x in live for x in node.all_input_nodes) or _trained(module, node):
            live.add(node)
        name = _name(node)
        if node not in live or not name or name in _MOVES:
            sources[node] = before
            continue
        done = _WRITTEN_OUT.get(name) or (_FAMILY.get(name, "special"),)
        key = (name, *_key(node.args, sources), *_key(tuple(node.kwargs.items()), sources))
        if key in same and not node.target._schema.is_mutable:  # computed before: no work
            sources[node] = [same[key]]
            continue
        same[key] = node
        sources[node] = [node]
        families.update(done)
        groups = [_GROUP[f] for f in done]
        ends[node] = groups[0], _ENDS.get(name, groups[-1])
        pairs.update(pairwise(groups))
        pairs.update((ends[s][1], groups[0]) for s in before)
        uses.update(before)
        depth[node] = len(done) + max((depth[s] for s in before), default=0)
        over_time += name in _OVER_TIME or _reduces_time(node, name, done)
        product = name in _OVER_TIME or ("matmul" in done and _has_time_product(node))
        products += 2 if name in _ATTENTION else product  # scores, and values by scores
    branching = sum(u - 1 for u in uses.values() if u > 1)
    other = [over_time, products, max(depth.values(), default=0), branching, families.total()]
    between = [pairs[a, b] for a in GROUPS for b in GROUPS]
    return [float(x) for x in (*(families[f] for f in FAMILIES), *between, *other)]


def _key(value: Any, sources: Mapping[Any, Any]) -> tuple[object, ...]:
    """Arguments as something that can be compared; a node is the node itself."""
    if isinstance(value, list | tuple):
        return tuple(y for x in value for y in ("(", *_key(x, sources), ")"))
    return (value if value in sources or isinstance(value, int | float | bool | None) else str(value),)


def _trained(module: Any, node: Any) -> bool:
    return node.op == "get_attr" and bool(getattr(getattr(module, node.target), "requires_grad", False))


def _shape(node: Any) -> tuple[int, ...]:
    value = node.meta.get("val")
    value = value[0] if isinstance(value, list | tuple) else value
    return tuple(getattr(value, "shape", ()))


def _reduces_time(node: Any, name: str, done: Sequence[str]) -> bool:
    if not {"softmax", "scan", "sum"} & set(done) or name == "native_layer_norm":
        return False
    before = _shape(node.all_input_nodes[0])
    arguments = node.args[1:]
    lists = [list(x) for x in arguments if isinstance(x, list | tuple)]
    lists += [[x] for x in arguments if type(x) is int]
    dims = lists[0] if lists else range(len(before))
    return any(-len(before) <= d < len(before) and before[d] == LENGTH for d in dims)


def _has_time_product(node: Any) -> bool:
    """Contracts over time, or gives a value per pair of times."""
    left = [_shape(x) for x in node.all_input_nodes if len(_shape(x)) >= 2][-2:]
    return any(s[-1] == LENGTH for s in left) or _shape(node)[-2:] == (LENGTH, LENGTH)
