"""One incident's page: what changed, what happened since, who was told, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from watchdog.domain.formatting import (
    DAY_MS,
    format_count,
    format_duration,
    format_duration_rounded,
    format_remediation,
    format_time_of_day,
    format_timestamp,
)
from watchdog.domain.model import AlertContext, HealthState, IncidentEvent, Notification, Outcome
from watchdog.domain.reasons import title
from watchdog.domain.rules import HEALTH_STATE_BY_RULE, IMMEDIATE_RULES, availability, stale
from watchdog.store.read import history, status
from watchdog.store.read.alert_context import load_alert_context
from watchdog.store.read.status import Connection, DeliveryStatus, IncidentRecord, ServiceStatus
from watchdog.web.pages.compare import ComparedResult, compare_results
from watchdog.web.pages.probe import Banner, capitalize_first
from watchdog.web.pages.results import STATE_BY_OUTCOME
from watchdog.web.pages.timeline import PAGE_STATE_LABELS

DELIVERY_STATE_LABELS = {"sent": "Delivered", "waiting": "Queued", "merged": "Told at the end", "dead": "Dead"}


format_time_with_seconds = partial(format_timestamp, seconds=True)


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    occurred_at: int
    title: str
    detail: str
    state: HealthState | None = None
    icon: str = ""


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    receiver: str
    notifier: str
    address: str
    event: str
    state: HealthState
    glyph: str
    label: str
    detail: str


@dataclass(frozen=True, slots=True)
class IncidentPage:
    record: IncidentRecord
    service_status: ServiceStatus
    title: str
    state: HealthState
    state_label: str
    banners: tuple[Banner, ...]
    first_bad: ComparedResult | None
    last_good: ComparedResult | None
    latest_result_text: str
    latest_slot: int | None
    timeline: tuple[TimelineEvent, ...]
    spans_several_days: bool
    """Some of it happened on another day."""
    deliveries: tuple[DeliveryRow, ...]
    delivery_summary: str
    decision_steps: tuple[tuple[str, str], ...]


def load_incident_page(
    connection: Connection, incident_id: str, destination_addresses: Mapping[str, str], now: int
) -> IncidentPage | None:
    """None: there is no such incident. `addresses`: destination -> whom it reaches."""
    found = status.list_incidents(connection, incident=incident_id)
    if not found:
        return None
    case = found[0]
    told_of = load_alert_context(connection, Notification(incident_id, "", 0, IncidentEvent.OPENED), now)
    bad, good = _load_compared_results(connection, case, now)
    told = status.list_deliveries(connection, incident_id)
    happened = build_incident_timeline(case, told_of, told, now)
    return IncidentPage(
        record=case,
        service_status=status.load_service_status(connection),
        title=incident_title(case),
        state=incident_state(case),
        state_label=incident_state_label(case, now),
        banners=incident_banners(case, told, now),
        first_bad=bad,
        last_good=good,
        latest_result_text=_describe_latest_result(case, told_of, now),
        latest_slot=told_of.latest.slot if told_of.latest else None,
        timeline=happened,
        spans_several_days=any(h.occurred_at // DAY_MS != now // DAY_MS for h in happened),
        deliveries=tuple(build_delivery_row(t, destination_addresses) for t in told),
        delivery_summary=_summarize_deliveries(told),
        decision_steps=tuple(_decision_steps(case)),
    )


def _load_compared_results(
    connection: Connection, record: IncidentRecord, now: int
) -> tuple[ComparedResult | None, ComparedResult | None]:
    """First bad beside last good. Where absence is what is wrong, only the last result, whatever it was."""
    incident = record.incident
    if incident.rule == stale.RULE_NAME:
        last = history.load_result_details(connection, incident.probe, [incident.since]).get(incident.since)
        _, side = compare_results(HealthState.UNKNOWN, "", None, last, last, now)
        return None, replace(
            side, title="Last result", state=STATE_BY_OUTCOME[last.result.outcome]
        ) if side and last else None
    good = history.load_last_good_slot(connection, incident.probe, incident.since)
    sample = history.load_last_good_slot_with_evidence(connection, incident.probe, incident.since)
    slots = [slot for slot in (incident.since, good, sample) if slot is not None]
    kept = history.load_result_details(connection, incident.probe, slots)
    bad, fine, shown = (kept.get(-1 if slot is None else slot) for slot in (incident.since, good, sample))
    return compare_results(HEALTH_STATE_BY_RULE[incident.rule], incident.subject, bad, fine, shown, now)


def incident_title(record: IncidentRecord) -> str:
    """ "API: got 503"."""
    return f"{record.probe.name}: {record.incident.message}"


def incident_state(record: IncidentRecord) -> HealthState:
    """What the incident makes of its probe; up once it is over."""
    return HEALTH_STATE_BY_RULE[record.incident.rule] if record.incident.resolved_at is None else HealthState.UP


def incident_state_label(record: IncidentRecord, now: int) -> str:
    """ "Down for 41 min", "Resolved after 12 min"."""
    incident = record.incident
    if incident.resolved_at is not None:
        return f"Resolved after {format_duration(incident.resolved_at - incident.since)}"
    return (
        f"{PAGE_STATE_LABELS[HEALTH_STATE_BY_RULE[incident.rule]]} for {format_duration_rounded(now - incident.since)}"
    )


def incident_banners(record: IncidentRecord, deliveries: Sequence[DeliveryStatus], now: int) -> tuple[Banner, ...]:
    """A watchdog never hides its own silence: who was not reached comes first."""
    found = []
    for letter in (t for t in deliveries if t.state == "dead"):
        others = sorted({t.destination for t in deliveries if t.state == "sent"})
        reached = (
            f"{', '.join(others)} {'was' if len(others) == 1 else 'were'} reached." if others else "Nobody was reached."
        )
        missed = f"{letter.destination} was not reached: {letter.detail}, {_format_attempts(letter)}"
        found.append(Banner(HealthState.DEGRADED, missed, reached))
    if not deliveries:
        found.append(
            Banner(
                HealthState.DEGRADED,
                "Nobody was told",
                capitalize_first("; ".join(record.routing_log)) or "No receiver is configured.",
            )
        )
    incident = record.incident
    if incident.resolved_at is not None:
        lasted = format_duration(incident.resolved_at - incident.since)
        when = f"It lasted {lasted}: first bad {format_time_with_seconds(incident.since, now)}, "
        when += f"opened {format_time_with_seconds(incident.opened_at, now)}."
        ended = title(incident.resolution) if incident.resolution else ""
        over = (
            f"Over: {ended}"
            if ended
            else f"Good again since {format_time_with_seconds(record.resolved_slot or incident.resolved_at, now)}"
        )
        found.append(Banner(HealthState.UP, over, when))
    return tuple(found)


def _describe_latest_result(record: IncidentRecord, context: AlertContext, now: int) -> str:
    """ "02:29:00 · got 503 · 2.9 s. 42 runs failed since it began."; empty once it is over, or where none comes."""
    latest = context.latest
    if latest is None or record.incident.resolved_at is not None or record.incident.rule == stale.RULE_NAME:
        return ""
    own = latest.message if not record.incident.subject else ""  # else it is about others, too
    said = [format_time_with_seconds(latest.slot, now), own or latest.outcome.value]
    said += [format_duration(latest.duration)] if latest.duration is not None else []
    was = (
        "failed"
        if record.incident.rule == availability.RULE_NAME
        else "was bad"
        if context.bad_count == 1
        else "were bad"
    )
    return " · ".join(said) + f". {format_count(context.bad_count, 'run')} {was} since it began."


def build_incident_timeline(
    record: IncidentRecord, context: AlertContext, deliveries: Iterable[DeliveryStatus], now: int
) -> tuple[TimelineEvent, ...]:
    """What happened, newest first."""
    incident, state = record.incident, HEALTH_STATE_BY_RULE[record.incident.rule]
    found = list(_opening_events(record, context))
    opening = incident.message if incident.rule in IMMEDIATE_RULES else f"{record.threshold} in a row"
    found.append(TimelineEvent(incident.opened_at, f"Opened, {incident.severity}", opening, state))
    for t in deliveries:
        if t.finished_at is not None and t.state == "sent":
            late = f"{format_duration(t.finished_at - t.created_at)} later"
            found.append(TimelineEvent(t.finished_at, f"{t.destination} told: {t.event}", late, icon="send"))
        elif t.finished_at is not None and t.state == "dead":
            why = f"{_format_attempts(t)}, {t.detail}: a dead letter"
            found.append(TimelineEvent(t.finished_at, f"{t.destination} given up", why, icon="send"))
    for one in context.remediation_attempts:
        word, said = format_remediation(one, now)
        found.append(TimelineEvent(one.started_at, f"Remedy: {word}", said, icon="act"))
    latest = context.latest
    if incident.resolved_at is not None:
        found.append(
            TimelineEvent(
                incident.resolved_at,
                "Resolved",
                title(incident.resolution) if incident.resolution else "Recovered",
                HealthState.UP,
            )
        )
    elif (
        latest
        and latest.slot > record.opened_slot
        and incident.rule == availability.RULE_NAME
        and latest.outcome is Outcome.FAIL
    ):
        took = f" · {format_duration(latest.duration)}" if latest.duration is not None else ""
        found.append(
            TimelineEvent(latest.slot, f"{format_ordinal(context.bad_count)} bad result", latest.message + took, state)
        )
    order = sorted(enumerate(found), key=lambda pair: (pair[1].occurred_at, pair[0]))
    return tuple(happened for _, happened in reversed(order))


def _opening_events(record: IncidentRecord, context: AlertContext) -> Iterator[TimelineEvent]:
    """The last good result and the first bad one; where none came any more, the last that did."""
    good, bad = context.last_good, context.first_bad
    if record.incident.rule == stale.RULE_NAME:
        if bad:
            yield TimelineEvent(
                bad.slot, "Last result", bad.message or bad.outcome.value, STATE_BY_OUTCOME[bad.outcome]
            )
        return
    if good:
        yield TimelineEvent(
            good.slot,
            "Last good result",
            "" if good.duration is None else format_duration(good.duration),
            HealthState.UP,
        )
    if bad:
        own = bad.message if not record.incident.subject else ""
        said = (own or record.incident.message) + (" · still shown as before" if record.threshold > 1 else "")
        yield TimelineEvent(bad.slot, "First bad result", said, HealthState.DEGRADED)


def _format_attempts(delivery: DeliveryStatus) -> str:
    return f"{delivery.attempts} {'try' if delivery.attempts == 1 else 'tries'}"


def format_ordinal(n: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th."""
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def build_delivery_row(delivery: DeliveryStatus, destination_addresses: Mapping[str, str]) -> DeliveryRow:
    receiver, _, notifier = delivery.destination.partition("/")
    shape = {"sent": "up", "waiting": "wait", "merged": "unknown", "dead": "down"}[delivery.state]
    colour = {
        "sent": HealthState.UP,
        "waiting": HealthState.DEGRADED,
        "merged": HealthState.UNKNOWN,
        "dead": HealthState.DOWN,
    }[delivery.state]
    at = format_time_of_day(delivery.finished_at if delivery.finished_at is not None else delivery.due_at, seconds=True)
    if delivery.state == "sent":
        detail = f"{at} · {format_duration((delivery.finished_at or delivery.created_at) - delivery.created_at)}"
    elif delivery.state == "waiting":
        detail = f"try {delivery.attempts + 1} at {at}" + (f" · {delivery.detail}" if delivery.detail else "")
    elif delivery.state == "dead":
        detail = f"{_format_attempts(delivery)} until {at} · {delivery.detail}"
    else:
        detail = f"{at} · one message told both"
    word = DELIVERY_STATE_LABELS[delivery.state]
    return DeliveryRow(
        receiver,
        notifier,
        destination_addresses.get(delivery.destination, ""),
        delivery.event,
        colour,
        shape,
        word,
        detail,
    )


def _summarize_deliveries(deliveries: Sequence[DeliveryStatus]) -> str:
    """ "3 delivered · 1 queued · 1 dead"."""
    counts = [
        (sum(t.state == state for t in deliveries), word.lower()) for state, word in DELIVERY_STATE_LABELS.items()
    ]
    return " · ".join(f"{n} {word}" for n, word in counts if n)


def _decision_steps(record: IncidentRecord) -> Iterable[tuple[str, str]]:
    """Each step of the decision: (in words, what in the configuration says so)."""
    incident = record.incident
    if incident.rule in IMMEDIATE_RULES:
        yield incident.message if incident.subject else capitalize_first(incident.message), ""
    else:
        yield (
            f"{format_count(record.threshold, 'bad slot')} in a row, {record.threshold} needed",
            f"alert.failure_threshold: {record.threshold}",
        )
    yield f"Severity {incident.severity}, by the probe's own configuration", f"alert.severity: {incident.severity}"
    for step in record.routing_log:
        yield capitalize_first(step), ""
