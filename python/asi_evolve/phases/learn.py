"""Learn: what is known, as text of bounded length for the prompts of Design and Analyze."""

from __future__ import annotations

import functools

from asi_evolve.campaign import Campaign
from asi_evolve.candidate import Component
from asi_evolve.ledger import Ledger
from asi_evolve.steering import take_in

# Bytes per token of English and code under byte-pair tokenisers is 3 to 4; 3 errs on the safe side.
BYTES_PER_TOKEN = 3


def learn(campaign: Campaign, cycle: int) -> str:
    """The context of a cycle; see :func:`assemble`."""
    done = campaign.store.done(cycle, "learn")
    if done is not None:
        return str(done["context"])
    if campaign.directory is not None:
        take_in(campaign, cycle, campaign.directory)
    context = assemble(campaign)
    campaign.store.log(cycle, "learn", "done", {"context": context})
    return context


def assemble(campaign: Campaign) -> str:
    """What is known now, in at most ``llm.max_context_tokens`` tokens by a cautious estimate.

    Sections in order of importance: the best candidates by Pareto rank, notes of the researcher, the state of the
    hypotheses, tested explanations, the last analysis, recent failures. Later sections give way first.
    """
    hypotheses = _hypotheses(campaign) if campaign.config.analyze.hypotheses else []
    sections = [
        _front(campaign),
        _notes(campaign),
        hypotheses,
        _explanations(campaign),
        _analysis(campaign),
        _failures(campaign, campaign.ledger()),
    ]
    return bounded(sections, campaign.config.llm.max_context_tokens * BYTES_PER_TOKEN)


def bounded(sections: list[list[str]], limit: int) -> str:
    """Sections (heading first) joined, whole lines only, within ``limit`` bytes of UTF-8."""
    lines: list[str] = []
    used = 0
    for section in sections:
        for number, line in enumerate(section):
            size = len(line.encode("utf-8")) + 1
            if len(section) < 2 or used + size > limit:
                break
            if number == 0 and used + size + len(section[1].encode("utf-8")) + 1 > limit:
                break  # a heading alone says nothing
            lines.append(line)
            used += size
    return "\n".join(lines)


def _front(campaign: Campaign) -> list[str]:
    lines = [
        f"Best candidates so far (improvement in {campaign.benchmark.metric} over the baseline, positive is better):"
    ]
    for candidate, fitness in campaign.population().best(8):
        triple = campaign.store.candidate(candidate)
        changes = "; ".join(
            f"{name}: {_brief(campaign.baseline[name], triple[name])}" for name in triple.changed(campaign.baseline)
        )
        lines.append(
            f"{campaign.labels[candidate]} ({fitness.stage}): improvement {fitness.performance:+.4f}, "
            f"cost x{fitness.cost:.2f}, changes {changes or 'nothing, the baseline'}"
        )
    return lines


@functools.lru_cache(maxsize=4096)
def _brief(before: Component, after: Component) -> str:
    """Parameter changes in full, file diffs by name only."""
    parts = []
    for line in before.diff(after).splitlines():
        if line.startswith("+++ "):
            parts.append(f"code of {line[4:].removeprefix('b/').strip()}")
        elif line.startswith(("---", "@@", "+", "-", " ")) or not line:
            continue
        else:
            parts.append(line)
    return ", ".join(parts)[:240]


def _hypotheses(campaign: Campaign) -> list[str]:
    order = ("supported", "active", "refuted", "inconclusive", "retired")
    pinned = campaign.store.pinned()
    own = campaign.store.hypotheses(sorted(pinned)) if pinned else []
    rows = [r for r in campaign.store.newest_hypotheses(order, 8, by_status=True) if r["id"] not in pinned]
    lines = ["Hypotheses:"]
    lines += [f"H{r['id']} ({r['domain']}, {r['status']}, pinned): {r['statement'][:160]}" for r in own]
    for row in sorted(rows, key=lambda r: (order.index(r["status"]), -r["id"])):
        lines.append(f"H{row['id']} ({row['domain']}, {row['status']}): {row['statement'][:160]}")
    return lines


def _notes(campaign: Campaign) -> list[str]:
    rows = [d["payload"] for d in campaign.store.steering() if d["action"] == "note"][-4:]
    return ["Notes of the researcher:", *(" ".join(f"{n['title']}: {n['text']}".split())[:300] for n in rows)]


def _explanations(campaign: Campaign) -> list[str]:
    """Tested ones, newest first: what is known to have been the reason, and what is known not to have been."""
    if not campaign.config.analyze.language_model:
        return []
    said = {"supported": "confirmed by experiment", "refuted": "found to be wrong by experiment"}
    rows = campaign.store.decided_explanations(4)
    labels = campaign.labels
    return [
        "Explanations that were tested:",
        *(
            f"{labels[e['candidate']]} is better than {labels[e['reference']]} because of {e['mechanism']}: "
            f"{said[e['status']]}"
            for e in rows
        ),
    ]


def _analysis(campaign: Campaign) -> list[str]:
    last = campaign.store.last_analysis()
    if last is None:
        return []
    return [f"Analysis of cycle {last['cycle']}:", *last["facts"]["lines"][:6], last["interpretation"][:400]]


def _failures(campaign: Campaign, ledger: Ledger) -> list[str]:
    if not ledger.failures:
        return []
    kinds = sorted(ledger.failures.items(), key=lambda item: (-item[1], item[0]))
    lines = ["Failures so far: " + ", ".join(f"{kind} {n}" for kind, n in kinds)]
    for e in ledger.recent_failures[-3:]:
        reason = e.message.strip().splitlines()[-1] if e.message.strip() else ""
        lines.append(f"{campaign.labels[e.candidate]} failed ({e.failure}): {reason[:160]}")
    return lines
