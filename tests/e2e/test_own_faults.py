"""A receiver that fails is an incident of Watchdog itself, of which the other receivers are notified once."""

from __future__ import annotations

from typing import Any

from tests.support.end_to_end import FAST_PROBE, EndToEndHarness
from tests.support.fakes import CannedResponse
from tests.support.polling import wait_until_async
from watchdog.domain.rules import service


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
