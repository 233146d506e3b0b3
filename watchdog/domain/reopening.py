"""When another incident opens after a person has closed one, if the failure continues. Pure."""

from __future__ import annotations

from watchdog.domain.formatting import format_count_with_noun, format_duration_rounded
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.rules import THRESHOLD_IGNORING_RULE_NAMES, availability, job, missed_run, stale


def describe_when_another_incident_opens_after_closure(
    rule: str, probe: RegisteredProbe, now: int, *, was_last_result_bad: bool
) -> str:
    """A clause about an incident of this rule that is closed now; empty: the finding was good in the last result."""
    if not was_last_result_bad:
        return ""
    if rule == stale.ALERT_RULE_NAME:
        within = format_duration_rounded(probe.policy.staleness_threshold(now))
        return f"no result has arrived yet: another incident opens if none arrives within about {within}"
    if rule == job.ALERT_RULE_NAME:
        return "the last result still showed the problem, but only later failures of the job open another incident"
    if rule == missed_run.ALERT_RULE_NAME:
        return "no run has started on time since then: another incident opens when the next run is missed"
    if rule in THRESHOLD_IGNORING_RULE_NAMES:
        return ""
    threshold, slot = probe.policy.failure_threshold, now
    for _ in range(threshold):
        slot = probe.schedule.find_next_slot_after(slot)
    what = "the probe still fails" if rule == availability.ALERT_RULE_NAME else "the last result still had the problem"
    results = format_count_with_noun(threshold, "more bad result")
    in_a_row = " in a row" if threshold > 1 else ""
    within = format_duration_rounded(slot - now)
    return f"{what}: another incident opens after {results}{in_a_row} (within about {within})"
