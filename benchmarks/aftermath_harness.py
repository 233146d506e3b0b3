"""What the checks of aftermath.py share: a system to be broken and repaired, and what a service stored about it."""

from __future__ import annotations

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from benchmarks.measurements import Measurement
from watchdog.app import RunningWatchdogService, start_watchdog_service_and_stop_on_exit
from watchdog.config.load import load_config
from watchdog.domain.model import Outcome
from watchdog.service.clock import read_wall_clock_ms
from watchdog.store.tables import incidents, results

INTERVAL_S = 5
MARGIN_S = 1
START_TIMEOUT_S = 120.0
FIRST_SLOTS = 3
IMMEDIATE_ALERT = {"failure_threshold": 1, "success_threshold": 1}
UNRESOLVED = float("inf")


class Fault(NamedTuple):
    """A fault of a system, and which incidents are expected of it."""

    name: str
    blames: frozenset[tuple[str, str]]
    """Id of a probe and subject of an incident."""
    noticed_after_s: float
    """The limit of the rule that notices it, and the time until a job is due: the incident opens one interval later."""
    resolved_after_s: float = 0.0
    """The time until a repaired system shows it, such as the period of a job."""
    repaired_at_once: bool = False
    """The repair does not wait for three slots."""


@asynccontextmanager
async def watching(folder: Path, probes: list[dict[str, Any]]) -> AsyncIterator[RunningWatchdogService]:
    """A service with these probes and with a database in the folder, once all of them have passed."""
    config = {"storage": {"url": f"sqlite:///{folder / 'watchdog.db'}"}, "probes": probes}
    async with start_watchdog_service_and_stop_on_exit(
        load_config(folder / "watchdog.yaml", json.dumps(config), {})
    ) as app:
        observer = Observer(app)
        await observer.wait_until_all_pass(START_TIMEOUT_S)
        print(f"  failing before the first fault: {sorted(observer.failing_probe_ids()) or 'none'}", flush=True)
        yield app


class BrokenSystem(ABC):
    """A system that can be broken and repaired, and the probes that watch it."""

    name: str
    watched: str
    """The purpose of the probe whose words count."""

    @abstractmethod
    def faults(self) -> list[Fault]: ...

    @abstractmethod
    def probes(self) -> list[dict[str, Any]]:
        """Their configuration; the id of each begins with the system's name."""

    @abstractmethod
    async def break_down(self, fault: str) -> None: ...

    @abstractmethod
    async def repair(self, fault: str) -> None: ...

    def probe_id(self, purpose: str) -> str:
        return f"{self.name}.{purpose}"

    def _probe(self, purpose: str, **fields: Any) -> dict[str, Any]:
        common = {"every": f"{INTERVAL_S}s", "alert": IMMEDIATE_ALERT}
        return {"name": f"{self.name} {purpose}", "id": self.probe_id(purpose), **common, **fields}


class Observer:
    """Reads what the service has stored about its probes, or about those whose id begins with `prefix`."""

    def __init__(self, app: RunningWatchdogService, prefix: str = "") -> None:
        self.app = app
        probes = app.service.probes.items()
        self.id_by_key = {key: probe.id for key, probe in probes if probe.id.startswith(prefix)}

    def _query(self, query: sa.Select[Any]) -> list[Any]:
        with self.app.store_executor.database.open_read_transaction() as connection:
            return list(connection.execute(query))

    def incidents_since(self, since: int) -> list[dict[str, Any]]:
        """Those that opened since then."""
        rows = self._query(sa.select(incidents).where(incidents.c.opened_at >= since).order_by(incidents.c.opened_at))
        return [{**row._mapping, "probe_id": self.id_by_key[row.probe]} for row in rows if row.probe in self.id_by_key]

    def failures_since(self, probe_id: str, since: int) -> list[Any]:
        (key,) = (key for key, id in self.id_by_key.items() if id == probe_id)
        failed = results.c.probe == key, results.c.slot >= since, results.c.outcome == Outcome.FAIL
        return self._query(sa.select(results.c.reason, results.c.message).where(*failed).order_by(results.c.slot))

    def failing_probe_ids(self) -> set[str]:
        """Those whose newest result is no pass, and those without a result."""
        newest = sa.select(results.c.probe, results.c.outcome, sa.func.max(results.c.slot)).group_by(results.c.probe)
        passing = {row.probe for row in self._query(newest) if row.outcome == Outcome.PASS}
        return {id for key, id in self.id_by_key.items() if key not in passing}

    async def wait_until_all_pass(self, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        while self.failing_probe_ids() and time.monotonic() < end:
            await asyncio.sleep(0.1)


async def measure_fault(observer: Observer, system: BrokenSystem, fault: Fault) -> list[Measurement]:
    """Breaks the system and repairs it. Counts all incidents that the observer sees meanwhile."""
    probe_id = system.probe_id(system.watched)
    noticed_within_s = INTERVAL_S + fault.noticed_after_s + MARGIN_S
    resolved_within_s = INTERVAL_S + fault.resolved_after_s + MARGIN_S
    since = read_wall_clock_ms()
    await system.break_down(fault.name)
    broken_at = read_wall_clock_ms()
    if not fault.repaired_at_once:
        end = time.monotonic() + noticed_within_s + INTERVAL_S * FIRST_SLOTS
        while len(observer.failures_since(probe_id, since)) < FIRST_SLOTS and time.monotonic() < end:
            await asyncio.sleep(0.1)
    words = observer.failures_since(probe_id, since)[:FIRST_SLOTS]
    await system.repair(fault.name)
    repaired_at = read_wall_clock_ms()
    await asyncio.sleep(resolved_within_s)
    await observer.wait_until_all_pass(resolved_within_s * 3)
    words = words or observer.failures_since(probe_id, since)
    opened = observer.incidents_since(since)
    label = f"{system.name}: {fault.name}"
    _print_words(label, fault, words, opened)
    for failure in observer.failures_since(probe_id, repaired_at):
        print(f"  {label}, after the repair: {failure.reason}: {failure.message}", flush=True)
    return _measurements(label, fault, words, opened, broken_at, repaired_at)


def _print_words(label: str, fault: Fault, words: list[Any], opened: list[dict[str, Any]]) -> None:
    for slot, failure in enumerate(words, 1):
        print(f"  {label}, slot {slot}: {failure.reason}: {failure.message}", flush=True)
    for incident in opened:
        if (incident["probe_id"], incident["subject"]) not in fault.blames:
            subject = f"{incident['probe_id']} {incident['rule']} {incident['subject']}".rstrip()
            print(f"  {label}: blamed {subject}: {incident['reason']}: {incident['message']}", flush=True)


def _measurements(
    label: str, fault: Fault, words: list[Any], opened: list[dict[str, Any]], broken_at: int, repaired_at: int
) -> list[Measurement]:
    blamed = [(incident["probe_id"], incident["subject"]) for incident in opened]
    own = [incident for incident, subject in zip(opened, blamed, strict=True) if subject in fault.blames]
    others = Measurement(f"{label}: other subjects blamed", len(opened) - len(own), "", 0)
    if not fault.blames:
        return [others]
    to_open = [max(incident["opened_at"] - broken_at, 0) / 1000 for incident in own]
    to_resolve = [max((incident["resolved_at"] or UNRESOLVED) - repaired_at, 0) / 1000 for incident in own]
    causes = len({failure.reason for failure in words})
    noticed_within_s = INTERVAL_S + fault.noticed_after_s + MARGIN_S
    resolved_within_s = INTERVAL_S + fault.resolved_after_s + MARGIN_S
    return [
        Measurement(f"{label}: expected incidents that did not open", len(fault.blames - set(blamed)), "", 0),
        Measurement(f"{label}: until the incident", max(to_open, default=UNRESOLVED), "s", noticed_within_s),
        Measurement(f"{label}: other causes at slots 2 and 3", max(causes - 1, 0), "", 0),
        Measurement(f"{label}: until it resolves", max(to_resolve, default=UNRESOLVED), "s", resolved_within_s),
        others,
        Measurement(f"{label}: opened again", len(own) - len(fault.blames & set(blamed)), "", 0),
    ]
