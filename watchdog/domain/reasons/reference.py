"""The reference page of all reasons, in Markdown. docs/reasons.md is its output."""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.domain.reasons import (
    REASON_CATALOGUE,
    TRANSPORT_AND_RESPONSE_REASON_FAMILIES,
    ReasonCategory,
    ReasonEntry,
    get_reason_family,
)

_REASONS_PAGE_INTRODUCTION = """\
# Reasons and what to do about them

A reason is a stable code, `family.cause`, that states why a run failed, an incident opened, or a notification was not
delivered. It appears in webhooks, on pages, and in the JSON output of `watchdog probe` and `watchdog incidents`. The
meaning of a code never changes. The message beside it is for people and may be reworded at any time.
"""

_REASONS_PAGE_SECTIONS = {
    "Why a run fails": (
        (ReasonCategory.FAILURE,),
        "The outcome is `fail`: the target has a problem. An incident opens after `failure_threshold` failed runs in a "
        "row.",
    ),
    "Why a run has no verdict": (
        (ReasonCategory.ERROR,),
        "The outcome is `error`: Watchdog could not determine the state of the target, so a single error does not "
        "change its state. After `failure_threshold` errors in a row, a `no_verdict` incident opens, and the state "
        "becomes `unknown`, unless it is already `down`.",
    ),
    "Why a run is missed": (
        (ReasonCategory.MISSED,),
        "The outcome is `missed`: there was no run, so the target was not checked.",
    ),
    "Other reasons why an incident opens": (
        (ReasonCategory.RULE_FINDING_OTHER_THAN_OUTCOME, ReasonCategory.NO_DATA),
        "Incidents of the rules `availability` and `no_verdict` have one of the reasons above. The reasons of the "
        "other rules:",
    ),
    "How an incident ends": (
        (ReasonCategory.RESOLUTION,),
        "The resolution is empty if the finding has recovered. Otherwise:",
    ),
    "Why a notification is not delivered": (
        (ReasonCategory.DELIVERY,),
        "Deliveries are retried for three days, and then marked as undelivered. If the configuration is wrong (a "
        "key, a channel, a proxy), they are retried for an hour. If the receiver refuses the content, they are not "
        "retried. The HTTP statuses 400, 413, 415 and 422 mean that the content is refused. After 408, 425, 429 or any "
        "status outside 4xx, a delivery is retried for three days; after any other 4xx status, for an hour. The "
        'reasons under "Connection and response" also apply to notifications. Other reasons:',
    ),
    "Why a remediation fails": (
        (ReasonCategory.REMEDIATION,),
        "The incident's page shows what a remediation did, when, and with what result. It runs only once, even if it "
        "fails. The reasons above for connections, databases and MCP servers also apply to remediations. Other "
        "reasons:",
    ),
    "Why a request to the operator pages is refused": ((ReasonCategory.ACCESS,), ""),
}


def render_reason_reference_page() -> str:
    return "\n".join([_REASONS_PAGE_INTRODUCTION, *_render_reason_reference_sections()])


def _render_reason_reference_sections() -> Iterator[str]:
    for heading, (scopes, introduction) in _REASONS_PAGE_SECTIONS.items():
        yield f"## {heading}\n"
        if introduction:
            yield f"{introduction}\n"
        entries = [entry for entry in REASON_CATALOGUE.values() if entry.scope in scopes]
        transport = [
            entry for entry in entries if get_reason_family(entry.code) in TRANSPORT_AND_RESPONSE_REASON_FAMILIES
        ]
        if scopes == (ReasonCategory.FAILURE,):
            yield "### Connection and response\n"
            yield _render_reason_table(transport)
            yield "### Checks, queues and jobs\n"
            entries = [entry for entry in entries if entry not in transport]
        yield _render_reason_table(entries)


def _render_reason_table(entries: list[ReasonEntry]) -> str:
    rows = [f"| `{entry.code}` | {entry.title} | {entry.explanation} | {entry.advice} |" for entry in entries]
    return "\n".join(["| reason | title | what happened | what to do |", "|---|---|---|---|", *rows, ""])
