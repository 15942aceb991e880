"""The primitives of :class:`RLAlgorithmGraph`: names, typed ports, constants, formulas and sources. No torch here.

Types of values:

- ``[T, N]``: float tensor, one number per step t of sequence n (a rollout of one environment, or a sampled text);
- ``[N]``: float tensor, one number per sequence;
- ``scalar``: float tensor without dimensions;
- ``distribution``: a policy at every [T, N], categorical or diagonal Gaussian;
- ``actions``: int64 [T, N] (categorical) or float [T, N, A] (Gaussian);
- ``groups``: int64 [N], values in [0, N): which sequences answer the same prompt or start from the same state.

A port of type ``tensor`` takes any of the first three; what it yields is the widest of what comes in. What a primitive
computes is the function of the same name in :mod:`asi_evolve.domains.algorithm.operations`. In the formulas d_t is 1
where the episode ended with step t, V_T the bootstrap value, m the mask, sg the stopped gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from asi_evolve.errors import InvalidCandidate
from asi_evolve.space import Choice, Integer, Parameter, Real, Value

TN, N, SCALAR, POLICY, ACTIONS, GROUPS = "[T, N]", "[N]", "scalar", "distribution", "actions", "groups"
TENSOR = "tensor"
TENSORS = (SCALAR, N, TN)  # by width
TYPES = (TN, N, SCALAR, POLICY, ACTIONS, GROUPS)

Kind = Literal["input", "operation", "loss", "step"]


@dataclass(frozen=True)
class Port:
    """An input of a primitive.

    Attributes:
        type: one of :data:`TYPES`, or ``tensor``.
        optional: may stay open.
        many: takes any number of edges, at least one; their order does not matter.
        gradient: whether gradients flow back through it.
    """

    type: str
    optional: bool = False
    many: bool = False
    gradient: bool = True

    def accepts(self, given: str) -> bool:
        """Whether a value of this type fits."""
        return given == self.type or (self.type == TENSOR and given in TENSORS)


@dataclass(frozen=True)
class Constant:
    """A constant of a primitive.

    Attributes:
        parameter: name and range.
        default: its value where a node gives none.
        shared: where a node gives none, the trainer's hyperparameter of the same name comes before the default.
    """

    parameter: Parameter
    default: Value
    shared: bool = False


@dataclass(frozen=True)
class Primitive:
    """One kind of node.

    Attributes:
        name: of the primitive and of its function.
        output: type of its value; ``tensor`` is the widest of what its ``tensor`` ports get.
        ports: inputs by name, in the order of the function's arguments.
        constants: by name.
        formula: what it computes.
        source: where it comes from.
        kind: ``input`` reads the batch, ``loss`` is the sum that is minimised, ``step`` describes the optimiser.
        family: purpose, for features and drawing.
        columns: needs whole sequences in order, so that a minibatch has to consist of whole sequences.
        carries_policy: an input through which gradients reach the policy's weights.
        rollout: an input that was recorded with the rollout, so that it does not depend on the current weights.
    """

    name: str
    output: str
    ports: Mapping[str, Port] = field(default_factory=dict)
    constants: Mapping[str, Constant] = field(default_factory=dict)
    formula: str = ""
    source: str = ""
    kind: Kind = "operation"
    family: str = "arithmetic"
    columns: bool = False
    carries_policy: bool = False
    rollout: bool = False

    def check(self, params: Mapping[str, Any]) -> dict[str, Value]:
        """The given constants in canonical type. Raises InvalidCandidate."""
        checked = {}
        for name, value in params.items():
            if name not in self.constants:
                allowed = ", ".join(self.constants) or "none"
                raise InvalidCandidate(f"{self.name} has no constant {name!r}; it has {allowed}")
            try:
                checked[name] = self.constants[name].parameter.check(value)
            except OverflowError:  # an integer beyond any float
                raise InvalidCandidate(f"{name}: a number beyond every range") from None
        return checked

    def resolve(self, params: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Value]:
        """Every constant's value: the node's own, else the trainer's, else the default."""
        return {
            name: params[name] if name in params else shared.get(name, c.default) if c.shared else c.default
            for name, c in self.constants.items()
        }


_GAMMA = Constant(Real("gamma", 0.0, 1.0, doc="discount"), 0.99, shared=True)
_LAMBDA = Constant(Real("lam", 0.0, 1.0, doc="lambda of the exponential average"), 0.95, shared=True)
_MASK = Port(TN, optional=True, gradient=False)


def _real(name: str, default: float, low: float, high: float, doc: str, log: bool = False) -> dict[str, Constant]:
    return {name: Constant(Real(name, low, high, log=log, doc=doc), default)}


def _input(name: str, output: str, formula: str, **traits: Any) -> Primitive:
    return Primitive(name, output, formula=formula, source="batch", kind="input", family="input", **traits)


_INPUTS = (
    _input("policy", POLICY, "pi(. | s_t): batch logits, or mean and log_std", carries_policy=True),
    _input("log_probs", TN, "log pi(a_t | s_t), where the trainer gives no whole distribution", carries_policy=True),
    _input("values", TN, "V(s_t) of the current value function"),
    _input("actions", ACTIONS, "a_t", rollout=True),
    _input("rewards", TN, "r_t", rollout=True),
    _input("dones", TN, "d_t: 1 where the episode ended with step t", rollout=True),
    _input("mask", TN, "m: 1 for a real step, 0 for padding", rollout=True),
    _input("old_policy", POLICY, "the policy that acted: batch old_logits, or old_mean and old_log_std", rollout=True),
    _input("old_log_probs", TN, "log-probability of a_t under the policy that acted", rollout=True),
    _input("old_values", TN, "V(s_t) at the time of the rollout", rollout=True),
    _input("bootstrap_values", N, "V of the state after the last step, at the time of the rollout", rollout=True),
    _input("reference_policy", POLICY, "a fixed policy: batch reference_logits, or reference_mean, reference_log_std",
           rollout=True),
    _input("reference_log_probs", TN, "log-probability of a_t under the fixed policy", rollout=True),
    _input("groups", GROUPS, "which sequences belong together", rollout=True),
    _input("visit_counts", TN, "how often the state's hash code was seen, this visit included; at least 1",
           rollout=True),
    _input("progress", SCALAR, "share of training that is done, 0 to 1", rollout=True),
)  # fmt: skip

_CONSTANT = Port(TN, gradient=False)
_BOOTSTRAP = Port(N, gradient=False)
_RETURNS = (
    Primitive(
        "monte_carlo_returns",
        TN,
        {"rewards": _CONSTANT, "dones": _CONSTANT, "bootstrap": Port(N, optional=True, gradient=False)},
        {"gamma": _GAMMA},
        "G_t = r_t + gamma (1 - d_t) G_{t+1}, G_T = V_T or 0",
        "Sutton and Barto 2018, eq. 3.8",
        family="returns",
        columns=True,
    ),
    Primitive(
        "n_step_returns",
        TN,
        {"rewards": _CONSTANT, "values": _CONSTANT, "bootstrap": _BOOTSTRAP, "dones": _CONSTANT},
        {"n": Constant(Integer("n", 1, 32, doc="steps"), 5), "gamma": _GAMMA},
        "G_t = sum_{k<n} gamma^k r_{t+k} + gamma^n V(s_{t+n}), cut at episode ends and at T",
        "Sutton and Barto 2018, eq. 7.1",
        family="returns",
        columns=True,
    ),
    Primitive(
        "gae",
        TN,
        {"rewards": _CONSTANT, "values": _CONSTANT, "bootstrap": _BOOTSTRAP, "dones": _CONSTANT},
        {"gamma": _GAMMA, "lam": _LAMBDA},
        "A_t = delta_t + gamma lam (1 - d_t) A_{t+1}, delta_t = r_t + gamma (1 - d_t) V_{t+1} - V_t",
        "Schulman et al. 2016 (GAE), eq. 16",
        family="returns",
        columns=True,
    ),
    *(
        Primitive(
            name,
            TN,
            {
                "log_probs": _CONSTANT,
                "old_log_probs": _CONSTANT,
                "rewards": _CONSTANT,
                "values": _CONSTANT,
                "bootstrap": _BOOTSTRAP,
                "dones": _CONSTANT,
            },
            {
                "gamma": _GAMMA,
                **_real("rho_clip", 1.0, 0.1, 10.0, "limit of the weight of a temporal difference", log=True),
                **_real("c_clip", 1.0, 0.1, 10.0, "limit of the trace", log=True),
            },
            formula,
            source,
            family="returns",
            columns=True,
        )
        for name, formula, source in (
            (
                "v_trace_returns",
                "v_t = V_t + rho_t delta_t + gamma (1 - d_t) c_t (v_{t+1} - V_{t+1}), rho_t, c_t = clipped ratio",
                "Espeholt et al. 2018 (IMPALA), eq. 1",
            ),
            (
                "v_trace_advantages",
                "A_t = rho_t (r_t + gamma (1 - d_t) v_{t+1} - V_t)",
                "Espeholt et al. 2018 (IMPALA), section 4.2",
            ),
        )
    ),
    Primitive(
        "td_error",
        TN,
        {
            "rewards": _CONSTANT,
            "values": Port(TN),
            "bootstrap": _BOOTSTRAP,
            "dones": _CONSTANT,
        },
        {"gamma": _GAMMA},
        "delta_t = r_t + gamma (1 - d_t) sg(V_{t+1}) - V_t",
        "Sutton and Barto 2018, eq. 6.5 (semi-gradient)",
        family="returns",
        columns=True,
    ),
    Primitive(
        "group_relative",
        N,
        {"returns": Port(N, gradient=False), "groups": Port(GROUPS, gradient=False)},
        {"divide": Constant(Choice("divide", (True, False), doc="divide by the group's deviation"), True)},
        "A_n = (R_n - mean of n's group) / (deviation of n's group + 1e-6); without the division, Liu et al. 2025",
        "Shao et al. 2024 (DeepSeekMath, GRPO), section 4.1.2",
        family="returns",
        columns=True,
    ),
)

_SHAPING = (
    Primitive(
        "potential_shaping",
        TN,
        {"rewards": _CONSTANT, "potential": _CONSTANT, "bootstrap": _BOOTSTRAP, "dones": _CONSTANT},
        {"gamma": _GAMMA},
        "r_t + gamma (1 - d_t) Phi_{t+1} - Phi_t, Phi the potential",
        "Ng et al. 1999, eq. 2",
        family="reward",
        columns=True,
    ),
    Primitive(
        "count_bonus",
        TN,
        {"visit_counts": _CONSTANT},
        _real("beta", 0.01, 1e-4, 10.0, "weight", log=True),
        "beta / sqrt(n(s_t))",
        "Tang et al. 2017, section 2.2; counts by hash codes of states",
        family="reward",
    ),
    Primitive(
        "surprise_bonus",
        TN,
        {"old_log_probs": _CONSTANT},
        _real("beta", 0.01, 1e-4, 10.0, "weight", log=True),
        "-beta log pi_old(a_t | s_t): the soft reward",
        "Haarnoja et al. 2017 (soft Q-learning)",
        family="reward",
    ),
)

_POLICY = (
    Primitive(
        "log_prob",
        TN,
        {"policy": Port(POLICY), "actions": Port(ACTIONS, gradient=False)},
        formula="log pi(a_t | s_t)",
        source="Williams 1992",
        family="policy",
    ),
    Primitive(
        "entropy",
        TN,
        {"policy": Port(POLICY)},
        formula="H_t = -sum_a pi(a | s_t) log pi(a | s_t); Gaussian: sum of log sigma + log(2 pi e) / 2",
        source="Williams and Peng 1991",
        family="policy",
    ),
    Primitive(
        "kl",
        TN,
        {"policy": Port(POLICY), "other": Port(POLICY)},
        formula="KL(policy || other)_t = sum_a policy(a) log(policy(a) / other(a))",
        source="Kullback and Leibler 1951",
        family="policy",
    ),
    Primitive(
        "kl_estimate",
        TN,
        {"log_probs": Port(TN), "other_log_probs": Port(TN)},
        formula="exp(x) - x - 1, x = other_log_probs - log_probs: estimates KL(pi || other) from actions of pi",
        source="Shao et al. 2024 (GRPO), eq. 4; Schulman 2020 (k3)",
        family="policy",
    ),
    Primitive(
        "ratio",
        TN,
        {"log_probs": Port(TN), "old_log_probs": Port(TN, gradient=False)},
        formula="exp(log_probs - old_log_probs)",
        source="Schulman et al. 2017 (PPO), section 3",
        family="policy",
    ),
    Primitive(
        "policy_gradient",
        TN,
        {"log_probs": Port(TN), "advantages": Port(TENSOR, gradient=False)},
        formula="-log pi(a_t | s_t) sg(A_t)",
        source="Williams 1992 (REINFORCE)",
        family="policy loss",
    ),
    Primitive(
        "surrogate",
        TN,
        {"ratio": Port(TN), "advantages": Port(TENSOR, gradient=False)},
        formula="-ratio sg(A_t)",
        source="Schulman et al. 2017 (PPO), eq. 6",
        family="policy loss",
    ),
    Primitive(
        "clipped_surrogate",
        TN,
        {"ratio": Port(TN), "advantages": Port(TENSOR, gradient=False)},
        {
            **_real("low", 0.2, 0.01, 0.99, "clip below 1 - low"),
            **_real(
                "high", 0.2, 0.01, 5.0, "clip above 1 + high; another value than low: DAPO's clip-higher", log=True
            ),
        },
        "-min(ratio sg(A_t), clip(ratio, 1 - low, 1 + high) sg(A_t))",
        "Schulman et al. 2017 (PPO), eq. 7; Yu et al. 2025 (DAPO), eq. 10",
        family="policy loss",
    ),
    Primitive(
        "dual_clipped_surrogate",
        TN,
        {"ratio": Port(TN), "advantages": Port(TENSOR, gradient=False)},
        {
            **_real("low", 0.2, 0.01, 0.99, "clip below 1 - low"),
            **_real("high", 0.2, 0.01, 5.0, "clip above 1 + high", log=True),
            **_real("limit", 3.0, 1.0, 20.0, "largest ratio that counts where the advantage is negative", log=True),
        },
        "the clipped surrogate, at most -limit sg(A_t) where A_t < 0",
        "Ye et al. 2020 (dual-clip PPO)",
        family="policy loss",
    ),
)

_LOSSES = (
    Primitive(
        "squared_error",
        TN,
        {"prediction": Port(TN), "target": Port(TN, gradient=False)},
        formula="(prediction - sg(target))^2 / 2",
        source="Mnih et al. 2016 (A3C), section 4",
        family="value loss",
    ),
    Primitive(
        "huber",
        TN,
        {"prediction": Port(TN), "target": Port(TN, gradient=False)},
        _real("delta", 1.0, 0.01, 100.0, "where the parabola becomes a line", log=True),
        "x^2 / 2 where |x| <= delta, else delta (|x| - delta / 2); x = prediction - sg(target)",
        "Huber 1964",
        family="value loss",
    ),
    Primitive(
        "clipped_value_loss",
        TN,
        {"prediction": Port(TN), "old": Port(TN, gradient=False), "target": Port(TN, gradient=False)},
        _real("clip", 0.2, 0.01, 100.0, "largest change that counts", log=True),
        "max((v - R)^2, (old + clip(v - old, -c, c) - R)^2) / 2",
        "Engstrom et al. 2020, section 2 (value function clipping)",
        family="value loss",
    ),
    Primitive(
        "temporal_consistency",
        SCALAR,
        {"values": Port(TN), "dones": Port(TN, optional=True, gradient=False)},
        formula="mean over t < T - 1 of (1 - d_t) (V(s_{t+1}) - V(s_t))^2",
        source="after Thodoroff et al. 2018 (temporal regularisation)",
        family="value loss",
        columns=True,
    ),
)

_ONE = {"x": Port(TENSOR)}
_MANY = {"x": Port(TENSOR, many=True)}
_ARITHMETIC = (
    Primitive("add", TENSOR, _MANY, formula="sum of the inputs"),
    Primitive("multiply", TENSOR, _MANY, formula="product of the inputs"),
    Primitive("minimum", TENSOR, _MANY, formula="smallest of the inputs"),
    Primitive("maximum", TENSOR, _MANY, formula="largest of the inputs"),
    Primitive("subtract", TENSOR, {"x": Port(TENSOR), "y": Port(TENSOR)}, formula="x - y"),
    Primitive("scale", TENSOR, _ONE, _real("factor", 1.0, -1000.0, 1000.0, "factor"), "factor x"),
    Primitive(
        "clip",
        TENSOR,
        _ONE,
        {
            **_real("low", -1.0, -1000.0, 1000.0, "smallest value"),
            **_real("high", 1.0, -1000.0, 1000.0, "largest value; not below low"),
        },
        "min(max(x, low), high)",
    ),
    Primitive("detach", TENSOR, {"x": Port(TENSOR, gradient=False)}, formula="sg(x)"),
    Primitive("square", TENSOR, _ONE, formula="x^2"),
    Primitive("absolute", TENSOR, _ONE, formula="|x|"),
    Primitive("exponential", TENSOR, _ONE, formula="exp(min(x, 20))"),
    Primitive("tanh", TENSOR, _ONE, formula="tanh(x)"),
    Primitive("sigmoid", TENSOR, _ONE, formula="1 / (1 + exp(-x))"),
    Primitive("constant", SCALAR, {}, _real("value", 1.0, -1000.0, 1000.0, "value"), "value"),
    Primitive(
        "normalize",
        TN,
        {"x": Port(TN), "mask": _MASK},
        formula="(x - mean) / (deviation + 1e-8) over all (real) steps; n - 1 in the deviation",
        source="Engstrom et al. 2020; per rollout where x does not depend on the current weights",
        family="normalisation",
    ),
    Primitive(
        "center",
        TN,
        {"x": Port(TN), "mask": _MASK},
        formula="x - mean over all (real) steps",
        source="Greensmith et al. 2004 (baselines)",
        family="normalisation",
    ),
    Primitive(
        "masked",
        TN,
        {"x": Port(TN), "mask": Port(TN, gradient=False)},
        formula="m x",
        family="normalisation",
    ),
    Primitive(
        "total",
        N,
        {"x": Port(TN), "mask": _MASK},
        formula="sum over t of m x: one number per sequence",
        family="reduction",
        columns=True,
    ),
    Primitive(
        "mean",
        SCALAR,
        {"x": Port(TENSOR), "mask": _MASK},
        formula="sum(m x) / sum(m): every (real) step counts the same",
        source="Yu et al. 2025 (DAPO), eq. 12",
        family="reduction",
    ),
    Primitive(
        "sequence_mean",
        SCALAR,
        {"x": Port(TN), "mask": _MASK},
        formula="mean over n of sum_t(m x) / sum_t(m): every sequence counts the same",
        source="Shao et al. 2024 (GRPO), eq. 3",
        family="reduction",
        columns=True,
    ),
)

_ENDS = {
    **_real("start", 1.0, 0.0, 10.0, "value at progress 0"),
    **_real("end", 0.0, 0.0, 10.0, "value at progress 1"),
}
_SCHEDULES = (
    Primitive(
        "linear_schedule",
        SCALAR,
        {"progress": Port(SCALAR, gradient=False)},
        _ENDS,
        "start + progress (end - start)",
        family="schedule",
    ),
    Primitive(
        "cosine_schedule",
        SCALAR,
        {"progress": Port(SCALAR, gradient=False)},
        _ENDS,
        "end + (start - end) (1 + cos(pi progress)) / 2",
        "Loshchilov and Hutter 2016, eq. 5",
        family="schedule",
    ),
)

_STEP_PORTS = {"loss": Port(SCALAR), "schedule": Port(SCALAR, optional=True, gradient=False)}
_RATE = {
    "learning_rate": Constant(
        Real("learning_rate", 1e-6, 1.0, log=True, doc="times the schedule"), 3e-4, shared=True
    ),
    "max_grad_norm": Constant(
        Choice("max_grad_norm", (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0), doc="limit of the gradient norm; 0: none"),
        0.5,
        shared=True,
    ),
}  # fmt: skip
_OUTPUTS = (
    Primitive(
        "loss_output",
        SCALAR,
        {"x": Port(SCALAR, many=True)},
        formula="sum of the inputs: what is minimised",
        kind="loss",
        family="output",
    ),
    Primitive(
        "adam",
        SCALAR,
        _STEP_PORTS,
        {
            **_RATE,
            **_real("beta1", 0.9, 0.0, 0.99, "decay of the first moment"),
            **_real("beta2", 0.999, 0.5, 0.9999, "decay of the second moment"),
            **_real("epsilon", 1e-5, 1e-10, 1e-2, "added to the root of the second moment", log=True),
        },
        "theta -= rate m / (sqrt(v) + epsilon), moments with bias correction",
        "Kingma and Ba 2015, algorithm 1",
        kind="step",
        family="output",
    ),
    Primitive(
        "sgd",
        SCALAR,
        _STEP_PORTS,
        {**_RATE, **_real("momentum", 0.9, 0.0, 0.99, "momentum")},
        "b = momentum b + g; theta -= rate b",
        "Sutskever et al. 2013",
        kind="step",
        family="output",
    ),
    Primitive(
        "rmsprop",
        SCALAR,
        _STEP_PORTS,
        {
            **_RATE,
            **_real("decay", 0.99, 0.5, 0.9999, "decay of the second moment"),
            **_real("epsilon", 1e-5, 1e-10, 1e-2, "added to the root of the second moment", log=True),
        },
        "v = decay v + (1 - decay) g^2; theta -= rate g / (sqrt(v) + epsilon)",
        "Hinton 2012, lecture 6e",
        kind="step",
        family="output",
    ),
)

PRIMITIVES: Mapping[str, Primitive] = {
    p.name: p
    for p in (
        *_INPUTS,
        *_RETURNS,
        *_SHAPING,
        *_POLICY,
        *_LOSSES,
        *_ARITHMETIC,
        *_SCHEDULES,
        *_OUTPUTS,
    )
}
FAMILIES = tuple(dict.fromkeys(p.family for p in PRIMITIVES.values()))


def describe_primitives(formulas: bool = True) -> str:
    """One line a primitive: ``name(ports; constants) -> type: formula``; without formulas it fits into a prompt."""
    lines = []
    for p in PRIMITIVES.values():
        ports = ", ".join(f"{n}: {q.type}{'*' if q.many else '?' if q.optional else ''}" for n, q in p.ports.items())
        constants = ", ".join(f"{n}={c.default}" for n, c in p.constants.items())
        inside = f"{ports}; {constants}" if constants else ports
        lines.append(f"{p.name}({inside}) -> {p.output}{f': {p.formula}' if formulas else ''}")
    return "\n".join(lines)
