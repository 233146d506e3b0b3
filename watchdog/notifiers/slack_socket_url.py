"""Asks Slack for the address of a socket over which it sends clicks (Socket Mode)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from watchdog.config_types import Secret
from watchdog.domain.model import Json
from watchdog.net.url import parse_http_url
from watchdog.notifiers.base import NotificationDeliveryError
from watchdog.notifiers.post import post_notification_json_without_status_check
from watchdog.notifiers.slack import require_slack_success

if TYPE_CHECKING:
    from watchdog.net import NetworkAccess

SLACK_SOCKET_METHOD = "apps.connections.open"
SLACK_APP_TOKEN_ADVICE_BY_ERROR_CODE = {
    "access_denied": "the app has no access: ask an administrator of the workspace",
    "account_inactive": "the app was removed",
    "forbidden_team": "the workspace is not allowed to use Socket Mode",
    "invalid_auth": "Slack rejects the app token",
    "missing_scope": "the app token needs the scope connections:write",
    "no_permission": "the app token needs the scope connections:write",
    "not_allowed_token_type": "expected an app-level token (xapp-...)",
    "not_authed": "the app token is empty",
    "org_login_required": "the workspace is being moved",
    "team_access_not_granted": "an administrator has not approved the app",
    "token_expired": "generate another app-level token",
    "token_revoked": "generate another app-level token",
}
"""Errors that last until a person changes something, and what to change."""


async def request_slack_socket_url(network: NetworkAccess, app_token: Secret, api_url: str, *, now: int) -> str:
    """The address, which contains a ticket that admits its bearer: it must not be logged. Raises
    NotificationDeliveryError. `now`: in epoch ms."""
    url = f"{api_url.rstrip('/')}/{SLACK_SOCKET_METHOD}"
    headers = {"authorization": f"Bearer {app_token.get_secret_value()}"}
    response = await post_notification_json_without_status_check(network, url, b"{}", headers, now=now)
    return extract_slack_socket_url_from_response(
        require_slack_success(response, SLACK_APP_TOKEN_ADVICE_BY_ERROR_CODE), api_url
    )


def extract_slack_socket_url_from_response(body: Mapping[str, Json], api_url: str) -> str:
    """The address in a response. It is encrypted unless the Web API is not. Raises NotificationDeliveryError."""
    schemes = ("wss://",) if parse_http_url(api_url).scheme == "https" else ("wss://", "ws://")
    url = body.get("url")
    if not isinstance(url, str) or not url.startswith(schemes):
        message = f"Slack's response contains no address that starts with {' or '.join(schemes)}"
        raise NotificationDeliveryError("delivery.invalid_response", message)
    return url
