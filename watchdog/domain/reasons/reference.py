"""The reference page of all reasons, in Markdown. docs/reasons.md is its output."""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.domain.reasons import CATALOGUE, TRANSPORT_FAMILIES, Reason, ReasonScope, family

_INTRODUCTION = """\
# Reasons and what to do about them

A reason is why a run failed, an incident opened, or a notification was not delivered: a stable code,
`family.cause`. The JSON of `watchdog probe` and `watchdog incidents`, webhooks and pages carry it. A code is never
given another meaning. The message beside it is for people and may be reworded at any time.
"""

_SECTIONS = {
    "Why a run fails": (
        (ReasonScope.FAILURE,),
        "The outcome is `fail`: the target is not right. `failure_threshold` of these in a row open an incident.",
    ),
    "Why a run cannot be judged": (
        (ReasonScope.ERROR,),
        "The outcome is `error`: the fault is Watchdog's own. The target's state does not change; `failure_threshold` "
        "of these in a row open an incident of the rule `no_verdict`.",
    ),
    "Why a slot is missed": (
        (ReasonScope.MISSED,),
        "The outcome is `missed`: there was no run, so it is no evidence for or against the target.",
    ),
    "Other reasons why an incident opens": (
        (ReasonScope.FINDING, ReasonScope.NO_DATA),
        "Incidents of the rules `availability` and `no_verdict` have the reason of the run that opened them. The other "
        "rules:",
    ),
    "How an incident ends": (
        (ReasonScope.RESOLUTION,),
        "The resolution is empty when the finding recovered. Otherwise:",
    ),
    "Why a notification is not delivered": (
        (ReasonScope.DELIVERY,),
        "Deliveries are retried for three days and then kept as undelivered. A fault of the configuration (a key, a "
        "channel, a proxy) is retried for an hour; a refusal of the content is final at once. Besides the transport "
        "families above:",
    ),
    "Why a remediation fails": (
        (ReasonScope.REMEDIATION,),
        "The incident's page shows what a remediation did, when, and with what result. It runs once, whatever the "
        "result. Besides the reasons of connections, databases and MCP servers above:",
    ),
    "Why a request to the operators' pages is refused": ((ReasonScope.ACCESS,), ""),
}


def render_reasons_page() -> str:
    return "\n".join([_INTRODUCTION, *_render_sections()])


def _render_sections() -> Iterator[str]:
    for heading, (scopes, introduction) in _SECTIONS.items():
        yield f"## {heading}\n"
        if introduction:
            yield f"{introduction}\n"
        entries = [entry for entry in CATALOGUE.values() if entry.scope in scopes]
        transport = [entry for entry in entries if family(entry.code) in TRANSPORT_FAMILIES]
        if scopes == (ReasonScope.FAILURE,):
            yield "### Connection and response\n"
            yield _render_table(transport)
            yield "### Checks, queues and jobs\n"
            entries = [entry for entry in entries if entry not in transport]
        yield _render_table(entries)


def _render_table(entries: list[Reason]) -> str:
    rows = [f"| `{entry.code}` | {entry.title} | {entry.explanation} | {entry.advice} |" for entry in entries]
    return "\n".join(["| reason | title | what happened | what to do |", "|---|---|---|---|", *rows, ""])
