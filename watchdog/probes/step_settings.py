"""The settings of one step of a `steps` probe, and the placeholders in its request."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from functools import cached_property
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from watchdog.config_types import (
    ConfigModel,
    Duration,
    FieldPath,
    MultiFieldValidationError,
    SingleLineText,
    create_duration_bounds_validator,
)
from watchdog.domain.model import Json
from watchdog.expressions import CelExpression, CelExpressionError, compile_expression
from watchdog.net.targets import HttpTarget
from watchdog.probes.base import find_expression_errors
from watchdog.probes.http import (
    HttpProbe,
    HttpResponseCriteria,
    build_http_response_criteria,
    find_cert_days_errors,
)

MAX_STEP_NAME_CHARS = 80
"""The name is part of messages, and of the subject of the incident about a `prefer` expression."""
MAX_CAPTURES_PER_STEP = 10
CAPTURE_VARIABLE_TYPES: Mapping[str, str] = {**HttpProbe.expression_variables, "cookies": "map(string, string)"}
_CAPTURE_NAME_PATTERN = r"[A-Za-z_][A-Za-z0-9_]{0,39}"
PLACEHOLDER_PATTERN = re.compile(rf"\{{({_CAPTURE_NAME_PATTERN})\}}")


def _validate_step_name_length(name: str) -> str:
    if len(name) > MAX_STEP_NAME_CHARS:
        raise ValueError(f"expected at most {MAX_STEP_NAME_CHARS} characters, found {len(name)}")
    return name


class HttpStepSettings(ConfigModel):
    """One request, what is expected of its response, and the values that it provides to the following steps."""

    name: Annotated[SingleLineText, AfterValidator(_validate_step_name_length)]
    """The name of the step, at most 80 characters. It must be unique among the steps, because messages name the step
    that failed."""
    http: HttpTarget
    """The request to send; the short form is the URL alone. `{name}` is a placeholder for a value that an earlier step
    captures. It can be in the path and the query of `url` (percent-encoded), in `headers`, in `body`, and in the
    strings of `json`. A string in `json` that consists of a placeholder only becomes the value itself, so that a number
    stays a number."""
    expect: tuple[str, ...] = ()
    """CEL expressions that must be true, as in an `http` probe; otherwise the run fails, and the following steps are
    not run. A 2xx status is expected, unless an expression uses `status`."""
    prefer: tuple[str, ...] = ()
    """CEL expressions that should be true; otherwise the probe is degraded. Each can have at most 2,000 bytes."""
    capture: Annotated[dict[str, str], Field(max_length=MAX_CAPTURES_PER_STEP)] = Field(default_factory=dict)
    """The values for the following steps, at most 10: name → CEL expression over the response, such as
    `token: body.token`. In addition to the variables of `expect`, `cookies` contains the cookies that the response
    sets, by name. A value must be text, a number, true or false; if it is missing, null or empty, the run fails.
    Captured values are secrets: they are masked in messages and evidence."""
    timeout: Annotated[Duration, create_duration_bounds_validator("100ms", "5m")] | None = None
    """The time limit for this step; default: the remaining part of the probe's `timeout`, which applies to all steps
    together."""

    @field_validator("expect", "prefer")
    @classmethod
    def _validate_expressions(cls, expressions: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if errors := find_expression_errors(expressions, HttpProbe.expression_variables, info.field_name or ""):
            raise MultiFieldValidationError(errors)
        return expressions

    @field_validator("capture")
    @classmethod
    def _validate_captures(cls, captures: dict[str, str]) -> dict[str, str]:
        errors: list[tuple[FieldPath, str]] = []
        for name, text in captures.items():
            if not re.fullmatch(_CAPTURE_NAME_PATTERN, name):
                message = "expected a name of at most 40 letters a-z, digits and '_' that does not start with a digit"
                errors.append(((name,), message))
            try:
                compile_expression(text, CAPTURE_VARIABLE_TYPES, must_be_bool=False)
            except CelExpressionError as error:
                errors.append(((name,), str(error)))
        if errors:
            raise MultiFieldValidationError(errors)
        return captures

    @model_validator(mode="after")
    def _require_https_for_cert_days(self) -> Self:
        criteria = self.response_criteria
        expressions = {"expect": criteria.expectation_expressions, "prefer": criteria.preference_expressions}
        if errors := find_cert_days_errors(self.http.url, expressions):
            raise MultiFieldValidationError(errors)
        return self

    @cached_property
    def capture_expressions(self) -> dict[str, CelExpression]:
        """`capture`, compiled."""
        return {
            name: compile_expression(text, CAPTURE_VARIABLE_TYPES, must_be_bool=False)
            for name, text in self.capture.items()
        }

    @cached_property
    def response_criteria(self) -> HttpResponseCriteria:
        """`expect`, `prefer` and `capture`, compiled."""
        expectations, preferences = (
            tuple(compile_expression(text, HttpProbe.expression_variables) for text in texts)
            for texts in (self.expect, self.prefer)
        )
        return build_http_response_criteria(expectations, preferences, self.capture_expressions.values())

    @property
    def may_change_target(self) -> bool:
        return self.http.method not in ("GET", "HEAD")


# --- placeholders


def find_placeholder_errors(
    target: HttpTarget, earlier: Collection[str], later: Mapping[str, str]
) -> list[tuple[FieldPath, str]]:
    """Placeholders that cannot be filled in. `earlier`: what earlier steps capture. `later`: what this step or a later
    one captures, with the name of that step."""
    errors: list[tuple[FieldPath, str]] = [
        (path, _describe_unknown_placeholder(name, earlier, later))
        for path, text in _iter_template_texts(target)
        for name in dict.fromkeys(PLACEHOLDER_PATTERN.findall(text))
        if name not in earlier
    ]
    if PLACEHOLDER_PATTERN.search(urlsplit(target.url).netloc):
        errors.append((("url",), "placeholders are permitted only in the path and the query of the URL"))
    if target.auth is not None and {*_list_placeholders_of_credentials(target)} & {*earlier, *later}:
        errors.append((("auth",), "placeholders are not filled in here: set the header `Authorization` instead"))
    return errors


def list_placeholders(text: str) -> list[str]:
    """The names in the placeholders of a text."""
    return PLACEHOLDER_PATTERN.findall(text)


def _iter_template_texts(target: HttpTarget) -> Iterator[tuple[FieldPath, str]]:
    """Every text in which placeholders are filled in, with its path."""
    yield ("url",), target.url
    for name, value in target.headers.items():
        yield ("headers", name), value
    if target.body is not None:
        yield ("body",), target.body
    yield from _iter_json_strings(target.json_body, ("json",))


def _iter_json_strings(value: Json, path: FieldPath) -> Iterator[tuple[FieldPath, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict | list | tuple):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _iter_json_strings(inner, (*path, key))


def _list_placeholders_of_credentials(target: HttpTarget) -> Iterator[str]:
    basic, bearer = (target.auth.basic, target.auth.bearer) if target.auth else (None, None)
    texts = [bearer.get_secret_value()] if bearer else []
    texts += [basic.username, basic.password.get_secret_value()] if basic else []
    for text in texts:
        yield from list_placeholders(text)


def _describe_unknown_placeholder(name: str, earlier: Collection[str], later: Mapping[str, str]) -> str:
    if name in later:
        return f"{{{name}}} is not captured yet: step {later[name]!r} captures it from its response"
    if close := get_close_matches(name, earlier, 1):
        return f"unknown placeholder {{{name}}}; did you mean {{{close[0]}}}?"
    captured = f"earlier steps capture {', '.join(earlier)}" if earlier else "earlier steps capture no values"
    return f"unknown placeholder {{{name}}}: {captured}"
