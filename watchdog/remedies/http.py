"""A remedy behind HTTP: one request."""

from __future__ import annotations

from typing import Self
from urllib.parse import quote

from pydantic import model_validator

from watchdog.fields import FieldsError
from watchdog.model import Json
from watchdog.queues.base import Reach
from watchdog.queues.told import filled, why
from watchdog.remedies.base import PARAMETERS, Act, Cause, known, placeholders
from watchdog.wire.answers import body_of
from watchdog.wire.faults import Fault
from watchdog.wire.targets import HttpTarget, Method


class HttpRemedy(HttpTarget, Act):
    """A request. A 2xx is expected. In its URL and in the texts of `json`, parameters stand as `{id}`; a POST or PATCH
    has an Idempotency-Key."""

    method: Method = "POST"

    @model_validator(mode="after")
    def _filled_where_it_is_safe(self) -> Self:
        wrong = [*known(self.url, "url"), *known(self.json_body, "json")]
        for name, text in (("body", self.body), ("headers", list(self.headers.values()))):
            if placeholders(text) & set(PARAMETERS):
                wrong.append(((name,), "parameters stand in the URL and in json alone, where they stay values"))
        if wrong:
            raise FieldsError(wrong)
        return self

    @property
    def parameters(self) -> frozenset[str]:
        return placeholders([self.url, self.json_body])

    @property
    def shown(self) -> str:
        return f"{self.method} {self.target}"

    async def apply(self, cause: Cause, reach: Reach, *, dry: bool) -> str:
        if dry:
            return "would send it"
        request = self._filled(cause).request(
            f"wd-{cause.incident}-{cause.reason}-{quote(cause.id)}", reach.egress, reach.trace, reach.now
        )
        answer = await reach.wire.exchange(request)
        said = why(body_of(answer)) if "json" in answer.headers.get("content-type", "") else ""
        told = f"answered {answer.status}{said and f': {said}'}"
        if not 200 <= answer.status < 300:
            raise Fault("http.status", told)
        return told

    def _filled(self, cause: Cause) -> HttpRemedy:
        """Values are quoted in the URL and stay text in JSON: whatever a job is called, it cannot become more."""
        values = cause._asdict()
        if odd := [name for name in placeholders(self.url) if values[name] in (".", "..")]:
            raise Fault("remediation.parameter_truncated", f"{{{odd[0]}}} is {values[odd[0]]!r}, which would lead to another URL")
        told: dict[str, Json] = {"url": filled(self.url, **{name: quote(v, safe="") for name, v in values.items()})}
        if "json_body" in self.model_fields_set:
            told["json_body"] = filled(self.json_body, **values)
        return self.model_copy(update=told)
