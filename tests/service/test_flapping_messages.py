"""What people get of an alert that flaps, at receivers of every kind."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.support.acts import ANA, BEN, make_silence_request
from tests.support.delivery import DESTINATIONS, DeliveryHarness, Receivers, read_mail_text
from tests.support.flapping import FLAP_INTERVAL_MS, decide_end
from tests.support.muting import make_probe
from watchdog.domain.flapping import STABLE_AFTER_MS
from watchdog.domain.formatting import HOUR_MS, NBSP
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.notifiers.pagerduty import build_pagerduty_event
from watchdog.service.acts import begin_silence, end_silence, silence_until_resolved
from watchdog.service.expired_acts import end_expired_silences_and_send
from watchdog.service.muting import decide_muting_and_send
from watchdog.store.outbox_filters import MIN_GROUP_MESSAGE_EDIT_INTERVAL_MS
from watchdog.store.read.alert_context import load_alert_message_context
from watchdog.store.tables import incidents

HOSTILE_NAME = "<!channel> *Api* <https://evil.example|click>\n# x"


def make_harness(folder: Path, receivers: Receivers, *probes: RegisteredProbe) -> DeliveryHarness:
    return DeliveryHarness(f"sqlite:///{folder}/watchdog.db", receivers, list(probes) or [make_probe("api")])


async def flap(harness: DeliveryHarness, outcomes: str, *probes: int) -> None:
    """ "fp": a bad and a good result, FLAP_INTERVAL_MS apart, each followed by what is due then."""
    for outcome in outcomes:
        harness.now += FLAP_INTERVAL_MS
        harness.record(list(probes or (1,)), "fail" if outcome == "f" else "pass")
        await harness.settle()


async def wait_until_stable(harness: DeliveryHarness) -> None:
    harness.now += STABLE_AFTER_MS
    await decide_muting_and_send(harness.executor, harness.sender, lambda: harness.now)
    await harness.settle()


def read_subjects(harness: DeliveryHarness) -> list[str]:
    return [str(mail.message["subject"]) for mail in harness.mail.received]


def read_documents(harness: DeliveryHarness) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in harness.pager.received]


async def test_one_notice_and_how_it_ended(tmp_path: Path, receivers: Receivers) -> None:
    async with make_harness(tmp_path, receivers) as harness:
        await flap(harness, "fpfpfpfpfp")
        assert read_subjects(harness)[4:] == ["[FLAPPING warning] Api: 3 incidents in 8 min, last cause: HTTP 503"]
        notice = read_mail_text(harness.mail.received[4].message).replace(NBSP, " ")
        assert "Api is flapping: 3 incidents in 8 min, last cause: HTTP 503" in notice
        assert "Incidents: 22:17 to 22:19 UTC, 22:21 to 22:23 UTC, since 22:25 UTC" in notice.replace(":00", "")
        assert "Next message: when it has been up or down for 15 min" in notice
        assert "Since:" not in notice
        root = harness.bot.thread_roots[-1]
        assert "Api is flapping: 3 incidents" in root["text"].replace(NBSP, " ")
        await wait_until_stable(harness)
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 6) | {"bot/slack": 3}
        assert read_subjects(harness)[-1] == (
            "[RECOVERED] Api has been stable since 22:35 UTC, after 5 incidents in 18 min"
        )
        end = read_mail_text(harness.mail.received[-1].message).replace(NBSP, " ")
        assert "Time: 22:17 to 22:35 UTC" in end
        assert "Was:" not in end
        root, reply = harness.bot.posts[-2:]
        assert "Api has been stable since 22:35 UTC" in root["text"]
        assert (reply["thread_ts"], reply["reply_broadcast"]) == (root["ts"], True)


async def test_an_incident_that_stays_open_is_an_ordinary_message(tmp_path: Path, receivers: Receivers) -> None:
    async with make_harness(tmp_path, receivers) as harness:
        await flap(harness, "fpfpfpfpf")
        await wait_until_stable(harness)
        assert read_subjects(harness)[5:] == ["[DOWN warning] Api: HTTP 503"]
        text = read_mail_text(harness.mail.received[-1].message).replace(NBSP, " ")
        assert "Flapping: 5 incidents in 16 min, until 22:33 UTC" in text
        root, reply = harness.bot.posts[-2:]
        assert root["text"].endswith("Down: Api: HTTP 503 · warning")
        assert (reply["thread_ts"], reply["reply_broadcast"]) == (root["ts"], True), "the channel gets to know it"
        notice, opened = read_documents(harness)[-2:]
        assert (notice["event"], notice["flapping"]["replaced_incidents"]) == ("opened", [])
        assert (opened["event"], opened["flapping"]["replaced_incidents"]) == ("opened", [notice["incident"]["id"]])
        assert opened["incident"]["id"] != notice["incident"]["id"]
        await flap(harness, "p")
        assert read_subjects(harness)[-1].startswith("[RECOVERED] Api: up again")
        assert read_documents(harness)[-1]["incident"]["id"] == opened["incident"]["id"]


async def test_pagerduty_gets_one_key_for_all(tmp_path: Path, receivers: Receivers) -> None:
    async with make_harness(tmp_path, receivers) as harness:
        outbox, destination, events = harness.store.outbox, "pager/webhook", []

        def send() -> None:
            for leased in outbox.lease_due_notifications(harness.now, 30_000, [destination], (), [destination]):
                with harness.store.database.open_read_transaction() as connection:
                    context = load_alert_message_context(
                        connection, leased.notification, harness.now, main_incident=leased.main_incident
                    )
                event = build_pagerduty_event("k", leased.notification, context)
                events.append((event["dedup_key"], event["event_action"]))
                outbox.mark_sent(leased, {}, harness.now)

        for outcome in "fpfpfpfpf":
            harness.now += FLAP_INTERVAL_MS
            harness.record([1], "fail" if outcome == "f" else "pass")
            send()
        harness.now += STABLE_AFTER_MS
        assert decide_end(harness.store, harness.now) == ["stays_open"]
        send()
        harness.record([1], "pass")
        send()
        by_key: dict[str, list[str]] = {}
        for key, action in events:
            by_key.setdefault(key, []).append(action)
        pair = ["trigger", "resolve"]
        assert list(by_key.values()) == [pair, pair, ["trigger", "trigger", "resolve"]]


async def test_a_shared_message_states_which_alerts_flap(tmp_path: Path, receivers: Receivers) -> None:
    probes = [make_probe(id, target="https://host.example/") for id in ("api", "shop")]
    async with make_harness(tmp_path, receivers, *probes) as harness:
        await flap(harness, "fpfp")
        harness.now += FLAP_INTERVAL_MS
        harness.record([1, 2], "fail")
        await harness.settle()
        text = read_mail_text(harness.mail.received[-1].message).replace(NBSP, " ")
        assert "Flapping: Api: next message when stable for 15 min" in text
        assert "flapping" in text.partition("Incidents")[2]


def read_silence(harness: DeliveryHarness) -> tuple[str, list[str]]:
    """What the newest message of the bot shows of silences, and the replies about them."""
    root = harness.bot.thread_roots[-1]
    replies = [post["text"] for post in harness.bot.posts if post.get("thread_ts") == root["ts"]]
    silenced = re.search(r"\*Silenced\* ([^\n'\"]*?) until", f"{root['blocks']}")
    return silenced[1] if silenced else "", [text for text in replies if "ilenced" in text]


async def test_the_notice_shows_a_silence_of_a_later_incident(tmp_path: Path, receivers: Receivers) -> None:
    async with make_harness(tmp_path, receivers) as harness:
        await flap(harness, "fpfpfpf")
        messages = harness.count_messages()
        request = make_silence_request(harness.now + HOUR_MS, id="api")
        silence = begin_silence(harness.store.database, request, ANA, harness.now).silence
        await harness.settle()
        described, (reply,) = read_silence(harness)
        assert (described, "Silenced by Ana until" in reply) == ("by Ana", True)
        end_silence(harness.store.database, silence.id, BEN, harness.now)
        await harness.settle()
        described, replies = read_silence(harness)
        assert (described, "No longer silenced" in replies[-1]) == ("", True)
        assert harness.count_messages() == messages, "no one is notified of it"


async def test_the_notice_shows_that_a_silence_has_ended_with_its_incident(
    tmp_path: Path, receivers: Receivers
) -> None:
    async with make_harness(tmp_path, receivers) as harness:
        await flap(harness, "fpfpfpf")
        (incident,) = harness.store.select_rows(incidents, incidents.c.resolved_at.is_(None))
        silence_until_resolved(harness.store.database, incident["id"], ANA, "", harness.now)
        await harness.settle()
        assert read_silence(harness)[0] == "by Ana"
        await flap(harness, "p")
        await end_expired_silences_and_send(harness.executor, harness.sender, lambda: harness.now)
        await harness.settle()
        described, replies = read_silence(harness)
        assert (described, "No longer silenced" in replies[-1]) == ("", True)


async def test_a_shared_notice_shows_a_silence_of_a_later_incident(tmp_path: Path, receivers: Receivers) -> None:
    probes = [make_probe(id, target="https://host.example/") for id in ("api", "shop")]
    async with make_harness(tmp_path, receivers, *probes) as harness:
        await flap(harness, "fpfpfpf", 1, 2)
        request = make_silence_request(harness.now + HOUR_MS, id="shop")
        begin_silence(harness.store.database, request, ANA, harness.now)
        await harness.advance(MIN_GROUP_MESSAGE_EDIT_INTERVAL_MS)
        assert read_silence(harness)[0] == "1 of 2 by Ana"


async def test_hostile_names_are_text(tmp_path: Path, receivers: Receivers) -> None:
    api = make_probe("api")
    hostile = replace(api, policy=replace(api.policy, probe=replace(api.info, name=HOSTILE_NAME)))
    async with make_harness(tmp_path, receivers, hostile) as harness:
        await flap(harness, "fpfpfp")
        await wait_until_stable(harness)
        assert "is flapping" in f"{harness.channel.posts[4]}"
        assert "has been stable since" in f"{harness.channel.posts[5]}"
        for post in (*harness.bot.posts, *harness.channel.posts):
            assert "<!channel>" not in f"{post}"
            assert "<https://evil.example|click>" not in f"{post}"
