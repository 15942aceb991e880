"""Everything real: the embedded llama.cpp server with SmolLM2, the language-model benchmark, sandbox and report."""

import json
import re
import subprocess
import sys

import pytest

from asi_evolve.knowledge.store import Store
from asi_evolve.llm.structured import _validate

pytestmark = pytest.mark.slow
pytest.importorskip("xllamacpp")

WORDS = [
    "the",
    "a",
    "model",
    "learns",
    "from",
    "text",
    "and",
    "bytes",
    "while",
    "we",
    "wait",
    "for",
    "results",
    "of",
    "small",
    "tests",
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "small.jsonl"
    rows = []
    for i in range(400):
        words = [WORDS[(i * 7 + j * j + j * i) % len(WORDS)] for j in range(120)]
        source = "prose" if i % 3 else "numbers"
        text = " ".join(words) + f" {i}." if i % 3 else " ".join(str((i * j) % 997) for j in range(200))
        rows.append(json.dumps({"text": text, "source": source}))
    path.write_text("\n".join(rows))
    return path


def test_a_whole_campaign_with_a_real_language_model(corpus, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(
        f"""
cycles: 2
benchmark: {{name: lm, options: {{corpus: {corpus}, cache: {tmp_path}, full_steps: 60, held_out_windows: 32}}}}
cascade: {{full: {{seeds: 2}}, cross: {{budget: 0.5}}, isolated: {{budget: 0.25}}, confirm_seeds: 2, promote: 0.4}}
design: {{proposals: 4, code_share: 0.25}}
llm: {{provider: embedded, max_tokens: 300, max_code_tokens: 400, max_context_tokens: 600}}
"""
    )
    run = tmp_path / "run"
    command = [sys.executable, "-m", "asi_evolve.cli", "run", str(config), "--out", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1].startswith(("Best C", "Nothing beat the baseline"))
    store = Store(run / "run.db", read_only=True)
    calls = store.llm_calls()
    proposals = store.proposals()
    stages = {e.stage for e in store.evaluations() if e.ok}
    store.close()
    assert {c["phase"] for c in calls} == {"design", "analyze"}
    assert all(c["completion_tokens"] > 0 for c in calls)
    # The server holds to the schema: what is not cut off at the token limit is valid.
    answers = [_validate(c["key"], c["response"], c["finish_reason"], c["request"]["schema"]) for c in calls]
    assert all(a.value is not None or "cut off" in a.problem for a in answers)
    assert any(p["source"] == "llm" and p["status"] == "admitted" for p in proposals)
    assert {"isolated", "cross"} <= stages
    html = (run / "report.html").read_text()
    assert "SmolLM2" in html or "smollm2" in html
    assert not re.search(r"""(?:src|href)=["']?https?:""", html)
    assert not [line for line in subprocess.getoutput("ps -eo args").splitlines() if "asi_evolve.llm.embedded" in line]
