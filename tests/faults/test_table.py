"""The tables of faults as a whole: rows share a reason only if they share the remedy, which the row states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from watchdog.domain.reasons import REASON_CATALOGUE, get_reason_entry, get_reason_family

TABLES: dict[str, Sequence[Any]] = {
    path.stem: import_module(f"tests.faults.{path.stem}").FAULTS
    for path in sorted(Path(__file__).parent.glob("test_*.py"))
    if path != Path(__file__)
}
"""By module: its rows. A table is found by being in this folder."""
ROWS = [row for rows in TABLES.values() for row in rows]


def test_rows_share_a_reason_only_if_they_share_the_remedy() -> None:
    owners = Counter(row.reason for row in ROWS if not row.shares_remedy_with)
    assert [reason for reason, count in owners.items() if count > 1] == []
    reasons = {row.name: row.reason for row in ROWS}
    for row in ROWS:
        assert not row.shares_remedy_with or reasons[row.shares_remedy_with] == row.reason, row.name


def test_rows_have_names_of_their_own() -> None:
    assert [name for name, count in Counter(row.name for row in ROWS).items() if count > 1] == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_asserts_what_was_observed_and_its_reason_has_advice(row: Any) -> None:
    assert get_reason_entry(row.reason).advice
    assert getattr(row, "facts", ()) or getattr(row, "message", "") or REASON_CATALOGUE[row.reason].sentence


def test_the_table_is_large_enough() -> None:
    reasons = Counter(get_reason_family(row.reason) for row in ROWS)
    assert len(ROWS) >= 70
    assert reasons["tls"] + reasons["dns"] >= 15
    assert len(TABLES["test_mcp_connections"]) + len(TABLES["test_mcp_health"]) >= 20
    assert len(TABLES["test_jobs_and_queues"]) >= 20
