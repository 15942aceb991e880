"""What a loss as a graph costs: compiled from the graph against written by hand, in one run, alternating.

    python bench/rl_graph.py [--quick] [--json FILE]

Prints microseconds (median) of the loss alone and of loss and gradient, and the ratio of the medians; below 1.1 the
graph is at most 10 % slower. "whole" computes returns in the loss, "minibatch" gets them prepared. Both sides take the
same batch, whatever its groups. Results are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from asi_evolve.domains.algorithm import reference
from asi_evolve.domains.algorithm.probe import example_batch

GAMMA, LAM = 0.99, 0.95


def advantages(b):
    with torch.no_grad():
        after = torch.cat([b["old_values"][1:], b["bootstrap_values"][None]])
        discount = GAMMA * (1 - b["dones"])
        delta = (b["rewards"] + discount * after - b["old_values"]).unbind(0)
        decay = (LAM * discount).unbind(0)
        out, last = [], torch.zeros_like(b["bootstrap_values"])
        for t in range(len(delta) - 1, -1, -1):
            last = torch.addcmul(delta[t], decay[t], last)
            out.append(last)
        return torch.stack(out[::-1])


def ppo_rest(b, advantage, returns):
    log_p = torch.log_softmax(b["logits"], -1)
    new = log_p.gather(-1, b["actions"][..., None])[..., 0]
    entropy = -(log_p.exp() * log_p).sum(-1).mean()
    ratio = (new - b["old_log_probs"]).exp()
    policy = torch.max(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2)).mean()
    clipped = b["old_values"] + (b["values"] - b["old_values"]).clamp(-0.2, 0.2)
    value = 0.5 * torch.max((b["values"] - returns) ** 2, (clipped - returns) ** 2).mean()
    return policy + 0.5 * value - 0.01 * entropy


def ppo(b):
    a = advantages(b)
    return ppo_rest(b, (a - a.mean()) / (a.std() + 1e-8), a + b["old_values"])


def a2c(b):
    a = advantages(b)
    log_p = torch.log_softmax(b["logits"], -1)
    new = log_p.gather(-1, b["actions"][..., None])[..., 0]
    entropy = -(log_p.exp() * log_p).sum(-1).mean()
    value = 0.5 * ((b["values"] - (a + b["old_values"])) ** 2).mean()
    return -(new * a).mean() + 0.5 * value - 0.01 * entropy


def grpo(b):
    with torch.no_grad():
        returns, groups = (b["rewards"] * b["mask"]).sum(0), b["groups"]
        size = torch.bincount(groups, minlength=len(groups)).to(returns)
        none = torch.zeros_like(returns)
        away = returns - (none.scatter_add(0, groups, returns) / size)[groups]
        deviation = (none.scatter_add(0, groups, away**2) / (size - 1).clamp(min=1)).sqrt()[groups]
        a = away / (deviation + 1e-6)
    new = torch.log_softmax(b["logits"], -1).gather(-1, b["actions"][..., None])[..., 0]
    ratio = (new - b["old_log_probs"]).exp()
    policy = torch.max(-a * ratio, -a * ratio.clamp(0.8, 1.2))
    x = b["reference_log_probs"] - new
    kl = x.exp() - x - 1
    lengths = b["mask"].sum(0)
    return (((policy + 0.04 * kl) * b["mask"]).sum(0) / lengths).mean()


def timed(call, leaves):
    """(seconds of the forward pass, seconds of both passes)."""
    began = time.perf_counter()
    loss = call()
    middle = time.perf_counter()
    torch.autograd.grad(loss, leaves, allow_unused=True)
    return middle - began, time.perf_counter() - began


def compare(ours, theirs, leaves, repeats):
    """Medians of alternating calls: ((ours, theirs) of the forward pass, (ours, theirs) of both)."""
    a, b = float(ours().detach()), float(theirs().detach())
    assert abs(a - b) <= 1e-4 * (1 + abs(b)), (a, b)
    times = [[], []]
    for i in range(2 * repeats):
        side = (i + i // 2) % 2  # which one is first changes every time
        times[side].append(timed((ours, theirs)[side], leaves))
    times = [t[len(t) // 10 :] for t in times]
    return [tuple(statistics.median(x[k] for x in side) for side in times) for k in (0, 1)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    repeats = 300 if arguments.quick else 2000
    rows = []
    print("times in microseconds: graph, by hand, graph / by hand")
    print(f"{'loss':16s} {'T x N':>10s} {'forward':>26s} {'forward and backward':>30s}")
    for name, shape, hand in (
        ("ppo minibatch", (256, 1), ppo_rest),
        ("ppo whole", (64, 16), ppo),
        ("a2c whole", (64, 16), a2c),
        ("grpo whole", (128, 32), grpo),
        ("ppo minibatch", (4096, 1), ppo_rest),
    ):
        batch = example_batch(*shape, actions=4, dtype=torch.float32)
        with torch.no_grad():
            old = torch.log_softmax(batch["old_logits"], -1)
            batch["old_log_probs"] = old.gather(-1, batch["actions"][..., None])[..., 0]
        compiled = reference(name.split()[0]).compile()
        leaves = [batch["logits"], batch["values"]]
        if name.endswith("minibatch"):
            prepared = compiled.prepare(batch)
            both = {**batch, **prepared}
            normal, returns = prepared["@advantages"], prepared["@returns"]
            ours, theirs = lambda: compiled.rest(both), lambda: hand(batch, normal, returns)  # noqa: B023
        else:
            ours, theirs = lambda: compiled.loss(batch), lambda: hand(batch)  # noqa: B023
        forward, whole = compare(ours, theirs, leaves, repeats)
        row = {"loss": name, "shape": list(shape)}
        text = f"{name:16s} {shape[0]:6d}x{shape[1]:<3d}"
        for kind, (a, b) in (("forward", forward), ("both", whole)):
            row |= {f"{kind}_graph_us": a * 1e6, f"{kind}_hand_us": b * 1e6, f"{kind}_ratio": a / b}
            text += f" {a * 1e6:10.1f} {b * 1e6:10.1f} {a / b:6.3f}"
        rows.append(row)
        print(text, flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
