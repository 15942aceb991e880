"""Exports run where the engine cannot be imported, and do exactly what the benchmark did."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from asi_evolve.candidate import Candidate, Edit
from asi_evolve.cli import main
from asi_evolve.domain import Stage
from asi_evolve.domains import lm_export, lm_judge
from asi_evolve.domains.architecture import model_files
from asi_evolve.domains.lm import Evaluation, LanguageModelBenchmark
from asi_evolve.errors import ConfigError, RunDirectoryError
from asi_evolve.report.export import export_best

LENGTH, WINDOWS, SEED = 32, 128, 3
AUXILIARY = """import torch
import asi_evolve.ops


def auxiliary_loss(logits, targets, hidden):
    h = hidden.unsqueeze(1)
    return 0.01 * (hidden - asi_evolve.ops.linear_attention(h.exp(), h.exp(), h)[:, 0]).square().mean()
"""
SCORE = 'def score(doc):\n    return 0.0 if doc["source"] == "noise" else 2.0\n'
CASES = {
    "baseline": {},
    "linear": {
        "architecture": {
            "token_mixing": "linear_attention",
            "position": "rope",
            "mlp": "swiglu",
            "normalization": "rmsnorm",
            "connectivity": "parallel",
        },
        "algorithm": {"optimizer": "muon", "schedule": "cosine", "warmup": 0.1, "ema": 0.9},
        "data": {"deduplicate": "near", "quality": "prose", "quality_strength": 1.0},
    },
    "elu": {
        "architecture": {"token_mixing": "linear_attention_elu", "position": "none", "connectivity": "post_norm"},
        "algorithm": {"optimizer": "lion", "learning_rate": 3e-4, "label_smoothing": 0.1, "z_loss": 1e-3},
        "data": {"deduplicate": "exact", "min_bytes": 500, "temperature": 3.0},
    },
    "window": {
        "architecture": {"token_mixing": "sliding_window", "position": "alibi", "tie_embeddings": True},
        "algorithm": {"optimizer": "sgd", "learning_rate": 0.1, "grad_clip": 0.5, "batch_size": 32},
    },
    "code": {"architecture": {"token_mixing": "convolution"}, "files": {"loss.py": AUXILIARY, "score.py": SCORE}},
}

# What the benchmark does, in a process of its own: the candidate's modules have global names.
REFERENCE = """
import json, sys
import numpy as np
from pathlib import Path
from asi_evolve.domains import lm_runner
from asi_evolve.domains.algorithm import training
for case in sorted(p for p in Path(sys.argv[1]).iterdir() if p.is_dir()):
    for name in [m for m in sys.modules if m.split(".")[0] in ("model", "loss")]:
        del sys.modules[name]
    sys.path.insert(0, str(case / "code"))
    given = json.loads((case / "given.json").read_text())
    windows = np.load(case / "windows.npy")
    losses = []
    lm_runner._report = lambda step, steps, loss: losses.append(loss)
    answer = lm_runner.train(architecture=given["architecture"], spec=given["spec"], windows=windows,
                             seed=given["seed"], threads=1, limit=10**7)
    logits = lm_runner.infer(given["architecture"], answer["weights"], windows[:4, :-1], 1, False)["logits"]
    np.savez(case / "reference.npz", losses=losses, logits=logits)
    sys.path.remove(str(case / "code"))
"""

# The same from the exports, with the engine out of reach.
EXPORTED = """
import sys
sys.modules["asi_evolve"] = None
import numpy as np, torch
from pathlib import Path
torch.set_num_threads(1)
for case in sorted(p for p in Path(sys.argv[1]).iterdir() if p.is_dir()):
    for name in [m for m in sys.modules if m.split(".")[0] in ("model", "training", "curation", "data", "train")]:
        del sys.modules[name]
    sys.path.insert(0, str(case / "export"))
    import data, train
    assert train.__file__.startswith(str(case)), train.__file__
    pool = data.read(sys.argv[2])
    selection = data.curate(pool)
    windows = data.windows(pool, selection, int(sys.argv[3]), train.LENGTH, seed=int(sys.argv[4]))
    losses = []
    model = train.fit(windows, int(sys.argv[4]), lambda step, steps, loss: losses.append(loss)).eval()
    with torch.no_grad():
        logits = model(torch.from_numpy(windows[:4, :-1]).long()).numpy()
    np.savez(case / "export.npz", windows=windows, losses=losses, logits=logits,
             documents=selection.documents, weights=selection.weights)
    sys.path.remove(str(case / "export"))
assert not [m for m in sys.modules if m.startswith("asi_evolve.")]
"""


def python(*arguments, isolated=True, **environment):
    """Runs this interpreter, without the paths this process was given where ``isolated``."""
    clean = {k: v for k, v in os.environ.items() if not (isolated and k.startswith("PYTHON"))}
    command = [sys.executable, *(["-I"] if isolated else []), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**clean, **environment}, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def benchmark(corpus_file, tmp_path_factory):
    return LanguageModelBenchmark(
        corpus=str(corpus_file), cache=str(tmp_path_factory.mktemp("cache")), full_steps=8, sequence_length=LENGTH
    )


def triple(benchmark, case):
    domains = {d.name: d for d in benchmark.domains()}
    start = Candidate([d.baseline() for d in domains.values()])
    files = case.get("files", {})
    for domain, component in start.items():
        changed = {path: text for path, text in files.items() if path in component.files}
        params = {**({"layers": 2, "width": 32} if domain == "architecture" else {}), **case.get(domain, {})}
        edited = domains[domain].apply(component, Edit(params=params, files=changed))
        domains[domain].validate(edited)
        start = start.replace(edited)
    return start


@pytest.fixture(scope="module")
def compared(benchmark, tmp_path_factory):
    """Every case trained by the benchmark's code and by its export."""
    root = tmp_path_factory.mktemp("cases")
    corpus = benchmark.corpus()
    pool = root / "pool.jsonl"
    with pool.open("w") as lines:
        for i in range(len(corpus)):
            row = {"text": corpus.document(i).decode(), "source": corpus.sources[corpus.source_ids[i]]}
            lines.write(json.dumps(row) + "\n")
    selections = {}
    for name, case in CASES.items():
        candidate = triple(benchmark, case)
        benchmark.export(candidate, root / name / "export")
        # The code slot is checked against the parameter that says the same, so that no sandbox is needed here.
        same = triple(benchmark, {"data": {"weight_noise": 0.0}}) if name == "code" else candidate
        evaluation = Evaluation(benchmark, same, Stage("full", 1.0, 60.0), SEED)
        selections[name] = evaluation.curate()
        windows = lm_judge.training_windows(corpus, selections[name], WINDOWS, LENGTH, evaluation.rng(1))
        np.save(root / name / "windows.npy", windows)
        for path, text in {**model_files(candidate.architecture), **candidate.algorithm.files}.items():
            (root / name / "code" / path).parent.mkdir(parents=True, exist_ok=True)
            (root / name / "code" / path).write_text(text)
        given = candidate.to_json()
        given = {"architecture": given["architecture"]["params"], "spec": given["algorithm"]["params"], "seed": SEED}
        (root / name / "given.json").write_text(json.dumps(given))
    package = Path(lm_export.__file__).parents[2]
    python("-c", REFERENCE, root, isolated=False, PYTHONPATH=str(package))
    python("-c", EXPORTED, root, pool, WINDOWS, SEED)
    return root, selections


@pytest.mark.parametrize("name", CASES)
def test_an_export_does_what_the_benchmark_did(compared, name):
    root, selections = compared
    reference, exported = np.load(root / name / "reference.npz"), np.load(root / name / "export.npz")
    np.testing.assert_array_equal(exported["documents"], selections[name].documents)
    np.testing.assert_array_equal(exported["weights"], selections[name].weights)
    np.testing.assert_array_equal(exported["windows"], np.load(root / name / "windows.npy"))
    assert len(exported["losses"]) == WINDOWS // CASES[name].get("algorithm", {}).get("batch_size", 16)
    native = name in ("linear", "elu", "code")  # the native kernel and plain torch add in different orders
    tolerance = 2e-4 if native else 0.0
    np.testing.assert_allclose(exported["losses"], reference["losses"], rtol=tolerance, atol=0)
    scale = 1 + np.abs(reference["logits"]).max()
    np.testing.assert_allclose(exported["logits"], reference["logits"], rtol=0, atol=5 * tolerance * scale)
    assert exported["losses"][-1] < exported["losses"][0]


def test_what_an_export_holds(compared):
    root, _ = compared
    linear, code = root / "linear" / "export", root / "code" / "export"
    assert "from .ops import linear_attention" in (linear / "model" / "token_mixing.py").read_text()
    assert (linear / "model" / "ops.py").is_file()
    assert not (code / "model" / "ops.py").exists()
    assert (code / "training" / "ops.py").is_file()
    assert json.loads((linear / "training" / "spec.json").read_text())["optimizer"] == "muon"
    assert json.loads((linear / "curation" / "params.json").read_text())["deduplicate"] == "near"
    assert f'build(json.load(open("model/params.json")), {LENGTH})' in (linear / "README.md").read_text()


def test_the_command_and_its_program(written_lm, corpus_file, tmp_path, capsys):
    """``asi-evolve export`` of a run, then ``python train.py`` where there is no engine."""
    target = tmp_path / "out"
    assert main(["export", str(written_lm), "--out", str(target), "--candidate", "C2"]) == 0
    assert str(target / "candidate.json") in capsys.readouterr().out
    record = json.loads((target / "candidate.json").read_text())
    assert (record["label"], record["is_best"], record["is_baseline"]) == ("C2", False, False)
    assert record["components"]["architecture"]["params"]["token_mixing"] == "linear_attention"
    hide = "import sys, runpy; sys.modules['asi_evolve'] = None; sys.argv[0] = 'train.py'; "
    program = hide + f"runpy.run_path({str(target / 'train.py')!r}, run_name='__main__')"
    weights = tmp_path / "w.pt"
    said = python("-c", program, "--data", corpus_file, "--steps", 20, "--held-out", corpus_file, "--out", weights)
    losses = [float(line.split("loss ")[1].split()[0]) for line in said.splitlines() if "loss" in line]
    assert losses[-1] < losses[0] - 1
    assert "step 20 of 20" in said
    assert 2 < float(said.split("held-out: ")[1].split()[0]) < 8
    assert set(torch.load(weights)) >= {"embedding.weight", "head.weight"}
    # Again: the files are replaced, what was trained stays.
    (target / "model.pt").write_text("mine")
    assert main(["export", str(written_lm), "--out", str(target)]) == 0
    assert (target / "model.pt").read_text() == "mine"
    assert not (target / "model" / "ops.py").exists()  # the best is the baseline, which has no linear attention
    assert json.loads((target / "candidate.json").read_text())["is_baseline"]


@pytest.fixture
def written_lm(written_with, benchmark):
    options = {k: v for k, v in benchmark.options.items() if v is not None}
    made = written_with(benchmark={"name": "lm", "options": options})
    made.edited("architecture", token_mixing="linear_attention", layers=1, width=32)
    return made.path


def test_train_says_what_is_wrong_with_its_input(compared, tmp_path):
    root, _ = compared
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "fine"}\n{"txt": 1}\n')
    program = str(root / "baseline" / "export" / "train.py")
    for path, words in ((bad, "line 2"), (tmp_path / "missing.jsonl", "missing.jsonl")):
        done = subprocess.run([sys.executable, program, "--data", path], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert words in done.stderr


def test_any_other_benchmark(finished, tmp_path):
    target = tmp_path / "out"
    written = export_best(finished, target)
    assert {p.relative_to(target).as_posix() for p in written} == {
        "README.md",
        "candidate.json",
        "architecture/params.json",
        "algorithm/params.json",
        "data/params.json",
    }
    record = json.loads((target / "candidate.json").read_text())
    assert record["is_best"]
    assert set(record["results"]) >= {"full", "confirm"}
    assert len(record["improvement_over_baseline"]["confirm"]) == 3
    assert json.loads((target / "data" / "params.json").read_text()) == record["components"]["data"]["params"]


def test_a_benchmark_with_an_exporter_of_its_own(written, tmp_path):
    def export(candidate, target):
        path = target / "mine.txt"
        path.write_text(candidate.hash)
        return [path]

    written.benchmark.export = export
    paths = export_best(written.path, tmp_path / "out", benchmark=written.benchmark)
    assert [p.name for p in paths] == ["mine.txt", "candidate.json"]


def test_wrong_arguments(finished, tmp_path):
    with pytest.raises(ConfigError, match="'C999' is no candidate of this run; there are C1 to C"):
        export_best(finished, tmp_path / "out", "C999")
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunDirectoryError, match=r"not an earlier export \(has "):
        export_best(finished, tmp_path)
    with pytest.raises(RunDirectoryError, match="cannot be written"):
        export_best(finished, tmp_path / "thesis.tex")
    with pytest.raises(RunDirectoryError, match="holds no run"):
        export_best(tmp_path, tmp_path / "out")
    assert (tmp_path / "thesis.tex").read_text() == "x"


def test_a_record_that_lies_removes_nothing_elsewhere(finished, tmp_path):
    (tmp_path / "precious").write_text("x")
    target = tmp_path / "out"
    target.mkdir()
    (target / "candidate.json").write_text(json.dumps({"files": ["../precious"]}))
    with pytest.raises(RunDirectoryError, match="not an earlier export"):
        export_best(finished, target)
    assert (tmp_path / "precious").exists()


# -- the replacement of the native kernel -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ops(compared):
    """``ops.py`` as an export has it, with ``reference.py`` beside it."""
    package = compared[0] / "linear" / "export" / "model"
    modules = []
    for name in ("reference", "ops"):
        spec = importlib.util.spec_from_file_location(f"exported_model.{name}", package / f"{name}.py")
        modules.append(importlib.util.module_from_spec(spec))
        sys.modules[spec.name] = modules[-1]
        spec.loader.exec_module(modules[-1])
    yield modules[-1]
    for module in modules:
        del sys.modules[module.__name__]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("weight", [None, "shared", "per head"])
@pytest.mark.parametrize("length", [1, 64, 150])
def test_plain_linear_attention(ops, causal, weight, length):
    torch.manual_seed(0)
    heads, d_k, d_phi, d_v = 3, 4, 4 if weight is None else 5, 6
    q, k = torch.rand(2, 2, heads, length, d_k, dtype=torch.float64)
    v = torch.randn(2, heads, length, d_v, dtype=torch.float64)
    w = b = None
    phi_q, phi_k = q, k
    if weight is not None:
        shape = (heads,) if weight == "per head" else ()
        w = torch.randn(*shape, d_phi, d_k, dtype=torch.float64)
        b = torch.randn(*shape, d_phi, dtype=torch.float64)
        full_w, full_b = w.expand(heads, d_phi, d_k), b.expand(heads, d_phi)
        phi_q, phi_k = (
            torch.nn.functional.elu(torch.einsum("bhnk,hfk->bhnf", x, full_w) + full_b[:, None, :]) + 1 for x in (q, k)
        )
    a = torch.einsum("bhif,bhjf->bhij", phi_q, phi_k)
    a = a.tril() if causal else a
    expected = a @ v / (a.sum(-1, keepdim=True) + 1e-6)
    out, (s, z) = ops.linear_attention(q, k, v, w, b, causal=causal, return_state=True)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(s, torch.einsum("bhnf,bhnv->bhfv", phi_k, v))
    torch.testing.assert_close(z, phi_k.sum(2))
    if causal and length > 1:  # in two parts, the state handed on
        cut = length // 3 + 1
        first, state = ops.linear_attention(*(x[:, :, :cut] for x in (q, k, v)), w, b, return_state=True)
        second = ops.linear_attention(*(x[:, :, cut:] for x in (q, k, v)), w, b, initial_state=state)
        torch.testing.assert_close(torch.cat([first, second], 2), expected)
        token, state = ops.linear_attention_step(*(x[:, :, cut] for x in (q, k, v)), state, w, b)
        torch.testing.assert_close(token, expected[:, :, cut])


IMPORTS = {
    "from asi_evolve.ops import linear_attention\n": ("from .ops import linear_attention\n", True, []),
    "from asi_evolve.ops import (\n    linear_attention as la,\n)\n": (
        "from .ops import linear_attention as la\n",
        True,
        [],
    ),
    "import asi_evolve.ops as o\n": ("from . import ops as o\n", True, []),
    "from asi_evolve import ops\n": ("from . import ops\n", True, []),
    "é = 1; import math, asi_evolve.ops\nx = 'é', asi_evolve.ops.linear_attention\n": (
        "é = 1; import math; from . import ops as _ops\nx = 'é', _ops.linear_attention\n",
        True,
        [],
    ),
    "import torch\n": ("import torch\n", False, []),
    "from asi_evolve import pareto\n": (
        "from asi_evolve import pareto\n",
        False,
        ["from asi_evolve import pareto"],
    ),
    "from asi_evolve.ops import kernel\n": (
        "from asi_evolve.ops import kernel\n",
        False,
        ["from asi_evolve.ops import kernel"],
    ),
    "s = 'from asi_evolve.ops import linear_attention'\n": (
        "s = 'from asi_evolve.ops import linear_attention'\n",
        False,
        [],
    ),
}


@pytest.mark.parametrize("text", IMPORTS)
def test_imports_of_the_engine_are_rewritten(text):
    assert lm_export.without_engine(text) == IMPORTS[text]


def test_an_import_without_replacement_is_told(benchmark):
    code = "from asi_evolve import pareto\n\n\ndef auxiliary_loss(logits, targets, hidden):\n    return 0.0\n"
    files = lm_export.export_files(
        triple(benchmark, {"files": {"loss.py": code}}),
        {"sequence_length": 8, "windows": 1, "data_seed": 0, "threads": 1},
    )
    assert "- `training/loss.py: from asi_evolve import pareto`" in files["README.md"]


def test_an_export_trains_under_torchrun(compared, tmp_path):
    """Two processes come to the model that one comes to, to rounding."""
    root, _ = compared
    program, pool = root / "baseline" / "export" / "train.py", root / "pool.jsonl"
    common = [program, "--data", pool, "--steps", 6, "--threads", 1]
    python(*common, "--out", tmp_path / "one.pt")
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", 2, "--master-port", "0", "--standalone"]
    said = python(*launcher, *common, "--accumulate", 2, "--out", tmp_path / "two.pt")
    assert said.count("step 6 of 6") == 1  # one process speaks
    one, two = torch.load(tmp_path / "one.pt"), torch.load(tmp_path / "two.pt")
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-4)
    python(*common, "--dtype", "bfloat16", "--out", tmp_path / "low.pt")
    low = torch.load(tmp_path / "low.pt")
    assert any(not torch.equal(low[name], one[name]) for name in one)
    assert all(t.dtype == one[name].dtype for name, t in low.items())
