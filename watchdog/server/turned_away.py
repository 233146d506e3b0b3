"""Counts the visitors whose connections were closed or refused, and logs the counts at most once a minute."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

import structlog

TURNED_AWAY_LOG_INTERVAL_S = 60.0
MAX_COUNTED_TURNED_AWAY_ADDRESSES = 1_000
MAX_LOGGED_TURNED_AWAY_ADDRESSES = 3

log = structlog.get_logger()


class ConnectionTurnAwayReason(StrEnum):
    """Why a visitor was turned away."""

    REPLACED = "replaced"
    """All places were taken, and this connection had made no progress for the longest time."""
    ADDRESS_SHARE = "address_share"
    """The visitor's address had more than its share of connections."""
    HEAD_TIMEOUT = "head_timeout"
    HEAD_TOO_LONG = "head_too_long"
    BODY_TIMEOUT = "body_timeout"
    UNREAD_BODY_TOO_LONG = "unread_body_too_long"
    """The visitor went on sending a body after the response."""
    PIPELINED = "pipelined"
    """The visitor sent a request before the previous response."""
    WRITE_TIMEOUT = "write_timeout"
    """The visitor did not read the response."""


class TurnedAwayConnectionCounts:
    """Counts by reason since the last log line."""

    def __init__(self) -> None:
        self.counts: Counter[ConnectionTurnAwayReason] = Counter()
        """By reason, since the process started."""
        self._logged_counts: Counter[ConnectionTurnAwayReason] = Counter()
        self._address_counts: Counter[str] = Counter()
        self._last_logged_at: float | None = None

    def record(self, reason: ConnectionTurnAwayReason, address: str) -> None:
        self.counts[reason] += 1
        if address in self._address_counts or len(self._address_counts) < MAX_COUNTED_TURNED_AWAY_ADDRESSES:
            self._address_counts[address] += 1

    def log_turned_away_counts_if_due(self, now: float) -> None:
        """Log what was counted since the last line. `now`: monotonic seconds."""
        counts = self.counts - self._logged_counts
        is_due = self._last_logged_at is None or now - self._last_logged_at >= TURNED_AWAY_LOG_INTERVAL_S
        if not counts or not is_due:
            return
        log.warning(
            "visitors_turned_away",
            visitor_count=counts.total(),
            reasons={reason.value: count for reason, count in counts.items()},
            addresses=dict(self._address_counts.most_common(MAX_LOGGED_TURNED_AWAY_ADDRESSES)),
        )
        self._logged_counts, self._last_logged_at = self.counts.copy(), now
        self._address_counts.clear()
