"""Many incidents at once, with receivers that get real requests: no receiver is flooded, and nothing is hidden."""

from __future__ import annotations

from tests.support.delivery import DESTINATIONS, DeliveryHarness, Receivers
from tests.support.fakes import CannedResponse
from tests.support.store import INTERVAL_MS, make_registered_probe, make_registered_probes
from watchdog.domain.delivery_pace import MAX_DESTINATION_MESSAGE_INTERVAL_MS
from watchdog.domain.model import Severity
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.store.database import Database
from watchdog.store.tables import incidents, outbox

STORM_PROBES = 1_499
ONE_HOUR_MS = 3_600_000


def make_storm_probes(count: int = STORM_PROBES) -> list[RegisteredProbe]:
    """The last one is critical."""
    critical = make_registered_probe(
        "zz-payments", severity=Severity.CRITICAL, failure_threshold=1, success_threshold=1
    )  # fmt: skip
    return [*make_registered_probes(count, failure_threshold=1, success_threshold=1), critical]


async def test_a_storm_is_one_message_at_once_the_critical_one_and_then_one_a_minute(
    database: Database, receivers: Receivers
) -> None:
    async with DeliveryHarness(database, receivers, make_storm_probes()) as harness:
        *others, critical = harness.store.database_ids
        harness.record(others[:1], "fail")
        await harness.settle()
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 1), "the first message comes at once"
        for start in range(1, len(others), 100):
            harness.now += 500
            harness.record(others[start : start + 100], "fail")
            await harness.settle()
            if start == 501:
                harness.record([critical], "fail")
                await harness.settle()
                assert all("Zz-Payments" in texts[-1] for texts in harness.list_texts().values()), "not merged"
        assert harness.count_messages() == dict.fromkeys(DESTINATIONS, 3)
        started_at = harness.now
        await harness.advance(10 * INTERVAL_MS, 10_000)
        counts = harness.count_messages()
        assert all(3 < count <= 3 + (harness.now - started_at) // INTERVAL_MS for count in counts.values()), counts
        names = {registered.info.name for registered in harness.store.registry.values()}
        for destination in ("mail/email", "pager/webhook"):
            text = " ".join(harness.list_texts()[destination])
            assert [name for name in names if name not in text] == [], "every incident is named"
        assert {row["state"] for row in harness.store.select_rows(outbox)} == {"sent"}
        assert len(harness.store.select_rows(incidents)) == STORM_PROBES + 1


async def test_a_receiver_that_answers_429_for_an_hour_is_asked_rarely_and_then_gets_the_critical_one_first(
    database: Database, receivers: Receivers
) -> None:
    async with DeliveryHarness(database, receivers, make_storm_probes(30), ("pager/webhook",)) as harness:
        harness.pager.default_response = lambda request: CannedResponse(429)  # type: ignore[method-assign]
        *others, critical = harness.store.database_ids
        for probe in others:
            harness.record([probe], "fail")
            await harness.advance(1_000)
        harness.record([critical], "fail")
        await harness.advance(ONE_HOUR_MS - 30_000, 15_000)
        request_count = len(harness.pager.received)
        assert request_count <= ONE_HOUR_MS // MAX_DESTINATION_MESSAGE_INTERVAL_MS + 10
        del harness.pager.default_response
        await harness.advance(2 * MAX_DESTINATION_MESSAGE_INTERVAL_MS)
        (message,) = [request.json for request in harness.pager.received[request_count:]]
        assert message["members"][0]["probe"]["id"] == "zz-payments"
        assert len(message["members"]) == 31
        assert {row["state"] for row in harness.store.select_rows(outbox)} == {"sent"}


async def test_retry_after_is_honoured(database: Database, receivers: Receivers) -> None:
    async with DeliveryHarness(database, receivers, make_storm_probes(1), ("channel/slack",)) as harness:
        harness.channel.canned_responses.append(CannedResponse(429, b"ratelimited", (("retry-after", "30"),)))
        harness.record(harness.store.database_ids[:1], "fail")
        await harness.settle()
        await harness.advance(29_999)
        assert harness.count_messages() == {"channel/slack": 0}
        assert len(harness.channel.received) == 1
        await harness.advance(1)
        assert harness.count_messages() == {"channel/slack": 1}
