"""A process that changes its configuration while it runs: what it leaves, and what it keeps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
import sqlalchemy as sa

from tests.support.store import (
    INTERVAL_MS,
    START_AT,
    DatabasePair,
    StoreHarness,
    make_member_configuration,
    make_registered_probe,
    make_result,
)
from watchdog.domain.formatting import HOUR_MS, MINUTE_MS
from watchdog.domain.membership import DEREGISTERED_WATCHDOG_PROCESS_RETENTION_MS, WATCHDOG_PROCESS_LEASE_MS
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.schedule import CronSchedule, IntervalSchedule
from watchdog.store.errors import StoreUnavailableError
from watchdog.store.read.members import find_probe_id_by_check_in_token_digest, load_live_watchdog_processes
from watchdog.store.tables import incidents, members, probes, revision_probes, schedule
from watchdog.store.write.ended_members import delete_ended_watchdog_processes

SLOT = START_AT + INTERVAL_MS
API, SHOP, NEW = (
    make_registered_probe(name, failure_threshold=1, success_threshold=1) for name in ("api", "shop", "new")
)
CHANGED_SHOP = make_registered_probe(
    "shop", failure_threshold=1, success_threshold=1, schedule=IntervalSchedule(30_000)
)
RENAMED_SHOP = replace(SHOP, policy=replace(SHOP.policy, probe=replace(SHOP.policy.probe, name="Store")))


def join(databases: DatabasePair, *configured: RegisteredProbe, second: bool = False) -> StoreHarness:
    database = databases.second if second else databases.first
    return StoreHarness(database, configured, now=START_AT, create_schema=False).without_downtime()


def reload(harness: StoreHarness, now: int, *configured: RegisteredProbe, tokens: dict[str, str] | None = None) -> None:
    configuration = make_member_configuration(configured, harness.routes)
    harness.membership.change_configuration(replace(configuration, check_in_tokens=tokens or {}), now)


def active(harness: StoreHarness) -> set[str]:
    return {row["probe_id"] for row in harness.select_rows(probes, probes.c.removed_at.is_(None))}


def open_incidents(harness: StoreHarness) -> list[str]:
    return [row["id"] for row in harness.select_rows(incidents, incidents.c.resolved_at.is_(None))]


def next_due(harness: StoreHarness, probe_id: str) -> int:
    [row] = harness.select_rows(schedule, schedule.c.probe == harness.database_id(probe_id))
    return int(row["next_due"])


def renew(harnesses: Iterable[StoreHarness], now: int) -> None:
    for harness in harnesses:
        harness.membership.renew_process_lease_and_update_probes(now)


def test_what_it_no_longer_has_is_retired_one_lease_later(databases: DatabasePair) -> None:
    harness = join(databases, API, SHOP)
    harness.record_results(make_result(harness.database_id("shop"), SLOT, "fail"))
    reload(harness, SLOT, API, NEW)
    assert active(harness) == {"api", "shop", "new"}
    assert len(open_incidents(harness)) == 1
    renew([harness], SLOT + WATCHDOG_PROCESS_LEASE_MS - 1)
    assert "shop" in active(harness)
    renew([harness], SLOT + WATCHDOG_PROCESS_LEASE_MS)
    assert active(harness) == {"api", "new"}
    assert open_incidents(harness) == []


def test_a_probe_that_returns_in_time_keeps_its_incident(databases: DatabasePair) -> None:
    harness = join(databases, API, SHOP)
    (opened,) = harness.record_results(make_result(harness.database_id("shop"), SLOT, "fail"))
    id = harness.database_id("shop")
    reload(harness, SLOT, API)
    reload(harness, SLOT + 20_000, API, SHOP)
    renew([harness], SLOT + 10 * WATCHDOG_PROCESS_LEASE_MS)
    assert open_incidents(harness) == [opened.incident]
    assert harness.database_id("shop") == id


def test_another_name_keeps_history_and_incident(databases: DatabasePair) -> None:
    harness = join(databases, SHOP)
    (opened,) = harness.record_results(make_result(harness.database_id("shop"), SLOT, "fail"))
    reload(harness, SLOT, RENAMED_SHOP)
    assert open_incidents(harness) == [opened.incident]
    assert [row["name"] for row in harness.select_rows(probes)] == ["Store"]


def test_a_slot_that_becomes_due_while_it_reloads_is_not_lost(databases: DatabasePair) -> None:
    """What was due was claimed until SLOT; the database then is slow to store the other configuration."""
    harness = join(databases, SHOP)
    assert [claimed.slot for claimed in harness.claim_slots(SLOT)] == [SLOT]
    reload(harness, SLOT + 40_000, CHANGED_SHOP)
    assert next_due(harness, "shop") == SLOT + 30_000
    assert [claimed.slot for claimed in harness.claim_slots(SLOT + 40_000)] == [SLOT + 30_000]


@pytest.mark.parametrize(
    ("sentence", "before", "after", "expected"),
    [
        ("the same", IntervalSchedule(60_000), IntervalSchedule(60_000), [SLOT + 60_000]),
        ("more often", IntervalSchedule(60_000), IntervalSchedule(10_000), [SLOT + 10_000]),
        ("less often", IntervalSchedule(60_000), IntervalSchedule(120_000), [SLOT + 60_000, SLOT + 120_000]),
        ("from a cron schedule", CronSchedule("* * * * *", "UTC"), IntervalSchedule(60_000), [SLOT + 60_000]),
        ("to a cron schedule", IntervalSchedule(60_000), CronSchedule("* * * * *", "UTC"), [SLOT + 60_000]),
    ],
)  # fmt: skip
def test_a_slot_that_is_claimed_ahead_of_its_time_is_not_due_again(
    databases: DatabasePair,
    sentence: str,
    before: IntervalSchedule | CronSchedule,
    after: IntervalSchedule | CronSchedule,
    expected: list[int],
) -> None:
    harness = join(databases, make_registered_probe("p", schedule=before))
    [claimed] = harness.claim_slots(SLOT - 900)
    assert claimed.slot == SLOT
    reload(harness, SLOT - 500, make_registered_probe("p", schedule=after))
    assert next_due(harness, "p") in expected, sentence
    assert harness.claim_slots(SLOT - 400) == []


def test_two_members_are_reloaded_one_after_the_other(databases: DatabasePair) -> None:
    first, second = join(databases, API, SHOP), join(databases, API, SHOP, second=True)
    reload(first, SLOT, API, CHANGED_SHOP)
    renew([second], SLOT + 1)
    assert second.membership.status.find_live_process(second.membership.member_id).superseded_probes == {  # type: ignore[union-attr]
        "shop": first.membership.revision
    }
    assert not second.registry.is_run_by_this_process(second.database_id("shop"))
    reload(second, SLOT + 2, API, CHANGED_SHOP)
    renew([first, second], SLOT + 3)
    assert first.membership.revision == second.membership.revision
    assert all(harness.registry.is_run_by_this_process(harness.database_id("shop")) for harness in (first, second))
    with databases.first.open_read_transaction() as connection:
        status = load_live_watchdog_processes(connection, SLOT + 4)
    assert (len(status.members), status.differing_since) == (2, None)


def test_back_to_the_former_configuration_while_another_process_has_the_newer(databases: DatabasePair) -> None:
    """The newest decides until its last process has left it."""
    first, second = join(databases, API, SHOP), join(databases, API, SHOP, second=True)
    for harness in (first, second):
        reload(harness, SLOT, API, CHANGED_SHOP)
    reload(first, SLOT + 1, API, SHOP)
    assert first.membership.revision < second.membership.revision
    assert not first.registry.is_run_by_this_process(first.database_id("shop"))
    reload(second, SLOT + 2, API, SHOP)
    renew([first], SLOT + 3)
    assert first.registry.is_run_by_this_process(first.database_id("shop"))


@pytest.mark.parametrize(
    "failing_step", ["_register_config_revision", "_update_processes_and_probes", "_renew_process_lease"]
)
def test_a_reload_that_fails_changes_nothing_for_long(
    databases: DatabasePair, failing_step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = join(databases, API, SHOP)
    former = harness.membership.revision
    with monkeypatch.context() as broken:

        def fail(*_: object, **__: object) -> None:
            raise StoreUnavailableError("away")

        broken.setattr(harness.membership, failing_step, fail)
        with pytest.raises(StoreUnavailableError):
            reload(harness, SLOT, API, NEW)
    assert harness.membership.revision == former
    with databases.first.open_read_transaction() as connection:
        assert harness.membership.is_process_lease_renewal_due(connection, SLOT + 1)
    renew([harness], SLOT + 1)
    assert {registered.info.id for registered in harness.registry.values()} == {"api", "shop"}
    [live] = harness.select_rows(members, ~members.c.left_in_order)
    assert (live["id"], live["revision"]) == (harness.membership.member_id, former)
    assert harness.registry.is_run_by_this_process(harness.database_id("shop"))
    reload(harness, SLOT + 2, API, NEW)
    assert harness.registry.is_run_by_this_process(harness.database_id("new"))


def test_a_process_that_has_left_does_not_come_back(databases: DatabasePair) -> None:
    harness = join(databases, API)
    harness.membership.leave(SLOT)
    reload(harness, SLOT + 1, API, NEW)
    assert active(harness) == {"api"}
    assert [row["left_in_order"] for row in harness.select_rows(members)] == [True]


def test_tokens(databases: DatabasePair) -> None:
    """A rotated one is void at once; that of a removed probe is valid until the probe is retired."""
    harness = join(databases, API)

    def find(digest: str, now: int) -> str | None:
        with databases.first.open_read_transaction() as connection:
            return find_probe_id_by_check_in_token_digest(connection, digest, now)

    reload(harness, SLOT, API, SHOP, tokens={"t1": "api", "t2": "shop"})
    assert (find("t1", SLOT), find("t2", SLOT)) == ("api", "shop")
    reload(harness, SLOT + 1, API, tokens={"t3": "api"})
    assert [find(digest, SLOT + 2) for digest in ("t1", "t2", "t3")] == [None, "shop", "api"]
    renew([harness], SLOT + 1 + WATCHDOG_PROCESS_LEASE_MS)
    assert [find(digest, SLOT + HOUR_MS) for digest in ("t1", "t2")] == [None, None]


def test_many_reloads_leave_little_behind(databases: DatabasePair) -> None:
    harness, now = join(databases, API), SLOT
    for number in range(30):
        now += MINUTE_MS
        policy = replace(SHOP.policy, failure_threshold=number + 1)
        reload(harness, now, API, replace(SHOP, policy=policy))
    now += DEREGISTERED_WATCHDOG_PROCESS_RETENTION_MS
    renew([harness], now)
    delete_ended_watchdog_processes(databases.first, now + 1)
    assert len(harness.select_rows(members)) == 1
    with databases.first.open_read_transaction() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(revision_probes)).scalar() == 2
