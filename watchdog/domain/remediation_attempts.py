"""Remediations of incidents, as pages and messages show them."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class RemediationAttemptState(StrEnum):
    """What became of a remediation."""

    RATE_LIMITED = "rate_limited"
    """Held back by its limit; it may run later."""
    STARTED = "started"
    """Running, or its process was killed."""
    SUCCEEDED = "succeeded"
    DRY_RUN = "dry_run"
    """It showed what it would do."""
    FAILED = "failed"


class RemediationAttempt(NamedTuple):
    """One run, or dry run, of a remediation for an incident."""

    action: str
    """The action in words."""
    reason: str
    run_id: str
    state: RemediationAttemptState
    started_at: int
    ended_at: int | None
    detail: str
    """The result in words."""
