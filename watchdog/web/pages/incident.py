"""One incident's page: what changed, what happened since, which notifications were sent, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from watchdog.domain import reasons
from watchdog.domain.acts import MAX_ACT_COMMENT_CHARS
from watchdog.domain.advice import find_advice_on_alert
from watchdog.domain.alert_message import AlertMessageContext
from watchdog.domain.closing import describe_closure
from watchdog.domain.formatting import (
    format_count_with_noun,
    format_duration,
    format_duration_rounded,
    format_remediation_state_and_result,
)
from watchdog.domain.model import DeliveryState, HealthState, IncidentEvent, Outcome
from watchdog.domain.notification import Notification
from watchdog.domain.requested_runs import can_run_on_request
from watchdog.domain.rules import (
    INCIDENT_HEALTH_STATE_BY_RULE,
    THRESHOLD_IGNORING_RULE_NAMES,
    availability,
    job,
    service,
    stale,
)
from watchdog.domain.text import capitalize_first, format_as_sentence
from watchdog.store.read import history, status
from watchdog.store.read.alert_context import load_alert_message_context
from watchdog.store.read.escalations import load_incident_escalations
from watchdog.store.read.generation_results import build_results_as_of_clock_generation_subquery
from watchdog.store.read.members import load_database_ids_of_active_probes
from watchdog.store.read.muted_incidents import MutedIncident, list_incidents_muted_by_others
from watchdog.store.read.reopening import load_reopening_outlook_text
from watchdog.store.read.status import Connection, DeliveryRecord, IncidentRecord, WatchdogStatus
from watchdog.web.markup import PAGE_HEALTH_STATE_LABELS
from watchdog.web.pages.act_form import (
    EMPTY_ACT_FORM,
    ActForm,
    ActFormButtonWithPath,
    list_timed_act_buttons_of_incident,
)
from watchdog.web.pages.acts import (
    IncidentTimelineEvent,
    build_acknowledgement_and_silence_banners,
    build_act_timeline_events,
)
from watchdog.web.pages.banner import PageBanner
from watchdog.web.pages.compare import ResultComparisonSide, compare_first_bad_and_last_good
from watchdog.web.pages.delivery import (
    DeliveryPageRow,
    build_delivery_page_row,
    format_delivery_attempts,
    format_delivery_counts_by_state,
)
from watchdog.web.pages.escalation import EscalationPageRow, build_escalation_page_row
from watchdog.web.pages.flapping import build_incident_flapping_banners
from watchdog.web.pages.muting import build_muting_banners
from watchdog.web.pages.results import HEALTH_STATE_BY_OUTCOME
from watchdog.web.times import render_timestamp

MAX_MUTED_INCIDENTS_ON_PAGE = 100


@dataclass(frozen=True, slots=True)
class IncidentDetailPage:
    """The content of the page of one incident."""

    record: IncidentRecord
    service_status: WatchdogStatus
    title: str
    state: HealthState
    state_label: str
    banners: tuple[PageBanner, ...]
    first_bad: ResultComparisonSide | None
    last_good: ResultComparisonSide | None
    latest_result_text: str
    latest_slot: int | None
    timeline: tuple[IncidentTimelineEvent, ...]
    deliveries: tuple[DeliveryPageRow, ...]
    delivery_summary: str
    decision_steps: tuple[tuple[str, str], ...]
    """(step, setting behind it) of the decision to notify."""
    escalations: tuple[EscalationPageRow, ...]
    advice_parts: tuple[str, ...]
    """What to do about its cause: text and code in turns. Empty: nothing is known."""
    muted_incidents: tuple[MutedIncident, ...]
    """The first MAX_MUTED_INCIDENTS_ON_PAGE that it mutes."""
    muted_incident_count: int
    can_run_now: bool
    is_about_watchdog_itself: bool
    """It cannot be closed."""
    reopening_text: str
    """When another incident would open if this one was closed now."""
    act_buttons: tuple[ActFormButtonWithPath, ...]
    """Of the form for acts that last for a time."""
    form: ActForm


def load_incident_detail_page(
    connection: Connection, incident_id: str, destination_addresses: Mapping[str, str], now: int
) -> IncidentDetailPage | None:
    """None: there is no such incident. `destination_addresses`: "oncall/slack" -> "#oncall"."""
    records = status.list_incidents(connection, incident=incident_id)
    if not records:
        return None
    record = records[0]
    context = load_alert_message_context(connection, Notification(incident_id, "", 0, IncidentEvent.OPENED), now)
    first_bad, last_good = _load_first_bad_and_last_good(connection, record, now)
    deliveries = status.list_incident_deliveries(connection, incident_id)
    act_events = build_act_timeline_events(connection, incident_id)
    timeline = build_incident_timeline(record, context, deliveries, now, act_events)
    outlook = load_reopening_outlook_text(connection, incident_id, now)
    muted = list_incidents_muted_by_others(connection, [incident_id])
    return IncidentDetailPage(
        record=record,
        service_status=status.load_watchdog_status(connection),
        title=format_incident_title(record),
        state=find_incident_health_state(record),
        state_label=format_incident_state_and_duration(record, now),
        banners=(
            *build_acknowledgement_and_silence_banners(connection, record, now),
            *build_muting_banners(record, context.muted_probe_names, now),
            *build_incident_flapping_banners(record, now),
            *build_incident_page_banners(record, deliveries, now),
        ),
        first_bad=first_bad,
        last_good=last_good,
        latest_result_text=_describe_latest_result(record, context, now),
        latest_slot=context.latest.slot if context.latest else None,
        timeline=timeline,
        deliveries=tuple(build_delivery_page_row(delivery, destination_addresses) for delivery in deliveries),
        delivery_summary=format_delivery_counts_by_state(deliveries),
        decision_steps=tuple(_explain_why_incident_opened_and_its_routing(record)),
        escalations=tuple(
            build_escalation_page_row(each, now) for each in load_incident_escalations(connection, incident_id, now)
        ),
        advice_parts=_split_advice_of_open_incident_at_backticks(context),
        muted_incidents=tuple(muted[:MAX_MUTED_INCIDENTS_ON_PAGE]),
        muted_incident_count=len(muted),
        can_run_now=can_run_on_request(record.probe.kind)
        and bool(load_database_ids_of_active_probes(connection, [record.probe.id])),
        is_about_watchdog_itself=record.probe.kind == service.WATCHDOG_SELF_PROBE_KIND,
        reopening_text=format_as_sentence(outlook or "if the failure continues, another incident opens"),
        act_buttons=list_timed_act_buttons_of_incident(incident_id),
        form=EMPTY_ACT_FORM,
    )


def _split_advice_of_open_incident_at_backticks(context: AlertMessageContext) -> tuple[str, ...]:
    advice = find_advice_on_alert(context)
    return tuple(advice.split("`")) if advice else ()


def _load_first_bad_and_last_good(
    connection: Connection, record: IncidentRecord, now: int
) -> tuple[ResultComparisonSide | None, ResultComparisonSide | None]:
    """The first bad result and the last good one. For missing results, only the last result, of any outcome."""
    incident, probe = record.incident, record.incident.probe
    counted = build_results_as_of_clock_generation_subquery(record.generation)
    if incident.rule == stale.ALERT_RULE_NAME:
        slot = incident.first_bad_slot
        last = history.load_results_with_evidence(connection, probe, [slot], counted).get(slot)
        _, side = compare_first_bad_and_last_good(
            probe=record.probe,
            state=HealthState.UNKNOWN,
            first_bad=None,
            last_good=last,
            good_with_evidence=last,
            now=now,
        )
        if side is None or last is None:
            return None, None
        return None, replace(side, title="Last result", state=HEALTH_STATE_BY_OUTCOME[last.result.outcome])
    slots = (
        incident.first_bad_slot,
        history.load_last_good_slot_before(connection, probe, incident.first_bad_slot, counted),
        history.load_last_good_slot_that_has_evidence(connection, probe, incident.first_bad_slot, counted),
    )
    details = history.load_results_with_evidence(
        connection, probe, [slot for slot in slots if slot is not None], counted
    )
    first_bad, last_good, good_with_evidence = (None if slot is None else details.get(slot) for slot in slots)
    return compare_first_bad_and_last_good(
        probe=record.probe,
        state=INCIDENT_HEALTH_STATE_BY_RULE[incident.rule],
        subject=incident.subject,
        first_bad=first_bad,
        last_good=last_good,
        good_with_evidence=good_with_evidence,
        now=now,
    )


def format_incident_title(record: IncidentRecord) -> str:
    """ "API: HTTP 503, expected 2xx"; of a heartbeat "Nightly backup is overdue: due 03:00 CET"."""
    message = record.incident.message
    return message if job.is_heartbeat_incident(record.probe, record.incident) else f"{record.probe.name}: {message}"


def find_incident_health_state(record: IncidentRecord) -> HealthState:
    """The state that the incident gives its probe; up once it is resolved."""
    return (
        INCIDENT_HEALTH_STATE_BY_RULE[record.incident.rule] if record.incident.resolved_at is None else HealthState.UP
    )


def format_incident_state_and_duration(record: IncidentRecord, now: int) -> str:
    """ "Down for 41 min", "Resolved after 12 min"."""
    incident = record.incident
    if incident.resolved_at is not None:
        return f"Resolved after {format_duration(incident.resolved_at - incident.since)}"
    label = PAGE_HEALTH_STATE_LABELS[find_incident_health_state(record)]
    return f"{label} for {format_duration_rounded(now - incident.since)}"


def build_incident_page_banners(
    record: IncidentRecord, deliveries: Sequence[DeliveryRecord], now: int
) -> tuple[PageBanner, ...]:
    """Notifications that failed come first: Watchdog never hides that it could not notify a receiver."""
    banners = [
        _build_undelivered_banner(delivery, deliveries)
        for delivery in deliveries
        if delivery.state in (DeliveryState.UNDELIVERED, DeliveryState.UNCONFIRMED)
    ]
    if not deliveries:
        cause = capitalize_first("; ".join(record.routing_log)) or "No receiver is configured."
        banners.append(PageBanner(HealthState.DEGRADED, "No notification was sent", cause))
    if record.incident.resolved_at is not None:
        banners.append(_build_resolved_banner(record, record.incident.resolved_at, now))
    return tuple(banners)


def _build_undelivered_banner(delivery: DeliveryRecord, deliveries: Sequence[DeliveryRecord]) -> PageBanner:
    problem = "did not confirm" if delivery.state is DeliveryState.UNCONFIRMED else "was not notified"
    title = f"{delivery.destination} {problem}: {delivery.detail}, {format_delivery_attempts(delivery)}"
    notified = sorted({other.destination for other in deliveries if other.state is DeliveryState.SENT})
    text = f"{', '.join(notified)} {'was' if len(notified) == 1 else 'were'} notified."
    return PageBanner(HealthState.DEGRADED, title, text if notified else "No receiver was notified.")


def _build_resolved_banner(record: IncidentRecord, resolved_at: int, now: int) -> PageBanner:
    incident = record.incident
    recovered_at = render_timestamp(record.resolved_slot or resolved_at, now, seconds=True)
    title: str = Markup("Recovered at {}").format(recovered_at)
    if incident.closure:
        title = capitalize_first(describe_closure(incident.closure, MAX_ACT_COMMENT_CHARS))
    elif incident.resolution:
        title = f"Closed: {reasons.get_reason_title(incident.resolution).lower()}"
    text = Markup("Lasted {}: first bad result {}, opened {}.").format(
        format_duration(resolved_at - incident.since),
        render_timestamp(incident.since, now, seconds=True),
        render_timestamp(incident.opened_at, now, seconds=True),
    )
    return PageBanner(HealthState.UP, title, text)


def _describe_latest_result(record: IncidentRecord, context: AlertMessageContext, now: int) -> str:
    """ "02:29:00 · got 503 · 2.9 s. 42 failed runs since it began."; empty if the incident is resolved or stale."""
    latest = context.latest
    if latest is None or record.incident.resolved_at is not None or record.incident.rule == stale.ALERT_RULE_NAME:
        return ""
    message = latest.message if not record.incident.subject else ""  # may be about other subjects as well
    parts = [render_timestamp(latest.slot, now, seconds=True), message or latest.outcome.value]
    parts += [format_duration(latest.duration)] if latest.duration is not None else []
    adjective = "failed" if record.incident.rule == availability.ALERT_RULE_NAME else "bad"
    count = format_count_with_noun(context.bad_count, f"{adjective} run")
    return Markup("{}. {} since it began.").format(Markup(" · ").join(parts), count)


def build_incident_timeline(
    record: IncidentRecord,
    context: AlertMessageContext,
    deliveries: Iterable[DeliveryRecord],
    now: int,
    act_events: Iterable[IncidentTimelineEvent] = (),
) -> tuple[IncidentTimelineEvent, ...]:
    """Newest first. Events of the same instant keep the order in which they are generated. `act_events`: what people
    did."""
    incident = record.incident
    opening = (
        incident.opening_cause_message
        if incident.rule in THRESHOLD_IGNORING_RULE_NAMES
        else f"{record.threshold} bad results in a row"
    )
    state = INCIDENT_HEALTH_STATE_BY_RULE[incident.rule]
    events = [
        *_build_timeline_events_before_opening(record, context),
        IncidentTimelineEvent(incident.opened_at, f"Opened, {incident.severity}", opening, state),
        *(
            IncidentTimelineEvent(change.changed_at, "Cause changed", change.message, state)
            for change in context.cause_changes
        ),
        *_build_delivery_timeline_events(deliveries),
        *act_events,
    ]
    for attempt in context.remediation_attempts:
        label, detail = format_remediation_state_and_result(attempt, now)
        events.append(IncidentTimelineEvent(attempt.started_at, f"Remediation: {label}", detail, icon="action"))
    if incident.resolved_at is not None:
        detail = reasons.get_reason_title(incident.resolution).lower() if incident.resolution else "recovered"
        events.append(IncidentTimelineEvent(incident.resolved_at, "Resolved", detail, HealthState.UP))
    else:
        events += _build_latest_failure_timeline_event(record, context)
    in_order = sorted(enumerate(events), key=lambda pair: (pair[1].occurred_at, pair[0]))
    return tuple(event for _, event in reversed(in_order))


def _build_timeline_events_before_opening(
    record: IncidentRecord, context: AlertMessageContext
) -> Iterator[IncidentTimelineEvent]:
    """The last good result and the first bad one; for missing results, the last result."""
    last_good, first_bad = context.last_good, context.first_bad
    if record.incident.rule == stale.ALERT_RULE_NAME:
        if first_bad:
            message, state = first_bad.message or first_bad.outcome.value, HEALTH_STATE_BY_OUTCOME[first_bad.outcome]
            yield IncidentTimelineEvent(first_bad.slot, "Last result", message, state)
        return
    if last_good:
        duration = "" if last_good.duration is None else format_duration(last_good.duration)
        yield IncidentTimelineEvent(last_good.slot, "Last good result", duration, HealthState.UP)
    if first_bad:
        message = (first_bad.message if not record.incident.subject else "") or record.incident.opening_cause_message
        detail = f"{message} · state not changed yet" if record.threshold > 1 else message
        yield IncidentTimelineEvent(first_bad.slot, "First bad result", detail, HealthState.DEGRADED)


def _build_delivery_timeline_events(deliveries: Iterable[DeliveryRecord]) -> Iterator[IncidentTimelineEvent]:
    for delivery in deliveries:
        if delivery.finished_at is None:
            continue
        if delivery.state is DeliveryState.SENT:
            title = f"Notified {delivery.destination}: {delivery.event.label}"
            delay = f"{format_duration(delivery.finished_at - delivery.created_at)} later"
            yield IncidentTimelineEvent(delivery.finished_at, title, delay, icon="send")
        elif delivery.state is DeliveryState.UNDELIVERED:
            title = f"Could not notify {delivery.destination}"
            detail = f"{format_delivery_attempts(delivery)}, {delivery.detail}; not retried again"
            yield IncidentTimelineEvent(delivery.finished_at, title, detail, icon="send")
        elif delivery.state is DeliveryState.UNCONFIRMED:
            title = f"{delivery.destination} did not confirm"
            detail = f"{format_delivery_attempts(delivery)}, {delivery.detail}; sent again once an hour"
            yield IncidentTimelineEvent(delivery.finished_at, title, detail, icon="send")


def _build_latest_failure_timeline_event(
    record: IncidentRecord, context: AlertMessageContext
) -> Iterator[IncidentTimelineEvent]:
    """ "42nd bad result", if it is newer than the one that opened the incident."""
    latest, rule = context.latest, record.incident.rule
    if latest is None or latest.slot <= record.opened_slot or rule != availability.ALERT_RULE_NAME:
        return
    if latest.outcome is Outcome.FAIL:
        duration = f" · {format_duration(latest.duration)}" if latest.duration is not None else ""
        title = f"{format_ordinal(context.bad_count)} bad result"
        yield IncidentTimelineEvent(latest.slot, title, latest.message + duration, INCIDENT_HEALTH_STATE_BY_RULE[rule])


def format_ordinal(n: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th."""
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def _explain_why_incident_opened_and_its_routing(record: IncidentRecord) -> Iterator[tuple[str, str]]:
    """(step, setting behind it): why the incident opened, its severity, and the routing."""
    incident = record.incident
    if incident.rule in THRESHOLD_IGNORING_RULE_NAMES:
        opening = incident.opening_cause_message
        yield opening if incident.subject else capitalize_first(opening), ""
    else:
        setting = f"alert.failure_threshold: {record.threshold}"
        yield f"{format_count_with_noun(record.threshold, 'bad result')} in a row", setting
    yield f"Severity {incident.severity}, from the probe's configuration", f"alert.severity: {incident.severity}"
    for step in record.routing_log:
        yield capitalize_first(step), ""
