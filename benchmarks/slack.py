"""1,000 incidents that people acknowledge, silence and ignore in an unreliable Slack, and a ledger of what they see.

Requests are real, on loopback; hours pass as injected time. Slack refuses with 429 and 500, and posts messages without
confirming them; senders end after a confirmation and before it is stored. Requests with wrong, old and used signatures
arrive with each click.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Iterator
from unittest.mock import patch

import structlog

from benchmarks.measurements import Measurement
from tests.support.delivery import Receivers
from tests.support.slack_ledger import SeenText, SlackFault, SlackPlay

INCIDENT_COUNT, SEED = 1_000, 20_261_130
FAULT_RATES = {
    SlackFault.RATE_LIMITED: 0.01,
    SlackFault.INTERNAL_ERROR: 0.01,
    SlackFault.CONNECTION_LOST: 0.01,
    SlackFault.NO_RESPONSE: 0.001,
}
FAULT_NAMES = {
    SlackFault.RATE_LIMITED: "refused with 429 and Retry-After",
    SlackFault.INTERNAL_ERROR: "refused with 500",
    SlackFault.CONNECTION_LOST: "posted, connection closed without a response",
    SlackFault.NO_RESPONSE: "posted, never answered",
}
KILL_RATE = 0.01


def prove() -> Iterator[Measurement]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with (
        patch("watchdog.service.slack_clicks.SLACK_ACT_TIMEOUT_S", 60.0),
        tempfile.TemporaryDirectory() as folder,
        Receivers() as receivers,
        SlackPlay(
            f"sqlite:///{folder}/watchdog.db",
            receivers,
            INCIDENT_COUNT,
            seed=SEED,
            rates=FAULT_RATES,
            kill_rate=KILL_RATE,
        ) as play,
    ):
        result = asyncio.run(play.play())
    yield Measurement("incidents that never ended", INCIDENT_COUNT - result.incident_count, "", 0)
    yield Measurement("messages and replies in the channels", result.text_count)
    for fault, name in FAULT_NAMES.items():
        yield Measurement(f"requests: {name}", result.faults[fault])
    yield Measurement("senders that ended before they stored a confirmation", result.kills)
    injected = result.unanswered_posts + result.kills
    yield Measurement("notifications lost", len(result.lost), "", 0)
    yield Measurement("extra copies; limit: unanswered posts, ended senders", len(result.extra), "", injected)
    unknown = sum(line.text is SeenText.OTHER for line in result.extra)
    yield Measurement("texts that nothing explains", unknown, "", 0)
    yield Measurement("incidents whose end no message shows", len(result.messages_without_end), "", 0)
    yield Measurement("acts that the message does not show to everyone", len(result.wrong_states), "", 0)
    for kind, count in result.sent_invalid_requests.items():
        accepted = count - result.refused_invalid_requests[kind]
        yield Measurement(f"requests with {kind}: accepted, of {count:,}", accepted, "", 0)
    wrong_acts = (result.acts - result.expected_acts) + (result.expected_acts - result.acts)
    yield Measurement(f"acts missing or repeated, of {result.expected_acts.total():,}", wrong_acts.total(), "", 0)
