"""service: Watchdog itself does its work: its receivers get their notifications, and its processes agree."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from watchdog.domain.formatting import format_utc_timestamp
from watchdog.domain.membership import MAX_TOLERATED_PROCESS_CONFIG_DIFFERENCE_MS
from watchdog.domain.model import Finding, HealthState, ProbeResult
from watchdog.domain.reasons import build_reason_and_message
from watchdog.domain.rules.policy import AlertPolicy


class WatchdogFaultFacts(NamedTuple):
    """What is wrong with Watchdog itself: with a destination, with the configurations, or with one process."""

    failing_since: int | None
    """Since when, in epoch ms; None: nothing is wrong. For a destination: when the first delivery failed."""
    given_up: bool = False
    """A notification was given up."""
    error: str = ""
    """The error of the newest delivery; what differs; how far a process is overloaded."""


ALERT_RULE_NAME = "service"
ALERT_RULE_INCIDENT_HEALTH_STATE = HealthState.DEGRADED
ALERT_RULE_SUBJECT_FACTS_CLASS = WatchdogFaultFacts
WATCHDOG_SELF_PROBE_ID = "watchdog"
"""The id of the built-in probe whose findings these are."""
WATCHDOG_SELF_PROBE_KIND = "service"
DESTINATION_FAULT_AFTER_FAILING_MS = 60_000
"""A destination that has failed for less has no problem yet: most outages of receivers are over by then."""
NOT_READY_AFTER_DESTINATIONS_FAILING_MS = 300_000
"""When every destination has failed for this long, no one can be notified: Watchdog is not ready."""
DESTINATION_FINDING_SUBJECT_PREFIX = "receiver "
PROCESS_CONFIG_DIFFERENCE_FINDING_SUBJECT = "configurations"
"""The subject that is about the configurations of the processes on the database."""


class WatchdogProcessFaultName(StrEnum):
    """What may be wrong with one process, as it is stored and as it begins the subject of a finding."""

    DATABASE = "database"
    """The database was away. A process reports it when it is back, and has stored what it ran meanwhile."""
    OVERLOAD = "overload"
    NETWORK = "network"
    CLOCK = "clock"
    CONFIGURATION = "configuration"
    RESTART = "restart"
    SLACK_CONNECTION = "slack connection"


WATCHDOG_PROCESS_FAULT_REASON_BY_NAME: Mapping[str, str] = MappingProxyType(
    {
        WatchdogProcessFaultName.DATABASE: "watchdog.store_away",
        WatchdogProcessFaultName.OVERLOAD: "watchdog.overloaded",
        WatchdogProcessFaultName.NETWORK: "watchdog.network",
        WatchdogProcessFaultName.CLOCK: "watchdog.clock_step",
        WatchdogProcessFaultName.CONFIGURATION: "watchdog.config_invalid",
        WatchdogProcessFaultName.RESTART: "watchdog.restart_required",
        WatchdogProcessFaultName.SLACK_CONNECTION: "watchdog.slack_disconnected",
    }
)


def build_destination_finding_subject(destination: str) -> str:
    """ "receiver oncall/slack"."""
    return f"{DESTINATION_FINDING_SUBJECT_PREFIX}{destination}"


def parse_destination_of_finding_subject(subject: str) -> str:
    """The destination that a finding is about; empty if it is about something else."""
    return (
        subject.removeprefix(DESTINATION_FINDING_SUBJECT_PREFIX)
        if subject.startswith(DESTINATION_FINDING_SUBJECT_PREFIX)
        else ""
    )


def get_failing_destination_of_incident(rule: str, subject: str) -> str:
    """The destination that an incident is about; empty if it is about anything else."""
    return parse_destination_of_finding_subject(subject) if rule == ALERT_RULE_NAME else ""


def build_process_fault_finding_subject(fault: str, member: str) -> str:
    """ "overload of web1-4711-3fa2c1"."""
    return f"{fault} of {member}"


def has_destination_failed_too_long(facts: WatchdogFaultFacts, now: int) -> bool:
    """Whether deliveries have failed for too long, or one was given up."""
    return facts.failing_since is not None and (
        facts.given_up or now - facts.failing_since >= DESTINATION_FAULT_AFTER_FAILING_MS
    )


def have_all_destinations_failed_too_long(
    facts: Mapping[str, WatchdogFaultFacts], destinations: Collection[str], now: int
) -> bool:
    """Whether every destination has failed for too long. `facts`: of the destinations that fail."""
    return bool(destinations) and all(
        (since := facts.get(name, WatchdogFaultFacts(None)).failing_since) is not None
        and now - since >= NOT_READY_AFTER_DESTINATIONS_FAILING_MS
        for name in destinations
    )


def evaluate_result(policy: AlertPolicy, result: ProbeResult) -> Iterator[Finding]:
    if (listing := result.listings.get(ALERT_RULE_NAME)) is None:
        return
    for subject, facts in listing.subjects.items():
        yield Finding(
            ALERT_RULE_NAME, subject, *_judge_watchdog_self_probe_subject(subject, facts, listing.observed_at)
        )


def _judge_watchdog_self_probe_subject(subject: str, facts: WatchdogFaultFacts, now: int) -> tuple[bool, str, str]:
    """Whether a subject is bad, its reason and its message."""
    differs = subject == PROCESS_CONFIG_DIFFERENCE_FINDING_SUBJECT
    if facts.failing_since is None:
        return False, "", ""
    fault, _, member = subject.partition(" of ")
    if fault in WATCHDOG_PROCESS_FAULT_REASON_BY_NAME:
        since = format_utc_timestamp(facts.failing_since, now)
        return True, *build_reason_and_message(
            WATCHDOG_PROCESS_FAULT_REASON_BY_NAME[fault], facts.error, member=member, since=since
        )
    if not (
        now - facts.failing_since > MAX_TOLERATED_PROCESS_CONFIG_DIFFERENCE_MS
        if differs
        else has_destination_failed_too_long(facts, now)
    ):
        return False, "", ""
    since = format_utc_timestamp(facts.failing_since, now)
    if differs:
        return True, *build_reason_and_message("watchdog.configurations_differ", facts.error, since=since)
    return True, *build_reason_and_message("watchdog.delivery_failing", facts.error, subject=subject, since=since)
