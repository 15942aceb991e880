import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asi_evolve.candidate import Candidate
from asi_evolve.domain import Stage
from asi_evolve.domains.synthetic import SyntheticBenchmark
from asi_evolve.errors import ConfigError
from asi_evolve.execution import levels, procfs
from asi_evolve.execution.pool import LocalPool, benchmark_spec

sys.path.insert(0, str(Path(__file__).parent))
from benchmarks_for_tests import Moody, component

STAGE = Stage("full", 0.5, 20.0)


def candidate(mode):
    return Candidate([component(mode)])


def below_me():
    return [p for p in procfs.descendants(os.getpid()) if procfs.start_time(p) is not None]


@pytest.fixture(scope="module", params=["sandbox", "judge"])
def pool(request):
    benchmark = Moody(request.param)
    with LocalPool(benchmark_spec(benchmark), benchmark.options, request.param, workers=2, memory_mb=1024) as made:
        made.isolation = request.param
        yield made


def test_good(pool):
    outcomes = [pool.submit(candidate("good"), STAGE, seed) for seed in range(4)]
    for seed, future in enumerate(outcomes):
        outcome = future.result()
        assert outcome.status == "ok", outcome
        assert outcome.metrics == {"loss": 1.0 + seed, "seconds": 0.5}
        assert outcome.usage["cpu_seconds"] > 0
        assert outcome.usage["max_rss_bytes"] > 1 << 20


@pytest.mark.parametrize(
    ("mode", "kind", "words"),
    [
        ("nan", "non-finite", "loss"),
        ("missing", "protocol", "seconds"),
        ("text", "protocol", "not a number"),
        ("number", "protocol", "not a mapping"),
        ("failure", "acausal", "looked ahead"),
        ("raise", "crash", "my own mistake"),
    ],
)
def test_failures(pool, mode, kind, words):
    outcome = pool.submit(candidate(mode), STAGE, 0).result()
    assert (outcome.status, outcome.failure_kind, dict(outcome.metrics)) == ("failed", kind, {})
    assert words in outcome.message


def test_silent_exit(pool):
    outcome = pool.submit(candidate("exit"), STAGE, 0).result()
    assert outcome.failure_kind == ("protocol" if pool.isolation == "sandbox" else "internal")


def test_timeout_kills_the_whole_tree(pool):
    for mode in ("sleep", "daemon", "sandbox" if pool.isolation == "judge" else "sleep"):
        outcome = pool.submit(candidate(mode), Stage("full", 0.5, 1.5), 0).result()
        assert outcome.failure_kind == "timeout" or mode == "daemon", outcome
        assert outcome.wall_seconds < 5
        assert below_me() == []


def test_progress(pool):
    seen = []
    pool.submit(candidate("progress"), STAGE, 0, on_progress=lambda *message: seen.append(message)).result()
    assert seen == [(0.0, "step 0"), (0.5, "step 1"), (1.0, "step 2")]


def test_the_users_own_code_is_contained(monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_TEST", "1")
    benchmark = Moody()
    with LocalPool(benchmark_spec(benchmark), benchmark.options, "sandbox", memory_mb=512) as pool:
        assert pool.submit(candidate("read"), STAGE, 0).result().status == "ok"
        assert pool.submit(candidate("environment"), STAGE, 0).result().status == "ok"
        assert pool.submit(candidate("write"), STAGE, 0).result().failure_kind == "crash"
        assert pool.submit(candidate("memory"), STAGE, 0).result().failure_kind == "memory"
    assert not Path(__file__).with_name("intruder.txt").exists()


def test_shutdown_kills(pool):
    benchmark = Moody("judge")
    other = LocalPool(benchmark_spec(benchmark), benchmark.options, "judge", workers=1)
    running, queued = (other.submit(candidate("sandbox"), Stage("full", 1.0, 100), s) for s in range(2))
    time.sleep(1.0)
    began = time.monotonic()
    other.shutdown(kill=True)
    assert time.monotonic() - began < 5
    assert running.result().failure_kind == "internal"
    assert queued.cancelled()
    assert below_me() == []


def test_inline_is_fast_and_faults_are_real():
    benchmark = SyntheticBenchmark(failure_rate=0.2)
    triple = Candidate([d.baseline() for d in benchmark.domains()])
    began = time.monotonic()
    with LocalPool(benchmark_spec(benchmark), benchmark.options, "judge") as pool:
        outcomes = [f.result() for f in [pool.submit(triple, STAGE, s) for s in range(300)]]
    assert time.monotonic() - began < 5
    assert 30 < sum(o.failure_kind == "invalid" for o in outcomes) < 90
    faulty = SyntheticBenchmark(crash_rate=0.5, hang_rate=0.3)
    with LocalPool(benchmark_spec(faulty), faulty.options, "judge") as pool:
        kinds = [f.result().failure_kind for f in [pool.submit(triple, Stage("full", 1.0, 1.0), s) for s in range(8)]]
    assert set(kinds) <= {None, "internal", "timeout"}
    assert len(set(kinds)) >= 2


def test_bad_pools():
    with pytest.raises(ConfigError, match="isolation"):
        LocalPool("asi_evolve.domains.synthetic:SyntheticBenchmark", {}, "chroot")
    with pytest.raises(ConfigError, match=r"sandbox\.level"):
        LocalPool(benchmark_spec(Moody()), {}, "sandbox", sandbox_level="vm")

    class Local(Moody):
        pass

    with pytest.raises(ConfigError, match="inside a function"):
        benchmark_spec(Local())


SCRIPT = """
import os, sys, time
sys.path.insert(0, {here!r})
from benchmarks_for_tests import Moody, component
from asi_evolve.candidate import Candidate
from asi_evolve.domain import Stage
from asi_evolve.execution.pool import LocalPool, benchmark_spec

class Mine(Moody):
    pass

if __name__ == "__main__":
    mine = Mine({isolation!r})
    pool = LocalPool(benchmark_spec(mine), mine.options, {isolation!r}, workers=2)
    good = pool.submit(Candidate([component("good")]), Stage("full", 1.0, 30.0), 0).result()
    print(benchmark_spec(mine), good.status, good.message, flush=True)
    for mode in ("sleep", {last!r}):
        pool.submit(Candidate([component(mode)]), Stage("full", 1.0, 100.0), 0)
    time.sleep(2)
    print("up", flush=True)
    time.sleep(100)
"""


@pytest.mark.parametrize(("isolation", "last"), [("judge", "sandbox"), ("sandbox", "sleep")])
def test_a_benchmark_in_the_running_script_and_a_killed_engine(tmp_path, isolation, last):
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT.format(here=str(Path(__file__).parent), isolation=isolation, last=last))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(levels.import_paths())}
    engine = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=environment, text=True)
    assert engine.stdout.readline().split() == [f"{script}:Mine", "ok"]
    assert engine.stdout.readline() == "up\n"
    tree = {p: procfs.start_time(p) for p in procfs.descendants(engine.pid)}
    assert len(tree) >= 2
    engine.send_signal(signal.SIGKILL)
    engine.wait()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and any(procfs.start_time(p) == t for p, t in tree.items()):
        time.sleep(0.05)
    assert [p for p, t in tree.items() if procfs.start_time(p) == t] == []
