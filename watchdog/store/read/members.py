"""The processes that share the database."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from watchdog.domain.membership import (
    ConfigDefinitionDigestsByRevision,
    LiveWatchdogProcesses,
    WatchdogProcessRecord,
    derive_live_watchdog_processes,
)
from watchdog.domain.text import replace_unstorable_characters
from watchdog.store.tables import check_in_tokens, members, probes, revision_destinations, revision_probes


def load_watchdog_processes(connection: sa.Connection) -> list[WatchdogProcessRecord]:
    """The members that live, and those that ended within ENDED_WATCHDOG_PROCESS_RETENTION_MS."""
    columns = [members.c[name] for name in WatchdogProcessRecord._fields]
    return [WatchdogProcessRecord(*row) for row in connection.execute(sa.select(*columns).order_by(members.c.id))]


def load_config_definition_digests(
    connection: sa.Connection, numbers: Collection[int]
) -> ConfigDefinitionDigestsByRevision:
    """What these revisions have."""

    def load_definitions_by_revision(table: sa.Table, name: str) -> dict[int, dict[str, str]]:
        by_revision: dict[int, dict[str, str]] = {number: {} for number in numbers}
        query = sa.select(table.c.revision, table.c[name], table.c.definition).where(table.c.revision.in_(numbers))
        for revision, key, definition in connection.execute(query):
            by_revision[revision][key] = definition
        return by_revision

    return ConfigDefinitionDigestsByRevision(
        load_definitions_by_revision(revision_probes, "probe_id"),
        load_definitions_by_revision(revision_destinations, "destination"),
    )


def load_live_watchdog_processes(connection: sa.Connection, now: int) -> LiveWatchdogProcesses:
    """The live members, for pages and commands."""
    all_members = load_watchdog_processes(connection)
    return derive_live_watchdog_processes(
        all_members, load_config_definition_digests(connection, {member.revision for member in all_members}), now
    )


def find_probe_id_by_check_in_token_digest(connection: sa.Connection, digest: str, now: int) -> str | None:
    """The id of the probe whose check-in token has this digest; None: it is unknown.

    A token counts while a member lives that has it. After that member has ended, it counts until the probe is retired
    or another member has the probe, with a token of its own.
    """
    query = (
        sa.select(check_in_tokens.c.probe_id, *(members.c[name] for name in WatchdogProcessRecord._fields))
        .join(members, members.c.id == check_in_tokens.c.member)
        .join(probes, probes.c.probe_id == check_in_tokens.c.probe_id)
        .where(check_in_tokens.c.digest == digest, probes.c.removed_at.is_(None))
    )
    live_revisions = {member.revision for member in load_watchdog_processes(connection) if member.is_live(now)}
    for probe_id, *member in connection.execute(query):
        if WatchdogProcessRecord(*member).is_live(now):
            return str(probe_id)
        has_it = revision_probes.c.probe_id == probe_id, revision_probes.c.revision.in_(live_revisions)
        if connection.execute(sa.select(revision_probes.c.revision).where(*has_it).limit(1)).first() is None:
            return str(probe_id)
    return None


def load_database_ids_of_active_probes(connection: sa.Connection, probe_ids: Collection[str]) -> dict[str, int]:
    """Probe id -> database id, of those among these probes that are not retired."""
    storable_ids = [replace_unstorable_characters(id) for id in probe_ids]
    query = sa.select(probes.c.probe_id, probes.c.id).where(
        probes.c.probe_id.in_(storable_ids), probes.c.removed_at.is_(None)
    )
    return {row.probe_id: row.id for row in connection.execute(query)}
