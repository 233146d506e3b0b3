"""Muting: which probes mute which, and that an incident's notifications are held back because of it.

Both probes may open an incident at the same time: the lock of incident groups, which both transactions hold, lets the
later one see the other's incident. What is held back is marked when it would be leased.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import sqlalchemy as sa

from watchdog.domain.model import IncidentEvent, IncidentTransition
from watchdog.domain.muting import (
    MAX_WAIT_FOR_MUTING_PROBE_MS,
    MutingAction,
    MutingDecision,
    MutingState,
    decide_muting_of_opened_incident,
)
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.store.muting_tables import muted_incidents, muting_probes
from watchdog.store.outbox_filters import build_notified_outbox_filter
from watchdog.store.read.muted_incidents import find_incident_whose_message_states_muting
from watchdog.store.read.muting import (
    RULES_OF_DOWN_PROBES,
    decide_muting_and_select_due_decisions,
    load_incidents_for_muting_decision,
    load_muting_probe_statuses,
    lock_and_list_incidents_not_yet_muted_by_probes,
)
from watchdog.store.tables import incidents, outbox
from watchdog.store.write.routing_log import append_routing_log_entries

MAX_ROUTING_LOG_STEPS_WITH_MUTING = 200
"""A muting probe may fail and recover for weeks while an incident is open: further decisions are not logged."""


def replace_muting_probes(connection: sa.Connection, registered_by_id: Mapping[int, RegisteredProbe]) -> None:
    """Store which probes mute these. By database id."""
    delete_muting_probes(connection, registered_by_id)
    rows = [
        {"probe": id, "muting_probe_id": muting.probe_id, "setting": muting.setting}
        for id, registered in registered_by_id.items()
        for muting in registered.muting_probes
    ]
    if rows:
        connection.execute(sa.insert(muting_probes), rows)


def delete_muting_probes(connection: sa.Connection, ids: Iterable[int]) -> None:
    """Nothing mutes these probes, which are retired."""
    connection.execute(sa.delete(muting_probes).where(muting_probes.c.probe.in_(list(ids))))


def hold_back_opened_incident_if_muted(connection: sa.Connection, incident: str, probe: int, now: int) -> None:
    """Decide whether the notifications of an incident that has just opened wait or are muted. `probe`: of the incident.
    Under the lock of incident groups."""
    has_muting_probe = sa.select(muting_probes.c.probe).where(muting_probes.c.probe == probe).limit(1)
    if connection.execute(has_muting_probe).first() is None:  # the usual case
        return
    rows = load_incidents_for_muting_decision(connection, incidents.c.id == incident)
    decision = decide_muting_of_opened_incident(load_muting_probe_statuses(connection, rows)[incident])
    store_muting_decision(connection, incident, decision, now)


def mute_alerts_of_other_probes(connection: sa.Connection, transitions: Iterable[IncidentTransition], now: int) -> None:
    """Of the probes that are down by these transitions, so that their messages can state it. Under the lock of incident
    groups."""
    down = {
        transition.probe
        for transition in transitions
        if transition.event is IncidentEvent.OPENED and transition.rule in RULES_OF_DOWN_PROBES
    }
    rows = lock_and_list_incidents_not_yet_muted_by_probes(connection, down) if down else ()
    for due in decide_muting_and_select_due_decisions(connection, rows, now):
        if due.decision.action is MutingAction.MUTE:
            store_muting_decision(connection, due.incident, due.decision, now)


def store_muting_decision(connection: sa.Connection, incident: str, decision: MutingDecision, now: int) -> None:
    """Hold the incident's notifications back, or no longer, and log why."""
    connection.execute(sa.delete(muted_incidents).where(muted_incidents.c.incident == incident))
    if decision.status is not None and decision.action in (MutingAction.WAIT, MutingAction.MUTE):
        is_muted = decision.action is MutingAction.MUTE
        values = {
            "incident": incident,
            "state": MutingState.MUTED if is_muted else MutingState.WAITING,
            "since": now,
            "waits_until": None if is_muted else now + MAX_WAIT_FOR_MUTING_PROBE_MS,
            "reason": decision.reason,
            "muting_probe_id": decision.status.probe.probe_id,
            "muting_incident": decision.status.incident if is_muted else "",
            "is_announced": not is_muted
            or not _is_message_about_muting_sent(connection, incident, decision.status.incident, now),
        }
        connection.execute(sa.insert(muted_incidents).values(**values))
    append_routing_log_entries(connection, incident, [decision.describe()], max_steps=MAX_ROUTING_LOG_STEPS_WITH_MUTING)


def _is_message_about_muting_sent(connection: sa.Connection, incident: str, muting_incident: str, now: int) -> bool:
    """Whether the message about the muted incident, or the one that states what the other incident mutes, was sent. If
    not, the first message will state it."""
    messages = [incident, find_incident_whose_message_states_muting(connection, muting_incident)]
    is_sent = outbox.c.incident.in_(messages), build_notified_outbox_filter(outbox, now)
    return connection.execute(sa.select(outbox.c.seq).where(*is_sent).limit(1)).first() is not None


def mark_muted_incidents_announced(connection: sa.Connection, muting_incidents: Collection[str]) -> None:
    """The messages about these incidents state whose alerts they mute, or will."""
    of_these = muted_incidents.c.muting_incident.in_(list(muting_incidents))
    connection.execute(sa.update(muted_incidents).where(of_these).values(is_announced=True))
