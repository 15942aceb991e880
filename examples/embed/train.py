"""An ordinary training script: it classifies points of noisy spirals, and knows nothing of the engine.

python examples/embed/train.py --width 32 --learning-rate 0.003
"""

import argparse
import math
import time
from dataclasses import dataclass, fields
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

ARMS, NOISE = 3, 0.12


@dataclass(frozen=True)
class Settings:
    # model
    width: int = 16
    depth: int = 2
    activation: str = "relu"
    # training
    optimizer: str = "sgd"
    learning_rate: float = 0.03
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    steps: int = 600
    # data
    batch_size: int = 64
    jitter: float = 0.0
    mirror: bool = False


def spirals(n, generator):
    """n points of interleaved spiral arms: float32 (n, 2) and the arm, int64 (n,)."""
    arm = torch.randint(ARMS, (n,), generator=generator)
    radius = torch.rand(n, generator=generator)
    angle = 4.5 * radius + arm * (2 * math.pi / ARMS)
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
    return points + NOISE * radius[:, None] * torch.randn(n, 2, generator=generator), arm


def activation(name):
    return {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU}[name]()


def build(s):
    sizes = [2] + [s.width] * s.depth
    layers = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), activation(s.activation)]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], ARMS))


def optimizer(s, model):
    if s.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), s.learning_rate, momentum=0.9, weight_decay=s.weight_decay)
    return torch.optim.AdamW(model.parameters(), s.learning_rate, weight_decay=s.weight_decay)


def augment(points, s, generator):
    if s.jitter:
        points = points + s.jitter * torch.randn(points.shape, generator=generator)
    if s.mirror:  # a mistake: it turns the arms the other way round
        points = points * torch.tensor([1.0, -1.0]) if torch.rand((), generator=generator) < 0.5 else points
    return points


def train(s, seed=0):
    """Trains a model and measures it: error on held-out points, seconds, parameters."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    points, arms = spirals(600, generator)
    model = build(s)
    opt = optimizer(s, model)
    began = time.process_time()
    for _ in range(s.steps):
        chosen = torch.randint(len(points), (s.batch_size,), generator=generator)
        logits = model(augment(points[chosen], s, generator))
        loss = F.cross_entropy(logits, arms[chosen], label_smoothing=s.label_smoothing)
        opt.zero_grad()
        loss.backward()
        opt.step()
    seconds = time.process_time() - began
    test_points, test_arms = spirals(4000, torch.Generator().manual_seed(10_000 + seed))
    with torch.no_grad():
        error = (model(test_points).argmax(1) != test_arms).float().mean().item()
    return {"error": error, "train_seconds": seconds, "parameters": float(sum(p.numel() for p in model.parameters()))}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for field in fields(Settings):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    print(train(Settings(**vars(parser.parse_args()))))
