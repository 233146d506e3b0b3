"""Runs that people request: which probes can be run on request, and the slot of such a run. Pure."""

from __future__ import annotations

from watchdog.domain.formatting import SECOND_MS
from watchdog.domain.heartbeat import HEARTBEAT_PROBE_KIND
from watchdog.domain.rules import service

MAX_REQUESTED_RUN_AGE_MS = 10 * SECOND_MS
"""A request that no process has claimed by then is dropped: no one waits for it any more."""
NEVER_RUN_ON_REQUEST_REASON_BY_PROBE_KIND = {
    HEARTBEAT_PROBE_KIND: "its job checks in, and there is nothing to contact; see its status instead",
    service.WATCHDOG_SELF_PROBE_KIND: "it reports what the running processes store about themselves",
}


def can_run_on_request(probe_kind: str) -> bool:
    return probe_kind not in NEVER_RUN_ON_REQUEST_REASON_BY_PROBE_KIND


def derive_requested_slot(requested_at: int, last_slot: int | None) -> int:
    """The instant of the request, or if a later slot has been claimed, the next one after that: otherwise the run would
    be evaluated no more. It is odd, as no slot of a cron schedule is. `last_slot`: the newest that has been claimed."""
    return max(requested_at, 0 if last_slot is None else last_slot + 1) | 1


def may_be_requested_run_slot(slot: int) -> bool:
    """Slots of requested runs are odd. An interval that is not a whole number of 2 ms has odd slots, too."""
    return slot % 2 == 1
