"""Asks an HTTP endpoint and judges its answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, StrictBool, model_validator

from watchdog.fields import FieldsError, Model
from watchdog.model import Evidence, Json, Observation, Outcome
from watchdog.probes.access import Auth, HttpUrl, wrong_access
from watchdog.probes.base import Attempt, Probe
from watchdog.probes.verdict import Values, faulted, told
from watchdog.wire.faults import Fault
from watchdog.wire.redact import shown_url
from watchdog.wire.tls import Tls
from watchdog.wire.url import parse_url

if TYPE_CHECKING:
    from watchdog.wire.http import Exchange, Request

SHOWN = 5_000
"""Characters of an answer offered as evidence: more than is kept, so that no secret is cut before it is masked."""
_TELLING = (
    *("content-type", "content-encoding", "location", "retry-after", "www-authenticate", "server", "via", "age"),
    *("x-cache", "x-request-id"),
)
"""Headers of an answer that help to understand it and carry no session."""
_BINARY = ("image/", "audio/", "video/", "font/", "application/octet-stream", "application/pdf", "application/zip")


class Http(Model):
    """A request. The URL alone will do."""

    shorthand: ClassVar[str] = "url"

    url: HttpUrl
    """Where to ask; http:// or https://."""
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "GET"
    headers: dict[str, str] = Field(default_factory=dict)
    """Sent to this origin only, never along with a redirect to another."""
    body: str | None = None
    """Sent as it is."""
    json_body: Json = Field(default=None, alias="json")
    """Sent as JSON, with its Content-Type."""
    auth: Auth | None = None
    tls: Tls = Tls()
    follow_redirects: StrictBool = True
    """Whether a GET or HEAD follows up to 5 redirects; other methods never do."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        wrong = wrong_access(self.headers, self.auth)
        with_json = "json_body" in self.model_fields_set
        if self.body is not None and with_json:
            wrong.append((("json",), "give either body or json, not both"))
        if (self.body is not None or with_json) and self.method in ("GET", "HEAD"):
            wrong.append((("method",), f"a {self.method} carries no body: say which method does, such as POST"))
        if wrong:
            raise FieldsError(wrong)
        return self

    def request_headers(self, idempotency_key: str) -> dict[str, str]:
        """What is sent; a header that is configured wins over one of ours."""
        ours = {}
        if "json_body" in self.model_fields_set:
            ours["Content-Type"] = "application/json"
        if self.method in ("POST", "PATCH"):
            ours["Idempotency-Key"] = idempotency_key
        if self.auth:
            ours["Authorization"] = self.auth.header
        configured = {name.lower() for name in self.headers}
        return {k: v for k, v in ours.items() if k.lower() not in configured} | self.headers

    @property
    def content(self) -> bytes:
        if "json_body" in self.model_fields_set:
            return json.dumps(self.json_body).encode()
        return (self.body or "").encode()


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

    http: Http

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
        return shown_url(self.http.url)

    @property
    def host(self) -> str:
        return parse_url(self.http.url).host

    @cached_property
    def _wanted(self) -> frozenset[str]:
        """The variables that any expression uses."""
        return frozenset().union(*(e.names for e in (*self.expectations, *self.preferences)))

    async def observe(self, attempt: Attempt) -> Observation:
        try:
            answer = await attempt.wire.exchange(self._request(attempt))
        except Fault as fault:
            return faulted(fault, attempt.trace)
        return self._judged(answer, attempt)

    def _request(self, attempt: Attempt) -> Request:
        from watchdog.wire.http import Request

        return Request(
            self.http.url,
            self.http.method,
            self.http.request_headers(attempt.idempotency_key),
            self.http.content,
            self.http.tls,
            self.http.follow_redirects,
            self.egress,
            attempt.trace,
            attempt.started,
        )

    def _judged(self, answer: Exchange, attempt: Attempt) -> Observation:
        values = _values(answer, self._wanted)
        reason, message = "", ""
        held: dict[str, Json] = {}
        odd = "" if 200 <= answer.status < 300 else f"got {answer.status}"
        if odd and not self.expect:
            reason, message = "unexpected_status", odd
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
            evidence=Evidence(_facts(answer) | ({"expect": held} if held else {}), _excerpt(answer)),
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
        known["body"] = _parsed(answer)
    return Values(known)


def _parsed(answer: Exchange) -> Json:
    """The body as JSON when it says or looks like it, else as text."""
    text = answer.text
    if "json" in answer.headers.get("content-type", "") or text.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text


def _measured(answer: Exchange) -> dict[str, str | int]:
    measured: dict[str, str | int] = {"status": answer.status, "size": answer.size}
    if answer.redirects:
        measured["redirects"] = answer.redirects
    if answer.cert_days is not None:
        measured["cert_days"] = answer.cert_days
    return measured | {"http_version": answer.http_version}


def _facts(answer: Exchange) -> dict[str, Json]:
    facts: dict[str, Json] = {"status": answer.status, "elapsed_ms": round(answer.elapsed), "address": answer.address}
    if answer.redirects:
        facts["redirected_to"] = shown_url(answer.url)
    if answer.unread:
        facts["body"] = answer.unread
    return facts


def _excerpt(answer: Exchange) -> str:
    """The status line, the telling headers and the beginning of the body, if that is text."""
    headers = answer.headers | {"location": shown_url(answer.headers.get("location", ""))}
    lines = [f"HTTP/{answer.http_version} {answer.status} {answer.phrase}".rstrip()]
    lines += [f"{name}: {headers[name]}" for name in _TELLING if headers.get(name)]
    content = answer.headers.get("content-type", "").partition(";")[0]
    if b"\0" in answer.body or content.startswith(_BINARY):
        body = f"({answer.size} bytes of {content or 'something that is no text'})"
    else:
        body = answer.text[:SHOWN]
    return "\n".join([*lines, *(["", body] if body else [])])
