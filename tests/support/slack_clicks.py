"""Clicks on the buttons of Slack messages, as Slack sends and signs them, and the application that receives them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import urlencode

import httpx
from slack_sdk.signature import SignatureVerifier

from tests.support.delivery import DeliveryHarness
from tests.support.web import create_test_app
from watchdog.service.acts import run_act_and_send
from watchdog.web.routes.slack import SLACK_INTERACTIVITY_PATH, build_slack_interactivity

SIGNING_SECRET = "8f742231b10e8888abcd99badc0ffee0"
ANA_IN_SLACK = {"id": "U0ANA", "username": "ana.e", "name": "ana.e", "real_name": "Ana Example", "team_id": "T0ACME"}


def make_payload(action_id: str, value: str, clicked_at: int, **changes: Any) -> dict[str, Any]:
    """`clicked_at`: epoch ms."""
    action = {
        "type": "button", "action_id": action_id, "block_id": "actions", "value": value,
        "text": {"type": "plain_text", "text": "A label", "emoji": True},
        "action_ts": f"{clicked_at // 1_000}.{clicked_at % 1_000:03}000",
    }  # fmt: skip
    return {
        "type": "block_actions",
        "api_app_id": "A0WATCHDOG",
        "team": {"id": "T0ACME", "domain": "acme"},
        "user": ANA_IN_SLACK,
        "channel": {"id": "C0ONCALL", "name": "oncall"},
        "container": {"type": "message", "message_ts": "1795312000.000100", "channel_id": "C0ONCALL"},
        "message": {"type": "message", "text": "as it was sent", "ts": "1795312000.000100"},
        "response_url": "https://hooks.slack.example/actions/T0ACME/1/x",
        "trigger_id": f"{clicked_at}.1.x",
        "actions": [action],
        **changes,
    }


def encode_payload(payload: object) -> bytes:
    return urlencode({"payload": payload if isinstance(payload, str) else json.dumps(payload)}).encode()


def sign(body: bytes, signed_at: int, secret: str = SIGNING_SECRET) -> dict[str, str]:
    """The headers of a signed request, by Slack's own implementation. `signed_at`: epoch ms."""
    timestamp = str(signed_at // 1_000)
    signature = SignatureVerifier(secret).generate_signature(timestamp=timestamp, body=body)
    assert signature is not None
    return {
        "X-Slack-Request-Timestamp": timestamp,
        "X-Slack-Signature": signature,
        "Content-Type": "application/x-www-form-urlencoded",
    }


def find_buttons(post: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The buttons of a message, by action id."""
    blocks = [block for block in post["blocks"] if block["type"] == "actions"]
    return {button["action_id"]: button for block in blocks for button in block["elements"]}


class SlackClicks:
    """People click on the buttons of the messages that a delivery harness has sent."""

    def __init__(self, harness: DeliveryHarness, **options: Any):
        """`options`: parameters of `create_web_app`."""
        self.harness = harness
        defaults: dict[str, Any] = {
            "run_read_query": harness.executor.run_read_query,
            "run_act": partial(run_act_and_send, harness.executor, harness.sender),
            "clock": lambda: harness.now,
            "slack": build_slack_interactivity(harness.notifiers, harness.network),
        }
        self.app = create_test_app(harness.store.database, **defaults | options)

    async def post(self, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
        """From the internet."""
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False, client=("203.0.113.9", 50_000))
        async with httpx.AsyncClient(transport=transport, base_url="https://status.acme.example") as http:
            return await http.post(SLACK_INTERACTIVITY_PATH, content=body, headers=headers)

    async def send(self, payload: object, secret: str = SIGNING_SECRET) -> httpx.Response:
        """A signed request; afterwards, what is due is sent."""
        body = encode_payload(payload)
        response = await self.post(body, sign(body, self.harness.now, secret))
        await self.harness.settle()
        return response

    async def click(self, action_id: str, value: str = "", **changes: Any) -> httpx.Response:
        """`value`: by default that of the button in the first message of the bot."""
        value = value or find_buttons(self.harness.bot.posts[0])[action_id]["value"]
        return await self.send(make_payload(action_id, value, self.harness.now, **changes))
