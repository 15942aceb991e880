"""The commands ``hypotheses``, ``agenda`` and ``note``: to look, and to take part while a campaign runs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from asi_evolve.errors import ConfigError

if TYPE_CHECKING:
    from asi_evolve.knowledge.store import Store

_TAKEN = "the engine takes it in when its next cycle starts"


def steering_arguments(commands: Any, command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the commands to a parser."""
    hypotheses = command(commands, "hypotheses", _hypotheses, "the hypotheses with their evidence; add, pin, retire")
    hypotheses.add_argument(
        "words", nargs="+", metavar="WORD", help="DIR | add DIR --domain D --statement S | pin|unpin|retire DIR H3"
    )
    hypotheses.add_argument("--json", action="store_true", help="as JSON")
    hypotheses.add_argument("--domain", help="add: the domain it is about")
    hypotheses.add_argument("--statement", help="add: one sentence")
    hypotheses.add_argument("--metric", help="add: what will change (default: the benchmark's metric)")
    hypotheses.add_argument("--direction", choices=("increase", "decrease"), help="add: default is to the better")
    hypotheses.add_argument("--minimum-effect", type=float, default=0.005, help="add: relative; default 0.005")
    hypotheses.add_argument("--reason", default="", help="retire: why")
    agenda = command(commands, "agenda", _agenda, "the agenda's history with its reasons; set, release")
    agenda.add_argument("words", nargs="+", metavar="WORD", help="DIR | set DIR domain=share ... | release DIR")
    agenda.add_argument("--json", action="store_true", help="as JSON")
    note = command(commands, "note", _note, "a note of yours for the prompts of a running campaign")
    note.add_argument("directory", metavar="DIR", help="run directory")
    note.add_argument("text")
    note.add_argument("--title", default="Note")


def open_knowledge(directory: str) -> Store:
    """A run's knowledge base, to look at. Raises RunDirectoryError: no run there."""
    from asi_evolve.knowledge.store import Store
    from asi_evolve.rundir import RunDirectory

    run = RunDirectory(directory)
    _ = run.config_path  # says when there is no run
    return Store(run.database, read_only=True)


def _decide(directory: str, action: str, payload: dict[str, Any]) -> int:
    from asi_evolve.steering import decide

    decide(directory, action, payload)
    print(f"{action}: written down; {_TAKEN}")
    return 0


def _id(word: str) -> int:
    if not word.removeprefix("H").isdigit():
        raise ConfigError(f"hypothesis: {word!r} is not a hypothesis, such as H3")
    return int(word.removeprefix("H"))


def _count(words: list[str], least: int, most: int, usage: str) -> None:
    if not least <= len(words) <= most:
        raise ConfigError(f"usage: asi-evolve {usage}")


def _hypotheses(arguments: argparse.Namespace) -> int:
    action, *rest = arguments.words
    if action == "add":
        _count(rest, 1, 1, "hypotheses add DIR --domain D --statement S")
        return _add(rest[0], arguments)
    if action in ("pin", "unpin", "retire"):
        _count(rest, 2, 2, f"hypotheses {action} DIR H3")
        return _decide(rest[0], action, {"id": _id(rest[1]), "reason": arguments.reason})
    _count(arguments.words, 1, 1, "hypotheses [add|pin|unpin|retire] DIR ...")
    store = open_knowledge(action)
    rows = store.hypotheses()
    evidence, pinned = store.evidence(), store.pinned()
    if arguments.json:
        for row in rows:
            row["evidence"] = [e for e in evidence if e["hypothesis"] == row["id"]]
            row["pinned"] = row["id"] in pinned
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        origin = f"cycle {row['cycle']}, {row['domain']}, by {row['provenance']}"
        mark = ", pinned" if row["id"] in pinned else ""
        print(f"H{row['id']} [{row['status']}{mark}] {origin}: {row['statement']}")
        print(f"    {row['reason']}")
    return 0


def _add(directory: str, arguments: argparse.Namespace) -> int:
    from asi_evolve.benchmarks import load_benchmark
    from asi_evolve.config import load_config
    from asi_evolve.rundir import RunDirectory

    for name in ("domain", "statement"):
        if not getattr(arguments, name):
            raise ConfigError(f"--{name}: is needed to add a hypothesis")
    config = load_config(RunDirectory(directory).config_path)
    benchmark = load_benchmark(config.benchmark.name, config.benchmark.options)
    metric = arguments.metric or benchmark.metric
    better = "increase" if metric == benchmark.metric and benchmark.maximize else "decrease"
    prediction = {
        "metric": metric,
        "direction": arguments.direction or better,
        "minimum_effect": arguments.minimum_effect,
    }
    payload = {"domain": arguments.domain, "statement": arguments.statement, "prediction": prediction}
    return _decide(directory, "hypothesis", payload)


def _agenda(arguments: argparse.Namespace) -> int:
    action, *rest = arguments.words
    if action == "set":
        _count(rest, 2, 99, "agenda set DIR domain=share ...")
        shares = {}
        for word in rest[1:]:
            name, _, share = word.partition("=")
            try:
                shares[name] = float(share)
            except ValueError:
                raise ConfigError(f"agenda: {word!r} is not domain=share, such as data=0.5") from None
        return _decide(rest[0], "agenda", {"shares": shares})
    if action == "release":
        _count(rest, 1, 1, "agenda release DIR")
        return _decide(rest[0], "release", {})
    _count(arguments.words, 1, 1, "agenda [set|release] DIR ...")
    rows = open_knowledge(action).agenda()
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        shown = ", ".join(f"{name} {share:.0%}" for name, share in row["shares"].items())
        print(f"cycle {row['cycle']} ({row['provenance']}): {shown}\n    {row['reason']}")
    return 0


def _note(arguments: argparse.Namespace) -> int:
    if not arguments.text.strip():
        raise ConfigError("note: empty")
    return _decide(arguments.directory, "note", {"title": arguments.title, "text": arguments.text})
