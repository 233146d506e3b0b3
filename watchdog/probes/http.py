"""Asks an HTTP endpoint and judges its answer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import model_validator

from watchdog.fields import FieldsError
from watchdog.model import Evidence, Json, Observation, Outcome
from watchdog.probes.base import Attempt, Probe
from watchdog.probes.verdict import Values, faulted, told
from watchdog.wire.answers import body_of, excerpt, facts
from watchdog.wire.faults import Fault
from watchdog.wire.targets import HttpTarget

if TYPE_CHECKING:
    from watchdog.wire.http import Exchange


class HttpProbe(Probe):
    """Asks an HTTP endpoint. Without `expect`, an answer of 2xx is what is expected."""

    kind: ClassVar[str] = "http"
    variables: ClassVar[Mapping[str, str]] = {
        "status": "int",
        "headers": "map(string, string)",
        "body": "dyn",
        "elapsed_ms": "int",
        "cert_days": "int",
    }

    http: HttpTarget

    @model_validator(mode="after")
    def _certificates_need_tls(self) -> Self:
        if self.http.url.startswith("http://"):
            wrong = [
                ((field, i), "cert_days needs an https:// URL")
                for field, expressions in (("expect", self.expectations), ("prefer", self.preferences))
                for i, expression in enumerate(expressions)
                if "cert_days" in expression.names
            ]
            if wrong:
                raise FieldsError(wrong)
        return self

    @property
    def target(self) -> str:
        return self.http.target

    @property
    def host(self) -> str:
        return self.http.host

    @cached_property
    def _wanted(self) -> frozenset[str]:
        """The variables that any expression uses."""
        return frozenset().union(*(e.names for e in (*self.expectations, *self.preferences)))

    async def observe(self, attempt: Attempt) -> Observation:
        request = self.http.request(attempt.idempotency_key, self.egress, attempt.trace, attempt.started)
        try:
            answer = await attempt.wire.exchange(request)
        except Fault as fault:
            return faulted(fault, attempt.trace)
        return self._judged(answer, attempt)

    def _judged(self, answer: Exchange, attempt: Attempt) -> Observation:
        values = _values(answer, self._wanted)
        reason, message = "", ""
        held: dict[str, Json] = {}
        odd = "" if 200 <= answer.status < 300 else f"got {answer.status}"
        if odd and not self.expect:
            reason, message = "http.status", odd
        for expression in self.expectations:
            why, what = values.judge(expression)
            held[expression.text] = told(expression, what)
            if why and not reason:
                reason, message = why, what
                if odd and "status" not in expression.names:
                    message = f"{odd}: {what}"
        return Observation(
            Outcome.FAIL if reason else Outcome.PASS,
            reason,
            message,
            duration=answer.elapsed,
            phases=attempt.trace.phases,
            measurements=_measured(answer),
            preferences=values.preferences(self.preferences) if not reason else None,
            evidence=Evidence(facts(answer) | ({"expect": held} if held else {}), excerpt(answer)),
            retryable=bool(reason) and answer.status >= 500,
        )


def _values(answer: Exchange, wanted: frozenset[str]) -> Values:
    known: dict[str, Json] = {
        "status": answer.status,
        "headers": answer.headers,
        "elapsed_ms": round(answer.elapsed),
        "cert_days": answer.cert_days,
    }
    if answer.unread:
        return Values(known, {"body": answer.unread})
    if "body" in wanted:
        known["body"] = body_of(answer)
    return Values(known)


def _measured(answer: Exchange) -> dict[str, str | int]:
    measured: dict[str, str | int] = {"status": answer.status, "size": answer.size}
    if answer.redirects:
        measured["redirects"] = answer.redirects
    if answer.cert_days is not None:
        measured["cert_days"] = answer.cert_days
    return measured | {"http_version": answer.http_version}
