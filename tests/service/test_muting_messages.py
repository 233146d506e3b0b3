"""What people get of alerts that are muted, and of the incident that mutes them, at receivers of every kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.support.delivery import DESTINATIONS, DeliveryHarness, Receivers, read_mail_text
from tests.support.muting import make_probe
from tests.support.store import INTERVAL_MS
from watchdog.domain.formatting import MINUTE_MS, NBSP
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.service.muting import decide_muting_and_send
from watchdog.store.write.muting_ends import MUTED_ALERTS_ANNOUNCEMENT_DELAY_MS

HOSTILE_NAME = "<!channel> *Search* <https://evil.example|click>\n# x"


def make_harness(folder: Path, receivers: Receivers, *probes: RegisteredProbe) -> DeliveryHarness:
    needing = [make_probe("search", "api"), make_probe("shop", "api")]
    return DeliveryHarness(f"sqlite:///{folder}/watchdog.db", receivers, [make_probe("api"), *(probes or needing)])


def record(harness: DeliveryHarness, outcome: str, *ids: str) -> None:
    harness.record([harness.store.database_id(id) for id in ids], outcome)


async def decide(harness: DeliveryHarness, after_ms: int = 0) -> None:
    """What the background task does, later."""
    harness.now += after_ms
    await decide_muting_and_send(harness.executor, harness.sender, lambda: harness.now)
    await harness.settle()


async def test_the_first_message_states_whose_alerts_are_muted(tmp_path: Path, receivers: Receivers) -> None:
    async with make_harness(tmp_path, receivers) as harness:
        record(harness, "fail", "api", "search", "shop")
        await harness.settle()
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 1)
        (root,) = harness.bot.posts
        assert "Down: Api" in root["text"]
        assert "Mutes" in str(root["blocks"])
        assert "alerts: Search, Shop" in str(root["blocks"]).replace(NBSP, " ")
        assert "Mutes: 2 alerts: Search, Shop" in read_mail_text(harness.mail.received[0].message).replace(NBSP, " ")
        await decide(harness, MINUTE_MS)
        assert len(harness.bot.posts) == 1, "nothing has changed since"


async def test_a_bots_message_is_edited_when_further_alerts_are_muted(tmp_path: Path, receivers: Receivers) -> None:
    async with make_harness(tmp_path, receivers) as harness:
        record(harness, "fail", "api")
        await harness.settle()
        harness.now += INTERVAL_MS
        record(harness, "fail", "search", "shop")
        await decide(harness)
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 1)
        assert "Mutes" not in str(harness.bot.posts[0]["blocks"])
        await decide(harness, MUTED_ALERTS_ANNOUNCEMENT_DELAY_MS)
        await decide(harness, MINUTE_MS)
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 1), "no one else is notified of it"
        root, reply = harness.bot.posts
        assert "alerts: Search, Shop" in str(root["blocks"]).replace(NBSP, " ")
        assert "Mutes 2 alerts: Search, Shop" in reply["text"].replace(NBSP, " ")
        assert (reply["thread_ts"], reply["reply_broadcast"]) == (root["ts"], False)


async def test_what_is_still_open_is_sent_when_the_other_probe_recovers(tmp_path: Path, receivers: Receivers) -> None:
    async with make_harness(tmp_path, receivers) as harness:
        record(harness, "fail", "api", "search", "shop")
        await harness.settle()
        harness.now += INTERVAL_MS
        record(harness, "pass", "shop", "api")
        await harness.settle()
        await decide(harness, 1_000)
        subjects = [str(mail.message["subject"]) for mail in harness.mail.received]
        assert [subject.partition(":")[0].partition(" after")[0] for subject in subjects] == [
            "[DOWN warning] Api",
            "[RECOVERED] Api",
            "[DOWN warning] Search",
        ]


async def test_an_alert_that_waits_is_sent_by_the_background_task(tmp_path: Path, receivers: Receivers) -> None:
    async with make_harness(tmp_path, receivers) as harness:
        record(harness, "pass", "api")
        harness.now += INTERVAL_MS
        record(harness, "fail", "search")
        await harness.settle()
        await decide(harness, MINUTE_MS - 1)
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 0)
        await decide(harness, 1)
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 1)


async def test_hostile_names_are_text(tmp_path: Path, receivers: Receivers) -> None:
    search = make_probe("search", "api")
    hostile = replace(search, policy=replace(search.policy, probe=replace(search.info, name=HOSTILE_NAME)))
    async with make_harness(tmp_path, receivers, hostile) as harness:
        record(harness, "fail", "api")
        await harness.settle()
        record(harness, "fail", "search")
        await decide(harness, MUTED_ALERTS_ANNOUNCEMENT_DELAY_MS)
        assert len(harness.bot.posts) == 2
        for post in harness.bot.posts:
            assert "<!channel>" not in f"{post}"
            assert "<https://evil.example|click>" not in f"{post}"
