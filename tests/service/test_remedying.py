"""Remedies are done side by side, none is begun once we were told to stop, and none on a name that is not exact."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.patience import until
from tests.service.house import House, scripted
from tests.standins import Answer, HttpStandIn
from tests.store.lab import EVERY, T0, Lab, member, result
from watchdog.model import Outcome, Trouble
from watchdog.service.remedies import Remedying
from watchdog.service.storage import Storage
from watchdog.store.remedies import Remedies
from watchdog.store.tables import remedies
from watchdog.wire import Mask, Wire

SLOT = T0 + EVERY


class Ward:
    """Two probes with a remedy behind HTTP, both of which have a stuck job."""

    def __init__(self, folder: Path, ops: HttpStandIn, subject: str = "ledger"):
        self.lab = Lab(
            f"sqlite:///{folder / 'watchdog.db'}", [member("a", after=1), member("b", after=1)]
        ).without_gaps()
        self.storage = Storage(self.lab.database)
        told = {"on": "stuck", "http": {"url": ops.url + "{subject}", "json": {"probe": "{probe}"}}}
        by_key = {key: scripted(key, remedy=told) for key in "ab"}
        probes = {id: by_key[one.info.key] for id, one in self.lab.fleet.items()}
        self.mask = Mask(["hush-hush"])
        self.wire = Wire()
        store = Remedies(self.lab.database, self.lab.fleet)
        self.remedying = Remedying(store, self.storage, probes, self.wire, self.mask, lambda: SLOT + 1_000)
        wrong = {self.mask(subject): Trouble("job.stuck", "it is stuck", "7")}
        for probe in probes:
            self.lab.record(result(probe, SLOT, Outcome.FAIL, jobs=wrong))

    def states(self) -> list[str]:
        return sorted(row["state"] for row in self.lab.rows(remedies))


@pytest.fixture
def ops() -> Iterator[HttpStandIn]:
    with HttpStandIn() as standin:
        yield standin


async def test_who_gives_no_answer_keeps_nobody_else_waiting(tmp_path: Path, ops: HttpStandIn) -> None:
    answer = threading.Event()

    def slowly() -> Answer:
        answer.wait(60)
        return Answer()

    ops.answers.append(slowly)
    ward = Ward(tmp_path, ops)
    async with ward.wire:
        busy = asyncio.create_task(ward.remedying.remedy())
        await until(lambda: ward.states() == ["begun", "done"])
        answer.set()
        await busy
    assert ward.states() == ["done", "done"]
    assert {heard.json["probe"] for heard in ops.heard} == {"a", "b"}


async def test_told_to_stop_it_ends_what_it_does_and_begins_nothing(tmp_path: Path, ops: HttpStandIn) -> None:
    answer = threading.Event()

    def slowly() -> Answer:
        answer.wait(60)
        return Answer()

    ops.answers += [slowly, slowly]
    ward = Ward(tmp_path, ops)
    async with ward.wire:
        busy = asyncio.create_task(ward.remedying.remedy())
        await until(lambda: len(ops.heard) == 2)
        stopping = asyncio.create_task(ward.remedying.stop(60))
        answer.set()
        await stopping
        assert ward.states() == ["done", "done"]
        await busy
        for probe in ward.lab.ids:
            ward.lab.record(result(probe, SLOT + 1, Outcome.FAIL, jobs={"ledger": Trouble("job.stuck", "", "8")}))
        await ward.remedying.remedy()
    assert len(ops.heard) == 2


async def test_a_remedy_that_hangs_and_a_run_that_hangs_are_waited_for_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with House(f"sqlite:///{tmp_path / 'watchdog.db'}", [scripted("a")]) as house:
        met = asyncio.Barrier(2)

        async def meets(_: float) -> None:
            await met.wait()

        monkeypatch.setattr(house.dispatcher, "stop", meets)
        monkeypatch.setattr(house.service, "_remedying", SimpleNamespace(stop=meets))
        await house.service.start()
        async with asyncio.timeout(60):
            await house.service.stop()
        monkeypatch.undo()


async def test_a_name_that_is_masked_is_nothing_to_act_on(tmp_path: Path, ops: HttpStandIn) -> None:
    ward = Ward(tmp_path, ops, "export hush-hush")
    async with ward.wire:
        await ward.remedying.remedy()
    assert ops.heard == []
    [first, _] = ward.lab.rows(remedies)
    assert first["state"] == "failed"
    assert first["detail"].startswith("subject is not known to the letter")
