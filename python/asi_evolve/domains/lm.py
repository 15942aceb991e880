"""The language-model benchmark: a triple (architecture, algorithm, data) judged by held-out bits per byte.

An evaluation has three parts, and the judge (this process) trusts none of what they return:

A. the data pipeline says which documents are drawn and how often; code slots run in a sandbox;
B. a sandbox trains the model on bytes that the judge has drawn, as many for every candidate of a stage;
C. two fresh sandboxes get the weights and held-out inputs, one of them with altered futures. The judge computes bits
   per byte from the logits and refuses a model whose logits depend on the future.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np

from asi_evolve.candidate import Candidate, thaw
from asi_evolve.domain import BenchmarkBase, ParametricDomain, Stage
from asi_evolve.domains import lm_judge
from asi_evolve.domains.algorithm import AlgorithmDomain
from asi_evolve.domains.architecture import ArchitectureDomain, Estimate, estimate_training, model_files
from asi_evolve.domains.architecture.estimate import SLOW, MachineRates
from asi_evolve.domains.corpus import Corpus, default_cache, open_corpus
from asi_evolve.domains.corpus_build import OnProgress
from asi_evolve.domains.corpus_statistics import NAMES
from asi_evolve.domains.data import DataDomain, Selection, select, uses_code
from asi_evolve.domains.data.pipeline import LIKE_REFERENCE, passes
from asi_evolve.domains.lm_export import write_export
from asi_evolve.errors import CorpusError, EvaluationFailure, InvalidCandidate
from asi_evolve.execution import Limits, Result, Sandbox, progress
from asi_evolve.execution.limits import MEBIBYTE

_KINDS = {"timeout": "timeout", "memory": "memory", "protocol": "protocol", "crash": "crash", "error": "crash"}
CURATED_AT_ONCE = 1 << 26  # bytes of documents sent to a sandbox
_ENTRY = "from asi_evolve.domains.{module} import {name}\n"


class LanguageModelBenchmark(BenchmarkBase):
    """Held-out bits per byte of a small byte-level language model, at equal training bytes.

    Costs: ``train_seconds``, CPU seconds of the training process by the kernel's count, start-up of about a second
    included; ``flops_per_token`` of training, see :func:`lm_runner.count_flops`; ``peak_memory_mb``, largest resident
    set of the training process, MiB.

    Args:
        corpus: JSON Lines, Parquet, text or a dataset saved to disk; None for the text of this Python installation.
        cache: directory for the prepared corpus.
        text_field: field or column of the corpus that holds the text.
        full_steps: optimiser steps of the full stage at ``batch_size``; smaller budgets take a share of them.
        batch_size: sequences per step of the baseline; a candidate may trade steps for batch at equal bytes.
        sequence_length: bytes per sequence.
        held_out_windows: sequences of held-out text that are predicted.
        threads: CPU threads of a training process.
        data_seed: of the held-out windows, and of the draws of training bytes together with the evaluation's seed.
        max_parameters: larger models are refused.
        device: ``cpu`` or ``cuda`` (all GPUs that ``sandbox.devices`` of the configuration lets in).
        dtype: of training: ``float32``, or ``bfloat16`` / ``float16`` by torch.autocast. The judge reads in float32.
        accumulate: parts of a batch that a process takes one after the other.
        processes: data-parallel processes of one training, each with ``threads`` and, on ``cuda``, a GPU.
        max_flops_per_token, max_memory_mb: candidates that are estimated to take more than this of the costs of the
            same name are refused before they are run; None for no limit. See :meth:`check`.
    """

    metric = "bits_per_byte"
    maximize = False
    costs = ("train_seconds", "flops_per_token", "peak_memory_mb")
    measured = ("train_seconds", "peak_memory_mb")
    isolation: Literal["sandbox", "judge"] = "judge"

    def __init__(
        self,
        *,
        corpus: str | None = None,
        cache: str | None = None,
        text_field: str = "text",
        full_steps: int = 600,
        batch_size: int = 16,
        sequence_length: int = 128,
        held_out_windows: int = 256,
        threads: int = 1,
        data_seed: int = 0,
        max_parameters: int = 600_000,
        device: Literal["cpu", "cuda"] = "cpu",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        accumulate: int = 1,
        processes: int = 1,
        max_flops_per_token: int | None = None,
        max_memory_mb: int | None = None,
    ) -> None:
        self.options: Mapping[str, Any] = {
            "corpus": corpus,
            "cache": cache,
            "text_field": text_field,
            "full_steps": full_steps,
            "batch_size": batch_size,
            "sequence_length": sequence_length,
            "held_out_windows": held_out_windows,
            "threads": threads,
            "data_seed": data_seed,
            "max_parameters": max_parameters,
            "device": device,
            "dtype": dtype,
            "accumulate": accumulate,
            "processes": processes,
            "max_flops_per_token": max_flops_per_token,
            "max_memory_mb": max_memory_mb,
        }
        for name, allowed in (("device", ("cpu", "cuda")), ("dtype", ("float32", "bfloat16", "float16"))):
            if self.options[name] not in allowed:
                raise TypeError(f"{name}: {self.options[name]!r} is not one of {', '.join(allowed)}")
        for name, value in self.options.items():
            if isinstance(value, int) and value < (0 if name == "data_seed" else 1):
                raise TypeError(f"{name}: {value!r} is too small")
        self.full_steps, self.batch_size, self.length = full_steps, batch_size, sequence_length
        self.held_out_windows, self.threads, self.data_seed = held_out_windows, threads, data_seed
        self.max_parameters = max_parameters
        self.spread = {"device": device, "dtype": dtype, "accumulate": accumulate, "processes": processes}
        self.max_flops_per_token, self.max_memory_mb = max_flops_per_token, max_memory_mb

    def corpus(self, on_progress: OnProgress | None = None) -> Corpus:
        """The corpus, built at the first call on this machine (about half a minute). Raises CorpusError."""
        o = self.options
        return open_corpus(o["corpus"], o["cache"], text_field=o["text_field"], on_progress=on_progress)

    def prepare(self) -> None:
        """Builds or checks the corpus. Raises CorpusError."""
        self.corpus()

    def notes(self) -> list[str]:
        """The corpus: size, copies, decontamination, rows that could not be read."""
        return self.corpus().notes()

    def domains(self) -> list[ParametricDomain]:
        """Architecture, algorithm and data. With a corpus of the user's, its sources are parameters of the last; that
        may raise CorpusError."""
        data = DataDomain()
        if self.options["corpus"] is not None:
            corpus = self.corpus()
            data = DataDomain(corpus.sources, corpus.languages)
        cache = Path(self.options["cache"] or default_cache()).expanduser()
        return [ArchitectureDomain(self.max_parameters, self.length, cache), AlgorithmDomain(), data]

    def training_spec(self, candidate: Candidate) -> dict[str, Any]:
        """Settings of the training."""
        spec: dict[str, Any] = thaw(candidate.algorithm.params)
        return spec

    def check(self, candidate: Candidate, stages: Sequence[Stage]) -> None:
        """Refuses what is estimated to exceed ``max_flops_per_token`` or ``max_memory_mb``, or to train for more than
        twice a stage's time limit: estimates of time are right to a factor of two, and the limit holds anyway.

        Raises:
            InvalidCandidate: with what is estimated and what is allowed.
        """
        params, spec = candidate.architecture.params, self.training_spec(candidate)

        def estimated(stage: Stage, rates: MachineRates | None = None) -> Estimate:
            windows = max(1, round(self.full_steps * stage.budget)) * self.batch_size
            steps = max(1, windows // int(spec["batch_size"]))
            training = {"batch": int(spec["batch_size"]), "optimizer": spec["optimizer"], "ema": bool(spec["ema"])}
            return estimate_training(params, length=self.length, steps=steps, rates=rates, **training)

        for stage in stages:
            slow = estimated(stage, SLOW)
            limit, flops = self.max_flops_per_token, slow.flops_per_token
            if limit is not None and flops > limit:
                raise InvalidCandidate(f"layers, width: about {flops:.0f} FLOPs per token; at most {limit} are allowed")
            if self.max_memory_mb is None and slow.seconds < stage.time_limit:
                continue  # no need to measure this machine
            try:
                found = estimated(stage)
            except RuntimeError:  # a sandbox that does not run: evaluations will say so
                return
            if self.max_memory_mb is not None and found.peak_memory_mb > self.max_memory_mb:
                raise InvalidCandidate(
                    f"layers, width, batch_size: about {found.peak_memory_mb:.0f} MiB in training; "
                    f"at most {self.max_memory_mb} are allowed"
                )
            seconds = found.seconds / self.threads
            if seconds > 2 * stage.time_limit:
                raise InvalidCandidate(
                    f"layers, width: about {seconds:.0f} s of training at the {stage.name} stage; "
                    f"its time limit is {stage.time_limit:g} s"
                )

    def export(self, candidate: Candidate, target: Path) -> list[Path]:
        """Writes a candidate as a plain PyTorch program (model, training, data), and the model for Transformers; see
        :mod:`lm_export`."""
        settings = {
            "sequence_length": self.length,
            "windows": self.full_steps * self.batch_size,
            "data_seed": self.data_seed,
            "threads": self.threads,
        }
        return write_export(candidate, target, settings)

    def evaluate(self, candidate: Candidate, stage: Stage, seed: int) -> dict[str, float]:
        """Trains and judges one candidate; deterministic but for times and memory.

        Raises:
            EvaluationFailure: with the kind of what went wrong. CorpusError: the corpus has gone.
        """
        run = Evaluation(self, candidate, stage, seed)
        selection = run.curate()
        weights, training = run.train(selection)
        bits, flops = run.judge(weights)
        return {
            "bits_per_byte": bits,
            "train_seconds": training.usage.cpu_seconds,
            "flops_per_token": flops,
            "peak_memory_mb": training.usage.max_rss_bytes / MEBIBYTE,
        }


class Evaluation:
    """The parts of one evaluation; see the module."""

    def __init__(self, benchmark: LanguageModelBenchmark, candidate: Candidate, stage: Stage, seed: int) -> None:
        self.benchmark, self.candidate, self.stage, self.seed = benchmark, candidate, stage, seed
        self.corpus = benchmark.corpus()
        self.started = time.monotonic()
        self.sandbox = Sandbox.configured(Limits(threads=benchmark.threads))
        self.architecture = thaw(candidate.architecture.params)

    def rng(self, purpose: int) -> np.random.Generator:
        """The random stream of a purpose, the same for every candidate."""
        return np.random.default_rng([self.benchmark.data_seed, self.seed, purpose])

    def run(
        self,
        what: str,
        inputs: dict[str, Any],
        files: Mapping[str, str],
        result_bytes: int,
        span: tuple[float, float],
        *,
        module: str = "lm_runner",
    ) -> Result:
        """Runs one function of :mod:`lm_runner`, or another module, in a fresh sandbox, with what is left of the time.

        Raises:
            EvaluationFailure: it did not answer.
        """
        left = self.stage.time_limit - (time.monotonic() - self.started)
        if left <= 0:
            raise EvaluationFailure("timeout", f"no time left for {what}")
        low, high = span
        known = self.sandbox.limits
        result = self.sandbox.run(
            _ENTRY.format(module=module, name=what),
            what,
            inputs,
            files=files,
            hidden=self.corpus.hidden,
            limits=Limits(
                wall_seconds=left,
                memory_bytes=known.memory_bytes,
                processes=known.processes,
                threads=known.threads,
                result_bytes=result_bytes,
            ),
            on_progress=lambda fraction, note: progress(low + (high - low) * fraction, note),
        )
        if not result.ok:
            raise EvaluationFailure(_KINDS[result.status], f"{what}: {result.error}")
        return result

    # -- A ------------------------------------------------------------------------------------------------------------

    def curate(self) -> Selection:
        """What the data pipeline selects. Raises EvaluationFailure."""
        corpus, component = self.corpus, self.candidate.data
        statistics = {name: corpus.statistics[:, i] for i, name in enumerate(NAMES)}
        if component.params["language"] != "any":
            statistics["language"] = corpus.language
        if component.params["quality"] in LIKE_REFERENCE and component.params["quality_strength"]:
            try:
                scores_like = corpus.reference_scores(component.params["reference"])
            except CorpusError as error:
                raise EvaluationFailure("invalid", f"reference: {error}") from None
            statistics |= dict(zip(LIKE_REFERENCE, scores_like.T, strict=True))
        kept = scores = None
        if uses_code(component):
            kept, scores = self.code_answers(passes(statistics, component.params))
        selection = select(
            statistics,
            corpus.source_ids,
            corpus.sources,
            corpus.exact_groups,
            corpus.near_groups,
            params=component.params,
            kept=kept,
            scores=scores,
        )
        if not len(selection.documents):
            raise EvaluationFailure("invalid", "the data pipeline keeps no document")
        return selection

    def code_answers(self, candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The code slots' answers for the documents that the built-in filters keep; nothing is kept of the others."""
        corpus = self.corpus
        documents = np.flatnonzero(candidates)
        all_kept, all_scores = np.zeros(len(corpus), bool), np.zeros(len(corpus))
        sizes = corpus.offsets[documents + 1] - corpus.offsets[documents]
        # In batches, each in a fresh sandbox: what is sent is in memory, and the pool may be larger.
        batch = np.cumsum(sizes) // CURATED_AT_ONCE
        for part in np.split(documents, np.flatnonzero(np.diff(batch)) + 1):
            all_kept[part], all_scores[part] = self._code_answers(part)
        return all_kept, all_scores

    def _code_answers(self, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        corpus = self.corpus
        sizes = corpus.offsets[documents + 1] - corpus.offsets[documents]
        pieces = [corpus.text[corpus.offsets[i] : corpus.offsets[i + 1]] for i in documents]
        inputs = {
            "text": np.concatenate(pieces) if pieces else np.zeros(0, np.uint8),
            "offsets": np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            "sources": corpus.sources,
            "source_ids": corpus.source_ids[documents],
        }
        answer = self.run("curate", inputs, dict(self.candidate.data.files), 1 << 24, (0.0, 0.1)).value
        kept, scores = (
            _array(answer, "kept", "bool", len(documents)),
            _array(answer, "scores", "float64", len(documents)),
        )
        if not np.isfinite(scores).all():
            raise EvaluationFailure("non-finite", "score: NaN or infinity")
        if (scores < 0).any():
            raise EvaluationFailure("invalid", "score: negative; it has to be at least 0")
        return kept, scores

    # -- B ------------------------------------------------------------------------------------------------------------

    def training_spec(self) -> dict[str, Any]:
        """Settings of the training: those of the candidate."""
        return self.benchmark.training_spec(self.candidate)

    def training_files(self) -> dict[str, str]:
        """Files of the training: those of the candidate's algorithm."""
        return dict(self.candidate.algorithm.files)

    def windows(self, selection: Selection) -> np.ndarray:
        """Training bytes, as many for every candidate of the stage: uint8 (windows, length + 1)."""
        b = self.benchmark
        count = max(1, round(b.full_steps * self.stage.budget)) * b.batch_size
        draws = {name: self.candidate.data.params[name] for name in ("max_repeats", "order")}
        return lm_judge.training_windows(self.corpus, selection, count, b.length, self.rng(1), **draws)

    def train(self, selection: Selection) -> tuple[dict[str, np.ndarray], Result]:
        """Trained weights, and what the sandbox used. Raises EvaluationFailure."""
        b = self.benchmark
        inputs = {
            "architecture": self.architecture,
            "spec": self.training_spec(),
            "windows": self.windows(selection),
            "seed": self.seed,
            "threads": b.threads,
            "limit": b.max_parameters,
            "spread": b.spread,
        }
        files = {**model_files(self.candidate.architecture), **self.training_files()}
        result = self.run("train", inputs, files, 16 * b.max_parameters + (1 << 20), (0.1, 0.85))
        return self.checked_weights(result, "train"), result

    def checked_weights(
        self, result: Result, what: str, like: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """The weights in a sandbox's answer: finite arrays, with the names and shapes of ``like`` where it is given.

        Raises:
            EvaluationFailure: there are none, or the sandbox says why.
        """
        answer = result.value if isinstance(result.value, dict) else {}
        if "invalid" in answer:
            raise EvaluationFailure("invalid", str(answer["invalid"])[:2000])
        if "non_finite" in answer:
            raise EvaluationFailure("non-finite", str(answer["non_finite"])[:2000])
        weights = answer.get("weights")
        if not isinstance(weights, dict) or not all(isinstance(w, np.ndarray) for w in weights.values()):
            raise EvaluationFailure("protocol", f"{what}: the answer holds no weights")
        if like is not None and {n: w.shape for n, w in weights.items()} != {n: w.shape for n, w in like.items()}:
            raise EvaluationFailure("protocol", f"{what}: the weights have other names or shapes than before")
        for name, weight in weights.items():
            if not np.isfinite(weight).all():
                raise EvaluationFailure("non-finite", f"weights: {name} has NaN or infinity")
        return weights

    # -- C ------------------------------------------------------------------------------------------------------------

    def judge(self, weights: dict[str, np.ndarray]) -> tuple[float, float]:
        """(bits per byte, FLOPs per token)."""
        b = self.benchmark
        # The same windows for every candidate and seed: less noise between them.
        held_out = lm_judge.held_out_windows(
            self.corpus, b.held_out_windows, b.length, np.random.default_rng([b.data_seed, 2])
        )
        shape = held_out.inputs.shape
        size = int(np.prod(shape)) * 1024 + (1 << 20)
        files = model_files(self.candidate.architecture)

        def infer(inputs: np.ndarray, count: bool) -> dict[str, Any]:
            request = {
                "architecture": self.architecture,
                "weights": weights,
                "inputs": inputs,
                "threads": b.threads,
                "count": count,
                "device": b.spread["device"],
            }
            value = self.run("infer", request, files, size, (0.85, 1.0)).value
            return value if isinstance(value, dict) else {}

        with ThreadPoolExecutor(2) as both:
            plain = both.submit(infer, held_out.inputs, True)
            altered = both.submit(infer, held_out.altered, False)
            first, second = plain.result(), altered.result()
        logits = lm_judge.check_logits(first.get("logits"), shape)
        lm_judge.check_causality(logits, lm_judge.check_logits(second.get("logits"), shape), held_out)
        flops = first.get("flops_per_token")
        if not isinstance(flops, float):
            raise EvaluationFailure("protocol", "infer: no flops_per_token")
        return lm_judge.bits_per_byte(logits, held_out.targets), flops


def _array(answer: Any, name: str, dtype: str, size: int) -> np.ndarray:
    value = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(value, np.ndarray) or value.shape != (size,) or value.dtype != dtype:
        raise EvaluationFailure("protocol", f"curate: {name} is not {dtype} ({size},)")
    return value
