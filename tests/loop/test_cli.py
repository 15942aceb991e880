"""The command line with real processes: exit codes, one-line errors, and nothing lost."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from fake_server import FakeServer

from asi_evolve.knowledge.store import Store

SYNTHETIC = ["--set", "benchmark.name=synthetic", "--llm", "none"]


def command(*arguments):
    return [sys.executable, "-m", "asi_evolve.cli", *map(str, arguments)]


def asi(*arguments, timeout=120, **options):
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=timeout, check=False, **options)


def evaluations(directory):
    """Stored evaluations by key."""
    store = Store(directory / "run.db", read_only=True)
    found = {(e.candidate, e.stage, e.seed): e.metrics for e in store.evaluations()}
    store.close()
    return found


def one_line_error(done, code, *parts):
    assert done.returncode == code, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("asi-evolve: ")
    for part in parts:
        assert part in lines[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run") / "r"
    done = asi("run", "--out", directory, "--cycles", "3", *SYNTHETIC, "--set", "benchmark.options.failure_rate=0.02")
    assert done.returncode == 0, done.stderr
    return directory, done.stdout


def test_a_run_says_what_it_does_and_what_it_found(run):
    directory, output = run
    for part in (
        "cycle 0 learn",
        "cycle 0 design",
        "cycle 0 experiment",
        "cycle 0 analyze",
        "admitted",
        "cross",
        "full",
    ):
        assert part in output
    last = output.strip().splitlines()[-1]
    assert "baseline" in last
    assert "95 % interval" in last or "Nothing beat" in last
    assert (directory / "report.html").is_file()


def test_status_hypotheses_agenda_watch(run):
    directory, _ = run
    status = json.loads(asi("status", directory, "--json").stdout)
    assert status["state"] == "finished"
    assert status["cycles"] == {"done": 3, "of": 3}
    store = Store(directory / "run.db", read_only=True)
    assert sum(status["evaluations"].values()) == len(store.evaluations())
    assert sum(status["hypotheses"].values()) == len(store.hypotheses())
    store.close()
    assert "finished, cycle 3 of 3 done" in asi("status", directory).stdout
    hypotheses = json.loads(asi("hypotheses", directory, "--json").stdout)
    assert {"supported", "refuted"} & {h["status"] for h in hypotheses}
    assert any(h["evidence"] for h in hypotheses)
    assert "architecture" in asi("agenda", directory).stdout
    assert "experiment done" in asi("watch", directory).stdout


def test_doctor_says_what_is_active():
    facts = json.loads(asi("doctor", "--json").stdout)
    assert facts["native"]["isa"] in ("scalar", "avx2", "avx512", "avx512_bf16")
    assert facts["sandbox"]["level"] in ("bubblewrap", "landlock", "none")
    assert "cuda" in facts["native"]
    assert "gpus" in facts["faiss"]
    assert "sandbox" in asi("doctor").stdout


# -- bad input --------------------------------------------------------------------------------------------------------


def test_unknown_config_key(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("cycels: 3\n")
    one_line_error(asi("run", config, "--out", tmp_path / "r"), 2, "unknown key 'cycels'", "allowed here")
    one_line_error(asi("run", "--set", "llm.modle=x", "--out", tmp_path / "r"), 2, "unknown key 'llm.modle'")
    one_line_error(asi("run", tmp_path / "none.yaml"), 2, "none.yaml", "No such file")
    one_line_error(asi("run", "--set", "benchmark.name=lmm", "--out", tmp_path / "r"), 2, "'lmm' is not one of lm")
    one_line_error(
        asi("run", "--set", "benchmark.options.full_stepz=1", "--out", tmp_path / "r"),
        2,
        "benchmark.options",
        "full_stepz",
    )
    assert not (tmp_path / "r").exists()


def test_missing_corpus(tmp_path):
    done = asi("run", "--corpus", tmp_path / "none.jsonl", "--llm", "none", "--out", tmp_path / "r")
    one_line_error(done, 4, "none.jsonl")


def test_unwritable_or_foreign_run_directory(tmp_path):
    (tmp_path / "file").write_text("x")
    one_line_error(asi("run", *SYNTHETIC, "--out", tmp_path / "file" / "r"), 3, "cannot be written")
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "cat.jpg").write_text("x")
    one_line_error(asi("run", *SYNTHETIC, "--out", foreign), 3, "not empty and not a run directory", "cat.jpg")
    assert [p.name for p in foreign.iterdir()] == ["cat.jpg"]
    one_line_error(asi("run", *SYNTHETIC, "--out", "/proc/nowhere"), 3, "/proc/nowhere")
    for command in ("status", "resume", "report", "hypotheses", "agenda", "watch", "export"):
        one_line_error(asi(command, tmp_path / "missing"), 3, "holds no run")


def test_a_run_is_not_overwritten_and_not_shared(run, tmp_path):
    directory, _ = run
    one_line_error(asi("run", *SYNTHETIC, "--out", directory), 3, "already holds a run")
    slow = tmp_path / "slow"
    first = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "asi_evolve.cli",
            "run",
            *SYNTHETIC,
            "--out",
            str(slow),
            "--set",
            "benchmark.options.sleep=2",
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for((slow / "run.db").exists)
        one_line_error(asi("resume", slow), 3, "another engine is working")
    finally:
        first.kill()
        first.wait()


def read_until(process, word):
    assert any(word in line for line in process.stdout)


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_unreachable_llm_is_resumable(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    arguments = ["--set", "benchmark.name=synthetic", "--cycles", "2", "--set", "llm.retries=1"]
    done = asi("run", *arguments, "--llm", url, "--model", "m", "--out", tmp_path / "r")
    one_line_error(done, 5, url, "no LLM answers after 2 tries", "resume")
    with FakeServer() as fake:
        done = asi("resume", tmp_path / "r", "--llm", fake.url, "--model", "fake")
    assert done.returncode == 0, done.stderr
    assert "baseline" in done.stdout


def test_an_llm_that_dies_half_way_loses_nothing(tmp_path):
    directory = tmp_path / "r"
    arguments = ["--set", "benchmark.name=synthetic", "--cycles", "3", "--set", "llm.retries=0"]
    arguments += ["--set", "benchmark.options.sleep=0.3"]
    with FakeServer() as fake:
        fake.fail_first = 0
        process = subprocess.Popen(
            command("run", *arguments, "--llm", fake.url, "--model", "fake", "--out", directory),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        read_until(process, "isolated")
        fake.fail_first = 10**6  # from now on: 503
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 5, stderr
    assert len(stderr.strip().splitlines()) == 1
    assert "503" in stderr
    before = evaluations(directory)
    assert before
    with FakeServer() as fake:
        done = asi("resume", directory, "--llm", fake.url, "--model", "fake")
    assert done.returncode == 0, done.stderr
    assert before.items() <= evaluations(directory).items()
    store = Store(directory / "run.db", read_only=True)
    assert [r["event"] for r in store.runs()] == ["run", "resume"]
    store.close()


def test_an_llm_that_returns_garbage_for_every_proposal(tmp_path):
    arguments = ["--set", "benchmark.name=synthetic", "--cycles", "2"]
    with FakeServer("garbage") as fake:
        done = asi("run", *arguments, "--llm", fake.url, "--model", "fake", "--out", tmp_path / "r")
    one_line_error(done, 5, "none of 12 answers in cycle 0 could be used", "not JSON")
    store = Store(tmp_path / "r" / "run.db", read_only=True)
    assert len(store.llm_calls()) == 12
    assert {p["status"] for p in store.proposals()} == {"unusable"}
    store.close()
    with FakeServer() as fake:
        done = asi("resume", tmp_path / "r", "--llm", fake.url, "--model", "fake")
    assert done.returncode == 0, done.stderr


def test_interrupted_by_the_user(tmp_path):
    directory = tmp_path / "r"
    process = subprocess.Popen(
        command("run", *SYNTHETIC, "--out", directory, "--set", "benchmark.options.sleep=1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A job in the background of a shell ignores the signal, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    read_until(process, "isolated")
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "nothing is lost" in stderr
    assert f"asi-evolve resume {directory}" in stderr
    assert "Traceback" not in stderr
    done = asi("resume", directory)
    assert done.returncode == 0, done.stderr


def test_nothing_beats_a_baseline_that_is_the_optimum(tmp_path):
    """Every candidate fails: the run says so instead of making something up."""
    from engine_process import CONFIG, OnlyBaseline

    from asi_evolve import Engine

    result = Engine({**CONFIG, "llm": {"provider": "none"}}, tmp_path / "r", benchmark=OnlyBaseline()).run()
    assert result.best == result.baseline
    assert not result.beats_baseline
    assert "Nothing beat the baseline" in asi("status", tmp_path / "r", env={**os.environ, "PYTHONPATH": path()}).stdout


def path():
    return os.pathsep.join(p for p in sys.path if p)
