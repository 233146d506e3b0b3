"""Which probes fail at present, by the results of this process, whether they are stored or not."""

from __future__ import annotations

from collections.abc import Container

from watchdog.domain.model import Outcome, ProbeResult
from watchdog.domain.rules import contract, task, tool

_RULE_NAMES_THAT_MAY_DEGRADE = {task.ALERT_RULE_NAME, tool.ALERT_RULE_NAME, contract.ALERT_RULE_NAME}


class NewestVerdicts:
    """Owns the newest outcome of each probe."""

    def __init__(self) -> None:
        self._not_passing_probes = set[int]()
        self._newest_verdicts = dict[int, Outcome]()

    def note_result(self, result: ProbeResult) -> bool:
        """Returns whether the result is bad, or may end something bad, and so must be recorded at once."""
        probe, outcome = result.probe, result.outcome
        good = outcome is Outcome.PASS
        may_be_degraded = not _RULE_NAMES_THAT_MAY_DEGRADE.isdisjoint(result.listings)
        is_urgent = not good or probe in self._not_passing_probes or may_be_degraded
        (self._not_passing_probes.discard if good else self._not_passing_probes.add)(probe)
        if outcome in (Outcome.PASS, Outcome.FAIL):
            self._newest_verdicts[probe] = outcome
        return is_urgent

    def list_failing_probes(self) -> list[int]:
        """The probes whose newest verdict is `fail`."""
        return [probe for probe, outcome in self._newest_verdicts.items() if outcome is Outcome.FAIL]

    def forget_other_probes(self, probes: Container[int]) -> None:
        """Keep these probes alone."""
        self._not_passing_probes = {id for id in self._not_passing_probes if id in probes}
        self._newest_verdicts = {id: verdict for id, verdict in self._newest_verdicts.items() if id in probes}
