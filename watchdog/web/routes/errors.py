"""Responses to failed requests: a page for browsers, problem details for programs, and never a traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import TypeAlias

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Match

from watchdog.api.problems import (
    PROBLEM_MEDIA_TYPE,
    InvalidParameterJson,
    ProblemDetailsJson,
    build_problem_details_body,
)
from watchdog.domain.acts import ActSubjectKind, OperatorActRefusalReason, OperatorActRefusedError
from watchdog.domain.reasons import get_reason_advice
from watchdog.domain.text import capitalize_first, format_as_sentence
from watchdog.service.managed_edits import ManagedProbeRefusalReason, ManagedProbeRefusedError
from watchdog.store.errors import StoreUnavailableError, WatchdogDatabaseSchemaError
from watchdog.web.auth.access import WebRequestRefusedError
from watchdog.web.auth.acts import SAFE_HTTP_METHODS
from watchdog.web.errors import HttpErrorResponseError, StatusPageUnavailableError
from watchdog.web.routes.sign_in import (
    DEFAULT_SIGN_IN_REDIRECT_PATH,
    build_retry_after_header_of_refusal,
    render_sign_in_page,
)
from watchdog.web.templating import NO_STORE_HEADERS, SECURITY_HEADERS, PageRenderer

PAGE_DATABASE_UNAVAILABLE_TEXT = "Watchdog cannot read its database at the moment. Try again soon."
UNCERTAIN_ACT_ADVICE = "Before you repeat the request, see whether it took effect."
INTERNAL_ERROR_TEXT = "Watchdog failed to build this response; see its log. Probes and notifications are not affected."
PAGE_NOT_FOUND_TEXT = "There is no page at this address."
API_ADDRESS_NOT_FOUND_TEXT = "There is nothing at this address. /api/v1/openapi.json lists the addresses of the API."
INVALID_PARAMETER_ADVICE = "/api/v1/openapi.json describes the parameters."
STATUS_CODE_BY_ACT_REFUSAL = {
    OperatorActRefusalReason.NOT_FOUND: 404,
    OperatorActRefusalReason.CONFLICT: 409,
    OperatorActRefusalReason.INVALID: 422,
    OperatorActRefusalReason.TOO_SOON: 429,
}
LIST_PATH_BY_ACT_SUBJECT = {
    ActSubjectKind.PROBE: "/probes",
    ActSubjectKind.INCIDENT: "/incidents",
    ActSubjectKind.SILENCE: "/silences",
    ActSubjectKind.MAINTENANCE: "/maintenance",
}
DELETED_ID_ADVICE = "Resolved incidents, ended silences and ended maintenance windows are deleted after a while."
STATUS_CODE_BY_PROBE_EDIT_REFUSAL = {
    ManagedProbeRefusalReason.UNAVAILABLE: 409,
    ManagedProbeRefusalReason.NOT_FOUND: 404,
    ManagedProbeRefusalReason.FILE_CHANGED: 412,
    ManagedProbeRefusalReason.INVALID: 422,
    ManagedProbeRefusalReason.BUSY: 429,
}
RequestRefusal: TypeAlias = HttpErrorResponseError | OperatorActRefusedError | ManagedProbeRefusedError
ALLOW_HEADER_CANDIDATE_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
MAX_REPORTED_PARAMETER_ERRORS = 20
MAX_REPORTED_PARAMETER_NAME_CHARS = 100


class ProblemDetailsResponse(JSONResponse):
    """A failed request of a program."""

    media_type = PROBLEM_MEDIA_TYPE

    def __init__(self, body: ProblemDetailsJson, headers: Mapping[str, str]):
        super().__init__(body, body["status"], headers={**NO_STORE_HEADERS, **headers})


def create_error_response_builder(renderer: PageRenderer, clock: Callable[[], int]) -> Callable[..., Response]:
    def error_response(
        request: Request,
        status_code: int,
        heading: str,
        text: str,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[InvalidParameterJson] = (),
    ) -> Response:
        if is_program_request(request):
            return ProblemDetailsResponse(build_problem_details_body(status_code, text, errors=errors), headers or {})
        html = renderer.render("error.j2", clock(), status_code=status_code, heading=heading, text=text)
        return HTMLResponse(html, status_code, headers={**NO_STORE_HEADERS, **(headers or {})})

    return error_response


def install_error_handlers(
    app: FastAPI, renderer: PageRenderer, clock: Callable[[], int], describe_probing_without_store: Callable[[], str]
) -> None:
    error_response = create_error_response_builder(renderer, clock)

    @app.exception_handler(WebRequestRefusedError)
    async def handle_access_denied(request: Request, error: WebRequestRefusedError) -> Response:
        if is_program_request(request):
            return build_access_problem_response(error)
        if error.status_code == 401:
            return render_sign_in_page(renderer, clock(), find_path_after_sign_in(app, request), error)
        return error_response(
            request, error.status_code, "Access denied", f"{error}.", build_retry_after_header_of_refusal(error)
        )

    @app.exception_handler(ManagedProbeRefusedError)
    @app.exception_handler(OperatorActRefusedError)
    @app.exception_handler(HttpErrorResponseError)
    async def respond_to_refused_request(request: Request, error: RequestRefusal) -> Response:
        status_code, text = get_status_code_and_text_of_refusal(error, "/api/v1" if is_program_request(request) else "")
        heading, errors = HTTPStatus(status_code).phrase.capitalize(), list_invalid_fields(error)
        return error_response(request, status_code, heading, text, errors=errors)

    @app.exception_handler(HTTPException)
    async def handle_http_error(request: Request, error: HTTPException) -> Response:
        return error_response(
            request, error.status_code, *build_heading_text_and_headers_of_http_error(app, request, error)
        )

    @app.exception_handler(RequestValidationError)
    async def handle_invalid_parameters(request: Request, error: RequestValidationError) -> Response:
        if is_program_request(request):
            return build_invalid_parameters_response(error)
        return error_response(request, 400, "Request refused", "A parameter in the URL is not valid.")

    @app.exception_handler(StoreUnavailableError)
    @app.exception_handler(WatchdogDatabaseSchemaError)
    @app.exception_handler(TimeoutError)
    @app.exception_handler(StatusPageUnavailableError)
    async def handle_database_unavailable(request: Request, _: Exception) -> Response:
        text = build_database_unavailable_text(describe_probing_without_store(), is_act=is_act_request(request))
        return error_response(request, 503, "Database unavailable", text, {"Retry-After": "10"})

    app.add_exception_handler(ClientDisconnect, handle_client_disconnect)

    @app.exception_handler(Exception)
    async def handle_unexpected_error(request: Request, _: Exception) -> Response:
        response = error_response(request, 500, "Internal error", INTERNAL_ERROR_TEXT)
        response.headers.update(SECURITY_HEADERS)  # this response bypasses SecurityHeadersMiddleware
        return response


def get_status_code_and_text_of_refusal(error: RequestRefusal, list_path_prefix: str) -> tuple[int, str]:
    """The status, and a text with what to do. `list_path_prefix`: of the paths that list what there is."""
    if isinstance(error, HttpErrorResponseError):
        return error.status_code, str(error)
    if isinstance(error, ManagedProbeRefusedError):
        return STATUS_CODE_BY_PROBE_EDIT_REFUSAL[error.reason], f"{capitalize_first(str(error))}."
    sentences = [format_as_sentence(str(error))]
    if (subject := error.unknown_subject) is not None:
        is_unknown_id = error.refusal is OperatorActRefusalReason.NOT_FOUND
        lists = f"{list_path_prefix}{LIST_PATH_BY_ACT_SUBJECT[subject]} lists them."
        sentences.append(f"Check the id: {lists}" if is_unknown_id else lists)
        if is_unknown_id and subject is not ActSubjectKind.PROBE:
            sentences.append(DELETED_ID_ADVICE)
    return STATUS_CODE_BY_ACT_REFUSAL[error.refusal], " ".join(sentences)


def list_invalid_fields(error: RequestRefusal) -> list[InvalidParameterJson]:
    """The fields of a probe that are not valid."""
    problems = error.problems if isinstance(error, ManagedProbeRefusedError) else ()
    return [
        {"location": "body", "name": each.path[:MAX_REPORTED_PARAMETER_NAME_CHARS] or "yaml", "message": each.message}
        for each in problems[:MAX_REPORTED_PARAMETER_ERRORS]
    ]


def build_heading_text_and_headers_of_http_error(
    app: FastAPI, request: Request, error: HTTPException
) -> tuple[str, str, Mapping[str, str] | None]:
    """Heading, text with what to do, and headers."""
    if error.status_code == 404:
        return "Not found", API_ADDRESS_NOT_FOUND_TEXT if is_program_request(request) else PAGE_NOT_FOUND_TEXT, None
    if error.status_code == 405:
        allowed = ", ".join(list_allowed_methods(app, request))
        text = f"This address does not accept {request.method}. It accepts {allowed}."
        return "Request refused", text, {"Allow": allowed}
    return "Request refused", f"{error.detail}.", error.headers


def find_path_after_sign_in(app: FastAPI, request: Request) -> str:
    """The requested page; for a form, the page that it belongs to: `/incidents/1` of `/incidents/1/acknowledge`."""
    if not is_act_request(request):
        return request.url.path + (f"?{request.url.query}" if request.url.query else "")
    path = request.url.path
    while path and not has_get_route_for_path(app, request, path):
        path = path.rpartition("/")[0]
    return path or DEFAULT_SIGN_IN_REDIRECT_PATH


def has_get_route_for_path(app: FastAPI, request: Request, path: str) -> bool:
    scope = {**request.scope, "method": "GET", "path": path}
    return any(route.matches(scope)[0] is Match.FULL for route in app.routes)


async def handle_client_disconnect(_: Request, __: Exception) -> Response:
    """No one reads this response; without it, each visitor who leaves while sending a form would be logged."""
    return Response(status_code=400)


def build_access_problem_response(error: WebRequestRefusedError) -> Response:
    detail = f"{error}. {get_reason_advice(error.reason)}"
    challenge = {"WWW-Authenticate": "Bearer"} if error.status_code == 401 else {}
    body = build_problem_details_body(error.status_code, detail, reason=error.reason)
    return ProblemDetailsResponse(body, build_retry_after_header_of_refusal(error) | challenge)


def build_invalid_parameters_response(error: RequestValidationError) -> Response:
    """400 for a body that is not JSON, otherwise 422. What the client sent is not repeated: it may be a secret."""
    problems = list(_describe_invalid_parameters(error.errors()))
    if any(entry["type"] == "json_invalid" for entry in error.errors()):
        return ProblemDetailsResponse(
            build_problem_details_body(400, "The body is not valid JSON. Send a JSON object."), {}
        )
    first = problems[0]
    place = " ".join(filter(None, (first["location"], first["name"])))
    detail = f"{place}: {first['message']}. {INVALID_PARAMETER_ADVICE}"
    return ProblemDetailsResponse(build_problem_details_body(422, detail, errors=problems), {})


def _describe_invalid_parameters(errors: Sequence[Mapping[str, object]]) -> Iterator[InvalidParameterJson]:
    for entry in errors[:MAX_REPORTED_PARAMETER_ERRORS]:
        place = entry["loc"]
        location, *names = map(str, place) if isinstance(place, tuple) else ("body",)
        unknown = "unknown field" if location == "body" else "unknown parameter"
        message = unknown if entry["type"] == "extra_forbidden" else str(entry["msg"]).removeprefix("Value error, ")
        yield {"location": location, "name": ".".join(names)[:MAX_REPORTED_PARAMETER_NAME_CHARS], "message": message}


def list_allowed_methods(app: FastAPI, request: Request) -> list[str]:
    """The methods that the address of a request accepts."""
    scopes = {method: {**request.scope, "method": method} for method in ALLOW_HEADER_CANDIDATE_METHODS}
    return [
        method for method, scope in scopes.items() if any(route.matches(scope)[0] is Match.FULL for route in app.routes)
    ]


def build_database_unavailable_text(probing: str, *, is_act: bool = False) -> str:
    """`probing`: what runs while the database is away; empty if it is not, and just cannot be read. `is_act`: the
    request was to change something, and it is not known whether it did."""
    sentences = (
        PAGE_DATABASE_UNAVAILABLE_TEXT,
        f"{capitalize_first(probing)}." if probing else "",
        UNCERTAIN_ACT_ADVICE if is_act else "",
    )
    return " ".join(filter(None, sentences))


def is_act_request(request: Request) -> bool:
    """Whether a request is to change something."""
    return request.method not in SAFE_HTTP_METHODS


def is_program_request(request: Request) -> bool:
    """Whether a program sent the request."""
    path = request.url.path
    return path.startswith(("/api/", "/slack/")) or path == "/mcp" or "authorization" in request.headers
