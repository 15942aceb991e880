"""Published algorithms as graphs."""

from __future__ import annotations

from collections.abc import Callable

from asi_evolve.domains.algorithm.graph import RLAlgorithmGraph
from asi_evolve.errors import InvalidCandidate


def _graph(*inputs: str) -> RLAlgorithmGraph:
    graph = RLAlgorithmGraph()
    for name in inputs:
        graph.add_node(name)
    return graph


def _node(graph: RLAlgorithmGraph, id: str, primitive: str, *sources: str, **ports: str) -> str:
    """A node with its edges: ``sources`` in the order of its ports, ``ports`` by name."""
    graph.add_node(id, primitive)
    for source in sources:
        graph.add_edge(source, id)
    for port, source in ports.items():
        graph.add_edge(source, id, port)
    return id


def _finish(graph: RLAlgorithmGraph, terms: dict[str, float], schedule: bool = False) -> RLAlgorithmGraph:
    """The loss as a weighted sum of terms, and Adam."""
    graph.add_node("loss_output")
    for term, weight in terms.items():
        graph.add_edge(term, "loss_output", transform=None if weight == 1.0 else f"ScaleBy({weight!r})")
    graph.add_node("optimizer", "adam")
    graph.add_edge("loss_output", "optimizer", "loss")
    if schedule:
        graph.add_node("progress")
        _node(graph, "learning_rate_schedule", "linear_schedule", "progress")
        graph.add_edge("learning_rate_schedule", "optimizer", "schedule")
    return graph


def _log_prob(graph: RLAlgorithmGraph) -> str:
    return _node(graph, "log_prob", "log_prob", "policy", "actions")


def _reinforce() -> RLAlgorithmGraph:
    """Williams 1992, with a learned baseline: -log pi (G - V), and squared error of V."""
    g = _graph("policy", "actions", "rewards", "dones", "bootstrap_values", "old_values", "values")
    _log_prob(g)
    _node(g, "returns", "monte_carlo_returns", "rewards", "dones", "bootstrap_values")
    _node(g, "advantages", "subtract", x="returns", y="old_values")
    _node(g, "policy_loss", "policy_gradient", "log_prob", advantages="advantages")
    _node(g, "policy_mean", "mean", x="policy_loss")
    _node(g, "value_loss", "squared_error", prediction="values", target="returns")
    _node(g, "value_mean", "mean", x="value_loss")
    return _finish(g, {"policy_mean": 1.0, "value_mean": 0.5})


def _actor_critic(*inputs: str) -> RLAlgorithmGraph:
    """GAE, returns, log-probability and entropy."""
    g = _graph("policy", "actions", "values", "rewards", "dones", "old_values", "bootstrap_values", *inputs)
    _log_prob(g)
    _node(g, "gae", "gae", rewards="rewards", values="old_values", bootstrap="bootstrap_values", dones="dones")
    _node(g, "returns", "add", "gae", "old_values")
    _node(g, "entropy", "entropy", "policy")
    _node(g, "entropy_mean", "mean", x="entropy")
    return g


def _a2c() -> RLAlgorithmGraph:
    """Mnih et al. 2016, synchronous, with generalised advantages."""
    g = _actor_critic()
    _node(g, "policy_loss", "policy_gradient", "log_prob", advantages="gae")
    _node(g, "policy_mean", "mean", x="policy_loss")
    _node(g, "value_loss", "squared_error", prediction="values", target="returns")
    _node(g, "value_mean", "mean", x="value_loss")
    return _finish(g, {"policy_mean": 1.0, "value_mean": 0.5, "entropy_mean": -0.01})


def _ppo() -> RLAlgorithmGraph:
    """Schulman et al. 2017 with the usual details: normalised advantages, clipped value loss, entropy bonus,
    learning rate to 0, clipped gradient."""
    g = _actor_critic("old_log_probs")
    _node(g, "advantages", "normalize", x="gae")
    _node(g, "ratio", "ratio", log_probs="log_prob", old_log_probs="old_log_probs")
    _node(g, "policy_loss", "clipped_surrogate", ratio="ratio", advantages="advantages")
    _node(g, "policy_mean", "mean", x="policy_loss")
    _node(g, "value_loss", "clipped_value_loss", prediction="values", old="old_values", target="returns")
    _node(g, "value_mean", "mean", x="value_loss")
    return _finish(g, {"policy_mean": 1.0, "value_mean": 0.5, "entropy_mean": -0.01}, schedule=True)


def _ppo_kl() -> RLAlgorithmGraph:
    """Schulman et al. 2017, eq. 8, with a fixed weight of the divergence."""
    g = _actor_critic("old_log_probs", "old_policy")
    _node(g, "advantages", "normalize", x="gae")
    _node(g, "ratio", "ratio", log_probs="log_prob", old_log_probs="old_log_probs")
    _node(g, "policy_loss", "surrogate", ratio="ratio", advantages="advantages")
    _node(g, "policy_mean", "mean", x="policy_loss")
    _node(g, "kl", "kl", policy="old_policy", other="policy")
    _node(g, "kl_mean", "mean", x="kl")
    _node(g, "value_loss", "squared_error", prediction="values", target="returns")
    _node(g, "value_mean", "mean", x="value_loss")
    terms = {"policy_mean": 1.0, "kl_mean": 1.0, "value_mean": 0.5, "entropy_mean": -0.01}
    return _finish(g, terms, schedule=True)


def _group_relative(*inputs: str) -> RLAlgorithmGraph:
    g = _graph("policy", "actions", "old_log_probs", "rewards", "mask", "groups", *inputs)
    _log_prob(g)
    _node(g, "returns", "total", x="rewards", mask="mask")
    _node(g, "advantages", "group_relative", returns="returns", groups="groups")
    _node(g, "ratio", "ratio", log_probs="log_prob", old_log_probs="old_log_probs")
    _node(g, "policy_loss", "clipped_surrogate", ratio="ratio", advantages="advantages")
    return g


def _grpo() -> RLAlgorithmGraph:
    """Shao et al. 2024, eq. 3: group-relative advantages, mean per sequence, divergence from a fixed policy."""
    g = _group_relative("reference_log_probs")
    _node(g, "kl", "kl_estimate", log_probs="log_prob", other_log_probs="reference_log_probs")
    g.add_node("token_loss", "add")
    g.add_edge("policy_loss", "token_loss")
    g.add_edge("kl", "token_loss", transform="ScaleBy(0.04)")
    _node(g, "sequence_loss", "sequence_mean", x="token_loss", mask="mask")
    return _finish(g, {"sequence_loss": 1.0})


def _dapo() -> RLAlgorithmGraph:
    """Yu et al. 2025: clip-higher, mean over all tokens, no divergence term. Its dynamic sampling is up to who
    samples."""
    g = _group_relative()
    g.set_params("policy_loss", low=0.2, high=0.28)
    _node(g, "policy_mean", "mean", x="policy_loss", mask="mask")
    return _finish(g, {"policy_mean": 1.0})


_REFERENCES: dict[str, Callable[[], RLAlgorithmGraph]] = {
    "reinforce": _reinforce,
    "a2c": _a2c,
    "ppo": _ppo,
    "ppo-kl": _ppo_kl,
    "grpo": _grpo,
    "dapo": _dapo,
}
NAMES = tuple(_REFERENCES)


def reference(name: str) -> RLAlgorithmGraph:
    """A published algorithm as a graph of your own.

    Args:
        name: ``reinforce``, ``a2c``, ``ppo``, ``ppo-kl``, ``grpo`` or ``dapo``.

    Raises:
        InvalidCandidate: another name.
    """
    if name not in _REFERENCES:
        raise InvalidCandidate(f"reference: {name!r} is not one of {', '.join(NAMES)}")
    return _REFERENCES[name]()
