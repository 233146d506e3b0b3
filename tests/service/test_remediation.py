"""Remedies are done side by side, none is begun once we were told to stop, and none on a name that is not exact."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.fakes import CannedResponse, FakeHttpReceiver
from tests.support.polling import wait_until_async
from tests.support.service import ServiceHarness, scripted_probe
from tests.support.store import INTERVAL_MS, START_AT, StoreHarness, make_registered_probe, make_result
from watchdog.domain.model import JobProblem, Outcome
from watchdog.net import Network, SecretMask
from watchdog.service.remediation import RemediationRunner
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.tables import remediations
from watchdog.store.write.remediations import RemediationStore

SLOT = START_AT + INTERVAL_MS


class Ward:
    """Two probes with a remedy behind HTTP, both of which have a stuck job."""

    def __init__(self, folder: Path, ops: FakeHttpReceiver, subject: str = "ledger"):
        self.lab = StoreHarness(
            f"sqlite:///{folder / 'watchdog.db'}",
            [make_registered_probe("a", failure_threshold=1), make_registered_probe("b", failure_threshold=1)],
        ).without_downtime()
        self.storage = StoreExecutor(self.lab.database)
        told = {"on": "job.stuck", "http": {"url": ops.url + "{subject}", "json": {"probe": "{probe}"}}}
        by_key = {key: scripted_probe(key, remediation=told) for key in "ab"}
        probes = {id: by_key[one.info.id] for id, one in self.lab.registry.items()}
        self.mask = SecretMask(["hush-hush"])
        self.wire = Network()
        store = RemediationStore(self.lab.database, self.lab.registry)
        self.remedying = RemediationRunner(
            store=store,
            store_executor=self.storage,
            probes=probes,
            network=self.wire,
            mask=self.mask,
            clock=lambda: SLOT + 1_000,
        )
        wrong = {self.mask(subject): JobProblem("job.stuck", "it is stuck", "7")}
        for probe in probes:
            self.lab.record_results(make_result(probe, SLOT, Outcome.FAIL, jobs=wrong))

    def states(self) -> list[str]:
        return sorted(row["state"] for row in self.lab.select_rows(remediations))


@pytest.fixture
def ops() -> Iterator[FakeHttpReceiver]:
    with FakeHttpReceiver() as standin:
        yield standin


async def test_who_gives_no_answer_keeps_nobody_else_waiting(tmp_path: Path, ops: FakeHttpReceiver) -> None:
    answer = threading.Event()

    def slowly() -> CannedResponse:
        answer.wait(60)
        return CannedResponse()

    ops.canned_responses.append(slowly)
    ward = Ward(tmp_path, ops)
    async with ward.wire:
        busy = asyncio.create_task(ward.remedying.run_remediations())
        await wait_until_async(lambda: ward.states() == ["started", "succeeded"])
        answer.set()
        await busy
    assert ward.states() == ["succeeded", "succeeded"]
    assert {heard.json["probe"] for heard in ops.received} == {"a", "b"}


async def test_told_to_stop_it_ends_what_it_does_and_begins_nothing(tmp_path: Path, ops: FakeHttpReceiver) -> None:
    answer = threading.Event()

    def slowly() -> CannedResponse:
        answer.wait(60)
        return CannedResponse()

    ops.canned_responses += [slowly, slowly]
    ward = Ward(tmp_path, ops)
    async with ward.wire:
        busy = asyncio.create_task(ward.remedying.run_remediations())
        await wait_until_async(lambda: len(ops.received) == 2)
        stopping = asyncio.create_task(ward.remedying.stop(60))
        answer.set()
        await stopping
        assert ward.states() == ["succeeded", "succeeded"]
        await busy
        for probe in ward.lab.database_ids:
            ward.lab.record_results(
                make_result(probe, SLOT + 1, Outcome.FAIL, jobs={"ledger": JobProblem("job.stuck", "", "8")})
            )
        await ward.remedying.run_remediations()
    assert len(ops.received) == 2


async def test_a_remedy_that_hangs_and_a_run_that_hangs_are_waited_for_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ServiceHarness(f"sqlite:///{tmp_path / 'watchdog.db'}", [scripted_probe("a")]) as house:
        met = asyncio.Barrier(2)

        async def meets(_: float) -> None:
            await met.wait()

        monkeypatch.setattr(house.run_executor, "stop", meets)
        monkeypatch.setattr(house.service, "_remediation_runner", SimpleNamespace(stop=meets))
        await house.service.start()
        async with asyncio.timeout(60):
            await house.service.stop()
        monkeypatch.undo()


async def test_a_name_that_is_masked_is_nothing_to_act_on(tmp_path: Path, ops: FakeHttpReceiver) -> None:
    ward = Ward(tmp_path, ops, "export hush-hush")
    async with ward.wire:
        await ward.remedying.run_remediations()
    assert ops.received == []
    [first, _] = ward.lab.select_rows(remediations)
    assert first["state"] == "failed"
    assert first["detail"].startswith("the exact value of subject is not stored")
