"""Faults in Watchdog's own code, each of which breaks one of its promises. The simulation must find every one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa

from tests.simulation.patches import replace_everywhere
from tests.simulation.simulation import Mutation
from watchdog.service import check_in_log
from watchdog.service.clock import WatchdogClock
from watchdog.service.notifications import NotificationSender
from watchdog.store.database import Database
from watchdog.store.tables import watermarks
from watchdog.store.write.outbox import NotificationOutbox
from watchdog.store.write.outbox_lease import LeasedNotification
from watchdog.store.write.watermark import ClaimWatermark


def mark_before_sending(patches: pytest.MonkeyPatch) -> None:
    """A notification counts as sent before its receiver has it."""
    prepare, mark_sent = NotificationSender._prepare_notification, NotificationOutbox.mark_sent

    async def prepare_and_mark(sender: NotificationSender, leased: LeasedNotification, now: int) -> Any:
        prepared = await prepare(sender, leased, now)
        if prepared is not None:
            await sender.store_executor.run_write(
                mark_sent, sender.outbox, leased, {}, now, *prepared.headline_and_cause
            )
        return prepared

    patches.setattr(NotificationSender, "_prepare_notification", prepare_and_mark)


def ignore_leases(patches: pytest.MonkeyPatch) -> None:
    """Two members may send the same notification."""
    replace_everywhere(patches, "build_unleased_outbox_filter", lambda now: sa.true())
    patches.setattr(NotificationOutbox, "is_still_leased", lambda *_: True)


def clear_check_ins_early(patches: pytest.MonkeyPatch) -> None:
    """The check-in log is cleared before the database is synced."""
    patches.setattr(Database, "sync_to_disk", lambda database: None)


def answer_before_writing(patches: pytest.MonkeyPatch) -> None:
    """A check-in is answered before it is synced."""
    patches.setattr(check_in_log, "_sync_to_disk", lambda fd: None)


def follow_the_wall_clock(patches: pytest.MonkeyPatch) -> None:
    """The time of everything, and so the watermark, is the wall clock as it is."""
    patches.setattr(WatchdogClock, "__call__", lambda clock: clock._wall_clock())


def forget_downtime(patches: pytest.MonkeyPatch) -> None:
    """Downtime is not stored, and what did not arrive in it counts as missing."""

    def advance_only(watermark: ClaimWatermark, now: int, *, advance: bool = False) -> None:
        with watermark.database.open_write_transaction() as connection:
            connection.execute(sa.update(watermarks).values(claimed_until=now))

    patches.setattr(ClaimWatermark, "record_downtime_gap", advance_only)


MUTANTS: Mapping[str, Mutation] = {
    "mark before send": mark_before_sending,
    "no lease": ignore_leases,
    "watermark by wall clock": follow_the_wall_clock,
    "no downtime": forget_downtime,
    "truncate the check-in log early": clear_check_ins_early,
    "answer a check-in before the sync": answer_before_writing,
}
