"""When the configuration is read again, and what happens to an invalid one."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.polling import wait_until_async
from watchdog.config.config_files import read_config_file_signatures
from watchdog.config.load import LoadedConfig, load_config
from watchdog.domain.config_changes import ConfigChanges
from watchdog.service import config_reload
from watchdog.service.config_reload import (
    FORMER_SECRET_RETENTION_MS,
    ConfigReloadCounts,
    ConfigReloader,
    ConfigReloadOutcome,
    ConfigReloadResultKind,
    FinishedConfigReload,
)
from watchdog.service.member_faults import WatchdogProcessFaultReporter
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.database import Database
from watchdog.store.errors import StoreUnavailableError

CONFIG: dict[str, Any] = {
    "probes": [{"name": "A", "http": {"url": "http://127.0.0.1:9/", "headers": {"X-Token": "first-secret-value"}}}]
}


class ReloaderHarness:
    """A reloader whose configurations are only noted."""

    def __init__(self, folder: Path):
        self.path, self.now, self.env = folder / "watchdog.yaml", 0, dict[str, str]()
        self.applied: list[LoadedConfig] = []
        self.results: list[ConfigReloadResultKind] = []
        self.is_store_away = False
        self.during_apply: Callable[[], object] = lambda: None
        self.store_executor = StoreExecutor(Database(f"sqlite:///{folder / 'watchdog.db'}"))
        self.requested = asyncio.Event()
        self.write(CONFIG)
        loaded = load_config(self.path)
        self.mask = loaded.mask
        self.faults = WatchdogProcessFaultReporter("member", self.store_executor, lambda: self.now)
        self.reloader = ConfigReloader(
            loaded,
            self.path,
            self.apply,
            self.faults,
            clock=lambda: self.now,
            signatures=read_config_file_signatures(loaded.files),
            requested=self.requested,
            env=self.env,
            on_result=lambda reload: self.results.append(reload.outcome.result),
        )

    async def apply(self, loaded: LoadedConfig) -> ConfigChanges:
        if self.is_store_away:
            raise StoreUnavailableError("away")
        self.applied.append(loaded)
        self.during_apply()
        return ConfigChanges()

    def write(self, config: Any) -> None:
        self.path.write_text(config if isinstance(config, str) else json.dumps(config))

    def write_named(self, name: str) -> None:
        self.write({"probes": [{**CONFIG["probes"][0], "name": name}]})

    def applied_names(self) -> list[str]:
        return [loaded.config.probes[0].name for loaded in self.applied]

    @property
    def problem(self) -> str:
        return self.faults._config_fault.detail if self.faults._config_fault else ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.reloader.run_forever())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ReloaderHarness]:
    monkeypatch.setattr(config_reload, "CONFIG_FILE_CHECK_INTERVAL_S", 0.02)
    monkeypatch.setattr(config_reload, "CONFIG_WRITE_SETTLING_TIME_S", 0.02)
    monkeypatch.setattr(config_reload, "RELOAD_RETRY_INTERVAL_S", 0.01)
    harness = ReloaderHarness(tmp_path)
    yield harness
    harness.store_executor.close()


async def test_a_change_of_a_file_is_applied_once(harness: ReloaderHarness) -> None:
    async with harness.running():
        harness.write_named("B")
        await wait_until_async(lambda: harness.applied_names() == ["B"])
        harness.requested.set()
        await wait_until_async(lambda: harness.applied_names() == ["B", "B"])
    assert harness.results == [ConfigReloadResultKind.APPLIED] * 2


async def test_on_signal_a_change_of_a_file_does_nothing(harness: ReloaderHarness) -> None:
    harness.write(CONFIG | {"reload": "on_signal"})
    assert (await harness.reloader.reload()).result is ConfigReloadResultKind.APPLIED
    harness.write_named("B")
    assert not await harness.reloader._have_config_files_changed_and_settled()
    harness.requested.set()
    async with harness.running():
        await wait_until_async(lambda: harness.applied_names() == ["A", "B"])
    harness.write_named("C")
    assert await harness.reloader._have_config_files_changed_and_settled(), "B has the default again"


async def test_many_requests_are_few_reloads(harness: ReloaderHarness) -> None:
    async with harness.running():
        for _ in range(1_000):
            harness.requested.set()
        await wait_until_async(lambda: bool(harness.applied))
        assert len(harness.applied) == 1


async def test_a_change_during_a_reload_is_applied_as_well(harness: ReloaderHarness) -> None:
    harness.during_apply = lambda: harness.write_named("C") if len(harness.applied) == 1 else None
    async with harness.running():
        harness.write_named("B")
        await wait_until_async(lambda: harness.applied_names() == ["B", "C"])


async def test_a_file_that_is_included_by_an_invalid_configuration_is_watched(
    harness: ReloaderHarness, tmp_path: Path
) -> None:
    included = tmp_path / "more.yaml"
    async with harness.running():
        included.write_text("probes: [{name: X, evry: 1s}]")
        harness.write(CONFIG | {"include": ["more.yaml"]})
        await wait_until_async(lambda: "more.yaml:1" in harness.problem)
        included.write_text("probes: [{name: X, every: 1s, http: 'http://127.0.0.1:9/'}]")
        await wait_until_async(lambda: bool(harness.applied))
    assert [probe.name for probe in harness.applied[0].config.probes] == ["A", "X"]
    assert harness.problem == ""


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


INVALID: list[tuple[str, Callable[[Path], object]]] = [
    ("syntax", lambda path: path.write_text("probes: [")),
    ("a field", lambda path: path.write_text("probes: [{name: A, http: 5}]")),
    ("a missing variable", lambda path: path.write_text("probes: [{name: '${NOWHERE}', http: 'http://a.example/'}]")),
    ("not there", lambda path: path.unlink()),
    ("a named pipe", replace_by_pipe),
    ("a folder", replace_by_folder),
    ("huge", lambda path: path.write_bytes(b"# " + b"x" * (17 << 20))),
    ("not text", lambda path: path.write_bytes(b"\xff\xfe\x00")),
    ("empty", lambda path: path.write_text("")),
    ("too deep", lambda path: path.write_text("[" * 10_000)),
]


@pytest.mark.parametrize(("sentence", "spoil"), INVALID, ids=[case[0] for case in INVALID])
async def test_an_invalid_configuration_changes_nothing_until_it_is_valid(
    harness: ReloaderHarness, sentence: str, spoil: Callable[[Path], object]
) -> None:
    spoil(harness.path)
    with capture_logs() as log:
        for _ in range(2):
            outcome = await harness.reloader.reload()
            assert outcome.result is ConfigReloadResultKind.INVALID, sentence
            assert outcome.problems[0].startswith("watchdog.yaml")
    assert harness.applied == []
    assert harness.problem.startswith("watchdog.yaml")
    assert {line["event"] for line in log} == {"config_invalid"}
    first_fault = harness.faults._config_fault
    if harness.path.is_dir():
        harness.path.rmdir()
    elif harness.path.exists():
        harness.path.unlink()
    harness.now += 5
    harness.write("probes: 7")
    assert (await harness.reloader.reload()).result is ConfigReloadResultKind.INVALID
    assert first_fault is not None
    assert harness.faults._config_fault is not None
    assert harness.faults._config_fault.since == first_fault.since, "one incident"
    harness.write_named("B")
    assert (await harness.reloader.reload()).result is ConfigReloadResultKind.APPLIED
    assert (harness.applied_names(), harness.problem) == (["B"], "")


async def test_a_reload_waits_for_the_database(harness: ReloaderHarness) -> None:
    harness.is_store_away = True
    async with harness.running():
        harness.write_named("B")
        await wait_until_async(lambda: harness.results == [ConfigReloadResultKind.POSTPONED])
        harness.write_named("C")
        await wait_until_async(lambda: len(harness.results) == 2)
        harness.is_store_away = False
        await wait_until_async(lambda: bool(harness.applied))
    assert harness.applied_names() == ["C"], "the newest"
    assert harness.results[2:] == [ConfigReloadResultKind.APPLIED]


async def test_the_last_reload_is_counted_with_its_time_and_its_problems(harness: ReloaderHarness) -> None:
    counts = ConfigReloadCounts()
    harness.reloader._on_result = counts.count
    harness.now = 5
    harness.write("probes: 7")
    outcome = await harness.reloader.reload()
    assert outcome.problems
    assert counts == ConfigReloadCounts(success=1, failure=1, last_reload=FinishedConfigReload(5, outcome))
    harness.now = 9
    harness.write_named("B")
    outcome = await harness.reloader.reload()
    assert counts == ConfigReloadCounts(success=2, failure=1, last_reload=FinishedConfigReload(9, outcome))
    harness.is_store_away = True
    assert (await harness.reloader.reload()).result is ConfigReloadResultKind.POSTPONED
    assert counts.last_reload == FinishedConfigReload(9, ConfigReloadOutcome(ConfigReloadResultKind.POSTPONED))
    assert (counts.success, counts.failure) == (2, 1)


async def test_an_invalid_configuration_replaces_one_that_waits(harness: ReloaderHarness) -> None:
    harness.is_store_away = True
    harness.write_named("B")
    assert (await harness.reloader.reload()).result is ConfigReloadResultKind.POSTPONED
    harness.write("probes: 7")
    assert (await harness.reloader.reload()).result is ConfigReloadResultKind.INVALID
    harness.is_store_away = False
    await harness.reloader._apply_postponed_config()
    assert harness.applied == []


async def test_former_secrets_stay_masked_for_a_while(harness: ReloaderHarness) -> None:
    def set_secret(secret: str) -> None:
        http = {"url": "http://127.0.0.1:9/", "headers": {"X-Token": secret}}
        harness.write({"probes": [{"name": "A", "http": http}]})

    for secret in ("second-secret-value", "third-secret-value"):
        set_secret(secret)
        await harness.reloader.reload()
    texts = [f"{name}-secret-value" for name in ("first", "second", "third")]
    assert [harness.mask(text) for text in texts] == ["•••"] * 3
    assert all(loaded.mask is harness.mask for loaded in harness.applied), "one mask for everything"
    harness.now += FORMER_SECRET_RETENTION_MS
    await harness.reloader.reload()
    assert [harness.mask(text) for text in texts] == [*texts[:2], "•••"]
    assert harness.reloader._former_masks == []


async def test_cancelling_the_caller_does_not_interrupt_a_reload(harness: ReloaderHarness) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def apply_slowly(loaded: LoadedConfig) -> ConfigChanges:
        started.set()
        await release.wait()
        harness.applied.append(loaded)
        return ConfigChanges()

    harness.reloader._apply = apply_slowly
    harness.write_named("B")
    caller = asyncio.create_task(harness.reloader.reload())
    await started.wait()
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    release.set()
    await wait_until_async(lambda: harness.applied_names() == ["B"])
