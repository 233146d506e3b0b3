"""An acknowledgement is shown in the Slack message of its incident; no one else is notified of it."""

from __future__ import annotations

from pathlib import Path

from tests.support.acts import ANA, BEN
from tests.support.delivery import DESTINATIONS, DeliveryHarness, Receivers
from tests.support.store import INTERVAL_MS, make_registered_probe
from watchdog.domain.acts import Actor, OperatorInterfaceKind
from watchdog.service.acts import acknowledge_incident, remove_acknowledgement
from watchdog.store.tables import incidents

HOSTILE = Actor("<!channel> *Eve* <https://evil.example|click>", OperatorInterfaceKind.API)


def make_harness(folder: Path, receivers: Receivers) -> DeliveryHarness:
    probe = make_registered_probe(failure_threshold=1, success_threshold=1)
    return DeliveryHarness(f"sqlite:///{folder}/watchdog.db", receivers, [probe])


async def open_incident(harness: DeliveryHarness) -> str:
    harness.record(harness.store.database_ids, "fail")
    await harness.settle()
    assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 1)
    id: str = harness.store.select_row(incidents)["id"]
    return id


async def test_the_root_message_is_edited_and_gets_a_reply(tmp_path: Path, receivers: Receivers) -> None:
    async with make_harness(tmp_path, receivers) as harness:
        incident = await open_incident(harness)
        acknowledge_incident(harness.store.database, incident, ANA, "I restart it", harness.now)
        await harness.settle()
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 1)
        root, reply = harness.bot.posts
        assert root["text"].startswith(":red_circle: *Down: Api") or "Down: Api" in root["text"]
        assert "*Acknowledged* by Ana at" in str(root["blocks"])
        assert "I restart it" in str(root["blocks"])
        assert "Acknowledged by Ana at" in reply["text"]
        assert reply["thread_ts"] == root["ts"]
        assert not reply["reply_broadcast"]
        remove_acknowledgement(harness.store.database, incident, BEN, "", harness.now)
        await harness.settle()
        assert "Acknowledged" not in str(root["blocks"])
        assert "No longer acknowledged" in harness.bot.posts[-1]["text"]
        harness.now += INTERVAL_MS
        harness.record(harness.store.database_ids, "pass")
        await harness.settle()
        assert "recovered" in root["text"]


async def test_a_hostile_name_is_text(tmp_path: Path, receivers: Receivers) -> None:
    async with make_harness(tmp_path, receivers) as harness:
        incident = await open_incident(harness)
        acknowledge_incident(harness.store.database, incident, HOSTILE, "<!here>", harness.now)
        await harness.settle()
        for post in harness.bot.posts:
            assert "<!channel>" not in f"{post}"
            assert "<!here>" not in f"{post}"
            assert "<https://evil.example|click>" not in f"{post}"
