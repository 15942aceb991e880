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

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
COMPILER = shutil.which("g++") or shutil.which("c++")

PARETO = {
    "m = 2: equal second objectives do not dominate": ("sort.cpp", "return least_ <= p[1];", "return least_ < p[1];"),
    "m = 3: equal third objectives do not dominate": ("sort.cpp", "std::prev(it)->z <= p[2]", "std::prev(it)->z < p[2]"),
    "the search for the front is off by one": ("sort.cpp", "low = middle + 1;", "low = middle + 2;"),
    "equal points get ranks of their own": ("sort.cpp", "if (position != 0 && equal(", "if (false && equal("),
    "the largest rank is forgotten": ("sort.cpp", "static_cast<std::int32_t>(low + 1)", "static_cast<std::int32_t>(low)"),
    "m = 1: equal values get ranks of their own": ("sort.cpp", "[0] != points[order[position - 1]][0])", "[0] >= 0.0)"),
    "dominance without a strict inequality": ("dominance.h", "better |= a[j] < b[j];", "better = true;"),
    "the front pushes nobody down": ("front.cpp", "return dominated_by(moving, row); });", "return row == nullptr; });"),
    "the front forgets to renumber": ("front.cpp", "renumber(at + 1);", ""),
    "the front lifts nobody up": ("front.cpp", "dominated_by(gone, row) && !", "false && !"),
    "the front lifts what is still held down": ("front.cpp", "dominated_by(gone, row) && !dominated_by(levels_[at], row)", "dominated_by(gone, row)"),
    "the front forgets to renumber what moves up": ("front.cpp", "            renumber(at);", ""),
    "crowding over a constant objective": ("crowding.cpp", "if (low == high) continue;", ""),
    "crowding without the range": ("crowding.cpp", ") / range;", ");"),
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
