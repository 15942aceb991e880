"""Training a language model by a specification. Needs torch alone.

The optimisers are written out here, in their published form, because torch's own load its compiler at the first step,
which costs a short experiment more than the experiment. They are tested against torch's where torch has them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AuxiliaryLoss = Callable[[Tensor, Tensor, Tensor], Any]


def schedule(name: str, step: int, steps: int, warmup: float) -> float:
    """Learning rate relative to its peak at ``step`` of ``steps``.

    ``warmup`` is the share of steps of linear warm-up; then ``constant``, ``linear`` to 0, ``cosine`` to 0 (Loshchilov
    and Hutter 2016), or ``wsd``: constant, and linear to 0 over the last fifth (Hu et al. 2024, MiniCPM).
    """
    warm = warmup * steps
    if step < warm:
        return (step + 1) / (warm + 1)
    left = (steps - step) / max(1.0, steps - warm)
    if name == "linear":
        return left
    if name == "cosine":
        return 0.5 * (1 - math.cos(math.pi * left))
    if name == "wsd":
        return min(1.0, left / 0.2)
    return 1.0


class Optimizer:
    """Updates parameters in place.

    ``adamw`` (Loshchilov and Hutter 2017), ``sgd`` with momentum beta1 (Sutskever et al. 2013), ``lion`` (Chen et al.
    2023), ``muon`` (Jordan 2024) for the matrices of the blocks with update RMS matched to Adam's (Liu et al. 2025) and
    AdamW for the rest. Weight decay is decoupled and acts on matrices only.

    Args:
        model: its trainable parameters are updated.
        spec: ``optimizer``, ``beta1``, ``beta2``, ``weight_decay``.
    """

    def __init__(self, model: nn.Module, spec: Mapping[str, Any]) -> None:
        self.name = spec["optimizer"]
        self.beta1, self.beta2 = float(spec["beta1"]), float(spec["beta2"])
        self.decay = float(spec["weight_decay"])
        ends = {id(p) for n, p in model.named_parameters() if n.startswith(("embedding", "head"))}
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.matrix = [p.ndim == 2 and id(p) not in ends for p in self.parameters]
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]
        self.steps = 0

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update from the gradients, with this learning rate."""
        self.steps += 1
        for p, m, v, matrix in zip(self.parameters, self.first, self.second, self.matrix, strict=True):
            if p.grad is None:
                continue
            if self.decay and p.ndim >= 2:
                p.mul_(1 - rate * self.decay)
            if self.name == "sgd":
                m.mul_(self.beta1).add_(p.grad)
                p.add_(m, alpha=-rate)
            elif self.name == "lion":
                p.add_(torch.sign(m * self.beta1 + p.grad * (1 - self.beta1)), alpha=-rate)
                m.mul_(self.beta2).add_(p.grad, alpha=1 - self.beta2)
            elif self.name == "muon" and matrix:
                m.mul_(self.beta1).add_(p.grad)
                update = orthogonalize(p.grad + self.beta1 * m)
                p.add_(update, alpha=-rate * 0.2 * math.sqrt(max(p.shape)))
            else:
                self._adam(p, p.grad, m, v, rate)

    def _adam(self, p: Tensor, grad: Tensor, m: Tensor, v: Tensor, rate: float) -> None:
        m.lerp_(grad, 1 - self.beta1)
        v.mul_(self.beta2).addcmul_(grad, grad, value=1 - self.beta2)
        corrected = rate / (1 - self.beta1**self.steps)
        p.addcdiv_(m, (v / (1 - self.beta2**self.steps)).sqrt_().add_(1e-8), value=-corrected)


def orthogonalize(g: Tensor, iterations: int = 5) -> Tensor:
    """Approximately U V^T of the singular value decomposition of a matrix, by Newton-Schulz iteration with the quintic
    coefficients of Jordan 2024 (singular values end between about 0.7 and 1.2)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x: Tensor = g / (g.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(iterations):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x.T if tall else x


def loss_terms(
    logits: Tensor, targets: Tensor, hidden: Tensor, spec: Mapping[str, Any], auxiliary: AuxiliaryLoss | None
) -> Tensor:
    """The training loss, in nats per byte: cross-entropy with label smoothing (Szegedy et al. 2016), plus
    ``z_loss * mean(log Z ^ 2)`` (Chowdhery et al. 2022, PaLM), plus the auxiliary loss.

    Args:
        logits: (batch, n, 256). targets: int64 (batch, n). hidden: (batch, n, width).
        spec: ``label_smoothing``, ``z_loss``.
        auxiliary: ``auxiliary_loss`` of the candidate, or None.
    """
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), label_smoothing=float(spec["label_smoothing"]))
    if spec["z_loss"]:
        loss = loss + float(spec["z_loss"]) * logits.logsumexp(-1).square().mean()
    if auxiliary is not None:
        loss = loss + auxiliary(logits, targets, hidden)
    return loss


def batches(windows: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Consecutive batches of windows, uint8 (windows, n + 1) -> int64 (batch, n + 1); an incomplete last one is left
    out unless it is the only one."""
    count = len(windows) // batch_size
    for i in range(max(1, count)):
        yield windows[i * batch_size : (i + 1) * batch_size].long()


@dataclass(frozen=True)
class Spread:
    """How the work of a step is spread. But for rounding it changes nothing: a batch is cut into ``size * accumulate``
    parts whose gradients are added. (An auxiliary loss that is no mean over rows sees the parts one by one.)

    Attributes:
        device: torch device of this process.
        dtype: ``float32``, or ``bfloat16`` / ``float16``: torch.autocast, weights and optimiser stay float32.
        accumulate: parts of a batch that one process takes one after the other.
        rank, size: number of this process, and of all.
        total: adds a float32 vector up over all processes, in place; needed when there are several.
    """

    device: str = "cpu"
    dtype: str = "float32"
    accumulate: int = 1
    rank: int = 0
    size: int = 1
    total: Callable[[Tensor], None] | None = None

    def autocast(self) -> Any:
        """The context of forward passes."""
        kind, low = torch.device(self.device).type, self.dtype != "float32"
        return torch.autocast(kind, getattr(torch, self.dtype) if low else None, enabled=low)


def _gradients(
    model: Any, batch: Tensor, spec: Mapping[str, Any], auxiliary: AuxiliaryLoss | None, spread: Spread
) -> float:
    """Leaves the gradients of a batch, int64 (rows, n + 1), in the parameters; the loss."""
    value = 0.0
    parameters = [p for p in model.parameters() if p.requires_grad]
    for p in parameters:
        p.grad = None
    for part in batch.chunk(spread.size * spread.accumulate)[spread.rank :: spread.size]:
        rows = part.to(spread.device)
        with spread.autocast():
            hidden = model.features(rows[:, :-1])
            logits = model.head(hidden)
        loss = loss_terms(logits.float(), rows[:, 1:], hidden.float(), spec, auxiliary) * (len(part) / len(batch))
        value += float(loss.detach())
        loss.backward()  # type: ignore[no-untyped-call]
    if spread.total is not None:
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([*(g.flatten() for g in gradients), gradients[0].new_tensor([value])])
        spread.total(flat)
        value = float(flat[-1])
        for p, g in zip(parameters, torch.split(flat[:-1], [p.numel() for p in parameters]), strict=True):
            p.grad = g.view_as(p)
    return value


def train(
    model: nn.Module,
    windows: Tensor,
    spec: Mapping[str, Any],
    auxiliary: AuxiliaryLoss | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
    spread: Spread | None = None,
) -> None:
    """Trains the model in place on every window once.

    Args:
        model: has ``features(tokens)`` and ``head``; see the architecture's template.
        windows: uint8 (windows, n + 1), in the order they are used.
        spec: see :class:`asi_evolve.domains.algorithm.TrainingSpec`.
        auxiliary: ``auxiliary_loss(logits, targets, hidden)`` of the candidate, or None.
        on_step: called with (step, steps, loss in nats per byte).
        spread: over what the work is spread; this process and its CPU by default.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    spread = spread or Spread()
    model.to(spread.device)
    optimizer = Optimizer(model, spec)
    parameters = optimizer.parameters
    decay = float(spec["ema"])
    average = [p.detach().clone() for p in parameters] if decay else []
    batch_size = int(spec["batch_size"])
    steps = max(1, len(windows) // batch_size)
    model.train()
    for step, batch in enumerate(batches(windows, batch_size)):
        value = _gradients(model, batch, spec, auxiliary, spread)
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value} at step {step} of {steps}")
        if spec["grad_clip"]:
            clip(parameters, float(spec["grad_clip"]))
        optimizer.step(float(spec["learning_rate"]) * schedule(spec["schedule"], step, steps, float(spec["warmup"])))
        if decay:
            # The usual warm-up of the average: early weights do not count for long.
            share = 1 - min(decay, (1 + step) / (10 + step))
            with torch.no_grad():
                for a, p in zip(average, parameters, strict=True):
                    a.lerp_(p, share)
        if on_step is not None:
            on_step(step + 1, steps, value)
    with torch.no_grad():
        for a, p in zip(average, parameters, strict=bool(average)):
            p.copy_(a)


@torch.no_grad()
def clip(parameters: list[nn.Parameter], limit: float) -> None:
    """Scales all gradients down so that their joint L2 norm is at most ``limit`` (Pascanu et al. 2013)."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
    if norm > limit:
        for g in gradients:
            g.mul_(limit / (norm + 1e-6))
