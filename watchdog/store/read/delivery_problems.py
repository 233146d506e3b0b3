"""Problems with the notifications of open incidents, as lists of incidents show them."""

from __future__ import annotations

import sqlalchemy as sa

from watchdog.domain.formatting import format_count_with_noun
from watchdog.domain.model import DeliveryState
from watchdog.store.tables import incidents, outbox

NO_ONE_IS_NOTIFIED_TEXT = "no one is notified"
_PROBLEM_BY_STATE = {DeliveryState.UNDELIVERED: "undelivered", DeliveryState.UNCONFIRMED: "unconfirmed"}


def load_delivery_problems_of_open_incidents(connection: sa.Connection) -> dict[str, tuple[str, ...]]:
    """By incident: "no one is notified", if it has no destination; "oncall/slack: 3 attempts failed"; "oncall/slack:
    undelivered". Incidents without a problem are left out."""
    columns = outbox.c.destination, outbox.c.state, outbox.c.attempts
    query = sa.select(incidents.c.id, *columns).outerjoin(outbox, outbox.c.incident == incidents.c.id)
    rows = connection.execute(
        query.where(incidents.c.resolved_at.is_(None)).order_by(incidents.c.id, outbox.c.destination, outbox.c.seq)
    )
    problems: dict[str, dict[str, str]] = {}
    for row in rows:
        of_incident = problems.setdefault(row.id, {})
        if row.destination is None:
            of_incident[""] = NO_ONE_IS_NOTIFIED_TEXT
        elif row.state == DeliveryState.SENT:  # a notification that failed before may have been sent since
            of_incident.pop(row.destination, None)
        elif row.state in _PROBLEM_BY_STATE:
            of_incident[row.destination] = f"{row.destination}: {_PROBLEM_BY_STATE[DeliveryState(row.state)]}"
        elif row.state == DeliveryState.WAITING and row.attempts:
            attempts = format_count_with_noun(row.attempts, "attempt")
            of_incident[row.destination] = f"{row.destination}: {attempts} failed"
    return {incident: tuple(of_incident.values()) for incident, of_incident in problems.items() if of_incident}
