"""A configured probe becomes the registered probe that the store schedules and evaluates."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.support.service import ScriptedProbe, scripted_probe
from watchdog.config.load import load_config
from watchdog.domain.model import Severity
from watchdog.domain.registered_probe import STALE_AFTER_MISSING_SLOTS
from watchdog.service.process_configuration import build_watchdog_process_configuration
from watchdog.service.registration import (
    LATE_RESULT_STILL_EVALUATED_MARGIN_MS,
    build_probe_schedule,
    build_registered_probe,
)
from watchdog.store.write.members import WatchdogProcessConfiguration

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def test_a_registered_probe_has_the_configured_values() -> None:
    probe = scripted_probe(
        "api", group="Core", tags=["prod"], runbook="https://wiki.example/", every="30s", timeout="5s"
    )
    registered = build_registered_probe(probe, "name: Api\n")
    info = registered.info
    assert (info.id, info.name, info.kind, info.group, info.tags) == ("api", "Api", "scripted", "Core", ("prod",))
    assert (info.target, info.runbook, info.severity) == ("nowhere", "https://wiki.example/", Severity.WARNING)
    assert info.schedule_text.replace("\N{NO-BREAK SPACE}", " ") == "every 30 s"
    assert (
        registered.policy.max_lateness,
        registered.policy.failure_threshold,
        registered.policy.success_threshold,
    ) == (
        5 * SECOND + LATE_RESULT_STILL_EVALUATED_MARGIN_MS,
        3,
        2,
    )
    assert registered.config_yaml == "name: Api\n"


def test_probes_with_the_same_interval_are_spread_over_it() -> None:
    slots = [build_probe_schedule(scripted_probe(f"p{i}")).find_next_slot_after(0) for i in range(600)]
    assert all(50 < sum(slot // 10_000 == tenth for slot in slots) < 150 for tenth in range(6))
    assert build_probe_schedule(scripted_probe("p7")) == build_probe_schedule(scripted_probe("p7"))


@pytest.mark.parametrize(
    ("sentence", "probe", "slot", "gap"),
    [
        ("every minute", scripted_probe(every="60s", timeout="10s"), "", STALE_AFTER_MISSING_SLOTS * MINUTE),
        (
            "every hour",
            scripted_probe(schedule="0 * * * *", timeout="10s"),
            "2026-11-22T10:00:00",
            STALE_AFTER_MISSING_SLOTS * HOUR,
        ),
        ("over the weekend", scripted_probe(schedule="0 6 * * MON-FRI", timeout="10s"), "2026-11-19T06:00:00", 5 * DAY),
        (
            "over the night in which clocks go back",
            scripted_probe(schedule="0 6 * * *", timezone="Europe/Berlin", timeout="10s"),
            "2026-10-24T04:00:00",
            3 * DAY + HOUR,
        ),
    ],
)
def test_the_staleness_threshold_is_three_slots(sentence: str, probe: ScriptedProbe, slot: str, gap: int) -> None:
    registered = build_registered_probe(probe, "")
    from_slot = at(slot) if slot else registered.schedule.find_next_slot_after(0)
    assert (
        registered.policy.staleness_threshold(from_slot) == gap + 10 * SECOND + LATE_RESULT_STILL_EVALUATED_MARGIN_MS
    ), sentence


def test_the_staleness_threshold_exceeds_the_lateness_by_a_slot() -> None:
    """Every slot is stored or recorded as missed before its probe can become stale."""
    for every in ("1s", "10s", "60s", "1h"):
        registered = build_registered_probe(scripted_probe(every=every, timeout="5m"), "")
        assert registered.policy.staleness_threshold(at("2026-11-22T10:00:00")) > registered.policy.max_lateness


ESCALATES = """
receivers:
  chat: {log: {}}
  pager: {pagerduty: {routing_key: 0123456789abcdef0123456789abcdef}}
routes: [{receivers: [chat], escalate: [{after: 15m, receivers: [pager]}]}]
probes: [{name: API, http: https://a.example/, alert: {repeat_interval: 1h}}]
"""


def test_reminders_and_escalation_are_registered() -> None:
    configuration = build_process_configuration(ESCALATES)
    assert configuration.routes.without_reminders == {"pager/pagerduty"}
    (registered,) = configuration.probes
    assert registered.repeat_interval_ms == HOUR
    (escalation,) = registered.routes.list_escalations(registered.info, "http.503")
    assert (escalation.destination, escalation.step.after_ms) == ("pager/pagerduty", 15 * MINUTE)
    (later,) = build_process_configuration(ESCALATES.replace("15m", "16m")).probes
    assert later.definition != registered.definition, "other processes see the change"
    assert later.content_digest == registered.content_digest


def build_process_configuration(text: str) -> WatchdogProcessConfiguration:
    loaded_config = load_config(None, text, {})
    return build_watchdog_process_configuration(loaded_config, loaded_config.config.probes)


@pytest.mark.parametrize("change", [("group_by: [group], ", ""), ("[group]", "[]"), ("30s", "31s")])
def test_the_grouping_of_a_route_is_registered(change: tuple[str, str]) -> None:
    text = ESCALATES.replace("escalate:", "group_by: [group], group_wait: 30s, escalate:")
    (registered,) = build_process_configuration(text).probes
    grouping = registered.routes.find_label_grouping(registered.info, "http.503", "pager/pagerduty")
    assert grouping is not None
    assert (grouping.labels, grouping.wait_ms) == ({"group": ""}, 30_000)
    without_wait = text.replace("group_wait: 30s, ", "") if not change[1] else text
    (changed,) = build_process_configuration(without_wait.replace(*change)).probes
    assert changed.definition != registered.definition, "other processes see the change"
    assert changed.content_digest == registered.content_digest
