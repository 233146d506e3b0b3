"""A silence, muting and maintenance are shown to everyone in the Slack message of the incident, and no one else is
notified of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.acts import ANA, BEN, make_silence_request
from tests.support.delivery import DESTINATIONS, DeliveryHarness, Receivers
from tests.support.muting import make_probe
from tests.support.store import INTERVAL_MS
from watchdog.domain.acts import Actor, OperatorInterfaceKind
from watchdog.domain.formatting import HOUR_MS, MINUTE_MS
from watchdog.domain.maintenance_windows import ConfiguredMaintenanceWindow
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.routing import ProbeMatcher
from watchdog.service.acts import (
    MaintenanceRequest,
    acknowledge_incident,
    begin_maintenance,
    begin_silence,
    end_maintenance,
    end_silence,
    silence_until_resolved,
)
from watchdog.service.expired_acts import end_expired_silences_and_send
from watchdog.service.maintenance_windows import plan_maintenance_windows
from watchdog.service.muting import decide_muting_and_send
from watchdog.store.database import Database
from watchdog.store.outbox_filters import MIN_GROUP_MESSAGE_EDIT_INTERVAL_MS
from watchdog.store.tables import incidents, outbox
from watchdog.store.write.maintenance_messages import enqueue_maintenance_message_edits
from watchdog.store.write.muting_ends import MUTED_ALERTS_ANNOUNCEMENT_DELAY_MS

HOSTILE = Actor("<!channel> *Eve* <https://evil.example|click>", OperatorInterfaceKind.MCP)


def make_harness(database: Database, receivers: Receivers, *probes: RegisteredProbe) -> DeliveryHarness:
    return DeliveryHarness(database, receivers, list(probes) or [make_probe("api")])


def record(harness: DeliveryHarness, outcome: str, *ids: str, **fields: Any) -> None:
    harness.now += INTERVAL_MS
    harness.record([harness.store.database_id(id) for id in ids], outcome, **fields)


async def open_incident(harness: DeliveryHarness, *ids: str) -> str:
    """And send its message. Returns the id of the first."""
    record(harness, "fail", *(ids or ("api",)))
    await harness.settle()
    assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 1)
    harness.now += INTERVAL_MS
    return str(harness.store.select_rows(incidents)[0]["id"])


async def begin(harness: DeliveryHarness, hours: int, actor: Actor = ANA, comment: str = "") -> str:
    request = make_silence_request(harness.now + hours * HOUR_MS, id="api", comment=comment)
    started = begin_silence(harness.store.database, request, actor, harness.now)
    await harness.settle()
    return started.silence.id


async def pass_time(harness: DeliveryHarness, ms: int) -> None:
    """With what the background tasks do."""
    harness.now += ms
    await end_expired_silences_and_send(harness.executor, harness.sender, lambda: harness.now)
    await decide_muting_and_send(harness.executor, harness.sender, lambda: harness.now)
    await plan_maintenance_windows(harness.executor, harness.store.membership, lambda: harness.now)
    await harness.settle()


def read_root(harness: DeliveryHarness) -> str:
    return str(harness.bot.posts[0]["blocks"])


def read_replies(harness: DeliveryHarness) -> list[str]:
    """Without the severity."""
    root = harness.bot.posts[0]
    replies = [post for post in harness.bot.posts if post.get("thread_ts") == root["ts"]]
    assert not any(reply["reply_broadcast"] for reply in replies), "none is a message in the channel"
    return [reply["text"].partition(" · ")[0].partition(" ")[2] for reply in replies]


async def test_a_silence_is_shown_until_a_person_ends_it(database: Database, receivers: Receivers) -> None:
    async with make_harness(database, receivers) as harness:
        await open_incident(harness)
        id = await begin(harness, 1, comment="upgrade")
        assert "*Silenced* by Ana until " in read_root(harness)
        assert ": upgrade" in read_root(harness)
        end_silence(database, id, BEN, harness.now)
        await harness.settle()
        assert "Silenced" not in read_root(harness)
        first, second = read_replies(harness)
        assert first.startswith("Silenced by Ana until ")
        assert second == "No longer silenced"
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 1), "no one is notified of it"


async def test_the_message_shows_the_silence_that_ends_last(database: Database, receivers: Receivers) -> None:
    async with make_harness(database, receivers) as harness:
        await open_incident(harness)
        await begin(harness, 1)
        second = await begin(harness, 4, BEN)
        assert "*Silenced* by Ben until " in read_root(harness)
        end_silence(database, second, BEN, harness.now)
        await harness.settle()
        assert "*Silenced* by Ana until " in read_root(harness)
        await pass_time(harness, HOUR_MS)
        assert "Silenced" not in read_root(harness)
        assert read_replies(harness)[-1] == "No longer silenced"


async def test_the_change_that_a_silence_held_back_is_stated_when_it_ends(
    database: Database, receivers: Receivers
) -> None:
    async with make_harness(database, receivers) as harness:
        await open_incident(harness)
        await begin(harness, 1)
        record(harness, "fail", "api", reason="canary.lost", message="the canary is lost")
        await pass_time(harness, HOUR_MS)
        assert "Silenced" not in read_root(harness)
        first, second = read_replies(harness)
        assert first.startswith("Silenced by Ana until ")
        assert second == "Still down: Api: the canary is lost (was: HTTP 503)", "one reply for both"


async def test_a_silence_until_resolved_and_an_acknowledgement_are_both_shown(
    database: Database, receivers: Receivers
) -> None:
    async with make_harness(database, receivers) as harness:
        incident = await open_incident(harness)
        acknowledge_incident(database, incident, BEN, "", harness.now)
        silence_until_resolved(database, incident, ANA, "", harness.now)
        await harness.settle()
        assert "*Acknowledged* by Ben at " in read_root(harness)
        assert "*Silenced* by Ana until the incident is resolved" in read_root(harness)
        assert len(harness.bot.posts) == 2, "one reply for both"
        record(harness, "pass", "api")
        await pass_time(harness, 1_000)
        assert "Silenced" not in read_root(harness)
        assert harness.count_messages() == {**dict.fromkeys(DESTINATIONS, 2), "bot/slack": 1}


async def test_a_message_that_was_not_sent_yet_is_not_followed_by_its_silence(
    database: Database, receivers: Receivers
) -> None:
    async with make_harness(database, receivers) as harness:
        await begin(harness, 1)
        record(harness, "fail", "api")
        await begin(harness, 4)
        await harness.settle()
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 0)
        await pass_time(harness, 4 * HOUR_MS)
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 1)
        assert len(harness.bot.posts) == 1
        assert "Silenced" not in read_root(harness)


async def open_search(harness: DeliveryHarness) -> None:
    """An incident of a probe that needs another one, which is up."""
    record(harness, "fail", "search")
    record(harness, "pass", "api")
    await pass_time(harness, 1_000)
    assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 1)


async def test_muting_is_shown_in_the_message_of_the_incident_that_is_muted(
    database: Database, receivers: Receivers
) -> None:
    async with make_harness(database, receivers, make_probe("api"), make_probe("search", "api")) as harness:
        await open_search(harness)
        record(harness, "fail", "api")
        await pass_time(harness, MUTED_ALERTS_ANNOUNCEMENT_DELAY_MS)
        assert "*Muted* because Api is down" in read_root(harness)
        record(harness, "pass", "api")
        await pass_time(harness, 1_000)
        assert "Muted" not in read_root(harness)
        assert read_replies(harness) == ["Muted because Api is down", "No longer muted"]


async def test_the_end_of_muting_is_not_stated_if_its_beginning_was_not(
    database: Database, receivers: Receivers
) -> None:
    async with make_harness(database, receivers, make_probe("api"), make_probe("search", "api")) as harness:
        await open_search(harness)
        record(harness, "fail", "api")
        await pass_time(harness, MUTED_ALERTS_ANNOUNCEMENT_DELAY_MS - 1)
        record(harness, "pass", "api")
        await pass_time(harness, MINUTE_MS)
        assert read_replies(harness) == []


async def test_maintenance_that_a_person_begins_is_shown(database: Database, receivers: Receivers) -> None:
    async with make_harness(database, receivers) as harness:
        await open_incident(harness)
        await pass_time(harness, 0)
        request = MaintenanceRequest(ProbeMatcher(probe="api"), harness.now + HOUR_MS, "move")
        window = begin_maintenance(database, request, BEN, harness.now).window
        await pass_time(harness, 1_000)
        await pass_time(harness, MINUTE_MS)
        assert "*In maintenance* by Ben until " in read_root(harness)
        assert ": move" in read_root(harness)
        end_maintenance(database, window.id, ANA, harness.now)
        await pass_time(harness, 1_000)
        await pass_time(harness, MINUTE_MS)
        assert "maintenance" not in read_root(harness)
        began, ended = read_replies(harness)
        assert began.startswith("In maintenance by Ben until ")
        assert ended == "No longer in maintenance"
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 1), "no one is notified of it"


async def test_maintenance_that_the_configuration_schedules_is_shown(database: Database, receivers: Receivers) -> None:
    async with make_harness(database, receivers) as harness:
        await open_incident(harness)
        starts_at = harness.now + HOUR_MS
        window = ConfiguredMaintenanceWindow(
            "Weekly upgrade", ProbeMatcher(probe="api"), duration_ms=HOUR_MS, starts_at=starts_at
        )
        membership = harness.store.membership
        membership.configuration = replace(membership.configuration, maintenance_windows=(window,))
        await pass_time(harness, 0)
        await pass_time(harness, HOUR_MS - 1)
        assert read_replies(harness) == []
        await pass_time(harness, 1)
        assert "*In maintenance* Weekly upgrade until " in read_root(harness)
        await pass_time(harness, HOUR_MS)
        assert "In maintenance" not in read_root(harness)
        assert read_replies(harness)[1:] == ["No longer in maintenance"]


async def test_the_end_of_maintenance_is_enqueued_for_those_who_have_a_message(
    database: Database, receivers: Receivers
) -> None:
    """Maintenance began while the opening was being sent, which then failed, and ended before it was sent again."""
    async with make_harness(database, receivers) as harness:
        record(harness, "fail", "api")
        openings = harness.store.lease_notifications(harness.now)
        request = MaintenanceRequest(ProbeMatcher(probe="api"), harness.now + HOUR_MS)
        window = begin_maintenance(database, request, BEN, harness.now).window
        assert len(openings) == len(DESTINATIONS)
        harness.now += 1_000
        await plan_maintenance_windows(harness.executor, harness.store.membership, lambda: harness.now)
        assert [row["event"] for row in harness.store.select_rows(outbox)].count("maintenance_began") == len(openings)
        for opening in openings:
            harness.store.outbox.schedule_notification_retry(opening, harness.now, "HTTP 503", failed_at=harness.now)
        end_maintenance(database, window.id, ANA, harness.now + 1)
        assert enqueue_maintenance_message_edits(database, harness.now + 1) == [], "no one has a message that states it"
        harness.now += HOUR_MS
        await harness.settle()
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 1)
        (row,) = harness.store.select_rows(incidents)
        assert enqueue_maintenance_message_edits(database, harness.now) == [row["id"]]
        assert enqueue_maintenance_message_edits(database, harness.now) == []


async def test_the_message_of_a_group_shows_how_many_incidents_are_silenced(
    database: Database, receivers: Receivers
) -> None:
    ids = ("api", "shop", "search")
    probes = [make_probe(id, target="https://same.example/") for id in ids]
    async with make_harness(database, receivers, *probes) as harness:
        await open_incident(harness, *ids)
        id = await begin(harness, 1)
        assert "*Silenced* 1 of 3 by Ana until " in read_root(harness)
        harness.now += MIN_GROUP_MESSAGE_EDIT_INTERVAL_MS
        end_silence(database, id, ANA, harness.now)
        await harness.settle()
        assert "Silenced" not in read_root(harness)
        first, second = read_replies(harness)
        assert first.startswith("Silenced 1 of 3 by Ana until ")
        assert second == "No longer silenced"


async def test_incidents_of_a_merged_message_are_silenced_without_another_message(
    database: Database, receivers: Receivers
) -> None:
    ids = [f"p{number}" for number in range(12)]
    async with make_harness(database, receivers, *map(make_probe, ids)) as harness:
        await open_incident(harness, *ids)
        request = make_silence_request(harness.now + HOUR_MS)
        begin_silence(database, request, ANA, harness.now)
        await pass_time(harness, 2 * MINUTE_MS)
        await pass_time(harness, HOUR_MS)
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 1)
        assert len(harness.bot.posts) == 1


async def test_a_new_incident_does_not_wait_for_what_people_did_about_others(
    database: Database, receivers: Receivers
) -> None:
    async with make_harness(database, receivers, make_probe("api"), make_probe("shop")) as harness:
        await open_incident(harness)
        request = make_silence_request(harness.now + HOUR_MS, id="api")
        begin_silence(database, request, ANA, harness.now)
        record(harness, "fail", "shop")
        await harness.settle()
        assert [post["text"].split(" ")[1] for post in harness.bot.posts] == ["Down:", "Down:", "Silenced"]


@pytest.mark.parametrize("comment", ["<!here>", ""])
async def test_hostile_texts_are_text(database: Database, receivers: Receivers, comment: str) -> None:
    async with make_harness(database, receivers) as harness:
        await open_incident(harness)
        await begin(harness, 1, HOSTILE, comment)
        assert len(harness.bot.posts) == 2
        for post in harness.bot.posts:
            assert "<!" not in f"{post}"
            assert "<https://evil.example|click>" not in f"{post}"
