"""Jobs that the source of a probe no longer lists, as an evaluation stores them."""

from __future__ import annotations

from watchdog.domain.probe_state import (
    SavedScheduledJobState,
    ScheduledJobStateRecord,
    build_scheduled_job_state_key,
)
from watchdog.store.database import Database
from watchdog.store.json_text import encode_storable_json
from watchdog.store.write.probe_state import upsert_probe_state


def store_missing_jobs(database: Database, probe: int, *names: str, listed: str = "") -> None:
    """`probe`: its database id. `listed`: a job that is not missing."""
    states = {name: SavedScheduledJobState("", 1, gone_since=2) for name in names}
    states |= {listed: SavedScheduledJobState("", 1)} if listed else {}
    rows = [
        {
            "probe": probe,
            "key": build_scheduled_job_state_key(name),
            "value": encode_storable_json(ScheduledJobStateRecord(name, state).to_json()),
        }
        for name, state in states.items()
    ]
    with database.open_write_transaction() as connection:
        upsert_probe_state(database, connection, rows)
