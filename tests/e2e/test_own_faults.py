"""A receiver that fails is an incident of Watchdog itself; the other receivers are notified of it once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx

from tests.support.command_line import run_command
from tests.support.end_to_end import FAST_PROBE, EndToEndHarness
from tests.support.fakes import CannedResponse, FakeWebhookReceiver
from tests.support.mcp_clients import call_tool, connected_client, running_watchdog
from tests.support.polling import wait_until_async
from watchdog.app import RunningWatchdogService
from watchdog.domain.model import Incident
from watchdog.domain.rules import service
from watchdog.store.read.status import list_service_findings


def own_events(harness: EndToEndHarness, path: str) -> list[tuple[str, str, str]]:
    """(event, subject, reason) of what the receiver at this path got about Watchdog itself."""
    bodies = [request.json for request in harness.receivers["hook"].fake.received if request.path == path]
    return [
        (body["event"], body["incident"]["subject"], body["incident"]["reason"])
        for body in bodies
        if body["probe"]["kind"] == service.WATCHDOG_SELF_PROBE_KIND
    ]


async def test_other_receivers_are_notified_of_one_that_fails_and_of_its_recovery(harness: EndToEndHarness) -> None:
    hook = harness.receivers["hook"].fake
    refusing = True

    def respond(request: Any) -> CannedResponse:
        return CannedResponse(400 if refusing and request.path == "/pager" else 200)

    hook.default_response = respond
    harness.probes = [{"name": "API", "http": harness.target.url, **FAST_PROBE}]
    harness.extra_config = {
        "receivers": {name: {"webhook": {"url": f"{hook.url}{name}"}} for name in ("pager", "ops")},
        "routes": [{"receivers": ["pager"]}],
    }
    opened = ("opened", "receiver pager/webhook", "watchdog.delivery_failing")
    resolved = ("resolved", "receiver pager/webhook", "watchdog.delivery_failing")
    async with harness.running_watchdog() as watchdog:
        harness.target.up = False
        await wait_until_async(lambda: own_events(harness, "/ops") == [opened])
        refusing = False
        harness.target.up = True
        await wait_until_async(lambda: own_events(harness, "/ops") == [opened, resolved])
        assert own_events(harness, "/pager") == [], "it is not notified that it fails"
        await wait_until_async(lambda: not watchdog.count_unsent())
        assert own_events(harness, "/ops") == [opened, resolved], "once"


async def test_a_receiver_behind_a_login_page_is_unconfirmed_and_others_are_notified(harness: EndToEndHarness) -> None:
    """Three copies, then one an hour; the incident's recovery is sent as usual."""
    hook = harness.receivers["hook"].fake
    login_page = CannedResponse(200, b"<!doctype html><title>Sign in</title>")
    at_login = True

    def respond(request: Any) -> CannedResponse:
        return login_page if at_login and request.path == "/pager" else CannedResponse(200)

    def sent_to_pager() -> list[tuple[str, str]]:
        bodies = [request.json for request in hook.received if request.path == "/pager"]
        return [(body["event"], body["idempotency_key"]) for body in bodies if body["probe"]["kind"] == "http"]

    hook.default_response = respond
    harness.probes = [{"name": "API", "http": harness.target.url, **FAST_PROBE}]
    harness.extra_config = {
        "receivers": {name: {"webhook": {"url": f"{hook.url}{name}"}} for name in ("pager", "ops")},
        "routes": [{"receivers": ["pager"]}],
    }
    async with harness.running_watchdog() as watchdog:
        harness.target.up = False
        await wait_until_async(lambda: len(sent_to_pager()) == 3)
        opened = ("opened", "receiver pager/webhook", "watchdog.delivery_failing")
        await wait_until_async(lambda: own_events(harness, "/ops") == [opened])
        assert {event for event, _ in sent_to_pager()} == {"opened"}
        assert len({key for _, key in sent_to_pager()}) == 1, "copies have the same id"
        at_login = False
        harness.target.up = True
        await wait_until_async(lambda: len(own_events(harness, "/ops")) == 2)
        await wait_until_async(lambda: not watchdog.count_unsent())
    assert [event for event, _ in sent_to_pager()] == ["opened"] * 3 + ["resolved"]
    assert own_events(harness, "/ops")[1][0] == "resolved"
    assert own_events(harness, "/pager") == []


async def test_a_fault_is_a_finding_even_if_no_one_can_be_notified(tmp_path: Path) -> None:
    async with running_watchdog(tmp_path, []) as (app, _):
        assert app.service.fault_reporter is not None
        app.service.fault_reporter.record_overload("2,000 runs")
        await wait_until_async(lambda: load_findings(app))
        ((subject, reason),) = [(finding.subject, finding.reason) for finding in load_findings(app)]
        assert (subject.partition(" of ")[0], reason) == ("overload", "watchdog.overloaded")


def load_findings(app: RunningWatchdogService) -> tuple[Incident, ...]:
    with app.store_executor.database.open_read_transaction() as connection:
        return list_service_findings(connection)


async def test_pages_commands_and_tools_show_one_list(tmp_path: Path) -> None:
    with FakeWebhookReceiver() as hook:
        hook.default_response = lambda request: CannedResponse(400)  # type: ignore[method-assign]
        receivers = {"oncall": {"webhook": {"url": hook.url}}}
        probes = [{"name": "API", "http": "http://127.0.0.1:1/", **FAST_PROBE}]
        async with (
            running_watchdog(tmp_path, probes, receivers=receivers) as (app, url),
            connected_client(url) as client,
            httpx.AsyncClient(base_url=url.removesuffix("mcp"), trust_env=False, timeout=30) as http,
        ):
            await wait_until_async(lambda: load_findings(app))
            listed = (await call_tool(client, "list_service_findings"))["findings"]
            assert [(finding["subject"], finding["reason"]) for finding in listed] == [
                ("receiver oncall/webhook", "watchdog.delivery_failing")
            ]
            assert (await http.get("readyz")).json()["findings"] == listed
            assert listed[0]["message"][9:] in (await http.get("probes")).text
            (tmp_path / "file.yaml").write_text(
                json.dumps({"storage": {"url": app.loaded_config.config.storage.url}, "probes": probes})
            )
            for command in ("service", "status"):
                words = (command, "-o", "json", "-c", tmp_path / "file.yaml")
                ran = await asyncio.to_thread(lambda words=words: run_command(*words, cwd=tmp_path))  # type: ignore[misc]
                assert (ran.json if command == "service" else ran.json[-1]["findings"]) == listed
