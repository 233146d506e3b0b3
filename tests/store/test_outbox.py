"""The outbox: who is told what, in which order, by whom, and how often."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

import pytest

from tests.store.lab import EVERY, LEASE, T0, Databases, Lab, fleet_of, member, result, series
from watchdog.alerts import Routes
from watchdog.model import Event
from watchdog.store import codec
from watchdog.store.database import Database
from watchdog.store.outbox import OPENED, RESOLVED, Held
from watchdog.store.tables import destinations, outbox

SLOT = T0 + EVERY
SLACK = Routes({"oncall": ("oncall/slack",)})
BOTH = Routes({"oncall": ("oncall/email", "oncall/slack")})


def down(database: Database, routes: Routes = SLACK) -> Lab:
    """One incident, opened at SLOT."""
    lab = Lab(database, [member(after=1, recover=1)], routes=routes).without_gaps()
    lab.record(result(lab.ids[0], SLOT, "fail"), now=SLOT)
    return lab


def heal(lab: Lab) -> int:
    lab.record(result(lab.ids[0], SLOT + EVERY), now=SLOT + EVERY)
    return SLOT + EVERY


def one(lab: Lab, now: int) -> Held:
    (held,) = lab.take(now)
    return held


def states(lab: Lab) -> list[str]:
    """By destination and sequence."""
    return [row["state"] for row in lab.rows(outbox)]


def test_every_destination_is_told_for_itself(database: Database) -> None:
    lab = down(database, BOTH)
    held = lab.take(SLOT)
    assert [(h.notification.destination, h.notification.seq, h.notification.event) for h in held] == [
        ("oncall/email", OPENED, Event.OPENED), ("oncall/slack", OPENED, Event.OPENED)
    ]  # fmt: skip
    assert all((h.attempts, dict(h.receipt), h.merged) == (0, {}, False) for h in held)
    assert len({h.token for h in held}) == 2
    assert len({h.notification.key for h in held}) == 2
    lab.outbox.sent(held[0], {}, SLOT + 100)
    assert states(lab) == ["sent", "waiting"]


def test_what_is_told_is_told_once(database: Database) -> None:
    lab = down(database)
    lab.outbox.sent(one(lab, SLOT), {"ts": "1.2"}, SLOT + 100)
    assert lab.take(SLOT + 10 * LEASE) == []
    row = lab.row(outbox)
    assert (row["state"], row["attempts"], row["done_at"], row["token"]) == ("sent", 1, SLOT + 100, None)


def test_who_was_told_of_the_opening_hears_of_the_end_with_what_was_kept_of_it(database: Database) -> None:
    lab = down(database)
    lab.outbox.sent(one(lab, SLOT), {"channel": "C1", "ts": "1.2"}, SLOT + 100)
    now = heal(lab)
    held = one(lab, now)
    assert (held.notification.seq, held.notification.event) == (RESOLVED, Event.RESOLVED)
    assert held.receipt == {"channel": "C1", "ts": "1.2"}
    assert not held.merged
    lab.outbox.sent(held, {}, now)
    assert states(lab) == ["sent", "sent"]


def test_quiet_destinations_hear_of_no_end(database: Database) -> None:
    lab = down(database, Routes(BOTH.receivers, quiet=frozenset({"oncall/email"})))
    heal(lab)
    assert [(row["destination"], row["event"]) for row in lab.rows(outbox)] == [
        ("oncall/email", "opened"), ("oncall/slack", "opened"), ("oncall/slack", "resolved")
    ]  # fmt: skip


def test_nobody_is_told_where_nobody_is_configured(database: Database) -> None:
    lab = down(database, Routes({}))
    heal(lab)
    assert lab.rows(outbox) == []


# -------------------------------------------------------------------------------------------- the order of one incident


def test_opened_and_resolved_are_merged_when_both_wait(database: Database) -> None:
    lab = down(database)
    now = heal(lab)
    held = one(lab, now)
    assert held.merged
    assert (held.notification.seq, held.notification.event) == (RESOLVED, Event.RESOLVED)
    lab.outbox.sent(held, {"ts": "1"}, now)
    assert states(lab) == ["merged", "sent"]
    assert lab.take(now + LEASE) == []


def test_resolved_waits_while_the_opening_is_being_sent(database: Database) -> None:
    lab = down(database)
    held = one(lab, SLOT + EVERY - 1_000)
    now = heal(lab)
    assert lab.take(now) == []
    lab.outbox.sent(held, {"ts": "1"}, now + 100)
    after = one(lab, now + 100)
    assert (after.notification.seq, after.merged, after.receipt) == (RESOLVED, False, {"ts": "1"})


def test_resolved_waits_for_an_opening_that_is_to_be_tried_again(database: Database) -> None:
    lab = down(database)
    lab.outbox.retry(one(lab, SLOT), SLOT + 10 * EVERY, "got 500")
    now = heal(lab)
    assert lab.take(now) == []
    held = one(lab, SLOT + 10 * EVERY)
    assert held.merged
    assert held.attempts == 1
    lab.outbox.retry(held, SLOT + 11 * EVERY, "got 500")
    assert [row["attempts"] for row in lab.rows(outbox)] == [2, 2]
    assert [row["due_at"] for row in lab.rows(outbox)] == [SLOT + 11 * EVERY] * 2
    assert one(lab, SLOT + 11 * EVERY).merged


def test_the_end_of_what_could_not_be_told_tells_both(database: Database) -> None:
    lab = down(database)
    lab.outbox.bury(one(lab, SLOT), "channel_not_found", SLOT + 100)
    row = lab.row(outbox)
    assert (row["state"], row["detail"], row["done_at"], row["attempts"]) == (
        "dead",
        "channel_not_found",
        SLOT + 100,
        1,
    )
    now = heal(lab)
    held = one(lab, now)
    assert held.merged
    lab.outbox.sent(held, {}, now)
    assert states(lab) == ["dead", "sent"], "the dead letter stays visible"


def test_what_cannot_be_told_together_is_buried_together(database: Database) -> None:
    lab = down(database)
    now = heal(lab)
    lab.outbox.bury(one(lab, now), "gone", now)
    assert states(lab) == ["dead", "dead"]
    assert lab.take(now + LEASE) == []


# ---------------------------------------------------------------------------------------------------- leases and tokens


def test_a_lease_that_has_run_out_is_anyones(database: Database) -> None:
    lab = down(database)
    first = one(lab, SLOT)
    assert lab.take(SLOT + LEASE - 1) == []
    second = one(lab, SLOT + LEASE)
    assert second.notification == first.notification
    assert second.token != first.token


def marks(lab: Lab) -> dict[str, Callable[[Held], None]]:
    return {
        "sent": lambda held: lab.outbox.sent(held, {"mine": 1}, SLOT + LEASE + 1),
        "retry": lambda held: lab.outbox.retry(held, SLOT + 99 * EVERY, "mine"),
        "bury": lambda held: lab.outbox.bury(held, "mine", SLOT + LEASE + 1),
    }


@pytest.mark.parametrize("mark", ["sent", "retry", "bury"])
def test_who_lost_the_lease_can_mark_nothing(database: Database, mark: str) -> None:
    lab = down(database)
    stale = one(lab, SLOT)
    fresh = one(lab, SLOT + LEASE)
    with lab.database.read() as connection:
        assert not lab.outbox.still_held(stale, connection)
        assert lab.outbox.still_held(fresh, connection)
    before = lab.rows(outbox)
    marks(lab)[mark](stale)
    assert lab.rows(outbox) == before
    lab.outbox.sent(fresh, {}, SLOT + LEASE + 2)
    assert states(lab) == ["sent"]
    marks(lab)[mark](stale)
    assert states(lab) == ["sent"]
    with lab.database.read() as connection:
        assert not lab.outbox.still_held(fresh, connection), "done"


def test_who_lost_the_lease_can_mark_nothing_though_nobody_has_it_yet(database: Database) -> None:
    lab = down(database)
    held = one(lab, SLOT)
    lab.outbox.retry(held, SLOT + EVERY, "stopped while sending")
    lab.outbox.sent(held, {}, SLOT + 1_000)
    assert states(lab) == ["waiting"]


def test_two_processes_never_hold_one_notification(databases: Databases) -> None:
    routes = Routes({f"r{i}": (f"r{i}/slack",) for i in range(8)})
    labs = [Lab(databases.first, fleet_of(30, after=1), routes=routes)]
    labs.append(Lab(databases.second, fleet_of(30, after=1), routes=routes, new=False))
    labs[0].record(*[result(p, SLOT, "fail") for p in labs[0].ids])
    told: list[list[str]] = [[], []]

    def send(i: int) -> None:
        while held := labs[i].take(SLOT + EVERY):
            for h in held:
                told[i].append(h.notification.key)
                labs[i].outbox.sent(h, {}, SLOT + EVERY)

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
    assert lab.outbox.claim(SLOT, LEASE, []) == []
    (held,) = lab.outbox.claim(SLOT, LEASE, ["oncall/email", "former/log"])
    assert held.notification.destination == "oncall/email"
    (other,) = lab.outbox.claim(SLOT, LEASE, ["oncall/slack"])
    assert other.notification.destination == "oncall/slack"


def test_what_nobody_knows_any_more_is_buried_with_the_reason(database: Database) -> None:
    lab = down(database, BOTH)
    incident = lab.rows(outbox)[0]["incident"]
    assert lab.outbox.abandon(["oncall/email"], SLOT, SLOT + EVERY) == [], "not yet"
    assert lab.outbox.abandon(["oncall/email", "oncall/slack"], SLOT + 1, SLOT + EVERY) == [], "known, however old"
    assert lab.outbox.abandon(["oncall/email"], SLOT + 1, SLOT + EVERY) == [(incident, "oncall/slack")]
    assert states(lab) == ["waiting", "dead"]
    row = lab.rows(outbox)[1]
    assert (row["detail"], row["done_at"]) == ("the destination is no longer configured", SLOT + EVERY)
    assert lab.outbox.abandon(["oncall/email"], SLOT + 1, SLOT + EVERY) == [], "once"


def test_what_another_process_is_sending_is_not_buried(database: Database) -> None:
    lab = down(database)
    held = one(lab, SLOT + 1)
    assert lab.outbox.abandon([], SLOT + 1, SLOT + LEASE) == []
    lab.outbox.sent(held, {}, SLOT + LEASE)
    assert states(lab) == ["sent"]


# ---------------------------------------------------------------------------------------------------- order, and pauses


def queue(database: Database, n: int, routes: Routes = SLACK) -> Lab:
    """As many incidents, a second apart."""
    lab = Lab(database, fleet_of(n, after=1), routes=routes).without_gaps()
    for i, probe in enumerate(lab.ids):
        lab.record(result(probe, SLOT, "fail"), now=SLOT + i)
    return lab


def test_a_destination_is_told_one_thing_after_the_other_in_order(database: Database) -> None:
    lab = queue(database, 100)
    told = []
    while held := lab.take(SLOT + EVERY):
        (h,) = held
        told.append(h.notification.incident)
        lab.outbox.sent(h, {}, SLOT + EVERY)
    opened = sorted(lab.rows(outbox), key=lambda row: row["created_at"])
    assert told == [row["incident"] for row in opened]


def test_a_busy_destination_keeps_nobody_else_waiting(database: Database) -> None:
    lab = queue(database, 2, BOTH)
    first = lab.take(SLOT + EVERY, but=["oncall/slack"])
    assert [h.notification.destination for h in first] == ["oncall/email"]


def test_a_long_queue_keeps_nobody_else_waiting(database: Database) -> None:
    lab = queue(database, 150, Routes({"slow": ("slow/slack",)}))
    other = Lab(lab.database, [*fleet_of(150), member("api", after=1)], routes=BOTH, new=False)
    other.record(result(other.id("api"), SLOT + EVERY, "fail"), now=SLOT + EVERY)
    held = lab.outbox.claim(SLOT + EVERY, LEASE, ["oncall/email", "oncall/slack", "slow/slack"])
    assert [h.notification.destination for h in held] == ["oncall/email", "oncall/slack", "slow/slack"]


def test_a_retry_is_due_when_it_was_put_off_to(database: Database) -> None:
    lab = down(database)
    lab.outbox.retry(one(lab, SLOT), SLOT + 4_000, "got 500")
    assert lab.take(SLOT + 3_999) == []
    held = one(lab, SLOT + 4_000)
    assert held.attempts == 1
    row = lab.row(outbox)
    assert (row["detail"], row["attempts"]) == ("got 500", 1)


def test_what_a_try_came_to_is_known_to_the_next_and_to_no_other(database: Database) -> None:
    lab = Lab(database, [member(after=1, recover=1)])
    lab.feed(*series(lab.ids[0], "f"))
    now = T0 + EVERY + 1_000
    held = next(held for held in lab.take(now) if held.notification.destination == "oncall/email")
    lab.outbox.retry(held, now, "not taken yet", partly={"settled": ["ann"]})
    lab.outbox.retry(again := lab.take(now)[0], now, "connection refused")
    assert again.partly == {"settled": ["ann"]}
    once_more = lab.take(now)[0]
    assert (once_more.partly, once_more.receipt) == ({"settled": ["ann"]}, {})
    lab.outbox.sent(once_more, {"message_id": "a"}, now)
    lab.feed(*series(lab.ids[0], "p", T0 + EVERY))
    resolved = next(held for held in lab.take(now + EVERY) if held.notification.destination == "oncall/email")
    assert (resolved.partly, resolved.receipt) == ({}, {"message_id": "a"})


def test_a_retry_does_not_keep_others_from_the_destination(database: Database) -> None:
    lab = queue(database, 2)
    lab.outbox.retry(one(lab, SLOT + 1_000), SLOT + EVERY, "got 500")
    assert len(lab.take(SLOT + 2_000)) == 1


def test_nothing_goes_to_a_destination_before_it_wants_to_hear_again(database: Database) -> None:
    lab = queue(database, 3, BOTH)
    held = {h.notification.destination: h for h in lab.take(SLOT + 1_000)}
    lab.outbox.retry(held["oncall/slack"], SLOT + 9_000, "ratelimited", resume=SLOT + 9_000)
    lab.outbox.sent(held["oncall/email"], {}, SLOT + 1_000)
    assert [h.notification.destination for h in lab.take(SLOT + 8_999)] == ["oncall/email"]
    again = [h for h in lab.take(SLOT + 9_000) if h.notification.destination == "oncall/slack"]
    assert [h.notification.destination for h in again] == ["oncall/slack"]


def test_a_pause_never_gets_shorter(database: Database) -> None:
    """Two were sent at once, and the receiver asked one to wait longer."""
    lab = queue(database, 3)
    first, second = one(lab, SLOT + 1_000), one(lab, SLOT + 1_000)
    lab.outbox.retry(first, SLOT + 60_000, "ratelimited", resume=SLOT + 60_000)
    lab.outbox.retry(second, SLOT + 2_000, "ratelimited", resume=SLOT + 2_000)
    assert lab.row(destinations) == {"name": "oncall/slack", "resume_at": SLOT + 60_000}
    assert lab.take(SLOT + 59_999) == []


def test_what_a_receiver_answers_may_be_anything(database: Database) -> None:
    lab = queue(database, 2)
    lab.outbox.retry(one(lab, SLOT + 1_000), SLOT + 1_000, "nul \0 \ud800")
    lab.outbox.sent(one(lab, SLOT + 1_001), {"ts": "\0\ud800"}, SLOT + 1_001)
    lab.outbox.bury(one(lab, SLOT + 1_001), "\0", SLOT + 1_001)
    rows = lab.rows(outbox)
    assert sorted(row["state"] for row in rows) == ["dead", "sent"]
    assert [codec.loads(row["receipt"]) for row in rows if row["receipt"]] == [{"ts": "��"}]


def test_an_incident_of_a_removed_probe_is_told_after_its_opening(database: Database) -> None:
    lab = down(database)
    held = one(lab, SLOT)
    Lab(lab.database, [], routes=SLACK, now=SLOT + 1_000, new=False)
    assert lab.take(SLOT + 1_000) == []
    lab.outbox.sent(held, {}, SLOT + 2_000)
    assert one(lab, SLOT + 2_000).notification.event is Event.RESOLVED


def test_series_of_incidents_are_told_in_turn(database: Database) -> None:
    lab = Lab(database, [member(after=1, recover=1)], routes=SLACK).without_gaps()
    lab.feed(*series(lab.ids[0], "fpfp", every=1_000))
    now, told = T0 + 10_000, []
    while held := lab.take(now):
        told.append((held[0].notification.event, held[0].merged))
        lab.outbox.sent(held[0], {}, now)
    assert told == [(Event.RESOLVED, True), (Event.RESOLVED, True)]
