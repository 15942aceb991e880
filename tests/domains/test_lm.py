"""The language-model benchmark as a whole, on a small corpus: it measures, repeats, and refuses what cheats."""

import pytest

from asi_evolve.candidate import Candidate, Edit
from asi_evolve.domain import Stage
from asi_evolve.domains.architecture import reference_source
from asi_evolve.domains.lm import LanguageModelBenchmark
from asi_evolve.errors import CorpusError
from asi_evolve.execution.pool import LocalPool, benchmark_spec

STAGE = Stage("isolated", 0.5, 60.0)


@pytest.fixture(scope="module")
def benchmark(corpus_file, cache):
    made = LanguageModelBenchmark(
        corpus=str(corpus_file), cache=str(cache), full_steps=40, sequence_length=32, held_out_windows=24
    )
    made.prepare()
    return made


@pytest.fixture(scope="module")
def pool(benchmark):
    with LocalPool(benchmark_spec(benchmark), benchmark.options, "judge", workers=2) as made:
        yield made


@pytest.fixture(scope="module")
def submit(benchmark, pool):
    domains = {d.name: d for d in benchmark.domains()}
    small = {"layers": 1, "width": 32}
    start = Candidate([d.baseline() for d in domains.values()])
    start = start.replace(domains["architecture"].apply(start.architecture, Edit(params=small)))

    def go(seed=0, stage=STAGE, on_progress=None, **edits):
        changed = [domains[name].apply(start[name], edit) for name, edit in edits.items()]
        for component in changed:
            domains[component.domain].validate(component)
        return pool.submit(start.replace(*changed), stage, seed, on_progress)

    return go


def mixing(old, new):
    text = reference_source("token_mixing", "softmax_attention")
    assert old in text
    return Edit(files={"token_mixing.py": text.replace(old, new)})


def test_same_seed_same_result_and_real_costs(submit):
    seen = []
    runs = [submit(seed=s, on_progress=lambda f, n: seen.append((f, n))) for s in (3, 3, 4)]
    first, again, other = (r.result() for r in runs)
    assert first.status == "ok", first
    assert first.metrics["bits_per_byte"] == again.metrics["bits_per_byte"]
    assert first.metrics["bits_per_byte"] != other.metrics["bits_per_byte"]
    assert 2 < first.metrics["bits_per_byte"] < 8.1
    assert 0.3 < first.metrics["train_seconds"] < 30
    assert 100 < first.metrics["peak_memory_mb"] < 2000
    # One layer of width 32, mlp ratio 4: 2 FLOPs per weight of every matrix product, thrice, and attention's own.
    matrices = 4 * 32 * 32 + 2 * 32 * 128 + 32 * 256
    attention = 2 * 2 * 32 * 32
    assert first.metrics["flops_per_token"] == pytest.approx(3 * (2 * matrices + attention), rel=0.05)
    assert any("training" in note for _, note in seen)


def test_data_and_budget_matter(submit):
    noise = Edit(params={"weight_prose": 0.0, "weight_copies": 0.0})
    longer = submit(stage=Stage("full", 1.0, 60.0))
    base, bad = submit(), submit(data=noise)
    assert bad.result().metrics["bits_per_byte"] > base.result().metrics["bits_per_byte"] + 0.3
    assert longer.result().metrics["bits_per_byte"] < base.result().metrics["bits_per_byte"]


def test_code_slots_of_the_data_domain(submit):
    source = 'def score(doc):\n    return 0.0 if doc["source"] == "noise" else 1.0\n'
    same = submit(data=Edit(files={"score.py": source}))
    params = submit(data=Edit(params={"weight_noise": 0.0}))
    assert same.result().metrics["bits_per_byte"] == params.result().metrics["bits_per_byte"], same.result()


OUT, TOP = "return self.out(", "b, n, w = x.shape"
COUNTER = """TokenMixing.seen = getattr(TokenMixing, "seen", 0) + 1
        return TokenMixing.seen * 0.1 * x[:, -1:] + self.out("""
NAN_LOSS = """
def auxiliary_loss(logits, targets, hidden):
    return logits.sum() * float("nan")
"""


def attention(old, new):
    return {"architecture": mixing(old, new)}


def data(name, body):
    return {"data": Edit(files={f"{name}.py": f"def {name}(doc):\n    return {body}\n"})}


CASES = {
    "bidirectional": (attention("is_causal=bias is None", "is_causal=False"), "acausal", "position"),
    "mean": (attention(OUT, "return 0.1 * x.mean(1, keepdim=True) + self.out("), "acausal", "position"),
    "last": (attention(OUT, "return 0.1 * x[:, -1:] + self.out("), "acausal", "position"),
    "batch": (attention(OUT, "return x.mean(0) + self.out("), "acausal", "other windows"),
    "counter": (attention(OUT, COUNTER), "acausal", "position"),
    "nan": (attention(OUT, "return float('nan') * self.out("), "non-finite", "nan"),
    "inf": (attention(TOP, f"{TOP}\n        if not self.training: x = x * float('inf')"), "non-finite", "logits"),
    "detached": (attention("position.rotate(q, k)", "q.detach(), k.detach(); v = v.detach()"), "invalid", "gradient"),
    "broken": (attention(OUT, "return self.out(self.out)("), "crash", "Error"),
    "huge": (attention("self.heads =", "self.x = nn.Linear(999, 999); self.heads ="), "invalid", "parameters"),
    "nan-loss": ({"algorithm": Edit(files={"loss.py": NAN_LOSS})}, "non-finite", "loss"),
    "empty": (data("filter", "False"), "invalid", "no document"),
    "negative": (data("score", "-1.0"), "invalid", "negative"),
    "raises": (data("score", "1 / 0"), "crash", "ZeroDivisionError"),
    "one document": (data("filter", "not doc['text'].startswith('9') or 1 / 0"), "crash", "ZeroDivisionError"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_failures_are_recorded(submit, case):
    edits, kind, words = CASES[case]
    outcome = submit(**edits).result()
    assert outcome.status == "failed", outcome
    assert outcome.failure_kind == kind, outcome
    assert words in outcome.message


def test_a_slow_candidate_times_out(submit):
    edit = mixing("b, n, w = x.shape", "b, n, w = x.shape\n        while True: pass")
    outcome = submit(stage=Stage("isolated", 0.5, 6.0), architecture=edit).result()
    assert outcome.failure_kind == "timeout"
    assert outcome.wall_seconds < 10


def test_held_out_text_cannot_be_found(benchmark, submit):
    """Code that looks for the held-out files, and for the corpus, and reports by failing."""
    directory = benchmark.corpus().directory
    paths = [directory, directory / "held-out" / "text.npy", directory.parent, benchmark.options["corpus"]]
    code = f"""
def auxiliary_loss(logits, targets, hidden):
    found = []
    for path in {[str(p) for p in paths]!r}:
        try:
            open(path).close()
            found.append(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            if "Permission" not in str(error):
                found.append(path)
    assert not found, found
    return 0.0
"""
    outcome = submit(algorithm=Edit(files={"loss.py": code})).result()
    assert outcome.status == "ok", outcome


def test_missing_corpus():
    with pytest.raises(CorpusError, match="no such file"):
        LanguageModelBenchmark(corpus="/nowhere/at/all.jsonl").domains()
