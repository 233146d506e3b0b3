"""How much silences and maintenance select, and hold back, at present."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from tests.store.write.test_silences import SLOT, make_harness, make_probe, record
from tests.support.acts import ANA, send_due, silence
from tests.support.comparisons import record_comparisons
from tests.support.store import INTERVAL_MS, START_AT, StoreHarness, make_registered_probe
from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.routing import ProbeMatcher
from watchdog.domain.selection import SilenceSelectionCounts
from watchdog.service.acts import MaintenanceRequest, begin_maintenance, end_silence, pause_probe
from watchdog.store.database import Database
from watchdog.store.flapping_tables import flapping_alerts, flapping_incidents
from watchdog.store.muting_tables import muted_incidents
from watchdog.store.read.acts import list_silences_in_effect, load_silences_by_probe
from watchdog.store.read.selections import (
    count_bad_probes_in_maintenance_window,
    count_incidents_sent_at_end_of_silence,
    load_active_probe_infos,
    load_selected_counts_of_silences,
)
from watchdog.store.tables import incidents, outbox


def load_counts(harness: StoreHarness) -> dict[str, SilenceSelectionCounts]:
    with harness.database.open_read_transaction() as connection:
        in_effect = list_silences_in_effect(connection)
        return load_selected_counts_of_silences(connection, in_effect, load_active_probe_infos(connection))


def count_sent(harness: StoreHarness, id: str, now: int = SLOT + INTERVAL_MS) -> int:
    with harness.database.open_read_transaction() as connection:
        return count_incidents_sent_at_end_of_silence(connection, id, now)


def insert(database: Database, table: sa.Table, **values: Any) -> None:
    with database.open_write_transaction() as connection:
        connection.execute(sa.insert(table).values(**values))


def test_each_silence_in_effect_has_its_counts(database: Database) -> None:
    harness = make_harness(database, "api", "web", "tools")
    core = silence(harness, SLOT - 1, group="Core")
    by_id = silence(harness, SLOT - 1, id="api")
    nothing = silence(harness, SLOT - 1, group="Coer")
    record(harness, "fail", SLOT, "api", "web")
    counts = load_counts(harness)
    assert counts == {core: (3, 2), by_id: (1, 1), nothing: (0, 0)}
    record(harness, "pass", SLOT + INTERVAL_MS, "web")
    end_silence(database, by_id, ANA, SLOT + INTERVAL_MS)
    assert load_counts(harness) == {core: (3, 1), nothing: (0, 0)}


def test_silences_are_compared_with_the_probes_of_their_group_alone(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes = [make_probe(f"p{number}", group=f"G{number}", tags=(f"t{number}", "all")) for number in range(8)]
    harness = StoreHarness(database, probes).without_downtime()
    ids = [silence(harness, SLOT, group=f"G{number}") for number in range(8)]
    ids += [silence(harness, SLOT, tags=("all", f"t{number}")) for number in range(8)]
    ids += [silence(harness, SLOT, subject=f"job-{number}") for number in range(8)]
    compared = record_comparisons(monkeypatch)
    with database.open_read_transaction() as connection:
        by_probe = load_silences_by_probe(connection, [probe.info for probe in harness.registry.values()])
    assert [len(selecting) for selecting in by_probe.values()] == [10] * 8
    assert len(compared) <= 8 * 10, "of 8 * 24"
    compared.clear()
    counts = load_counts(harness)
    assert [counts[id].probe_count for id in ids] == [1] * 16 + [8] * 8
    assert len([1 for matcher, _ in compared if matcher.group]) == 8


def test_an_incident_is_sent_at_the_end_of_the_last_silence_that_holds_it_back(database: Database) -> None:
    harness = make_harness(database, "api", "web")
    record(harness, "fail", SLOT, "web")
    assert send_due(harness, SLOT) == [("web", "oncall/slack", "opened")]
    core = silence(harness, SLOT + 1, group="Core")
    assert count_sent(harness, core) == 0, "people know of it"
    record(harness, "fail", SLOT + INTERVAL_MS, "api")
    assert count_sent(harness, core) == 1, "before the first attempt to send it"
    assert send_due(harness, SLOT + INTERVAL_MS) == []
    assert count_sent(harness, core) == 1
    other = silence(harness, SLOT + INTERVAL_MS, id="api")
    assert (count_sent(harness, core), count_sent(harness, other)) == (0, 0), "either holds it back"
    end_silence(database, core, ANA, SLOT + INTERVAL_MS + 1)
    assert (count_sent(harness, core), count_sent(harness, other), count_sent(harness, "none")) == (0, 1, 0)
    assert send_due(harness, SLOT + INTERVAL_MS + 2) == []
    end_silence(database, other, ANA, SLOT + INTERVAL_MS + 3)
    assert send_due(harness, SLOT + INTERVAL_MS + 4) == [("api", "oncall/slack", "opened")], "as was counted"


def test_an_incident_that_was_sent_between_two_silences_is_not_sent_again(database: Database) -> None:
    harness = make_harness(database)
    first = silence(harness, SLOT - 1, group="Core")
    record(harness, "fail", SLOT)
    assert send_due(harness, SLOT) == []
    end_silence(database, first, ANA, SLOT + 1)
    assert send_due(harness, SLOT + 1) == [("api", "oncall/slack", "opened")]
    second = silence(harness, SLOT + 2, group="Core")
    assert count_sent(harness, second) == 0, "people know of it"
    record(harness, "fail", SLOT + INTERVAL_MS, reason="canary.lost")
    assert count_sent(harness, second) == 1, "but not of its new cause"


def test_an_incident_that_is_also_held_back_by_something_else_is_not_sent(database: Database) -> None:
    harness = make_harness(database)
    id = silence(harness, SLOT - 1, group="Core")
    record(harness, "fail", SLOT)
    assert send_due(harness, SLOT) == []
    assert count_sent(harness, id) == 1
    incident = harness.select_row(incidents)["id"]
    muting = {"since": SLOT, "reason": "muted", "muting_probe_id": "db", "muting_incident": "x", "is_announced": True}
    insert(database, muted_incidents, incident=incident, state="muted", **muting)
    assert count_sent(harness, id) == 0


def test_of_an_alert_that_flaps_only_the_notice_is_sent(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "fail", SLOT)
    id = silence(harness, SLOT + 1, group="Core")
    incident = harness.select_row(incidents)["id"]
    times = dict.fromkeys(("began_at", "first_opened_at", "changed_at", "decide_at"), SLOT)
    alert = {"probe": harness.database_ids[0], "rule": "availability", "subject": "", "incident_count": 5}
    insert(database, flapping_alerts, id=incident, end_reason="", **alert, **times)
    insert(database, flapping_incidents, incident=incident, flapping=incident)
    assert count_sent(harness, id) == 1, "no one has the notice"
    notice = {"event": "opened", "state": "sent", "attempts": 1, "detail": "", "created_at": SLOT, "due_at": SLOT}
    insert(database, incidents, **{**harness.select_row(incidents), "id": "first", "resolved_at": SLOT})
    insert(database, outbox, incident="first", destination="oncall/slack", seq=0, lead_incident="first", **notice)
    insert(database, flapping_incidents, incident="first", flapping=incident)
    assert count_sent(harness, id) == 0


def test_probes_with_problems_in_maintenance_are_counted(database: Database) -> None:
    harness = make_harness(database, "api", "web", "tools")
    record(harness, "fail", SLOT, "tools")
    request = MaintenanceRequest(ProbeMatcher(group="Core"), SLOT + HOUR_MS)
    id = begin_maintenance(database, request, ANA, SLOT + 1).window.id

    def count(now: int) -> int:
        with database.open_read_transaction() as connection:
            return count_bad_probes_in_maintenance_window(connection, id, now)

    assert count(SLOT + 2) == 0, "the incident of tools was sent before"
    record(harness, "fail", SLOT + INTERVAL_MS, "api")
    record(harness, "pass", SLOT + INTERVAL_MS, "web")
    assert (count(SLOT + INTERVAL_MS), count(SLOT + HOUR_MS)) == (1, 0)


def test_only_probes_that_open_an_incident_with_their_next_bad_result_are_counted(database: Database) -> None:
    ids = ("api", "paused", "also", "once")
    harness = StoreHarness(database, [make_registered_probe(id, failure_threshold=3) for id in ids]).without_downtime()
    everything = MaintenanceRequest(ProbeMatcher(kind="http"), SLOT + HOUR_MS)
    id = begin_maintenance(database, everything, ANA, START_AT + 1).window.id
    for number, failing in enumerate((ids, ids[:3]), 1):
        record(harness, "fail", START_AT + number * INTERVAL_MS, *failing)
        record(harness, "pass", START_AT + number * INTERVAL_MS, *sorted({*ids} - {*failing}))
    now = START_AT + 2 * INTERVAL_MS
    record(harness, "fail", now + INTERVAL_MS, "once")

    def count() -> int:
        with database.open_read_transaction() as connection:
            return count_bad_probes_in_maintenance_window(connection, id, now + 2)

    assert count() == 3, "once has 1 of the 3 bad results"
    pause_probe(database, "paused", None, ANA, "", now=now)
    assert count() == 2
    begin_maintenance(database, MaintenanceRequest(ProbeMatcher(probe="also"), SLOT + HOUR_MS), ANA, now - 1)
    assert count() == 1, "the other window goes on"
