"""Records the answers of examples/soak.yaml: what the scripted proposer of bench/oracle.py says in that campaign.

    python tests/loop/soak_answers.py

To be run again when prompts' keys or answer schemas change; a test fails then.
"""

import json
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "bench"))


def main():
    from asi_evolve import Engine
    from asi_evolve.knowledge.store import Store
    from oracle import Oracle

    config = yaml.safe_load((ROOT / "examples" / "soak.yaml").read_text())
    with Oracle() as oracle, tempfile.TemporaryDirectory() as folder:
        config["llm"] = {"provider": "openai", "base_url": oracle.url, "model": "oracle"}
        engine = Engine(config, Path(folder) / "run")
        result = engine.run()
        store = Store(engine.directory.database, read_only=True)
        lines = [json.dumps({"key": c["key"], "text": c["response"]}) for c in store.llm_calls()]
        store.close()
    (ROOT / "examples" / "soak.jsonl").write_text("\n".join(lines) + "\n")
    print(f"{len(lines)} answers, {result.evaluations} evaluations")


if __name__ == "__main__":
    main()
