"""What a person means who states an id, the beginning of one or a probe, on both databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.store import StoreHarness
from watchdog.domain.acts import OperatorActRefusedError
from watchdog.store.read.incident_references import find_incident_id_or_probe, find_incident_id_to_act_on

FIRST, SECOND = "00000a" + "0" * 18, "00000b" + "0" * 18
THIRD = "00000b" + "1" * 18


@pytest.fixture
def store(database_url: str) -> Iterator[StoreHarness]:
    """Api has one open incident, Web two; two probes are named like the beginning of an id."""
    rows = FixtureRows()
    for name, ids in (("Api", [FIRST]), ("Web", [SECOND, THIRD]), ("00000a", []), ("fffffe", [])):
        probe = rows.add_probe(name)
        for id in ids:
            rows.add_incident(probe, "availability", f"HTTP 503 {id[-1]}", NOW, subject=id[-1])
            rows.rows["incidents"][-1]["id"] = id
    with StoreHarness(database_url) as made:
        with made.database.open_write_transaction() as connection:
            rows.insert_into(connection)
        yield made


def find(store: StoreHarness, text: str) -> str:
    """The id of an incident, or of a probe, or the refusal."""
    with store.database.open_read_transaction() as connection:
        try:
            referenced = find_incident_id_or_probe(connection, text)
        except OperatorActRefusedError as e:
            return str(e)
    return referenced if isinstance(referenced, str) else f"probe {referenced.id}"


def find_to_act_on(store: StoreHarness, text: str) -> str:
    with store.database.open_read_transaction() as connection:
        try:
            return find_incident_id_to_act_on(connection, text)
        except OperatorActRefusedError as e:
            return str(e)


def test_what_a_text_stands_for(store: StoreHarness) -> None:
    several = "several incidents have an id that begins with 00000b; state the id of one of them: "
    assert {
        text: find(store, text)
        for text in (
            FIRST,
            FIRST[:7],
            SECOND[:7],
            "00000b",
            "00000a",
            "fffffe",
            "00000",
            "00000A0",
            "Api",
            "web",
            "Aip",
            "xyz",
        )
    } == {
        FIRST: FIRST,
        FIRST[:7]: FIRST,
        SECOND[:7]: SECOND,
        "00000b": f"{several}{SECOND}, {THIRD}",
        "00000a": f"00000a is a probe, and an incident has an id that begins so; state the id of one of them: {FIRST}",
        "fffffe": "probe fffffe",
        "00000": "no incident has the id 00000, and no probe has this id or name; did you mean '00000a'?",
        "00000A0": "no incident has the id 00000A0, and no probe has this id or name; did you mean '00000a'?",
        "Api": "probe api",
        "web": "probe web",
        "Aip": "no incident has the id Aip, and no probe has this id or name; did you mean 'Api'?",
        "xyz": "no incident has the id xyz, and no probe has this id or name",
    }


def test_a_probe_stands_for_its_only_open_incident(store: StoreHarness) -> None:
    assert find_to_act_on(store, "Api") == FIRST
    assert find_to_act_on(store, "fffffe") == "fffffe has no open incident"
    several = find_to_act_on(store, "web")
    assert several.startswith("Web has 2 open incidents; state the id of one of them: ")
    assert f"{SECOND} (HTTP 503 0)" in several
    assert f"{THIRD} (HTTP 503 1)" in several
