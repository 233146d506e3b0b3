"""What the cases of reload.py share: a real Watchdog, its files, its targets and receivers, and what they observe."""

from __future__ import annotations

import copy
import json
import math
import os
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import sqlalchemy as sa

from benchmarks.own_faults_harness import TargetServer, list_named_probes
from tests.support.command_line import invoke_command
from tests.support.fakes import FakeWebhookReceiver
from tests.support.watchdog_process import WatchdogProcess, run_watchdog
from watchdog.config.load import load_config
from watchdog.domain.routing import NotificationRoutingTable
from watchdog.domain.rules.service import WATCHDOG_SELF_PROBE_ID
from watchdog.domain.schedule import Schedule
from watchdog.service.clock import read_wall_clock_ms
from watchdog.service.process_configuration import build_watchdog_process_configuration
from watchdog.store.codec import decode_notification_routing_table, decode_probe_info
from watchdog.store.database import Database
from watchdog.store.tables import (
    downtime,
    incidents,
    members,
    outbox,
    outbox_is_waiting,
    probes,
    results,
    revision_destinations,
    revision_probes,
    revisions,
)
from watchdog.store.write.claims import SLOT_CLAIM_AHEAD_MS

MAIN_FILE, INCLUDED_FILE, MANAGED_FILE, TOKEN_FILE = "watchdog.yaml", "conf.d/more.yaml", "managed.yaml", "token"
ENV = {"BACKUP_TOKEN": "0123456789abcdef-backup", "OTHER_TOKEN": "0123456789abcdef-other"}
MAX_WAIT_S = 20.0
"""After which something counts as not happening at all."""

Files = dict[str, Any]
"""Path -> its content: text, bytes, or a value that is written as JSON."""


class RunningConfig(NamedTuple):
    """The configuration that a process has stored as its own."""

    probe_digests: Mapping[str, str]
    """Probe id -> a digest of its configuration."""
    destinations: Mapping[str, str]
    routed: Mapping[str, frozenset[str]]
    """Probe id -> the destinations that may be notified."""


class History(NamedTuple):
    """What a reload must keep of a probe: its row in the database, since when it has results, and how many."""

    database_id: int
    first_slot: int
    result_count: int


class StoredSlot(NamedTuple):
    """A row of results: of one slot, or of several that were missed."""

    slot: int
    slot_count: int
    is_missed: bool


class DiffOutput(NamedTuple):
    """What `watchdog diff` shows."""

    exit_code: int
    changes: Mapping[str, Any]
    """Empty if a file is invalid."""
    output: str


class ScheduleInForce(NamedTuple):
    """The schedules of a configuration. It was written at one instant, and in force at the other, in epoch ms."""

    written_at: int
    in_force_at: int
    schedules: Mapping[str, Schedule]
    """Probe id -> its schedule; without paused probes."""


class ReloadHarness:
    """A process in a folder, and the files that it reads. Targets and receivers may be shared with another process."""

    def __init__(
        self, stack: ExitStack, folder: Path, targets: TargetServer, receiver: FakeWebhookReceiver, database_url: str
    ):
        folder.mkdir()
        self._stack, self.folder, self.targets, self.receiver = stack, folder, targets, receiver
        self.database = Database(database_url)
        stack.callback(self.database.close)
        self.files: Files = {}
        self.reload_count = self.refusal_count = 0
        """How many reloads there were before the change."""
        self.written_at, self.began_at, self.cpu_before_s = 0, 0.0, 0.0
        self.in_force: list[ScheduleInForce] = []
        self.process: WatchdogProcess

    def start(self, files: Files) -> None:
        self.write(copy.deepcopy(files))
        self.process = self._stack.enter_context(run_watchdog(self.folder / MAIN_FILE, ENV))
        self.note_schedules()

    # --- the files

    def write(self, files: Files, folder: Path | None = None) -> None:
        """Make the files in the folder those: each that differs is replaced by a rename, or deleted."""
        target = folder or self.folder
        for path in self.files.keys() - files.keys():
            (target / path).unlink(missing_ok=True)
        for path, content in files.items():
            if folder is not None or self.files.get(path) != content:
                file = target / path
                file.parent.mkdir(exist_ok=True)
                if file.is_dir() and not file.is_symlink():
                    file.rmdir()
                temporary = file.with_name(f"{file.name}.new")
                temporary.write_bytes(encode_file(content))
                temporary.rename(file)
        if folder is None:
            self.files = files

    def place(self, place: Callable[[Path], object], folder: Path | None = None) -> None:
        """Make something else of the main file."""
        file = (folder or self.folder) / MAIN_FILE
        was = file.stat().st_ino
        place(file)
        if folder is None and not (file.is_file() and file.stat().st_ino == was):
            self.files = {**self.files, MAIN_FILE: None}

    def begin_change(self) -> None:
        """The files are about to change, or a reload to be requested."""
        self.reload_count, self.refusal_count = map(
            len, (self.entries("config_reloaded"), self.entries("config_invalid"))
        )
        self.written_at, self.began_at, self.cpu_before_s = read_wall_clock_ms(), time.monotonic(), self.read_cpu_s()

    def note_schedules(self) -> None:
        """That the files are in force now."""
        loaded = load_config(self.folder / MAIN_FILE, env=ENV)
        registered = build_watchdog_process_configuration(loaded, loaded.config.probes).probes
        schedules = {probe.info.id: probe.schedule for probe in registered if not probe.is_paused}
        self.in_force.append(ScheduleInForce(self.written_at, read_wall_clock_ms(), schedules))

    def run_diff(self, files: Files, place: Callable[[Path], object], number: int) -> DiffOutput:
        """What `watchdog diff` shows, before a reload with these files."""
        folder = self.folder.with_name(f"next-{number}")
        folder.mkdir(exist_ok=True)
        self.write(files, folder)
        self.place(place, folder)
        ran = invoke_command("diff", "-c", folder / MAIN_FILE, "-o", "json", env=ENV)
        return DiffOutput(ran.exit_code, ran.json if ran.stdout else {}, ran.output)

    # --- what is observed

    def get(self, path: str) -> Any:
        return self.process.get(path).json()

    def get_probe(self, id: str) -> dict[str, Any]:
        """Empty if there is none."""
        response = self.process.get(f"api/v1/probes/{id}")
        return dict(response.json()) if response.status_code == 200 else {}

    def post(self, path: str, body: Any = None, method: str = "POST", **headers: str) -> Any:
        url = f"{self.process.base_url}{path}"
        return httpx.request(method, url, json=body, headers=headers, timeout=30, trust_env=False).json()

    def check_in(self, token: str) -> int:
        return httpx.post(f"{self.process.base_url}in/{token}", timeout=30, trust_env=False).status_code

    def entries(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.process.log_entries if entry["event"] == event]

    @property
    def member_id(self) -> str:
        return str(self.entries("started")[0]["member"])

    def own_findings(self) -> list[str]:
        return [finding["reason"] for finding in self.get("readyz").get("findings", [])]

    def requests(self, path: str) -> int:
        return len(self.targets.request_times[path])

    def messages_since(self, mark: int) -> Counter[str]:
        """Such as "chat opened api": the receiver, the event, and a probe that the message is about."""
        received = self.receiver.received[mark:]
        return Counter(
            f"{request.path.strip('/')} {request.json['event']} {id}"
            for request in received
            for id in list_named_probes(request.json)
        )

    def query(self, query: sa.Select[Any]) -> list[Any]:
        with self.database.open_read_transaction() as connection:
            return list(connection.execute(query))

    def open_incidents(self) -> dict[str, str]:
        """Incident id -> probe id."""
        query = sa.select(incidents.c.id, probes.c.probe_id).join(probes, probes.c.id == incidents.c.probe)
        return dict(map(tuple, self.query(query.where(incidents.c.resolved_at.is_(None)))))

    def count_opened_messages(self, id_prefix: str) -> Counter[tuple[str, str]]:
        """Of each incident of such probes at each destination: how often its opening was to be sent."""
        query = sa.select(outbox.c.incident, outbox.c.destination).select_from(outbox)
        query = query.join(incidents, incidents.c.id == outbox.c.incident)
        query = query.join(probes, probes.c.id == incidents.c.probe)
        query = query.where(outbox.c.event == "opened", probes.c.probe_id.startswith(id_prefix))
        return Counter((incident, destination) for incident, destination in self.query(query))

    def count_waiting_messages(self) -> int:
        return int(self.query(sa.select(sa.func.count()).select_from(outbox).where(outbox_is_waiting))[0][0])

    def load_running(self) -> RunningConfig:
        own_revision = sa.select(members.c.revision).where(members.c.id == self.member_id)
        while not (revisions_in_use := self.query(own_revision)):
            time.sleep(0.01)  # it is moving from one revision to the other
        [(revision,)] = revisions_in_use
        rows = self.query(sa.select(revision_probes).where(revision_probes.c.revision == revision))
        digests = {row.probe_id: row.content_digest for row in rows if row.probe_id != WATCHDOG_SELF_PROBE_ID}
        destinations = self.query(sa.select(revision_destinations).where(revision_destinations.c.revision == revision))
        [(routing,)] = self.query(sa.select(revisions.c.routing).where(revisions.c.number == revision))
        routes = decode_notification_routing_table(routing)
        return RunningConfig(
            digests, {row.destination: row.definition for row in destinations}, self._list_routed(digests, routes)
        )

    def _list_routed(self, ids: Mapping[str, str], routes: NotificationRoutingTable) -> dict[str, frozenset[str]]:
        rows = self.query(sa.select(probes).where(probes.c.probe_id.in_(ids)))
        infos = [decode_probe_info(row.id, row.info) for row in rows]
        return {info.id: frozenset(routes.list_possible_destinations_of_probe(info)) for info in infos}

    def load_history(self) -> dict[str, History]:
        """Of the probes that are not removed."""
        count = sa.func.count(results.c.slot)
        query = sa.select(probes.c.probe_id, probes.c.id, sa.func.min(results.c.slot), count)
        query = query.outerjoin(results, results.c.probe == probes.c.id).where(probes.c.removed_at.is_(None))
        return {id: History(*rest) for id, *rest in self.query(query.group_by(probes.c.probe_id, probes.c.id))}

    def load_slots(self, id: str) -> list[StoredSlot]:
        """The slots of a probe that were claimed, in order."""
        query = sa.select(results.c.slot, results.c.slot_count, results.c.outcome)
        query = query.join(probes, probes.c.id == results.c.probe).where(probes.c.probe_id == id)
        rows = self.query(query.order_by(results.c.slot))
        return [StoredSlot(row.slot, row.slot_count, row.outcome == "missed") for row in rows]

    def is_in_gap(self, slot: int) -> bool:
        """Whether the process did not get to claim slots then, and has recorded that: its machine was too busy."""
        return any(
            started <= slot <= ended for started, ended in self.query(sa.select(*downtime.c["started_at", "ended_at"]))
        )

    # --- waiting

    def wait_until(self, condition: Callable[[], object], timeout_s: float = MAX_WAIT_S) -> float:
        """How long it took, in s; infinite if it did not happen."""
        started_at = time.monotonic()
        while not condition():
            if time.monotonic() - started_at > timeout_s:
                return math.inf
            time.sleep(0.1)
        return time.monotonic() - started_at

    def wait_for_effect(self, has_effect: Callable[[], object]) -> tuple[float, float]:
        """How long it took since the change, and the CPU of the process meanwhile, in s."""
        took_s = self.wait_until(has_effect)
        took_s = took_s if math.isinf(took_s) else time.monotonic() - self.began_at
        return took_s, self.read_cpu_s() - self.cpu_before_s

    def read_cpu_s(self) -> float:
        """Of the process since its start."""
        fields = Path(f"/proc/{self.process.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wait_for_runs(self) -> None:
        """Wait until a probe that no case changes has a result of a slot from now on."""
        now = read_wall_clock_ms()
        self.wait_until(lambda: any(slot.slot > now for slot in self.load_slots("steady")))


def encode_file(content: Any) -> bytes:
    if isinstance(content, bytes):
        return content
    return (content if isinstance(content, str) else json.dumps(content, indent=1)).encode()


def list_lost_slots(slots: Sequence[StoredSlot], in_force: Sequence[ScheduleInForce], id: str) -> list[int]:
    """Slots of the schedules of a probe that were neither run nor recorded as missed. `slots`: those that were, in
    order. Between two configurations, a slot may be of either schedule, see `find_lost_slots_of_change`."""
    if not slots:
        return []
    periods: list[ScheduleInForce] = []
    for each in in_force:
        if not periods or periods[-1].schedules.get(id) != each.schedules.get(id):
            periods.append(each)
    first, last = slots[0].slot, slots[-1].slot
    lost: list[int] = []
    for period, end in zip(periods, [*(following.written_at for following in periods[1:]), last], strict=True):
        if (schedule := period.schedules.get(id)) is not None:
            due = list_slots_between(schedule, max(period.in_force_at + SLOT_CLAIM_AHEAD_MS, first) - 1, end)
            lost += [slot for slot in due if not is_stored(slots, slot)]
    for before, after in pairwise(periods):
        if (former := before.schedules.get(id)) is not None and (new := after.schedules.get(id)) is not None:
            lost += find_lost_slots_of_change(slots, former, new, after)
    return lost


def find_lost_slots_of_change(
    slots: Sequence[StoredSlot], former: Schedule, new: Schedule, change: ScheduleInForce
) -> list[int]:
    """Slots around a change of schedule that were lost whenever the change took place. At one instant between
    `written_at` and `in_force_at`, the former schedule ends: its slots up to then are run, and those that are claimed
    already, which may be up to SLOT_CLAIM_AHEAD_MS later. The slots of the new one follow the last of these."""
    start, end = change.written_at, min(change.in_force_at + SLOT_CLAIM_AHEAD_MS, slots[-1].slot)
    former_slots = list_slots_between(former, start, change.in_force_at)
    stored = [slot.slot for slot in slots if start - SLOT_CLAIM_AHEAD_MS <= slot.slot <= end]
    lost_by_instant = []
    for instant in [start, *former_slots, change.in_force_at]:
        last_claimed = max((slot for slot in stored if slot <= instant + SLOT_CLAIM_AHEAD_MS), default=instant)
        due = [slot for slot in former_slots if slot <= instant]
        due += list_slots_between(new, max(instant, last_claimed), end)
        lost_by_instant.append([slot for slot in due if not is_stored(slots, slot)])
    return min(lost_by_instant, key=len)


def list_slots_between(schedule: Schedule, after: int, end: int) -> list[int]:
    """Its slots after one instant and before another, in order."""
    slots = []
    slot = schedule.find_next_slot_after(after)
    while slot < end:
        slots.append(slot)
        slot = schedule.find_next_slot_after(slot)
    return slots


def is_stored(slots: Sequence[StoredSlot], slot: int) -> bool:
    """A row of several slots has the first of them."""
    row = slots[bisect_right(slots, slot, key=lambda each: each.slot) - 1]
    return row.slot == slot or row.slot_count > 1
