"""One run of a `steps` probe: sends its requests in order, and returns one observation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from watchdog.domain.formatting import format_duration
from watchdog.domain.measurements import HttpStepRecord, build_step_measurements, describe_steps
from watchdog.domain.model import Evidence, Json, JsonScalar, Observation, Outcome, SubjectListing
from watchdog.domain.rules import preference
from watchdog.net.cookies import MAX_COOKIES_PER_ORIGIN, RunCookieJar
from watchdog.net.errors import ProbeError, build_timeout_error
from watchdog.net.run_secrets import RunSecretMask
from watchdog.probes.base import ProbeAttemptContext
from watchdog.probes.expectations import build_observation_from_error
from watchdog.probes.step_captures import StepJudgement, fill_captured_values_in_target, judge_step_response
from watchdog.probes.step_settings import HttpStepSettings
from watchdog.queues.job_status import format_json_scalar_as_text

if TYPE_CHECKING:
    from watchdog.net.http import HttpRequest

MIN_SECRET_COOKIE_CHARS = 8
MAX_MASKED_COOKIES = 4 * MAX_COOKIES_PER_ORIGIN
"""Those of the first origins, which the configuration names, because masking takes time."""
RUN_END_MARGIN_S = 0.05
"""How long before the deadline of the run the last step is interrupted, so that the verdict can name the step."""


class StepsToRun(NamedTuple):
    """The steps of a run and its limits."""

    steps: tuple[HttpStepSettings, ...]
    timeout_ms: int
    allow_private_addresses: bool


class StepsRun:
    """Runs the steps until one fails. Masks captured values and cookies in the whole observation."""

    def __init__(self, plan: StepsToRun, context: ProbeAttemptContext) -> None:
        self._plan, self._context = plan, context
        margin_s = min(RUN_END_MARGIN_S, context.remaining_s / 10)
        self._ends_at = perf_counter() + context.remaining_s - margin_s
        self._cookies, self._mask = RunCookieJar(), RunSecretMask()
        self._captured_values: dict[str, JsonScalar] = {}
        self._records: list[HttpStepRecord] = []
        """Of the steps that were run."""
        self._preference_results: dict[str, tuple[int, HttpStepSettings, preference.PreferenceExpressionResult]] = {}
        """By expression, with its step; not masked."""
        self._cert_days: list[int] = []
        self._duration_ms = 0.0

    async def observe(self) -> Observation:
        """The observation of the first step that fails, or of the last one, with the result of every step."""
        for number, step in enumerate(self._plan.steps, start=1):
            observation = await self._observe_step(number, step)
            if observation.outcome is not Outcome.PASS:
                break
        records = [*self._records, *(HttpStepRecord(step.name) for step in self._plan.steps[len(self._records) :])]
        facts = {**observation.evidence.facts, "steps": describe_steps(records)}
        is_good = observation.outcome is Outcome.PASS
        return replace(
            observation,
            duration=self._duration_ms if len(self._records) > 1 or observation.duration is not None else None,
            phases=self._context.phase_timer.phase_durations_ms,
            measurements=build_step_measurements(records)
            | ({"cert_days": min(self._cert_days)} if self._cert_days else {}),
            listings=self._build_masked_listings() if is_good else {},
            evidence=Evidence(facts, observation.evidence.excerpt),
        )

    def _build_masked_listings(self) -> dict[str, SubjectListing]:
        """At the end of the run: a later step may capture what an earlier response contained as well."""
        subjects = {
            expression: result._replace(problem=result.problem and _name_step(number, step, self._mask(result.problem)))
            for expression, (number, step, result) in self._preference_results.items()
        }
        return {preference.ALERT_RULE_NAME: SubjectListing(self._context.slot, subjects)} if subjects else {}

    def mask_evidence_of_interrupted_step(self) -> None:
        """Masks the evidence that the caller reports after it has interrupted the run."""
        timer, number = self._context.phase_timer, len(self._records) + 1
        step = self._plan.steps[number - 1]
        evidence = self._mask_evidence_of_unjudged_response(step, timer.attempt_evidence_so_far)
        timer.facts.clear()
        timer.facts.update(self._build_step_facts(number, step), **evidence.facts)
        timer.describe_response = lambda: Evidence({}, evidence.excerpt)

    # --- one step

    async def _observe_step(self, number: int, step: HttpStepSettings) -> Observation:
        """The observation, masked, with the name of the step."""
        timer = self._context.phase_timer
        before_ms = sum(timer.phase_durations_ms.values())
        timer.facts.clear()
        timer.describe_response = Evidence
        is_sent = False
        try:
            target = fill_captured_values_in_target(step.http, self._captured_values)
            idempotency_key = f"{self._context.idempotency_key}-{number}"
            request = target.build_http_request(idempotency_key, self._plan.allow_private_addresses)
            is_sent = True
            judgement = await self._send_and_judge_in_time(request, step)
        except ProbeError as error:
            observation = build_observation_from_error(error, timer)
            evidence = self._mask_evidence_of_unjudged_response(step, observation.evidence)
            duration_ms = sum(timer.phase_durations_ms.values()) - before_ms
        else:
            observation = judgement.observation
            duration_ms = observation.duration or 0.0
            self._remember_secrets(judgement)
            evidence = self._mask.mask_evidence(observation.evidence)
            self._collect_preferences_and_certificate(number, step, observation)
        self._duration_ms += duration_ms
        status = observation.evidence.facts.get("status")
        self._records.append(
            HttpStepRecord(
                step.name,
                status if isinstance(status, int) else None,
                round(duration_ms) if is_sent else None,
                failed=observation.outcome is not Outcome.PASS,
            )
        )
        facts = {**self._build_step_facts(number, step), **evidence.facts}
        return replace(
            observation,
            message=observation.message and _name_step(number, step, self._mask(observation.message)),
            evidence=Evidence(facts, evidence.excerpt),
        )

    async def _send_and_judge_in_time(self, request: HttpRequest, step: HttpStepSettings) -> StepJudgement:
        """Raises ProbeError."""
        import asyncio  # not when a configuration is only read

        timeout_s = max(self._ends_at - perf_counter(), 0.0)
        limit_ms, limited = self._plan.timeout_ms, "all steps"
        if step.timeout is not None and step.timeout / 1000 < timeout_s:
            timeout_s, limit_ms, limited = step.timeout / 1000, step.timeout, "this step"
        try:
            async with asyncio.timeout(timeout_s):
                return await self._send_and_judge(request, step)
        except asyncio.CancelledError:
            # If the event loop is late, the caller interrupts the run at the same time.
            if perf_counter() < self._ends_at:
                raise
            limit_ms, limited = self._plan.timeout_ms, "all steps"
        except TimeoutError:
            pass
        error = build_timeout_error(limit_ms / 1000, self._context.phase_timer)
        error.facts["timeout"] = f"{format_duration(limit_ms)} for {limited}"
        raise error

    async def _send_and_judge(self, request: HttpRequest, step: HttpStepSettings) -> StepJudgement:
        network, criteria = self._context.network, step.response_criteria
        response = await network.send_http_request(
            request, self._context.phase_timer, now=self._context.started_at, cookies=self._cookies
        )
        return await network.run_cpu_work_inline_or_in_worker(
            self._context.phase_timer,
            judge_step_response,
            response,
            criteria,
            step.capture_expressions,
            self._context.slot,
            in_worker=response.needs_worker_process(loops=criteria.has_looping_expression),
        )

    def _mask_evidence_of_unjudged_response(self, step: HttpStepSettings, evidence: Evidence) -> Evidence:
        """Without the response if the step captures values from it: these are unknown, so they cannot be masked."""
        self._mask_cookies()
        excerpt = evidence.excerpt
        if step.capture and excerpt.startswith("HTTP/"):
            excerpt = excerpt.splitlines()[0]
        return self._mask.mask_evidence(Evidence(evidence.facts, excerpt))

    def _remember_secrets(self, judgement: StepJudgement) -> None:
        self._captured_values |= judgement.captured_values
        # A Boolean is no secret.
        values = [value for value in judgement.captured_values.values() if not isinstance(value, bool)]
        self._mask.add([*map(format_json_scalar_as_text, values), *judgement.unusable_texts])
        self._mask_cookies()

    def _mask_cookies(self) -> None:
        """Short cookies are settings, such as a language, and are not masked."""
        values = [value for value in self._cookies.values if len(value) >= MIN_SECRET_COOKIE_CHARS]
        self._mask.add(values[:MAX_MASKED_COOKIES])

    def _build_step_facts(self, number: int, step: HttpStepSettings) -> dict[str, Json]:
        """Which step it is. Its URL has placeholders where values are captured."""
        return {"step": f"{number} of {len(self._plan.steps)}: {step.name}", "url": step.http.target}

    def _collect_preferences_and_certificate(
        self, number: int, step: HttpStepSettings, observation: Observation
    ) -> None:
        """Adds the preferences and the days of the certificate that a good response shows."""
        listing = observation.listings.get(preference.ALERT_RULE_NAME)
        subjects: Mapping[str, preference.PreferenceExpressionResult] = listing.subjects if listing else {}
        for expression, result in subjects.items():
            self._preference_results[f"{step.name}: {expression}"] = number, step, result
        cert_days = observation.measurements.get("cert_days")
        if isinstance(cert_days, int):
            self._cert_days.append(cert_days)


def _name_step(number: int, step: HttpStepSettings, message: str) -> str:
    return f"step {number} ({step.name}): {message}"
