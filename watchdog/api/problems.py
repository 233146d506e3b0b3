"""Errors of the HTTP API as JSON: the problem details of RFC 9457."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import NotRequired

from pydantic import with_config
from typing_extensions import TypedDict

from watchdog.api.serializers.results import FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG

PROBLEM_MEDIA_TYPE = "application/problem+json"


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class InvalidParameterJson(TypedDict):
    """A part of a request that is not valid."""

    location: str
    """query, path, header or body."""
    name: str
    """The parameter, or the path of the field in the body."""
    message: str
    """What is expected."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class ProblemDetailsJson(TypedDict):
    """Why a request failed, and what to do about it."""

    type: str
    """Always about:blank: the status states the kind of problem."""
    title: str
    """The name of the status."""
    status: int
    """The status of the response."""
    detail: str
    """What is wrong and what to do, for people."""
    reason: NotRequired[str]
    """If access is refused: the code of why, such as access.missing_key."""
    errors: NotRequired[list[InvalidParameterJson]]
    """Each part of the request that is not valid."""


def build_problem_details_body(
    status_code: int, detail: str, *, reason: str = "", errors: Sequence[InvalidParameterJson] = ()
) -> ProblemDetailsJson:
    """`detail`: for people: what is wrong, and what to do."""
    body: ProblemDetailsJson = {
        "type": "about:blank",
        "title": HTTPStatus(status_code).phrase,
        "status": status_code,
        "detail": detail,
    }
    if reason:
        body["reason"] = reason
    if errors:
        body["errors"] = list(errors)
    return body
