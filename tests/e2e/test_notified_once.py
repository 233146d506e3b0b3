"""A target breaks and heals: everybody hears of it once, and of its end once, whatever restarts in between."""

from __future__ import annotations

import json

from tests.support.end_to_end import FAST_PROBE, OPENED, RESOLVED, EndToEndHarness, email_texts
from tests.support.fakes import CannedResponse
from tests.support.polling import wait_until_async


async def test_a_target_breaks_and_heals(each_world: EndToEndHarness) -> None:
    world = each_world
    async with world.running_watchdog() as watchdog:
        await watchdog.wait_for_results("pass")
        assert world.all_received(), "nothing is told while all is well"
        world.target.up = False
        await watchdog.wait_for_results("fail", 2)
        await wait_until_async(lambda: world.all_received(OPENED))
        world.target.up = True
        await watchdog.wait_for_results("pass", 2)
        await wait_until_async(lambda: world.all_received(OPENED, RESOLVED))
        (incident,) = watchdog.list_incidents()
    assert (incident.rule, incident.reason, incident.message) == (
        "availability",
        "http.status",
        "HTTP 503, expected 2xx",
    )

    (post,) = world.receivers["bot"].fake.roots
    assert post["edited"]
    assert "✅ API recovered" in post["text"]
    (reply,) = [post for post in world.receivers["bot"].fake.posts if "thread_ts" in post]
    assert (reply["thread_ts"], reply["reply_broadcast"]) == (post["ts"], True)
    opened, resolved = world.receivers["webhook"].fake.posts
    assert "Down · API: HTTP 503, expected 2xx" in opened["text"]
    assert "status: 503" in json.dumps(opened["blocks"])
    assert f"http://status.example/incidents/{incident.id}" in json.dumps(opened["blocks"])
    assert "API recovered" in resolved["text"]
    first, second = [mail.letter for mail in world.receivers["email"].fake.heard]
    assert first["subject"] == "[DOWN warning] API: HTTP 503, expected 2xx"
    assert second["subject"] == "Re: [DOWN warning] API: HTTP 503, expected 2xx"
    assert second["in-reply-to"] == first["message-id"]
    assert ["status: 503" in text for text in email_texts(world)] == [True, True]
    told, ended = [heard.json for heard in world.receivers["hook"].fake.heard]
    assert (told["event"], ended["event"], told["incident"]["id"]) == ("opened", "resolved", incident.id)
    assert "status: 503" in json.dumps(told)


async def test_restarts_tell_nothing_anew_and_a_recovery_in_between_once(each_world: EndToEndHarness) -> None:
    world = each_world
    world.target.up = False
    for _ in range(2):
        async with world.running_watchdog() as watchdog:
            await watchdog.wait_for_results("fail")
            await wait_until_async(lambda: world.all_received(OPENED))
    world.target.up = True
    for _ in range(2):
        async with world.running_watchdog() as watchdog:
            await watchdog.wait_for_results("pass")
            await wait_until_async(lambda: world.all_received(OPENED, RESOLVED))
            (incident,) = watchdog.list_incidents()
            assert incident.state == "resolved"


async def test_what_could_not_be_told_before_the_end_is_told_after_the_start(world: EndToEndHarness) -> None:
    world.target.up = False
    unwell = [world.receivers["bot"], world.receivers["webhook"], world.receivers["hook"]]
    for ears in unwell:
        ears.fake.answers.extend([CannedResponse(503)] * 100)
    async with world.running_watchdog() as watchdog:
        await wait_until_async(lambda: len(watchdog.list_incidents()) == 1)
    for ears in unwell:
        ears.fake.answers.clear()
        ears.events.clear()
    async with world.running_watchdog():
        await wait_until_async(lambda: world.all_received(OPENED))


async def test_a_probe_that_is_taken_out_ends_its_incident(each_world: EndToEndHarness) -> None:
    world = each_world
    world.target.up = False
    async with world.running_watchdog() as watchdog:
        await watchdog.wait_for_results("fail")
        await wait_until_async(lambda: world.all_received(OPENED))
    world.probes = [{"name": "Other", "http": "http://127.0.0.1:1/", **FAST_PROBE, "every": "1h"}]
    async with world.running_watchdog() as watchdog:
        await wait_until_async(lambda: world.all_received(OPENED) or not watchdog.count_unsent())
        await wait_until_async(lambda: all(len(events) == 2 for events in world.received_events().values()))
        (incident,) = watchdog.list_incidents()
    assert (incident.state, incident.resolution) == ("resolved", "probe.removed")
    assert world.receivers["webhook"].fake.posts[-1]["text"].startswith("○ API was removed")
    assert [text.splitlines()[0] for text in email_texts(world)][-1].startswith("○ API was removed")
    assert world.receivers["hook"].events == [OPENED, RESOLVED]
