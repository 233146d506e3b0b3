"""What people get as a reminder and by escalation, at receivers of every kind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from tests.support.acts import ANA, BEN
from tests.support.delivery import DESTINATIONS, DeliveryHarness, Receivers, read_mail_text
from tests.support.store import INTERVAL_MS, make_registered_probe
from watchdog.domain.escalation import EscalationStep
from watchdog.domain.formatting import HOUR_MS, MINUTE_MS, NBSP
from watchdog.domain.routing import NotificationRoute, NotificationRoutingTable
from watchdog.service.acts import acknowledge_incident, remove_acknowledgement
from watchdog.service.follow_ups import send_due_reminders_and_escalations
from watchdog.store.tables import incidents

REPEAT_MS, AFTER_MS = 4 * HOUR_MS, 15 * MINUTE_MS
RECEIVERS = {name.partition("/")[0]: (name,) for name in DESTINATIONS}
TO_OTHERS = EscalationStep(AFTER_MS, ("channel", "mail", "pager"), unless_acknowledged=True)
BOT_FIRST = NotificationRoutingTable(RECEIVERS, (NotificationRoute(("bot",), escalation_steps=(TO_OTHERS,)),))
OTHERS = DESTINATIONS[1:]


def make_harness(
    folder: Path, receivers: Receivers, routes: NotificationRoutingTable | None = None, count: int = 1
) -> DeliveryHarness:
    probes = []
    for number in range(count):
        probe = make_registered_probe(f"p{number}", failure_threshold=1, success_threshold=1)
        policy = replace(probe.policy, probe=replace(probe.info, target="https://api.example/"))
        probes.append(replace(probe, policy=policy, repeat_interval_ms=REPEAT_MS))
    return DeliveryHarness(f"sqlite:///{folder}/watchdog.db", receivers, probes, routes=routes)


async def follow_up(harness: DeliveryHarness, after_ms: int) -> None:
    """What the background task does, later."""
    harness.now += after_ms
    await send_due_reminders_and_escalations(harness.executor, harness.sender, lambda: harness.now)
    await harness.settle()


async def test_a_reminder_edits_the_message_of_a_bot_and_is_another_message_elsewhere(
    tmp_path: Path, receivers: Receivers
) -> None:
    async with make_harness(tmp_path, receivers) as harness:
        harness.record(harness.store.database_ids, "fail")
        await harness.settle()
        await follow_up(harness, REPEAT_MS - 1)
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 1)
        await follow_up(harness, 1)
        assert harness.count_messages() == {"bot/slack": 1, **dict.fromkeys(OTHERS, 2)}
        root, reply = harness.bot.posts
        assert "Down: P0: HTTP 503" in root["text"]
        assert "Still down for 4 h: P0: HTTP 503" in reply["text"]
        assert (reply["thread_ts"], reply["reply_broadcast"]) == (root["ts"], False)
        assert "Still down for 4 h: P0: HTTP 503" in harness.channel.posts[1]["text"]
        first, mail = (mail.message for mail in harness.mail.received)
        assert mail["subject"] == "[STILL DOWN warning] P0: HTTP 503"
        assert mail["in-reply-to"] == first["message-id"]
        assert f"Still down for 4{NBSP}h: P0: HTTP 503" in read_mail_text(mail).replace("&nbsp;", NBSP)
        document = json.loads(harness.pager.received[1].body)
        assert (document["event"], document["text"][:30]) == ("reminder", "Still down for 4 h: P0: HTTP 5")
        assert document["escalated_after_ms"] is None


async def test_a_reminder_states_the_cause_that_has_changed_just_before(tmp_path: Path, receivers: Receivers) -> None:
    async with make_harness(tmp_path, receivers) as harness:
        harness.record(harness.store.database_ids, "fail")
        await harness.settle()
        harness.now += REPEAT_MS
        harness.record(harness.store.database_ids, "fail", reason="canary.lost", message="the canary is lost")
        await follow_up(harness, 0)
        text = "Still down for 4 h: P0: the canary is lost (was: HTTP 503)"
        assert text in harness.bot.posts[-1]["text"]
        assert "P0: the canary is lost" in harness.bot.posts[0]["text"]
        assert text in harness.channel.posts[-1]["text"]


async def test_a_group_is_reminded_of_in_one_message(tmp_path: Path, receivers: Receivers) -> None:
    async with make_harness(tmp_path, receivers, count=3) as harness:
        harness.record(harness.store.database_ids, "fail")
        await harness.settle()
        await harness.advance(11 * MINUTE_MS, 10_000)
        before = harness.count_messages()
        await follow_up(harness, REPEAT_MS)
        await harness.advance(MINUTE_MS, 10_000)
        after = harness.count_messages()
        assert {name: after[name] - before[name] for name in after} == {"bot/slack": 0, **dict.fromkeys(OTHERS, 1)}
        assert "Still down for 4 h 11 min: 3 probes" in harness.bot.posts[-1]["text"]
        mail = harness.mail.received[-1].message
        assert mail["subject"].startswith("[STILL DOWN warning] 3 probes (")
        assert "P2" in read_mail_text(mail)


async def test_an_escalation_is_marked_and_followed_by_the_end(tmp_path: Path, receivers: Receivers) -> None:
    async with make_harness(tmp_path, receivers, BOT_FIRST) as harness:
        harness.record(harness.store.database_ids, "fail")
        await harness.settle()
        await follow_up(harness, AFTER_MS - 1)
        assert harness.count_messages() == {"bot/slack": 1, **dict.fromkeys(OTHERS, 0)}
        await follow_up(harness, 1)
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 1)
        (mail,) = harness.mail.received
        assert mail.message["subject"] == "[DOWN warning] P0: HTTP 503"
        text = read_mail_text(mail.message).replace(NBSP, " ")
        assert "Escalated: after 15 min, not acknowledged" in text
        assert "Escalated* after 15" in str(harness.channel.posts[0]["blocks"])
        assert "Escalated" not in str(harness.bot.posts[0]["blocks"])
        document = json.loads(harness.pager.received[0].body)
        assert (document["event"], document["escalated_after_ms"]) == ("opened", AFTER_MS)
        harness.now += INTERVAL_MS
        harness.record(harness.store.database_ids, "pass")
        await harness.settle()
        assert harness.count_messages() == {"bot/slack": 1, **dict.fromkeys(OTHERS, 2)}


async def test_an_acknowledgement_cancels_the_escalation(tmp_path: Path, receivers: Receivers) -> None:
    async with make_harness(tmp_path, receivers, BOT_FIRST) as harness:
        harness.record(harness.store.database_ids, "fail")
        await harness.settle()
        id = harness.store.select_row(incidents)["id"]
        acknowledge_incident(harness.store.database, id, ANA, "", harness.now)
        await follow_up(harness, 2 * REPEAT_MS)
        assert harness.count_messages() == {"bot/slack": 1, **dict.fromkeys(OTHERS, 0)}
        remove_acknowledgement(harness.store.database, id, BEN, "", harness.now)
        await follow_up(harness, AFTER_MS)
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 1)


async def test_a_process_that_is_killed_after_the_decision_leaves_the_messages_to_another(
    tmp_path: Path, receivers: Receivers
) -> None:
    async with make_harness(tmp_path, receivers, BOT_FIRST) as harness:
        harness.record(harness.store.database_ids, "fail")
        await harness.settle()
        await harness.sender.stop(0)  # the decision is stored, and nothing is sent
        await follow_up(harness, REPEAT_MS)
        assert harness.count_messages() == {"bot/slack": 1, **dict.fromkeys(OTHERS, 0)}
        harness.start_sender()
        await follow_up(harness, 1)
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 1)
        assert sum("Still down" in post["text"] for post in harness.bot.posts) == 1
