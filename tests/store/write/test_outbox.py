"""The outbox: who is told what, in which order, by whom, and how often."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

import pytest

from tests.support.store import (
    INTERVAL_MS,
    LEASE_MS,
    START_AT,
    DatabasePair,
    StoreHarness,
    make_registered_probe,
    make_registered_probes,
    make_result,
    make_results,
)
from watchdog.domain.model import IncidentEvent
from watchdog.domain.routing import RoutingTable
from watchdog.store import codec
from watchdog.store.database import Database
from watchdog.store.tables import destination_backoff, outbox
from watchdog.store.write.outbox import OPENED_SEQ, RESOLVED_SEQ, LeasedNotification

SLOT = START_AT + INTERVAL_MS
SLACK = RoutingTable({"oncall": ("oncall/slack",)})
BOTH = RoutingTable({"oncall": ("oncall/email", "oncall/slack")})


def down(database: Database, routes: RoutingTable = SLACK) -> StoreHarness:
    """One incident, opened at SLOT."""
    lab = StoreHarness(
        database, [make_registered_probe(failure_threshold=1, success_threshold=1)], routes=routes
    ).without_downtime()
    lab.record_results(make_result(lab.database_ids[0], SLOT, "fail"), now=SLOT)
    return lab


def heal(lab: StoreHarness) -> int:
    lab.record_results(make_result(lab.database_ids[0], SLOT + INTERVAL_MS), now=SLOT + INTERVAL_MS)
    return SLOT + INTERVAL_MS


def one(lab: StoreHarness, now: int) -> LeasedNotification:
    (held,) = lab.lease_notifications(now)
    return held


def states(lab: StoreHarness) -> list[str]:
    """By destination and sequence."""
    return [row["state"] for row in lab.select_rows(outbox)]


def test_every_destination_is_told_for_itself(database: Database) -> None:
    lab = down(database, BOTH)
    held = lab.lease_notifications(SLOT)
    assert [(h.notification.destination, h.notification.seq, h.notification.event) for h in held] == [
        ("oncall/email", OPENED_SEQ, IncidentEvent.OPENED), ("oncall/slack", OPENED_SEQ, IncidentEvent.OPENED)
    ]  # fmt: skip
    assert all((h.attempts, dict(h.opened_receipt), h.merged) == (0, {}, False) for h in held)
    assert len({h.lease_token for h in held}) == 2
    assert len({h.notification.idempotency_key for h in held}) == 2
    lab.outbox.mark_sent(held[0], {}, SLOT + 100)
    assert states(lab) == ["sent", "waiting"]


def test_what_is_told_is_told_once(database: Database) -> None:
    lab = down(database)
    lab.outbox.mark_sent(one(lab, SLOT), {"ts": "1.2"}, SLOT + 100)
    assert lab.lease_notifications(SLOT + 10 * LEASE_MS) == []
    row = lab.select_row(outbox)
    assert (row["state"], row["attempts"], row["finished_at"], row["lease_token"]) == ("sent", 1, SLOT + 100, None)


def test_who_was_told_of_the_opening_hears_of_the_end_with_what_was_kept_of_it(database: Database) -> None:
    lab = down(database)
    lab.outbox.mark_sent(one(lab, SLOT), {"channel": "C1", "ts": "1.2"}, SLOT + 100)
    now = heal(lab)
    held = one(lab, now)
    assert (held.notification.seq, held.notification.event) == (RESOLVED_SEQ, IncidentEvent.RESOLVED)
    assert held.opened_receipt == {"channel": "C1", "ts": "1.2"}
    assert not held.merged
    lab.outbox.mark_sent(held, {}, now)
    assert states(lab) == ["sent", "sent"]


def test_quiet_destinations_hear_of_no_end(database: Database) -> None:
    lab = down(database, RoutingTable(BOTH.receivers, without_resolved=frozenset({"oncall/email"})))
    heal(lab)
    assert [(row["destination"], row["event"]) for row in lab.select_rows(outbox)] == [
        ("oncall/email", "opened"), ("oncall/slack", "opened"), ("oncall/slack", "resolved")
    ]  # fmt: skip


def test_nobody_is_told_where_nobody_is_configured(database: Database) -> None:
    lab = down(database, RoutingTable({}))
    heal(lab)
    assert lab.select_rows(outbox) == []


# -------------------------------------------------------------------------------------------- the order of one incident


def test_opened_and_resolved_are_merged_when_both_wait(database: Database) -> None:
    lab = down(database)
    now = heal(lab)
    held = one(lab, now)
    assert held.merged
    assert (held.notification.seq, held.notification.event) == (RESOLVED_SEQ, IncidentEvent.RESOLVED)
    lab.outbox.mark_sent(held, {"ts": "1"}, now)
    assert states(lab) == ["merged", "sent"]
    assert lab.lease_notifications(now + LEASE_MS) == []


def test_resolved_waits_while_the_opening_is_being_sent(database: Database) -> None:
    lab = down(database)
    held = one(lab, SLOT + INTERVAL_MS - 1_000)
    now = heal(lab)
    assert lab.lease_notifications(now) == []
    lab.outbox.mark_sent(held, {"ts": "1"}, now + 100)
    after = one(lab, now + 100)
    assert (after.notification.seq, after.merged, after.opened_receipt) == (RESOLVED_SEQ, False, {"ts": "1"})


def test_resolved_waits_for_an_opening_that_is_to_be_tried_again(database: Database) -> None:
    lab = down(database)
    lab.outbox.schedule_retry(one(lab, SLOT), SLOT + 10 * INTERVAL_MS, "HTTP 500")
    now = heal(lab)
    assert lab.lease_notifications(now) == []
    held = one(lab, SLOT + 10 * INTERVAL_MS)
    assert held.merged
    assert held.attempts == 1
    lab.outbox.schedule_retry(held, SLOT + 11 * INTERVAL_MS, "HTTP 500")
    assert [row["attempts"] for row in lab.select_rows(outbox)] == [2, 2]
    assert [row["due_at"] for row in lab.select_rows(outbox)] == [SLOT + 11 * INTERVAL_MS] * 2
    assert one(lab, SLOT + 11 * INTERVAL_MS).merged


def test_the_end_of_what_could_not_be_told_tells_both(database: Database) -> None:
    lab = down(database)
    lab.outbox.mark_dead(one(lab, SLOT), "channel_not_found", SLOT + 100)
    row = lab.select_row(outbox)
    assert (row["state"], row["detail"], row["finished_at"], row["attempts"]) == (
        "dead",
        "channel_not_found",
        SLOT + 100,
        1,
    )
    now = heal(lab)
    held = one(lab, now)
    assert held.merged
    lab.outbox.mark_sent(held, {}, now)
    assert states(lab) == ["dead", "sent"], "the dead letter stays visible"


def test_what_cannot_be_told_together_is_buried_together(database: Database) -> None:
    lab = down(database)
    now = heal(lab)
    lab.outbox.mark_dead(one(lab, now), "gone", now)
    assert states(lab) == ["dead", "dead"]
    assert lab.lease_notifications(now + LEASE_MS) == []


# ---------------------------------------------------------------------------------------------------- leases and tokens


def test_a_lease_that_has_run_out_is_anyones(database: Database) -> None:
    lab = down(database)
    first = one(lab, SLOT)
    assert lab.lease_notifications(SLOT + LEASE_MS - 1) == []
    second = one(lab, SLOT + LEASE_MS)
    assert second.notification == first.notification
    assert second.lease_token != first.lease_token


def marks(lab: StoreHarness) -> dict[str, Callable[[LeasedNotification], None]]:
    return {
        "sent": lambda held: lab.outbox.mark_sent(held, {"mine": 1}, SLOT + LEASE_MS + 1),
        "retry": lambda held: lab.outbox.schedule_retry(held, SLOT + 99 * INTERVAL_MS, "mine"),
        "bury": lambda held: lab.outbox.mark_dead(held, "mine", SLOT + LEASE_MS + 1),
    }


@pytest.mark.parametrize("mark", ["sent", "retry", "bury"])
def test_who_lost_the_lease_can_mark_nothing(database: Database, mark: str) -> None:
    lab = down(database)
    stale = one(lab, SLOT)
    fresh = one(lab, SLOT + LEASE_MS)
    with lab.database.read_transaction() as connection:
        assert not lab.outbox.still_leased(stale, connection)
        assert lab.outbox.still_leased(fresh, connection)
    before = lab.select_rows(outbox)
    marks(lab)[mark](stale)
    assert lab.select_rows(outbox) == before
    lab.outbox.mark_sent(fresh, {}, SLOT + LEASE_MS + 2)
    assert states(lab) == ["sent"]
    marks(lab)[mark](stale)
    assert states(lab) == ["sent"]
    with lab.database.read_transaction() as connection:
        assert not lab.outbox.still_leased(fresh, connection), "done"


def test_who_lost_the_lease_can_mark_nothing_though_nobody_has_it_yet(database: Database) -> None:
    lab = down(database)
    held = one(lab, SLOT)
    lab.outbox.schedule_retry(held, SLOT + INTERVAL_MS, "stopped while sending")
    lab.outbox.mark_sent(held, {}, SLOT + 1_000)
    assert states(lab) == ["waiting"]


def test_two_processes_never_hold_one_notification(databases: DatabasePair) -> None:
    routes = RoutingTable({f"r{i}": (f"r{i}/slack",) for i in range(8)})
    labs = [StoreHarness(databases.first, make_registered_probes(30, failure_threshold=1), routes=routes)]
    labs.append(
        StoreHarness(
            databases.second, make_registered_probes(30, failure_threshold=1), routes=routes, create_schema=False
        )
    )
    labs[0].record_results(*[make_result(p, SLOT, "fail") for p in labs[0].database_ids])
    told: list[list[str]] = [[], []]

    def send(i: int) -> None:
        while held := labs[i].lease_notifications(SLOT + INTERVAL_MS):
            for h in held:
                told[i].append(h.notification.idempotency_key)
                labs[i].outbox.mark_sent(h, {}, SLOT + INTERVAL_MS)

    threads = [Thread(target=send, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for i in range(2):
        send(i)  # one may have found all of a destination's rows in the other's hands
    everything = told[0] + told[1]
    assert len(everything) == len(set(everything)) == 240
    assert set(states(labs[0])) == {"sent"}


# --------------------------------------------------------------------------------- what another configuration addressed


def test_a_process_takes_only_what_is_for_destinations_that_it_knows(database: Database) -> None:
    """While versions change, an older configuration runs beside a newer one."""
    lab = down(database, BOTH)
    assert lab.outbox.lease_due_notifications(SLOT, LEASE_MS, []) == []
    (held,) = lab.outbox.lease_due_notifications(SLOT, LEASE_MS, ["oncall/email", "former/log"])
    assert held.notification.destination == "oncall/email"
    (other,) = lab.outbox.lease_due_notifications(SLOT, LEASE_MS, ["oncall/slack"])
    assert other.notification.destination == "oncall/slack"


def test_what_nobody_knows_any_more_is_buried_with_the_reason(database: Database) -> None:
    lab = down(database, BOTH)
    incident = lab.select_rows(outbox)[0]["incident"]
    assert lab.outbox.expire_unknown_destinations(["oncall/email"], SLOT, SLOT + INTERVAL_MS) == [], "not yet"
    assert (
        lab.outbox.expire_unknown_destinations(["oncall/email", "oncall/slack"], SLOT + 1, SLOT + INTERVAL_MS) == []
    ), "known, however old"
    assert lab.outbox.expire_unknown_destinations(["oncall/email"], SLOT + 1, SLOT + INTERVAL_MS) == [
        (incident, "oncall/slack")
    ]
    assert states(lab) == ["waiting", "dead"]
    row = lab.select_rows(outbox)[1]
    assert (row["detail"], row["finished_at"]) == ("the destination is no longer configured", SLOT + INTERVAL_MS)
    assert lab.outbox.expire_unknown_destinations(["oncall/email"], SLOT + 1, SLOT + INTERVAL_MS) == [], "once"


def test_what_another_process_is_sending_is_not_buried(database: Database) -> None:
    lab = down(database)
    held = one(lab, SLOT + 1)
    assert lab.outbox.expire_unknown_destinations([], SLOT + 1, SLOT + LEASE_MS) == []
    lab.outbox.mark_sent(held, {}, SLOT + LEASE_MS)
    assert states(lab) == ["sent"]


# ---------------------------------------------------------------------------------------------------- order, and pauses


def queue(database: Database, n: int, routes: RoutingTable = SLACK) -> StoreHarness:
    """As many incidents, a second apart."""
    lab = StoreHarness(database, make_registered_probes(n, failure_threshold=1), routes=routes).without_downtime()
    for i, probe in enumerate(lab.database_ids):
        lab.record_results(make_result(probe, SLOT, "fail"), now=SLOT + i)
    return lab


def test_a_destination_is_told_one_thing_after_the_other_in_order(database: Database) -> None:
    lab = queue(database, 100)
    told = []
    while held := lab.lease_notifications(SLOT + INTERVAL_MS):
        (h,) = held
        told.append(h.notification.incident)
        lab.outbox.mark_sent(h, {}, SLOT + INTERVAL_MS)
    opened = sorted(lab.select_rows(outbox), key=lambda row: row["created_at"])
    assert told == [row["incident"] for row in opened]


def test_a_busy_destination_keeps_nobody_else_waiting(database: Database) -> None:
    lab = queue(database, 2, BOTH)
    first = lab.lease_notifications(SLOT + INTERVAL_MS, except_destinations=["oncall/slack"])
    assert [h.notification.destination for h in first] == ["oncall/email"]


def test_a_long_queue_keeps_nobody_else_waiting(database: Database) -> None:
    lab = queue(database, 150, RoutingTable({"slow": ("slow/slack",)}))
    other = StoreHarness(
        lab.database,
        [*make_registered_probes(150), make_registered_probe("api", failure_threshold=1)],
        routes=BOTH,
        create_schema=False,
    )
    other.record_results(make_result(other.database_id("api"), SLOT + INTERVAL_MS, "fail"), now=SLOT + INTERVAL_MS)
    held = lab.outbox.lease_due_notifications(
        SLOT + INTERVAL_MS, LEASE_MS, ["oncall/email", "oncall/slack", "slow/slack"]
    )
    assert [h.notification.destination for h in held] == ["oncall/email", "oncall/slack", "slow/slack"]


def test_a_retry_is_due_when_it_was_put_off_to(database: Database) -> None:
    lab = down(database)
    lab.outbox.schedule_retry(one(lab, SLOT), SLOT + 4_000, "HTTP 500")
    assert lab.lease_notifications(SLOT + 3_999) == []
    held = one(lab, SLOT + 4_000)
    assert held.attempts == 1
    row = lab.select_row(outbox)
    assert (row["detail"], row["attempts"]) == ("HTTP 500", 1)


def test_what_a_try_came_to_is_known_to_the_next_and_to_no_other(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe(failure_threshold=1, success_threshold=1)])
    lab.record_each(*make_results(lab.database_ids[0], "f"))
    now = START_AT + INTERVAL_MS + 1_000
    held = next(held for held in lab.lease_notifications(now) if held.notification.destination == "oncall/email")
    lab.outbox.schedule_retry(held, now, "not taken yet", partial_receipt={"settled": ["ann"]})
    lab.outbox.schedule_retry(again := lab.lease_notifications(now)[0], now, "connection refused")
    assert again.partial_receipt == {"settled": ["ann"]}
    once_more = lab.lease_notifications(now)[0]
    assert (once_more.partial_receipt, once_more.opened_receipt) == ({"settled": ["ann"]}, {})
    lab.outbox.mark_sent(once_more, {"message_id": "a"}, now)
    lab.record_each(*make_results(lab.database_ids[0], "p", START_AT + INTERVAL_MS))
    resolved = next(
        held for held in lab.lease_notifications(now + INTERVAL_MS) if held.notification.destination == "oncall/email"
    )
    assert (resolved.partial_receipt, resolved.opened_receipt) == ({}, {"message_id": "a"})


def test_a_retry_does_not_keep_others_from_the_destination(database: Database) -> None:
    lab = queue(database, 2)
    lab.outbox.schedule_retry(one(lab, SLOT + 1_000), SLOT + INTERVAL_MS, "HTTP 500")
    assert len(lab.lease_notifications(SLOT + 2_000)) == 1


def test_nothing_goes_to_a_destination_before_it_wants_to_hear_again(database: Database) -> None:
    lab = queue(database, 3, BOTH)
    held = {h.notification.destination: h for h in lab.lease_notifications(SLOT + 1_000)}
    lab.outbox.schedule_retry(held["oncall/slack"], SLOT + 9_000, "ratelimited", retry_at=SLOT + 9_000)
    lab.outbox.mark_sent(held["oncall/email"], {}, SLOT + 1_000)
    assert [h.notification.destination for h in lab.lease_notifications(SLOT + 8_999)] == ["oncall/email"]
    again = [h for h in lab.lease_notifications(SLOT + 9_000) if h.notification.destination == "oncall/slack"]
    assert [h.notification.destination for h in again] == ["oncall/slack"]


def test_a_pause_never_gets_shorter(database: Database) -> None:
    """Two were sent at once, and the receiver asked one to wait longer."""
    lab = queue(database, 3)
    first, second = one(lab, SLOT + 1_000), one(lab, SLOT + 1_000)
    lab.outbox.schedule_retry(first, SLOT + 60_000, "ratelimited", retry_at=SLOT + 60_000)
    lab.outbox.schedule_retry(second, SLOT + 2_000, "ratelimited", retry_at=SLOT + 2_000)
    assert lab.select_row(destination_backoff) == {"destination": "oncall/slack", "retry_at": SLOT + 60_000}
    assert lab.lease_notifications(SLOT + 59_999) == []


def test_what_a_receiver_answers_may_be_anything(database: Database) -> None:
    lab = queue(database, 2)
    lab.outbox.schedule_retry(one(lab, SLOT + 1_000), SLOT + 1_000, "nul \0 \ud800")
    lab.outbox.mark_sent(one(lab, SLOT + 1_001), {"ts": "\0\ud800"}, SLOT + 1_001)
    lab.outbox.mark_dead(one(lab, SLOT + 1_001), "\0", SLOT + 1_001)
    rows = lab.select_rows(outbox)
    assert sorted(row["state"] for row in rows) == ["dead", "sent"]
    assert [codec.loads(row["receipt"]) for row in rows if row["receipt"]] == [{"ts": "��"}]


def test_an_incident_of_a_removed_probe_is_told_after_its_opening(database: Database) -> None:
    lab = down(database)
    held = one(lab, SLOT)
    StoreHarness(lab.database, [], routes=SLACK, now=SLOT + 1_000, create_schema=False)
    assert lab.lease_notifications(SLOT + 1_000) == []
    lab.outbox.mark_sent(held, {}, SLOT + 2_000)
    assert one(lab, SLOT + 2_000).notification.event is IncidentEvent.RESOLVED


def test_series_of_incidents_are_told_in_turn(database: Database) -> None:
    lab = StoreHarness(
        database, [make_registered_probe(failure_threshold=1, success_threshold=1)], routes=SLACK
    ).without_downtime()
    lab.record_each(*make_results(lab.database_ids[0], "fpfp", interval_ms=1_000))
    now, told = START_AT + 10_000, []
    while held := lab.lease_notifications(now):
        told.append((held[0].notification.event, held[0].merged))
        lab.outbox.mark_sent(held[0], {}, now)
    assert told == [(IncidentEvent.RESOLVED, True), (IncidentEvent.RESOLVED, True)]
