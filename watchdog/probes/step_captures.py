"""Captured values of a `steps` probe: reads them from a response, and fills them in to the following requests."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlsplit

from watchdog.domain.model import Json, JsonScalar, Observation, Outcome
from watchdog.domain.reasons import ReasonCategory, get_reason_entry
from watchdog.expressions import CelBudgetExceededError, CelExpression, CelExpressionError
from watchdog.net.cookies import parse_cookie_values_by_name
from watchdog.net.errors import ProbeError
from watchdog.net.targets import HttpTarget
from watchdog.probes.expectations import ExpressionEvaluationContext, ExpressionVariableValueProblem
from watchdog.probes.http import HttpResponseCriteria, build_http_expression_context, judge_http_response
from watchdog.probes.step_settings import list_placeholders
from watchdog.queues.job_status import fill_braced_placeholders_in_json, format_json_scalar_as_text

if TYPE_CHECKING:
    from watchdog.net.http import HttpResponse

MAX_CAPTURED_VALUE_CHARS = 8_192
"""The time that masking takes grows with the length."""
_MIN_INEXACT_NUMBER = 2**63
"""CEL converts larger integers to floating-point numbers."""
_HEADER_BREAKING_CHARACTERS_PATTERN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class StepJudgement(NamedTuple):
    """The verdict on a response, and the values captured from it, also if the step fails."""

    observation: Observation
    captured_values: Mapping[str, JsonScalar]
    unusable_texts: tuple[str, ...]
    """The beginnings of captured texts that cannot be used: they are secrets as well."""


# --- reading


def judge_step_response(
    response: HttpResponse, criteria: HttpResponseCriteria, captures: Mapping[str, CelExpression], slot: int
) -> StepJudgement:
    """The observation, without phases. `captures`: by name. Raises ProbeError if the body cannot be decoded."""
    context = build_http_expression_context(response, criteria.used_variables)
    observation = judge_http_response(response, criteria, context, slot)
    cookies = parse_cookie_values_by_name(response.set_cookies)
    context = replace(context, variables={**context.variables, "cookies": cookies})
    values: dict[str, JsonScalar] = {}
    unusable: list[str] = []
    problems: list[ExpressionVariableValueProblem] = []
    for name, expression in captures.items():
        value, problem = _evaluate_capture(expression, context)
        problem = problem or _find_problem_of_captured_value(value)
        if problem is None:
            values[name] = value
            continue
        problems.append(problem._replace(message=f"{name} cannot be captured: {problem.message}"))
        unusable += [value[:MAX_CAPTURED_VALUE_CHARS]] if isinstance(value, str) else []
    if problems and observation.outcome is Outcome.PASS:
        is_internal = get_reason_entry(problems[0].reason).scope is ReasonCategory.ERROR
        observation = replace(
            observation,
            outcome=Outcome.ERROR if is_internal else Outcome.FAIL,
            reason=problems[0].reason,
            message="; ".join(problem.message for problem in problems),
            listings={},
        )
    return StepJudgement(observation, values, tuple(unusable))


def _evaluate_capture(
    expression: CelExpression, context: ExpressionEvaluationContext
) -> tuple[Json, ExpressionVariableValueProblem | None]:
    """The value, or why there is none."""
    if unavailable := sorted(expression.used_variables & context.unavailable_variables.keys()):
        return None, context.unavailable_variables[unavailable[0]]
    try:
        return expression.evaluate_value(context.variables), None
    except CelBudgetExceededError as error:
        return None, ExpressionVariableValueProblem("expectation.over_budget", str(error))
    except CelExpressionError as error:
        if malformed := sorted(expression.used_variables & context.malformed_variables.keys()):
            return None, context.malformed_variables[malformed[0]]
        return None, ExpressionVariableValueProblem("capture.missing", str(error))


def _find_problem_of_captured_value(value: Json) -> ExpressionVariableValueProblem | None:
    """Why it cannot be used in a request; None if it can."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return ExpressionVariableValueProblem("capture.missing", "it is null" if value is None else "it is empty")
    problem = ""
    if isinstance(value, float) and (not math.isfinite(value) or abs(value) >= _MIN_INEXACT_NUMBER):
        problem = "it is a number that cannot be sent exactly"
    elif not isinstance(value, str | int | float):
        noun = "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else "of another type"
        problem = f"it is {noun}, expected text, a number, or true or false"
    elif isinstance(value, str) and len(value) > MAX_CAPTURED_VALUE_CHARS:
        problem = f"it is longer than {MAX_CAPTURED_VALUE_CHARS:,} characters"
    return ExpressionVariableValueProblem("capture.unusable", problem) if problem else None


# --- filling in


def fill_captured_values_in_target(target: HttpTarget, values: Mapping[str, JsonScalar]) -> HttpTarget:
    """The target with its placeholders filled in. In the URL, values are percent-encoded, so that they cannot change
    its structure. Raises ProbeError if a value is not permitted where it is used."""
    texts = {name: format_json_scalar_as_text(value) for name, value in values.items()}
    quoted_texts = {name: quote(text, safe="") for name, text in texts.items()}
    _require_unchanged_path_segments(target.url, quoted_texts)
    for header, template in target.headers.items():
        for name in list_placeholders(template):
            if _HEADER_BREAKING_CHARACTERS_PATTERN.search(texts[name]):
                raise ProbeError.from_reason("capture.invalid_in_header", name=name, header=header)
    changes: dict[str, Json] = {
        "url": fill_braced_placeholders_in_json(target.url, **quoted_texts),
        "headers": fill_braced_placeholders_in_json(target.headers, **texts),
        "body": fill_braced_placeholders_in_json(target.body, **texts),
        "json_body": fill_braced_placeholders_in_json(target.json_body, **values),
    }
    return target.model_copy(update={name: changes[name] for name in changes.keys() & target.model_fields_set})


def _require_unchanged_path_segments(url_template: str, quoted_texts: Mapping[str, str]) -> None:
    for segment in urlsplit(url_template).path.split("/"):
        if (names := list_placeholders(segment)) and fill_braced_placeholders_in_json(segment, **quoted_texts) in (
            ".",
            "..",
        ):
            raise ProbeError.from_reason("capture.invalid_in_url", name=" and ".join(dict.fromkeys(names)))
