"""What destinations get after a silence has ended, and silences of very many incidents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from tests.support.acts import BEN, list_outbox, send_due, silence
from tests.support.store import INTERVAL_MS, LEASE_MS, START_AT, StoreHarness, make_registered_probe, make_result
from watchdog.domain.model import DeliveryState
from watchdog.domain.routing import NotificationRoute, NotificationRoutingTable
from watchdog.service.acts import end_silence
from watchdog.store.act_tables import silenced_incidents
from watchdog.store.database import Database
from watchdog.store.read.alert_context import load_alert_message_context
from watchdog.store.tables import incidents, outbox

SLOT = START_AT + INTERVAL_MS
SLACK, EMAIL = "oncall/slack", "oncall/email"
BOTH = NotificationRoutingTable({"oncall": (SLACK, EMAIL)})
SLACK_FOR_HTTP_ELSE_EMAIL = NotificationRoutingTable(
    {"slack": (SLACK,), "email": (EMAIL,)},
    (NotificationRoute(("slack",), reason_patterns=("http",)), NotificationRoute(("email",))),
)
MORE_INCIDENTS_THAN_PARAMETERS = 66_000
MORE_ROWS_THAN_PARAMETERS = 22_000
"""Of the outbox: each has three."""


def make_harness(database: Database, routes: NotificationRoutingTable, *groups: str) -> StoreHarness:
    """A probe of each group, with one target."""
    probes = []
    for number, group in enumerate(groups or ("Core",)):
        probe = make_registered_probe(f"p{number}", failure_threshold=1, success_threshold=1)
        info = replace(probe.info, group=group, target="https://api.example/")
        probes.append(replace(probe, policy=replace(probe.policy, probe=info)))
    return StoreHarness(database, probes, routes=routes).without_downtime()


def record(harness: StoreHarness, outcome: str, at: int, reason: str = "", probe: str = "p0") -> None:
    more: dict[str, Any] = {"reason": reason, "message": reason} if reason else {}
    harness.record_results(make_result(harness.database_id(probe), at, outcome, **more), now=at)


def insert_copies(connection: sa.Connection, table: sa.Table, count: int, row: Mapping[str, Any], name: str) -> None:
    """`count` copies of the row, with different values of the column `name`."""
    number = sa.select(sa.literal(1).label("n")).cte("number", recursive=True)
    number = number.union_all(sa.select(number.c.n + 1).where(number.c.n < count))
    values = [
        (
            sa.literal("copy-") + sa.cast(number.c.n, sa.Text)
            if column.name == name
            else sa.literal(row[column.name], column.type)
        )
        for column in table.c
    ]
    connection.execute(sa.insert(table).from_select([column.name for column in table.c], sa.select(*values)))


def test_a_change_that_was_sent_is_not_sent_again_after_another_silence(database: Database) -> None:
    harness = make_harness(database, NotificationRoutingTable({"oncall": (SLACK,)}))
    record(harness, "fail", SLOT)
    send_due(harness, SLOT)
    first = silence(harness, SLOT + 1)
    record(harness, "fail", SLOT + INTERVAL_MS, "canary.lost")
    assert send_due(harness, SLOT + INTERVAL_MS) == []
    end_silence(database, first, BEN, SLOT + INTERVAL_MS + 1)
    assert send_due(harness, SLOT + INTERVAL_MS + 1) == [("p0", SLACK, "changed")]
    later = SLOT + 10 * INTERVAL_MS
    end_silence(database, silence(harness, later), BEN, later + 1)
    assert send_due(harness, later + 1) == []


def test_a_destination_that_was_not_sent_the_opening_is_not_sent_the_end(database: Database) -> None:
    """The cause changed during the silence, and no route leads there when it ends."""
    harness = make_harness(database, SLACK_FOR_HTTP_ELSE_EMAIL)
    id = silence(harness, SLOT - 1)
    record(harness, "fail", SLOT)
    assert send_due(harness, SLOT) == []
    record(harness, "fail", SLOT + INTERVAL_MS, "canary.lost")
    end_silence(database, id, BEN, SLOT + INTERVAL_MS + 1)
    assert send_due(harness, SLOT + INTERVAL_MS + 1) == [("p0", EMAIL, "opened")]
    record(harness, "pass", SLOT + 2 * INTERVAL_MS)
    assert send_due(harness, SLOT + 2 * INTERVAL_MS) == [("p0", EMAIL, "resolved")]
    assert (SLACK, "resolved", "waiting") not in list_outbox(harness)


def make_harness_with_opening_that_failed_as_silence_began(database: Database) -> tuple[StoreHarness, str]:
    """Another process drops the edit for a destination that cannot show it, while the opening is being sent. Returns
    the id of the silence as well."""
    harness = make_harness(database, NotificationRoutingTable({"oncall": (EMAIL,)}))
    record(harness, "fail", SLOT)
    (opening,) = harness.lease_notifications(SLOT)
    id = silence(harness, SLOT + 1)
    assert harness.outbox.lease_due_notifications(SLOT + 2, LEASE_MS, [EMAIL]) == []
    harness.outbox.schedule_notification_retry(opening, SLOT + 3, "HTTP 503", failed_at=SLOT + 3)
    assert send_due(harness, SLOT + 4) == []
    assert list_outbox(harness) == [(EMAIL, "opened", "silenced"), (EMAIL, "silence", "merged")]
    return harness, id


def test_an_opening_that_failed_as_the_silence_began_is_sent_afterwards(database: Database) -> None:
    harness, id = make_harness_with_opening_that_failed_as_silence_began(database)
    end_silence(database, id, BEN, SLOT + 5)
    assert send_due(harness, SLOT + 5) == [("p0", EMAIL, "opened")]


def test_the_end_of_an_incident_whose_opening_failed_as_the_silence_began_is_not_sent(database: Database) -> None:
    harness, _ = make_harness_with_opening_that_failed_as_silence_began(database)
    record(harness, "pass", SLOT + INTERVAL_MS)
    assert (EMAIL, "resolved", "waiting") not in list_outbox(harness)
    assert send_due(harness, SLOT + INTERVAL_MS) == []


def test_a_shared_message_states_the_deliveries_of_the_incident_that_it_names(database: Database) -> None:
    """The first incident of the group is silenced."""
    harness = make_harness(database, BOTH, "Core", "Web")
    silence(harness, SLOT - 1, group="Core")
    record(harness, "fail", SLOT, probe="p0")
    record(harness, "fail", SLOT + 1, probe="p1")
    first, second = harness.lease_notifications(SLOT + 1)
    harness.outbox.mark_sent(first, {}, SLOT + 1, "headline", "cause")
    with database.open_read_transaction() as connection:
        context = load_alert_message_context(
            connection, second.notification, SLOT + 2, main_incident=second.main_incident
        )
    assert context.probe.id == "p1"
    assert context.other_destinations == ((first.notification.destination, DeliveryState.SENT),)


def test_a_silence_ends_after_it_selected_very_many_incidents(database: Database) -> None:
    """As one of a year may, of a probe that fails again and again."""
    harness = make_harness(database, NotificationRoutingTable({"oncall": (SLACK,)}))
    id = silence(harness, SLOT - 1)
    record(harness, "fail", SLOT)
    row = {**harness.select_row(incidents), "resolved_at": SLOT, "resolved_slot": SLOT}
    with database.open_write_transaction() as connection:
        insert_copies(connection, incidents, MORE_INCIDENTS_THAN_PARAMETERS, row, "id")
        selection = {"incident": "", "silence": id, "since": SLOT}
        insert_copies(connection, silenced_incidents, MORE_INCIDENTS_THAN_PARAMETERS, selection, "incident")
    end_silence(database, id, BEN, SLOT + 1)
    assert send_due(harness, SLOT + 1) == [("p0", SLACK, "opened")]


def test_a_silence_holds_back_very_many_notifications(database: Database) -> None:
    harness = make_harness(database, NotificationRoutingTable({"oncall": (SLACK,)}))
    record(harness, "fail", SLOT)
    silence(harness, SLOT + 1)
    with database.open_write_transaction() as connection:
        insert_copies(connection, outbox, MORE_ROWS_THAN_PARAMETERS, select_only_row(connection, outbox), "destination")
    assert harness.lease_notifications(SLOT + 2) == []
    assert {row["state"] for row in harness.select_rows(outbox)} == {"silenced"}


def select_only_row(connection: sa.Connection, table: sa.Table) -> Mapping[str, Any]:
    return dict(connection.execute(sa.select(table)).mappings().one())


def test_nothing_is_locked_or_changed_while_nothing_is_due(database: Database) -> None:
    """Two reads: of the silences, and of what is due, once for each state."""
    harness = make_harness(database, BOTH)
    statements: list[str] = []

    def note(*arguments: Any) -> None:
        statements.append(arguments[2])

    sa.event.listen(database.writer, "before_cursor_execute", note)
    try:
        harness.lease_notifications(SLOT)
    finally:
        sa.event.remove(database.writer, "before_cursor_execute", note)
    assert sum("outbox" in statement for statement in statements) == 2
    assert not [statement for statement in statements if "FOR UPDATE" in statement]
