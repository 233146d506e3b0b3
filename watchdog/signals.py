"""Shutdown signals."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable

SHUTDOWN_FORCED_EXIT_DELAY_S = 9
"""Seconds from the first shutdown signal until the process exits, even if a database or a name server blocks it."""


def hold_back_sighup() -> None:
    """Keep a SIGHUP pending until `install_shutdown_event`: the service starts for a while, and would end by it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def install_shutdown_event(on_hangup: Callable[[], None] | None = None) -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set; the process then exits within SHUTDOWN_FORCED_EXIT_DELAY_S.

    SIGHUP calls `on_hangup`; without one it is a shutdown signal as well, because the terminal has closed. A SIGHUP
    that is already ignored (`nohup`) stays ignored.
    """
    shutdown = asyncio.Event()

    def request_shutdown() -> None:
        if not shutdown.is_set():
            shutdown.set()
            timer = threading.Timer(SHUTDOWN_FORCED_EXIT_DELAY_S, os._exit, [128 + signal.SIGTERM])
            timer.daemon = True
            timer.start()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, request_shutdown)
    loop.add_signal_handler(signal.SIGINT, request_shutdown)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, on_hangup or request_shutdown)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    return shutdown
