"""The stream of transitions."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Query
from pydantic import Field, TypeAdapter
from pydantic.json_schema import SkipJsonSchema
from starlette.requests import Request
from starlette.responses import Response

from watchdog.api.examples import TRANSITION_EVENT_EXAMPLE
from watchdog.api.serializers.transitions import StreamResetJson, TransitionJson
from watchdog.web.auth.access import WebRequestRefusedError
from watchdog.web.routes.api_v1.operations import ApiV1Router, build_openapi_problem_responses
from watchdog.web.routes.api_v1.parameters import NoQueryParameters
from watchdog.web.routes.event_streams import EVENT_STREAM_MEDIA_TYPE
from watchdog.web.routes.operators import OperatorRouteContext

EVENTS_ROUTE_PATH = "/events"
EventId = Annotated[int, Field(ge=0, le=2**62)]
OPENAPI_ERROR_STATUSES_OF_STREAM = (401, 403, 422, 429, 503)
EVENT_STREAM_EVENT_SCHEMA = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "id": {"type": "string", "description": "Send the last one as Last-Event-ID to continue."},
        "event": {
            "type": "string",
            "description": "`reset`: some transitions cannot be repeated. Read the lists again.",
        },
        "data": {
            "type": "string",
            "description": "What happened, as JSON.",
            "contentMediaType": "application/json",
            "contentSchema": {
                "anyOf": [TypeAdapter(shape).json_schema() for shape in (TransitionJson, StreamResetJson)]
            },
        },
    },
}
EVENT_STREAM_RESPONSE = {
    "description": "Server-Sent Events.",
    "content": {EVENT_STREAM_MEDIA_TYPE: {"schema": EVENT_STREAM_EVENT_SCHEMA, "example": TRANSITION_EVENT_EXAMPLE}},
}
"""The schema and the example are of one event."""


def add_transition_routes(router: ApiV1Router, context: OperatorRouteContext) -> None:
    @router.get(
        EVENTS_ROUTE_PATH,
        summary="Follow transitions as they happen",
        responses={200: EVENT_STREAM_RESPONSE, **build_openapi_problem_responses(OPENAPI_ERROR_STATUSES_OF_STREAM)},
        response_class=Response,
    )
    async def follow_transitions(
        request: Request,
        _: Annotated[NoQueryParameters, Query()],
        last_event_id: Annotated[EventId | SkipJsonSchema[None], Header()] = None,
    ) -> Response:
        def is_request_still_authenticated() -> bool:
            try:
                context.authenticator.authenticate(request)
            except WebRequestRefusedError:
                return False
            return True

        return await context.streams.open(request, last_event_id, is_request_still_authenticated)
