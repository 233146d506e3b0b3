"""Remediation by one HTTP request."""

from __future__ import annotations

from typing import ClassVar, Self
from urllib.parse import quote

from pydantic import model_validator

from watchdog.config_types import MultiFieldValidationError
from watchdog.domain.model import Json
from watchdog.net.errors import ProbeError
from watchdog.net.targets import HttpActionTarget
from watchdog.queues.base import QueueConnectContext
from watchdog.queues.job_status import describe_http_status_and_json_error, fill_braced_placeholders_in_json
from watchdog.remediations.base import (
    REMEDIATION_PARAMETER_NAMES,
    RemediationAction,
    RemediationParameters,
    find_remediation_placeholder_errors,
    find_remediation_placeholders,
)


class HttpRemediation(HttpActionTarget, RemediationAction):
    """One HTTP request, which must be answered with a 2xx status. `url` and the string values in `json` can contain
    parameters such as `{id}` and `{subject}`. POST and PATCH requests include an `Idempotency-Key` header. The short
    form is the URL alone."""

    kind: ClassVar[str] = "http"
    example: ClassVar[str] = """
        probes:
          - name: API
            http: https://api.acme.example/health
            remediation:
              on: connection.refused
              http: {url: "https://ops.acme.example/restart", method: POST, json: {incident: "{incident}"}}
    """

    @model_validator(mode="after")
    def _validate_placeholder_positions(self) -> Self:
        errors = [
            *find_remediation_placeholder_errors(self.url, "url"),
            *find_remediation_placeholder_errors(self.json_body, "json"),
        ]
        for name, text in (("body", self.body), ("headers", list(self.headers.values()))):
            if find_remediation_placeholders(text) & set(REMEDIATION_PARAMETER_NAMES):
                errors.append(((name,), f"parameters are supported in url and json, not in {name}"))
        if errors:
            raise MultiFieldValidationError(errors)
        return self

    @property
    def used_parameters(self) -> frozenset[str]:
        return find_remediation_placeholders([self.url, self.json_body])

    @property
    def description(self) -> str:
        return f"{self.method} {self.target}"

    async def execute(
        self, context: RemediationParameters, connect_context: QueueConnectContext, *, dry_run: bool
    ) -> str:
        if dry_run:
            return "would send the request"
        request = self._substitute_parameters(context).build_http_request(
            f"wd-{context.incident}-{context.reason}-{quote(context.id)}",
            connect_context.allow_private_addresses,
        )
        response = await connect_context.network.send_http_request(
            request, connect_context.phase_timer, now=connect_context.started_at
        )
        description = await connect_context.network.run_cpu_work_inline_or_in_worker(
            connect_context.phase_timer,
            describe_http_status_and_json_error,
            response,
            in_worker=response.needs_worker_process(),
        )
        if not 200 <= response.status < 300:
            raise ProbeError(f"http.{response.status}", description)
        return description

    def _substitute_parameters(self, context: RemediationParameters) -> HttpRemediation:
        """Values are quoted in the URL and stay text in JSON, so that the name of a job cannot change the request."""
        values = context._asdict()
        for name in find_remediation_placeholders(self.url):
            if values[name] in (".", ".."):
                raise ProbeError(
                    "remediation.parameter_truncated", f"{{{name}}} is {values[name]!r}, which changes the URL's path"
                )
        quoted_values = {name: quote(value, safe="") for name, value in values.items()}
        changes: dict[str, Json] = {"url": fill_braced_placeholders_in_json(self.url, **quoted_values)}
        if "json_body" in self.model_fields_set:
            changes["json_body"] = fill_braced_placeholders_in_json(self.json_body, **values)
        return self.model_copy(update=changes)
