"""From a configured probe to what the store runs it by."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.service.house import Scripted, scripted
from watchdog.model import Severity
from watchdog.service.members import MARGIN, SILENT, member_of, schedule_of

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def test_a_probe_is_told_by_its_configuration() -> None:
    probe = scripted("api", group="Core", tags=["prod"], runbook="https://wiki.example/", every="30s", timeout="5s")
    made = member_of(probe, "name: Api\n")
    info = made.info
    assert (info.key, info.name, info.kind, info.group, info.tags) == ("api", "Api", "scripted", "Core", ("prod",))
    assert (info.target, info.runbook, info.severity) == ("nowhere", "https://wiki.example/", Severity.WARNING)
    assert info.cadence.replace("\N{NO-BREAK SPACE}", " ") == "every 30 s"
    assert (made.policy.lateness, made.policy.after, made.policy.recover) == (5 * SECOND + MARGIN, 3, 2)
    assert made.spec == "name: Api\n"


def test_probes_of_one_cadence_are_spread_over_it_and_keep_their_place() -> None:
    slots = [schedule_of(scripted(f"p{i}")).after(0) for i in range(600)]
    assert all(50 < sum(slot // 10_000 == tenth for slot in slots) < 150 for tenth in range(6))
    assert schedule_of(scripted("p7")) == schedule_of(scripted("p7"))


@pytest.mark.parametrize(
    ("what", "probe", "slot", "silence"),
    [
        ("every minute", scripted(every="60s", timeout="10s"), "", SILENT * MINUTE),
        ("every hour", scripted(schedule="0 * * * *", timeout="10s"), "2026-11-22T10:00:00", SILENT * HOUR),
        ("over the weekend", scripted(schedule="0 6 * * MON-FRI", timeout="10s"), "2026-11-19T06:00:00", 5 * DAY),
        (
            "over the night in which clocks go back",
            scripted(schedule="0 6 * * *", timezone="Europe/Berlin", timeout="10s"),
            "2026-10-24T04:00:00",
            3 * DAY + HOUR,
        ),
    ],
)
def test_a_probe_may_be_silent_for_three_of_its_slots(what: str, probe: Scripted, slot: str, silence: int) -> None:
    made = member_of(probe, "")
    one = at(slot) if slot else made.schedule.after(0)
    assert made.policy.silence(one) == silence + 10 * SECOND + MARGIN, what


def test_one_slot_more_than_lateness_is_never_stale() -> None:
    """Every slot is stored or recorded as missed before its probe could be called silent."""
    for every in ("1s", "10s", "60s", "1h"):
        made = member_of(scripted(every=every, timeout="5m"), "")
        assert made.policy.silence(at("2026-11-22T10:00:00")) > made.policy.lateness
