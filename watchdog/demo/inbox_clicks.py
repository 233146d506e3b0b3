"""Clicks on the buttons of the inbox's Slack messages, sent to Watchdog as Slack sends them: in a signed request."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx

DEMO_SLACK_TEAM_ID = "T0DEMO"
DEMO_SLACK_USER = {"id": "U0DEMO", "team_id": DEMO_SLACK_TEAM_ID, "name": "you", "real_name": "You"}
DEMO_CLICK_REQUEST_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class DemoSlackClickSender:
    """Sends clicks to Watchdog."""

    interactivity_url: str
    signing_secret: str

    async def send(self, channel_id: str, message_ts: str, button: dict[str, Any], clicked_at_s: float) -> str:
        """`button`: of the message. `clicked_at_s`: epoch s. Returns why Watchdog did not accept it; empty: it did."""
        action = {"action_id": button["action_id"], "value": button["value"], "action_ts": f"{clicked_at_s:.6f}"}
        payload = {
            "type": "block_actions",
            "user": DEMO_SLACK_USER,
            "team": {"id": DEMO_SLACK_TEAM_ID},
            "channel": {"id": channel_id},
            "container": {"message_ts": message_ts},
            "actions": [action],
        }
        body, timestamp = urlencode({"payload": json.dumps(payload)}).encode(), str(int(clicked_at_s))
        headers = {
            "content-type": "application/x-www-form-urlencoded",
            "x-slack-request-timestamp": timestamp,
            "x-slack-signature": self._sign(timestamp, body),
        }
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=DEMO_CLICK_REQUEST_TIMEOUT_S) as client:
                response = await client.post(self.interactivity_url, content=body, headers=headers)
        except httpx.HTTPError as e:
            return f"Watchdog did not respond: {type(e).__name__}"
        return "" if response.status_code == 200 else f"Watchdog refused the click: HTTP {response.status_code}"

    def _sign(self, timestamp: str, body: bytes) -> str:
        content = b"v0:%s:%s" % (timestamp.encode(), body)
        return f"v0={hmac.new(self.signing_secret.encode(), content, hashlib.sha256).hexdigest()}"
