"""The address of a socket over which Slack sends clicks: with which token it is requested, and how refusals read."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import SecretStr

from tests.support.fakes import CannedResponse, FakeSlack
from watchdog.net import NetworkAccess
from watchdog.notifiers.base import DELIVERY_CONFIG_ERROR_RETRY_DURATION_S, NotificationDeliveryError
from watchdog.notifiers.slack_socket_url import extract_slack_socket_url_from_response, request_slack_socket_url

Session = tuple[asyncio.Runner, NetworkAccess]


def request(session: Session, slack: FakeSlack, app_token: str) -> str:
    loop, network = session
    return loop.run(request_slack_socket_url(network, SecretStr(app_token), slack.url, now=0))


def test_the_address_is_requested_with_the_app_token(loop_and_wire: Session, slack: FakeSlack) -> None:
    slack.socket_url = "ws://127.0.0.1:1/link/"
    assert request(loop_and_wire, slack, slack.app_token).startswith("ws://127.0.0.1:1/link/?ticket=")
    (received,) = slack.received
    assert received.path == "/api/apps.connections.open"
    assert received.headers["authorization"] == f"Bearer {slack.app_token}"


@pytest.mark.parametrize(
    ("response", "message", "is_refused"),
    [
        (b'{"ok": false, "error": "invalid_auth"}', "Slack error invalid_auth: Slack rejects the app token", True),
        (
            b'{"ok": false, "error": "missing_scope"}',
            "Slack error missing_scope: the app token needs the scope connections:write",
            True,
        ),
        (b'{"ok": false, "error": "internal_error"}', "Slack error internal_error", False),
        (b'{"ok": true}', "Slack's response contains no address that starts with wss:// or ws://", False),
        (b"<html>", "the response does not come from Slack", False),
    ],
)
def test_a_refusal(loop_and_wire: Session, slack: FakeSlack, response: bytes, message: str, is_refused: bool) -> None:
    slack.canned_responses.append(CannedResponse(200, response))
    with pytest.raises(NotificationDeliveryError) as refused:
        request(loop_and_wire, slack, "xapp-1-hush")
    assert str(refused.value) == message
    assert (refused.value.retry_for_s == DELIVERY_CONFIG_ERROR_RETRY_DURATION_S) == is_refused
    assert "hush" not in str(refused.value)


def test_a_bot_token_is_refused_with_the_token_that_is_expected(loop_and_wire: Session, slack: FakeSlack) -> None:
    with pytest.raises(NotificationDeliveryError, match="not_allowed_token_type: expected an app-level token"):
        request(loop_and_wire, slack, slack.token)


SLACK = "https://slack.com/api/"


@pytest.mark.parametrize(
    ("url", "api_url", "is_accepted"),
    [
        ("wss://wss.slack.com/link?ticket=1", SLACK, True),
        ("ws://wss.slack.com/link?ticket=1", SLACK, False),
        ("ws://127.0.0.1/link?ticket=1", "http://127.0.0.1/api", True),
        ("wss://wss.slack.com/", "http://127.0.0.1/api", True),
        ("https://wss.slack.com/", SLACK, False),
        ("file:///etc/passwd", "http://127.0.0.1/api", False),
        (None, SLACK, False),
        (["wss://wss.slack.com/"], SLACK, False),
    ],
)
def test_the_address_is_encrypted_unless_the_web_api_is_not(url: Any, api_url: str, is_accepted: bool) -> None:
    if is_accepted:
        assert extract_slack_socket_url_from_response({"url": url}, api_url) == url
        return
    with pytest.raises(NotificationDeliveryError, match="no address that starts with"):
        extract_slack_socket_url_from_response({"url": url}, api_url)
