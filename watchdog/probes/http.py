"""Asks an HTTP endpoint and judges its answer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import model_validator

from watchdog.config_types import FieldValidationError
from watchdog.domain.model import Evidence, Json, Observation, Outcome
from watchdog.net.errors import ProbeError
from watchdog.net.http_evidence import parse_response_body, response_excerpt, response_facts
from watchdog.net.targets import HttpTarget
from watchdog.probes.base import Probe, RunContext
from watchdog.probes.expectations import ExpressionContext, describe_expectation_result, observation_from_error

if TYPE_CHECKING:
    from watchdog.net.http import HttpResponse


class HttpProbe(Probe):
    """Requests a URL. Without `expect`, a 2xx status is expected."""

    kind: ClassVar[str] = "http"
    expression_variables: ClassVar[Mapping[str, str]] = {
        "status": "int",
        "headers": "map(string, string)",
        "body": "dyn",
        "elapsed_ms": "int",
        "cert_days": "int",
    }

    http: HttpTarget
    """The request to send. The short form is the URL alone."""

    @model_validator(mode="after")
    def _require_https_for_cert_days(self) -> Self:
        if self.http.url.startswith("http://"):
            errors = [
                ((field, i), "cert_days requires an https:// URL")
                for field, expressions in (("expect", self.expectations), ("prefer", self.preferences))
                for i, expression in enumerate(expressions)
                if "cert_days" in expression.used_variables
            ]
            if errors:
                raise FieldValidationError(errors)
        return self

    @property
    def target(self) -> str:
        return self.http.target

    @property
    def host(self) -> str:
        return self.http.host

    @cached_property
    def _used_variables(self) -> frozenset[str]:
        """The variables that any expression uses."""
        return frozenset().union(*(e.used_variables for e in (*self.expectations, *self.preferences)))

    async def observe(self, context: RunContext) -> Observation:
        request = self.http.build_request(
            context.idempotency_key, self.allow_private_addresses, context.phase_timer, context.started_at
        )
        try:
            answer = await context.network.send_http_request(request)
        except ProbeError as fault:
            return observation_from_error(fault, context.phase_timer)
        return self._evaluate_response(answer, context)

    def _evaluate_response(self, response: HttpResponse, context: RunContext) -> Observation:
        values = _build_expression_context(response, self._used_variables)
        reason, message = "", ""
        held: dict[str, Json] = {}
        odd = "" if 200 <= response.status < 300 else f"got {response.status}"
        if odd and not self.expect:
            reason, message = "http.status", odd
        for expression in self.expectations:
            why, what = values.evaluate_expectation(expression)
            held[expression.text] = describe_expectation_result(expression, what)
            if why and not reason:
                reason, message = why, what
                if odd and "status" not in expression.used_variables:
                    message = f"{odd}: {what}"
        return Observation(
            Outcome.FAIL if reason else Outcome.PASS,
            reason,
            message,
            duration=response.elapsed_ms,
            phases=context.phase_timer.phase_durations_ms,
            measurements=_measurements(response),
            preferences=values.evaluate_preferences(self.preferences) if not reason else None,
            evidence=Evidence(
                response_facts(response) | ({"expect": held} if held else {}), response_excerpt(response)
            ),
            retryable=bool(reason) and response.status >= 500,
        )


def _build_expression_context(response: HttpResponse, used_variables: frozenset[str]) -> ExpressionContext:
    known: dict[str, Json] = {
        "status": response.status,
        "headers": response.headers,
        "elapsed_ms": round(response.elapsed_ms),
        "cert_days": response.cert_days,
    }
    if response.body_incomplete_reason:
        return ExpressionContext(known, {"body": response.body_incomplete_reason})
    if "body" in used_variables:
        known["body"] = parse_response_body(response)
    return ExpressionContext(known)


def _measurements(response: HttpResponse) -> dict[str, str | int]:
    measured: dict[str, str | int] = {"status": response.status, "size": response.encoded_body_bytes}
    if response.redirect_count:
        measured["redirects"] = response.redirect_count
    if response.cert_days is not None:
        measured["cert_days"] = response.cert_days
    return measured | {"http_version": response.http_version}
