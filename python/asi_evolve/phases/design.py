"""Design: proposals from the language model or from random operators, checked before anything is run."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from asi_evolve.campaign import Campaign
from asi_evolve.candidate import Candidate, Component, Edit, thaw
from asi_evolve.domain import Domain
from asi_evolve.errors import InvalidCandidate, InvalidEdit, LLMError
from asi_evolve.llm.base import Request
from asi_evolve.llm.prompts import render
from asi_evolve.llm.structured import Answer, ask
from asi_evolve.patch import Block

EFFECTS = {"0.1%": 0.001, "0.5%": 0.005, "1%": 0.01, "2%": 0.02, "5%": 0.05, "10%": 0.1}
_BATCH = 4  # proposals that share a parent, and so a prompt
_RANDOM_TRIES = 30


@dataclass(frozen=True)
class Slot:
    """One proposal to be made."""

    position: int
    domain: str
    source: str  # llm | random
    kind: str  # choice | code


@dataclass
class Proposal:
    """A slot with what came of it."""

    slot: Slot
    attempt: int
    parent: str
    status: str = "unusable"
    cause: str = ""
    edit: Edit | None = None
    candidate: Candidate | None = None
    statement: str = ""
    prediction: Mapping[str, Any] | None = None
    tests: int | None = None  # a known hypothesis that it is an experiment for, instead of one of its own


def design(campaign: Campaign, cycle: int, context: str) -> list[str]:
    """Admits up to ``design.proposals`` new candidates and returns their hashes.

    A refused proposal goes back to the model once, with the reason. What is still missing then is made by random
    operators (``design.fill``). Nothing is written before the phase is complete, except the LLM calls.

    Raises:
        LLMError: the model cannot be reached, or not one of its answers in the whole cycle could be used.
    """
    done = campaign.store.done(cycle, "design")
    if done is not None:
        return list(done["admitted"])
    return _Design(campaign, cycle, context).run()


class _Design:
    """The state of one Design phase."""

    def __init__(self, campaign: Campaign, cycle: int, context: str) -> None:
        self.campaign, self.cycle, self.context = campaign, cycle, context
        self.store, self.config = campaign.store, campaign.config.design
        self.population = campaign.population()
        self.incumbent = campaign.incumbent()
        self.taken: set[str] = set()  # by proposals of this cycle
        self.labels = campaign.labels
        # After a failed Design the same questions must not get the same recorded answers again.
        self.round = 2 * self.store.count_events(cycle, "design", "failed")
        self.made: list[Proposal] = []
        self._open_hypotheses = functools.cache(self._waiting_hypotheses)  # nothing is written before the phase ends

    def run(self) -> list[str]:
        slots = self._slots()
        refused = [p for p in self._ask_all([s for s in slots if s.source == "llm"]) if p.status != "admitted"]
        for proposal in refused:
            self._repair(proposal)
        self._check_usable()
        admitted = [p for p in self.made if p.status == "admitted"]
        for slot in slots:
            if slot.source == "random" or (self.config.fill and not any(p.slot == slot for p in admitted)):
                self._random(slot)
        return self._write()

    # -- what to ask for ----------------------------------------------------------------------------------------------

    def _slots(self) -> list[Slot]:
        """Domains by the agenda's shares (largest remainder, none forgotten), kinds and sources by their shares."""
        total = self.config.proposals
        shares = self.campaign.agenda()
        counts = {n: int(total * s) for n, s in shares.items()}
        by_remainder = sorted(shares, key=lambda n: total * shares[n] - counts[n], reverse=True)
        for name in by_remainder[: total - sum(counts.values())]:
            counts[name] += 1
        if total >= len(counts):
            for name in [n for n, c in counts.items() if c == 0]:
                counts[max(counts, key=lambda n: counts[n])] -= 1
                counts[name] += 1
        names = [n for n, c in counts.items() for _ in range(c)]
        rng = self.campaign.rng("slots", self.cycle)
        at_random = self._drawn(range(total), self.config.random_share if self.campaign.llm else 1.0, rng)
        able = [i for i, n in enumerate(names) if i not in at_random and self.campaign.domains[n].baseline().files]
        code = self._drawn(able, self.config.code_share, rng)
        return [
            Slot(i, name, "random" if i in at_random else "llm", "code" if i in code else "choice")
            for i, name in enumerate(names)
        ]

    def _drawn(self, positions: Sequence[int], share: float, rng: np.random.Generator) -> set[int]:
        """A share of all proposals, drawn among these positions; a fractional part is one more with that chance."""
        wanted = self.config.proposals * share
        count = int(wanted) + int(rng.random() < wanted - int(wanted))
        return set(rng.permutation(list(positions))[:count].tolist()) if positions else set()

    def _parent(self, domain: str, *stream: str | int) -> str:
        """The incumbent, to be refined, or the winner of a tournament over all valued candidates: a component that is
        good elsewhere, cheap or novel."""
        if not self.population:
            return self.campaign.baseline.hash
        rng = self.campaign.rng("parent", self.cycle, domain, *stream)
        if rng.random() < self.config.exploit_share:
            return self.incumbent.hash
        return self.population.select(self.config.tournament_size, rng, self.config.selection == "scalar")

    # -- asking the model ---------------------------------------------------------------------------------------------

    def _ask_all(self, slots: list[Slot]) -> list[Proposal]:
        groups: dict[tuple[str, str], list[Slot]] = {}
        for slot in slots:
            groups.setdefault((slot.domain, slot.kind), []).append(slot)
        proposals = []
        for (domain, kind), members in groups.items():
            for start in range(0, len(members), _BATCH):
                batch = members[start : start + _BATCH]
                parent = self._parent(domain, kind, start)
                for slot, answer in zip(batch, self._ask(batch, parent, "", 0), strict=True):
                    proposals.append(self._judge(Proposal(slot, 0, parent), answer))
                    self._show(proposals[-1])
        return proposals

    def _repair(self, refused: Proposal) -> None:
        slot = refused.slot
        (answer,) = self._ask([slot], refused.parent, refused.cause, 1)
        self._show(self._judge(Proposal(slot, 1, refused.parent), answer))

    def _ask(self, slots: list[Slot], parent: str, error: str, attempt: int) -> list[Answer]:
        llm = self.campaign.llm
        assert llm is not None
        slot = slots[0]
        domain = self.campaign.domains[slot.domain]
        component = self.store.candidate(parent)[slot.domain]
        benchmark = self.campaign.benchmark
        system = render(
            "design_system",
            metric=benchmark.metric,
            maximize=benchmark.maximize,
            costs=", ".join(benchmark.costs),
            domain=slot.domain,
            kind=slot.kind,
            tests=bool(self._open_hypotheses(slot.domain)),
            operations=slot.kind == "code" and _operations(domain, self._code_file(component, slot.domain)) is not None,
            description=domain.describe(),
        )
        user = render(
            "design_user",
            context=self.context,
            parent=self.labels[parent],
            params=thaw(component.params),
            files=self._shown_files(component, slot),
            error=error[:600],
            domain=slot.domain,
        )
        config = self.campaign.config.llm
        request = Request(
            keys=tuple(f"design/{self.cycle}/{self.round + attempt}/{s.position}" for s in slots),
            messages=[{"role": "system", "content": system}, {"role": "user", "content": user}],
            schema=self._schema(domain, component, slot.kind),
            temperature=config.temperature_design,
            max_tokens=config.max_code_tokens if slot.kind == "code" else config.max_tokens,
            seed=self.campaign.seed("design", self.cycle, self.round + attempt, slot.position),
        )
        return ask(llm, self.store, request, "design", self.cycle)

    def _shown_files(self, component: Component, slot: Slot) -> dict[str, str]:
        """The one file a code proposal is about; which one is drawn, so that the prompt stays short."""
        if slot.kind != "code":
            return {}
        path = self._code_file(component, slot.domain)
        return {path: component.files[path]}

    def _code_file(self, component: Component, domain: str) -> str:
        paths = list(component.files)
        return paths[int(self.campaign.rng("file", self.cycle, domain).integers(len(paths)))]

    def _schema(self, domain: Domain, component: Component, kind: str) -> dict[str, Any]:
        benchmark = self.campaign.benchmark
        statement: dict[str, Any] = {"statement": {"type": "string", "maxLength": 200}}
        prediction = {
            "metric": {"enum": [benchmark.metric, *benchmark.costs]},
            "direction": {"enum": ["decrease", "increase"]},
            "minimum_effect": {"enum": list(EFFECTS)},
        }
        if kind == "choice":
            options = [_assignment(p.name, v) for p in domain.space for v in p.options(component.params[p.name])]
            change: dict[str, Any] = {"change_1": {"enum": options}, "change_2": {"enum": ["none", *options]}}
        else:
            path = self._code_file(component, domain.name)
            change = {"file": {"enum": [path]}}
            if (operations := _operations(domain, path)) is not None:
                change["operations"] = operations
            else:
                change |= {
                    "edit": {"enum": ["rewrite", "replace"]},
                    "search": {"type": "string", "maxLength": 2000},
                    "content": {"type": "string", "maxLength": 6000},
                }
        known = [f"H{i}" for i in self._open_hypotheses(domain.name)]
        tests = {"tests": {"enum": ["new", *known]}} if known else {}
        properties = {**statement, **tests, **change, **prediction}
        return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}

    def _waiting_hypotheses(self, domain: str) -> list[int]:
        """Hypotheses of a domain that wait for an experiment: a person's, and those that an analysis put forward."""
        if not self.campaign.config.analyze.hypotheses:
            return []
        pinned = self.store.pinned()
        rows = self.store.newest_hypotheses(("active", "inconclusive"), 24)
        rows += [h for h in self.store.hypotheses(sorted(pinned)) if h["id"] not in {r["id"] for r in rows}]
        waiting = [h for h in rows if h["domain"] == domain and (h["id"] in pinned or h["key"].startswith("analyze/"))]
        return [h["id"] for h in waiting][-6:]

    # -- judging answers ----------------------------------------------------------------------------------------------

    def _judge(self, proposal: Proposal, answer: Answer) -> Proposal:
        self.made.append(proposal)
        if answer.value is None:
            proposal.cause = answer.problem
            return proposal
        value = answer.value
        proposal.statement = " ".join(str(value["statement"]).split())
        proposal.prediction = {
            "metric": value["metric"],
            "direction": value["direction"],
            "minimum_effect": EFFECTS[value["minimum_effect"]],
        }
        if value.get("tests", "new") != "new":
            proposal.tests = int(str(value["tests"])[1:])
        try:
            domain = self.campaign.domains[proposal.slot.domain]
            proposal.edit = _choice_edit(domain, value) if proposal.slot.kind == "choice" else _code_edit(value)
        except (InvalidEdit, InvalidCandidate) as error:
            proposal.status, proposal.cause = "invalid", str(error)
            return proposal
        return self._admit(proposal)

    def _admit(self, proposal: Proposal) -> Proposal:
        """Applies the edit; refuses what is invalid, known, or nearer than ``design.min_novelty`` to what is known."""
        domain = self.campaign.domains[proposal.slot.domain]
        parent = self.store.candidate(proposal.parent)
        assert proposal.edit is not None
        try:
            child = domain.apply(parent[domain.name], proposal.edit)
            domain.validate(child)
            candidate = self.incumbent.replace(child)
            self.campaign.check(candidate)
        except (InvalidEdit, InvalidCandidate, ValueError, TypeError) as error:
            proposal.status, proposal.cause = "invalid", str(error)
            return proposal
        if child == parent[domain.name]:
            proposal.status, proposal.cause = "duplicate", "the change leaves the parent as it is"
            return proposal
        if candidate.hash in self.taken or candidate.hash in self.store.numbers:
            known = self.labels.get(candidate.hash, "another proposal of this cycle")
            proposal.status, proposal.cause = "duplicate", f"the same as {known}"
            return proposal
        if self.config.min_novelty > 0:
            nearest, distance = self.population.nearest(candidate)
            if nearest is not None and distance < self.config.min_novelty:
                proposal.status = "duplicate"
                proposal.cause = f"too near to {self.labels[nearest]} (distance {distance:.3f})"
                return proposal
        self.taken.add(candidate.hash)
        proposal.status, proposal.candidate = "admitted", candidate
        return proposal

    def _random(self, slot: Slot) -> None:
        domain = self.campaign.domains[slot.domain]
        for tries in range(_RANDOM_TRIES):
            parent = self._parent(slot.domain, "random", slot.position, tries)
            rng: np.random.Generator = self.campaign.rng("mutate", self.cycle, slot.position, tries)
            component = self.store.candidate(parent)[slot.domain]
            edit = domain.mutate(component, rng)
            made = Proposal(replace(slot, source="random", kind="choice"), 0, parent, edit=edit)
            changes = ", ".join(_assignment(n, v) for n, v in thaw(edit.params).items()) or "a random code edit"
            metric = self.campaign.benchmark.metric
            made.statement = f"In the {slot.domain} domain, {changes} improves {metric}."
            direction = "increase" if self.campaign.benchmark.maximize else "decrease"
            made.prediction = {"metric": metric, "direction": direction, "minimum_effect": EFFECTS["0.5%"]}
            if self._admit(made).status == "admitted":
                self.made.append(made)
                self._show(made)
                return
        self.campaign.emit("warning", self.cycle, f"{slot.domain}: random operators found nothing new")

    # -- writing ------------------------------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        """Garbage for every proposal is an error to act on, not something to paper over with random operators."""
        asked = [p for p in self.made if p.slot.source == "llm"]
        if not asked or any(p.status in ("admitted", "duplicate") for p in asked):
            return
        cause = asked[-1].cause
        with self.store.transaction():
            self._write_proposals()
            self.store.log(self.cycle, "design", "failed", {"cause": cause, "answers": len(asked)})
        raise LLMError(
            f"LLM: none of {len(asked)} answers in cycle {self.cycle} could be used; the last was refused with: {cause}"
        )

    def _write_proposals(self, hashes: bool = False) -> None:
        for p in self.made:
            self.store.add_proposal(
                cycle=self.cycle,
                position=p.slot.position,
                attempt=p.attempt,
                source=p.slot.source,
                kind=p.slot.kind,
                domain=p.slot.domain,
                parent=p.parent,
                status=p.status,
                cause=p.cause[:2000],
                candidate=p.candidate.hash if hashes and p.candidate else None,
            )

    def _write(self) -> list[str]:
        admitted = [p for p in self.made if p.candidate is not None]
        admitted.sort(key=lambda p: p.slot.position)
        with self.store.transaction():
            for p in admitted:
                assert p.candidate is not None
                assert p.edit is not None
                assert p.prediction is not None
                hypothesis = p.tests or self.store.add_hypothesis(
                    f"design/{self.cycle}/{p.slot.position}",
                    cycle=self.cycle,
                    domain=p.slot.domain,
                    statement=p.statement or "(no statement)",
                    mechanism=_mechanism(p.edit),
                    prediction=dict(p.prediction),
                    provenance=p.slot.source,
                )
                self.store.add_candidate(
                    p.candidate,
                    self.cycle,
                    p.slot.source,
                    p.slot.domain,
                    [self.incumbent.hash, *({p.parent} - {self.incumbent.hash})],
                    p.edit.to_json(),
                    hypothesis,
                )
            self._write_proposals(hashes=True)
            hashes = [p.candidate.hash for p in admitted if p.candidate]
            self.store.log(self.cycle, "design", "done", {"admitted": hashes})
        return hashes

    def _show(self, p: Proposal) -> None:
        self.campaign.emit(
            "proposal",
            self.cycle,
            p.cause or p.statement,
            status=p.status,
            source=p.slot.source,
            domain=p.slot.domain,
            proposal_kind=p.slot.kind,
        )


def _assignment(name: str, value: Any) -> str:
    return f"{name}={value}"


def _mechanism(edit: Edit) -> str:
    """What an edit touches: parameter and file names."""
    return ", ".join([*edit.params, *edit.files, *dict.fromkeys(b.path for b in edit.blocks)])


def _choice_edit(domain: Domain, answer: Mapping[str, Any]) -> Edit:
    params: dict[str, Any] = {}
    for field in ("change_1", "change_2"):
        if answer[field] == "none":
            continue
        name, _, text = str(answer[field]).partition("=")
        if name in params:
            raise InvalidEdit(f"change_1 and change_2 both set {name}")
        params[name] = _parse(domain, name, text)
    return Edit(params=params)


def _parse(domain: Domain, name: str, text: str) -> Any:
    """The value behind an option's text: the inverse of :func:`_assignment` within the parameter's type."""
    parameter = domain.space[name]
    schema = parameter.schema()
    if "enum" in schema:
        for value in schema["enum"]:
            if str(value) == text:
                return value
        raise InvalidCandidate(f"{name}: {text!r} is not one of {', '.join(map(str, schema['enum']))}")
    try:
        return int(text) if schema["type"] == "integer" else float(text)
    except ValueError:
        raise InvalidCandidate(f"{name}: {text!r} is not a number") from None


def _operations(domain: Domain, path: str) -> Mapping[str, Any] | None:
    """Schema of the edits that a domain takes instead of text for a file; None for the most."""
    ask_for = getattr(domain, "operations_schema", None)
    schema: Mapping[str, Any] | None = None if ask_for is None else ask_for(path)
    return schema


def _code_edit(answer: Mapping[str, Any]) -> Edit:
    if "operations" in answer:
        return Edit(files={answer["file"]: json.dumps({"operations": answer["operations"]})})
    path, content = answer["file"], answer["content"]
    if not content.strip():
        raise InvalidEdit("content: empty")
    if answer["edit"] == "rewrite":
        return Edit(files={path: content if content.endswith("\n") else content + "\n"})
    if not answer["search"].strip():
        raise InvalidEdit("search: empty; copy the lines to replace from the file, or use edit = rewrite")
    return Edit(blocks=(Block(path, answer["search"], content),))
