"""The `http` probe: requests a URL and evaluates the response."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

from pydantic import model_validator

from watchdog.config_types import FieldPath, MultiFieldValidationError
from watchdog.domain.model import Evidence, Json, Observation, Outcome
from watchdog.expressions import CelExpression
from watchdog.net.errors import ProbeError
from watchdog.net.http_evidence import (
    build_http_response_evidence_facts,
    build_response_head_and_body_excerpt,
    looks_like_json_response,
    parse_response_body_with_problem,
)
from watchdog.net.targets import HttpTarget
from watchdog.probes.base import Probe, ProbeAttemptContext
from watchdog.probes.expectations import (
    ExpressionEvaluationContext,
    ExpressionVariableValueProblem,
    build_cert_days_template,
    build_observation_from_error,
    evaluate_expectations_to_verdict,
)

if TYPE_CHECKING:
    from watchdog.net.http import HttpRequest, HttpResponse


class HttpProbe(Probe):
    """Requests a URL. A 2xx status is expected, unless an `expect` expression uses the `status` variable."""

    kind: ClassVar[str] = "http"
    example: ClassVar[str] = """
        probes:
          - name: Warm the cache
            schedule: "*/5 * * * *"
            http:
              url: https://api.acme.example/warm
              method: POST
              json: {pool: puzzles}
              auth: {bearer: "${API_TOKEN}"}
            retries: 2
    """
    expression_variables: ClassVar[Mapping[str, str]] = {
        "status": "int",
        "headers": "map(string, string)",
        "body": "dyn",
        "elapsed_ms": "int",
        "cert_days": "int",
    }

    form_fields: ClassVar[tuple[str, ...]] = ("http.url", "http.method")

    http: HttpTarget
    """The request to send. The short form is the URL alone."""

    @model_validator(mode="after")
    def _require_https_for_cert_days(self) -> Self:
        expressions = {"expect": self.expectation_expressions, "prefer": self.preference_expressions}
        if errors := find_cert_days_errors(self.http.url, expressions):
            raise MultiFieldValidationError(errors)
        return self

    @property
    def target(self) -> str:
        return self.http.target

    @property
    def sends_http_requests(self) -> bool:
        return True

    @property
    def may_change_target(self) -> bool:
        return self.http.method not in ("GET", "HEAD")

    @property
    def may_run_without_store(self) -> bool:
        return not self.may_change_target

    @property
    def network_endpoint(self) -> str:
        return self.http.network_endpoint

    @cached_property
    def _response_criteria(self) -> HttpResponseCriteria:
        return build_http_response_criteria(self.expectation_expressions, self.preference_expressions)

    @cached_property
    def _request(self) -> HttpRequest:
        """Without an idempotency key."""
        return self.http.build_http_request("", self.allow_private_addresses)

    async def observe(self, context: ProbeAttemptContext) -> Observation:
        phase_timer, criteria, request = context.phase_timer, self._response_criteria, self._request
        if self.http.sends_idempotency_key:
            request = self.http.build_http_request(context.idempotency_key, self.allow_private_addresses)
        try:
            response = await context.network.send_http_request(request, phase_timer, now=context.started_at)
            observation = await context.network.run_cpu_work_inline_or_in_worker(
                phase_timer,
                build_http_response_observation,
                response,
                criteria,
                context.slot,
                in_worker=response.needs_worker_process(loops=criteria.has_looping_expression),
            )
        except ProbeError as error:
            return build_observation_from_error(error, phase_timer)
        return replace(observation, phases=phase_timer.phase_durations_ms)


def find_cert_days_errors(
    url: str, expressions_by_field: Mapping[str, Iterable[CelExpression]]
) -> list[tuple[FieldPath, str]]:
    """Expressions that use `cert_days` although the URL has no certificate."""
    if not url.startswith("http://"):
        return []
    return [
        ((field, i), "cert_days requires an https:// URL")
        for field, expressions in expressions_by_field.items()
        for i, expression in enumerate(expressions)
        if "cert_days" in expression.used_variables
    ]


class HttpResponseCriteria(NamedTuple):
    """What is expected of a response."""

    expectation_expressions: tuple[CelExpression, ...]
    preference_expressions: tuple[CelExpression, ...]
    used_variables: frozenset[str]
    expects_status: bool
    """Whether an expectation decides which statuses are good."""
    has_looping_expression: bool
    """Whether an expression is evaluated for each element of the body."""


def build_http_response_criteria(
    expectations: tuple[CelExpression, ...],
    preferences: tuple[CelExpression, ...],
    others: Collection[CelExpression] = (),
) -> HttpResponseCriteria:
    """`others`: further expressions that are evaluated on the response."""
    expressions = (*expectations, *preferences, *others)
    return HttpResponseCriteria(
        expectations,
        preferences,
        used_variables=frozenset().union(*(expression.used_variables for expression in expressions)),
        expects_status=any("status" in expression.used_variables for expression in expectations),
        has_looping_expression=any(expression.loops for expression in expressions),
    )


def build_http_response_observation(response: HttpResponse, criteria: HttpResponseCriteria, slot: int) -> Observation:
    """The observation, without phases. Raises ProbeError if the body cannot be decoded."""
    return judge_http_response(
        response, criteria, build_http_expression_context(response, criteria.used_variables), slot
    )


def judge_http_response(
    response: HttpResponse, criteria: HttpResponseCriteria, expression_context: ExpressionEvaluationContext, slot: int
) -> Observation:
    """As `build_http_response_observation`. `expression_context`: of the response."""
    verdict = evaluate_expectations_to_verdict(
        expression_context, criteria.expectation_expressions, criteria.preference_expressions
    )
    outcome, reason, message = verdict.outcome, verdict.reason, verdict.message
    if not 200 <= response.status < 300 and not criteria.expects_status:
        broken = message if outcome is Outcome.FAIL else ""
        outcome, reason = Outcome.FAIL, f"http.{response.status}"
        message = "; ".join(filter(None, [f"HTTP {response.status}, expected 2xx", broken]))
    facts = build_http_response_evidence_facts(response) | ({"expect": verdict.evidence} if verdict.evidence else {})
    is_good = outcome is Outcome.PASS
    return Observation(
        outcome,
        reason,
        message,
        duration=response.elapsed_ms,
        measurements=_build_http_measurements(response),
        listings=expression_context.evaluate_all_preferences_as_listing_by_rule(criteria.preference_expressions, slot)
        if is_good
        else {},
        evidence=Evidence(facts, build_response_head_and_body_excerpt(response)),
        retryable=outcome is Outcome.FAIL and response.status >= 500,
    )


def build_http_expression_context(
    response: HttpResponse, used_variables: frozenset[str]
) -> ExpressionEvaluationContext:
    """The values for expressions that use these variables. Raises ProbeError if the body cannot be decoded."""
    variables: dict[str, Json] = {
        "status": response.status,
        "headers": response.headers,
        "elapsed_ms": round(response.elapsed_ms),
        "cert_days": response.cert_days,
    }
    unavailable: dict[str, ExpressionVariableValueProblem] = {}
    beginnings: dict[str, str] = {}
    malformed: dict[str, ExpressionVariableValueProblem] = {}
    if response.body_problem:
        unavailable["body"] = ExpressionVariableValueProblem(*response.body_problem)
        if response.body and not looks_like_json_response(response):
            beginnings["body"] = response.text
    elif "body" in used_variables:
        variables["body"], problem = parse_response_body_with_problem(response)
        if problem:
            malformed["body"] = ExpressionVariableValueProblem(*problem)
    templates = {
        "status": "HTTP {}",
        "cert_days": build_cert_days_template(response.cert_days, response.cert_expires_at_text),
    }
    return ExpressionEvaluationContext(variables, unavailable, templates, beginnings, malformed)


def _build_http_measurements(response: HttpResponse) -> dict[str, str | int]:
    measurements: dict[str, str | int] = {"status": response.status, "size": response.encoded_body_size_bytes}
    if response.redirect_count:
        measurements["redirects"] = response.redirect_count
    if response.cert_days is not None:
        measurements["cert_days"] = response.cert_days
    return measurements | {"http_version": response.http_version}
