"""What runs inside the sandboxes of the language-model benchmark: curation, training and inference.

The candidate's code is in files of the working directory: the package ``model``, ``loss.py``, ``filter.py`` and
``score.py``. Nothing returned from here is trusted by the judge.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from asi_evolve.execution.reporting import progress


def curate(
    text: np.ndarray, offsets: np.ndarray, sources: Sequence[str], source_ids: np.ndarray
) -> dict[str, np.ndarray]:
    """Runs the candidate's ``filter`` and ``score`` on documents.

    Args:
        text: uint8, documents one after the other. offsets: int64 (documents + 1).
        sources: names. source_ids: int32 (documents).

    Returns:
        ``kept`` bool (documents), ``scores`` float64 (documents).
    """
    keep = importlib.import_module("filter").filter
    score = importlib.import_module("score").score
    count = len(offsets) - 1
    kept, scores = np.zeros(count, bool), np.zeros(count)
    for i in range(count):
        raw = text[offsets[i] : offsets[i + 1]].tobytes().decode("utf-8", "replace")
        document = {"text": raw, "source": sources[source_ids[i]]}
        kept[i] = bool(keep(dict(document)))
        if kept[i]:
            scores[i] = float(score(document))
        if i % 100 == 0:
            progress(i / count, "curating")
    return {"kept": kept, "scores": scores}


def train(
    *,
    architecture: Mapping[str, Any],
    spec: Mapping[str, Any],
    windows: np.ndarray,
    seed: int,
    threads: int,
    limit: int,
    spread: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Builds the model, checks it, trains it.

    Args:
        architecture: parameters. spec: training specification.
        windows: uint8 (windows, n + 1).
        seed: of the initial weights and of whatever the candidate draws.
        threads: of torch.
        limit: parameters at most.
        spread: ``device``, ``dtype``, ``accumulate``, see :class:`training.Spread`, and ``processes``.

    Returns:
        ``weights``: float32 array by name; or ``invalid`` / ``non_finite``: why there are none.
    """
    import torch

    from asi_evolve.domains import lm_parallel
    from asi_evolve.domains.algorithm import training

    spread = dict(spread or {})
    size = int(spread.pop("processes", 1))

    def work(rank: int, total: lm_parallel.Total | None) -> dict[str, Any]:
        own = {**spread, "device": _device(spread.get("device", "cpu"), rank), "rank": rank, "size": size}
        model = _model(architecture, windows.shape[1] - 1, seed, threads)
        auxiliary = importlib.import_module("loss").auxiliary_loss
        problem = _check(model, torch.from_numpy(windows[:2]).long(), spec, auxiliary, limit)
        if problem:
            return {"invalid": problem}
        torch.manual_seed(seed)
        report = _report if rank == 0 else None
        try:
            training.train(
                model, torch.from_numpy(windows), spec, auxiliary, report, training.Spread(**own, total=total)
            )
        except FloatingPointError as error:
            return {"non_finite": str(error)}
        return {"weights": {name: t.detach().cpu().numpy() for name, t in _state(model)}}

    if size == 1:
        return work(0, None)
    return dict(lm_parallel.together(size, limit + 1, work))


def _device(name: str, rank: int) -> str:
    """The device of a process: GPUs are given out in turn."""
    import torch

    return f"cuda:{rank % torch.cuda.device_count()}" if name == "cuda" else name


def infer(
    architecture: Mapping[str, Any],
    weights: Mapping[str, np.ndarray],
    inputs: np.ndarray,
    threads: int,
    count: bool,
    device: str = "cpu",
) -> dict[str, Any]:
    """Logits of windows by trained weights.

    Args:
        architecture: parameters. weights: what :func:`train` returned.
        inputs: uint8 (windows, n).
        threads: of torch. device: of torch.
        count: also count floating-point operations.

    Returns:
        ``logits`` float32 (windows, n, 256); ``flops_per_token`` with ``count``, see :func:`_flops`.
    """
    import torch

    model = _model(architecture, inputs.shape[1], 0, threads)
    own = dict(_state(model))
    if set(own) != set(weights):
        raise ValueError("the model has other weights than at training: building it must not depend on anything else")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(torch.from_numpy(weights[name].copy()))
    model.to(device).eval()
    tokens = torch.from_numpy(inputs).long().to(device)
    answer: dict[str, Any] = {}
    if count:
        answer["flops_per_token"] = _flops(model, tokens[:1])
    parts = []
    with torch.no_grad():
        for start in range(0, len(tokens), 32):
            parts.append(model(tokens[start : start + 32]).float().cpu().numpy())
    answer["logits"] = np.concatenate(parts)
    return answer


def _model(architecture: Mapping[str, Any], length: int, seed: int, threads: int) -> Any:
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    sys.path[:0] = [""] if "" not in sys.path else []
    return importlib.import_module("model").build(dict(architecture), length)


def _state(model: Any) -> list[tuple[str, Any]]:
    """Everything that training changes: parameters (shared ones once) and floating-point buffers."""
    found = list(model.named_parameters())
    return found + [(f"buffer:{n}", b) for n, b in model.named_buffers() if b.is_floating_point()]


def _check(model: Any, batch: Any, spec: Mapping[str, Any], auxiliary: Any, limit: int) -> str:
    """What is wrong with a model before any training; empty when nothing is."""
    import torch

    from asi_evolve.domains.algorithm import training

    count = sum(p.numel() for p in model.parameters())
    if count > limit:
        return f"{count} parameters; at most {limit}"
    if any(p.dtype != torch.float32 for p in model.parameters()):
        return "parameters that are not float32"
    hidden = model.features(batch[:, :-1])
    logits = model.head(hidden)
    expected = (len(batch), batch.shape[1] - 1, 256)
    if tuple(logits.shape) != expected:
        return f"logits of shape {tuple(logits.shape)}; expected {expected}"
    training.loss_terms(logits, batch[:, 1:], hidden, spec, auxiliary).backward()  # type: ignore[no-untyped-call]
    silent = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    model.zero_grad(set_to_none=True)
    return f"no gradient reaches {', '.join(silent[:5])}" if silent else ""


def _report(step: int, steps: int, loss: float) -> None:
    if step % 5 == 0 or step == steps:
        progress(step / steps, f"{loss / 0.6931:.2f} bits per byte in training")


def _flops(model: Any, tokens: Any) -> float:
    """Training floating-point operations per token: three times the forward pass (one forward, two backward)."""
    return 3.0 * count_flops(lambda: model(tokens)) / int(tokens.numel())


def count_flops(work: Callable[[], Any]) -> float:
    """Floating-point operations of a forward pass.

    Counted by torch's FlopCounterMode over matrix products, convolutions and attention (2 per multiply-add, masked
    positions included), and over ``asi_evolve.ops.linear_attention``, which brings a formula of its own. Element-wise
    work is not counted.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def attention(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(q, k, v))  # type: ignore[no-untyped-call]

    # torch has no formula for its own CPU kernel.
    known = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=known) as counter:
        work()
    return float(counter.get_total_flops())
