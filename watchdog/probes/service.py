"""The built-in probe `watchdog`: Watchdog observes itself, so that its own faults are found, routed and delivered like
those of a target. It is not configured."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import ClassVar

from pydantic import Field

from watchdog.domain.model import DestinationFacts, Listing, Observation, Outcome
from watchdog.domain.rules import service
from watchdog.probes.base import Probe, RunContext


class ServiceProbe(Probe):
    """Observes whether the receivers get their notifications."""

    kind: ClassVar[str] = service.PROBE_KIND
    cards: ClassVar[tuple[str, ...]] = ()

    name: str = "Watchdog"
    id: str = service.PROBE_ID
    load_destination_facts: Callable[[], Awaitable[Mapping[str, DestinationFacts]]] = Field(exclude=True)
    """Reads the facts about every configured destination."""

    @property
    def target(self) -> str:
        return "its own receivers"

    async def observe(self, context: RunContext) -> Observation:
        facts = await self.load_destination_facts()
        subjects = {service.receiver_subject(destination): each for destination, each in facts.items()}
        listings = {service.RULE_NAME: Listing(context.started_at, subjects)}
        return Observation(Outcome.PASS, listings=listings)
