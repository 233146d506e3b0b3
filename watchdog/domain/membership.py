"""Which of the processes on one database runs a probe, and when a probe is retired. Pure.

Each process is a member: it has a revision, the number of the content of its configuration, and a lease that it renews.
Among live members the highest revision decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple, TypeVar

from watchdog.domain.formatting import (
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    SECOND_MS,
    format_count_with_noun,
    format_duration_rounded,
)

WATCHDOG_PROCESS_LEASE_MS = 30 * SECOND_MS
"""A member that has not renewed its lease for this long does not live any more."""
PROBE_RETENTION_AFTER_PROCESS_LAPSE_MS = HOUR_MS
"""How long a probe outlives its last member, if that did not leave in order: it may start again."""
ENDED_WATCHDOG_PROCESS_RETENTION_MS = DAY_MS
"""How long a member that has ended is remembered."""
DEREGISTERED_WATCHDOG_PROCESS_RETENTION_MS = HOUR_MS
"""How long a member is remembered that has left in order, by a stop or a reload: what it had is retired by then."""
MAX_TOLERATED_PROCESS_CONFIG_DIFFERENCE_MS = 5 * MINUTE_MS
"""Live members may have different configurations for this long, as in a rolling deploy, without a warning."""

MAX_NAMES_IN_PROCESS_NOTE = 20
"""Probes or destinations that a message names."""

NameT = TypeVar("NameT")


class WatchdogProcessRecord(NamedTuple):
    """A process that shares the database. Instants are by the database's clock."""

    id: str
    revision: int
    started_at: int
    lease_until: int
    """When its lease ends or ended, or when it left."""
    left_in_order: bool = False
    """It has stopped, and did not just fail to renew its lease."""

    def is_live(self, now: int) -> bool:
        return not self.left_in_order and self.lease_until > now


class ConfigDefinitionDigestsByRevision(NamedTuple):
    """What the revisions of members have: by revision, name -> a digest of its definition."""

    probes: Mapping[int, Mapping[str, str]]
    destinations: Mapping[int, Mapping[str, str]]


class LiveProcessWithSupersededDefinitions(NamedTuple):
    """A live member, and what it leaves to others."""

    member: WatchdogProcessRecord
    superseded_probes: Mapping[str, int] = {}
    """Probe id -> the higher live revision that defines it differently, and so runs it."""
    superseded_destinations: Mapping[str, int] = {}
    """Destination -> the higher live revision that defines it differently, and so notifies it."""


class LiveWatchdogProcesses(NamedTuple):
    """The live members at an instant."""

    members: tuple[LiveProcessWithSupersededDefinitions, ...] = ()
    differing_since: int | None = None
    """Since when they have different configurations; None: they have the same."""

    def find_live_process(self, member_id: str) -> LiveProcessWithSupersededDefinitions | None:
        return next((status for status in self.members if status.member.id == member_id), None)


def choose_process_to_run_probe(member_ids: Collection[str], probe_id: str) -> str:
    """The member that runs a probe while members cannot agree through the database: the same for every member that
    knows the same others, and a member that ends changes it for its own probes alone (rendezvous hashing)."""
    return max(member_ids, key=lambda member: blake2b(f"{member}\0{probe_id}".encode(), digest_size=8).digest())


def find_highest_live_config_revision_by_name(
    live: Iterable[int], names: Mapping[int, Iterable[NameT]]
) -> dict[NameT, int]:
    """The highest live revision that has each name. `names`: of probes or destinations, by revision."""
    governing: dict[NameT, int] = {}
    for revision in sorted(live):
        governing |= dict.fromkeys(names.get(revision, ()), revision)
    return governing


def compute_probe_retirement_time(ended_members: Iterable[WatchdogProcessRecord]) -> int:
    """When a probe is retired that only members which have ended had: after the last of them. 0: none is known."""
    last = max(ended_members, key=lambda member: member.lease_until, default=None)
    if last is None:
        return 0
    return last.lease_until + (
        WATCHDOG_PROCESS_LEASE_MS if last.left_in_order else PROBE_RETENTION_AFTER_PROCESS_LAPSE_MS
    )


def find_process_config_difference_start(members: Iterable[WatchdogProcessRecord], now: int) -> int | None:
    """Since when live members have had different revisions without a pause; None: they do not.

    A pause shorter than a lease does not count: a process that crashes and starts again is one and the same.
    """
    members = list(members)
    if len({member.revision for member in members if member.is_live(now)}) < 2:
        return None
    starts = [(member.started_at, 1, member.revision) for member in members]
    ends = [
        (member.lease_until + WATCHDOG_PROCESS_LEASE_MS, -1, member.revision)
        for member in members
        if not member.is_live(now)
    ]
    in_use, since = Counter[int](), None
    for at, change, revision in sorted(starts + ends):
        in_use[revision] += change
        if len(+in_use) < 2:
            since = None
        elif since is None:
            since = at
    return since


def derive_live_watchdog_processes(
    members: Iterable[WatchdogProcessRecord], definitions: ConfigDefinitionDigestsByRevision, now: int
) -> LiveWatchdogProcesses:
    """`members`: all that are known, live or not."""
    members = list(members)
    live = sorted(member for member in members if member.is_live(now))
    revisions = {member.revision for member in live}

    def map_superseded_names_to_governing_revision(
        revision: int, by_revision: Mapping[int, Mapping[str, str]]
    ) -> dict[str, int]:
        governing = find_highest_live_config_revision_by_name(revisions, by_revision)
        own = by_revision.get(revision, {})
        return {name: governing[name] for name in own if by_revision[governing[name]][name] != own[name]}

    statuses = [
        LiveProcessWithSupersededDefinitions(
            member,
            map_superseded_names_to_governing_revision(member.revision, definitions.probes),
            map_superseded_names_to_governing_revision(member.revision, definitions.destinations),
        )
        for member in live
    ]
    return LiveWatchdogProcesses(tuple(statuses), find_process_config_difference_start(members, now))


def list_process_conflict_notes(status: LiveWatchdogProcesses, member_id: str, *, show_names: bool = True) -> list[str]:
    """What operators should know about a member, in sentences; empty if it runs everything that it has.

    `show_names`: name probes, destinations and members.
    """
    own = status.find_live_process(member_id)
    notes: list[str] = []
    if own is not None:
        notes += _list_superseded_definition_notes(own.superseded_probes, "probe", "run", show_names=show_names)
        notes += _list_superseded_definition_notes(
            own.superseded_destinations, "destination", "notified", show_names=show_names
        )
    return notes


def _list_superseded_definition_notes(
    revision_by_name: Mapping[str, int], noun: str, verb: str, *, show_names: bool
) -> Iterator[str]:
    for revision in sorted(set(revision_by_name.values())):
        names = [name for name, governing in revision_by_name.items() if governing == revision]
        listed = f": {_join_names_with_limit(names)}" if show_names else ""
        are = "is" if len(names) == 1 else "are"
        count = format_count_with_noun(len(names), noun)
        yield f"{count} of this process {are} {verb} by processes with the newer revision {revision}{listed}"


def _join_names_with_limit(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_NAMES_IN_PROCESS_NOTE]) + (", ..." if len(names) > MAX_NAMES_IN_PROCESS_NOTE else "")


def describe_process_config_revisions(status: LiveWatchdogProcesses) -> str:
    """Which member has which revision."""
    return _join_names_with_limit([f"{member.id} has revision {member.revision}" for member, *_ in status.members])


def format_process_config_difference_warning(status: LiveWatchdogProcesses, now: int) -> str:
    """That live members have had different configurations for too long; empty if they do not."""
    if status.differing_since is None or now - status.differing_since <= MAX_TOLERATED_PROCESS_CONFIG_DIFFERENCE_MS:
        return ""
    since = format_duration_rounded(now - status.differing_since)
    revisions = describe_process_config_revisions(status)
    return f"processes on one database have had different configurations for {since}: {revisions}"
