"""Statements for many rows and ids at once, on both databases."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from watchdog.store.bulk import execute_for_rows, has_id_of
from watchdog.store.database import Database
from watchdog.store.tables import probe_state

COUNT = 1_500
UPDATE = sa.update(probe_state).where(probe_state.c.probe == sa.bindparam("p")).values(value=sa.bindparam("v"))


@pytest.fixture(autouse=True)
def rows(database: Database) -> None:
    with database.open_write_transaction() as connection:
        rows = [{"probe": id, "key": "k", "value": str(id)} for id in range(COUNT)]
        connection.execute(sa.insert(probe_state), rows)


@pytest.mark.parametrize("ids", [[], [7], [7, 7, 9], list(range(COUNT)), [-1, 2**62]])
def test_ids_of_a_list(database: Database, ids: list[int]) -> None:
    with database.open_read_transaction() as connection:
        query = sa.select(probe_state.c.probe).where(has_id_of(probe_state.c.probe, ids))
        assert sorted(connection.execute(query).scalars()) == sorted({id for id in ids if 0 <= id < COUNT})


def test_lists_of_every_length_share_a_statement(database: Database) -> None:
    statements = set()
    sa.event.listen(database.reader, "before_cursor_execute", lambda *event: statements.add(event[2]))
    with database.open_read_transaction() as connection:
        for count in (1, 2, 500):
            connection.execute(sa.select(probe_state.c.key).where(has_id_of(probe_state.c.probe, range(count)))).all()
    assert len([statement for statement in statements if "probe_state" in statement]) == 1


def test_a_statement_is_executed_for_each_row(database: Database) -> None:
    rows = [{"p": id, "v": f"new {id}"} for id in range(0, COUNT + 10, 10)]
    with database.open_write_transaction() as connection:
        assert execute_for_rows(connection, UPDATE, rows) == COUNT // 10
    with database.open_read_transaction() as connection:
        values = dict(map(tuple, connection.execute(sa.select(probe_state.c.probe, probe_state.c.value))))
    assert [values[10], values[11]] == ["new 10", "11"]


def test_rows_that_exist_are_neither_changed_nor_counted_as_new(database: Database) -> None:
    rows = [{"probe": id, "key": "k", "value": "other"} for id in range(COUNT - 2, COUNT + 2)]
    with database.open_write_transaction() as connection:
        new = database.insert_new_rows(connection, probe_state, rows)
    assert new == {(COUNT, "k"), (COUNT + 1, "k")}
    with database.open_read_transaction() as connection:
        values = dict(map(tuple, connection.execute(sa.select(probe_state.c.probe, probe_state.c.value))))
    assert [values[COUNT - 1], values[COUNT]] == [str(COUNT - 1), "other"]
