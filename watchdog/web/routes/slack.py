"""The route that Slack calls when a person clicks on a button of a message. It needs no API key: Slack signs its
requests with the signing secret of a receiver, which permits acts on incidents that this receiver has a message about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog
from fastapi import APIRouter
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response

from watchdog.config_types import Secret
from watchdog.domain.text import capitalize_first
from watchdog.net import NetworkAccess
from watchdog.notifiers import Notifier, SlackNotifier
from watchdog.service.acts import ActRunner
from watchdog.service.slack_clicks import SlackClickHandler
from watchdog.service.slack_requests import (
    InboundSlackRequestRefusedError,
    find_destinations_whose_secret_signed_request,
    parse_slack_click,
    parse_slack_signature,
)
from watchdog.store.read.query import StoreReadRunner
from watchdog.web.errors import HttpErrorResponseError
from watchdog.web.forms import read_raw_form_body_bytes
from watchdog.web.templating import NO_STORE_HEADERS

log = structlog.get_logger()

SLACK_INTERACTIVITY_PATH = "/slack/interactivity"
MAX_SLACK_REQUEST_BODY_BYTES = 524_288
"""Slack sends the whole message with each click, and up to nine bytes for a character of it."""
UNSIGNED_SLACK_REQUEST_LOG_INTERVAL_MS = 60_000
NO_SIGNING_SECRET_TEXT = "No receiver has a `signing_secret`, so Watchdog accepts no clicks in Slack at this address."


@dataclass(frozen=True, slots=True)
class SlackInteractivityRouteContext:
    """What the route needs of the receivers."""

    notifiers: Mapping[str, SlackNotifier]
    """By destination: those with a signing secret."""
    secrets: Mapping[str, Secret]
    network: NetworkAccess


def build_slack_interactivity(
    notifiers: Mapping[str, Notifier], network: NetworkAccess
) -> SlackInteractivityRouteContext | None:  # fmt: skip
    """`notifiers`: by destination. None if no receiver has a signing secret."""
    interactive: dict[str, SlackNotifier] = {}
    secrets: dict[str, Secret] = {}
    for destination, notifier in notifiers.items():
        if isinstance(notifier, SlackNotifier) and notifier.signing_secret is not None:
            interactive[destination], secrets[destination] = notifier, notifier.signing_secret
    return SlackInteractivityRouteContext(interactive, secrets, network) if interactive else None


class UnsignedSlackRequestLog:
    """Logs requests that Slack has not signed: one line a minute, because anyone can send them."""

    def __init__(self) -> None:
        self._count, self._logged_at = 0, 0

    def record(self, error: InboundSlackRequestRefusedError, now: int) -> None:
        self._count += 1
        if not 0 <= now - self._logged_at < UNSIGNED_SLACK_REQUEST_LOG_INTERVAL_MS:
            log.warning("slack_request_not_verified", error=str(error), count=self._count)
            self._count, self._logged_at = 0, now


def create_slack_router(
    slack: SlackInteractivityRouteContext | None,
    run_read_query: StoreReadRunner,
    run_act: ActRunner,
    clock: Callable[[], int],
) -> APIRouter:
    """`slack`: None if no receiver has a signing secret. `clock`: epoch ms."""
    router, unsigned_requests = APIRouter(), UnsignedSlackRequestLog()

    @router.post(SLACK_INTERACTIVITY_PATH)
    async def handle_click(request: Request) -> Response:
        if slack is None:
            raise HttpErrorResponseError(404, NO_SIGNING_SECRET_TEXT)
        now, headers = clock(), request.headers
        try:
            signature = parse_slack_signature(
                headers.get("x-slack-request-timestamp", ""), headers.get("x-slack-signature", ""), now
            )
            body = await read_raw_form_body_bytes(request, MAX_SLACK_REQUEST_BODY_BYTES)
            destinations = find_destinations_whose_secret_signed_request(slack.secrets, signature, body)
        except InboundSlackRequestRefusedError as error:
            unsigned_requests.record(error, now)
            raise build_http_error_of_refused_slack_request(error) from None
        handler = SlackClickHandler(slack.notifiers, slack.network, run_read_query, run_act, clock)
        try:
            click = parse_slack_click(body)
            result = await handler.act(click, signature.identity, destinations)
        except InboundSlackRequestRefusedError as error:
            log.warning("slack_request_refused", destinations=destinations, error=str(error))
            raise build_http_error_of_refused_slack_request(error) from None
        return Response(headers=NO_STORE_HEADERS, background=BackgroundTask(handler.show_result, click, result))

    return router


def build_http_error_of_refused_slack_request(error: InboundSlackRequestRefusedError) -> HttpErrorResponseError:
    return HttpErrorResponseError(error.status_code, f"{capitalize_first(str(error))}.")
