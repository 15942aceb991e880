"""The report as a browser sees it: what is in it, and that nothing an LLM wrote becomes markup."""

import os
import re
from html.parser import HTMLParser

import pytest

from asi_evolve.candidate import Component, Edit
from asi_evolve.cli import main
from asi_evolve.engine import Engine
from asi_evolve.errors import RunDirectoryError
from asi_evolve.report import write_report
from asi_evolve.report.html import count, duration, metric_value, number, percent, signed
from asi_evolve.report.lineage import change
from asi_evolve.report.summary import summarize

VOID = {"meta", "br", "link", "img", "hr", "input"}
HOSTILE = '<script>alert("x")</script><img src=http://evil/x.png onerror=alert(1)>'


class Page(HTMLParser):
    """Text, tags and attributes, with a check that tags nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.data, self.titles = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = " ".join("".join(self.data).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, k, v or "") for k, v in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th", "p", "pre", "h2", "h3"):
            self.data.append(" ")

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, k, v or "") for k, v in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.data.append(data)
        if self.open and self.open[-1] in ("h2", "h3"):
            self.titles.append(data)


def page(directory):
    text = write_report(directory).read_text(encoding="utf-8")
    parsed = Page(text)
    check_self_contained(text, parsed)
    return parsed


def check_self_contained(text, parsed):
    assert not {"script", "link", "iframe", "img", "object", "embed", "form", "base"} & set(parsed.tags)
    for _, name, value in parsed.attributes:
        assert not name.startswith("on"), name
        assert name not in ("src", "srcset", "action"), name
        if name in ("href", "xlink:href"):
            assert value.startswith(("#", "data:image/png;base64,")), value
        assert not re.search(r"https?:|javascript:", value), value
        assert not re.search(r"url\((?!#)", value), value
    ids = [value for _, name, value in parsed.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = {v[1:] for _, n, v in parsed.attributes if n in ("href", "xlink:href") and v.startswith("#")}
    assert targets <= set(ids)
    assert "@import" not in text


def test_finished_run(finished):
    seen = page(finished)
    for heading in (
        *("Progress", "Pareto front", "Lineage of C", "Cascade", "Hypotheses", "Agenda", "Proposals", "Failures"),
        *("Language model", "Seeds and versions", "All evaluations", "Candidates at the full stage"),
    ):
        assert any(h.startswith(heading) for h in seen.titles), heading
    for words in (
        "beats the baseline: loss better by +",
        "95 % interval [+",
        "Measured on fresh seeds",
        "A candidate is valued at the highest stage it reached",
        "n·Ciso + n·p·Ccross + n·p²·Cfull",
        "Kendall",
        "random operators",
        "root seed 0",
        "500, 501, 502",
        "provider: none",
        "sandbox ",
    ):
        assert words in seen.text, words
    for row in summarize(finished).agenda:
        assert " ".join(row["reason"].split()) in seen.text
    assert seen.tags.count("svg") == 5
    assert "C1 (baseline)" in seen.text


def test_figures_are_readable_on_any_page_and_deterministic(finished):
    first = write_report(finished).read_text()
    assert first.count("currentColor") > 50
    assert "#010203" not in first

    def plots(text):
        return re.findall(r"<svg.*?</svg>", text, re.DOTALL)

    assert plots(first) == plots(write_report(finished).read_text())


def test_hostile_text_stays_text(written):
    hypothesis = written.store.add_hypothesis(
        "h",
        cycle=0,
        domain="architecture",
        statement=HOSTILE,
        mechanism=HOSTILE,
        prediction={"metric": "loss", "direction": "decrease", "minimum_effect": 0.01},
        provenance="llm",
    )
    made = written.edited("architecture", hypothesis, depth=4)
    code = Component("architecture", made["architecture"].params, {"mixer.py": f"# {HOSTILE}\n"})
    coded = written.start.replace(code)
    written.store.add_candidate(coded, 0, "llm", "architecture", [written.start.hash], None, hypothesis)
    for candidate, loss in ((written.start, 2.0), (made, 1.8), (coded, 1.0)):
        written.measured(candidate, "isolated", [loss])
        written.measured(candidate, "full", [loss, loss + 0.01, loss + 0.02])
    written.failed(made, "cross", "crash", HOSTILE)
    written.store.set_hypothesis(hypothesis, 0, "retired", HOSTILE)
    written.store.add_agenda(1, {"architecture": 0.5, HOSTILE: 0.5}, HOSTILE, "llm")
    written.store.add_analysis(
        cycle=0,
        facts={"lines": [HOSTILE], "gains": {}},
        interpretation=HOSTILE,
        claims=[{"claim": "best", "said": HOSTILE + "\ud800\x00", "fact": "C2"}],
    )
    written.store.add_proposal(
        cycle=0,
        position=0,
        attempt=0,
        source="llm",
        kind="code",
        domain="architecture",
        parent=written.start.hash,
        status="invalid",
        cause=HOSTILE,
        candidate=None,
    )
    written.store.add_llm_call(
        "k",
        phase="design",
        cycle=0,
        model=HOSTILE,
        request={},
        response=HOSTILE,
        finish_reason="stop",
        prompt_tokens=1,
        completion_tokens=1,
        seconds=0.1,
    )
    seen = page(written.path)
    assert seen.text.count(HOSTILE) >= 9  # everywhere, and everywhere as text
    assert "claim" in seen.text


def test_run_in_the_middle(tmp_path, quiet):
    directory = tmp_path / "run"
    Engine({**quiet, "cycles": 3}, directory).step()
    seen = page(directory)
    assert "Cycle 1 of 3 done" in seen.text
    assert "The run is interrupted: what stands here is what is known so far." in seen.text


def test_run_without_any_success(written):
    failing = written.edited("architecture", depth=3)
    written.failed(written.start, "isolated", "memory", "no memory left")
    written.failed(failing, "isolated", "crash", "Traceback\nValueError: bad")
    seen = page(written.path)
    assert "Nothing beat the baseline" in seen.text
    assert "memory 1" in seen.text
    assert "ValueError: bad" in seen.text
    assert "No candidate but the baseline has a result yet." in seen.text
    assert "nothing beat the baseline so far" in seen.text


def test_run_that_has_only_begun(written):
    seen = page(written.path)
    assert "No evaluation has finished yet." in seen.text
    assert "No language model was used" in seen.text


def test_unconfirmed_and_single_seed_verdicts(written):
    made = written.edited("architecture", depth=4)
    for candidate, loss in ((written.start, 2.0), (made, 1.8)):
        written.measured(candidate, "full", [loss, loss + 0.01, loss - 0.005])
    assert "Not confirmed on fresh seeds" in page(written.path).text
    for candidate, loss in ((written.start, 2.0), (made, 1.8)):
        written.measured(candidate, "confirm", [loss])
    seen = page(written.path)
    assert "no interval from one seed" in seen.text
    assert "One seed gives no interval, and so no verdict." in seen.text


def test_diffs_are_marked():
    before = Component("a", {"x": 1}, {"m.py": "a = 1\nb = 2\n"})
    made = change(before, Edit(params={"x": 2, "y": "z"}, files={"m.py": "a = 1\nb = 3\n"}).apply(before), "C9")
    assert made.params == (("x", 1, 2), ("y", None, "z"))
    assert [kind for kind, _ in made.diff] == ["file", "file", "hunk", "same", "del", "add"]


def test_where_it_is_written(finished, tmp_path, capsys):
    target = tmp_path / "my report.html"
    assert main(["report", str(finished), "--out", str(target)]) == 0
    assert capsys.readouterr().out.strip() == str(target)
    assert [p.name for p in tmp_path.iterdir()] == [target.name]  # no half-written file beside it
    with pytest.raises(RunDirectoryError, match="cannot be written"):
        write_report(finished, tmp_path / "missing" / "report.html")
    assert main(["report", str(tmp_path)]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "holds no run" in error


def test_an_old_report_survives_a_failed_one(finished, tmp_path, monkeypatch):
    target = tmp_path / "report.html"
    target.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunDirectoryError, match="No space left"):
        write_report(finished, target)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert target.read_text() == "old"


def test_numbers():
    space = "\u202f"
    assert duration(0.0) == f"0{space}s"
    assert duration(0.25) == f"250{space}ms"
    assert duration(59.94) == f"59.9{space}s"
    assert duration(59.96) == f"1{space}min 00{space}s"
    assert duration(3599.7) == f"1{space}h 00{space}min"
    assert duration(None) == number(float("nan")) == signed(float("inf")) == percent(None) == "–"
    assert signed(-0.5) == "−0.5000"
    assert percent(0.123, 1) == f"12.3{space}%"
    assert count(1234567) == f"1{space}234{space}567"
    assert metric_value(2.5e6, "flops_per_token") == f"2.5{space}MFLOP"
    assert metric_value(511.6, "peak_memory_mb") == f"512{space}MiB"
    assert metric_value(3.14159, "bits_per_byte") == "3.1416"
    assert metric_value(1.5e7, "bits_per_byte") == "1.5e+07"
