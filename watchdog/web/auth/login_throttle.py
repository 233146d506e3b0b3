"""Who tried wrong keys, and how long until they may try again. In memory, and little of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Any

MAX_FAILED_ATTEMPTS = 10
"""So many wrong keys of an address within a WINDOW, and no more of it are looked at until that is over."""
ATTEMPT_WINDOW_MS = 60_000
MAX_TRACKED_ADDRESSES = 1_000
"""Addresses, and keys that were right; beyond this the oldest are forgotten."""


class LoginThrottle:
    """`now`: the clock, in ms since the epoch. A key that was right from an address stays welcome there, whatever
    others try behind the same address."""

    def __init__(self, clock: Callable[[], int]):
        self._now = clock
        self._wrong: OrderedDict[str, tuple[int, int]] = OrderedDict()
        """Address -> when its window began, and how many were wrong since."""
        self._right: OrderedDict[tuple[str, str], None] = OrderedDict()

    def retry_after_s(self, address: str, key_name: str | None) -> int:
        """Seconds until a try counts again; 0: it counts. `key`: the name of the right one that was given."""
        address = _network_of_address(address)
        began, wrong = self._wrong.get(address, (0, 0))
        left = began + ATTEMPT_WINDOW_MS - self._now()
        if (
            wrong < MAX_FAILED_ATTEMPTS
            or not 0 < left <= ATTEMPT_WINDOW_MS
            or (key_name is not None and (address, key_name) in self._right)
        ):
            return 0
        return -(-left // 1000)

    def record_attempt(self, address: str, key_name: str | None) -> None:
        """A key was given from an address; None: a wrong one."""
        address = _network_of_address(address)
        if key_name is not None:
            self._right[address, key_name] = None
            _evict_oldest(self._right)
            return
        began, wrong = self._wrong.get(address, (0, 0))
        now = self._now()
        self._wrong[address] = (began, wrong + 1) if 0 <= now - began < ATTEMPT_WINDOW_MS else (now, 1)
        _evict_oldest(self._wrong)


def _evict_oldest(entries: OrderedDict[Any, Any]) -> None:
    if len(entries) > MAX_TRACKED_ADDRESSES:
        entries.popitem(last=False)


def _network_of_address(address: str) -> str:
    """Of IPv6 a network of 64 bits, which is one subscriber's."""
    try:
        given = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(given, IPv6Address):
        return address
    return str(given.ipv4_mapped or IPv6Address(int(given) >> 64 << 64))
