"""Acknowledging and closing incidents, and the log of who did what."""

from __future__ import annotations

from typing import Annotated

from fastapi import Body, Query
from starlette.requests import Request
from starlette.responses import Response

from watchdog.api.examples import (
    INCIDENT_ACKNOWLEDGEMENT_EXAMPLE,
    INCIDENT_CLOSURE_EXAMPLE,
    RECORDED_ACT_EXAMPLE,
    RESENT_NOTIFICATIONS_EXAMPLE,
    build_list_page_json_example,
)
from watchdog.api.serializers.acts import (
    IncidentAcknowledgementJson,
    IncidentClosureJson,
    RecordedActJson,
    ResentNotificationsJson,
    serialize_incident_acknowledgement,
    serialize_incident_closure,
    serialize_recorded_act,
    serialize_resent_notifications,
)
from watchdog.api.serializers.lists import ListPageJson
from watchdog.domain.acts import OperatorAuditLogEntry, OperatorInterfaceKind
from watchdog.service.acts import (
    acknowledge_incident,
    close_incident,
    remove_acknowledgement,
    resend_undelivered_notifications,
)
from watchdog.store.read.acts import list_acts
from watchdog.web.auth.acts import get_actor
from watchdog.web.routes.api_v1.cursors import CursorPosition
from watchdog.web.routes.api_v1.incidents import IncidentId
from watchdog.web.routes.api_v1.operations import ApiV1Router, declare_act_operation, declare_read_operation
from watchdog.web.routes.api_v1.parameters import NO_COMMENT, ActBody, FilterText, ListPageParameters, NoQueryParameters
from watchdog.web.routes.api_v1.responses import CursorPaginatedListEndpoint, cut_list_page
from watchdog.web.routes.operators import OperatorRouteContext


class ResendBody(ActBody):
    """Which notifications are sent again."""

    destination: FilterText = ""
    """Such as oncall/slack; empty: every destination."""


TO_EVERY_DESTINATION = ResendBody()


class AuditListParameters(ListPageParameters):
    """Only the acts that match the filter."""

    incident: FilterText = ""
    """The id of an incident."""


def get_act_position(act: OperatorAuditLogEntry) -> CursorPosition:
    return (act.id,)


AUDIT_LIST: CursorPaginatedListEndpoint[OperatorAuditLogEntry] = CursorPaginatedListEndpoint(
    "/api/v1/audit", (int,), get_act_position, serialize_recorded_act
)


def add_act_routes(router: ApiV1Router, context: OperatorRouteContext) -> None:
    @declare_act_operation(
        router,
        "/incidents/{incident_id}/acknowledge",
        summary="Acknowledge an open incident; the first acknowledgement stays",
        shape=IncidentAcknowledgementJson,
        example=INCIDENT_ACKNOWLEDGEMENT_EXAMPLE,
    )
    async def acknowledge(
        request: Request,
        incident_id: IncidentId,
        _: Annotated[NoQueryParameters, Query()],
        body: Annotated[ActBody, Body()] = NO_COMMENT,
    ) -> IncidentAcknowledgementJson:
        actor = get_actor(request, OperatorInterfaceKind.API, body.on_behalf_of)
        acknowledgement, _is_new = await context.run_act(
            lambda database, now: acknowledge_incident(database, incident_id, actor, body.comment, now)
        )
        return serialize_incident_acknowledgement(incident_id, acknowledgement)

    @declare_act_operation(
        router,
        "/incidents/{incident_id}/unacknowledge",
        summary="Remove the acknowledgement of an open incident, if it has any",
        shape=IncidentAcknowledgementJson,
        example={**INCIDENT_ACKNOWLEDGEMENT_EXAMPLE, "acknowledgement": None},
    )
    async def unacknowledge(
        request: Request,
        incident_id: IncidentId,
        _: Annotated[NoQueryParameters, Query()],
        body: Annotated[ActBody, Body()] = NO_COMMENT,
    ) -> IncidentAcknowledgementJson:
        actor = get_actor(request, OperatorInterfaceKind.API, body.on_behalf_of)
        await context.run_act(
            lambda database, now: remove_acknowledgement(database, incident_id, actor, body.comment, now)
        )
        return serialize_incident_acknowledgement(incident_id, None)

    add_close_route(router, context)
    add_resend_incident_notifications_route(router, context)
    add_audit_route(router, context)


def add_close_route(router: ApiV1Router, context: OperatorRouteContext) -> None:
    @declare_act_operation(
        router,
        "/incidents/{incident_id}/close",
        summary="Close an open incident whose failure was handled outside Watchdog; safe to repeat",
        shape=IncidentClosureJson,
        example=INCIDENT_CLOSURE_EXAMPLE,
    )
    async def close(
        request: Request,
        incident_id: IncidentId,
        _: Annotated[NoQueryParameters, Query()],
        body: Annotated[ActBody, Body()] = NO_COMMENT,
    ) -> IncidentClosureJson:
        actor = get_actor(request, OperatorInterfaceKind.API, body.on_behalf_of)
        closed = await context.run_act(
            lambda database, now: close_incident(database, incident_id, actor, body.comment, now)
        )
        return serialize_incident_closure(incident_id, closed.closure, closed.outlook)


def add_resend_incident_notifications_route(router: ApiV1Router, context: OperatorRouteContext) -> None:
    @declare_act_operation(
        router,
        "/incidents/{incident_id}/resend",
        summary="Send the undelivered notifications of an incident again",
        shape=ResentNotificationsJson,
        example=RESENT_NOTIFICATIONS_EXAMPLE,
    )
    async def resend_incident_notifications(
        request: Request,
        incident_id: IncidentId,
        _: Annotated[NoQueryParameters, Query()],
        body: Annotated[ResendBody, Body()] = TO_EVERY_DESTINATION,
    ) -> ResentNotificationsJson:
        actor = get_actor(request, OperatorInterfaceKind.API, body.on_behalf_of)
        destinations = await context.run_act(
            lambda database, now: resend_undelivered_notifications(
                database, incident_id, body.destination, actor, body.comment, now=now
            )
        )
        return serialize_resent_notifications(incident_id, destinations)


def add_audit_route(router: ApiV1Router, context: OperatorRouteContext) -> None:
    @declare_read_operation(
        router,
        "/audit",
        summary="List who did what, newest first",
        shape=ListPageJson[RecordedActJson],
        example=build_list_page_json_example(AUDIT_LIST.path, RECORDED_ACT_EXAMPLE),
    )
    async def list_audit_log(request: Request, parameters: Annotated[AuditListParameters, Query()]) -> Response:
        after = AUDIT_LIST.decode_cursor_position(parameters)
        before_id = None if after is None else int(after[0])
        acts = await context.run_query(
            lambda c: list_acts(c, limit=parameters.limit + 1, incident=parameters.incident, before_id=before_id)
        )
        return await AUDIT_LIST.respond_with_loaded_page(request, parameters, cut_list_page(acts, parameters.limit))
