"""Every reference mechanism: builds, is causal, trains, and computes what its paper's recurrence says."""

import importlib
import sys

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402

from asi_evolve.candidate import Edit  # noqa: E402
from asi_evolve.domains.architecture import ArchitectureDomain, model_files  # noqa: E402
from asi_evolve.domains.architecture.domain import REFERENCES, estimate_parameters, mechanisms  # noqa: E402

DOMAIN = ArchitectureDomain()


def load(slot, name):
    namespace = {}
    exec(compile(mechanisms()[slot][name], f"{slot}/{name}.py", "exec"), namespace)
    return namespace


class Plain:
    """A position that does nothing."""

    @staticmethod
    def rotate(q, k):
        return q, k

    @staticmethod
    def bias(n, heads):
        return None


@pytest.fixture
def build(tmp_path, monkeypatch):
    """A model with the given parameters, imported from its own files."""

    def make(length=48, **params):
        component = DOMAIN.apply(DOMAIN.baseline(), Edit(params=params))
        DOMAIN.validate(component)
        for path, text in model_files(component).items():
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        for name in [m for m in sys.modules if m == "model" or m.startswith("model.")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        torch.manual_seed(0)
        return component, importlib.import_module("model").build(dict(component.params), length)

    yield make
    for name in [m for m in sys.modules if m == "model" or m.startswith("model.")]:
        del sys.modules[name]


@pytest.mark.parametrize(("slot", "name"), [(s, n) for s, names in REFERENCES.items() for n in names])
def test_a_reference_is_causal_trains_and_has_the_parameters_it_is_said_to_have(build, slot, name):
    component, model = build(**{slot: name})
    count = sum(p.numel() for p in model.parameters())
    assert count == pytest.approx(estimate_parameters(component.params), rel=0.15)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 256, (2, 48), generator=generator)
    logits = model(tokens)
    assert logits.shape == (2, 48, 256)
    for cut in (0, 15, 16, 31, 40):
        changed = tokens.clone()
        changed[:, cut + 1 :] = torch.randint(0, 256, (2, 47 - cut), generator=generator)
        difference = (model(changed)[:, : cut + 1] - logits[:, : cut + 1]).abs().max()
        assert not (difference > 1e-4)
    for n in (1, 2, 17):  # shorter than trained on
        assert not ((model(tokens[:, :n]) - logits[:, :n]).abs().max() > 1e-4)
    F.cross_entropy(logits.flatten(0, 1), tokens.roll(-1, 1).flatten()).backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


@pytest.mark.parametrize("n", [1, 15, 16, 17, 50])
def test_gated_linear_attention_is_its_recurrence(n):
    torch.manual_seed(n)
    q, k, v = (torch.randn(2, 3, n, 8, dtype=torch.float64) for _ in range(3))
    log_a = -torch.rand(2, 3, n, 8, dtype=torch.float64)
    state, expected = torch.zeros(2, 3, 8, 8, dtype=torch.float64), []
    for t in range(n):
        state = log_a[:, :, t].exp()[..., None] * state + k[:, :, t, :, None] * v[:, :, t, None]
        expected.append((q[:, :, t, None] @ state)[:, :, 0])
    y, last = load("token_mixing", "gated_linear_attention")["gated_attention"](q, k, v, log_a)
    assert not ((y - torch.stack(expected, 2)).abs().max() > 1e-9)
    assert not ((last - state).abs().max() > 1e-9)


@pytest.mark.parametrize("n", [1, 31, 32, 33, 70])
def test_deltanet_is_its_recurrence(n):
    torch.manual_seed(n)
    q, k, v = (torch.randn(2, 3, n, 8, dtype=torch.float64) for _ in range(3))
    k = F.normalize(k, dim=-1)
    beta = torch.rand(2, 3, n, dtype=torch.float64)
    state, expected = torch.zeros(2, 3, 8, 8, dtype=torch.float64), []
    for t in range(n):
        held = torch.einsum("bhd,bhde->bhe", k[:, :, t], state)
        write = beta[:, :, t, None] * (v[:, :, t] - held)
        state = state + k[:, :, t, :, None] * write[:, :, None]
        expected.append(torch.einsum("bhd,bhde->bhe", q[:, :, t], state))
    y, last = load("token_mixing", "deltanet")["delta_rule"](q, k, v, beta)
    assert not ((y - torch.stack(expected, 2)).abs().max() > 1e-9)
    assert not ((last - state).abs().max() > 1e-9)


def test_performer_estimates_softmax_attention():
    """The estimate is unbiased up to the ratio: many features bring it near."""
    torch.manual_seed(0)
    code = load("token_mixing", "performer")
    mixing = code["TokenMixing"](16, 2, 8)
    d = 8
    mixing.directions = code["orthogonal_features"](2, 4096, d)
    q, k, v = (0.3 * torch.randn(1, 2, 40, d) for _ in range(3))
    from asi_evolve.ops import linear_attention

    y = linear_attention(mixing.phi(q, None), mixing.phi(k, 4.0), v)
    exact = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert not ((y - exact).abs().max() > 0.02)
    rows = mixing.directions[0, :d]
    cosines = F.normalize(rows, dim=-1) @ F.normalize(rows, dim=-1).T
    assert not ((cosines - torch.eye(d)).abs().max() > 1e-5)


def test_hybrid_is_a_mixture_of_its_two_halves():
    torch.manual_seed(0)
    hybrid = load("token_mixing", "hybrid")["TokenMixing"](32, 2, 8)
    x = torch.randn(2, 20, 32)
    parts = []
    for name, share in (("sliding_window", 20.0), ("linear_attention", -20.0)):
        alone = load("token_mixing", name)["TokenMixing"](32, 2, 8)
        alone.load_state_dict({n: p for n, p in hybrid.state_dict().items() if n in alone.state_dict()})
        with torch.no_grad():
            hybrid.share.fill_(share)
            assert not ((hybrid(x, Plain) - alone(x, Plain)).abs().max() > 1e-5)
            parts.append(alone(x, Plain))
    with torch.no_grad():
        hybrid.share.zero_()
        assert not ((hybrid(x, Plain) - (parts[0] + parts[1]) / 2).abs().max() > 1e-5)
