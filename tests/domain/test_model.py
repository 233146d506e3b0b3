"""Derived properties of the model."""

from __future__ import annotations

from dataclasses import replace

from tests.support.alert_contexts import OPENED_ALERT
from watchdog.domain.alert_message import IncidentWithProbe
from watchdog.domain.model import Incident, IncidentEvent, PendingFinding, ProbeInfo, Severity
from watchdog.domain.notification import Notification
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.rules import AlertPolicy
from watchdog.domain.schedule import IntervalSchedule


def test_an_incident_is_open_until_it_is_resolved() -> None:
    incident = Incident("a1", 1, "job", "backup", Severity.WARNING, 5, 6, "job.failed", "backup failed")
    assert incident.state == "open"
    assert replace(incident, resolved_at=9).state == "resolved"


def test_the_first_bad_slot_stays_when_the_clock_is_set_during_an_incident() -> None:
    incident = Incident("a1", 1, "job", "backup", Severity.WARNING, 5, 6, "job.failed", "failed", clock_shift=-7)
    assert incident.first_bad_slot == 12


def test_a_notification_has_the_same_key_on_every_attempt() -> None:
    assert Notification("a1", "chat/slack", 2, IncidentEvent.OPENED).idempotency_key == "a1:chat/slack:2"


def test_the_name_of_an_event_is_words() -> None:
    assert [event.label for event in (IncidentEvent.MUTES, IncidentEvent.MAINTENANCE_BEGAN)] == [
        "mutes",
        "maintenance began",
    ]


def test_a_registered_probe_has_the_info_of_its_policy() -> None:
    info = ProbeInfo(0, "api", "API", "http")
    policy = AlertPolicy(info, lambda _: 300_000)
    assert RegisteredProbe(policy, IntervalSchedule(60_000), "name: API\n").info is info


def test_the_opening_cause_of_an_incident_is_kept_when_its_cause_changes() -> None:
    incident = Incident("a1", 1, "job", "backup", Severity.WARNING, 5, 6, "job.overdue", "backup is overdue")
    assert incident.opening_cause_message == "backup is overdue"
    changed = replace(incident, reason="job.failed", message="backup failed", first_reason="job.overdue")
    assert replace(changed, first_message="backup is overdue").opening_cause_message == "backup is overdue"
    assert changed.opening_cause_message == "", "it had no sentence"


def test_a_message_goes_on_about_an_incident_whose_alert_flaps() -> None:
    incident = Incident("a1", 1, "job", "backup", Severity.WARNING, 5, 6, "job.overdue", "backup is overdue")
    ended, probe = replace(incident, resolved_at=9), ProbeInfo(1, "api", "API", "http")
    assert not IncidentWithProbe(incident, probe).is_resolved_and_not_flapping
    assert IncidentWithProbe(ended, probe).is_resolved_and_not_flapping
    assert not IncidentWithProbe(ended, probe, is_flapping=True).is_resolved_and_not_flapping


def test_a_pending_finding_states_how_many_bad_results_open_an_incident() -> None:
    finding = PendingFinding("availability", "", "http.503", 2, 3, since=5)
    assert finding.describe() == "2 of the 3 bad results in a row that open an incident"
    assert (
        finding._replace(rule="task", subject="reindex").describe().startswith("task reindex: 2 of the 3 bad results")
    )
    assert finding._replace(rule="no_verdict").describe().startswith("no_verdict: 2 of the 3")


def test_a_pending_finding_that_maintenance_holds_back_does_not_state_more_than_all() -> None:
    finding = PendingFinding("availability", "", "http.503", 7, 3, since=5)
    assert finding.describe() == "7 bad results in a row; outside maintenance, 3 open an incident"
    at_once = finding._replace(rule="task", subject="reindex", bad_count=1, failure_threshold=1)
    assert at_once.describe() == "task reindex: 1 bad result; outside maintenance, 1 opens an incident"


def test_the_destination_of_a_test_alert_marks_it_as_a_test() -> None:
    assert not OPENED_ALERT.is_test
    assert replace(OPENED_ALERT, tested_destination="oncall/slack").is_test
