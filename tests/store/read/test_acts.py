"""The lists of silences and of acts, page by page, on each kind of database."""

from __future__ import annotations

from tests.support.acts import ANA, BEN, make_silence_request
from tests.support.store import START_AT
from watchdog.domain.acts import OperatorActKind
from watchdog.service.acts import begin_silence, end_silence, record_config_act
from watchdog.store.database import Database
from watchdog.store.read.acts import list_acts, list_silences
from watchdog.store.write.audit import record_operator_act

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
