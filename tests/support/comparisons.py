"""Counts how often a matcher is compared with a probe, which takes time if there are many of both."""

from __future__ import annotations

import pytest

from watchdog.domain.model import ProbeInfo
from watchdog.domain.routing import ProbeMatcher


def record_comparisons(monkeypatch: pytest.MonkeyPatch) -> list[tuple[ProbeMatcher, ProbeInfo]]:
    """The comparisons from now on."""
    compared: list[tuple[ProbeMatcher, ProbeInfo]] = []
    describe_mismatch = ProbeMatcher.describe_mismatch

    def record(matcher: ProbeMatcher, probe: ProbeInfo) -> str:
        compared.append((matcher, probe))
        return describe_mismatch(matcher, probe)

    monkeypatch.setattr(ProbeMatcher, "describe_mismatch", record)
    return compared
