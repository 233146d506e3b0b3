"""The checks that each act makes before it is stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event
from typing import Any
from unittest.mock import Mock

import pytest
import sqlalchemy as sa

from tests.support.acts import ANA, BEN, make_silence_request
from tests.support.store import START_AT, StoreHarness, make_registered_probe
from watchdog.domain.acts import Actor, OperatorActRefusalReason, OperatorActRefusedError, OperatorInterfaceKind
from watchdog.domain.formatting import DAY_MS, HOUR_MS
from watchdog.service.acts import acknowledge_incident, begin_silence, end_silence, run_act_and_send
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.act_tables import silences
from watchdog.store.read.acts import list_silences_in_effect
from watchdog.store.tables import alert_states, probes

NOW = START_AT


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[StoreHarness]:
    with StoreHarness(f"sqlite:///{tmp_path}/watchdog.db", [make_registered_probe()]) as harness:
        yield harness


@pytest.mark.parametrize(
    ("ends_at", "message"),
    [
        (NOW, "would end in the past"),
        (NOW - 1, "would end in the past"),
        (-(2**70), "would end in the past"),
        (NOW + 365 * DAY_MS + 1, "may last for 365 days at most"),
        (2**70, "may last for 365 days at most"),
    ],
)
def test_the_end_of_a_silence_is_bounded(harness: StoreHarness, ends_at: int, message: str) -> None:
    with pytest.raises(OperatorActRefusedError, match=message) as refused:
        begin_silence(harness.database, make_silence_request(ends_at, group="Core"), ANA, NOW)
    assert refused.value.refusal is OperatorActRefusalReason.INVALID


def test_a_silence_may_last_for_a_year(harness: StoreHarness) -> None:
    started = begin_silence(harness.database, make_silence_request(NOW + 365 * DAY_MS), ANA, NOW)
    assert started.silence.ends_at == NOW + 365 * DAY_MS


def test_everything_is_silenced_only_on_purpose(harness: StoreHarness) -> None:
    request = make_silence_request(NOW + 1)._replace(selects_everything=False)
    with pytest.raises(OperatorActRefusedError, match="nothing is selected: state an id, group, tag"):
        begin_silence(harness.database, request, ANA, NOW)
    request = make_silence_request(NOW + 1, group="Core")._replace(selects_everything=True)
    with pytest.raises(OperatorActRefusedError, match="`all` silences everything: leave out"):
        begin_silence(harness.database, request, ANA, NOW)


def test_a_silence_begins_also_if_a_probe_cannot_be_read(harness: StoreHarness) -> None:
    with harness.database.open_write_transaction() as connection:
        connection.execute(sa.update(probes).values(info="{}"))
    started = begin_silence(harness.database, make_silence_request(NOW + HOUR_MS, group="Core"), ANA, NOW)
    assert started.selection == (0, ("the probes that it selects cannot be read from the database",))
    assert harness.select_row(silences)["id"] == started.silence.id


@pytest.mark.parametrize(
    ("subject", "count", "warnings"),
    [
        ("search-*", 1, ()),
        ("serach-index", 2, ("no job or other subject 'serach-index' of any probe is known now",)),
    ],
)
def test_what_is_wrong_with_the_selected_probes_is_known(
    subject: str, count: int, warnings: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also if it takes several queries."""
    monkeypatch.setattr("watchdog.store.read.selections.MAX_PROBES_PER_QUERY", 1)
    registered = [make_registered_probe(id) for id in ("a", "b")]
    with StoreHarness(f"sqlite:///{tmp_path}/watchdog.db", registered) as harness:
        row = {"rule": "task", "subject": "search-index", "bad_count": 1, "good_count": 0, "first_bad_slot": NOW}
        with harness.database.open_write_transaction() as connection:
            connection.execute(sa.insert(alert_states).values(probe=harness.database_id("b"), reason="", **row))
        started = begin_silence(harness.database, make_silence_request(NOW + 1, subject=subject), ANA, NOW)
    hint = "; did you mean 'search-index'?" if warnings else ""
    assert started.selection == (count, tuple(f"{warning}{hint}" for warning in warnings))


@pytest.mark.parametrize("field", ["id", "group", "kind", "subject", "comment"])
def test_the_length_of_each_text_is_bounded(harness: StoreHarness, field: str) -> None:
    values: dict[str, Any] = {"group": "Core", field: "x" * 501}
    with pytest.raises(OperatorActRefusedError, match=f"the {field} has 501 characters; at most 500 are possible"):
        begin_silence(harness.database, make_silence_request(NOW + 1, **values), ANA, NOW)
    begin_silence(harness.database, make_silence_request(NOW + 1, **{**values, field: "x" * 500}), ANA, NOW)


def test_the_number_of_tags_is_bounded(harness: StoreHarness) -> None:
    tags = tuple(map(str, range(51)))
    with pytest.raises(OperatorActRefusedError, match="the silence has 51 tags; at most 50 are possible"):
        begin_silence(harness.database, make_silence_request(NOW + 1, tags=tags), ANA, NOW)
    begin_silence(harness.database, make_silence_request(NOW + 1, tags=tags[1:]), ANA, NOW)


def test_a_long_tag_is_refused(harness: StoreHarness) -> None:
    with pytest.raises(OperatorActRefusedError, match="the tag has 501 characters"):
        begin_silence(harness.database, make_silence_request(NOW + 1, tags=("x" * 501,)), ANA, NOW)


def test_a_repeated_request_with_a_key_begins_one_silence(harness: StoreHarness) -> None:
    request = make_silence_request(NOW + HOUR_MS, group="Core")._replace(idempotency_key="k-1")
    first = begin_silence(harness.database, request, ANA, NOW)
    again = begin_silence(harness.database, request._replace(ends_at=NOW + 2 * HOUR_MS), ANA, NOW + 1_000)
    assert again == first, "the end is that of the first request"
    assert begin_silence(harness.database, request, BEN, NOW).silence.id != first.silence.id
    other_key = begin_silence(harness.database, request._replace(idempotency_key="k-2"), ANA, NOW)
    assert other_key.silence.id != first.silence.id
    assert len(harness.select_rows(silences)) == 3
    other = make_silence_request(NOW + HOUR_MS, group="Search")._replace(idempotency_key="k-1")
    with pytest.raises(OperatorActRefusedError, match=f"the key was used for another silence, {first.silence.id}"):
        begin_silence(harness.database, other, ANA, NOW)
    end_silence(harness.database, first.silence.id, ANA, NOW + 2_000)
    assert begin_silence(harness.database, request, ANA, NOW + 3_000).silence.ended_at == NOW + 2_000


@pytest.mark.parametrize(
    ("name", "stored"), [("", "unknown"), ("A\nB", "A B"), ("\u202eAna", "\ufffdAna"), ("x" * 200, "x" * 99 + "…")]
)
def test_the_name_of_the_author_is_a_short_line(harness: StoreHarness, name: str, stored: str) -> None:
    request = make_silence_request(NOW + 1, comment="\0 upgrade\ud800 ")
    started = begin_silence(harness.database, request, Actor(name, OperatorInterfaceKind.API), NOW)
    assert started.silence.actor.name == stored
    with harness.database.open_read_transaction() as connection:
        assert list_silences_in_effect(connection) == [started.silence]
    assert started.silence.comment == "\ufffd upgrade\ufffd"


def test_a_comment_on_an_acknowledgement_is_bounded(harness: StoreHarness) -> None:
    with pytest.raises(OperatorActRefusedError, match="the comment has 501 characters"):
        acknowledge_incident(harness.database, "any", ANA, "x" * 501, NOW)


@asynccontextmanager
async def busy_writer(executor: StoreExecutor) -> AsyncIterator[None]:
    """Other acts wait until the block ends."""
    is_released = Event()
    blocking = asyncio.create_task(executor.run_write(is_released.wait))
    await asyncio.sleep(0)  # it begins
    try:
        yield
    finally:
        is_released.set()
        await blocking


async def test_an_act_that_waits_does_not_begin_once_its_caller_has_left(harness: StoreHarness) -> None:
    executor, sender, acts_begun = StoreExecutor(harness.database, lambda: NOW), Mock(), []
    async with busy_writer(executor):
        waiting = asyncio.create_task(run_act_and_send(executor, sender, lambda _, now: acts_begun.append(now)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    await executor.run_write(lambda: None)
    assert (acts_begun, sender.send_due_soon.call_count) == ([], 0)
    assert await run_act_and_send(executor, sender, lambda database, now: (database, now)) == (harness.database, NOW)
    assert sender.send_due_soon.call_count == 1


async def test_an_act_that_waits_too_long_does_not_begin(
    harness: StoreHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchdog.service.acts.ACT_TIMEOUT_S", 0.01)
    executor, acts_begun = StoreExecutor(harness.database, lambda: NOW), []
    async with busy_writer(executor):
        with pytest.raises(TimeoutError):
            await run_act_and_send(executor, Mock(), lambda _, now: acts_begun.append(now))
    await executor.run_write(lambda: None)
    assert acts_begun == []
