"""The campaign's configuration: one YAML file, every key typed, unknown keys refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from asi_evolve.domain import Stage
from asi_evolve.errors import ConfigError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class BenchmarkConfig(_Section):
    """Which benchmark measures candidates."""

    name: str = Field("lm", description="`lm`, `synthetic`, `package.module:Class` or `/path/script.py:Class`")
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the benchmark")


class StageConfig(_Section):
    """One stage of the cascade."""

    budget: float = Field(1.0, gt=0, le=1, description="training budget as a fraction of the full stage's")
    seeds: int = Field(1, ge=1, le=100, description="repeats with different seeds, shared by all candidates")
    time_limit: float = Field(600.0, gt=0, description="wall-clock limit of one evaluation, seconds")


class CascadeConfig(_Section):
    """Isolated -> cross -> full, and how many go on."""

    isolated: StageConfig = StageConfig(budget=0.12, time_limit=120)
    cross: StageConfig = StageConfig(budget=0.3, time_limit=240)
    full: StageConfig = StageConfig(budget=1.0, seeds=3, time_limit=600)
    promote: float = Field(0.34, gt=0, le=1, description="p: fraction of a stage's candidates that go on")
    confirm_seeds: int = Field(
        3, ge=0, le=100, description="fresh seeds on which the winner and the baseline are compared at the end; 0: none"
    )


class DesignConfig(_Section):
    """How proposals are made."""

    proposals: int = Field(6, ge=1, le=1000, description="proposals per cycle")
    code_share: float = Field(0.2, ge=0, le=1, description="share of proposals that ask the LLM for code")
    random_share: float = Field(0.0, ge=0, le=1, description="share of proposals left to random operators")
    fill: bool = Field(True, description="replace refused LLM proposals by random operators")
    selection: Literal["pareto", "scalar"] = Field(
        "pareto", description="parents by rank and crowding of performance, cost and novelty, or by performance alone"
    )
    exploit_share: float = Field(
        0.5, ge=0, le=1, description="share of parents that are the incumbent; the others win a tournament among all"
    )
    tournament_size: int = Field(3, ge=1, description="k of the Pareto tournament that picks parents")
    min_novelty: float = Field(0.0, ge=0, description="refuse proposals nearer than this to an evaluated candidate")


class AnalyzeConfig(_Section):
    """How results are turned into evidence, and explanations into experiments."""

    language_model: bool = Field(True, description="ask the LLM for an analysis; without it only code analyses")
    hypotheses: bool = Field(True, description="show hypotheses and their evidence to the LLM")
    false_discovery_rate: float = Field(
        0.1, gt=0, lt=1, description="expected share of wrong ones among all hypotheses called supported in a run"
    )
    explanation_share: float = Field(
        0.2, ge=0, le=1, description="share of the evaluation budget that may test explanations; 0 tests none"
    )
    explanation_seeds: int = Field(4, ge=2, le=100, description="seeds of a test of an explanation, isolated stage")


class NoveltyConfig(_Section):
    """phi(x) and the archive."""

    k: int = Field(5, ge=1, description="nearest neighbours averaged")
    structure_weight: float = Field(1.0, ge=0, description="weight of the structural features")
    code_weight: float = Field(0.5, ge=0, description="weight of the code embedding")


class LLMConfig(_Section):
    """Where Design and Analyze get their answers."""

    provider: Literal["embedded", "openai", "recorded", "none"] = Field(
        "embedded",
        description="embedded: a small model on this machine; openai: any OpenAI-compatible server (vLLM); "
        "recorded: the answers of an earlier run; none: random operators only",
    )
    base_url: str | None = Field(None, description="openai: for example http://127.0.0.1:8000/v1 ($OPENAI_BASE_URL)")
    model: str | None = Field(None, description="openai: model name; embedded: `smollm2` or the path of a GGUF file")
    api_key_env: str = Field("OPENAI_API_KEY", description="environment variable that holds the key, if one is needed")
    recording: str | None = Field(None, description="recorded: an earlier run directory or a JSON Lines file")
    temperature_design: float = Field(0.8, ge=0, le=2)
    temperature_analyze: float = Field(0.3, ge=0, le=2)
    max_tokens: int = Field(700, ge=16, description="completion tokens per answer")
    max_code_tokens: int = Field(1400, ge=16, description="completion tokens per answer that holds code")
    max_context_tokens: int = Field(1500, ge=200, description="tokens of campaign context in a prompt")
    timeout: float = Field(120.0, gt=0, description="seconds per request")
    retries: int = Field(4, ge=0, le=20, description="retries of a failed request, with growing pauses")
    threads: int = Field(2, ge=1, description="embedded: CPU threads")
    embedded_context: int = Field(8192, ge=1024, description="embedded: context window, tokens")

    @model_validator(mode="after")
    def _complete(self) -> LLMConfig:
        if self.provider == "recorded" and not self.recording:
            raise ValueError("recording: needed with provider 'recorded' (a run directory or a JSON Lines file)")
        return self


class SandboxConfig(_Section):
    """How candidates' processes are contained."""

    level: Literal["auto", "bubblewrap", "landlock", "none"] = Field("auto", description="`none` contains nothing")
    memory_mb: int = Field(4096, ge=64, description="memory limit of one candidate process, MiB")
    processes: int = Field(64, ge=1, description="process and thread limit")
    devices: list[str] = Field(
        default_factory=list,
        description="device nodes that candidates may use, such as /dev/nvidia0 and /dev/nvidiactl",
    )


class Config(_Section):
    """The whole campaign."""

    name: str = "campaign"
    seed: int = Field(0, ge=0, description="root of every random choice")
    cycles: int = Field(3, ge=1, description="Learn-Design-Experiment-Analyze cycles")
    workers: int = Field(2, ge=1, le=1024, description="evaluations at a time")
    max_seconds: float | None = Field(None, gt=0, description="stop starting new cycles after this many seconds")
    domains: list[str] | None = Field(None, description="domains to search; all of the benchmark's when not given")
    benchmark: BenchmarkConfig = BenchmarkConfig()
    cascade: CascadeConfig = CascadeConfig()
    design: DesignConfig = DesignConfig()
    analyze: AnalyzeConfig = AnalyzeConfig()
    novelty: NoveltyConfig = NoveltyConfig()
    llm: LLMConfig = LLMConfig()
    sandbox: SandboxConfig = SandboxConfig()

    @model_validator(mode="before")
    @classmethod
    def _whole_stages(cls, value: Any) -> Any:
        """A partly given stage keeps the other defaults of *that* stage."""
        if isinstance(value, Mapping) and isinstance(value.get("cascade"), Mapping):
            cascade = dict(value["cascade"])
            defaults = CascadeConfig()
            for name in ("isolated", "cross", "full"):
                given = cascade.get(name)
                if isinstance(given, Mapping):
                    cascade[name] = {**getattr(defaults, name).model_dump(), **given}
            return {**value, "cascade": cascade}
        return value

    def stage(self, name: str) -> Stage:
        """The stage as benchmarks see it; ``confirm`` is the full and ``explain`` the isolated stage on fresh seeds."""
        section: StageConfig = getattr(self.cascade, {"confirm": "full", "explain": "isolated"}.get(name, name))
        return Stage(name, section.budget, section.time_limit)

    def seeds(self, stage: str) -> list[int]:
        """Evaluation seeds of a stage. Stages share their first seeds; ``confirm`` and ``explain`` have their own."""
        if stage == "confirm":
            return [self.seed * 1000 + 500 + i for i in range(self.cascade.confirm_seeds)]
        if stage == "explain":
            return [self.seed * 1000 + 700 + i for i in range(self.analyze.explanation_seeds)]
        return [self.seed * 1000 + i for i in range(getattr(self.cascade, stage).seeds)]

    def to_yaml(self) -> str:
        """The resolved configuration."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_config(source: Config | Mapping[str, Any] | str | Path | None, **overrides: Any) -> Config:
    """A validated configuration from a YAML file, a mapping or nothing (all defaults).

    Args:
        source: path of a YAML file, a mapping, a Config, or None.
        overrides: values by dotted key with ``.`` written as ``__`` (``llm__model="x"``), applied last.

    Raises:
        ConfigError: the file is missing or not YAML, or a key is unknown or has a bad value; the message names it.
    """
    where = "config"
    if isinstance(source, Config):
        data: Any = source.model_dump()
    elif isinstance(source, Mapping):
        data = dict(source)
    elif source is None:
        data = {}
    else:
        where = str(source)
        try:
            data = yaml.safe_load(Path(source).read_text(encoding="utf-8")) or {}
        except OSError as error:
            raise ConfigError(f"{where}: cannot be read: {error.strerror}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
        _resolve(data, Path(source).parent)
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: a mapping of keys to values is needed, not {type(data).__name__}")
    merged: dict[str, Any] = {k: dict(v) if isinstance(v, Mapping) else v for k, v in data.items()}
    for dotted, value in overrides.items():
        *path, last = dotted.split("__")
        target = merged
        for key in path:
            child = target.get(key)
            target[key] = dict(child) if isinstance(child, Mapping) else {}
            target = target[key]
        target[last] = value
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_explain(error)}") from None


def _resolve(data: Any, folder: Path) -> None:
    """A recording's relative path is meant from the configuration file's folder, where it is found there."""
    llm = data.get("llm") if isinstance(data, dict) else None
    if isinstance(llm, dict) and isinstance(llm.get("recording"), str) and (folder / llm["recording"]).exists():
        llm["recording"] = str((folder / llm["recording"]).absolute())


def _explain(error: ValidationError) -> str:
    """The first problem in one line: key, value, what is allowed."""
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"]) or "config"
    if problem["type"] == "extra_forbidden":
        section: Any = Config
        for part in problem["loc"][:-1]:
            section = section.model_fields[str(part)].annotation
        return f"unknown key {key!r}; allowed here: {', '.join(section.model_fields)}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key}: {message} (got {problem.get('input')!r:.80})"
