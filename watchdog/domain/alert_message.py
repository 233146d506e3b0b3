"""The data from which a message about an incident is composed, as of the time when it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from watchdog.domain.alert_flapping import AlertFlapping
from watchdog.domain.model import (
    DeliveryState,
    Incident,
    IncidentCauseChange,
    IncidentEvent,
    ProbeInfo,
    ResultWithEvidence,
    RunSummary,
    SubjectFacts,
)
from watchdog.domain.notification_holds import NotificationHold
from watchdog.domain.remediation_attempts import RemediationAttempt


class IncidentWithProbe(NamedTuple):
    """One of several incidents that a message is about."""

    incident: Incident
    probe: ProbeInfo
    latest_subject_facts: SubjectFacts | None = None
    """The newest facts, for incidents of the probe that the context is about; otherwise None."""
    is_flapping: bool = False
    """Its alert flaps, so the message is not final when the incident is resolved."""

    @property
    def is_resolved_and_not_flapping(self) -> bool:  # as the message states it
        return self.incident.resolved_at is not None and not self.is_flapping


@dataclass(frozen=True, slots=True)
class AlertMessageContext:
    """Everything that a notification can say about an incident, as of the moment it is sent."""

    event: IncidentEvent
    incident: Incident
    probe: ProbeInfo
    now: int
    bad_count: int
    """Bad slots in a row so far (opened), or in total (resolved)."""
    threshold: int
    """Bad slots in a row that open an incident (`failure_threshold`)."""
    last_good: RunSummary | None = None
    recent_runs: tuple[RunSummary, ...] = ()
    """The newest runs of the probe, at most 20, oldest first. Of the rule `job`: those of the job. Of the rule
    `preference`: those that did not meet it are failures."""
    first_bad: ResultWithEvidence | None = None
    latest: ResultWithEvidence | None = None
    latest_subject_facts: SubjectFacts | None = None
    """What the newest result lists of the incident's subject; None: it does not list the subject."""
    remediation_attempts: tuple[RemediationAttempt, ...] = ()
    """In the order in which they started."""
    location: str = ""
    incident_url: str = ""
    """The incident's page; empty if no `public_url` is configured."""
    merged: bool = False
    """The incident was resolved before `opened` was delivered, so this one message is about both."""
    cause_changes: tuple[IncidentCauseChange, ...] = ()
    """Oldest first."""
    probe_url: str = ""
    """The probe's page; empty if no `public_url` is configured."""
    other_destinations: tuple[tuple[str, DeliveryState], ...] = ()
    """The other destinations that are notified of the incident, and the state of their newest notification."""
    previous_cause: str = ""
    """The cause that the destination's message states so far; empty if it has none."""
    tested_destination: str = ""
    """The destination that a test alert is sent to, which marks the message as a test; empty: it is no test."""
    members: tuple[IncidentWithProbe, ...] = ()
    """All incidents that the message is about, if there are several."""
    shared_cause: str = ""
    """What broke for all members; empty if they share no cause."""
    group_labels: Mapping[str, str] | None = None
    """The labels by which a route groups the incidents of the message, and their values, also while it is about one
    incident. Empty: all incidents of the route are one group. None: not grouped by labels, or a merged message."""
    raises_severity: bool = False
    """The message that the destination has named no critical incident so far, and this one does."""
    muted_probe_names: tuple[str, ...] = ()
    """Of the probes whose alerts are muted while the incidents of the message are open: one for each alert."""
    escalated_after_ms: int | None = None
    """The destination was notified because the incident was still open after this time; None: as soon as it opened."""
    holds: tuple[NotificationHold, ...] = ()
    """What holds back further notifications of open incidents of the message: for each, at most one of each kind."""
    flapping: AlertFlapping | None = None
    """The alert of the incident flapped when it opened; None: it did not."""
    flapping_incidents: tuple[Incident, ...] = ()
    """The newest incidents that are counted while the alert flaps, oldest first."""
    replaced_incidents: tuple[str, ...] = ()
    """Earlier incidents of the flapping alert that the destination was notified of in the same message."""

    @property
    def is_test(self) -> bool:
        """Whether it is a test alert."""
        return bool(self.tested_destination)
