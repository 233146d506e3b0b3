"""What people see in Slack about many incidents while Slack is unreliable: nothing is lost, and nothing comes twice
without a fault that explains it."""

from __future__ import annotations

from collections import Counter
from types import MappingProxyType
from typing import Any

import pytest

from tests.support.delivery import Receivers
from tests.support.slack_ledger import LedgerResult, SeenText, SlackFault, SlackPlay, UnreliableSlack
from watchdog.service import slack_clicks
from watchdog.store.database import Database

INCIDENT_COUNT = 12
FAULT_RATES = MappingProxyType(
    {SlackFault.RATE_LIMITED: 0.08, SlackFault.INTERNAL_ERROR: 0.08, SlackFault.CONNECTION_LOST: 0.08}
)


@pytest.fixture(autouse=True)
def no_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a slow machine passes."""
    monkeypatch.setattr(slack_clicks, "SLACK_ACT_TIMEOUT_S", 300.0)


async def play(database: Database, receivers: Receivers, incident_count: int, **options: Any) -> LedgerResult:
    options = {"seed": 1, "rates": FAULT_RATES, "kill_rate": 0.06, **options}
    with SlackPlay(database, receivers, incident_count, **options) as slack_play:
        return await slack_play.play()


async def test_nothing_is_lost_and_nothing_comes_twice_without_a_fault(
    database: Database, receivers: Receivers
) -> None:
    result = await play(database, receivers, INCIDENT_COUNT)
    assert result.incident_count == INCIDENT_COUNT
    assert (result.lost, result.messages_without_end, result.wrong_states) == ([], [], [])
    assert len(result.extra) <= result.unanswered_posts + result.kills, result.extra
    assert SeenText.OTHER not in {line.text for line in result.extra}
    assert result.kills
    assert result.faults.keys() == FAULT_RATES.keys(), "every fault took place"
    click_count = result.expected_acts.total()
    invalid = ("a wrong signature", "an old timestamp", "a used signature")
    assert result.sent_invalid_requests == Counter(dict.fromkeys(invalid, click_count))
    assert result.refused_invalid_requests == result.sent_invalid_requests
    assert result.acts == result.expected_acts


async def test_the_ledger_names_what_was_confirmed_and_not_posted(
    database: Database, receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def confirm_only(self: UnreliableSlack, method: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"ok": True, "channel": self.channel, "ts": "1.1"} if "thread_ts" in body else call(self, method, body)

    call = UnreliableSlack._call_api_method
    monkeypatch.setattr(UnreliableSlack, "_call_api_method", confirm_only)
    result = await play(database, receivers, 3, rates={}, kill_rate=0.0)
    assert Counter(line.text for line in result.lost)[SeenText.RESOLVED] >= 3
    assert result.extra == []
