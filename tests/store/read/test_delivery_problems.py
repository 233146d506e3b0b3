"""What lists of incidents state about notifications that fail, or that no one gets."""

from __future__ import annotations

from tests.support.fixture_rows import NOW, FixtureRows
from watchdog.store.database import Database
from watchdog.store.read.delivery_problems import load_delivery_problems_of_open_incidents

SLACK, EMAIL = "oncall/slack", "oncall/email"


def test_the_problems_of_each_open_incident(database: Database) -> None:
    rows = FixtureRows()
    probe = rows.add_probe("API")

    def add(subject: str, *notifications: tuple[str, str, int], resolved_at: int | None = None) -> str:
        incident = rows.add_incident(probe, "job", "late", NOW, subject=subject, resolved_at=resolved_at)
        for seq, (destination, state, attempts) in enumerate(notifications):
            rows.add_notification(incident, destination, state, seq=seq, attempts=attempts, created_at=NOW)
        return incident

    unrouted = add("unrouted")
    failing = add("failing", (SLACK, "waiting", 3), (EMAIL, "sent", 1))
    once = add("once", (SLACK, "waiting", 1))
    given_up = add("given up", (EMAIL, "undelivered", 9), (SLACK, "unconfirmed", 3))
    add("new", (SLACK, "waiting", 0))
    add("held back", (SLACK, "silenced", 0))
    add("recovered", (SLACK, "undelivered", 9), (SLACK, "sent", 1))
    add("over", resolved_at=NOW)
    with database.open_write_transaction() as connection:
        rows.insert_into(connection)
    with database.open_read_transaction() as connection:
        assert load_delivery_problems_of_open_incidents(connection) == {
            unrouted: ("no one is notified",),
            failing: ("oncall/slack: 3\xa0attempts failed",),
            once: ("oncall/slack: 1\xa0attempt failed",),
            given_up: ("oncall/email: undelivered", "oncall/slack: unconfirmed"),
        }
