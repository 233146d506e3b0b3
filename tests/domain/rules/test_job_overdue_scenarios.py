"""When a run counts as missing, one scenario per row: restarts of Watchdog, edited schedules, late and early runs.

Every scenario runs three times: with the schedule in the source, with the schedule in the configuration, and as a
heartbeat.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from datetime import datetime

import pytest

from watchdog.domain.heartbeat import (
    HEARTBEAT_STATE_KEY,
    CheckIn,
    CheckInKind,
    HeartbeatState,
    apply_check_in,
)
from watchdog.domain.model import Json
from watchdog.domain.observations import ScheduledJobFacts
from watchdog.domain.probe_state import find_scheduled_job_record_in_probe_state
from watchdog.domain.rules.job import update_and_judge_job
from watchdog.domain.rules.job_source import EvaluatedJobSource
from watchdog.net import NetworkAccess
from watchdog.probes import HeartbeatProbe
from watchdog.probes.base import ProbeAttemptContext
from watchdog.probes.jobs import JobLimitSettings, build_jobs_observation

FINE = ""
JOB, NOTHING = ScheduledJobFacts("backup"), HeartbeatState()
SOURCE, WATCHED, HEARTBEAT = VARIANTS = ("schedule in its source", "schedule in the configuration", "heartbeat")


def at(day: str, clock: str) -> int:
    return round(datetime.fromisoformat(f"2026-05-{int(day):02} {clock}+00:00").timestamp() * 1000)


@dataclass
class ScenarioJob:
    """One job, and the state that its probe keeps."""

    variant: str
    options: dict[str, str] = field(default_factory=dict)
    """As configured: schedule, timezone, every, grace, max_runtime."""
    facts: ScheduledJobFacts = JOB
    beat: HeartbeatState = NOTHING
    memory: dict[str, Json] = field(default_factory=dict)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    down_since: int | None = None
    verdict: str = FINE

    def apply(self, line: str) -> None:
        """ "2 03:00 run": a run at 03:00 on 2 May.

        run, start, end: of a run; off, on: the job is disabled, enabled; evict: its source forgets its runs; down, up:
        Watchdog stops, starts; lose: Watchdog loses its database; set: the configuration changes; probe: a probe runs.
        """
        day, clock, word, rest = [*line.split(" ", 3), ""][:4]
        now = at(day, clock)
        if word == "set":
            options = (part.partition(":") for part in rest.split(","))
            self.options |= {name.strip(): value.strip() for name, _, value in options}
        elif word == "down":
            self.down_since = now
        elif word == "up":
            assert self.down_since is not None
            self.gaps.append((self.down_since, now))
            self.down_since = None
        elif word == "lose":
            self.memory, self.beat = {}, NOTHING
        elif word == "evict":
            self.facts = JOB
        elif word in ("off", "on"):
            self.facts = self.facts._replace(enabled=word == "on")
        elif word == "probe":
            self.verdict = self.run_probe(now)
        else:
            self.apply_run(word, now)

    def apply_run(self, word: str, now: int) -> None:
        assert word in ("run", "start", "end")
        if word in ("run", "start"):
            self.facts = self.facts._replace(last_start=now, running_since=now)
        if word in ("run", "end"):
            self.facts = self.facts._replace(running_since=None, last_end=now, last_ok=now)
        if self.down_since is None:  # its check-ins arrive
            kind = CheckInKind.START if word == "start" else CheckInKind.OK
            self.beat = apply_check_in(self.beat, CheckIn(str(now), now, kind)).state

    def run_probe(self, now: int) -> str:
        """ "overdue: due 03:00"; empty if the job is fine."""
        assert self.down_since is None
        memory = json.loads(json.dumps(self.memory))
        context = ProbeAttemptContext(
            now,
            now,
            5.0,
            "",
            {**memory, HEARTBEAT_STATE_KEY: self.beat.to_json()},
            NetworkAccess(),
            gaps=self.gaps,
        )
        options = {name: value for name, value in self.options.items() if value}
        if self.variant == HEARTBEAT:
            probe = {"name": "backup", "heartbeat": {"token": "0123456789abcdef", **options}}
            observation = asyncio.run(HeartbeatProbe.model_validate(probe).observe(context))
        else:
            facts, plan = self.facts, JobLimitSettings.model_validate(options)
            if self.variant == SOURCE:
                facts = facts._replace(cron=plan.schedule or "", timezone=plan.timezone, every=plan.every)
                plan = plan.model_copy(update={"schedule": None, "every": None})
            job = update_and_judge_job(
                facts, plan.to_job_limits(60_000), find_scheduled_job_record_in_probe_state(memory, facts.name), now
            )
            observation = build_jobs_observation(EvaluatedJobSource((job,)), context, now)
        self.memory |= observation.state_updates
        text = observation.message.replace("\N{NO-BREAK SPACE}", " ").replace(" UTC", "").removeprefix("backup ")
        text = text.removeprefix("is ").replace("has never run", "never ran").partition(", last run")[0]
        assert observation.reason == ("" if not text else f"job.{text.split(':')[0].replace(' ', '_')}")
        return text


NIGHTLY = "1 00:00 set schedule: 0 3 * * *, grace: 30m"
HOURLY = "1 00:00 set every: 1h, grace: 5m"
DUE, NEVER, STUCK = "overdue: due 03:00", "never ran: due 03:00", "stuck: running since 03:00, limit 1 h"

TABLE: list[tuple[str, list[str], str | dict[str, str]]] = [
    # --- on time, late and early
    ("on time", [NIGHTLY, "1 12:00 probe", "2 03:00 run", "2 12:00 probe"], FINE),
    ("late, within its grace", [NIGHTLY, "1 03:00 run", "1 12:00 probe", "2 03:29:59 probe"], FINE),
    ("late by exactly its grace", [NIGHTLY, "1 03:00 run", "1 12:00 probe", "2 03:30 probe"], DUE),
    ("a very late run ends the overdue state",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "2 04:00 probe", "2 04:10 run", "2 04:11 probe"],
     FINE),
    ("a run at the time of the next slot counts for the next slot",
     [HOURLY, "1 00:00 set every:, schedule: 0 * * * *", "1 12:00 run", "1 12:01 probe", "1 14:00 run",
      "1 14:30 probe"], FINE),
    ("5 minutes early is on time",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "2 02:55 run", "2 12:00 probe"], FINE),
    ("more than 5 minutes early does not count for the slot",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "2 02:54:59 run", "2 12:00 probe"], DUE),
    ("as early as configured",
     [NIGHTLY, "1 00:00 set early: 1h", "1 03:00 run", "1 12:00 probe", "2 02:00 run", "2 12:00 probe"], FINE),
    ("earlier than configured",
     [NIGHTLY, "1 00:00 set early: 1m", "1 03:00 run", "1 12:00 probe", "2 02:58 run", "2 12:00 probe"], DUE),
    ("an early run counts for the first of two close slots only",
     [NIGHTLY, "1 00:00 set schedule: 0-1 3 * * *", "1 12:00 probe",
      "2 02:59 run", "2 12:00 probe"], "overdue: due 03:01"),
    ("interval: each run is due an hour after the previous start",
     [HOURLY, "1 10:00 run", "1 10:00 probe", "1 11:04 run", "1 12:08 run", "1 13:12 probe"], FINE),
    ("interval: the next run is missing",
     [HOURLY, "1 10:17 run", "1 10:20 probe", "1 11:22 probe"], "overdue: due 11:17"),
    ("interval: after an early run, within the grace",
     [HOURLY, "1 10:00 run", "1 10:01 probe", "1 10:40 run", "1 11:44:59 probe"], FINE),
    ("interval: after an early run, past the grace",
     [HOURLY, "1 10:00 run", "1 10:01 probe", "1 10:40 run", "1 11:45 probe"],
     "overdue: due 11:40"),
    ("interval: three runs are missing", [HOURLY, "1 10:17 run", "1 10:20 probe", "1 13:30 probe"],
     "overdue: 3 runs missed, the first due 11:17"),
    # --- first seen
    ("never ran, first seen before its slot", [NIGHTLY, "2 02:59 probe", "2 03:30 probe"], NEVER),
    ("never ran, first seen after its slot: not overdue", [NIGHTLY, "2 03:01 probe", "2 12:00 probe"], FINE),
    ("never ran, first seen at its slot", [NIGHTLY, "2 03:00 probe", "2 03:30 probe"], NEVER),
    ("interval: never ran, within an hour and its grace since first seen",
     [HOURLY, "1 12:10 probe", "1 13:14:59 probe"], FINE),
    ("interval: never ran, an hour and its grace since first seen",
     [HOURLY, "1 12:10 probe", "1 13:15 probe"], "never ran: due 13:10"),
    ("interval: first seen between two slots", [HOURLY, "1 11:30 run", "1 12:10 probe", "1 12:35 probe"],
     "overdue: due 12:30"),
    ("interval: long overdue when first seen, within an hour and its grace",
     [HOURLY, "1 08:30 run", "1 12:10 probe", "1 13:14:59 probe"], FINE),
    ("interval: long overdue when first seen, an hour and its grace later",
     [HOURLY, "1 08:30 run", "1 12:10 probe", "1 13:15 probe"], "overdue: due 13:10"),
    ("interval: first seen when a run is due: the next is due an hour later",
     [HOURLY, "1 11:10 run", "1 12:10 probe", "1 12:15 probe"], FINE),
    # --- downtime of Watchdog, its state is kept
    ("down at the slot, and the job ran",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "1 23:00 down", "2 03:00 run", "2 07:00 up", "2 12:00 probe"], FINE),
    ("down at the slot, and the job did not run: a check-in may be lost",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "1 23:00 down", "2 07:00 up", "2 12:00 probe"],
     {SOURCE: DUE, WATCHED: DUE, HEARTBEAT: FINE}),
    ("down at the slot: the next night's run is missing in any case",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "1 23:00 down", "2 07:00 up", "3 03:30 probe"],
     {SOURCE: "overdue: 2 runs missed, the first due 2 May 03:00",
      WATCHED: "overdue: 2 runs missed, the first due 2 May 03:00", HEARTBEAT: DUE}),
    ("down during the grace",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "2 03:10 down", "2 04:00 up", "2 04:01 probe"],
     {SOURCE: DUE, WATCHED: DUE, HEARTBEAT: FINE}),
    ("down until six minutes before the slot",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "2 02:00 down", "2 02:54 up", "2 03:30 probe"], DUE),
    ("down from just after the grace",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "2 03:30:01 down", "2 05:00 up", "2 05:01 probe"], DUE),
    ("a restart of 30 seconds at the slot: check-ins are retried for as long",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "2 03:00 down", "2 03:00:30 up", "2 03:30 probe"], DUE),
    ("a restart of 31 seconds at the slot: a check-in may be lost",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "2 03:00 down", "2 03:00:31 up", "2 03:30 probe"],
     {SOURCE: DUE, WATCHED: DUE, HEARTBEAT: FINE}),
    ("a restart at the end of the grace: a retry may still arrive",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "2 03:29:50 down", "2 03:30 up", "2 03:30:29 probe"],
     {SOURCE: DUE, WATCHED: DUE, HEARTBEAT: FINE}),
    ("a restart at the end of the grace: the time for retries is over",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "2 03:29:50 down", "2 03:30 up", "2 03:30:30 probe"], DUE),
    ("overdue before the downtime: still overdue",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "2 04:00 probe", "2 23:00 down", "3 07:00 up", "3 07:01 probe"],
     {SOURCE: "overdue: 2 runs missed, the first due 2 May 03:00",
      WATCHED: "overdue: 2 runs missed, the first due 2 May 03:00", HEARTBEAT: "overdue: due 2 May 03:00"}),
    ("down over two nights",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "1 23:00 down", "3 07:00 up", "3 08:00 probe"],
     {SOURCE: "overdue: 2 runs missed, the first due 2 May 03:00",
      WATCHED: "overdue: 2 runs missed, the first due 2 May 03:00", HEARTBEAT: FINE}),
    ("down for a minute in each of two nights, no check-in in either",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "2 03:10 down", "2 03:11 up", "2 12:00 probe", "3 03:10 down",
      "3 03:11 up", "3 03:30 probe"],
     {SOURCE: "overdue: 2 runs missed, the first due 2 May 03:00",
      WATCHED: "overdue: 2 runs missed, the first due 2 May 03:00", HEARTBEAT: "overdue: due 2 May 03:00"}),
    ("down for a minute in each of two nights, a check-in after each",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "2 03:10 down", "2 03:11 up", "2 03:20 run", "3 03:10 down",
      "3 03:11 up", "3 03:20 run", "3 03:30 probe"], FINE),
    ("interval: down twice, no run in between",
     [HOURLY, "1 09:00 run", "1 09:01 probe", "1 09:50 down", "1 10:10 up", "1 11:06 down", "1 11:08 up",
      "1 11:09 probe"],
     {SOURCE: "overdue: 2 runs missed, the first due 10:00", WATCHED: "overdue: 2 runs missed, the first due 10:00",
      HEARTBEAT: "overdue: due 11:00"}),
    ("interval: down twice, a run in between: only the second downtime counts",
     [HOURLY, "1 08:00 run", "1 08:01 probe", "1 09:20 down", "1 10:00 up", "1 10:00 run", "1 10:50 down",
      "1 11:10 up", "1 12:06 probe"],
     {SOURCE: "overdue: 2 runs missed, the first due 11:00", WATCHED: "overdue: 2 runs missed, the first due 11:00",
      HEARTBEAT: FINE}),
    ("interval: down for two hours: the job may have run until the end",
     [HOURLY, "1 09:00 run", "1 09:01 probe", "1 09:30 down", "1 10:20 run", "1 11:25 run", "1 11:30 up",
      "1 12:30 probe"], {SOURCE: "overdue: due 12:25", WATCHED: "overdue: due 12:25", HEARTBEAT: FINE}),
    ("interval: down for two hours, and an hour and its grace later",
     [HOURLY, "1 09:00 run", "1 09:01 probe", "1 09:30 down", "1 11:30 up", "1 12:35 probe"],
     {SOURCE: "overdue: 3 runs missed, the first due 10:00", WATCHED: "overdue: 3 runs missed, the first due 10:00",
      HEARTBEAT: "overdue: due 12:30"}),
    ("interval: down between two slots", [HOURLY, "1 09:00 run", "1 09:01 probe", "1 09:20 down", "1 09:40 up",
     "1 10:05 probe"], "overdue: due 10:00"),
    ("interval: down until just before the slot: the job may have run early",
     [HOURLY, "1 09:00 run", "1 09:01 probe", "1 09:20 down", "1 09:55 up", "1 10:05 probe"],
     {SOURCE: "overdue: due 10:00", WATCHED: "overdue: due 10:00", HEARTBEAT: FINE}),
    ("interval: down from the end of the grace: the job may have run late",
     [HOURLY, "1 09:00 run", "1 09:01 probe", "1 10:05 down", "1 10:45 up", "1 11:05 probe"],
     {SOURCE: "overdue: 2 runs missed, the first due 10:00", WATCHED: "overdue: 2 runs missed, the first due 10:00",
      HEARTBEAT: FINE}),
    ("interval: a restart of 30 seconds at the slot",
     [HOURLY, "1 09:00 run", "1 09:01 probe", "1 09:59:40 down", "1 10:00:10 up", "1 10:05 probe"],
     "overdue: due 10:00"),
    ("interval: overdue before the downtime",
     [HOURLY, "1 09:00 run", "1 09:01 probe", "1 10:30 down", "1 10:50 up", "1 10:51 probe"], "overdue: due 10:00"),
    ("a run that ended during the downtime is not stuck",
     [NIGHTLY, "1 00:00 set max_runtime: 1h", "1 12:00 probe", "2 03:00 start", "2 03:20 down", "2 03:40 end",
      "2 05:00 up", "2 05:01 probe"], FINE),
    ("a run that outlasts the downtime is stuck if its source reports it",
     [NIGHTLY, "1 00:00 set max_runtime: 1h", "1 12:00 probe", "2 03:00 start", "2 03:20 down", "2 05:00 up",
      "2 05:01 probe"],
     {SOURCE: STUCK, WATCHED: STUCK, HEARTBEAT: FINE}),
    ("stuck before the downtime: still stuck",
     [NIGHTLY, "1 00:00 set max_runtime: 1h", "1 12:00 probe", "2 03:00 start", "2 04:01 down", "2 05:00 up",
      "2 05:01 probe"], STUCK),
    ("a restart of 10 seconds during a run changes nothing",
     [NIGHTLY, "1 00:00 set max_runtime: 1h", "1 12:00 probe", "2 03:00 start", "2 03:20 down", "2 03:20:10 up",
      "2 04:01 probe"], STUCK),
    # --- the state of Watchdog or of the source is lost
    ("state lost after the run", [NIGHTLY, "1 12:00 probe", "2 03:00 run", "2 04:00 lose", "2 12:00 probe"], FINE),
    ("state lost while overdue: earlier runs are no longer expected",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "2 12:00 lose", "2 12:01 probe"], FINE),
    ("state lost: the next night's run is expected",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "2 12:00 lose", "2 12:01 probe", "3 03:30 probe"],
     {SOURCE: DUE, WATCHED: DUE, HEARTBEAT: NEVER}),
    ("down at the slot, then state lost: the job ran",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "1 23:00 down", "2 03:00 run", "2 07:00 up", "2 07:00 lose",
      "2 07:01 probe", "2 12:00 probe"], FINE),
    ("the source forgot the run, Watchdog did not",
     [NIGHTLY, "1 12:00 probe", "2 03:00 run", "2 03:01 probe", "2 04:00 evict", "2 12:00 probe"], FINE),
    ("the source forgot the run, and the next is missing",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "1 13:00 evict", "2 04:00 probe"], DUE),
    # --- another schedule
    ("more frequent: runs before the change are not expected",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "1 12:30 set schedule: 0 * * * *, grace: 5m", "1 12:30 probe",
      "1 13:04:59 probe"], FINE),
    ("more frequent: the first run after the change is expected",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "1 12:30 set schedule: 0 * * * *, grace: 5m", "1 12:30 probe",
      "1 13:05 probe"], "overdue: due 13:00"),
    ("more frequent while overdue", [NIGHTLY, "1 03:00 run", "1 12:00 probe", "2 04:00 probe",
     "2 04:10 set schedule: 0 * * * *", "2 04:10 probe", "2 05:29:59 probe"], FINE),
    ("interval of 1 h shortened to 15 min: due 15 min after the change",
     [HOURLY, "1 10:00 run", "1 10:01 probe", "1 10:50 set every: 15m", "1 10:50 probe", "1 11:09:59 probe"], FINE),
    ("interval: never ran, an hour and its grace since first seen",
     [HOURLY, "1 10:00 run", "1 10:01 probe", "1 10:50 set every: 15m", "1 10:50 probe", "1 11:10 probe"],
     "overdue: due 11:05"),
    ("interval of 15 min extended to 1 h while overdue",
     [HOURLY, "1 00:00 set every: 15m", "1 10:00 run", "1 10:01 probe", "1 10:30 probe", "1 10:40 set every: 1h",
      "1 10:40 probe", "1 11:44:59 probe"], FINE),
    ("less frequent while overdue: the next run is not due yet",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "2 04:00 probe", "2 05:00 set schedule: 0 3 * * 0", "2 05:00 probe",
      "3 03:29:59 probe"], FINE),
    ("less frequent while overdue: the next run is due",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "2 04:00 probe", "2 05:00 set schedule: 0 3 * * 0", "2 05:00 probe",
      "3 03:30 probe"], DUE),
    ("to another zone: 3:00 in New York is 7:00 UTC",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "2 04:00 probe", "2 05:00 set timezone: America/New_York",
      "2 05:00 probe", "2 07:29:59 probe"], FINE),
    ("to another zone: overdue after the new slot",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "2 04:00 probe", "2 05:00 set timezone: America/New_York",
      "2 05:00 probe", "2 07:30 probe"], "overdue: due 03:00 EDT"),
    ("to a zone where the slot has passed",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "2 02:00 set timezone: Europe/Berlin", "2 02:00 probe", "2 12:00 probe"],
     FINE),
    ("edited and changed back: expected from the last change on",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "2 04:00 set schedule: 0 4 * * *", "2 04:01 probe",
      "2 04:02 set schedule: 0 3 * * *", "2 04:02 probe"], FINE),
    ("from a cron expression to an interval",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "1 12:10 set schedule:, every: 1h, grace: 5m",
      "1 12:10 probe", "1 13:14:59 probe"], FINE),
    ("longer grace while overdue", [NIGHTLY, "1 03:00 run", "1 12:00 probe", "2 04:00 probe", "2 04:00 set grace: 2h",
     "2 04:59 probe"], FINE),
    ("shorter grace: overdue at once",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "2 03:10 probe", "2 03:10 set grace: 5m",
     "2 03:11 probe"], DUE),
    ("edited during the downtime",
     [NIGHTLY, "1 03:00 run", "1 12:00 probe", "2 02:00 down", "2 04:00 set schedule: 0 5 * * *", "2 05:00 up",
      "2 05:00:01 probe", "2 12:00 probe"], FINE),
]  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("events", "verdict"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_overdue_scenarios(events: list[str], verdict: str | dict[str, str], variant: str) -> None:
    job = ScenarioJob(variant)
    for line in events:
        job.apply(line)
    assert job.verdict == (verdict if isinstance(verdict, str) else verdict[variant])


@pytest.mark.parametrize(("setting", "due"), [(NIGHTLY, "5 03:00"), (HOURLY, "5 03:59")])
def test_runs_of_a_disabled_job_are_expected_once_it_is_enabled(setting: str, due: str) -> None:
    job = ScenarioJob(SOURCE)
    disabled = ["1 03:00 run", "1 03:01 probe", "1 03:30 off", "1 03:31 probe"]
    for line in [setting, *disabled, "5 02:59 on", "5 02:59 probe"]:
        job.apply(line)
    assert job.verdict == FINE
    job.apply(f"{due}:59 probe")
    assert job.verdict == FINE
    job.apply("5 04:30 probe")
    assert job.verdict == f"overdue: due {due[2:]}"


def test_instants_in_the_future_are_discarded() -> None:
    job = ScenarioJob(SOURCE)
    for line in [NIGHTLY, "20 03:00 run", "20 12:00 probe", "20 12:00 evict", "1 12:00 probe", "2 03:30 probe"]:
        job.apply(line)
    assert job.verdict == NEVER
