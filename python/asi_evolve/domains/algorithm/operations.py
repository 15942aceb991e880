"""What the primitives compute, in torch. See :mod:`primitives` for ports, formulas and sources.

Every function of a primitive takes its ports in order (None where an optional one is open; a port that takes many edges
is one argument each) and then its constants by name. Shapes: [T, N], [N], or none; distributions are
:class:`Categorical` or :class:`Gaussian`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor


class Categorical:
    """Categorical policies.

    Args:
        logits: float (..., A), finite, not necessarily normalised.
    """

    def __init__(self, logits: Tensor) -> None:
        self.log_p = torch.log_softmax(logits, -1)
        self._p: Tensor | None = None

    @property
    def p(self) -> Tensor:
        """Probabilities (..., A)."""
        if self._p is None:
            self._p = self.log_p.exp()
        return self._p

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log-probability of int64 actions (...)."""
        return self.log_p.gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """Entropy in nats (...)."""
        return -(self.p * self.log_p).sum(-1)

    def kl(self, other: Categorical) -> Tensor:
        """KL(self || other) in nats (...)."""
        return (self.p * (self.log_p - other.log_p)).sum(-1)


class Gaussian:
    """Gaussian policies with independent dimensions.

    Args:
        mean: float (..., A). log_std: float, broadcast to it.
    """

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean, self.log_std = mean, log_std.expand_as(mean)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log-density of float actions (..., A)."""
        z = (actions - self.mean) * torch.exp(-self.log_std)
        return -(0.5 * z.square() + self.log_std + 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> Tensor:
        """Differential entropy in nats (...)."""
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def kl(self, other: Gaussian) -> Tensor:
        """KL(self || other) in nats (...)."""
        ratio = torch.exp(2 * (self.log_std - other.log_std))
        distance = ((self.mean - other.mean) * torch.exp(-other.log_std)).square()
        return (0.5 * (ratio + distance - 1) + other.log_std - self.log_std).sum(-1)


Policy = Categorical | Gaussian


def distribution(batch: Mapping[str, Tensor], prefix: str) -> Policy:
    """The policy that a batch describes by ``<prefix>logits``, or ``<prefix>mean`` and ``<prefix>log_std``."""
    if f"{prefix}logits" in batch:
        return Categorical(batch[f"{prefix}logits"])
    if f"{prefix}mean" not in batch:
        raise KeyError(f"{prefix}logits")
    return Gaussian(batch[f"{prefix}mean"], batch[f"{prefix}log_std"])


# -- returns and advantages: constants for the optimiser, so no gradient is recorded ----------------------------------


def _discount(dones: Tensor, gamma: float) -> Tensor:
    return gamma * (1 - dones)


def _next(values: Tensor, bootstrap: Tensor) -> Tensor:
    return torch.cat([values[1:], bootstrap.unsqueeze(0)])


def _scan(x: Tensor, decay: Tensor, last: Tensor) -> Tensor:
    """y_t = x_t + decay_t y_{t+1}, y_T = last."""
    out = []
    y = last
    for a, b in zip(reversed(x.unbind(0)), reversed(decay.unbind(0)), strict=True):
        y = torch.addcmul(a, b, y)
        out.append(y)
    out.reverse()
    return torch.stack(out)


@torch.no_grad()
def monte_carlo_returns(rewards: Tensor, dones: Tensor, bootstrap: Tensor | None, *, gamma: float) -> Tensor:
    """Discounted sums of rewards."""
    last = torch.zeros_like(rewards[0]) if bootstrap is None else bootstrap
    return _scan(rewards, _discount(dones, gamma), last)


@torch.no_grad()
def n_step_returns(
    rewards: Tensor, values: Tensor, bootstrap: Tensor, dones: Tensor, *, n: int, gamma: float
) -> Tensor:
    """Discounted sums of n rewards and a value."""
    discount = _discount(dones, gamma)
    target = rewards + discount * _next(values, bootstrap)
    for _ in range(min(n, len(rewards)) - 1):
        # The target with k + 1 rewards is made of the next step's with k.
        target = rewards + discount * _next(target, bootstrap)
    return target


@torch.no_grad()
def gae(rewards: Tensor, values: Tensor, bootstrap: Tensor, dones: Tensor, *, gamma: float, lam: float) -> Tensor:
    """Generalised advantage estimation."""
    discount = _discount(dones, gamma)
    delta = rewards + discount * _next(values, bootstrap) - values
    return _scan(delta, lam * discount, torch.zeros_like(bootstrap))


@torch.no_grad()
def v_trace_returns(
    log_probs: Tensor,
    old_log_probs: Tensor,
    rewards: Tensor,
    values: Tensor,
    bootstrap: Tensor,
    dones: Tensor,
    *,
    gamma: float,
    rho_clip: float,
    c_clip: float,
) -> Tensor:
    """V-trace targets."""
    weight = torch.exp(log_probs - old_log_probs)
    discount = _discount(dones, gamma)
    delta = weight.clamp_max(rho_clip) * (rewards + discount * _next(values, bootstrap) - values)
    return values + _scan(delta, discount * weight.clamp_max(c_clip), torch.zeros_like(bootstrap))


@torch.no_grad()
def v_trace_advantages(
    log_probs: Tensor,
    old_log_probs: Tensor,
    rewards: Tensor,
    values: Tensor,
    bootstrap: Tensor,
    dones: Tensor,
    *,
    gamma: float,
    rho_clip: float,
    c_clip: float,
) -> Tensor:
    """Advantages against V-trace targets of the next state."""
    targets = v_trace_returns(
        log_probs, old_log_probs, rewards, values, bootstrap, dones, gamma=gamma, rho_clip=rho_clip, c_clip=c_clip
    )
    weight = torch.exp(log_probs - old_log_probs).clamp_max(rho_clip)
    return weight * (rewards + _discount(dones, gamma) * _next(targets, bootstrap) - values)


def td_error(rewards: Tensor, values: Tensor, bootstrap: Tensor, dones: Tensor, *, gamma: float) -> Tensor:
    """One-step temporal difference; the gradient is that of -V(s_t)."""
    return rewards + _discount(dones, gamma) * _next(values.detach(), bootstrap) - values


@torch.no_grad()
def group_relative(returns: Tensor, groups: Tensor, *, divide: bool) -> Tensor:
    """Returns relative to those of the same group."""
    none = torch.zeros_like(returns)  # a bin for each possible group
    size = none.index_add(0, groups, torch.ones_like(returns))
    centered = returns - (none.index_add(0, groups, returns) / size)[groups]
    if not divide:
        return centered
    # n - 1 as torch.std; a group of one has no deviation.
    variance = none.index_add(0, groups, centered.square()) / (size - 1).clamp_min(1)
    return centered / (variance.sqrt()[groups] + 1e-6)


# -- rewards ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def potential_shaping(rewards: Tensor, potential: Tensor, bootstrap: Tensor, dones: Tensor, *, gamma: float) -> Tensor:
    """Rewards plus the discounted difference of the potential."""
    return rewards + _discount(dones, gamma) * _next(potential, bootstrap) - potential


@torch.no_grad()
def count_bonus(visit_counts: Tensor, *, beta: float) -> Tensor:
    """A bonus for rare states."""
    return beta * visit_counts.rsqrt()


@torch.no_grad()
def surprise_bonus(old_log_probs: Tensor, *, beta: float) -> Tensor:
    """A bonus for unlikely actions."""
    return -beta * old_log_probs


def _stopped(x: Tensor) -> Tensor:
    """Without gradient; for nothing where there is none."""
    return x.detach() if x.requires_grad else x


# -- policy terms -----------------------------------------------------------------------------------------------------


def log_prob(policy: Policy, actions: Tensor) -> Tensor:
    """Log-probabilities of the actions."""
    return policy.log_prob(actions)


def entropy(policy: Policy) -> Tensor:
    """Entropies."""
    return policy.entropy()


def kl(policy: Policy, other: Policy) -> Tensor:
    """KL(policy || other)."""
    return policy.kl(other)  # type: ignore[arg-type]  # both are of one batch, so of one kind


def kl_estimate(log_probs: Tensor, other_log_probs: Tensor) -> Tensor:
    """Estimates of KL(pi || other), never negative."""
    x = other_log_probs - log_probs
    return torch.exp(x) - x - 1


def ratio(log_probs: Tensor, old_log_probs: Tensor) -> Tensor:
    """Probability ratios."""
    return torch.exp(log_probs - _stopped(old_log_probs))


def policy_gradient(log_probs: Tensor, advantages: Tensor) -> Tensor:
    """The score-function term."""
    return -log_probs * _stopped(advantages)


def surrogate(ratio: Tensor, advantages: Tensor) -> Tensor:
    """The surrogate without a clip."""
    return -ratio * _stopped(advantages)


def clipped_surrogate(ratio: Tensor, advantages: Tensor, *, low: float, high: float) -> Tensor:
    """The clipped surrogate."""
    minus = -_stopped(advantages)
    return torch.maximum(ratio * minus, ratio.clamp(1 - low, 1 + high) * minus)


def dual_clipped_surrogate(ratio: Tensor, advantages: Tensor, *, low: float, high: float, limit: float) -> Tensor:
    """The clipped surrogate, bounded for negative advantages."""
    minus = -_stopped(advantages)
    clipped = torch.maximum(ratio * minus, ratio.clamp(1 - low, 1 + high) * minus)
    return torch.where(minus > 0, torch.minimum(clipped, limit * minus), clipped)


# -- losses -----------------------------------------------------------------------------------------------------------


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Half the squared difference."""
    return 0.5 * (prediction - _stopped(target)).square()


def huber(prediction: Tensor, target: Tensor, *, delta: float) -> Tensor:
    """A parabola in the middle, lines outside."""
    x = (prediction - _stopped(target)).abs()
    inner = x.clamp_max(delta)
    return inner * (x - 0.5 * inner)


def clipped_value_loss(prediction: Tensor, old: Tensor, target: Tensor, *, clip: float) -> Tensor:
    """The larger of the losses with and without a clip of the change."""
    old, target = _stopped(old), _stopped(target)
    clipped = old + (prediction - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((prediction - target).square(), (clipped - target).square())


def temporal_consistency(values: Tensor, dones: Tensor | None) -> Tensor:
    """How much neighbouring values differ within an episode."""
    if len(values) < 2:
        return 0.0 * values.sum()
    change = (values[1:] - values[:-1]).square()
    return change.mean() if dones is None else (change * (1 - dones[:-1])).mean()


# -- arithmetic -------------------------------------------------------------------------------------------------------


def add(*x: Tensor) -> Tensor:
    """Sum."""
    out = x[0]
    for y in x[1:]:
        out = out + y
    return out


loss_output = add


def multiply(*x: Tensor) -> Tensor:
    """Product."""
    out = x[0]
    for y in x[1:]:
        out = out * y
    return out


def minimum(*x: Tensor) -> Tensor:
    """Smallest."""
    out = x[0]
    for y in x[1:]:
        out = torch.minimum(out, y)
    return out


def maximum(*x: Tensor) -> Tensor:
    """Largest."""
    out = x[0]
    for y in x[1:]:
        out = torch.maximum(out, y)
    return out


def subtract(x: Tensor, y: Tensor) -> Tensor:
    """Difference."""
    return x - y


def scale(x: Tensor, *, factor: float) -> Tensor:
    """A multiple."""
    return x * factor


def clip(x: Tensor, *, low: float, high: float) -> Tensor:
    """Within bounds."""
    return x.clamp(low, high)


def detach(x: Tensor) -> Tensor:
    """Without gradient."""
    return x.detach()


def square(x: Tensor) -> Tensor:
    """Square."""
    return x.square()


def absolute(x: Tensor) -> Tensor:
    """Absolute value."""
    return x.abs()


def exponential(x: Tensor) -> Tensor:
    """Exponential, bounded."""
    return torch.exp(x.clamp_max(20.0))


def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return torch.tanh(x)


def sigmoid(x: Tensor) -> Tensor:
    """Logistic function."""
    return torch.sigmoid(x)


def constant(*, value: float) -> Tensor:
    """A number (float64; a scalar does not widen what it meets)."""
    return torch.tensor(value, dtype=torch.float64)


def center(x: Tensor, mask: Tensor | None) -> Tensor:
    """Minus the mean."""
    return x - mean(x, mask)


def normalize(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean 0, deviation 1."""
    if mask is None:
        return (x - x.mean()) / (x.std() + 1e-8) if x.numel() > 1 else x - x
    centered = x - mean(x, mask)
    variance = (mask * centered.square()).sum() / (mask.sum() - 1).clamp_min(1)
    return centered / (variance.sqrt() + 1e-8)


def masked(x: Tensor, mask: Tensor) -> Tensor:
    """0 where the mask is."""
    return mask * x


def total(x: Tensor, mask: Tensor | None) -> Tensor:
    """Sum over time."""
    return (x if mask is None else mask * x).sum(0)


def mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over all real steps."""
    return x.mean() if mask is None else (mask * x).sum() / mask.sum().clamp_min(1)


def sequence_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over sequences of the mean over real steps."""
    if mask is None:
        return x.mean()
    return ((mask * x).sum(0) / mask.sum(0).clamp_min(1)).mean()


# -- schedules --------------------------------------------------------------------------------------------------------


def linear_schedule(progress: Tensor, *, start: float, end: float) -> Tensor:
    """A line."""
    return start + progress * (end - start)


def cosine_schedule(progress: Tensor, *, start: float, end: float) -> Tensor:
    """Half a cosine."""
    return end + (start - end) * 0.5 * (1 + torch.cos(math.pi * progress))
