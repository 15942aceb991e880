"""The two protocols by which the engine is embedded: a :class:`Domain` says what may change, a :class:`Benchmark`
measures a candidate. Everything else in the engine works through them alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from asi_evolve.candidate import Candidate, Component, Edit
from asi_evolve.space import Parameter, SearchSpace


@dataclass(frozen=True)
class Stage:
    """One stage of the evaluation cascade.

    Attributes:
        name: ``isolated``, ``cross`` or ``full``.
        budget: training budget as a fraction of the full stage's, in (0, 1].
        time_limit: wall-clock limit of one evaluation, seconds.
    """

    name: str
    budget: float
    time_limit: float


@runtime_checkable
class Domain(Protocol):
    """One searchable part of a training system. :class:`ParametricDomain` implements all of it from a list of
    parameters; override what you need.

    A domain may also have a method ``operations_schema(path) -> schema | None``: the JSON schema of a list of edits
    that a language model writes instead of text for that file. :meth:`apply` then gets the file's new text as
    ``{"operations": [...]}``.
    """

    name: str

    @property
    def space(self) -> SearchSpace:
        """The typed parameters."""
        ...

    def baseline(self) -> Component:
        """The component the campaign starts from and is compared with."""
        ...

    def apply(self, parent: Component, edit: Edit) -> Component:
        """The edited component. Raises InvalidEdit or InvalidCandidate; never changes ``parent``."""
        ...

    def validate(self, component: Component) -> None:
        """Static checks before anything is run. Raises InvalidCandidate naming the field, value and what is allowed."""
        ...

    def mutate(self, component: Component, rng: np.random.Generator) -> Edit:
        """A random edit (the operator used without an LLM). Its result should pass :meth:`validate`."""
        ...

    def features(self, component: Component) -> np.ndarray:
        """Structural features for novelty: float64, one fixed length per domain, entries of order 1."""
        ...

    def describe(self) -> str:
        """What the domain is and what its parameters and files mean, for a prompt. Constant within a run."""
        ...


@runtime_checkable
class Benchmark(Protocol):
    """Measures candidates.

    Attributes:
        metric: name of the performance metric in what :meth:`evaluate` returns.
        maximize: True when a larger metric is better.
        costs: names of the metrics (lower is better) whose geometric mean, relative to the baseline's, is the cost.
        isolation: ``sandbox`` runs :meth:`evaluate` itself inside the sandbox (right for ordinary training code);
            ``judge`` runs it as a trusted process that puts candidate code into sandboxes on its own.
        options: keyword arguments that rebuild the benchmark in a worker process: ``type(self)(**options)``.

    A benchmark may also have a method ``export(candidate, target) -> list[Path]`` that writes a candidate under the
    directory ``target`` as code that runs without the engine, and returns what it wrote. Without it the command
    ``export`` writes every component's files and parameters as they are.

    And a method ``notes() -> list[str]``: what has to be known of the data it measures on, a sentence each. Called once
    after :meth:`prepare`, kept with the run and shown in its report.

    An attribute ``measured`` names the metrics that a clock or the kernel measures, which differ from run to run.

    And it may have a method ``check(candidate, stages)`` that raises InvalidCandidate for a candidate that will not fit
    its budgets, before it is admitted: what validation cannot see in one component alone. ``stages`` are those that it
    would pass. No code of the candidate runs there.
    """

    metric: str
    maximize: bool
    costs: Sequence[str]
    isolation: Literal["sandbox", "judge"]
    options: Mapping[str, Any]

    def domains(self) -> Sequence[Domain]:
        """The domains that can be searched."""
        ...

    def prepare(self) -> None:
        """Called once per run in the engine's process before any evaluation: build or check data. May raise
        CorpusError."""
        ...

    def evaluate(self, candidate: Candidate, stage: Stage, seed: int) -> Mapping[str, float]:
        """Measures one candidate in a worker process. Deterministic in (candidate, stage, seed) but for times.

        Returns finite floats by name, with ``metric`` and every one of ``costs`` among them. Raises EvaluationFailure
        (or anything else, which is recorded as a crash). Call :func:`asi_evolve.execution.progress` to move the
        progress bar.
        """
        ...


class ParametricDomain:
    """A domain given by typed parameters and, where wanted, source files that an edit may change.

    Args:
        name: the domain's name, for example ``algorithm``.
        parameters: the search space.
        start: the baseline's value of every parameter.
        files: the baseline's source files by relative path; empty when only parameters are searched.
        doc: what the domain is, for the prompt.
    """

    def __init__(
        self,
        name: str,
        parameters: Sequence[Parameter],
        start: Mapping[str, Any],
        files: Mapping[str, str] | None = None,
        doc: str = "",
    ) -> None:
        self.name = name
        self._space = SearchSpace(parameters)
        self._doc = doc
        self._baseline = Component(name, self._space.check(start), files or {})

    @property
    def space(self) -> SearchSpace:
        """The typed parameters."""
        return self._space

    def baseline(self) -> Component:
        """The component the campaign starts from."""
        return self._baseline

    def apply(self, parent: Component, edit: Edit) -> Component:
        """``edit`` applied to ``parent``, with parameters in canonical types."""
        child = edit.apply(parent)
        return Component(self.name, self.space.check(child.params), child.files)

    def validate(self, component: Component) -> None:
        """Checks the domain's name, every parameter, and that each Python file compiles with allowed imports."""
        from asi_evolve.errors import InvalidCandidate
        from asi_evolve.source import check_source

        if component.domain != self.name:
            raise InvalidCandidate(f"domain: {component.domain!r} given to the {self.name!r} domain")
        self.space.check(component.params)
        unknown = sorted(set(component.files) - set(self._baseline.files))
        if unknown:
            allowed = ", ".join(self._baseline.files) or "none"
            raise InvalidCandidate(f"files: {unknown[0]!r} is not a file of the {self.name} domain; allowed: {allowed}")
        for path, text in component.files.items():
            if path.endswith(".py"):
                check_source(path, text)

    def mutate(self, component: Component, rng: np.random.Generator) -> Edit:
        """One to three parameters moved to neighbouring values."""
        return Edit(params=self.space.mutate(component.params, rng))

    def features(self, component: Component) -> np.ndarray:
        """The encoded parameters."""
        return self.space.encode(component.params)

    def describe(self) -> str:
        """The domain's text, then a line per parameter with its type, range and meaning."""
        lines = [self._doc] if self._doc else []
        for p in self.space:
            doc = str(getattr(p, "doc", ""))
            lines.append(f"- {p.name}: {_range_text(p)}{'. ' + doc if doc else ''}")
        if self._baseline.files:
            lines.append("Files: " + ", ".join(self._baseline.files))
        return "\n".join(lines)


class BenchmarkBase:
    """Defaults for a benchmark: minimise, sandboxed, nothing to prepare, no options."""

    metric: str = "loss"
    maximize: bool = False
    costs: Sequence[str] = ("seconds",)
    isolation: Literal["sandbox", "judge"] = "sandbox"
    options: Mapping[str, Any] = {}

    def prepare(self) -> None:
        """Nothing to prepare."""


def _range_text(parameter: Parameter) -> str:
    schema = parameter.schema()
    if "enum" in schema:
        return "one of " + ", ".join(str(v) for v in schema["enum"])
    return f"{schema['type']} in [{schema['minimum']:g}, {schema['maximum']:g}]"
