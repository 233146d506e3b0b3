"""Who tried wrong keys, and how long until they may try again. In memory, and little of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Any

TRIES = 10
"""So many wrong keys of an address within a WINDOW, and no more of it are looked at until that is over."""
WINDOW = 60_000
KEPT = 1_000
"""Addresses, and keys that were right; beyond this the oldest are forgotten."""


class Guesses:
    """`now`: the clock, in ms since the epoch. A key that was right from an address stays welcome there, whatever
    others try behind the same address."""

    def __init__(self, now: Callable[[], int]):
        self._now = now
        self._wrong: OrderedDict[str, tuple[int, int]] = OrderedDict()
        """Address -> when its window began, and how many were wrong since."""
        self._right: OrderedDict[tuple[str, str], None] = OrderedDict()

    def wait(self, address: str, key: str | None) -> int:
        """Seconds until a try counts again; 0: it counts. `key`: the name of the right one that was given."""
        address = _network(address)
        began, wrong = self._wrong.get(address, (0, 0))
        left = began + WINDOW - self._now()
        if wrong < TRIES or not 0 < left <= WINDOW or (key is not None and (address, key) in self._right):
            return 0
        return -(-left // 1000)

    def note(self, address: str, key: str | None) -> None:
        """A key was given from an address; None: a wrong one."""
        address = _network(address)
        if key is not None:
            self._right[address, key] = None
            _bound(self._right)
            return
        began, wrong = self._wrong.get(address, (0, 0))
        now = self._now()
        self._wrong[address] = (began, wrong + 1) if 0 <= now - began < WINDOW else (now, 1)
        _bound(self._wrong)


def _bound(kept: OrderedDict[Any, Any]) -> None:
    if len(kept) > KEPT:
        kept.popitem(last=False)


def _network(address: str) -> str:
    """Of IPv6 a network of 64 bits, which is one subscriber's."""
    try:
        given = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(given, IPv6Address):
        return address
    return str(given.ipv4_mapped or IPv6Address(int(given) >> 64 << 64))
