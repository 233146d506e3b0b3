"""One run: its attempts share one deadline, its faults are told apart, and nothing raw of the target gets further."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.service.house import BAD, FLAKY, GOOD, Scripted, hang, scripted
from tests.store.lab import T0
from watchdog.model import Evidence, Json, Observation, Outcome, Report, Slot, Task
from watchdog.probes.base import Attempt, idempotency_key
from watchdog.service.lag import LagSentinel
from watchdog.service.runner import EXCERPT, MESSAGE, NAME, Runner
from watchdog.wire import Mask, Wire

SECRET = "hush-hush"


async def run(probe: Scripted, at: int = T0, memory: Mapping[str, Json] | None = None) -> Report:
    async with LagSentinel() as lag:
        return await Runner(Wire(), Mask([SECRET]), lambda: T0 + 5, lag).run(
            probe, Slot(7, at, "here", T0 - 60_000), memory or {}
        )


class Target:
    """Gives these answers one after the other, the last one again and again."""

    def __init__(self, *answers: Observation):
        self.answers, self.attempts = list(answers), list[Attempt]()

    async def __call__(self, attempt: Attempt) -> Observation:
        self.attempts.append(attempt)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


async def test_a_result_has_the_identity_of_its_slot() -> None:
    result = (await run(scripted())).result
    assert (result.probe, result.slot, result.location, result.prev) == (7, T0, "here", T0 - 60_000)
    assert (result.outcome, result.duration, result.measurements) == (Outcome.PASS, 12, {})


@pytest.mark.parametrize(
    ("what", "answers", "retries", "attempts", "outcome"),
    [
        ("a good answer is asked for once", [GOOD], 3, 1, Outcome.PASS),
        ("no retries are configured", [FLAKY], 0, 1, Outcome.FAIL),
        ("a verdict is not tried again", [BAD], 3, 1, Outcome.FAIL),
        ("a fault of transport is, until it is gone", [FLAKY, GOOD], 3, 2, Outcome.PASS),
        ("or is no fault of transport any more", [FLAKY, BAD], 3, 2, Outcome.FAIL),
        ("or the retries are used up", [FLAKY], 2, 3, Outcome.FAIL),
    ],
)
async def test_retries(what: str, answers: list[Observation], retries: int, attempts: int, outcome: Outcome) -> None:
    target = Target(*answers)
    result = (await run(scripted(script=target, retries=retries, timeout="60s"))).result
    assert (len(target.attempts), result.outcome) == (attempts, outcome), what
    assert result.measurements.get("attempts", 1) == attempts


async def test_all_attempts_share_one_deadline_and_one_key() -> None:
    target = Target(FLAKY)
    result = (await run(scripted(script=target, retries=10, timeout="1s"))).result
    left = [attempt.timeout for attempt in target.attempts]
    assert 1 < len(left) < 4, "0.2 s and 0.4 s are waited in between; 0.8 s more would be too long"
    assert sorted(left, reverse=True) == left
    assert 0 < left[-1] < left[0] <= 1
    assert result.reason == "connection.lost"
    assert {attempt.idempotency_key for attempt in target.attempts} == {idempotency_key("api", T0)}
    assert {(attempt.slot, attempt.started) for attempt in target.attempts} == {(T0, T0 + 5)}


def test_the_key_is_of_the_probe_and_the_slot_alone() -> None:
    keys = {idempotency_key(probe, slot) for probe in ("api", "api2") for slot in (T0, T0 + 1)}
    assert len(keys) == 4
    assert idempotency_key("api", T0) == "wd-" + idempotency_key("api", T0)[3:]
    assert idempotency_key("a", 11) != idempotency_key("a1", 1)


async def test_a_hang_in_the_last_attempt_is_a_timeout_within_the_deadline() -> None:
    begun = time.monotonic()
    answers = iter([FLAKY])

    async def script(attempt: Attempt) -> Observation:
        return next(answers, None) or await hang(attempt)

    result = (await run(scripted(script=script, retries=5, timeout="700ms"))).result
    assert time.monotonic() - begun < 1.7
    assert (result.outcome, result.reason, result.duration) == (Outcome.FAIL, "timeout.exceeded", 700)
    assert result.measurements["attempts"] == 2


@pytest.mark.parametrize(
    ("what", "after", "reason"),
    [
        ("a timeout while our own loop stood still says nothing of the target", hang, "watchdog.loop_late"),
        ("what the target did say still counts", Target(BAD), "http.status"),
    ],
)
async def test_our_own_standstill(what: str, after: object, reason: str) -> None:
    async def script(attempt: Attempt) -> Observation:
        time.sleep(0.9)  # noqa: ASYNC251 - it is the loop that is to stand still
        seen: Observation = await after(attempt)  # type: ignore[operator]
        return seen

    result = (await run(scripted(script=script, timeout="1s"))).result
    assert result.reason == reason, what
    assert result.outcome is (Outcome.ERROR if reason == "watchdog.loop_late" else Outcome.FAIL)


async def test_its_own_cancellation_gets_out() -> None:
    running = asyncio.create_task(run(scripted(script=hang)))
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_memory_is_handed_in_and_out() -> None:
    async def script(attempt: Attempt) -> Observation:
        return replace(GOOD, remember={"seen": attempt.memory["seen"] + 1})

    report = await run(scripted(script=script), memory={"seen": 41})
    assert report.remember == {"seen": 42}


async def test_a_remembered_name_is_what_people_are_told() -> None:
    async def script(attempt: Attempt) -> Observation:
        return replace(GOOD, remember={"job:1": {"name": f"sync {SECRET}", "since": 5}, "flight": [SECRET, 5]})

    report = await run(scripted(script=script))
    assert report.remember == {"job:1": {"name": "sync •••", "since": 5}, "flight": [SECRET, 5]}


RAW = f"<b>{SECRET}\0\x1b[31m\ud800 aHVzaC1odXNo \u202e"
"""A secret, and the same in base64; NUL; a terminal's command; half a character; a turn of the reading direction."""


async def test_nothing_raw_gets_further() -> None:
    seen = Observation(
        Outcome.FAIL,
        "expectation.failed",
        RAW * 100,
        measurements={"server": RAW * 100, "n": 3},
        tasks={RAW * 100: Task(False, status=RAW * 100, error=RAW * 100)},
        preferences={f"body.key == '{SECRET}'": RAW * 100},
        evidence=Evidence({RAW: {"deep": [RAW] * 500}}, RAW * 1_000),
    )
    report = await run(scripted(script=Target(seen)))
    result = report.result
    assert result.tasks is not None
    assert result.preferences is not None
    ((name, task),) = result.tasks.items()
    kept: list[tuple[str, int]] = [
        (result.message, MESSAGE), (str(result.measurements["server"]), NAME), (name, NAME), (task.status, MESSAGE),
        (task.error, MESSAGE), (report.evidence.excerpt, EXCERPT), (result.preferences["body.key == '•••'"], MESSAGE),
        *[(text, 2_000) for text in _texts(report.evidence.facts)], *[(text, 100) for text in result.preferences],
    ]  # fmt: skip
    for text, limit in kept:
        assert len(text) <= limit + 30
        assert SECRET not in text
        assert "aHVzaC1o" not in text
        assert not {*text} & {"\0", "\x1b", "\ud800", "\u202e"}
        assert "•••" in text or text == "deep" or text.startswith("…")
    assert len(_texts(report.evidence.facts)) < 110


def _texts(value: Json) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for inner in pair for text in _texts(inner)]
    return [text for inner in value for text in _texts(inner)] if isinstance(value, list) else [value]
