"""The facts of a run, read from its directory."""

import pytest

from asi_evolve.errors import RunDirectoryError
from asi_evolve.report.lineage import contender, steps
from asi_evolve.report.summary import best_so_far, summarize


def test_a_finished_run(finished):
    s = summarize(finished)
    assert s.state == "finished"
    assert s.cycles_done == 3
    text = s.text()
    assert "Pareto front at the full stage: " in text
    assert f"cascade: {s.cascade.measured:.0f} s measured" in text
    points = best_so_far(s)
    assert len(points) == len(s.evaluations) + 1
    assert points[-1][2] == max(p[2] for p in points)


def test_no_run(tmp_path):
    with pytest.raises(RunDirectoryError, match="holds no run"):
        summarize(tmp_path)


def test_the_full_stage_has_a_front_of_its_own(written):
    """A cheap isolated promise must neither stand in the full-stage front nor push anything out of it."""
    good = written.edited("architecture", depth=4)
    dear = written.edited("architecture", depth=8)
    promise = written.edited("algorithm", learning_rate=0.01)
    for candidate, loss, cost in ((written.start, 2.0, 1.0), (good, 1.5, 2.0), (dear, 1.8, 4.0)):
        written.measured(candidate, "full", [loss, loss + 0.01, loss - 0.01], cost)
    written.measured(written.start, "isolated", [2.5])
    written.measured(promise, "isolated", [0.5], 0.1)
    s = summarize(written.path)
    assert {v.label for v in s.at_full_stage()} == {"C1", "C2", "C3"}
    assert s.at_full_stage()[0].label == "C2"
    front = s.text().splitlines()[-1]
    assert front.startswith("Pareto front at the full stage: C2 (+0.5000, cost 2.00x)")
    assert "C4" not in front
    assert any(v.label == "C4" and v.rank == 1 for v in s.valued)  # parents are selected from the mixed front


def test_nothing_measured(written):
    s = summarize(written.path)
    assert s.state == "interrupted"
    assert s.text().endswith("nothing measured there yet")
    assert contender(s) is None
    assert s.at_full_stage() == []


def test_failures_and_llm_usage(written):
    for seed, message in enumerate(["old", "same", "same", "new"]):
        written.failed(written.start, "isolated", "crash", message, seed)
    written.failed(written.start, "full", "timeout", "slow")
    for key, reason, tokens in (("a", "stop", 10), ("b", "length", 20)):
        written.store.add_llm_call(
            key,
            phase="design",
            cycle=0,
            model="m",
            request={},
            response="",
            finish_reason=reason,
            prompt_tokens=tokens,
            completion_tokens=1,
            seconds=0.5,
        )
    s = summarize(written.path)
    assert list(s.failures().most_common(1)) == [("crash", 4)]
    examples = s.failure_examples(limit=2)
    assert list(examples) == ["crash", "timeout"]
    assert [e["message"] for e in examples["crash"]] == ["new", "same"]
    usage = s.llm_usage()["design"]
    assert (usage.calls, usage.prompt_tokens, usage.completion_tokens, usage.cut_off) == (2, 30, 2, 1)
    assert usage.seconds == pytest.approx(1.0)


def test_lineage_of_a_cross(written):
    """A cross has several sources; each domain's change says where it came from."""
    hypothesis = written.store.add_hypothesis(
        "h",
        cycle=0,
        domain="architecture",
        statement="deeper",
        mechanism="depth",
        prediction={"metric": "loss", "direction": "decrease", "minimum_effect": 0.01},
        provenance="llm",
    )
    deep = written.edited("architecture", hypothesis, depth=4)
    clean = written.edited("data", filter=0.5)
    crossed = written.start.replace(deep["architecture"], clean["data"])
    written.store.add_candidate(
        crossed, 0, "cross", None, [written.start.hash, deep.hash, clean.hash], {"predicted_gain": 0.3}
    )
    for candidate, loss in ((written.start, 2.0), (deep, 1.8), (clean, 1.9)):
        written.measured(candidate, "isolated", [loss])
    for candidate, loss in ((written.start, 2.0), (crossed, 1.0)):
        written.measured(candidate, "full", [loss, loss + 0.01, loss - 0.02])
    s = summarize(written.path)
    assert s.labels[contender(s)] == "C4"
    (step,) = steps(s, crossed.hash)
    assert (step.label, step.against, step.origin) == ("C4", "C1", "cross")
    assert [(x.label, x.domain, x.statement) for x in step.sources] == [
        ("C2", "architecture", "deeper"),
        ("C3", "data", ""),
    ]
    assert step.sources[0].gain == pytest.approx(0.2)
    assert [(c.domain, c.source, c.params) for c in step.changes] == [
        ("architecture", "C2", (("depth", 2, 4),)),
        ("data", "C3", (("filter", 0.0, 0.5),)),
    ]
    assert [(m.stage, m.seeds) for m in step.measured] == [("full", 3)]
