"""A run: its attempts share one deadline, each error has its reason, and all text of the target is sanitized."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.support.polling import HANG_S
from tests.support.service import (
    FAILING_OBSERVATION,
    PASSING_OBSERVATION,
    RETRYABLE_OBSERVATION,
    ScriptedProbe,
    observe_forever,
    scripted_probe,
)
from tests.support.store import START_AT
from watchdog.domain.model import (
    ClaimedSlot,
    Evidence,
    Json,
    Observation,
    Outcome,
    ResultToRecord,
    SubjectListing,
)
from watchdog.domain.observations import McpScheduledTaskFacts
from watchdog.domain.rules.preference import PreferenceExpressionResult
from watchdog.net import NetworkAccess, SecretMask
from watchdog.probes.base import ProbeAttemptContext, derive_slot_idempotency_key
from watchdog.service import runner
from watchdog.service.event_loop_lag import EventLoopLagMonitor
from watchdog.service.runner import (
    MAX_EVIDENCE_EXCERPT_CHARS,
    MAX_RESULT_MESSAGE_CHARS,
    MAX_SUBJECT_NAME_CHARS,
    RetryingProbeRunner,
)

SECRET = "hush-hush"


async def run(probe: ScriptedProbe, at: int = START_AT, memory: Mapping[str, Json] | None = None) -> ResultToRecord:
    async with EventLoopLagMonitor() as lag:
        return await RetryingProbeRunner(NetworkAccess(), SecretMask([SECRET]), lambda: START_AT + 5, lag).run(
            probe, ClaimedSlot(7, at, "here", START_AT - 60_000), memory or {}
        )


class Target:
    """Returns these observations in turn, and then the last again."""

    def __init__(self, *answers: Observation):
        self.answers, self.attempts = list(answers), list[ProbeAttemptContext]()

    async def __call__(self, attempt: ProbeAttemptContext) -> Observation:
        self.attempts.append(attempt)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


async def test_a_result_has_the_identity_of_its_slot() -> None:
    result = (await run(scripted_probe())).result
    assert (result.probe, result.slot, result.location, result.previous_slot) == (
        7,
        START_AT,
        "here",
        START_AT - 60_000,
    )
    assert (result.outcome, result.duration, result.measurements) == (Outcome.PASS, 12, {})


@pytest.mark.parametrize(
    ("what", "answers", "retries", "attempts", "outcome"),
    [
        ("a passing run has one attempt", [PASSING_OBSERVATION], 3, 1, Outcome.PASS),
        ("no retries are configured", [RETRYABLE_OBSERVATION], 0, 1, Outcome.FAIL),
        ("a verdict is not retried", [FAILING_OBSERVATION], 3, 1, Outcome.FAIL),
        (
            "a transport error is retried until it is gone",
            [RETRYABLE_OBSERVATION, PASSING_OBSERVATION],
            3,
            2,
            Outcome.PASS,
        ),
        ("or until there is a verdict", [RETRYABLE_OBSERVATION, FAILING_OBSERVATION], 3, 2, Outcome.FAIL),
        ("or until the retries are used up", [RETRYABLE_OBSERVATION], 2, 3, Outcome.FAIL),
    ],
)
async def test_retries(what: str, answers: list[Observation], retries: int, attempts: int, outcome: Outcome) -> None:
    target = Target(*answers)
    result = (await run(scripted_probe(observe_function=target, retries=retries, timeout="60s"))).result
    assert (len(target.attempts), result.outcome) == (attempts, outcome), what
    assert result.measurements.get("attempts", 1) == attempts


async def test_all_attempts_share_one_deadline_and_one_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "FIRST_PROBE_RETRY_DELAY_S", 0.8)
    target = Target(RETRYABLE_OBSERVATION)
    result = (await run(scripted_probe(observe_function=target, retries=10, timeout="4s"))).result
    left = [attempt.remaining_s for attempt in target.attempts]
    assert 1 < len(left) < 4, "the delays are 0.8 s and 1.6 s; 3.2 s more would be too long"
    assert sorted(left, reverse=True) == left
    assert 0 < left[-1] < left[0] <= 4
    assert result.reason == "connection.lost"
    assert {attempt.idempotency_key for attempt in target.attempts} == {derive_slot_idempotency_key("api", START_AT)}
    assert {(attempt.slot, attempt.started_at) for attempt in target.attempts} == {(START_AT, START_AT + 5)}


def test_the_key_depends_on_the_probe_and_the_slot_alone() -> None:
    keys = {derive_slot_idempotency_key(probe, slot) for probe in ("api", "api2") for slot in (START_AT, START_AT + 1)}
    assert len(keys) == 4
    assert derive_slot_idempotency_key("api", START_AT) == "wd-" + derive_slot_idempotency_key("api", START_AT)[3:]
    assert derive_slot_idempotency_key("a", 11) != derive_slot_idempotency_key("a1", 1)


async def test_a_hang_in_the_last_attempt_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "FIRST_PROBE_RETRY_DELAY_S", 0.0)
    monkeypatch.setattr(runner, "MAX_EVENT_LOOP_LAG_S", HANG_S)
    answers = iter([RETRYABLE_OBSERVATION])

    async def script(attempt: ProbeAttemptContext) -> Observation:
        return next(answers, None) or await observe_forever(attempt)

    result = (await run(scripted_probe(observe_function=script, retries=5, timeout="700ms"))).result
    assert (result.outcome, result.reason, result.duration) == (Outcome.FAIL, "timeout.exceeded", 700)
    assert result.measurements["attempts"] == 2


@pytest.mark.parametrize(
    ("what", "after", "reason"),
    [
        ("a timeout while the event loop was blocked is no failure", observe_forever, "watchdog.loop_late"),
        ("a response of the target still counts", Target(FAILING_OBSERVATION), "http.503"),
    ],
)
async def test_a_blocked_event_loop(what: str, after: object, reason: str) -> None:
    async def script(attempt: ProbeAttemptContext) -> Observation:
        time.sleep(0.9)  # noqa: ASYNC251 - blocks the event loop on purpose
        observation: Observation = await after(attempt)  # type: ignore[operator]
        return observation

    result = (await run(scripted_probe(observe_function=script, timeout="1s"))).result
    assert result.reason == reason, what
    assert result.outcome is (Outcome.ERROR if reason == "watchdog.loop_late" else Outcome.FAIL)


async def test_a_cancelled_run_raises() -> None:
    running = asyncio.create_task(run(scripted_probe(observe_function=observe_forever)))
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_the_state_is_passed_in_and_out() -> None:
    async def script(attempt: ProbeAttemptContext) -> Observation:
        return replace(PASSING_OBSERVATION, state_updates={"count": attempt.probe_state["count"] + 1})

    report = await run(scripted_probe(observe_function=script), memory={"count": 41})
    assert report.state_updates == {"count": 42}


async def test_a_name_in_the_state_is_masked() -> None:
    async def script(attempt: ProbeAttemptContext) -> Observation:
        return replace(
            PASSING_OBSERVATION, state_updates={"job:1": {"name": f"sync {SECRET}", "since": 5}, "flight": [SECRET, 5]}
        )

    report = await run(scripted_probe(observe_function=script))
    assert report.state_updates == {"job:1": {"name": "sync •••", "since": 5}, "flight": [SECRET, 5]}


RAW = f"<b>{SECRET}\0\x1b[31m\ud800 aHVzaC1odXNo \u202e"
"""A secret, also in base64; NUL; a terminal escape; half a surrogate pair; a change of the reading direction."""


async def test_all_text_is_sanitized() -> None:
    observation = Observation(
        Outcome.FAIL,
        "expectation.failed",
        RAW * 100,
        measurements={"server": RAW * 100, "n": 3},
        listings={
            "task": SubjectListing(5, {RAW * 100: McpScheduledTaskFacts(False, status=RAW * 100, error=RAW * 100)}),
            "preference": SubjectListing(5, {f"body.key == '{SECRET}'": PreferenceExpressionResult(RAW * 100)}),
        },
        evidence=Evidence({RAW: {"deep": [RAW] * 500}}, RAW * 1_000),
    )
    report = await run(scripted_probe(observe_function=Target(observation)))
    result = report.result
    ((name, task),) = result.listings["task"].subjects.items()
    preferences = result.listings["preference"].subjects
    limits: list[tuple[str, int]] = [
        (result.message, MAX_RESULT_MESSAGE_CHARS),
        (str(result.measurements["server"]), MAX_SUBJECT_NAME_CHARS),
        (name, MAX_SUBJECT_NAME_CHARS),
        (task.status, MAX_RESULT_MESSAGE_CHARS),
        (task.error, MAX_RESULT_MESSAGE_CHARS),
        (report.evidence.excerpt, MAX_EVIDENCE_EXCERPT_CHARS),
        (preferences["body.key == '•••'"].problem, MAX_RESULT_MESSAGE_CHARS),
        *[(text, 2_000) for text in _texts(report.evidence.facts)],
        *[(text, 100) for text in preferences],
    ]
    for text, limit in limits:
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
