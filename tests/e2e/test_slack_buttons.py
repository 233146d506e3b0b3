"""A person acknowledges an incident with a button in Slack, over HTTP and with a real Watchdog."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.end_to_end import RunningWatchdog
from tests.support.fakes import FakeHttpTarget, FakeSlack
from tests.support.polling import wait_until_async
from tests.support.slack_clicks import SIGNING_SECRET, encode_payload, find_buttons, make_payload, sign
from tests.support.slack_sockets import FakeSlackSockets
from watchdog.app import create_asgi_app, start_watchdog_service_and_stop_on_exit
from watchdog.config.load import LoadedConfig, load_config
from watchdog.domain.acts import Actor, OperatorInterfaceKind
from watchdog.server import WebServer, open_listen_socket
from watchdog.service import slack_clicks
from watchdog.store.read.status import list_service_findings
from watchdog.web.routes.slack import SLACK_INTERACTIVITY_PATH


def load(
    folder: Path,
    database_url: str,
    target: FakeHttpTarget,
    slack: FakeSlack,
    *,
    bot_secrets: Mapping[str, str] | None = None,
    **fields: Any,
) -> LoadedConfig:
    secrets = bot_secrets or {"signing_secret": "${SIGNING}"}
    bot = {"bot_token": slack.token, "channel": slack.channel, "api_url": slack.url, **secrets}
    config = {
        "storage": {"url": database_url, "check_in_log": str(folder / "check-ins")},
        "server": {"listen": "127.0.0.1:0"},
        "access": {"api_keys": [{"name": "ops", "role": "operator", "key": "0123456789abcdef-ops"}]},
        "probes": [{"name": "API", "http": target.url, "every": "1s", "alert": {"failure_threshold": 1}}],
        "receivers": {"oncall": {"slack": bot}},
        **fields,
    }
    return load_config(folder / "watchdog.yaml", json.dumps(config), {"SIGNING": SIGNING_SECRET})


async def test_a_click_in_slack_acknowledges_the_incident(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slack_clicks, "SLACK_ACT_TIMEOUT_S", 300.0)
    with FakeHttpTarget() as target, FakeSlack() as slack, open_listen_socket("127.0.0.1", 0) as listen_socket:
        target.up = False
        loaded = load(tmp_path, database_url, target, slack)
        url = f"http://127.0.0.1:{listen_socket.getsockname()[1]}"
        async with (
            start_watchdog_service_and_stop_on_exit(loaded) as app,
            WebServer(create_asgi_app(app), listen_socket),
            httpx.AsyncClient(base_url=url, timeout=60) as client,
        ):
            await wait_until_async(lambda: slack.posts)
            root, now = slack.posts[0], app.clock()
            body = encode_payload(make_payload("acknowledge", find_buttons(root)["acknowledge"]["value"], now))
            forged = await client.post(SLACK_INTERACTIVITY_PATH, content=body, headers=sign(body, now, "f" * 32))
            assert forged.status_code == 403
            watchdog, headers = RunningWatchdog(app), sign(body, now)
            await wait_until_async(lambda: watchdog.count_unsent() == 0)
            accepted = await client.post(SLACK_INTERACTIVITY_PATH, content=body, headers=headers)
            assert accepted.status_code == 200
            await wait_until_async(lambda: "*Acknowledged* by Ana Example at" in str(root["blocks"]))
            assert "acknowledge" not in find_buttons(root)
            (incident,) = watchdog.list_incidents()
            assert incident.acknowledgement is not None
            assert incident.acknowledgement.actor == Actor("Ana Example", OperatorInterfaceKind.SLACK)
            await app.apply_config(load(tmp_path, database_url, target, slack, status_page={"title": "Acme"}))
            repeated = await client.post(SLACK_INTERACTIVITY_PATH, content=body, headers=headers)
            assert (repeated.status_code, repeated.json()["detail"]) == (403, "The request was made before.")
            page = await client.get("/probes")
            assert page.status_code == 401, "the signature opens nothing else"


async def test_a_click_over_a_socket_acknowledges_the_incident(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No signing secret, and no web server that Slack could reach. A reload replaces a token that is refused."""
    monkeypatch.setattr(slack_clicks, "SLACK_ACT_TIMEOUT_S", 300.0)
    with FakeHttpTarget() as target, FakeSlack() as slack:
        target.up = False
        refused = load(tmp_path, database_url, target, slack, bot_secrets={"app_token": "xapp-1-refused"})
        accepted = load(tmp_path, database_url, target, slack, bot_secrets={"app_token": slack.app_token})
        async with FakeSlackSockets(slack) as sockets, start_watchdog_service_and_stop_on_exit(refused) as app:
            watchdog = RunningWatchdog(app)

            def list_findings() -> list[tuple[str, bool]]:
                findings = watchdog.query_store(list_service_findings)
                return [
                    (finding.reason, "oncall/slack: Slack error invalid_auth" in finding.message)
                    for finding in findings
                ]

            await wait_until_async(lambda: list_findings() == [("watchdog.slack_disconnected", True)])
            await app.apply_config(accepted)
            await wait_until_async(lambda: list_findings() == [])
            await wait_until_async(lambda: any("acknowledge" in find_buttons(post) for post in slack.thread_roots))
            await wait_until_async(lambda: watchdog.count_unsent() == 0)
            (root,) = [post for post in slack.thread_roots if "run_now" in find_buttons(post)]
            value = find_buttons(root)["acknowledge"]["value"]
            message = {"container": {"type": "message", "message_ts": root["ts"], "channel_id": slack.channel}}
            await sockets.send_acknowledged(make_payload("acknowledge", value, app.clock(), **message))
            await wait_until_async(lambda: "*Acknowledged* by Ana Example at" in str(root["blocks"]))
            actors = {
                incident.acknowledgement.actor for incident in watchdog.list_incidents() if incident.acknowledgement
            }
            assert actors == {Actor("Ana Example", OperatorInterfaceKind.SLACK)}
        await wait_until_async(lambda: not sockets.connections)
