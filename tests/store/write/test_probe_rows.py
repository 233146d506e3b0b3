"""An act on a probe that does not exist names a similar one, and keeps no one else waiting for that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.acts import ANA
from tests.support.store import START_AT, StoreHarness, make_registered_probe
from watchdog.domain.acts import ActSubjectKind, OperatorActRefusalReason, OperatorActRefusedError
from watchdog.domain.selection import format_similar_name_hint
from watchdog.service.acts import forget_missing_jobs, pause_probe, request_run, resume_probe
from watchdog.store.database import Database
from watchdog.store.errors import StoreUnavailableError
from watchdog.store.write import probe_rows


def pause(database: Database, probe: str) -> Any:
    return pause_probe(database, probe, None, ANA, "", now=START_AT)


def resume(database: Database, probe: str) -> Any:
    return resume_probe(database, probe, ANA, "", START_AT)


def run(database: Database, probe: str) -> Any:
    return request_run(database, probe, ANA, "", START_AT)


def forget(database: Database, probe: str) -> Any:
    return forget_missing_jobs(database, probe, "", ANA, "", now=START_AT)


@pytest.mark.parametrize("act", [pause, resume, run, forget])
def test_a_similar_probe_is_searched_while_others_can_write(
    database: Database, monkeypatch: pytest.MonkeyPatch, act: Callable[[Database, str], Any]
) -> None:
    StoreHarness(database, [make_registered_probe("search")])

    def format_while_another_writes(*arguments: Any) -> str:
        with database.open_write_transaction():
            return format_similar_name_hint(*arguments)

    monkeypatch.setattr(probe_rows, "format_similar_name_hint", format_while_another_writes)
    with pytest.raises(OperatorActRefusedError) as refused:
        act(database, "serach\x00")
    assert str(refused.value) == "no probe has the id or name serach\ufffd; did you mean 'Search'?"
    assert refused.value.refusal is OperatorActRefusalReason.NOT_FOUND
    assert refused.value.unknown_subject is ActSubjectKind.PROBE


def test_an_act_is_refused_even_if_similar_names_cannot_be_read(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    StoreHarness(database, [make_registered_probe("search")])

    def fail() -> None:
        raise StoreUnavailableError("database is locked")

    monkeypatch.setattr(database, "open_read_transaction", fail)
    with pytest.raises(OperatorActRefusedError, match=r"no probe has the id or name serach$"):
        pause(database, "serach")
