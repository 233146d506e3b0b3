"""Plays the check-ins of a job through its probe, and collects each change of the verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from watchdog.domain.heartbeat import HEARTBEAT_STATE_KEY, CheckIn, CheckInKind, HeartbeatState, apply_check_in
from watchdog.domain.model import Json
from watchdog.net import NetworkAccess
from watchdog.probes import HeartbeatProbe
from watchdog.probes.base import ProbeAttemptContext

MIN, HOUR, DAY = 60_000, 3_600_000, 86_400_000
TOKEN = "0123456789abcdef"


def instant(text: str) -> int:
    """ "2026-03-01T00:00", in UTC."""
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


class PlayedCheckIn(NamedTuple):
    at: int
    what: str
    """A CheckInKind, or an exit code."""
    run_id: str = ""


class Verdict(NamedTuple):
    """A verdict that differs from the one before it."""

    time: str
    """ "03-02 03:00", in UTC."""
    reason: str
    """Empty: the job is fine."""
    message: str


def make_check_in(played: PlayedCheckIn, id: str) -> CheckIn:
    code = int(played.what) if played.what.isdigit() else None
    kind = CheckInKind(played.what) if code is None else CheckInKind.FAIL if code else CheckInKind.OK
    return CheckIn(id, played.at, kind, played.run_id, code)


def play(
    check_ins: Iterable[tuple[int, str] | tuple[int, str, str]], evaluated_at: Iterable[int], **settings: Any
) -> list[Verdict]:
    """The changes of the verdict. `settings`: of the heartbeat."""
    probe = HeartbeatProbe.model_validate({"name": "job", "heartbeat": {"token": TOKEN, **settings}})
    pending = sorted((PlayedCheckIn(*check_in) for check_in in check_ins), key=lambda played: played.at)

    async def evaluate() -> list[Verdict]:
        state, memory, number = HeartbeatState(), dict[str, Json](), 0
        verdicts: list[Verdict] = []
        for now in evaluated_at:
            while number < len(pending) and pending[number].at <= now:
                state = apply_check_in(state, make_check_in(pending[number], str(number))).state
                number += 1
            context = ProbeAttemptContext(now, now, 5.0, "", {**memory, HEARTBEAT_STATE_KEY: state.to_json()}, network)
            observation = await probe.observe(context)
            memory.update(observation.state_updates)
            if observation.reason != (verdicts[-1].reason if verdicts else ""):
                time = datetime.fromtimestamp(now / 1000, UTC).strftime("%m-%d %H:%M")
                message = observation.message.replace("\N{NO-BREAK SPACE}", " ")
                verdicts.append(Verdict(time, observation.reason, message))
        return verdicts

    network = NetworkAccess()
    return asyncio.run(evaluate())


def reasons(verdicts: Iterable[Verdict]) -> list[str]:
    """ "03-02 03:00 job.lost"; "ok" where the job is fine."""
    return [f"{verdict.time} {verdict.reason or 'ok'}" for verdict in verdicts]
