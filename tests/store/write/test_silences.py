"""Silences: what they hold back, what is sent when they end, and that no race between processes loses or doubles it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.acts import ANA, BEN, end_expired, list_outbox, make_silence_request, send_due, silence
from tests.support.store import (
    INTERVAL_MS,
    LEASE_MS,
    START_AT,
    DatabasePair,
    StoreHarness,
    end_all_members,
    make_registered_probe,
    make_result,
)
from watchdog.domain.acts import OperatorActRefusalReason, OperatorActRefusedError
from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.model import Severity
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.routing import NotificationRoutingTable
from watchdog.domain.silencing import MAX_ACTIVE_SILENCES
from watchdog.service.acts import begin_silence, begin_silences_unless_repeated, end_silence
from watchdog.store.act_tables import acts, silenced_incidents, silences
from watchdog.store.database import Database
from watchdog.store.read.acts import list_silences, list_silences_in_effect, list_silences_of_incident
from watchdog.store.tables import incidents, outbox
from watchdog.store.write import silence_ends
from watchdog.store.write.clock_steps import adopt_clock_step
from watchdog.store.write.silences import list_ids_of_expired_silences

SLOT = START_AT + INTERVAL_MS
SLACK_ONLY = NotificationRoutingTable({"oncall": ("oncall/slack",)})
SLACK = "oncall/slack"


def make_probe(probe_id: str, *, group: str = "", tags: tuple[str, ...] = ()) -> RegisteredProbe:
    probe = make_registered_probe(probe_id, failure_threshold=1, success_threshold=1)
    info = replace(probe.info, group=group, tags=tags, target=f"https://{probe_id}.example/")
    return replace(probe, policy=replace(probe.policy, probe=info))


def make_harness(
    database: Database, *probe_ids: str, routes: NotificationRoutingTable = SLACK_ONLY, create_schema: bool = True
) -> StoreHarness:
    probes = [make_probe(probe_id, group="Core") for probe_id in probe_ids or ("api",)]
    return StoreHarness(database, probes, routes=routes, create_schema=create_schema).without_downtime()


def record(harness: StoreHarness, outcome: str, at: int, *probe_ids: str, reason: str = "") -> None:
    more: dict[str, Any] = {"reason": reason, "message": reason} if reason else {}
    ids = [harness.database_id(probe_id) for probe_id in probe_ids or ("api",)]
    harness.record_results(*[make_result(id, at, outcome, **more) for id in ids], now=at)


def test_an_incident_that_opens_during_a_silence_is_sent_once_when_it_ends(database: Database) -> None:
    harness = make_harness(database, routes=NotificationRoutingTable({"oncall": (SLACK, "oncall/email")}))
    id = silence(harness, SLOT - 1, group="Core")
    record(harness, "fail", SLOT)
    assert send_due(harness, SLOT) == []
    assert {row["detail"] for row in harness.select_rows(outbox)} == {f"silenced: {id}"}
    assert harness.select_row(incidents)["resolved_at"] is None, "incidents go on"
    end = SLOT - 1 + HOUR_MS
    assert end_expired(harness, end - 1) == []
    assert send_due(harness, end - 1) == []
    assert end_expired(harness, end) == [id]
    assert end_expired(harness, end) == [], "once"
    assert send_due(harness, end) == [("api", "oncall/email", "opened"), ("api", SLACK, "opened")]
    record(harness, "pass", end + INTERVAL_MS)
    assert send_due(harness, end + INTERVAL_MS) == [("api", "oncall/email", "resolved"), ("api", SLACK, "resolved")]


def test_the_routing_log_states_the_silence_and_what_happened_at_its_end(database: Database) -> None:
    harness = make_harness(database)
    id = silence(harness, SLOT - 1, group="Core")
    record(harness, "fail", SLOT)
    end_silence(database, id, BEN, SLOT + 5)
    log = harness.select_row(incidents)["routing_log"]
    assert f"silenced by {id} (Ana): no one is notified before it ends" in log
    assert "when the silence ended: no routes are configured" in log


def test_nothing_is_sent_of_an_incident_that_begins_and_ends_during_a_silence(database: Database) -> None:
    harness = make_harness(database)
    silence(harness, SLOT - 1)
    record(harness, "fail", SLOT)
    assert send_due(harness, SLOT) == []
    record(harness, "pass", SLOT + INTERVAL_MS)
    assert send_due(harness, SLOT + INTERVAL_MS) == []
    assert end_expired(harness, SLOT + HOUR_MS) != []
    assert send_due(harness, SLOT + HOUR_MS) == []
    assert list_outbox(harness) == [(SLACK, "opened", "silenced")]


def test_the_end_of_an_incident_that_people_know_of_is_sent(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "fail", SLOT)
    assert send_due(harness, SLOT) == [("api", SLACK, "opened")]
    silence(harness, SLOT + 1)
    record(harness, "fail", SLOT + INTERVAL_MS, reason="canary.lost")
    assert send_due(harness, SLOT + INTERVAL_MS) == [], "the change of its cause is held back"
    record(harness, "pass", SLOT + 2 * INTERVAL_MS)
    assert send_due(harness, SLOT + 2 * INTERVAL_MS) == [("api", SLACK, "resolved")]


def test_a_change_that_was_held_back_is_sent_when_the_silence_ends(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "fail", SLOT)
    send_due(harness, SLOT)
    id = silence(harness, SLOT + 1)
    record(harness, "fail", SLOT + INTERVAL_MS, reason="canary.lost")
    assert send_due(harness, SLOT + INTERVAL_MS) == []
    end_silence(database, id, BEN, SLOT + INTERVAL_MS + 1)
    assert send_due(harness, SLOT + INTERVAL_MS + 1) == [("api", SLACK, "changed")]


def test_an_incident_that_people_know_of_is_not_sent_again(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "fail", SLOT)
    send_due(harness, SLOT)
    end_silence(database, silence(harness, SLOT + 1), BEN, SLOT + 2)
    assert send_due(harness, SLOT + 2) == []


def test_a_notification_that_waits_when_the_silence_begins_is_held_back(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "fail", SLOT)
    id = silence(harness, SLOT + 1)
    assert send_due(harness, SLOT + 2) == []
    end_silence(database, id, BEN, SLOT + 3)
    assert send_due(harness, SLOT + 3) == [("api", SLACK, "opened")]


def test_a_delivery_that_fails_during_a_silence_is_held_back_and_not_retried(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "fail", SLOT)
    (leased,) = harness.lease_notifications(SLOT)
    id = silence(harness, SLOT + 1)
    harness.outbox.schedule_notification_retry(leased, SLOT + 2, "HTTP 500", failed_at=SLOT + 1)
    assert send_due(harness, SLOT + 5_000) == []
    record(harness, "pass", SLOT + INTERVAL_MS)
    assert send_due(harness, SLOT + INTERVAL_MS) == [], "no one knows of it"
    end_silence(database, id, BEN, SLOT + INTERVAL_MS + 1)
    assert send_due(harness, SLOT + INTERVAL_MS + 1) == []


def test_an_incident_waits_for_the_last_of_several_silences(database: Database) -> None:
    harness = make_harness(database)
    first = silence(harness, SLOT - 2, for_ms=10_000)
    second = silence(harness, SLOT - 1, for_ms=20_000, subject="*")
    record(harness, "fail", SLOT)
    with database.open_read_transaction() as connection:
        incident = harness.select_row(incidents)["id"]
        assert {each.id for each in list_silences_of_incident(connection, incident)} == {first, second}
    assert end_expired(harness, SLOT + 10_000) == [first]
    assert send_due(harness, SLOT + 10_000) == []
    assert end_expired(harness, SLOT + 20_000) == [second]
    assert send_due(harness, SLOT + 20_000) == [("api", SLACK, "opened")]


def test_silences_that_expire_together_send_once(database: Database) -> None:
    harness = make_harness(database)
    both = {silence(harness, SLOT - 1), silence(harness, SLOT - 1, group="Core")}
    record(harness, "fail", SLOT)
    assert set(end_expired(harness, SLOT + HOUR_MS)) == both
    assert send_due(harness, SLOT + HOUR_MS) == [("api", SLACK, "opened")]


def test_an_incident_that_opens_after_the_end_is_sent_even_if_the_end_is_not_carried_out_yet(
    database: Database,
) -> None:
    harness = make_harness(database)
    silence(harness, SLOT - 10, for_ms=10)
    record(harness, "fail", SLOT)
    assert send_due(harness, SLOT) == [("api", SLACK, "opened")]


def test_the_routes_that_are_in_force_at_the_end_decide(databases: DatabasePair) -> None:
    """A reload replaced the receiver during the silence: the new one is notified, and the former one is not."""
    first, second = databases.first, databases.second
    old = make_harness(first)
    silence(old, SLOT - 1)
    record(old, "fail", SLOT)
    assert send_due(old, SLOT) == []
    end_all_members(first, SLOT)
    new = make_harness(second, routes=NotificationRoutingTable({"pager": ("pager/webhook",)}), create_schema=False)
    assert end_expired(new, SLOT + HOUR_MS) != []
    assert send_due(old, SLOT + HOUR_MS) == []
    assert send_due(new, SLOT + HOUR_MS) == [("api", "pager/webhook", "opened")]
    assert list_outbox(new) == [(SLACK, "opened", "silenced"), ("pager/webhook", "opened", "sent")]


def test_the_process_that_ends_a_silence_need_not_have_the_destination(databases: DatabasePair) -> None:
    """As the command does, which is no member: the database has the routes."""
    harness = make_harness(databases.first)
    id = silence(harness, SLOT - 1)
    record(harness, "fail", SLOT)
    end_silence(databases.second, id, BEN, SLOT + 1)
    assert send_due(harness, SLOT + 1) == [("api", SLACK, "opened")]


def test_the_incident_of_a_retired_probe_is_over(database: Database) -> None:
    harness = make_harness(database, "api", "web")
    silence(harness, SLOT - 1)
    record(harness, "fail", SLOT)
    assert send_due(harness, SLOT) == []
    end_all_members(database, SLOT)
    other = make_harness(database, "web", create_schema=False)
    other.membership.renew_process_lease_and_update_probes(SLOT + 3 * HOUR_MS)
    assert harness.select_row(incidents)["resolution"] == "probe.removed"
    assert end_expired(other, SLOT + 3 * HOUR_MS) != []
    assert send_due(other, SLOT + 3 * HOUR_MS) == []


def test_a_shared_message_does_not_name_a_silenced_incident(database: Database) -> None:
    """Both have the same cause. The silenced one came first, so its id names the message."""
    probes = [make_probe("a", group="Core"), make_probe("b")]
    same_target = [
        replace(p, policy=replace(p.policy, probe=replace(p.info, target="https://api.example/"))) for p in probes
    ]
    harness = StoreHarness(database, same_target, routes=SLACK_ONLY).without_downtime()
    id = silence(harness, SLOT - 1, group="Core")
    record(harness, "fail", SLOT, "a")
    record(harness, "fail", SLOT + 1, "b")
    (leased,) = harness.lease_notifications(SLOT + 1)
    assert len({row["lead_incident"] for row in harness.select_rows(outbox)}) == 1, "they are a group"
    assert leased.named_incidents == ()
    harness.outbox.mark_sent(leased, {"ts": "1"}, SLOT + 1, "headline", "cause")
    of_b = harness.select_row(incidents, incidents.c.probe == harness.database_id("b"))
    assert leased.main_incident == of_b["id"]
    end_silence(database, id, BEN, SLOT + 2)
    (both,) = harness.lease_notifications(SLOT + 2 * INTERVAL_MS)
    assert len(both.named_incidents) == 2


def test_a_shared_message_ends_although_a_silenced_incident_is_open(database: Database) -> None:
    probes = [make_probe("a"), make_probe("b", group="Core")]
    same_target = [
        replace(p, policy=replace(p.policy, probe=replace(p.info, target="https://api.example/"))) for p in probes
    ]
    harness = StoreHarness(database, same_target, routes=SLACK_ONLY).without_downtime()
    silence(harness, SLOT - 1, group="Core")
    record(harness, "fail", SLOT, "a", "b")
    assert send_due(harness, SLOT) == [("a", SLACK, "opened")]
    record(harness, "pass", SLOT + INTERVAL_MS, "a")
    assert send_due(harness, SLOT + INTERVAL_MS) == [("a", SLACK, "resolved")]


def test_no_copy_of_an_unconfirmed_notification_is_sent_during_a_silence(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "fail", SLOT)
    (leased,) = harness.lease_notifications(SLOT)
    harness.outbox.mark_unconfirmed(leased, {}, SLOT, "h", "c", detail="?", next_copy_at=SLOT + 10)
    id = silence(harness, SLOT + 1)
    assert harness.lease_notifications(SLOT + 20) == []
    end_silence(database, id, BEN, SLOT + 30)
    assert len(harness.lease_notifications(SLOT + 30)) == 1


@pytest.mark.parametrize(
    ("selection", "is_silenced"),
    [
        ({"id": "api"}, True),
        ({"id": "Api"}, True),
        ({"id": "web"}, False),
        ({"group": "Core"}, True),
        ({"kind": "http"}, True),
        ({"kind": "mcp"}, False),
        ({"severity": Severity.WARNING}, True),
        ({"severity": Severity.CRITICAL}, False),
        ({"tags": ("prod",)}, False),
        ({"subject": "job"}, False),
        ({}, True),
    ],
)
def test_what_a_matcher_selects_is_the_same_for_open_and_for_new_incidents(
    database: Database, selection: dict[str, Any], is_silenced: bool
) -> None:
    harness = make_harness(database)
    silence(harness, SLOT - 1, for_ms=10_000, **selection)
    record(harness, "fail", SLOT)
    assert len(harness.select_rows(silenced_incidents)) == is_silenced
    started = begin_silence(database, make_silence_request(SLOT + HOUR_MS, **selection), ANA, SLOT + 1)
    assert started.open_incident_count == is_silenced


def test_a_step_of_the_clock_moves_the_end_of_a_silence_that_is_in_effect(database: Database) -> None:
    harness = make_harness(database)
    ended = silence(harness, SLOT - 5)
    end_silence(database, ended, BEN, SLOT - 4)
    id = silence(harness, SLOT, for_ms=HOUR_MS)
    now, to = SLOT + 1_000, SLOT + 1_000 + 24 * HOUR_MS
    harness.advance_watermark(now)
    assert adopt_clock_step(database, "local", generation=0, to=to, now=now) is not None
    assert harness.select_row(silences, silences.c.id == id)["ends_at"] - to == HOUR_MS - 1_000, "as far from now"
    assert harness.select_row(silences, silences.c.id == ended)["ends_at"] == SLOT - 5 + HOUR_MS
    with database.open_read_transaction() as connection:
        assert list_ids_of_expired_silences(connection, to) == []
        assert list_ids_of_expired_silences(connection, to + HOUR_MS - 1_001) == []
        assert list_ids_of_expired_silences(connection, to + HOUR_MS - 1_000) == [id]


def test_a_silence_ends_once_in_all_processes(databases: DatabasePair) -> None:
    harness = make_harness(databases.first)
    other = make_harness(databases.second, create_schema=False)
    id = silence(harness, SLOT - 1)
    record(harness, "fail", SLOT)
    with ThreadPoolExecutor() as pool:
        ends = [pool.submit(end_expired, each, SLOT + HOUR_MS) for each in (harness, other)]
        assert sorted(end.result() for end in ends) == [[], [id]]
    assert send_due(other, SLOT + HOUR_MS) == [("api", SLACK, "opened")]
    assert send_due(harness, SLOT + HOUR_MS) == []


@pytest.mark.parametrize("act", ["silence", "end"])
def test_an_incident_that_opens_at_the_same_moment_is_not_lost(
    on_postgres: DatabasePair, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """One process has recorded the incident and not committed, while another one begins or ends a silence. SQLite has a
    single writer."""
    databases = on_postgres
    harness = make_harness(databases.first)
    id = silence(harness, SLOT - 1) if act == "end" else ""
    before_commit, may_commit = Event(), Event()
    flush = harness.recorder.evaluator._flush_pending_evaluation_writes

    def pause_before_commit(*arguments: object) -> None:
        flush(*arguments)  # type: ignore[arg-type]
        before_commit.set()
        assert may_commit.wait(30)

    monkeypatch.setattr(harness.recorder.evaluator, "_flush_pending_evaluation_writes", pause_before_commit)
    with ThreadPoolExecutor() as pool:
        recording = pool.submit(record, harness, "fail", SLOT)
        assert before_commit.wait(30)
        request = make_silence_request(SLOT + HOUR_MS)
        acting = pool.submit(
            lambda: (
                end_silence(databases.second, id, BEN, SLOT)
                if id
                else begin_silence(databases.second, request, BEN, SLOT) and None
            )
        )
        may_commit.set()
        recording.result(60)
        acting.result(60)
    expected = [("api", SLACK, "opened")] if act == "end" else []
    assert send_due(harness, SLOT + 1) == expected


def test_a_silenced_row_that_another_transaction_has_locked_is_not_sent(on_postgres: DatabasePair) -> None:
    databases = on_postgres
    harness = make_harness(databases.first)
    record(harness, "fail", SLOT)
    silence(harness, SLOT + 1)
    with databases.second.open_write_transaction() as connection:
        connection.execute(sa.select(outbox).with_for_update())
        assert harness.lease_notifications(SLOT + 2) == []
    assert list_outbox(harness) == [(SLACK, "opened", "waiting")]
    assert harness.lease_notifications(SLOT + 2 + LEASE_MS) == []
    assert list_outbox(harness) == [(SLACK, "opened", "silenced")]


def test_who_ended_a_silence_is_stored_and_a_second_end_is_refused(database: Database) -> None:
    harness = make_harness(database)
    id = silence(harness, SLOT, comment="upgrade")
    end_silence(database, id, BEN, SLOT + 1_000)
    with database.open_read_transaction() as connection:
        assert list_silences_in_effect(connection) == []
        (ended,) = list_silences(connection, is_in_effect=False, limit=10)
    assert (ended.id, ended.ended_at, ended.ended_by, ended.comment) == (id, SLOT + 1_000, "Ben", "upgrade")
    with pytest.raises(OperatorActRefusedError, match=rf"the silence {id} ended at .* UTC, by Ben") as refused:
        end_silence(database, id, ANA, SLOT + 2_000)
    assert refused.value.refusal is OperatorActRefusalReason.CONFLICT
    with pytest.raises(OperatorActRefusedError, match="no silence has the id s-0\N{REPLACEMENT CHARACTER}'") as refused:
        end_silence(database, "s-0\0'", ANA, SLOT + 2_000)
    assert refused.value.refusal is OperatorActRefusalReason.NOT_FOUND
    log = [(row["kind"], row["author"], row["interface"], row["silence"]) for row in harness.select_rows(acts)]
    assert log == [("silence", "Ana", "page", id), ("unsilence", "Ben", "cli", id)]


def test_there_are_at_most_so_many_silences(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_ACTIVE_SILENCES == 1_000
    monkeypatch.setattr("watchdog.store.write.silences.MAX_ACTIVE_SILENCES", 2)
    harness = make_harness(database)
    silence(harness, SLOT)
    silence(harness, SLOT)
    with pytest.raises(OperatorActRefusedError, match="2 silences are in effect, and no more are possible"):
        silence(harness, SLOT)
    end_expired(harness, SLOT + HOUR_MS)
    silence(harness, SLOT + HOUR_MS)


def test_an_end_that_cannot_get_its_locks_is_tried_again(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = make_harness(database)
    id = silence(harness, SLOT - 1)
    record(harness, "fail", SLOT)
    monkeypatch.setattr(silence_ends, "_acquire_locks_for_ending_silences_unless_probes_changed", lambda *_: False)
    assert end_expired(harness, SLOT + HOUR_MS) == []
    monkeypatch.undo()
    assert end_expired(harness, SLOT + HOUR_MS + 1) == [id]


def begin_repeatable(database: Database, at: int, *probe_ids: str, for_ms: int = HOUR_MS) -> list[str]:
    requests = [make_silence_request(at + for_ms, id=probe_id) for probe_id in probe_ids]
    return [each.id for each in begin_silences_unless_repeated(database, requests, ANA, at)]


def test_a_silence_that_repeats_one_in_effect_begins_none(database: Database) -> None:
    harness = make_harness(database, "api", "shop")
    record(harness, "fail", SLOT, "api", "shop")
    first = begin_repeatable(database, SLOT, "api", "shop")
    assert len(set(first)) == 2
    assert begin_repeatable(database, SLOT + 60_000, "api", "shop") == first
    assert begin_repeatable(database, SLOT + 60_000, "shop", for_ms=30_000) == first[1:], "a shorter one"
    (longer,) = begin_repeatable(database, SLOT + 60_001, "api")
    assert longer not in first
    assert begin_repeatable(database, SLOT + 60_000, "api", "shop") == [longer, first[1]]
    end_silence(database, first[1], BEN, SLOT + 60_003)
    (again,) = begin_repeatable(database, SLOT + 60_004, "shop")
    assert again not in first
    selected = harness.select_rows(silenced_incidents)
    assert {row["silence"] for row in selected} == {*first, longer, again}


def test_two_processes_that_begin_the_same_silence_begin_one(databases: DatabasePair) -> None:
    make_harness(databases.first)
    with ThreadPoolExecutor(2) as pool:
        both = [
            pool.submit(begin_repeatable, database, SLOT, "api") for database in (databases.first, databases.second)
        ]
        ids = {id for each in both for id in each.result(60)}
    assert len(ids) == 1
    with databases.first.open_read_transaction() as connection:
        assert [each.id for each in list_silences_in_effect(connection)] == list(ids)


def test_several_silences_begin_together_or_not_at_all(database: Database) -> None:
    make_harness(database, "api", "shop")
    begin = {"started_at": SLOT, "ends_at": SLOT + HOUR_MS, "author": "Ana", "interface": "page", "comment": ""}
    rows = [{"id": f"s-{n}", "matcher": "{}", "ended_by": "", **begin} for n in range(MAX_ACTIVE_SILENCES - 1)]
    with database.open_write_transaction() as connection:
        connection.execute(sa.insert(silences), rows)
    with pytest.raises(OperatorActRefusedError, match="silences are in effect, and no more"):
        begin_repeatable(database, SLOT, "api", "shop")
    with database.open_read_transaction() as connection:
        assert len(list_silences_in_effect(connection)) == MAX_ACTIVE_SILENCES - 1
    assert len(begin_repeatable(database, SLOT, "api")) == 1
