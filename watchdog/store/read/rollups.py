"""The results of a probe, aggregated by the hour."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from watchdog.store.tables import rollups


class HourlyRollup(NamedTuple):
    """The results of a probe in one hour, at one location."""

    hour: int
    """When it begins, in epoch ms."""
    passed: int
    failed: int
    errors: int
    missed: int
    """Slots."""
    duration_sum: int
    """The durations of the runs that passed, in ms."""
    duration_max: int | None
    """None: no run passed."""


def list_hourly_rollups(connection: Connection, probe: int, start: int, end: int) -> list[HourlyRollup]:
    """The hours that begin in [start, end), oldest first. The newest hours are not rolled up yet."""
    columns = [rollups.c[name] for name in HourlyRollup._fields]
    inside = (rollups.c.probe == probe, rollups.c.hour >= start, rollups.c.hour < end)
    return [HourlyRollup(*row) for row in connection.execute(sa.select(*columns).where(*inside).order_by("hour"))]
