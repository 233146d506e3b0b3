"""A target breaks and heals: everybody hears of it once, and of its end once, whatever restarts in between."""

from __future__ import annotations

import json

from tests.e2e.world import OPENED, QUICK, RESOLVED, World, letters
from tests.patience import until
from tests.standins import Answer


async def test_a_target_breaks_and_heals(each_world: World) -> None:
    world = each_world
    async with world.watched() as watchdog:
        await watchdog.sees("pass")
        assert world.all_heard(), "nothing is told while all is well"
        world.target.up = False
        await watchdog.sees("fail", 2)
        await until(lambda: world.all_heard(OPENED))
        world.target.up = True
        await watchdog.sees("pass", 2)
        await until(lambda: world.all_heard(OPENED, RESOLVED))
        (incident,) = watchdog.incidents()
    assert (incident.rule, incident.reason, incident.message) == ("availability", "http.status", "got 503")

    (post,) = world.ears["bot"].standin.roots
    assert post["edited"]
    assert "✅ API recovered" in post["text"]
    (reply,) = [post for post in world.ears["bot"].standin.posts if "thread_ts" in post]
    assert (reply["thread_ts"], reply["reply_broadcast"]) == (post["ts"], True)
    opened, resolved = world.ears["webhook"].standin.posts
    assert "Down · API: got 503" in opened["text"]
    assert "status: 503" in json.dumps(opened["blocks"])
    assert f"http://status.example/incidents/{incident.id}" in json.dumps(opened["blocks"])
    assert "API recovered" in resolved["text"]
    first, second = [mail.letter for mail in world.ears["email"].standin.heard]
    assert first["subject"] == "[DOWN warning] API: got 503"
    assert second["subject"] == "Re: [DOWN warning] API: got 503"
    assert second["in-reply-to"] == first["message-id"]
    assert ["status: 503" in text for text in letters(world)] == [True, True]
    told, ended = [heard.json for heard in world.ears["hook"].standin.heard]
    assert (told["event"], ended["event"], told["incident"]["id"]) == ("opened", "resolved", incident.id)
    assert "status: 503" in json.dumps(told)


async def test_restarts_tell_nothing_anew_and_a_recovery_in_between_once(each_world: World) -> None:
    world = each_world
    world.target.up = False
    for _ in range(2):
        async with world.watched() as watchdog:
            await watchdog.sees("fail")
            await until(lambda: world.all_heard(OPENED))
    world.target.up = True
    for _ in range(2):
        async with world.watched() as watchdog:
            await watchdog.sees("pass")
            await until(lambda: world.all_heard(OPENED, RESOLVED))
            (incident,) = watchdog.incidents()
            assert incident.state == "resolved"


async def test_what_could_not_be_told_before_the_end_is_told_after_the_start(world: World) -> None:
    world.target.up = False
    unwell = [world.ears["bot"], world.ears["webhook"], world.ears["hook"]]
    for ears in unwell:
        ears.standin.answers.extend([Answer(503)] * 100)
    async with world.watched() as watchdog:
        await until(lambda: len(watchdog.incidents()) == 1)
    for ears in unwell:
        ears.standin.answers.clear()
        ears.events.clear()
    async with world.watched():
        await until(lambda: world.all_heard(OPENED))


async def test_a_probe_that_is_taken_out_ends_its_incident(each_world: World) -> None:
    world = each_world
    world.target.up = False
    async with world.watched() as watchdog:
        await watchdog.sees("fail")
        await until(lambda: world.all_heard(OPENED))
    world.probes = [{"name": "Other", "http": "http://127.0.0.1:1/", **QUICK, "every": "1h"}]
    async with world.watched() as watchdog:
        await until(lambda: world.all_heard(OPENED) or not watchdog.unsent())
        await until(lambda: all(len(events) == 2 for events in world.heard().values()))
        (incident,) = watchdog.incidents()
    assert (incident.state, incident.resolution) == ("resolved", "probe.removed")
    assert world.ears["webhook"].standin.posts[-1]["text"].startswith("○ API was removed")
    assert [text.splitlines()[0] for text in letters(world)][-1].startswith("○ API was removed")
    assert world.ears["hook"].events == [OPENED, RESOLVED]
