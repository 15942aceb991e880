"""Training that is spread over parts, low precision and processes. In processes with torch."""

import os

import numpy as np
import pytest
import torch
from torch import nn

from asi_evolve.domains import lm_parallel
from asi_evolve.domains.algorithm import TrainingSpec, training

SPEC = TrainingSpec(learning_rate=3e-3, batch_size=8, grad_clip=0.5, schedule="cosine", ema=0.9).to_json() | {
    "batch_size": 7
}
WINDOWS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (28, 17), dtype=np.uint8))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(256, 16)
        self.inner = nn.Linear(16, 16)
        self.head = nn.Linear(16, 256)

    def features(self, tokens):
        return torch.tanh(self.inner(self.embedding(tokens)))


@pytest.fixture(autouse=True)
def one_thread():
    """A thread pool does not survive a fork."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(spread=None, seen=None):
    torch.manual_seed(0)
    model = Model()
    on_step = None if seen is None else lambda step, steps, loss: seen.append(loss)
    training.train(model, WINDOWS, SPEC, None, on_step, spread)
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_parts_of_a_batch_add_up():
    whole, losses, parts = [], [], []
    reference = trained(seen=whole)
    weights = trained(training.Spread(accumulate=3), losses)  # 7 rows: parts of 3, 3 and 1
    torch.testing.assert_close(weights, reference, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(losses, whole, rtol=1e-5)
    trained(training.Spread(accumulate=20), parts)  # more parts than rows
    np.testing.assert_allclose(parts, whole, rtol=1e-5)


def test_low_precision_is_near_and_keeps_float32_weights():
    reference, low = trained(), trained(training.Spread(dtype="bfloat16"))
    assert low.dtype == torch.float32
    assert not torch.equal(low, reference)
    assert float((low - reference).norm() / reference.norm()) < 0.02


@pytest.mark.parametrize("size", [2, 3])
def test_processes_train_one_model(size):
    losses = []

    def work(rank, total):
        weights = trained(training.Spread(rank=rank, size=size, total=total), losses if rank == 0 else None)
        if rank:  # every process ends with the same weights, to the bit
            everyone = weights.clone()
            total(everyone)
            return None
        everyone = weights.clone()
        total(everyone)
        assert torch.equal(everyone, torch.stack([weights] * size).sum(0))
        return weights

    numbers = sum(p.numel() for p in Model().parameters()) + 1
    whole = []
    reference = trained(seen=whole)
    torch.testing.assert_close(lm_parallel.together(size, numbers, work), reference, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(losses, whole, rtol=1e-5)


@pytest.mark.parametrize("who", [0, 1])
def test_the_end_of_one_process_ends_the_others(who, capfd):
    def work(rank, total):
        for step in range(5):
            if rank == who and step == 3:
                if rank:
                    os._exit(9)
                raise ValueError("a bug of rank 0")
            total(torch.ones(4))

    with pytest.raises(RuntimeError if who else ValueError, match="has ended" if who else "rank 0"):
        lm_parallel.together(3, 4, work)
    with pytest.raises(ChildProcessError):  # no process is left
        os.waitpid(-1, os.WNOHANG)


def test_a_real_evaluation_with_two_processes(corpus_file, cache):
    """Inside the sandbox, which has no sockets: the same model, to rounding, as with one."""
    from asi_evolve import Candidate
    from asi_evolve.domain import Stage
    from asi_evolve.domains.lm import LanguageModelBenchmark

    def score(**more):
        benchmark = LanguageModelBenchmark(
            corpus=str(corpus_file), cache=str(cache), full_steps=6, batch_size=8, sequence_length=32,
            held_out_windows=8, **more,
        )  # fmt: skip
        base = Candidate([d.baseline() for d in benchmark.domains()])
        return benchmark.evaluate(base, Stage("full", 1.0, 120), 0)["bits_per_byte"]

    assert score(processes=2, accumulate=2) == pytest.approx(score(), abs=2e-3)


def test_options_are_checked():
    from asi_evolve.domains.lm import LanguageModelBenchmark

    with pytest.raises(TypeError, match="device: 'tpu' is not one of cpu, cuda"):
        LanguageModelBenchmark(device="tpu")
    with pytest.raises(TypeError, match="dtype: 'int8' is not one of float32, bfloat16, float16"):
        LanguageModelBenchmark(dtype="int8")
    with pytest.raises(TypeError, match="processes"):
        LanguageModelBenchmark(processes=0)
