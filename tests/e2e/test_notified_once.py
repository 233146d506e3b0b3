"""A target fails and recovers: every receiver gets one notification of each, even if a process restarts in between."""

from __future__ import annotations

import json

import pytest

from tests.support.end_to_end import FAST_PROBE, OPENED, RESOLVED, EndToEndHarness, email_texts
from tests.support.fakes import CannedResponse
from tests.support.polling import wait_until_async
from watchdog.domain import membership


async def test_a_target_fails_and_recovers(each_harness: EndToEndHarness) -> None:
    harness = each_harness
    async with harness.running_watchdog() as watchdog:
        await watchdog.wait_for_results("pass")
        assert harness.all_received(), "no notification while everything passes"
        harness.target.up = False
        await watchdog.wait_for_results("fail", 2)
        await wait_until_async(lambda: harness.all_received(OPENED))
        harness.target.up = True
        await watchdog.wait_for_results("pass", 2)
        await wait_until_async(lambda: harness.all_received(OPENED, RESOLVED))
        (incident,) = watchdog.list_incidents()
    assert (incident.rule, incident.reason) == ("availability", "http.503")
    assert incident.message == "HTTP 503, expected 2xx"

    slack_bot = harness.receivers["bot"].fake
    (root,) = slack_bot.thread_roots
    assert root["edited"]
    assert "✅ API recovered" in root["text"]
    (reply,) = [post for post in slack_bot.posts if "thread_ts" in post]
    assert (reply["thread_ts"], reply["reply_broadcast"]) == (root["ts"], True)
    opened, resolved = harness.receivers["webhook"].fake.posts
    assert f"Down: API: {incident.message}" in opened["text"]
    assert "status: 503" in json.dumps(opened["blocks"])
    assert f"http://status.example/incidents/{incident.id}" in json.dumps(opened["blocks"])
    assert "API recovered" in resolved["text"]
    first, second = [mail.message for mail in harness.receivers["email"].fake.received]
    assert first["subject"] == f"[DOWN warning] API: {incident.message}"
    assert second["subject"].startswith("[RECOVERED] API: up again after ")
    assert second["in-reply-to"] == first["message-id"]
    assert ["status: 503" in text for text in email_texts(harness)] == [True, True]
    opened, resolved = [request.json for request in harness.receivers["hook"].fake.received]
    assert (opened["event"], resolved["event"], opened["incident"]["id"]) == ("opened", "resolved", incident.id)
    assert "status: 503" in json.dumps(opened)


async def test_a_restart_repeats_no_notification(each_harness: EndToEndHarness) -> None:
    """And a recovery between two restarts is reported once."""
    harness = each_harness
    harness.target.up = False
    for _ in range(2):
        async with harness.running_watchdog() as watchdog:
            await watchdog.wait_for_results("fail")
            await wait_until_async(lambda: harness.all_received(OPENED))
    harness.target.up = True
    for _ in range(2):
        async with harness.running_watchdog() as watchdog:
            await watchdog.wait_for_results("pass")
            await wait_until_async(lambda: harness.all_received(OPENED, RESOLVED))
            (incident,) = watchdog.list_incidents()
            assert incident.state == "resolved"


async def test_undelivered_notifications_are_delivered_after_a_restart(harness: EndToEndHarness) -> None:
    harness.target.up = False
    unavailable = [harness.receivers["bot"], harness.receivers["webhook"], harness.receivers["hook"]]
    for receiver in unavailable:
        receiver.fake.canned_responses.extend([CannedResponse(503)] * 100)
    async with harness.running_watchdog() as watchdog:
        await wait_until_async(lambda: len(watchdog.list_incidents()) == 1)
    for receiver in unavailable:
        receiver.fake.canned_responses.clear()
        receiver.events.clear()
    async with harness.running_watchdog():
        await wait_until_async(lambda: harness.all_received(OPENED))


async def test_removing_a_probe_resolves_its_incident(
    each_harness: EndToEndHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "WATCHDOG_PROCESS_LEASE_MS", 1_000)  # how long a stopped process keeps its probes
    harness = each_harness
    harness.target.up = False
    async with harness.running_watchdog() as watchdog:
        await watchdog.wait_for_results("fail")
        await wait_until_async(lambda: harness.all_received(OPENED))
    harness.probes = [{"name": "Other", "http": "http://127.0.0.1:1/", **FAST_PROBE, "every": "1h"}]
    async with harness.running_watchdog() as watchdog:
        await wait_until_async(lambda: all(len(events) == 2 for events in harness.received_events().values()))
        (incident,) = watchdog.list_incidents()
    assert (incident.state, incident.resolution) == ("resolved", "probe.removed")
    assert harness.receivers["webhook"].fake.posts[-1]["text"].startswith("○ API: probe was removed")
    assert [text.splitlines()[0] for text in email_texts(harness)][-1].startswith("○ API: probe was removed")
    assert harness.receivers["hook"].events == [OPENED, RESOLVED]
