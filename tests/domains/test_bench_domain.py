"""``asi-evolve bench-domain``: varied candidates, rank correlation, errors; the whole table in the slow tests."""

import json
import subprocess
import sys

import pytest

from asi_evolve.bench_domain import rank_correlation, varied
from asi_evolve.candidate import Candidate
from asi_evolve.domains.synthetic import SyntheticBenchmark


def command(*arguments, timeout=60):
    line = [sys.executable, "-m", "asi_evolve.cli", "bench-domain", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.mark.parametrize("names", [("data",), ("architecture", "algorithm", "data")])
def test_varied_candidates_are_valid_distinct_and_change_what_was_asked_for(names):
    benchmark = SyntheticBenchmark()
    domains = {d.name: d for d in benchmark.domains()}
    base = Candidate([d.baseline() for d in domains.values()])
    found = varied(benchmark, names, 14)
    assert len({c.hash for c in found}) == 14
    for c in found:
        assert set(c.changed(base)) <= set(names)
        assert c != base
        for name in names:
            domains[name].validate(c[name])
    assert found == varied(benchmark, names, 14)
    assert len({c.changed(base) for c in found}) == 1 or len(names) > 1


def test_rank_correlation_is_kendalls_with_an_interval_around_it():
    same = rank_correlation([(i, 2.0 * i) for i in range(12)])
    assert same == pytest.approx((1.0, 1.0, 1.0))
    tau, low, high = rank_correlation([(i, -float(i) + 8 * (i == 3)) for i in range(12)])
    assert low <= tau <= high < 0
    assert rank_correlation([(0, 0), (1, 1), (2, 2)]) is None
    assert rank_correlation([(1, i) for i in range(9)]) is None  # a stage that tells nothing apart


def test_bad_arguments_are_one_line():
    for arguments, part in (
        (("models",), "'models' is not one of architecture"),
        (("data", "--workers", 0), "--workers: 0"),
    ):
        done = command(*arguments)
        assert done.returncode == 2
        assert part in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["architecture", "algorithm", "data", "triple"])
def test_the_quick_table(name, tmp_path):
    done = command(name, "--quick", "--json", tmp_path / "t.json", timeout=900)
    assert done.returncode == 0, done.stderr
    assert "Kendall's tau" in done.stdout
    rows = json.loads((tmp_path / "t.json").read_text())["rows"]
    assert rows[0]["candidate"] == "baseline"
    assert rows[0]["failure"] is None
    assert len(rows) >= 3
