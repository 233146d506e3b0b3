"""How operations are declared, so that the OpenAPI document describes each with an example and its errors."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import APIRouter, Depends
from starlette.responses import Response

from watchdog.api.problems import PROBLEM_MEDIA_TYPE, build_problem_details_body
from watchdog.domain.model import Json
from watchdog.web.auth.acts import require_operator_role
from watchdog.web.templating import NO_STORE_HEADERS

PROBLEM_DETAIL_EXAMPLE_BY_STATUS_CODE = {
    400: "The cursor or the body is not valid. Begin with the first page, or send JSON.",
    401: "An API key is required. Send `Authorization: Bearer ...`.",
    403: "This requires the role operator. Use a key with the role `operator`.",
    404: "There is no probe with the id api. /api/v1/probes lists the ids.",
    409: "The incident was resolved at 02:29:14 UTC. Only an open incident can be acknowledged.",
    412: "The managed file has changed since it was read: look at the probe again, and repeat the change.",
    413: "The body of the request is too long.",
    415: "The body is not JSON. Send it as `Content-Type: application/json`.",
    422: "query limit: Input should be less than or equal to 200.",
    429: "Too many failed attempts. Try again in 51 s.",
    503: "Watchdog cannot read its database at the moment. Try again soon.",
}
"""An example of each problem."""
PROBLEM_SCHEMA_REFERENCE = "#/components/schemas/ProblemDetailsJson"
OPENAPI_ERROR_STATUSES_OF_READ_OPERATIONS = (400, 401, 403, 404, 422, 429, 503)
OPENAPI_ERROR_STATUSES_OF_ACT_OPERATIONS = (400, 401, 403, 404, 409, 413, 415, 422, 429, 503)
EndpointT = TypeVar("EndpointT", bound=Callable[..., Any])


class ApiV1Router(APIRouter):
    """The routes of the API, and the shape of the body that each responds with.

    FastAPI would build a validator of each shape at every start. Only the OpenAPI document needs the shapes, so that
    they stay what they are until someone requests it.
    """

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.shape_by_operation: dict[tuple[str, str], Any] = {}
        """Path and method -> a TypedDict."""

    def add_operation(self, path: str, method: str, endpoint: Callable[..., Any], shape: Any, **options: Any) -> None:
        self.add_api_route(path, endpoint, methods=[method], response_model=None, **options)
        self.shape_by_operation[self.prefix + path, method] = shape


def build_openapi_responses(example: Json, problems: tuple[int, ...]) -> dict[int | str, dict[str, Any]]:
    """Builds `responses` of a route. The OpenAPI document adds the schema of the body."""
    success = {"content": {"application/json": {"example": example}}}
    return {200: success, **build_openapi_problem_responses(problems)}


def build_openapi_problem_responses(problems: tuple[int, ...]) -> dict[int | str, dict[str, Any]]:
    """For `responses` of a route: how a request with each of these statuses fails."""
    documented: dict[int | str, dict[str, Any]] = {}
    for status_code in problems:
        body = build_problem_details_body(status_code, PROBLEM_DETAIL_EXAMPLE_BY_STATUS_CODE[status_code])
        content = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": PROBLEM_SCHEMA_REFERENCE}, "example": body}}
        documented[status_code] = {"description": HTTPStatus(status_code).phrase, "content": content}
    return documented


def declare_read_operation(
    router: ApiV1Router, path: str, *, summary: str, shape: Any, example: Json
) -> Callable[[EndpointT], EndpointT]:
    """Declares an operation that reads. HEAD gives the headers of GET."""

    def register_read_operation(endpoint: EndpointT) -> EndpointT:
        responses = build_openapi_responses(example, OPENAPI_ERROR_STATUSES_OF_READ_OPERATIONS)
        responses[304] = {"description": "The client has this response already: its ETag is in If-None-Match."}
        router.add_operation(path, "GET", endpoint, shape, summary=summary, responses=responses)
        router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)
        return endpoint

    return register_read_operation


def declare_act_operation(
    router: ApiV1Router,
    path: str,
    *,
    method: str = "POST",
    summary: str,
    shape: Any,
    example: Json,
    problems: tuple[int, ...] = (),
) -> Callable[[EndpointT], EndpointT]:
    """Declares an operation that only operators may do, such as one that changes something. `problems`: statuses that
    other acts do not have."""

    def register_act_operation(endpoint: EndpointT) -> EndpointT:
        responses = build_openapi_responses(example, (*OPENAPI_ERROR_STATUSES_OF_ACT_OPERATIONS, *problems))
        dependencies = [Depends(require_operator_role), Depends(forbid_caching)]
        router.add_operation(
            path, method, endpoint, shape, summary=summary, responses=responses, dependencies=dependencies
        )
        return endpoint

    return register_act_operation


async def forbid_caching(response: Response) -> None:
    response.headers.update(NO_STORE_HEADERS)
