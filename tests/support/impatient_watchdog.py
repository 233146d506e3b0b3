"""The command line of Watchdog, but a database that is away is reported sooner. `python -m` runs it."""

from __future__ import annotations

from watchdog import app
from watchdog.cli import main
from watchdog.service import direct_notices, scheduler
from watchdog.service.store_watch import STORE_NOT_RESPONDING_AFTER_MS


def shorten_delays() -> None:
    """No notice before silence counts as absence: a busy machine alone must not cause one."""
    direct_notices.NOTICE_DELAY_MS = STORE_NOT_RESPONDING_AFTER_MS + 1_000
    scheduler.NOTICE_DELAY_MS = direct_notices.NOTICE_DELAY_MS  # type: ignore[attr-defined] # it imports it
    direct_notices.STORE_BACK_NOTICE_DELAY_MS = 2_000
    app.DATABASE_FILE_CHECK_INTERVAL_S = 1.0


if __name__ == "__main__":
    shorten_delays()
    main()
