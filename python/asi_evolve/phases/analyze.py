"""Analyze: what the cycle showed. Facts by code, evidence by statistics, words by the model, and the words checked."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from asi_evolve.campaign import Campaign
from asi_evolve.fitness import Interval
from asi_evolve.ledger import Ledger
from asi_evolve.llm.base import Request
from asi_evolve.llm.prompts import render
from asi_evolve.llm.structured import ask

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
    answer = _ask(campaign, cycle, context, lines, gains)
    with store.transaction():
        for row in evidence:
            store.add_evidence(**row["evidence"])
            store.set_hypothesis(row["evidence"]["hypothesis"], cycle, row["status"], row["reason"])
        claims = _claims(answer, gains, campaign.labels) if answer else []
        if answer:
            _new_hypotheses(campaign, cycle, answer)
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
    """A paired comparison for each hypothesis whose candidate was measured in this cycle."""
    tested = [r for r in campaign.store.candidates(cycle) if r["hypothesis"] is not None and r["parents"]]
    hypotheses = {h["id"]: h for h in campaign.store.hypotheses([r["hypothesis"] for r in tested])}
    rows = []
    for row in tested:
        prediction = hypotheses[row["hypothesis"]]["prediction"]
        reference = row["parents"][0]
        interval = ledger.effect_interval(row["hash"], reference, "isolated", prediction["metric"])
        if interval is None:
            continue
        status, reason = verdict(interval, prediction)
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
                },
            }
        )
    return rows


def verdict(interval: Interval, prediction: Mapping[str, Any]) -> tuple[str, str]:
    """What a measured relative effect says of a prediction (metric, direction, minimum_effect).

    Supported: the mean is at least the minimum effect in the predicted direction and the 95 % interval excludes zero.
    Refuted: the whole interval lies below the minimum effect. Else inconclusive; also when the noise is unknown.
    """
    sign = -1.0 if prediction["direction"] == "decrease" else 1.0
    mean, low, high = sign * interval.mean, sign * interval.low, sign * interval.high
    low, high = min(low, high), max(low, high)
    wanted = float(prediction["minimum_effect"])
    shown = (
        f"{prediction['metric']} {prediction['direction']} by {wanted:.1%} predicted, "
        f"measured {mean:+.2%} in that direction"
    )
    if not (math.isfinite(low) and math.isfinite(high)):
        return "inconclusive", f"{shown}; the noise is not known yet"
    shown += f" [{low:+.2%}, {high:+.2%}], {interval.n} seed{'s' if interval.n > 1 else ''}"
    if mean >= wanted and low > 0:
        return "supported", shown
    if high < wanted:
        return "refuted", shown
    return "inconclusive", shown


# -- the model's part -------------------------------------------------------------------------------------------------


def _ask(campaign: Campaign, cycle: int, context: str, lines: Sequence[str], gains: Gains) -> Mapping[str, Any] | None:
    """The model's answer, or None without a model or without a usable answer in two tries."""
    llm = campaign.llm
    if llm is None:
        return None
    labels = campaign.labels
    hypotheses = campaign.store.newest_hypotheses(("active", "supported", "inconclusive"), 12)
    domains = list(campaign.domains)
    orders = [" > ".join(order) for order in itertools.islice(itertools.permutations(domains), 24)]
    properties = {
        "interpretation": {"type": "string", "maxLength": 400},
        "best": {"enum": [labels[c] for c in gains] or ["none"]},
        "helped": {"enum": domains},
        "priority": {"enum": orders},
        "retire": {"enum": ["none", *(f"H{h['id']}" for h in hypotheses)]},
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


def _claims(answer: Mapping[str, Any], gains: Gains, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """The checkable statements of an answer beside what the table says."""
    if not gains:
        return []
    best = max(gains, key=lambda c: gains[c][1])
    totals: dict[str, list[float]] = {}
    for domain, gain in gains.values():
        totals.setdefault(domain, []).append(gain)
    helped = max(totals, key=lambda d: fmean(totals[d]))
    return [
        {"claim": "best candidate of the cycle", "said": answer["best"], "fact": labels[best]},
        {"claim": "domain that helped most", "said": answer["helped"], "fact": helped},
    ]


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
