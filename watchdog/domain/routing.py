"""Which destinations are notified of an incident, and why. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from watchdog.domain.escalation import EscalationStep
from watchdog.domain.flapping import FLAPPING_ROUTING_LOG_PREFIX
from watchdog.domain.formatting import format_duration
from watchdog.domain.message_grouping import GROUPING_ROUTING_LOG_PREFIX, LabelGrouping, get_label_values_of_probe
from watchdog.domain.model import ProbeInfo, Severity
from watchdog.domain.reasons import matches_reason_pattern
from watchdog.domain.rules import service

ROUTING_LOG_ROUTE_NOTIFIES_TEXT = " matches: notifies "
ROUTING_LOG_EVERY_RECEIVER_NOTIFIED_TEXT = "every receiver is notified: "
ESCALATION_NOTIFIES_TEXT = ", it escalates to "
NO_ROUTE_MATCHES_TEXT = "no route matches: no one is notified"
NO_RECEIVERS_TEXT = "no receivers are configured: no one is notified"
_PAST_TEXTS = {
    NO_ROUTE_MATCHES_TEXT: "no route matched when it opened: no one was notified",
    NO_RECEIVERS_TEXT: "no receivers were configured when it opened: no one was notified",
}
MUTING_ROUTING_LOG_PREFIX = "muting: "
"""Of steps about notifications that are held back. They may contain the name of a probe, and notify no one."""
SILENCE_ROUTING_LOG_PREFIX = "silenced by "
"""The id of the silence follows."""
_HOLD_AND_GROUPING_PREFIXES = (
    *(MUTING_ROUTING_LOG_PREFIX, SILENCE_ROUTING_LOG_PREFIX),
    *(GROUPING_ROUTING_LOG_PREFIX, FLAPPING_ROUTING_LOG_PREFIX),
)
"""Of steps about when a notification is sent, and not about whom it notifies."""


@dataclass(frozen=True, slots=True)
class ProbeMatcher:
    """Selects probes. An empty field matches every probe; a probe must have all of `tags`."""

    severity: Severity | None = None
    tags: frozenset[str] = frozenset()
    group: str = ""
    kind: str = ""
    probe: str = ""
    """A probe's id or name."""

    def describe_mismatch(self, probe: ProbeInfo) -> str:
        """Why the probe does not match, in words; empty if it matches."""
        if self.severity is not None and probe.severity is not self.severity:
            return f"severity is {probe.severity}, not {self.severity}"
        if missing := sorted(self.tags - set(probe.tags)):
            return f"no tag {', '.join(missing)}"
        for field in ("group", "kind"):
            expected, actual = getattr(self, field), getattr(probe, field)
            if expected and expected != actual:
                return f"{field} is {actual or 'empty'}, not {expected}"
        if self.probe and self.probe not in (probe.id, probe.name):
            return f"probe is {probe.id}, not {self.probe}"
        return ""


@dataclass(frozen=True, slots=True)
class NotificationRoute:
    """Which receivers are notified of the incidents of some probes."""

    receivers: tuple[str, ...]
    match: ProbeMatcher = ProbeMatcher()
    continue_matching: bool = False
    """Evaluate the routes after this one as well."""
    reason_patterns: tuple[str, ...] = ()
    """Reasons and families of reasons of the incidents; empty: all."""
    escalation_steps: tuple[EscalationStep, ...] = ()
    """Further receivers that are notified later."""
    group_by: tuple[str, ...] | None = None
    """The labels by which its incidents share messages (ALLOWED_GROUP_BY_LABELS); None: it does not group them."""
    group_wait_ms: int = 0
    """How long the first message of a group waits for further incidents."""

    def describe_mismatch(self, probe: ProbeInfo, reason: str) -> str:
        """Why the route does not apply to an incident, in words; empty if it applies. An empty reason: any."""
        if mismatch := self.match.describe_mismatch(probe):
            return mismatch
        if (
            not reason
            or not self.reason_patterns
            or any(matches_reason_pattern(pattern, reason) for pattern in self.reason_patterns)
        ):
            return ""
        return f"reason is {reason}, not {' or '.join(self.reason_patterns)}"

    def list_all_receivers(self) -> tuple[str, ...]:
        """Those that are notified at once, and those of its steps."""
        return (*self.receivers, *(name for step in self.escalation_steps for name in step.receivers))

    def build_label_grouping(self, probe: ProbeInfo) -> LabelGrouping | None:
        """How it groups the incidents of a probe; None: it does not."""
        if self.group_by is None:
            return None
        labels = get_label_values_of_probe(probe, self.group_by)
        matcher = self.match
        matched = matcher.severity, sorted(matcher.tags), matcher.group, matcher.kind, matcher.probe
        key = json.dumps([*matched, self.reason_patterns, labels], sort_keys=True)
        return LabelGrouping(blake2b(key.encode(), digest_size=16).hexdigest(), labels, self.group_wait_ms)

    def stops_route_evaluation(self, reason: str) -> bool:
        """Whether no route after this one is evaluated once it applies. An empty reason: for every reason."""
        return not self.continue_matching and bool(reason or not self.reason_patterns)


def list_evaluated_routes_with_mismatches(
    routes: Sequence[NotificationRoute], probe: ProbeInfo, reason: str = ""
) -> Iterator[tuple[int, str]]:
    """The routes that are evaluated for incidents of a probe with this reason, by default with any reason, in order:
    index, and why it does not match; empty: it applies."""
    for index, route in enumerate(routes):
        mismatch = route.describe_mismatch(probe, reason)
        yield index, mismatch
        if not mismatch and route.stops_route_evaluation(reason):
            return


@dataclass(frozen=True, slots=True)
class RoutingDecision:
    """The destinations that are notified, and each step of the decision in words."""

    destinations: tuple[str, ...]
    routing_log: tuple[str, ...]


class DestinationEscalationStep(NamedTuple):
    """A step that leads to a destination."""

    destination: str
    step: EscalationStep
    route_number: int
    """From 1."""

    def describe(self) -> str:
        """What the step has done, as a step of a routing log."""
        unless = ", not acknowledged" if self.step.unless_acknowledged else ""
        after = f"{format_duration(self.step.after_ms)} after the opening{unless}"
        return f"route {self.route_number}: {after}{ESCALATION_NOTIFIES_TEXT}{self.destination.partition('/')[0]}"


def state_routing_step_in_past(step: str) -> str:
    """A step of the routing log of an incident: what was true when it opened may have changed since."""
    return _PAST_TEXTS.get(step, step)


def explain_routing_of_destination(routing_log: Sequence[str], destination: str, *, is_notified: bool) -> str:
    """Why a destination is notified or not, in the words of `RoutingDecision.routing_log`: the step that decided it, or
    all steps if they left it out together. One that the steps name, but that was not notified, was added later."""
    receiver, was_added_later = destination.partition("/")[0], False
    for step in routing_log:
        if step.startswith(_HOLD_AND_GROUPING_PREFIXES):
            continue
        texts = ROUTING_LOG_ROUTE_NOTIFIES_TEXT, ESCALATION_NOTIFIES_TEXT
        _, _, names = step.partition(
            next((text for text in texts if text in step), ROUTING_LOG_EVERY_RECEIVER_NOTIFIED_TEXT)
        )
        is_named = receiver in names.split(", ")
        if is_named if is_notified else step.startswith(f"{destination} is left out"):
            return step
        was_added_later |= is_named or ROUTING_LOG_EVERY_RECEIVER_NOTIFIED_TEXT in step
    if was_added_later and not is_notified:
        return "it was added after the incident opened, and is notified of later incidents"
    return "; ".join(step for step in routing_log if not step.startswith(_HOLD_AND_GROUPING_PREFIXES))


@dataclass(frozen=True, slots=True)
class NotificationRoutingTable:
    """Decides which destinations are notified of an incident.

    Routes are evaluated in order. The first that matches applies; those after it only as long as each that applies has
    `continue_matching`. Without routes, every receiver is notified.
    """

    receivers: Mapping[str, tuple[str, ...]]
    """Destinations by receiver."""
    routes: tuple[NotificationRoute, ...] = ()
    without_resolved: frozenset[str] = frozenset()
    """Destinations that are not notified when an incident is resolved."""
    without_reminders: frozenset[str] = frozenset()
    """Destinations that remind people themselves."""

    def decide_routing(self, probe: ProbeInfo, reason: str, failing_destination: str = "") -> RoutingDecision:
        """The same for every incident of the probe with this reason; an empty reason: any. Raises KeyError if a route
        names an unknown receiver.

        Someone is notified of every fault of Watchdog itself: if no route leads to a destination, every destination.
        `failing_destination`: the fault is that this one gets no notifications, so it is left out.
        """
        decision = self._decide_routing_by_routes(probe, reason)
        if probe.kind != service.WATCHDOG_SELF_PROBE_KIND or not self.receivers:
            return decision
        log = decision.routing_log
        others = [name for name in decision.destinations if name != failing_destination]
        if not others:
            others = [name for name in self._list_receiver_destinations(self.receivers) if name != failing_destination]
            another = "another" if failing_destination else "a"
            notified = f"{', '.join(others) or 'no one'} {'are' if len(others) > 1 else 'is'} notified"
            log = *log, f"no route leads to {another} destination: {notified}"
        elif failing_destination:
            log = *log, f"{failing_destination} is left out: the incident is about it"
        return RoutingDecision(tuple(others), log)

    def has_destination(self, destination: str) -> bool:
        """Whether it belongs to a receiver that is configured."""
        return any(destination in destinations for destinations in self.receivers.values())

    def list_escalations(
        self, probe: ProbeInfo, reason: str, failing_destination: str = ""
    ) -> list[DestinationEscalationStep]:
        """The steps of the routes that apply to an incident of the probe with this reason, those that come first
        first. `failing_destination` and KeyError: as for `decide_routing`."""
        escalations = [
            DestinationEscalationStep(destination, step, index + 1)
            for index, mismatch in list_evaluated_routes_with_mismatches(self.routes, probe, reason)
            if not mismatch
            for step in self.routes[index].escalation_steps
            for destination in self._list_receiver_destinations(step.receivers)
            if destination != failing_destination
        ]
        return sorted(escalations, key=lambda escalation: escalation.step.after_ms)

    def find_label_grouping(self, probe: ProbeInfo, reason: str, destination: str) -> LabelGrouping | None:
        """How an incident of the probe with this reason is grouped at a destination: by the first route that applies
        and leads there, at once or by escalation. None: that route does not group, or no route leads there. KeyError as
        for `decide_routing`."""
        for index, mismatch in list_evaluated_routes_with_mismatches(self.routes, probe, reason):
            route = self.routes[index]
            if not mismatch and destination in self._list_receiver_destinations(route.list_all_receivers()):
                return route.build_label_grouping(probe)
        return None

    def list_possible_destinations_of_probe(self, probe: ProbeInfo) -> tuple[str, ...]:
        """Every destination that some incident of the probe leads to, at once or later. Raises KeyError as
        `decide_routing` does."""
        if not self.routes:
            return self._list_receiver_destinations(self.receivers)
        evaluated = list_evaluated_routes_with_mismatches(self.routes, probe)
        applied = [self.routes[index] for index, mismatch in evaluated if not mismatch]
        return self._list_receiver_destinations(name for route in applied for name in route.list_all_receivers())

    def has_route_for_probe(self, probe: ProbeInfo) -> bool:
        """Whether some route applies to incidents of the probe, even if it notifies no one. Without routes, every
        receiver is notified."""
        evaluated = list_evaluated_routes_with_mismatches(self.routes, probe)
        return not self.routes or any(not mismatch for _, mismatch in evaluated)

    def _decide_routing_by_routes(self, probe: ProbeInfo, reason: str) -> RoutingDecision:
        if not self.receivers:
            return RoutingDecision((), (NO_RECEIVERS_TEXT,))
        if not self.routes:
            names = ", ".join(self.receivers)
            log_line = f"no routes are configured: {ROUTING_LOG_EVERY_RECEIVER_NOTIFIED_TEXT}{names}"
            return RoutingDecision(self._list_receiver_destinations(self.receivers), (log_line,))
        applied: list[NotificationRoute] = []
        log: list[str] = []
        for index, mismatch in list_evaluated_routes_with_mismatches(self.routes, probe, reason):
            route, number = self.routes[index], index + 1
            if mismatch:
                log.append(f"route {number} does not match: {mismatch}")
                continue
            applied.append(route)
            only_for = (
                "" if reason or not route.reason_patterns else f" (only for {' or '.join(route.reason_patterns)})"
            )
            log.append(
                f"route {number}{ROUTING_LOG_ROUTE_NOTIFIES_TEXT}{', '.join(route.receivers) or 'no one'}{only_for}"
            )
            if route.stops_route_evaluation(reason) and number < len(self.routes):
                log.append(f"evaluation stops at route {number}")
        if not applied:
            log.append(NO_ROUTE_MATCHES_TEXT)
        destinations = self._list_receiver_destinations(name for route in applied for name in route.receivers)
        return RoutingDecision(destinations, tuple(log))

    def _list_receiver_destinations(self, receivers: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(d for name in receivers for d in self.receivers[name]))
