"""Reads the forms of acts, and answers them: with a redirect, or with the form again if it is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from watchdog.domain.acts import (
    Actor,
    ActSubjectKind,
    OperatorActRefusalReason,
    OperatorActRefusedError,
    OperatorInterfaceKind,
)
from watchdog.domain.model import ProbeInfo
from watchdog.store.read.status import Connection, list_probe_infos, load_watchdog_status
from watchdog.web.auth.acts import get_actor, require_csrf_safe_act, require_operator_role
from watchdog.web.errors import PageNotFoundError
from watchdog.web.forms import MAX_FORM_BYTES, read_form
from watchdog.web.pages.act_confirmation import (
    CONFIRMATION_FIELD,
    CONFIRMED_VALUE,
    ActConfirmation,
    ActConfirmationPage,
)
from watchdog.web.pages.act_form import ActForm
from watchdog.web.routes.errors import get_status_code_and_text_of_refusal
from watchdog.web.routes.operators import OperatorRouteContext
from watchdog.web.templating import NO_STORE_HEADERS

CSRF_TOKEN_FIELD = "csrf_token"
SELECTION_FIELDS = ("id", "group", "tags", "kind", "severity")


async def read_act_form(
    request: Request, context: OperatorRouteContext, max_bytes: int = MAX_FORM_BYTES
) -> tuple[Mapping[str, str], Actor]:
    """The fields, and who sends them. Raises WebRequestRefusedError for a reader, and for a form of another site."""
    require_operator_role(request)
    form = await read_form(request, max_bytes)
    require_csrf_safe_act(request, context.authenticator, form.get(CSRF_TOKEN_FIELD, ""))
    return form, get_actor(request, OperatorInterfaceKind.PAGE)


async def respond_or_show_form_again(
    form: Mapping[str, str], act: Callable[[], Awaitable[Response]], show: Callable[[ActForm], Awaitable[Response]]
) -> Response:
    """What `act` responds; if the act is refused, the page that `show` makes of the form. Raises
    OperatorActRefusedError if what the act is about does not exist."""
    try:
        return await act()
    except OperatorActRefusedError as error:
        if error.refusal is OperatorActRefusalReason.NOT_FOUND:
            raise
        status_code, text = get_status_code_and_text_of_refusal(error, "")
        is_about_selection = error.unknown_subject is ActSubjectKind.PROBE
        field = error.field or (find_only_selection_field(form) if is_about_selection else "")
        end = form.get("duration") or form.get("end", "")  # the button counts, as in StatedEnd
        response = await show(ActForm({**form, "end": end}, text, field))
        response.status_code = status_code
        return response


def is_confirmed(form: Mapping[str, str]) -> bool:
    """Whether a person has confirmed an act that is hard to undo."""
    return form.get(CONFIRMATION_FIELD) == CONFIRMED_VALUE


async def render_confirmation_page(
    context: OperatorRouteContext, request: Request, form: Mapping[str, str], confirmation: ActConfirmation
) -> Response:
    """A page that sends the same form again."""
    fields = {name: value for name, value in form.items() if name != CSRF_TOKEN_FIELD}
    page = ActConfirmationPage(
        service_status=await context.run_query(load_watchdog_status),
        confirmation=confirmation,
        path=quote(request.url.path),
        fields=fields | {CONFIRMATION_FIELD: CONFIRMED_VALUE},
    )
    section = request.url.path.split("/")[1]
    return await context.render_page(request, "act_confirmation.j2", section, page, context.clock())


def find_only_selection_field(form: Mapping[str, str]) -> str:
    """The only field that selects probes; empty: there are several, or none."""
    filled = [name for name in SELECTION_FIELDS if form.get(name)]
    return filled[0] if len(filled) == 1 else ""


def load_probe_by_id_or_raise(connection: Connection, probe_id: str) -> ProbeInfo:
    """Raises PageNotFoundError."""
    for probe in list_probe_infos(connection):
        if probe.id == probe_id:
            return probe
    raise PageNotFoundError(f"There is no probe with the id {probe_id}. /probes lists all probes.")


def build_probe_path(probe_id: str) -> str:
    return f"/probes/{quote(probe_id, safe='')}"


def redirect_to_page(path: str, id: str = "") -> Response:
    """303, so that to reload the page does not send the form again."""
    return RedirectResponse(f"{path}{quote(id, safe='')}", 303, headers=NO_STORE_HEADERS)
