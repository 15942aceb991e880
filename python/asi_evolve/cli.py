"""The command ``asi-evolve``. Errors are one line on standard error; the exit code says which kind it was."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from asi_evolve import __version__
from asi_evolve.cli_steering import open_knowledge, steering_arguments
from asi_evolve.errors import AsiEvolveError, ConfigError

EXIT_CODES = """exit codes: 0 done; 1 an evaluation or other failure; 2 wrong configuration or arguments;
3 run directory; 4 corpus; 5 language model (resumable); 130 interrupted (resumable)"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        return int(arguments.run(arguments) or 0)
    except AsiEvolveError as error:
        print(f"asi-evolve: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        directory = getattr(arguments, "active", None)
        hint = f"; continue with: asi-evolve resume {directory}" if directory else ""
        print(f"\nasi-evolve: interrupted, nothing is lost{hint}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="asi-evolve",
        description="Let a machine do research on your model, your training algorithm and your data.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = _command(commands, "run", _run, "start a campaign")
    run.add_argument("config", nargs="?", help="YAML file; without it all defaults hold")
    run.add_argument("--out", metavar="DIR", help="run directory (default: runs/<name>-<time>)")
    run.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="a config value, as cycles=5")
    run.add_argument("--cycles", type=int, help="number of cycles")
    run.add_argument("--workers", type=int, help="evaluations at a time")
    run.add_argument("--seed", type=int, help="root seed")
    run.add_argument("--corpus", help="JSONL, Parquet or text to train on instead of the default corpus")
    _llm_arguments(run)

    resume = _command(commands, "resume", _resume, "continue an interrupted campaign")
    _directory(resume)
    _llm_arguments(resume)

    for name, function, what in (
        ("status", _status, "where a campaign stands"),
        ("watch", _watch, "follow a campaign that runs elsewhere"),
    ):
        sub = _command(commands, name, function, what)
        _directory(sub)
        sub.add_argument("--json", action="store_true", help="as JSON")

    steering_arguments(commands, _command)

    report = _command(commands, "report", _report, "write the report, one HTML file")
    _directory(report)
    report.add_argument("--out", metavar="FILE", help="default: DIR/report.html")

    again = _command(commands, "replay", _replay, "make a recorded campaign again, and compare")
    _directory(again)
    again.add_argument("--out", metavar="NEW", help="keep the replay as a run directory")
    again.add_argument("--workers", type=int, help="evaluations at a time; the result must not depend on it")
    again.add_argument("--tolerance", type=float, default=0.0, help="relative difference of a metric that is let pass")
    again.add_argument("--json", action="store_true", help="as JSON")

    export = _command(commands, "export", _export, "write the best triple as PyTorch and Hugging Face code")
    _directory(export)
    export.add_argument("--out", metavar="DIR", help="default: DIR/export")
    export.add_argument("--candidate", metavar="C12", help="another candidate than the best")

    doctor = _command(commands, "doctor", _doctor, "what is active on this machine")
    doctor.add_argument("--json", action="store_true", help="as JSON")

    bench = _command(commands, "bench-domain", _bench_domain, "the table that says how far a benchmark can be trusted")
    bench.add_argument("name", metavar="NAME", help="architecture, algorithm, data or triple")
    bench.add_argument("--quick", action="store_true", help="few candidates and small budgets; within three minutes")
    bench.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="evaluations at a time")
    bench.add_argument("--seeds", type=int, help="repeats at the full stage; default the plan's, 3 or 5")
    bench.add_argument("--candidates", type=int, help="varied candidates beside the baseline; default 14")
    bench.add_argument("--json", metavar="FILE", help="write everything measured")

    models = _command(commands, "models", _models, "list or fetch models for the embedded server")
    models.add_argument("action", choices=("list", "fetch"))
    models.add_argument("name", nargs="?", default="smollm2")

    serve = _command(commands, "serve", _serve, "run the embedded model as an OpenAI-compatible server")
    serve.add_argument("model", nargs="?", default="smollm2", help="a fetched model or the path of a GGUF file")
    serve.add_argument("--port", type=int, default=8080)
    serve.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    serve.add_argument("--context", type=int, default=8192, help="context window, tokens")
    return parser


def _command(commands: Any, name: str, function: Callable[..., Any], what: str) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = commands.add_parser(name, help=what, description=what)
    sub.set_defaults(run=function)
    return sub


def _directory(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("directory", metavar="DIR", help="run directory")


def _llm_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--llm", metavar="URL", help="OpenAI-compatible server, or: embedded, none, recorded:PATH")
    sub.add_argument("--model", help="model name at the server, or the path of a GGUF file for the embedded one")


def _overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    import yaml

    values: dict[str, Any] = {}
    for name in ("cycles", "workers", "seed"):
        if getattr(arguments, name, None) is not None:
            values[name] = getattr(arguments, name)
    if getattr(arguments, "corpus", None):
        values["benchmark__options__corpus"] = str(Path(arguments.corpus).absolute())
    if arguments.llm:
        if arguments.llm in ("embedded", "none"):
            values["llm__provider"] = arguments.llm
        elif arguments.llm.startswith("recorded:"):
            values["llm__provider"] = "recorded"
            values["llm__recording"] = arguments.llm.removeprefix("recorded:")
        elif arguments.llm.startswith(("http://", "https://")):
            values["llm__provider"], values["llm__base_url"] = "openai", arguments.llm
        else:
            raise ConfigError(f"--llm: {arguments.llm!r} is not a URL, embedded, none or recorded:PATH")
    if arguments.model:
        values["llm__model"] = arguments.model
    for item in getattr(arguments, "set", []):
        key, found, text = item.partition("=")
        if not found:
            raise ConfigError(f"--set: {item!r} is not KEY=VALUE")
        try:
            values[key.replace(".", "__")] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"--set: {key}: {text!r} is not a YAML value") from None
    return values


def _run(arguments: argparse.Namespace) -> int:
    from asi_evolve.config import load_config

    return _campaign(arguments, load_config(arguments.config, **_overrides(arguments)), arguments.out, "run")


def _resume(arguments: argparse.Namespace) -> int:
    from asi_evolve.config import load_config
    from asi_evolve.rundir import RunDirectory

    config = load_config(RunDirectory(arguments.directory).config_path, **_overrides(arguments))
    return _campaign(arguments, config, arguments.directory, "resume")


def _campaign(arguments: argparse.Namespace, config: Any, out: str | None, what: str) -> int:
    from asi_evolve.engine import Engine
    from asi_evolve.knowledge.store import Store
    from asi_evolve.report import write_report
    from asi_evolve.view import LineView, LiveView, describe_result

    view = LiveView() if sys.stdout.isatty() else LineView()
    engine = Engine(config, out, observers=[view])
    arguments.active = engine.directory.path
    with view:
        result = engine.run() if what == "run" else engine.resume()
    store = Store(engine.directory.database, read_only=True)
    labels = {row["hash"]: f"C{row['id']}" for row in store.candidates()}
    store.close()
    report = write_report(engine.directory.path)
    label = labels[result.best.hash] if result.best != result.baseline else None
    print(f"Report: {report}")
    print(describe_result(result, engine.benchmark.metric, label))
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from asi_evolve.report.summary import summarize

    summary = summarize(Path(arguments.directory))
    print(json.dumps(summary.to_json(), indent=2) if arguments.json else summary.text())
    return 0


def _watch(arguments: argparse.Namespace) -> int:
    """Prints new journal rows and evaluations until the engine has gone."""
    from asi_evolve.rundir import RunDirectory

    store = open_knowledge(arguments.directory)
    labels: dict[str, str] = {}
    seen_journal = seen_evaluations = 0
    while True:
        active = RunDirectory(arguments.directory).locked()
        journal, evaluations = store.journal(), store.evaluation_rows()
        if any(e["candidate"] not in labels for e in evaluations):
            labels = {row["hash"]: f"C{row['id']}" for row in store.candidates()}
        rows = [(j["time"], f"cycle {j['cycle']} {j['phase']} {j['event']}", j) for j in journal[seen_journal:]]
        for e in evaluations[seen_evaluations:]:
            outcome = "ok" if e["status"] == "ok" else f"failed ({e['failure']})"
            text = f"  {labels[e['candidate']]} {e['stage']} seed {e['seed']}: {outcome} in {e['seconds']:.1f} s"
            rows.append((e["finished"], text, e))
        seen_journal, seen_evaluations = len(journal), len(evaluations)
        for moment, text, row in sorted(rows, key=lambda r: r[0]):
            print(json.dumps(row) if arguments.json else f"{time.strftime('%H:%M:%S', time.localtime(moment))} {text}")
        sys.stdout.flush()
        if not active:
            return 0
        time.sleep(0.5)


def _report(arguments: argparse.Namespace) -> int:
    from asi_evolve.report import write_report

    print(write_report(Path(arguments.directory), Path(arguments.out) if arguments.out else None))
    return 0


def _replay(arguments: argparse.Namespace) -> int:
    from asi_evolve.replay import replay

    if arguments.workers is not None and arguments.workers < 1:
        raise ConfigError(f"--workers: {arguments.workers} is not at least 1")
    if not arguments.tolerance >= 0:
        raise ConfigError(f"--tolerance: {arguments.tolerance} is negative")
    result = replay(arguments.directory, arguments.out, workers=arguments.workers, tolerance=arguments.tolerance)
    if arguments.json:
        rows = {name: {"rows": count, "sha256": digest} for name, (count, digest) in result.rows.items()}
        facts = {"exact": result.exact, "evaluations": result.evaluations, "tables": rows}
        print(json.dumps({**facts, "differences": list(result.differences)}, indent=2))
        return 0 if result.exact else 1
    for name, (count, digest) in result.rows.items():
        print(f"{name:14s}{count:7d} rows  {digest[:16]}")
    for line in result.differences:
        print(f"differs: {line}")
    verdict = "the same campaign" if result.exact else f"{len(result.differences)} differences"
    print(f"{verdict}; {result.evaluations} evaluations made again")
    return 0 if result.exact else 1


def _export(arguments: argparse.Namespace) -> int:
    from asi_evolve.report.export import export_best

    target = Path(arguments.out) if arguments.out else Path(arguments.directory) / "export"
    for path in export_best(Path(arguments.directory), target, arguments.candidate):
        print(path)
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from asi_evolve.doctor import examine, text

    facts = examine()
    print(json.dumps(facts, indent=2) if arguments.json else text(facts))
    return 0


def _bench_domain(arguments: argparse.Namespace) -> int:
    from asi_evolve.bench_domain import NAMES, bench_domain

    if arguments.name not in NAMES:
        raise ConfigError(f"bench-domain: {arguments.name!r} is not one of {', '.join(NAMES)}")
    if arguments.workers < 1:
        raise ConfigError(f"--workers: {arguments.workers} is not at least 1")
    for option in ("seeds", "candidates"):
        if (value := getattr(arguments, option)) is not None and value < 1:
            raise ConfigError(f"--{option}: {value} is not at least 1")
    results = bench_domain(
        arguments.name,
        arguments.quick,
        arguments.workers,
        lambda line: print(line, flush=True),
        seeds=arguments.seeds,
        candidates=arguments.candidates,
    )
    if arguments.json:
        try:
            Path(arguments.json).write_text(json.dumps(results, indent=1), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--json: {arguments.json}: {error.strerror}") from None
    return 0


def _models(arguments: argparse.Namespace) -> int:
    from asi_evolve.llm.models import MODELS, fetch, model_path

    if arguments.action == "fetch":
        print(fetch(arguments.name))
        return 0
    for name, model in MODELS.items():
        print(f"{name}: {model.about} ({model.licence}); {model_path(name) or 'not fetched'}")
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    import subprocess

    from asi_evolve.llm.models import fetch

    command = [sys.executable, "-m", "asi_evolve.llm.embedded", str(fetch(arguments.model))]
    command += [str(arguments.threads), str(arguments.context), str(arguments.port)]
    # Its standard input is a pipe we hold: the server ends when we do.
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        return 0


if __name__ == "__main__":
    sys.exit(main())
