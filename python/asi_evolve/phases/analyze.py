"""Analyze: what the cycle showed. Facts by code, evidence by statistics, words by the model, and the words checked."""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from asi_evolve.campaign import Campaign
from asi_evolve.evidence import measure, verdict
from asi_evolve.fitness import noise_interval
from asi_evolve.ledger import Ledger
from asi_evolve.llm.base import Request
from asi_evolve.llm.prompts import render
from asi_evolve.llm.structured import ask
from asi_evolve.phases.explain import mechanisms

_WINDOW = 3  # cycles that count as recent
_PRIORITY_FACTOR = 1.5  # how far the model's order may bend the measured shares


def analyze(campaign: Campaign, cycle: int, context: str) -> None:
    """Writes evidence, hypothesis states, an interpretation with its checked claims, and the next agenda.

    Raises:
        LLMError: the model cannot be reached.
    """
    store = campaign.store
    if store.done(cycle, "analyze") is not None:
        return
    ledger = campaign.ledger()
    gains = _gains(campaign, cycle)
    lines = _fact_lines(campaign, ledger, cycle, gains)
    evidence = _evidence(campaign, ledger, cycle)
    explained = _explainable(campaign, ledger, cycle, gains)
    claims_open = _comparisons(campaign, ledger, gains)
    answer = _ask(campaign, cycle, context, lines, gains, explained, claims_open)
    with store.transaction():
        for row in evidence:
            store.add_evidence(**row["evidence"])
            store.set_hypothesis(row["evidence"]["hypothesis"], cycle, row["status"], row["reason"])
        claims = _claims(answer, gains, campaign.labels, claims_open) if answer else []
        if answer:
            _new_hypotheses(campaign, cycle, answer)
            _explanation(campaign, cycle, answer, explained)
        shares, reason = _agenda(campaign, cycle, answer)
        store.add_agenda(cycle + 1, shares, reason, "llm" if answer else "engine")
        store.add_analysis(
            cycle=cycle,
            facts={"lines": lines, "gains": {k: g for k, (_, g) in gains.items()}},
            interpretation=str(answer["interpretation"]).strip() if answer else "",
            claims=claims,
        )
        store.log(cycle, "analyze", "done", {})


Gains = dict[str, tuple[str, float]]  # candidate -> (domain, isolated gain)


def _gains(campaign: Campaign, cycle: int) -> Gains:
    """Isolated gain over its incumbent of every candidate an edit made in this cycle."""
    gains: Gains = {}
    for row in campaign.store.candidates(cycle):
        if row["domain"] is not None and row["parents"]:
            gain = campaign.isolated_gain(row["hash"])
            if gain is not None:
                gains[row["hash"]] = (row["domain"], gain)
    return gains


def _fact_lines(campaign: Campaign, ledger: Ledger, cycle: int, gains: Gains) -> list[str]:
    labels = campaign.labels
    metric = ledger.metric
    lines = []
    for candidate, (domain, gain) in sorted(gains.items(), key=lambda item: -item[1][1]):
        value = fmean(m[metric] for m in ledger.results(candidate, "isolated").values())
        lines.append(f"{labels[candidate]} ({domain}, isolated): {metric} {value:.4f}, improvement {gain:+.4f}")
    for row in campaign.store.candidates(cycle):
        if row["origin"] == "cross":
            for stage in ("cross", "full"):
                values = ledger.improvement(row["hash"], stage)
                if values:
                    lines.append(
                        f"{labels[row['hash']]} (triple, {stage}): improvement over the baseline {fmean(values):+.4f}"
                        f" on {len(values)} seed{'s' if len(values) > 1 else ''}"
                    )
    failed = [e for e in ledger.evaluations if e.cycle == cycle and not e.ok]
    lines += [f"{labels[e.candidate]} ({e.stage}) failed: {e.failure}" for e in failed]
    lines.append(f"The incumbent is {labels[ledger.incumbent(campaign.config.seeds('full'))]}.")
    return lines


# -- evidence ---------------------------------------------------------------------------------------------------------


def _evidence(campaign: Campaign, ledger: Ledger, cycle: int) -> list[dict[str, Any]]:
    """A paired comparison for each hypothesis whose candidate was measured in this cycle, tested one after the other
    under the run's false-discovery control."""
    tested = [r for r in campaign.store.candidates(cycle) if r["hypothesis"] is not None and r["parents"]]
    hypotheses = {h["id"]: h for h in campaign.store.hypotheses([r["hypothesis"] for r in tested])}
    control = copy.deepcopy(campaign.false_discovery_control())  # what is tested here is not stored yet
    noise = functools.cache(ledger.noise)  # over all repeats of the run
    rows = []
    for row in tested:
        prediction = hypotheses[row["hypothesis"]]["prediction"]
        reference = row["parents"][0]
        changes = ledger.effect(row["hash"], reference, "isolated", prediction["metric"])
        if not changes:
            continue
        sign = -1.0 if prediction["direction"] == "decrease" else 1.0
        effect = measure([sign * x for x in changes], noise(prediction["metric"]))
        interval = noise_interval(changes, noise(prediction["metric"]))
        level = control.level()
        status, reason = verdict(effect, level, prediction)
        if effect.p_value is not None:
            control.test(effect.p_value)
        rows.append(
            {
                "status": status,
                "reason": reason,
                "evidence": {
                    "hypothesis": row["hypothesis"],
                    "cycle": cycle,
                    "candidate": row["hash"],
                    "reference": reference,
                    "stage": "isolated",
                    "metric": prediction["metric"],
                    "effect": interval.mean,
                    "low": interval.low if math.isfinite(interval.low) else None,
                    "high": interval.high if math.isfinite(interval.high) else None,
                    "seeds": interval.n,
                    "p_value": effect.p_value,
                    "level": None if effect.p_value is None else level,
                },
            }
        )
    return rows


# -- the model's part -------------------------------------------------------------------------------------------------


def _explainable(campaign: Campaign, ledger: Ledger, cycle: int, gains: Gains) -> tuple[str, str, list[str]] | None:
    """What is to be explained: the best of this cycle's triples against the baseline, else its best candidate against
    what it was made from, with what sets the two apart."""
    store, baseline = campaign.store, campaign.baseline.hash
    for stage in ("full", "cross"):
        better = [
            (fmean(x), -row["id"], row["hash"])
            for row in store.candidates(cycle)
            if row["origin"] == "cross" and (x := ledger.improvement(row["hash"], stage)) and fmean(x) > 0
        ]
        if better:
            pair = max(better)[2], baseline
            break
    else:
        best = max(gains, key=lambda c: gains[c][1], default=None)
        if best is None or gains[best][1] <= 0:
            return None
        pair = best, store.candidate_row(best)["parents"][0]
    return *pair, mechanisms(store.candidate(pair[0]), store.candidate(pair[1]))


_COMPARED = 6  # candidates that the model may compare


def _comparisons(campaign: Campaign, ledger: Ledger, gains: Gains) -> dict[str, dict[str, Any]]:
    """Statements "C3 better than C5" on this cycle's candidates, with their evaluations and whether they are true."""
    names = list(gains)[:_COMPARED]
    found = {}
    for one, other in itertools.permutations(names, 2):
        found[f"{campaign.labels[one]} better than {campaign.labels[other]}"] = {
            "subject": campaign.labels[one],
            "metric": ledger.metric,
            "comparison": "better than",
            "object": campaign.labels[other],
            "evaluations": [[c, "isolated", s] for c in (one, other) for s in sorted(ledger.results(c, "isolated"))],
            "true": gains[one][1] > gains[other][1],
        }
    return found


def _ask(
    campaign: Campaign,
    cycle: int,
    context: str,
    lines: Sequence[str],
    gains: Gains,
    explained: tuple[str, str, list[str]] | None,
    comparisons: Mapping[str, Any],
) -> Mapping[str, Any] | None:
    """The model's answer, or None without a model or without a usable answer in two tries."""
    llm = campaign.llm
    if llm is None or not campaign.config.analyze.language_model:
        return None
    labels = campaign.labels
    hypotheses = []
    if campaign.config.analyze.hypotheses:
        hypotheses = campaign.store.newest_hypotheses(("active", "supported", "inconclusive"), 12)
    pinned = campaign.store.pinned()
    retirable = [h for h in hypotheses if h["id"] not in pinned]
    domains = list(campaign.domains)
    orders = [" > ".join(order) for order in itertools.islice(itertools.permutations(domains), 24)]
    properties = {
        "interpretation": {"type": "string", "maxLength": 400},
        "best": {"enum": [labels[c] for c in gains] or ["none"]},
        "helped": {"enum": domains},
        "comparison": {"enum": ["none", *comparisons]},
        "because": {"enum": ["unknown", *(explained[2] if explained else ())]},
        "priority": {"enum": orders},
        "retire": {"enum": ["none", *(f"H{h['id']}" for h in retirable)]},
        "new_statement": {"type": "string", "maxLength": 200},
        "new_domain": {"enum": domains},
    }
    benchmark = campaign.benchmark
    system = render("analyze_system", metric=benchmark.metric, maximize=benchmark.maximize)
    user = render(
        "analyze_user",
        context=context,
        cycle=cycle,
        facts=lines,
        explained=None if explained is None else [labels[explained[0]], labels[explained[1]]],
        mistakes=_mistakes(campaign),
        hypotheses=[f"H{h['id']} ({h['domain']}, {h['status']}): {h['statement'][:160]}" for h in hypotheses],
    )
    config = campaign.config.llm
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    error = ""
    for attempt in range(2):
        prompt = user + (f"\n\nYour last answer was refused: {error}" if error else "")
        request = Request(
            keys=(f"analyze/{cycle}/{attempt}/0",),
            messages=[{"role": "system", "content": system}, {"role": "user", "content": prompt}],
            schema=schema,
            temperature=config.temperature_analyze,
            max_tokens=config.max_tokens,
            seed=campaign.seed("analyze", cycle, attempt),
        )
        (answer,) = ask(llm, campaign.store, request, "analyze", cycle)
        if answer.value is not None:
            return answer.value
        error = answer.problem
    campaign.emit("warning", cycle, f"no usable analysis from the LLM: {error}")
    return None


def _mistakes(campaign: Campaign) -> list[str]:
    """The false statements of the last analysis, beside the facts."""
    last = campaign.store.last_analysis()
    claims = last["claims"] if last else []
    return [f"{c['claim']}: you said {c['said']}, the table says {c['fact']}" for c in claims if c["said"] != c["fact"]]


def _claims(
    answer: Mapping[str, Any], gains: Gains, labels: Mapping[str, str], comparisons: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The checkable statements of an answer beside what the table says. A false one is kept as what it is: a mistake to
    be counted and shown to the model, never as knowledge."""
    if not gains:
        return []
    best = max(gains, key=lambda c: gains[c][1])
    totals: dict[str, list[float]] = {}
    for domain, gain in gains.values():
        totals.setdefault(domain, []).append(gain)
    helped = max(totals, key=lambda d: fmean(totals[d]))
    checked: list[dict[str, Any]] = [
        {"claim": "best candidate of the cycle", "said": answer["best"], "fact": labels[best]},
        {"claim": "domain that helped most", "said": answer["helped"], "fact": helped},
    ]
    if answer["comparison"] in comparisons:
        stated = comparisons[answer["comparison"]]
        fact = answer["comparison"] if stated["true"] else f"{stated['object']} better than {stated['subject']}"
        checked.append({"claim": "comparison", "said": answer["comparison"], "fact": fact, "stated": dict(stated)})
    return checked


def _explanation(
    campaign: Campaign, cycle: int, answer: Mapping[str, Any], explained: tuple[str, str, list[str]] | None
) -> None:
    if explained is not None and answer["because"] in explained[2]:
        campaign.store.add_explanation(
            cycle=cycle,
            candidate=explained[0],
            reference=explained[1],
            mechanism=answer["because"],
            provenance="llm",
        )


def _new_hypotheses(campaign: Campaign, cycle: int, answer: Mapping[str, Any]) -> None:
    store = campaign.store
    if answer["retire"] != "none":
        store.set_hypothesis(int(str(answer["retire"])[1:]), cycle, "retired", "retired by the analysis")
    statement = " ".join(str(answer["new_statement"]).split())
    if statement:
        benchmark = campaign.benchmark
        store.add_hypothesis(
            f"analyze/{cycle}",
            cycle=cycle,
            domain=answer["new_domain"],
            statement=statement,
            mechanism="",
            prediction={
                "metric": benchmark.metric,
                "direction": "increase" if benchmark.maximize else "decrease",
                "minimum_effect": 0.005,
            },
            provenance="llm",
        )


# -- agenda -----------------------------------------------------------------------------------------------------------


def _agenda(campaign: Campaign, cycle: int, answer: Mapping[str, Any] | None) -> tuple[dict[str, float], str]:
    """Shares of the next cycle's proposals.

    Half is spread evenly, so that no domain is starved; half follows the best recent isolated gain per candidate tried
    (not per second: what the clock says would make every replay another campaign). The model's order then multiplies
    by 1.5 (first) down to 1 / 1.5 (last).
    """
    progress = {}
    for name in campaign.domains:
        best, tried = 0.0, 0
        for past in range(max(0, cycle - _WINDOW + 1), cycle + 1):
            gains = [g for d, g in _gains(campaign, past).values() if d == name]
            best = max([best, *gains])
            tried += sum(row["domain"] == name for row in campaign.store.candidates(past))
        progress[name] = best / tried if tried else 0.0
    human = campaign.store.human_agenda()
    if human is not None:
        return human, "set by hand; " + ", ".join(f"{d} {x:.2g}" for d, x in progress.items()) + " would be the gains"
    total = sum(progress.values())
    n = len(progress)
    shares = {d: 0.5 / n + (0.5 * x / total if total > 0 else 0.5 / n) for d, x in progress.items()}
    reason = "best recent gain per candidate: " + ", ".join(f"{d} {x:.2g}" for d, x in progress.items())
    if answer and n > 1:
        order = str(answer["priority"]).split(" > ")
        for place, name in enumerate(order):
            shares[name] *= _PRIORITY_FACTOR ** (1 - 2 * place / (n - 1))
        reason += f"; the LLM's order: {answer['priority']}"
    whole = sum(shares.values())
    return {d: s / whole for d, s in shares.items()}, reason
