"""Which destinations hear of an incident, and why. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from watchdog.domain.model import ProbeInfo, Severity


@dataclass(frozen=True, slots=True)
class ProbeMatcher:
    """Which probes something is about. An empty field matches every probe; `tags` needs all of them."""

    severity: Severity | None = None
    tags: frozenset[str] = frozenset()
    group: str = ""
    kind: str = ""
    probe: str = ""
    """A probe's id or name."""

    def describe_mismatch(self, probe: ProbeInfo) -> str:
        """What keeps the probe from matching, in words; empty when it matches."""
        if self.severity is not None and probe.severity is not self.severity:
            return f"severity is {probe.severity}, not {self.severity}"
        if missing := sorted(self.tags - set(probe.tags)):
            return f"without tag {', '.join(missing)}"
        for field in ("group", "kind"):
            wanted, has = getattr(self, field), getattr(probe, field)
            if wanted and wanted != has:
                return f"{field} is {has or 'empty'}, not {wanted}"
        if self.probe and self.probe not in (probe.id, probe.name):
            return f"probe is {probe.id}, not {self.probe}"
        return ""


@dataclass(frozen=True, slots=True)
class Route:
    receivers: tuple[str, ...]
    match: ProbeMatcher = ProbeMatcher()
    continue_matching: bool = False
    """Look at the routes after this one, too."""


@dataclass(frozen=True, slots=True)
class RoutingDecision:
    """Who is told of an incident, and each step of the decision in words."""

    destinations: tuple[str, ...]
    routing_log: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """The routing table. `receivers`: name -> its destinations; `quiet`: destinations that want no `resolved`."""

    receivers: Mapping[str, tuple[str, ...]]
    routes: tuple[Route, ...] = ()
    without_resolved: frozenset[str] = frozenset()

    def decide_routing(self, probe: ProbeInfo) -> RoutingDecision:
        """The first route that matches decides, and those after it as long as each says to go on."""
        if not self.receivers:
            return RoutingDecision((), ("no receivers are configured: nobody is told",))
        if not self.routes:
            everyone = tuple(self.receivers)
            return RoutingDecision(
                self._collect_destinations(everyone), (f"no routes: every receiver is told: {', '.join(everyone)}",)
            )
        applied: list[Route] = []
        why: list[str] = []
        for number, route in enumerate(self.routes, 1):
            if miss := route.match.describe_mismatch(probe):
                why.append(f"route {number} does not match: {miss}")
                continue
            applied.append(route)
            why.append(f"route {number} matches: {', '.join(route.receivers) or 'nobody'} told")
            if not route.continue_matching:
                if number < len(self.routes):
                    why.append(f"route {number} does not continue")
                break
        if not applied:
            why.append("no route matches: nobody is told")
        return RoutingDecision(
            self._collect_destinations(name for route in applied for name in route.receivers), tuple(why)
        )

    def _collect_destinations(self, receivers: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(d for name in receivers for d in self.receivers[name]))
