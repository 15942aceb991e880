"""The optimisers against torch's own, and each reference mechanism against its contract. In a process with torch."""

import sys

import numpy as np
import pytest
import torch

from asi_evolve.candidate import Edit
from asi_evolve.domains.algorithm import TrainingSpec, training
from asi_evolve.domains.architecture import ArchitectureDomain, estimate_parameters, mechanisms, model_files

SLOTS = [(slot, name) for slot, names in mechanisms().items() for name in names]


def build(tmp_path, monkeypatch, **params):
    domain = ArchitectureDomain()
    component = domain.apply(domain.baseline(), Edit(params=params))
    domain.validate(component)
    for path, text in model_files(component).items():
        target = tmp_path / path
        target.parent.mkdir(exist_ok=True)
        target.write_text(text)
    for name in [m for m in sys.modules if m == "model" or m.startswith("model.")]:
        del sys.modules[name]
    monkeypatch.syspath_prepend(str(tmp_path))
    import model

    torch.manual_seed(0)
    return model.build(dict(component.params), 32), component


@pytest.mark.parametrize(("slot", "name"), SLOTS)
def test_reference_mechanisms(slot, name, tmp_path, monkeypatch):
    if name.startswith("linear_attention"):
        pytest.importorskip("asi_evolve.ops")
    lm, component = build(tmp_path, monkeypatch, **{slot: name})
    tokens = torch.randint(0, 256, (2, 32))
    logits = lm(tokens)
    assert logits.shape == (2, 32, 256)
    changed = tokens.clone()
    changed[:, 20:] = torch.randint(0, 256, (2, 12))
    with torch.no_grad():
        assert torch.allclose(lm(changed)[:, :20], logits[:, :20], atol=1e-5)
        assert not torch.allclose(lm(changed)[:, 21:], logits[:, 21:], atol=1e-3)
    lm(tokens).square().mean().backward()
    assert all(p.grad is not None for p in lm.parameters())
    count = sum(p.numel() for p in lm.parameters())
    assert abs(estimate_parameters(component.params) / count - 1) < 0.1


@pytest.mark.parametrize("position", ["rope", "alibi"])
def test_sliding_window_sees_no_further(position, tmp_path, monkeypatch):
    lm, _ = build(tmp_path, monkeypatch, token_mixing="sliding_window", window=4, layers=1, position=position)
    tokens = torch.randint(0, 256, (1, 32))
    far = tokens.clone()
    far[0, :20] = (far[0, :20] + 1) % 256
    with torch.no_grad():
        assert torch.allclose(lm(tokens)[0, 24:], lm(far)[0, 24:], atol=1e-5)


def test_rope_depends_on_distance_only(tmp_path, monkeypatch):
    lm, _ = build(tmp_path, monkeypatch, position="rope")
    q, k = (torch.randn(1, 1, 1, 16).expand(1, 1, 32, 16) for _ in range(2))
    q, k = lm.position.rotate(q, k)
    scores = (q @ k.transpose(-1, -2))[0, 0]
    for distance in (0, 3, 11):
        diagonal = scores.diagonal(-distance)
        assert torch.allclose(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-4)


def test_tied_embeddings(tmp_path, monkeypatch):
    lm, component = build(tmp_path, monkeypatch, tie_embeddings=True)
    assert lm.head.weight is lm.embedding.weight
    assert abs(estimate_parameters(component.params) / sum(p.numel() for p in lm.parameters()) - 1) < 0.1


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_optimizers_equal_torch(name):
    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(5, 3), torch.nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    spec = TrainingSpec(optimizer=name, weight_decay=0.1 if name == "adamw" else 0.0, beta2=0.95).to_json()
    mine = training.Optimizer(ours, spec)
    if name == "adamw":
        groups = [{"params": [theirs.weight], "weight_decay": 0.1}, {"params": [theirs.bias], "weight_decay": 0.0}]
        other = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95))
    else:
        other = torch.optim.SGD(theirs.parameters(), lr=0.01, momentum=0.9)
    for _ in range(20):
        x = torch.randn(7, 5)
        for model in (ours, theirs):
            model.zero_grad()
            (model(x) ** 2).sum().backward()
        mine.step(0.01)
        other.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_lion_equals_its_paper():
    """Algorithm 2 of Chen et al. 2023, in numpy."""
    model = torch.nn.Linear(4, 2, bias=False)
    w, m = model.weight.detach().numpy().copy(), np.zeros((2, 4), np.float32)
    spec = TrainingSpec(optimizer="lion", beta1=0.9, beta2=0.99, weight_decay=0.1).to_json()
    optimizer = training.Optimizer(model, spec)
    rng = np.random.default_rng(0)
    for _ in range(10):
        g = rng.normal(size=(2, 4)).astype(np.float32)
        model.weight.grad = torch.from_numpy(g.copy())
        optimizer.step(0.01)
        w -= 0.01 * (np.sign(0.9 * m + 0.1 * g) + 0.1 * w)
        m = 0.99 * m + 0.01 * g
    np.testing.assert_allclose(model.weight.detach().numpy(), w, atol=1e-6)


@pytest.mark.parametrize("shape", [(16, 16), (8, 32), (48, 12)])
def test_muon_orthogonalizes(shape):
    torch.manual_seed(0)
    g = torch.randn(shape)
    u, _, v = torch.linalg.svd(g, full_matrices=False)
    values = torch.linalg.svdvals(training.orthogonalize(g))
    assert values.min() > 0.3
    assert values.max() < 1.3
    assert torch.nn.functional.cosine_similarity(training.orthogonalize(g).flatten(), (u @ v).flatten(), 0) > 0.95


def test_schedules():
    steps = 100
    for name in ("constant", "linear", "cosine", "wsd"):
        rates = [training.schedule(name, s, steps, 0.1) for s in range(steps)]
        assert max(rates) <= 1.0
        assert rates[:10] == sorted(rates[:10])
        assert rates[0] < 0.2
        assert rates[10] == pytest.approx(1.0)
        assert (rates[-1] < 0.06) == (name != "constant")
    assert training.schedule("constant", 0, 10, 0.0) == 1.0


def test_loss_terms_and_clipping():
    torch.manual_seed(0)
    logits, targets = torch.randn(2, 5, 256), torch.randint(0, 256, (2, 5))
    plain = TrainingSpec().to_json()
    expected = -torch.log_softmax(logits, -1).gather(-1, targets[..., None]).mean()
    assert float(training.loss_terms(logits, targets, logits, plain, None)) == pytest.approx(float(expected), rel=1e-6)
    z = TrainingSpec(z_loss=0.01).to_json()
    more = training.loss_terms(logits, targets, logits, z, lambda *_: 1.0)
    assert float(more) == pytest.approx(float(expected + 0.01 * logits.logsumexp(-1).square().mean() + 1), rel=1e-6)
    p = torch.nn.Parameter(torch.zeros(3))
    p.grad = torch.tensor([3.0, 4.0, 0.0])
    training.clip([p], 1.0)
    assert float(p.grad.norm()) == pytest.approx(1.0, rel=1e-4)
    training.clip([p], 2.0)
    assert float(p.grad.norm()) == pytest.approx(1.0, rel=1e-4)


def test_every_optimizer_learns(tmp_path, monkeypatch):
    windows = torch.from_numpy(np.tile(np.frombuffer(b"abcdefgh", np.uint8), (256, 5))[:, :33].copy())
    rates = {"adamw": 3e-3, "sgd": 0.3, "lion": 1e-3, "muon": 1e-2}
    for name, rate in rates.items():
        lm, _ = build(tmp_path, monkeypatch, layers=1, width=32)
        losses = []
        spec = TrainingSpec(optimizer=name, learning_rate=rate, grad_clip=1.0, ema=0.9, batch_size=8).to_json()
        training.train(lm, windows, spec, on_step=lambda step, steps, loss, into=losses: into.append(loss))
        assert len(losses) == 32
        assert losses[-1] < 0.8 * losses[0], (name, losses[0], losses[-1])
