"""Do the tests bite? Each planted bug below has to make a test fail; a bug that survives is a hole in the tests.

The C++ bugs are compiled with the C++ unit tests, the Python bugs are planted in a copy of the package that the named
tests are then run against.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import asi_evolve
from asi_evolve import _native

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
AVX512 = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma"]
COMPILER = shutil.which("g++") or shutil.which("c++")

PARETO = {
    "m = 2: equal second objectives do not dominate": ("sort.cpp", "return least[front] <= y;", "return least[front] < y;"),
    "m = 2: fronts joined since the search are not looked at": ("sort.cpp", "while (front != least.size() && covers(front, y[k])) ++front;", ""),
    "m = 3: equal third objectives do not dominate": ("sort.cpp", "block[place_ - 1].z <= p[2]", "block[place_ - 1].z < p[2]"),
    "m > 3: equal points get ranks of their own": ("sort.cpp", "equal(points[rows[i - 1].id], points[rows[i].id], points.m)", "false"),
    "m > 3: ties are lost": ("bitset.cpp", "a.id < b.id", "a.id > b.id"),
    "m > 3: the next smaller prefix is asked": ("bitset.cpp", "(places[j] + step() - 1) >> shift_", "places[j] >> shift_"),
    "m > 3: what the prefixes have in common is not checked": ("bitset.cpp", "!before(places_.data() + q * width_, places)", "false"),
    "m > 3: ranks above r leave out a digit": ("bitset.cpp", "b-- != 0;)", "--b > 0;)"),
    "sorting: what shares a bucket stays as it came": ("order.h", "if (!less(rows[i], rows[i - 1])) continue;", "continue;"),
    "the search for the front is off by one": ("sort.cpp", "low = middle + 1;", "low = middle + 2;"),
    "equal points get ranks of their own": ("sort.cpp", "if (i != 0 && equal(", "if (false && equal("),
    "the largest rank is forgotten": ("sort.cpp", "static_cast<std::int32_t>(low + 1)", "static_cast<std::int32_t>(low)"),
    "m = 1: equal values get ranks of their own": ("sort.cpp", "rows[i - 1].at[0] != rows[i].at[0]", "true"),
    "dominance without a strict inequality": ("dominance.h", "better |= a[j] < b[j];", "better = true;"),
    "the front pushes nobody down": ("front.cpp", "return dominated_by(moving, row); });", "return row == nullptr; });"),
    "the front forgets to renumber": ("front.cpp", "renumber(at + 1);", ""),
    "the front lifts nobody up": ("front.cpp", "dominated_by(gone, row) && !", "false && !"),
    "the front lifts what is still held down": ("front.cpp", "dominated_by(gone, row) && !dominated_by(levels_[at], row)", "dominated_by(gone, row)"),
    "the front forgets to renumber what moves up": ("front.cpp", "            renumber(at);", ""),
    "crowding over a constant objective": ("crowding.cpp", "if (low == high) continue;", ""),
    "crowding without the range": ("crowding.cpp", ") / range;", ");"),
}  # fmt: skip

BFLOAT16 = {
    "bfloat16: the second half of a chunk sees the future": ("_mm512_maskz_mov_ps(seen, sums[r][1])", "sums[r][1]"),
    "bfloat16: the padding of d_phi has a feature of 1": ("_mm512_maskz_mov_epi16(inside, phi)", "phi"),
    "bfloat16: keys of the last chunk stay": ("        clear(to, phi_row, n);\n", ""),
    "bfloat16: the last of an odd number of values is left out": ("v_paired, value_row, (n + 1) / 2}", "v_paired, value_row, n / 2}"),
    "bfloat16: the queries meet a stale z": ("        }\n        round_z();\n    }\n", "        }\n    }\n"),
    "bfloat16: NaN of the sequence before": ("shape.d_phi % 2 && e < value_row", "e < 0"),
}  # fmt: skip

CAUSALITY = "tests/domains/test_lm_judge.py"
RESUME = "tests/loop/test_resume.py"
SANDBOX = "tests/execution/test_sandbox.py"
GRAPH = "tests/domains/test_rl_graph.py"
PYTHON = {
    "causality: never checked": ("domains/lm_judge.py", "if wrong.any():", "if False:", CAUSALITY),
    "causality: off by one": ("domains/lm_judge.py", "<= held_out.cuts[:, None])\n    if", "< held_out.cuts[:, None])\n    if", CAUSALITY),
    "causality: nothing is altered": ("domains/lm_judge.py", "inputs[order], futures)", "inputs[order], inputs[order])", CAUSALITY),
    "causality: only the same process is asked": ("domains/lm.py", "infer, held_out.altered, False", "infer, held_out.inputs, False", "tests/domains/test_lm.py"),
    "resume: the cycle's own results change its plan": ("phases/experiment.py", "campaign.ledger(before=cycle)", "campaign.ledger()", RESUME),
    "resume: the order of arrival decides ties": ("campaign.py", "self._unranked.sort(key=lambda e: (e.cycle, self.store.numbers[e.candidate]))", "pass", "tests/loop/test_order.py"),
    "resume: the failures shown are those that came last": ("ledger.py", "bisect.insort(self.recent_failures, e, key=lambda x: (x.cycle, x.candidate, x.stage, x.seed))", "self.recent_failures.append(e)", "tests/loop/test_order.py"),
    "resume: everything is measured again": ("phases/experiment.py", "if campaign.store.evaluation(candidate, stage, seed) is None", "if True", RESUME),
    "resume: a finished design is made again": ("phases/design.py", "if done is not None:", "if False:", RESUME),
    "resume: calls are made again": ("llm/structured.py", "if row is None)\n    texts", ")\n    texts", "tests/llm/test_llm.py"),
    "resume: an analysis is committed in parts": ("phases/analyze.py", 'if store.done(cycle, "analyze") is not None:', "if False:", RESUME),
    "sandbox: the network is open": ("execution/sandbox.py", '"--unshare-net", ', "", SANDBOX),
    "sandbox: host processes can be seen": ("execution/sandbox.py", '"--unshare-pid", ', "", SANDBOX),
    "sandbox: the host can be written": ("execution/sandbox.py", 'for path in visible:\n        command += ["--ro-bind"', 'for path in visible:\n        command += ["--bind"', SANDBOX),
    "sandbox: the environment is passed on": ("execution/sandbox.py", '    return {\n        "PATH"', '    return {\n        **os.environ, "PATH"', SANDBOX),
    "sandbox: no memory limit": ("execution/supervise.py", "elif total > self.limits.memory_bytes:", "elif False:", SANDBOX),
    "sandbox: no limit of processes": ("execution/supervise.py", "if tasks > self.limits.processes + 3:", "if False:", SANDBOX),
    "sandbox: no system-call filter": ("execution/sandbox.py", "if bare and seccomp.available():", "if False:", SANDBOX),
    "graph: lambda is not used": ("domains/algorithm/operations.py", "return _scan(delta, lam * discount,", "return _scan(delta, discount,", GRAPH),
    "graph: the upper clip is the lower one": ("domains/algorithm/operations.py", "minus = -_stopped(advantages)\n    return torch.maximum(ratio * minus, ratio.clamp(1 - low, 1 + high)", "minus = -_stopped(advantages)\n    return torch.maximum(ratio * minus, ratio.clamp(1 - low, 1 + low)", GRAPH),
    "graph: transforms are dropped": ("domains/algorithm/compile.py", "text = transform.code(text)", "pass", GRAPH),
    "graph: minibatches may tear sequences": ("domains/algorithm/compile.py", "any(kinds[n].columns for n in rest_nodes)", "False", GRAPH),
    "graph: detached edges count as a path": ("domains/algorithm/check.py", 'any(t.name == "Detach" for t in edge.transforms)', "False", GRAPH),
    "graph: names are part of the hash": ("domains/algorithm/graph.py", "content_hash([node.primitive, self.primitive(id).check(node.params), inputs])", "content_hash([id, node.primitive, self.primitive(id).check(node.params), inputs])", GRAPH),
    "rl: unfinished candidates count": ("domains/rl/environments.py", 'return self._phase == "done"', "return True", "tests/domains/test_rl_benchmark.py"),
    "rl: time limits end the value": ("domains/rl/learner.py", "rewards[t, n] += self.gamma * value", "pass", "tests/domains/test_rl_learner.py"),
    "rl: questions pile up": ("execution/supervise.py", "if self.pending:  # whoever", "if False:  # whoever", "tests/execution/test_exchange.py"),
}  # fmt: skip


def plant(path, old, new):
    text = path.read_text()
    assert text.count(old) >= 1, f"{path.name} has no {old!r} any more: the mutant needs an update"
    path.write_text(text.replace(old, new, 1))


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
@pytest.mark.parametrize("name", [None, *PARETO])
def test_pareto(name, tmp_path):
    shutil.copytree(ROOT / "csrc" / "pareto", tmp_path / "pareto")
    if name:
        file, old, new = PARETO[name]
        plant(tmp_path / "pareto" / file, old, new)
    sources = [*map(str, (tmp_path / "pareto").glob("*.cpp")), str(ROOT / "tests" / "cpp" / "test_pareto.cpp")]
    command = [COMPILER, "-std=c++20", "-O1", f"-I{tmp_path}", *sources, "-o", str(tmp_path / "test")]
    subprocess.run(command, check=True, capture_output=True)
    try:
        passed = subprocess.run([tmp_path / "test"], capture_output=True, timeout=30, check=False).returncode == 0
    except subprocess.TimeoutExpired:  # a bug that never ends is found, too
        passed = False
    assert passed == (name is None)


@pytest.fixture(scope="module")
def other_kernels(tmp_path_factory):
    """Objects of all but the kernel with the bugs, and of the tests."""
    if COMPILER is None:
        pytest.skip("no C++ compiler")
    if _native.isa() != "avx512_bf16":
        pytest.skip("this CPU has no avx512_bf16, or it is not in use")
    folder = tmp_path_factory.mktemp("objects")
    csrc = ROOT / "csrc" / "linear_attention"
    flags = {"dispatch": [], "scalar": [], "avx2": ["-mavx2", "-mfma"], "avx512": AVX512}
    sources = {csrc / f"{name}.cpp": extra for name, extra in flags.items()}
    sources[ROOT / "tests" / "cpp" / "test_linear_attention.cpp"] = []
    return [compiled(source, folder, extra) for source, extra in sources.items()]


def compiled(source, folder, flags):
    target = folder / f"{source.stem}.o"
    command = [COMPILER, "-std=c++20", "-O1", "-DASI_EVOLVE_X86=1", f"-I{ROOT / 'csrc'}", *flags]
    subprocess.run([*command, "-c", str(source), "-o", str(target)], check=True, capture_output=True)
    return target


@pytest.mark.parametrize("name", [None, *BFLOAT16])
def test_bfloat16(name, tmp_path, other_kernels):
    source = tmp_path / "avx512_bf16.cpp"
    shutil.copy(ROOT / "csrc" / "linear_attention" / source.name, source)
    if name:
        plant(source, *BFLOAT16[name])
    mine = compiled(source, tmp_path, [*AVX512, "-mavx512bf16"])
    subprocess.run([COMPILER, *other_kernels, mine, "-pthread", "-o", str(tmp_path / "test")], check=True)
    command = [tmp_path / "test", "bfloat16"]
    passed = subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == 0
    assert passed == (name is None)


@pytest.mark.parametrize("name", list(PYTHON))
def test_engine(name, tmp_path):
    file, old, new, tests = PYTHON[name]
    package = tmp_path / "asi_evolve"
    shutil.copytree(Path(asi_evolve.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    plant(package / file, old, new)
    # Not on the path of the tests themselves: the copy must be the one that is imported, in every process.
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not slow",
        str(ROOT / tests),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False, cwd=ROOT)
    assert done.returncode == 1, done.stdout[-3000:]
    assert re.search(r"\d+ failed", done.stdout), done.stdout[-3000:]
