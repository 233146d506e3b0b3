"""The lists of silences and of acts, page by page, on each kind of database."""

from __future__ import annotations

import pytest

from tests.store.write.test_silences import SLOT, make_harness, record
from tests.support.acts import ANA, BEN, make_silence_request, silence
from tests.support.comparisons import record_comparisons
from tests.support.store import INTERVAL_MS, START_AT
from watchdog.domain.acts import OperatorActKind
from watchdog.domain.formatting import HOUR_MS
from watchdog.service.acts import begin_silence, end_silence, record_config_act
from watchdog.store.database import Database
from watchdog.store.read.acts import (
    MAX_INCIDENTS_LOADED_BY_ID,
    list_acts,
    list_silences,
    load_silences_by_incident,
)
from watchdog.store.read.status import list_incidents, list_probe_statuses
from watchdog.store.write.audit import record_operator_act
from watchdog.web.pages.probes import ProbesPageFilter, load_probes_page
from watchdog.web.pages.status_snapshot import StatusPageConfig, load_status_page_snapshot

NOW = START_AT


def test_silences_are_listed_newest_first_and_after_a_position(database: Database) -> None:
    started = [
        begin_silence(database, make_silence_request(NOW + 9_000, id=f"p{n}"), ANA, NOW + n // 2).silence
        for n in range(6)
    ]
    end_silence(database, started[0].id, BEN, NOW + 10)
    expected = [silence.id for silence in sorted(started, key=lambda silence: (-silence.started_at, silence.id))]
    with database.open_read_transaction() as connection:
        pages, after = [], None
        while page := list_silences(connection, limit=2, after=after):
            pages += page
            after = page[-1].started_at, page[-1].id
        assert [silence.id for silence in pages] == expected
        assert [silence.id for silence in list_silences(connection, limit=9, is_in_effect=False)] == [started[0].id]
        in_effect = [silence.id for silence in list_silences(connection, limit=9, is_in_effect=True)]
        assert in_effect == [id for id in expected if id != started[0].id]
        assert list_silences(connection, limit=9, after=(NOW, "\0\ud800~")) == []


def test_only_open_incidents_have_silences(database: Database) -> None:
    harness = make_harness(database, "api", "web", "tools")
    core = silence(harness, SLOT - 1, for_ms=2 * HOUR_MS, group="Core")
    api = silence(harness, SLOT - 1, id="api")
    record(harness, "fail", SLOT, "api", "web", "tools")
    record(harness, "pass", SLOT + INTERVAL_MS, "web")
    with database.open_read_transaction() as connection:
        records = list_incidents(connection)
        by_probe = {record.probe.id: [silence.id for silence in record.silences] for record in records}
        assert by_probe == {"api": [api, core], "web": [], "tools": [core]}, "web is resolved"
        assert not any(record.silences for record in list_incidents(connection, with_silences=False))
        incidents = {record.probe.id: record.incident.id for record in records}
        everything = load_silences_by_incident(connection)
        assert everything.keys() == {incidents["api"], incidents["tools"]}
        only_tools = load_silences_by_incident(connection, [incidents["tools"], incidents["web"]])
        assert only_tools == {incidents["tools"]: everything[incidents["tools"]]}
        assert load_silences_by_incident(connection, []) == {}
        many = [incidents["tools"], *map(str, range(MAX_INCIDENTS_LOADED_BY_ID))]
        assert load_silences_by_incident(connection, many)[incidents["tools"]] == everything[incidents["tools"]]


def test_lists_that_show_no_silences_of_probes_do_not_search_them(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = make_harness(database, "api", "web")
    silence(harness, SLOT - 1, group="Core")
    record(harness, "fail", SLOT, "api")
    compared = record_comparisons(monkeypatch)
    with database.open_read_transaction() as connection:
        load_status_page_snapshot(connection, StatusPageConfig(), SLOT)
        list_probe_statuses(connection, now=SLOT, with_silences=False)
        assert compared == []
        section = load_probes_page(connection, ProbesPageFilter(), 1, SLOT).sections[0]
        assert [[mark[:14] for mark in row.marks] for row in section.rows] == [["silenced until"]]
        assert [len(status.silences) for status in list_probe_statuses(connection, now=SLOT)] == [1, 1]
    assert compared


def test_an_act_that_changes_nothing_else_is_listed(database: Database) -> None:
    for kind in (OperatorActKind.CREATE_PROBE, OperatorActKind.EDIT_PROBE, OperatorActKind.DELETE_PROBE):
        record_config_act(database, kind, ANA._replace(name=""), NOW, probe="warm")
    with database.open_read_transaction() as connection:
        acts = list_acts(connection, limit=9)
    assert [(act.kind.value, act.probe, act.actor.name) for act in acts] == [
        ("delete_probe", "warm", "unknown"),
        ("edit_probe", "warm", "unknown"),
        ("create_probe", "warm", "unknown"),
    ]


def test_acts_are_listed_newest_first_and_before_a_position(database: Database) -> None:
    with database.open_write_transaction() as connection:
        for number in range(5):
            record_operator_act(
                connection, OperatorActKind.ACKNOWLEDGE, ANA, NOW, incident=f"i{number % 2}", comment=str(number)
            )
    with database.open_read_transaction() as connection:
        newest = list_acts(connection, limit=2)
        assert [act.comment for act in newest] == ["4", "3"]
        assert [act.comment for act in list_acts(connection, limit=9, before_id=newest[-1].id)] == ["2", "1", "0"]
        assert [act.comment for act in list_acts(connection, limit=9, incident="i1")] == ["3", "1"]
        assert list_acts(connection, limit=9, incident="\0") == []
