"""The `steps` probe: several HTTP requests in order, such as a login, a request with its token, and a purchase."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from watchdog.config_types import FieldPath, MultiFieldValidationError
from watchdog.domain.model import Observation
from watchdog.probes.base import Probe, ProbeAttemptContext
from watchdog.probes.http import HttpProbe
from watchdog.probes.step_run import StepsRun, StepsToRun
from watchdog.probes.step_settings import HttpStepSettings, find_placeholder_errors

MAX_STEPS = 20


def _validate_step_count(steps: tuple[HttpStepSettings, ...]) -> tuple[HttpStepSettings, ...]:
    """As `Field(min_length=1)`, which would also count a step that is invalid as missing."""
    if not 1 <= len(steps) <= MAX_STEPS:
        raise ValueError(f"expected 1 to {MAX_STEPS} steps, found {len(steps)}")
    return steps


class StepsProbe(Probe):
    """Sends several HTTP requests in order. The run ends with the first step that fails. A step can capture values of
    its response, such as a token, for the following steps. These also send the cookies that earlier responses of the
    same origin have set. `timeout` applies to all steps together; `retries` repeat all of them."""

    kind: ClassVar[str] = "steps"
    example: ClassVar[str] = """
        probes:
          - name: Checkout
            every: 5m
            steps:
              - name: Log in
                http:
                  url: https://shop.acme.example/login
                  method: POST
                  json: {user: canary, password: "${PASSWORD}"}
                expect: ["status == 200"]
                capture: {token: body.token, cart: body.cart.id}
              - name: Cart
                http: {url: "https://shop.acme.example/carts/{cart}", headers: {Authorization: "Bearer {token}"}}
                expect: ["size(body.items) > 0"]
                timeout: 5s
    """
    expression_variables: ClassVar[Mapping[str, str]] = HttpProbe.expression_variables
    cards: ClassVar[tuple[str, ...]] = ("steps", "latency", "phases")
    unsupported_fields: ClassVar[Mapping[str, str]] = {
        "expect": "not supported by steps probes: set expect in a step",
        "prefer": "not supported by steps probes: set prefer in a step",
    }

    steps: Annotated[
        tuple[HttpStepSettings, ...],
        AfterValidator(_validate_step_count),
        Field(json_schema_extra={"minItems": 1, "maxItems": MAX_STEPS}),
    ]
    """The steps, at most 20, in the order in which they are run."""

    @model_validator(mode="after")
    def _validate_names_and_placeholders(self) -> Self:
        if errors := [*self._find_duplicate_name_errors(), *self._find_placeholder_errors()]:
            raise MultiFieldValidationError(errors)
        return self

    def _find_duplicate_name_errors(self) -> Iterator[tuple[FieldPath, str]]:
        names: set[str] = set()
        for i, step in enumerate(self.steps):
            if step.name in names:
                yield ("steps", i, "name"), "duplicate name: an earlier step has the same name"
            names.add(step.name)

    def _find_placeholder_errors(self) -> Iterator[tuple[FieldPath, str]]:
        earlier: dict[str, None] = {}
        for i, step in enumerate(self.steps):
            later = {name: other.name for other in reversed(self.steps[i:]) for name in other.capture}
            for path, message in find_placeholder_errors(step.http, earlier, later):
                yield ("steps", i, "http", *path), message
            earlier |= dict.fromkeys(step.capture)

    @property
    def target(self) -> str:
        return self.steps[0].http.target

    @property
    def sends_http_requests(self) -> bool:
        return True

    @property
    def may_change_target(self) -> bool:
        return any(step.may_change_target for step in self.steps)

    @property
    def may_run_without_store(self) -> bool:
        return not self.may_change_target

    @property
    def network_endpoint(self) -> str:
        return self.steps[0].http.network_endpoint

    async def observe(self, context: ProbeAttemptContext) -> Observation:
        import asyncio  # not when a configuration is only read

        run = StepsRun(StepsToRun(self.steps, self.timeout, self.allow_private_addresses), context)
        try:
            return await run.observe()
        except asyncio.CancelledError:
            run.mask_evidence_of_interrupted_step()
            raise
