"""Limits failed attempts to sign in, by address and in total. In memory and bounded."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from watchdog.domain.client_addresses import get_address_or_ipv6_subscriber_network

MAX_FAILED_LOGIN_ATTEMPTS = 10
"""Failed attempts of one address within LOGIN_ATTEMPT_WINDOW_MS; further ones are refused until the window ends."""
MAX_FAILED_LOGIN_ATTEMPTS_IN_TOTAL = 100
"""The same for all addresses together, so that many addresses do not allow many attempts."""
LOGIN_ATTEMPT_WINDOW_MS = 60_000
MAX_TRACKED_LOGIN_ADDRESSES = 1_000
"""Addresses with failed attempts, and accepted keys by address; beyond this the oldest are dropped."""


class LoginThrottle:
    """Counts failed attempts by address and, with `limits_total`, of all addresses together. A key that was accepted
    from an address stays usable from there, regardless of failed attempts by others. `clock`: epoch ms."""

    def __init__(self, clock: Callable[[], int], *, limits_total: bool):
        self._clock = clock
        self._max_total = MAX_FAILED_LOGIN_ATTEMPTS_IN_TOTAL if limits_total else math.inf
        self._failed_attempts: OrderedDict[str, tuple[int, int]] = OrderedDict()
        """Address -> start of its window, and failed attempts since."""
        self._all_failed_attempts = (0, 0)
        self._accepted_keys: OrderedDict[tuple[str, str], None] = OrderedDict()

    def retry_after_s(self, address: str, key_name: str | None) -> int:
        """Seconds until an attempt from this address is accepted; 0: now. `key_name`: the valid key that was given."""
        address = get_address_or_ipv6_subscriber_network(address)
        if key_name is not None and (address, key_name) in self._accepted_keys:
            return 0
        by_address = self._failed_attempts.get(address, (0, 0))
        return max(
            self._get_remaining_login_block_s(by_address, MAX_FAILED_LOGIN_ATTEMPTS),
            self._get_remaining_login_block_s(self._all_failed_attempts, self._max_total),
        )

    def record_login_attempt(self, address: str, key_name: str | None) -> None:
        """`key_name`: the valid key that was given; None: the attempt failed."""
        address = get_address_or_ipv6_subscriber_network(address)
        if key_name is not None:
            self._accepted_keys[address, key_name] = None
            _evict_oldest_login_entry(self._accepted_keys)
            return
        self._failed_attempts[address] = self._compute_window_with_added_login_attempt(
            self._failed_attempts.get(address, (0, 0))
        )
        self._all_failed_attempts = self._compute_window_with_added_login_attempt(self._all_failed_attempts)
        _evict_oldest_login_entry(self._failed_attempts)

    def _get_remaining_login_block_s(self, attempts: tuple[int, int], max_count: float) -> int:
        """Seconds until the window of too many attempts ends; 0 if they are not too many."""
        started_at, count = attempts
        remaining_ms = started_at + LOGIN_ATTEMPT_WINDOW_MS - self._clock()
        is_blocked = count >= max_count and 0 < remaining_ms <= LOGIN_ATTEMPT_WINDOW_MS
        return -(-remaining_ms // 1000) if is_blocked else 0

    def _compute_window_with_added_login_attempt(self, attempts: tuple[int, int]) -> tuple[int, int]:
        started_at, count = attempts
        now = self._clock()
        in_window = 0 <= now - started_at < LOGIN_ATTEMPT_WINDOW_MS
        return (started_at, count + 1) if in_window else (now, 1)


def _evict_oldest_login_entry(entries: OrderedDict[Any, Any]) -> None:
    if len(entries) > MAX_TRACKED_LOGIN_ADDRESSES:
        entries.popitem(last=False)
