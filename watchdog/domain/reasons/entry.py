"""The form of a catalogue entry."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class ReasonCategory(Enum):
    """What a reason explains. Each scope is a section of docs/reasons.md, in this order."""

    FAILURE = "fail"
    """A run's outcome is `fail`: the target is not right."""
    ERROR = "error"
    """A run's outcome is `error`: Watchdog could not judge the target."""
    MISSED = "missed"
    """A slot passed without a run."""
    RULE_FINDING_OTHER_THAN_OUTCOME = "finding"
    """A rule found a problem that is not the run's own outcome."""
    NO_DATA = "no_data"
    """A rule found that results are missing."""
    RESOLUTION = "resolution"
    """An incident ended although its finding did not recover."""
    DELIVERY = "delivery"
    """A notification was not delivered."""
    REMEDIATION = "remediation"
    """A remediation failed."""
    ACCESS = "access"
    """A request to the operator pages was refused."""


@dataclass(frozen=True, slots=True)
class ReasonEntry:
    """One entry of the catalogue."""

    scope: ReasonCategory
    code: str
    """`family.cause`. The cause `*` stands for every other cause of the family, `4xx` for every status of the class."""
    title: str
    """A few words for labels and headings: "Connection refused"."""
    explanation: str
    """What happened, in Markdown."""
    advice: str = ""
    """What to do about it, in Markdown; empty: nothing."""
    sentence: str = ""
    """The template of the message; its placeholders are facts. Empty: the message is composed where the facts are, or
    there is none."""
    sentence_for_several: str = ""
    """The beginning of the message about several tasks, jobs or tools that have the problem, which are named after it:
    "{count} tasks are stale". Empty: the problem has no such subjects."""

    @property
    def may_be_remediated(self) -> bool:
        """Whether a remediation may be configured for it: it makes a finding bad, and a run has just shown it."""
        return self.scope in (ReasonCategory.FAILURE, ReasonCategory.RULE_FINDING_OTHER_THAN_OUTCOME)
