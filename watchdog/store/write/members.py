"""Membership: which process runs which probe, when several share the database with different configurations."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from watchdog.domain.config_changes import ConfigSectionSnapshot
from watchdog.domain.formatting import SECOND_MS
from watchdog.domain.maintenance_windows import ConfiguredMaintenanceWindow
from watchdog.domain.membership import (
    WATCHDOG_PROCESS_LEASE_MS,
    ConfigDefinitionDigestsByRevision,
    LiveWatchdogProcesses,
    WatchdogProcessRecord,
    compute_probe_retirement_time,
    derive_live_watchdog_processes,
    find_highest_live_config_revision_by_name,
    find_process_config_difference_start,
)
from watchdog.domain.registered_probe import EMPTY_NOTIFICATION_ROUTING_TABLE, RegisteredProbe
from watchdog.domain.routing import NotificationRoutingTable
from watchdog.domain.transitions import TransitionKind
from watchdog.store.codec import encode_config_section_snapshots, encode_notification_routing_table
from watchdog.store.database import Database
from watchdog.store.read.members import load_config_definition_digests, load_watchdog_processes
from watchdog.store.read.registered_probes import load_active_probes
from watchdog.store.tables import (
    END_OF_TIME_MS,
    check_in_tokens,
    members,
    probes,
    revision_destinations,
    revision_probes,
    revisions,
    watermarks,
)
from watchdog.store.write.pauses import follow_configured_pauses
from watchdog.store.write.probe_registry import InMemoryProbeRegistry, index_probes_by_id
from watchdog.store.write.probe_rows import (
    PROBE_REGISTRATION_LOCK_KEY,
    mark_probes_removed_keep_schedule,
    mark_probes_retired,
    postpone_first_slots,
    schedule_immediate_deadline_evaluation,
    stop_alerting_for_retired_probes,
    upsert_probes,
)
from watchdog.store.write.transitions import record_transition
from watchdog.store.write.watermark import load_claim_watermark

WATCHDOG_PROCESS_LEASE_RENEWAL_INTERVAL_MS = 10 * SECOND_MS
"""How often a member renews its lease."""


@dataclass(frozen=True, slots=True)
class WatchdogProcessConfiguration:
    """What a process brings to the database."""

    digest: str
    """Equal for configurations with the same content."""
    probes: Sequence[RegisteredProbe] = ()
    routes: NotificationRoutingTable = EMPTY_NOTIFICATION_ROUTING_TABLE
    destinations: Mapping[str, str] = field(default_factory=dict)
    """Destination -> a digest of how it is notified."""
    check_in_tokens: Mapping[str, str] = field(default_factory=dict)
    """Digest of a token -> probe id."""
    sections: Mapping[str, ConfigSectionSnapshot] = field(default_factory=dict)
    """The sections that count as content, except for the probes, to compare configurations."""
    own_sections: Mapping[str, ConfigSectionSnapshot] = field(default_factory=dict)
    """Those that concern this process alone."""
    maintenance_windows: Sequence[ConfiguredMaintenanceWindow] = ()


class WatchdogProcessMembership:
    """This process as a member, and with it the probes that it may run.

    Owns `members`, `revisions` and what belongs to them, and the rows of probes that follow from the configuration: the
    highest live revision that has a probe decides about it. `now` is by the database's clock.
    """

    def __init__(self, database: Database, member_id: str, configuration: WatchdogProcessConfiguration, location: str):
        self.database, self.member_id, self.configuration, self.location = database, member_id, configuration, location
        self.registry = InMemoryProbeRegistry(configuration.probes)
        self.revision = 0
        self.status = LiveWatchdogProcesses()
        """The members as of the last renewal."""
        self._started_at = self._renewed_at = self._next_change_at = self._next_retirement_at = 0
        self._registered_with: frozenset[WatchdogProcessRecord] = frozenset()
        """The members with which the probes were last updated, without the leases of those that lived. Empty: the next
        renewal updates them."""
        self._has_left = False

    def join(self, now: int) -> None:
        """Become a member, and register the probes of this process."""
        self._started_at = now
        with self.database.open_write_transaction() as connection:
            self.database.acquire_advisory_lock(connection, PROBE_REGISTRATION_LOCK_KEY)
            self.revision = self._register_config_revision(connection, now)
        self._update_processes_and_probes(now, joining=True)

    def postpone_first_slots(self, now: int) -> None:
        """Let the new probes of this process start now that all of them are registered, and not when the first was."""
        postpone_first_slots(self.database, self.registry, self.location, now)

    def change_configuration(self, configuration: WatchdogProcessConfiguration, now: int) -> None:
        """Leave in order with the former configuration, and join with another one. If this raises, the former one
        stays, and the next renewal registers it again."""
        if self._has_left:
            return
        former = self.configuration, self.registry.configured, self.revision, self._started_at
        try:
            with self.database.open_write_transaction() as connection:
                self.database.acquire_advisory_lock(connection, PROBE_REGISTRATION_LOCK_KEY)
                self._keep_record_of_left_revision(connection, set(configuration.check_in_tokens.values()), now)
                self.configuration = configuration
                self.revision = self._register_config_revision(connection, now)
            self.registry.configured = index_probes_by_id(configuration.probes)
            self._started_at = now
            self._update_processes_and_probes(now, joining=True, is_reload=True)
        except BaseException:
            self.configuration, self.registry.configured, self.revision, self._started_at = former
            self._registered_with, self._renewed_at = (
                frozenset(),
                0,
            )  # renewed at once: the database may have stored the other one all the same
            raise

    def _keep_record_of_left_revision(self, connection: sa.Connection, heartbeats: set[str], now: int) -> None:
        """Keep the row of this member, as one that has left in order: what only its configuration has is retired one
        lease from now, and until then accepts check-ins. `heartbeats`: the probes that keep no former token."""
        own, left = members.c.id == self.member_id, f"{self.member_id}/r{self.revision}"
        if connection.execute(sa.select(members.c.id).where(own)).first() is None:
            return  # an earlier attempt has done so
        for table, column in ((members, members.c.id), (check_in_tokens, check_in_tokens.c.member)):
            connection.execute(sa.delete(table).where(column == left))
        is_own_token = check_in_tokens.c.member == self.member_id
        connection.execute(sa.delete(check_in_tokens).where(is_own_token, check_in_tokens.c.probe_id.in_(heartbeats)))
        connection.execute(sa.update(check_in_tokens).where(is_own_token).values(member=left))
        connection.execute(sa.update(members).where(own).values(id=left, lease_until=now, left_in_order=True))

    def is_process_lease_renewal_due(self, connection: sa.Connection, now: int) -> bool:
        """Whether `renew` has something to do. Reads only."""
        if (
            not self._renewed_at
            <= now
            < min(self._renewed_at + WATCHDOG_PROCESS_LEASE_RENEWAL_INTERVAL_MS, self._next_change_at)
        ):
            return True
        live = [member for member in load_watchdog_processes(connection) if member.is_live(now)]
        return {member.id for member in live} != {member.id for member, *_ in self.status.members}

    def renew_process_lease_and_update_probes(self, now: int) -> None:
        """Renew the lease, take over the probes whose member has ended, and retire those that no member has."""
        if not self._has_left and not self._renew_lease_if_members_are_same(now):
            self._update_processes_and_probes(now)

    def _renew_lease_if_members_are_same(self, now: int) -> bool:
        """Renew the lease alone: which probes there are follows from the members and their revisions. With many probes,
        an update of them would keep everything else from the database for seconds, every ten."""
        with self.database.open_write_transaction() as connection:
            self.database.acquire_advisory_lock(connection, PROBE_REGISTRATION_LOCK_KEY)
            all_members = self._load_all_processes(connection, now)
            is_same = self._registered_with == _identify_members(all_members, now) and now < self._next_retirement_at
            if not is_same or not self._extend_process_lease(connection, now):
                return False
        by_id = {member.id: member for member in all_members}
        live = tuple(status._replace(member=by_id[status.member.id]) for status in self.status.members)
        self.status = LiveWatchdogProcesses(live, find_process_config_difference_start(all_members, now))
        self._note_renewal(all_members, now)
        return True

    def _note_renewal(self, all_members: Iterable[WatchdogProcessRecord], now: int) -> None:
        leases = [member.lease_until for member in all_members if member.is_live(now)]
        self._renewed_at, self._next_change_at = now, min([*leases, self._next_retirement_at])

    def leave(self, now: int) -> None:
        """End the lease, because this process stops: from now on other members decide about its probes."""
        self._has_left = True
        with self.database.open_write_transaction() as connection:
            ended = sa.update(members).where(members.c.id == self.member_id)
            connection.execute(ended.values(lease_until=now, left_in_order=True))

    def is_lowest_live_process(self) -> bool:
        """Whether this member is the lowest of those last known to be live."""
        return self.member_id <= min((status.member.id for status in self.status.members), default=self.member_id)

    def has_newest_definition_of_destination(self, destination: str) -> bool:
        """Whether this member notifies a destination that it has: none with a higher revision defines it otherwise."""
        own = self.status.find_live_process(self.member_id)
        return own is None or destination not in own.superseded_destinations

    def _register_config_revision(self, connection: sa.Connection, now: int) -> int:
        """The number of this configuration; a new one if the database has never seen it."""
        configuration = self.configuration
        content = {
            "routing": encode_notification_routing_table(configuration.routes),
            "sections": encode_config_section_snapshots(configuration.sections),
        }
        query = sa.select(revisions).where(revisions.c.digest == configuration.digest)
        if (known_revision := connection.execute(query).first()) is not None:
            # It may differ because it is masked by other secrets, or was registered by an earlier version.
            if (known_revision.routing, known_revision.sections) != (content["routing"], content["sections"]):
                update = sa.update(revisions).where(revisions.c.number == known_revision.number)
                connection.execute(update.values(**content))
            return int(known_revision.number)
        values = {"digest": configuration.digest, "created_at": now, **content}
        insert = sa.insert(revisions).values(**values).returning(revisions.c.number)
        return int(connection.execute(insert).scalar_one())

    def _update_processes_and_probes(self, now: int, *, joining: bool = False, is_reload: bool = False) -> None:
        with self.database.open_write_transaction() as connection:
            self.database.acquire_advisory_lock(connection, PROBE_REGISTRATION_LOCK_KEY)
            all_members, definitions = self._load_all_processes_and_definitions(connection, now)
            mark_probes_retired(connection, self._list_probes_to_retire(connection, all_members, definitions, now), now)
            mark_probes_removed_keep_schedule(
                connection, self._list_probes_with_changed_kind(connection, all_members, definitions, now), now
            )
        # A crash may have interrupted an earlier removal; a probe that returns has to start without its alert states.
        stop_alerting_for_retired_probes(self.database, now)
        with self.database.open_write_transaction() as connection:
            self.database.acquire_advisory_lock(connection, PROBE_REGISTRATION_LOCK_KEY)
            self._renew_process_lease(connection, now)
            all_members, definitions = self._load_all_processes_and_definitions(connection, now)
            watermark = _initialize_claim_watermark(self.database, connection, now, self.location)
            # A reload follows a claim at once: a slot that became due since then is claimed by the new schedule.
            start = watermark if is_reload else max(now, watermark)
            outdated = self._list_probes_with_outdated_rows(connection, all_members, definitions, now, joining=joining)
            written = upsert_probes(
                self.database,
                connection,
                outdated,
                revision=self.revision,
                start=start,
                location=self.location,
            )
            if is_reload:
                message = f"{self.member_id} uses revision {self.revision} of the configuration"
                record_transition(connection, TransitionKind.RELOADED, now, message=message)
            self.registry.replace_probes(load_active_probes(connection, self.location, self.registry.configured))
        self.status = derive_live_watchdog_processes(all_members, definitions, now)
        self._registered_with = _identify_members(all_members, now)
        names = [registered.info.id for registered in self.registry.values()]
        retirement_times = _compute_probe_retirement_times(names, all_members, definitions, now).values()
        self._next_retirement_at = min(retirement_times, default=END_OF_TIME_MS)
        self._note_renewal(all_members, now)
        schedule_immediate_deadline_evaluation(self.database, written, now)
        follow_configured_pauses(self.database, self.location, outdated, now)

    def _renew_process_lease(self, connection: sa.Connection, now: int) -> None:
        """Extend the lease, or take a new one if this member has been forgotten meanwhile."""
        if self._extend_process_lease(connection, now):
            return
        lease = {"lease_until": now + WATCHDOG_PROCESS_LEASE_MS, "left_in_order": False}
        revision, is_own = self.revision, members.c.id == self.member_id
        connection.execute(sa.delete(members).where(is_own))
        connection.execute(sa.delete(check_in_tokens).where(check_in_tokens.c.member == self.member_id))
        values = {"id": self.member_id, "revision": revision, "started_at": self._started_at, **lease}
        sections = encode_config_section_snapshots(self.configuration.own_sections)
        connection.execute(sa.insert(members).values(**values, sections=sections))
        own_probes = [
            {
                "revision": revision,
                "probe_id": probe_id,
                "definition": registered.definition,
                "content_digest": registered.content_digest,
            }
            for probe_id, registered in self.registry.configured.items()
        ]
        own_destinations = [
            {"revision": revision, "destination": destination, "definition": definition}
            for destination, definition in self.configuration.destinations.items()
        ]
        own_tokens = [
            {"member": self.member_id, "digest": digest, "probe_id": probe_id}
            for digest, probe_id in self.configuration.check_in_tokens.items()
        ]
        for table, rows in (
            (revision_probes, own_probes),
            (revision_destinations, own_destinations),
            (check_in_tokens, own_tokens),
        ):
            if rows:
                insert = self.database.build_insert_statement(table)
                values = {name: insert.excluded[name] for name in rows[0] if name not in table.primary_key.columns}
                connection.execute(
                    insert.on_conflict_do_update(index_elements=list(table.primary_key.columns), set_=values), rows
                )

    def _extend_process_lease(self, connection: sa.Connection, now: int) -> bool:
        """False: this member has been forgotten, or has another revision now."""
        is_own = members.c.id == self.member_id, members.c.revision == self.revision
        extended = (
            sa.update(members).where(*is_own).values(lease_until=now + WATCHDOG_PROCESS_LEASE_MS, left_in_order=False)
        )
        return bool(connection.execute(extended).rowcount)

    def _load_all_processes(self, connection: sa.Connection, now: int) -> list[WatchdogProcessRecord]:
        """All members, this one as a live one."""
        others = [member for member in load_watchdog_processes(connection) if member.id != self.member_id]
        own = WatchdogProcessRecord(self.member_id, self.revision, self._started_at, now + WATCHDOG_PROCESS_LEASE_MS)
        return [*others, own]

    def _load_all_processes_and_definitions(
        self, connection: sa.Connection, now: int
    ) -> tuple[list[WatchdogProcessRecord], ConfigDefinitionDigestsByRevision]:
        """All members, this one as a live one, and what they define."""
        all_members = self._load_all_processes(connection, now)
        definitions = load_config_definition_digests(connection, {member.revision for member in all_members})
        own_probes = {id: registered.definition for id, registered in self.registry.configured.items()}
        return all_members, ConfigDefinitionDigestsByRevision(
            {**definitions.probes, self.revision: own_probes},
            {**definitions.destinations, self.revision: self.configuration.destinations},
        )

    def _list_probes_to_retire(
        self,
        connection: sa.Connection,
        all_members: Collection[WatchdogProcessRecord],
        definitions: ConfigDefinitionDigestsByRevision,
        now: int,
    ) -> list[int]:
        """The probes that no live member has, if that has lasted for long enough."""
        active = sa.select(probes.c.probe_id, probes.c.id).where(probes.c.removed_at.is_(None))
        ids = {row.probe_id: row.id for row in connection.execute(active)}
        had = _compute_probe_retirement_times(ids, all_members, definitions, now)
        return [ids[probe_id] for probe_id, retire_at in had.items() if retire_at <= now]

    def _list_probes_with_changed_kind(
        self,
        connection: sa.Connection,
        all_members: Iterable[WatchdogProcessRecord],
        definitions: ConfigDefinitionDigestsByRevision,
        now: int,
    ) -> list[int]:
        """The probes that this member decides about, and that have another kind so far."""
        own = self._list_probes_this_process_governs(all_members, definitions, now)
        query = sa.select(probes.c.id, probes.c.probe_id, probes.c.kind).where(probes.c.removed_at.is_(None))
        rows = connection.execute(query)
        return [row.id for row in rows if row.probe_id in own and row.kind != own[row.probe_id].info.kind]

    def _list_probes_with_outdated_rows(
        self,
        connection: sa.Connection,
        all_members: Iterable[WatchdogProcessRecord],
        definitions: ConfigDefinitionDigestsByRevision,
        now: int,
        *,
        joining: bool,
    ) -> list[RegisteredProbe]:
        """The probes that this member decides about, and whose rows are from another revision; all if it joins."""
        own = self._list_probes_this_process_governs(all_members, definitions, now)
        query = sa.select(probes.c.probe_id, probes.c.revision).where(probes.c.removed_at.is_(None))
        current = {row.probe_id: row.revision for row in connection.execute(query)}
        return [
            registered for probe_id, registered in own.items() if joining or current.get(probe_id, 0) != self.revision
        ]

    def _list_probes_this_process_governs(
        self, all_members: Iterable[WatchdogProcessRecord], definitions: ConfigDefinitionDigestsByRevision, now: int
    ) -> dict[str, RegisteredProbe]:
        """The probes of which this member has the highest live revision."""
        live = {member.revision for member in all_members if member.is_live(now)}
        governing = find_highest_live_config_revision_by_name(live, definitions.probes)
        configured = self.registry.configured
        return {probe_id: configured[probe_id] for probe_id in configured if governing[probe_id] == self.revision}


def _identify_members(all_members: Iterable[WatchdogProcessRecord], now: int) -> frozenset[WatchdogProcessRecord]:
    """The members without the leases of those that live, which are renewed all the time."""
    return frozenset(member._replace(lease_until=0) if member.is_live(now) else member for member in all_members)


def _compute_probe_retirement_times(
    probe_ids: Iterable[str],
    all_members: Collection[WatchdogProcessRecord],
    definitions: ConfigDefinitionDigestsByRevision,
    now: int,
) -> dict[str, int]:
    """When each probe that no live member has is to be retired."""
    live = {member.revision for member in all_members if member.is_live(now)}
    governed = find_highest_live_config_revision_by_name(live, definitions.probes)
    orphans = [probe_id for probe_id in probe_ids if probe_id not in governed]
    return {
        probe_id: compute_probe_retirement_time(
            member for member in all_members if probe_id in definitions.probes[member.revision]
        )
        for probe_id in orphans
    }


def _initialize_claim_watermark(database: Database, connection: sa.Connection, now: int, location: str) -> int:
    """Start the watermark at `now` if the location has none; returns the watermark."""
    insert = database.build_insert_statement(watermarks).values(location=location, claimed_until=now)
    connection.execute(insert.on_conflict_do_nothing())
    return load_claim_watermark(connection, location)
