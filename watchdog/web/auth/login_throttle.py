"""Limits failed attempts to sign in, by address. In memory and bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from watchdog.domain.client_addresses import get_subscriber_network

MAX_FAILED_LOGIN_ATTEMPTS = 10
"""Failed attempts of one address within LOGIN_ATTEMPT_WINDOW_MS; further ones are refused until the window ends."""
LOGIN_ATTEMPT_WINDOW_MS = 60_000
MAX_TRACKED_LOGIN_ADDRESSES = 1_000
"""Addresses with failed attempts, and accepted keys by address; beyond this the oldest are dropped."""


class LoginThrottle:
    """Counts failed attempts by address. A key that was accepted from an address stays usable from there,
    regardless of failed attempts by others behind the same address. `clock`: epoch ms."""

    def __init__(self, clock: Callable[[], int]):
        self._clock = clock
        self._failed_attempts: OrderedDict[str, tuple[int, int]] = OrderedDict()
        """Address -> start of its window, and failed attempts since."""
        self._accepted_keys: OrderedDict[tuple[str, str], None] = OrderedDict()

    def retry_after_s(self, address: str, key_name: str | None) -> int:
        """Seconds until an attempt from this address is accepted; 0: now. `key_name`: the valid key that was given."""
        address = get_subscriber_network(address)
        started_at, count = self._failed_attempts.get(address, (0, 0))
        remaining_ms = started_at + LOGIN_ATTEMPT_WINDOW_MS - self._clock()
        is_blocked = count >= MAX_FAILED_LOGIN_ATTEMPTS and 0 < remaining_ms <= LOGIN_ATTEMPT_WINDOW_MS
        if not is_blocked or (key_name is not None and (address, key_name) in self._accepted_keys):
            return 0
        return -(-remaining_ms // 1000)

    def record_attempt(self, address: str, key_name: str | None) -> None:
        """`key_name`: the valid key that was given; None: the attempt failed."""
        address = get_subscriber_network(address)
        if key_name is not None:
            self._accepted_keys[address, key_name] = None
            _evict_oldest_login_entry(self._accepted_keys)
            return
        started_at, count = self._failed_attempts.get(address, (0, 0))
        now = self._clock()
        in_window = 0 <= now - started_at < LOGIN_ATTEMPT_WINDOW_MS
        self._failed_attempts[address] = (started_at, count + 1) if in_window else (now, 1)
        _evict_oldest_login_entry(self._failed_attempts)


def _evict_oldest_login_entry(entries: OrderedDict[Any, Any]) -> None:
    if len(entries) > MAX_TRACKED_LOGIN_ADDRESSES:
        entries.popitem(last=False)
