"""Transitions: what is recorded, in which order readers get it, and how long it stays. On both databases."""

from __future__ import annotations

from threading import Thread

import pytest
import sqlalchemy as sa

from tests.support.store import (
    START_AT,
    StoreHarness,
    make_member_configuration,
    make_registered_probe,
    make_result,
    make_results,
)
from watchdog.domain.acts import Actor, OperatorActKind, OperatorInterfaceKind
from watchdog.domain.formatting import DAY_MS, SECOND_MS
from watchdog.domain.pausing import Pause
from watchdog.domain.routing import ProbeMatcher
from watchdog.domain.silencing import Silence, SilenceMatcher
from watchdog.domain.transitions import TRANSITION_KIND_BY_ACT, RecordedTransition, TransitionKind
from watchdog.store.database import Database
from watchdog.store.read.transitions import (
    has_unnumbered_transitions,
    load_stored_transition_numbers,
    load_transitions_after,
)
from watchdog.store.transition_tables import transitions
from watchdog.store.write import acknowledgements, pauses, silence_ends, silences
from watchdog.store.write import transitions as written_transitions
from watchdog.store.write.retention import delete_expired_rows
from watchdog.store.write.transitions import TRANSITION_RETENTION_MS, number_transitions, record_transition

ANA = Actor("Ana", OperatorInterfaceKind.PAGE)
NOW = START_AT + 10_000 * SECOND_MS


def read_transitions(database: Database, after: int = 0, limit: int = 100) -> list[RecordedTransition]:
    number_transitions(database)
    with database.open_read_transaction() as connection:
        return load_transitions_after(connection, after, limit)


def make_silence(id: str, ends_at: int) -> Silence:
    matcher = SilenceMatcher(ProbeMatcher(group="Core"))
    return Silence(id=id, matcher=matcher, started_at=NOW, ends_at=ends_at, actor=ANA)


def record_at(database: Database, *instants: int) -> None:
    with database.open_write_transaction() as connection:
        for at in instants:
            record_transition(connection, TransitionKind.RELOADED, at)


def list_numbers(database: Database, after: int = 0) -> list[int]:
    return [each.number for each in read_transitions(database, after)]


def test_every_act_is_a_transition() -> None:
    assert set(TRANSITION_KIND_BY_ACT) == set(OperatorActKind)


def test_an_incident_from_opened_to_resolved(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe("api", failure_threshold=1, success_threshold=1)])
    probe = harness.database_id("api")
    bad, worse, good = make_results(probe, "ffp")
    harness.record_each(bad, worse._replace(reason="job.overdue", message="job overdue"))
    (incident,) = (each.incident for each in read_transitions(database) if each.kind is TransitionKind.OPENED)
    acknowledgements.acknowledge_incident(database, incident, ANA, "mine", worse.slot + SECOND_MS)
    acknowledgements.remove_acknowledgement(database, incident, ANA, "", worse.slot + 2 * SECOND_MS)
    harness.record_each(good)
    read = read_transitions(database)
    assert [(each.number, each.kind, each.reason, each.message) for each in read] == [
        (1, "opened", "http.503", "HTTP 503"),
        (2, "changed", "job.overdue", "job overdue"),
        (3, "acknowledged", "", ""),
        (4, "unacknowledged", "", ""),
        (5, "resolved", "", ""),
    ]
    assert {(each.incident, each.probe_id, each.probe_name) for each in read} == {(incident, "api", "Api")}
    assert read[2] == RecordedTransition(
        *(3, TransitionKind.ACKNOWLEDGED, worse.slot + SECOND_MS, incident),
        probe_id="api",
        probe_name="Api",
        actor=ANA,
        comment="mine",
    )
    assert [each.actor for each in read if each.kind in ("opened", "changed", "resolved")] == [None] * 3


def test_silences_and_pauses_that_people_end_and_that_expire(database: Database) -> None:
    StoreHarness(database, [make_registered_probe("api")])
    for id, ends_at in (("s-1", NOW + SECOND_MS), ("s-2", NOW + DAY_MS)):
        silences.begin_silence(database, make_silence(id, ends_at))
    silence_ends.end_silence(database, "s-2", ANA, NOW)
    assert silence_ends.end_expired_silences(database, NOW + SECOND_MS) == ["s-1"]
    for pause_ends_at in (NOW + SECOND_MS, None):
        pauses.begin_pause(database, "local", "api", Pause(NOW, pause_ends_at, ANA, "moved"))
        pauses.end_expired_pauses(database, "local", NOW + SECOND_MS)
    pauses.end_pause(database, "local", "api", ANA, "", NOW + 2 * SECOND_MS)
    assert [
        (each.kind, each.silence, each.probe_id, each.actor and each.actor.name) for each in read_transitions(database)
    ] == [
        ("silenced", "s-1", "", "Ana"),
        ("silenced", "s-2", "", "Ana"),
        ("unsilenced", "s-2", "", "Ana"),
        ("unsilenced", "s-1", "", None),
        ("paused", "", "api", "Ana"),
        ("resumed", "", "api", None),
        ("paused", "", "api", "Ana"),
        ("resumed", "", "api", "Ana"),
    ]


def test_a_reload_and_the_incidents_of_a_probe_that_it_removes(database: Database) -> None:
    """The start of a process is no reload."""
    probes = [make_registered_probe(name, failure_threshold=1) for name in ("api", "web")]
    harness = StoreHarness(database, probes)
    harness.record_each(make_result(harness.database_id("web"), START_AT + SECOND_MS, "fail"))
    now = START_AT + DAY_MS
    harness.membership.renew_process_lease_and_update_probes(now)
    harness.membership.change_configuration(make_member_configuration(probes[:1], harness.routes), now)
    harness.membership.renew_process_lease_and_update_probes(now + DAY_MS)
    opened, reloaded, resolved = read_transitions(database)
    revision = harness.membership.revision
    assert (reloaded.kind, reloaded.message) == (
        "reloaded",
        f"{harness.membership.member_id} uses revision {revision} of the configuration",
    )
    assert (resolved.kind, resolved.incident, resolved.reason) == ("resolved", opened.incident, "probe.removed")


def test_what_is_rolled_back_is_no_transition(database: Database) -> None:
    StoreHarness(database)
    with database.open_write_transaction() as connection:
        record_transition(connection, TransitionKind.RELOADED, NOW)
        connection.rollback()
    assert read_transitions(database) == []


def test_pages_of_transitions(database: Database) -> None:
    StoreHarness(database)
    record_at(database, *range(NOW, NOW + 5))
    assert [each.number for each in read_transitions(database, after=1, limit=2)] == [2, 3]
    assert list_numbers(database, after=3) == [4, 5]
    assert list_numbers(database, after=5) == []


def test_a_transaction_that_commits_late_is_not_skipped(database: Database) -> None:
    """The row with the lower id appears after the other one was read, and gets the next number."""
    StoreHarness(database)
    if not database.is_postgres:
        return  # SQLite has one writer
    with database.open_write_transaction() as slow:
        record_transition(slow, TransitionKind.PAUSED, NOW)
        record_at(database, NOW + 1)
        assert [(each.number, each.kind) for each in read_transitions(database)] == [(1, "reloaded")]
    assert [(each.number, each.kind) for each in read_transitions(database, after=1)] == [(2, "paused")]


def test_processes_that_number_at_the_same_time(database: Database) -> None:
    StoreHarness(database)
    others = [Database(database.writer.url.render_as_string(hide_password=False)) for _ in range(2)]
    try:
        for _ in range(5):
            record_at(database, *range(NOW, NOW + 20))
            threads = [Thread(target=number_transitions, args=(each,)) for each in (*others, database)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        for each in others:
            each.close()
    assert list_numbers(database) == list(range(1, 101))


def test_more_transitions_than_are_numbered_at_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written_transitions, "MAX_TRANSITIONS_NUMBERED_AT_ONCE", 3)
    StoreHarness(database)
    record_at(database, *range(NOW, NOW + 7))
    with database.open_read_transaction() as connection:
        assert has_unnumbered_transitions(connection)
    assert list_numbers(database) == [1, 2, 3, 4, 5, 6, 7]
    with database.open_read_transaction() as connection:
        assert not has_unnumbered_transitions(connection)


def test_expired_transitions_are_deleted_and_no_number_is_used_twice(database: Database) -> None:
    """The newest row with a number stays."""
    StoreHarness(database)
    expired = NOW - TRANSITION_RETENTION_MS - 1
    record_at(database, expired, expired, NOW)
    number_transitions(database)
    record_at(database, expired)
    delete_expired_rows(database, NOW, DAY_MS, DAY_MS)
    with database.open_read_transaction() as connection:
        assert load_stored_transition_numbers(connection) == (3, 3)
        assert connection.execute(sa.select(sa.func.count()).select_from(transitions)).scalar() == 1
    delete_expired_rows(database, NOW + 2 * TRANSITION_RETENTION_MS, DAY_MS, DAY_MS)
    record_at(database, NOW)
    assert list_numbers(database, after=3) == [4]
