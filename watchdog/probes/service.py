"""The built-in probe `watchdog`: Watchdog observes itself, so that its own faults are found, routed and delivered like
those of a target. It is not configured."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import ClassVar

from pydantic import Field

from watchdog.domain.model import Observation, Outcome, SubjectListing
from watchdog.domain.rules import service
from watchdog.domain.rules.service import WatchdogFaultFacts
from watchdog.probes.base import Probe, ProbeAttemptContext


class WatchdogSelfProbe(Probe):
    """Observes whether the receivers get their notifications, and whether the processes agree on the configuration."""

    kind: ClassVar[str] = service.WATCHDOG_SELF_PROBE_KIND
    cards: ClassVar[tuple[str, ...]] = ()

    name: str = "Watchdog"
    id: str = service.WATCHDOG_SELF_PROBE_ID
    load_facts: Callable[[], Awaitable[Mapping[str, WatchdogFaultFacts]]] = Field(exclude=True)
    """Reads the facts, by the subjects of `domain/rules/service.py`."""

    @property
    def target(self) -> str:
        return "its own receivers and processes"

    async def observe(self, context: ProbeAttemptContext) -> Observation:
        listings = {service.ALERT_RULE_NAME: SubjectListing(context.started_at, await self.load_facts())}
        return Observation(Outcome.PASS, listings=listings)
