"""A tiny batch on which a graph is tried: does the loss exist, is it finite, does a gradient reach the policy?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from asi_evolve.domains.algorithm.graph import RLAlgorithmGraph
from asi_evolve.errors import InvalidCandidate


def example_batch(
    steps: int = 6,
    sequences: int = 4,
    actions: int = 3,
    *,
    seed: int = 0,
    gaussian: bool = False,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Tensor]:
    """A random batch with every entry that a graph may read; see :class:`RLAlgorithmGraph` for shapes.

    ``logits`` (or ``mean`` and ``log_std``), ``log_probs`` and ``values`` are leaves that require gradients. The policy
    that acted is near to the current one.

    Args:
        steps: T. sequences: N. actions: A.
        seed: of the draws.
        gaussian: Gaussian policies instead of categorical ones.
        dtype: of the float tensors.
    """
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=dtype)

    shape = (steps, sequences)
    batch: dict[str, Tensor] = {}
    names: tuple[str, ...]
    if gaussian:
        batch["mean"], batch["log_std"] = normal(*shape, actions), 0.3 * normal(*shape, actions)
        batch["actions"] = batch["mean"] + batch["log_std"].exp() * normal(*shape, actions)
        names = ("mean", "log_std")
    else:
        batch["logits"] = normal(*shape, actions)
        batch["actions"] = torch.randint(actions, shape, generator=g)
        names = ("logits",)
    for name in names:
        batch[f"old_{name}"] = batch[name] + 0.2 * normal(*shape, actions)
        batch[f"reference_{name}"] = batch[name] + 0.4 * normal(*shape, actions)
    batch["log_probs"] = -torch.rand(shape, generator=g, dtype=dtype) - 0.3
    batch["old_log_probs"] = batch["log_probs"] + 0.2 * normal(*shape)
    batch["reference_log_probs"] = batch["log_probs"] + 0.3 * normal(*shape)
    batch["values"], batch["bootstrap_values"] = normal(*shape), normal(sequences)
    batch["old_values"] = batch["values"] + 0.3 * normal(*shape)
    batch["rewards"] = normal(*shape)
    batch["dones"] = (torch.rand(shape, generator=g) < 0.15).to(dtype)
    batch["mask"] = (torch.rand(shape, generator=g) < 0.85).to(dtype)
    batch["mask"][0] = 1
    batch["visit_counts"] = torch.randint(1, 30, shape, generator=g).to(dtype)
    batch["groups"] = torch.arange(sequences) // 2
    batch["progress"] = torch.tensor(0.3, dtype=dtype)
    for name in (*names, "log_probs", "values"):
        batch[name].requires_grad_()
    return batch


def check_gradient(graph: RLAlgorithmGraph, hyperparameters: Mapping[str, Any] | None = None) -> None:
    """Evaluates the graph on a small batch, and on a second one where a clip may have stopped every gradient.

    Raises:
        InvalidCandidate: the loss has a shape or is not finite, or no gradient other than 0 reaches the policy.
    """
    compiled = graph.compile(hyperparameters)
    output = next(n for n in graph.nodes if graph.primitive(n).kind == "loss")
    for seed in (0, 1):
        batch = example_batch(seed=seed)
        try:
            loss = compiled.loss(batch)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise InvalidCandidate(f"node {output!r}: cannot be computed: {str(error).splitlines()[0]}") from None
        if loss.ndim:
            raise InvalidCandidate(f"node {output!r}: the loss has shape {tuple(loss.shape)}; it has to be one number")
        if not torch.isfinite(loss):
            raise InvalidCandidate(f"node {output!r}: the loss is {float(loss.detach())} on an ordinary batch")
        if not loss.requires_grad:
            continue
        loss.backward()  # type: ignore[no-untyped-call]
        reached = False
        for name in ("logits", "log_probs"):
            gradient = batch[name].grad
            if gradient is not None and not torch.isfinite(gradient).all():
                raise InvalidCandidate(f"node {output!r}: the gradient to {name} is not finite on an ordinary batch")
            reached = reached or (gradient is not None and bool(gradient.abs().max() > 0))
        if reached:
            return
    raise InvalidCandidate(f"node {output!r}: no gradient path to the policy: its gradient is 0 on ordinary batches")
