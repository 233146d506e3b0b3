"""`watchdog demo`."""

from __future__ import annotations


def demo() -> None:
    """Watch two sample targets fail and heal."""
