"""Remediations run concurrently, never start after a shutdown, and never use a masked name."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.builders import stuck_job
from tests.support.fakes import CannedResponse, FakeHttpReceiver
from tests.support.polling import wait_until_async
from tests.support.service import ServiceHarness, scripted_probe
from tests.support.store import INTERVAL_MS, START_AT, StoreHarness, make_registered_probe, make_result
from watchdog.domain.model import Outcome
from watchdog.net import NetworkAccess, SecretMask
from watchdog.service.remediation import RemediationRunner
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.tables import remediations
from watchdog.store.write.remediations import RemediationStore

SLOT = START_AT + INTERVAL_MS


class RemediationHarness:
    """Two probes with a remediation over HTTP, both with a stuck job."""

    def __init__(self, folder: Path, server: FakeHttpReceiver, subject: str = "ledger"):
        self.store = StoreHarness(
            f"sqlite:///{folder / 'watchdog.db'}",
            [make_registered_probe("a", failure_threshold=1), make_registered_probe("b", failure_threshold=1)],
        ).without_downtime()
        self.store_executor = StoreExecutor(self.store.database, lambda: SLOT + 1_000)
        remediation = {"on": "job.stuck", "http": {"url": server.url + "{subject}", "json": {"probe": "{probe}"}}}
        probe_by_id = {id: scripted_probe(id, remediation=remediation) for id in "ab"}
        probes = {id: probe_by_id[registered.info.id] for id, registered in self.store.registry.items()}
        self.mask = SecretMask(["hush-hush"])
        self.network = NetworkAccess()
        store = RemediationStore(self.store.database, self.store.registry)
        self.runner = RemediationRunner(
            store=store,
            store_executor=self.store_executor,
            probes=probes,
            network=self.network,
            mask=self.mask,
            clock=lambda: SLOT + 1_000,
        )
        problems = [stuck_job(self.mask(subject), SLOT, "7")]
        for probe in probes:
            self.store.record_results(make_result(probe, SLOT, Outcome.FAIL, jobs=problems))

    def states(self) -> list[str]:
        return sorted(row["state"] for row in self.store.select_rows(remediations))


@pytest.fixture
def server() -> Iterator[FakeHttpReceiver]:
    with FakeHttpReceiver() as receiver:
        yield receiver


async def test_a_slow_response_delays_no_other_remediation(tmp_path: Path, server: FakeHttpReceiver) -> None:
    response_allowed = threading.Event()

    def respond_slowly() -> CannedResponse:
        response_allowed.wait(60)
        return CannedResponse()

    server.canned_responses.append(respond_slowly)
    harness = RemediationHarness(tmp_path, server)
    async with harness.network:
        running = asyncio.create_task(harness.runner.run_pending_remediations())
        await wait_until_async(lambda: harness.states() == ["started", "succeeded"])
        response_allowed.set()
        await running
    assert harness.states() == ["succeeded", "succeeded"]
    assert {request.json["probe"] for request in server.received} == {"a", "b"}


async def test_a_shutdown_finishes_running_remediations_and_starts_none(
    tmp_path: Path, server: FakeHttpReceiver
) -> None:
    response_allowed = threading.Event()

    def respond_slowly() -> CannedResponse:
        response_allowed.wait(60)
        return CannedResponse()

    server.canned_responses += [respond_slowly, respond_slowly]
    harness = RemediationHarness(tmp_path, server)
    async with harness.network:
        running = asyncio.create_task(harness.runner.run_pending_remediations())
        await wait_until_async(lambda: len(server.received) == 2)
        stopping = asyncio.create_task(harness.runner.stop(60))
        response_allowed.set()
        await stopping
        assert harness.states() == ["succeeded", "succeeded"]
        await running
        for probe in harness.store.database_ids:
            harness.store.record_results(
                make_result(probe, SLOT + 1, Outcome.FAIL, jobs=[stuck_job("ledger", SLOT, "8")])
            )
        await harness.runner.run_pending_remediations()
    assert len(server.received) == 2


async def test_a_shutdown_waits_for_remediations_and_runs_concurrently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ServiceHarness(f"sqlite:///{tmp_path / 'watchdog.db'}", [scripted_probe("a")]) as harness:
        barrier = asyncio.Barrier(2)

        async def meet(_: float) -> None:
            await barrier.wait()

        monkeypatch.setattr(harness.run_executor, "stop", meet)
        monkeypatch.setattr(harness.service, "_remediation_runner", SimpleNamespace(stop=meet))
        await harness.service.start()
        async with asyncio.timeout(60):
            await harness.service.stop()
        monkeypatch.undo()


async def test_a_masked_name_is_not_remediated(tmp_path: Path, server: FakeHttpReceiver) -> None:
    harness = RemediationHarness(tmp_path, server, "export hush-hush")
    async with harness.network:
        await harness.runner.run_pending_remediations()
    assert server.received == []
    [first, _] = harness.store.select_rows(remediations)
    assert first["state"] == "failed"
    assert first["detail"].startswith("the exact value of subject is not stored")
