"""What people decide while a campaign runs: hypotheses, pins, retirements, agendas, notes.

The engine is the only writer of its knowledge base. Decisions are lines of ``steering.jsonl`` in the run directory,
which it takes in, as rows with human provenance, when it next starts a Learn phase.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asi_evolve.campaign import Campaign
from asi_evolve.errors import ConfigError, RunDirectoryError
from asi_evolve.knowledge.store import Store
from asi_evolve.rundir import RunDirectory

FILE = "steering.jsonl"
ACTIONS = ("hypothesis", "pin", "unpin", "retire", "agenda", "release", "note")


def decide(directory: str | Path, action: str, payload: Mapping[str, Any]) -> str:
    """Checks a decision against the run and writes it down durably; returns its key.

    Args:
        directory: the run directory. action: one of :data:`ACTIONS`.
        payload: ``hypothesis``: domain, statement, prediction; ``pin`` / ``unpin`` / ``retire``: id (and reason);
            ``agenda``: shares by domain; ``note``: title, text.

    Raises:
        RunDirectoryError: no run there, or not writable. ConfigError: an unknown action, hypothesis or domain.
    """
    run = RunDirectory(directory)
    _check(run, action, payload)
    try:
        with open(run.path / FILE, "a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            text = file.read()
            if text and not text.endswith("\n"):
                file.write("\n")  # a line that was cut off ends here, and is passed over
            key = f"steering/{text.count(chr(10)) + (not text.endswith(chr(10)) if text else 0)}"
            file.write(json.dumps({"action": action, "payload": dict(payload)}) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RunDirectoryError(f"{run.path / FILE}: cannot be written: {error.strerror}") from None
    return key


def _check(run: RunDirectory, action: str, payload: Mapping[str, Any]) -> None:
    from asi_evolve.benchmarks import load_benchmark
    from asi_evolve.config import load_config

    if action not in ACTIONS:
        raise ConfigError(f"steering: {action!r} is not one of {', '.join(ACTIONS)}")
    config = load_config(run.config_path)
    benchmark = load_benchmark(config.benchmark.name, config.benchmark.options)
    domains = config.domains or [d.name for d in benchmark.domains()]
    if action == "hypothesis":
        if payload["domain"] not in domains:
            raise ConfigError(f"domain: {payload['domain']!r} is not one of {', '.join(domains)}")
        if not str(payload["statement"]).strip():
            raise ConfigError("statement: empty")
        metrics = (benchmark.metric, *benchmark.costs)
        if payload["prediction"]["metric"] not in metrics:
            raise ConfigError(f"metric: {payload['prediction']['metric']!r} is not one of {', '.join(metrics)}")
        if not payload["prediction"]["minimum_effect"] >= 0:
            raise ConfigError(f"minimum-effect: {payload['prediction']['minimum_effect']!r} is negative")
    elif action == "agenda":
        shares = payload["shares"]
        for name, share in shares.items():
            if name not in domains:
                raise ConfigError(f"agenda: {name!r} is not one of {', '.join(domains)}")
            if not 0 <= share < float("inf"):
                raise ConfigError(f"agenda: {name}={share!r}: a share is at least 0")
        if not sum(shares.values()) > 0:
            raise ConfigError("agenda: at least one share must be above 0")
    elif action in ("pin", "unpin", "retire"):
        store = Store(run.database, read_only=True)
        try:
            known = [h["id"] for h in store.hypotheses()]
        finally:
            store.close()
        if payload["id"] not in known:
            shown = f"H1 to H{max(known)}" if known else "none yet"
            raise ConfigError(f"hypothesis: H{payload['id']} is not there; there are {shown}")


def take_in(campaign: Campaign, cycle: int, directory: Path) -> int:
    """Takes new decisions into the knowledge base; how many. Lines that cannot be read are warned about."""
    try:
        lines = (directory / FILE).read_text(encoding="utf-8").split("\n")[:-1]  # what follows is being written
    except FileNotFoundError:
        return 0
    store, taken = campaign.store, 0
    for number, line in enumerate(lines):
        key = f"steering/{number}"
        try:
            decision = json.loads(line)
            action, payload = decision["action"], decision["payload"]
            with store.transaction():
                if store.add_steering(key, cycle, action, payload):
                    _apply(campaign, cycle, key, action, payload)
                    taken += 1
        except (ValueError, KeyError, TypeError) as error:
            campaign.emit("warning", cycle, f"{FILE}: line {number + 1}: passed over: {error!r}")
    return taken


def _apply(campaign: Campaign, cycle: int, key: str, action: str, payload: Mapping[str, Any]) -> None:
    store = campaign.store
    if action == "hypothesis":
        new = store.add_hypothesis(
            key,
            cycle=cycle,
            domain=payload["domain"],
            statement=payload["statement"],
            mechanism=payload.get("mechanism", ""),
            prediction=payload["prediction"],
            provenance="human",
        )
        store.add_steering(f"{key}/pin", cycle, "pin", {"id": new})
    elif action == "retire":
        store.set_hypothesis(payload["id"], cycle, "retired", payload.get("reason") or "retired by hand")
    elif action == "agenda":
        store.add_agenda(cycle, payload["shares"], "set by hand", "human")
    elif action == "note":
        store.add_note(cycle, payload["title"], payload["text"], "human")
