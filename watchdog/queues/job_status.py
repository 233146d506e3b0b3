"""Reads the state of jobs from what applications return: their own status words, or the user's expressions."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from pydantic import AfterValidator

from watchdog.domain.model import Json, JsonScalar
from watchdog.domain.observations import CanaryJobStage
from watchdog.domain.text import truncate_to_single_line
from watchdog.expressions import CelExpression, CelExpressionError, compile_expression
from watchdog.net.http_evidence import parse_response_body

if TYPE_CHECKING:
    from watchdog.net.http import HttpResponse

MAX_JOB_ID_CHARS = 500
"""A longer text is not taken for a job's id."""
_RECOGNIZED_STATUS_WORDS_BY_CANARY_STAGE: Mapping[CanaryJobStage, tuple[str, ...]] = {
    CanaryJobStage.QUEUED: ("waiting", "queued", "pending"),
    CanaryJobStage.RUNNING: ("active", "running", "processing", "in_progress"),
    CanaryJobStage.DONE: ("completed", "done", "succeeded", "success", "finished"),
    CanaryJobStage.FAILED: ("failed", "error", "cancelled", "canceled"),
    CanaryJobStage.LOST: ("not_found", "notfound", "missing", "expired", "gone", "lost", "deleted", "removed"),
}
CANARY_STAGE_BY_STATUS_WORD: Mapping[str, CanaryJobStage] = {
    word: stage for stage, words in _RECOGNIZED_STATUS_WORDS_BY_CANARY_STAGE.items() for word in words
}
_JOB_ERROR_FIELDS = ("error", "failedReason", "failed_reason", "message", "reason")
"""Fields in which applications report why a job failed, the first present one counts."""


def create_cel_expression_validator(variables: Mapping[str, str], *, must_be_bool: bool = True) -> AfterValidator:
    """For a field that holds a CEL expression: `Annotated[str, create_cel_expression_validator({"body": "dyn"})]`."""

    def compile_and_return(text: str) -> str:
        compile_expression(text, variables, must_be_bool=must_be_bool)
        return text

    return AfterValidator(compile_and_return)


def compile_canary_stage_expressions(
    variables: Mapping[str, str], failed: str, done: str, lost: str, started: str
) -> tuple[tuple[CanaryJobStage, CelExpression], ...]:
    """The expressions that are not empty, in the order in which `find_canary_stage_of_true_expression` tries them."""
    texts = (
        (CanaryJobStage.FAILED, failed),
        (CanaryJobStage.DONE, done),
        (CanaryJobStage.LOST, lost),
        (CanaryJobStage.RUNNING, started),
    )
    return tuple((stage, compile_expression(text, variables)) for stage, text in texts if text)


def find_canary_stage_of_true_expression(
    stage_expressions: Iterable[tuple[CanaryJobStage, CelExpression]], values: Mapping[str, Json]
) -> tuple[CanaryJobStage | None, str]:
    """The stage of the first expression that is true. If none is: None, and why an expression could not be computed."""
    problem = ""
    for stage, expression in stage_expressions:
        try:
            if expression.evaluate_bool(values):
                return stage, ""
        except CelExpressionError as error:
            # Fields that show the start or the loss of a job may be absent before.
            if stage not in (CanaryJobStage.RUNNING, CanaryJobStage.LOST):
                problem = f"{expression.text} cannot be computed: {error}"
    return None, problem


def extract_status_as_snake_case(value: Json) -> str:
    """A status word in lower case with underscores, from a text or from the field `status` or `state`; else empty."""
    if isinstance(value, dict):
        value = next((value[name] for name in ("status", "state") if isinstance(value.get(name), str)), "")
    return value.strip().lower().replace("-", "_").replace(" ", "_") if isinstance(value, str) else ""


def find_canary_stage_of_status_word(value: Json) -> CanaryJobStage | None:
    """The stage that an application's own status word stands for; None: it has none, or an unknown one."""
    return CANARY_STAGE_BY_STATUS_WORD.get(extract_status_as_snake_case(value))


def parse_job_id(value: Json) -> str:
    """A job's id, a text or an integer, as text; empty for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    text = str(value).strip()
    return text if len(text) <= MAX_JOB_ID_CHARS else ""


def find_job_error_message(value: Json) -> str:
    """Why something failed, on one line: the application's error text, else the whole value."""
    text = _find_job_error_text(value) or ("" if value in (None, "", {}, []) else json.dumps(value, ensure_ascii=False))
    return truncate_to_single_line(text)


def describe_http_status_and_json_error(response: HttpResponse) -> str:
    """ "HTTP 409: already running": the status, and what a JSON body reports."""
    is_json = "json" in response.headers.get("content-type", "")
    text = find_job_error_message(parse_response_body(response)) if is_json else ""
    return f"HTTP {response.status}{text and f': {text}'}"


def _find_job_error_text(value: Json) -> str:
    while isinstance(value, dict):
        value = next(
            (value[name] for name in _JOB_ERROR_FIELDS if isinstance(value.get(name), str | dict) and value[name]), ""
        )
    return value if isinstance(value, str) else ""


def parse_job_progress_and_total(value: Json) -> tuple[float, float | None] | None:
    """How much of a job is done, and of how much: `progress` as a number, or as {progress, total}. None: not
    reported."""
    progress = value.get("progress") if isinstance(value, dict) else None
    pair = (progress.get("progress"), progress.get("total")) if isinstance(progress, dict) else (progress, None)
    done, total = map(parse_finite_float_or_none, pair)
    return None if done is None else (done, total)


def parse_finite_float_or_none(value: Json) -> float | None:
    """None: it is no number, or too large for one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    with suppress(OverflowError):
        return float(value) if math.isfinite(value) else None
    return None


def fill_braced_placeholders_in_json(template: Json, /, **values: JsonScalar) -> Json:
    """A copy with every `{name}` in its strings replaced; keys stay as they are. A string that is nothing but a
    placeholder becomes the value itself, so that a number stays a number."""
    if isinstance(template, str):
        if not values:
            return template
        pattern = f"{{({'|'.join(map(re.escape, values))})}}"
        if whole := re.fullmatch(pattern, template):
            return values[whole[1]]
        # In one pass, because a value may look like a placeholder.
        return re.sub(pattern, lambda placeholder: format_json_scalar_as_text(values[placeholder[1]]), template)
    if isinstance(template, dict):
        return {key: fill_braced_placeholders_in_json(inner, **values) for key, inner in template.items()}
    if isinstance(template, list | tuple):
        return [fill_braced_placeholders_in_json(inner, **values) for inner in template]
    return template


def format_json_scalar_as_text(value: JsonScalar) -> str:
    """Text unchanged, anything else as JSON: 17, 0.5, true."""
    return value if isinstance(value, str) else json.dumps(value)
