"""The processes that share the database."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from watchdog.domain.membership import Definitions, Member, MembershipStatus, describe_membership
from watchdog.store.tables import members, revision_destinations, revision_probes


def load_members(connection: sa.Connection) -> list[Member]:
    """The members that live, and those that ended within MEMBER_HISTORY_MS."""
    columns = [members.c[name] for name in Member._fields]
    return [Member(*row) for row in connection.execute(sa.select(*columns).order_by(members.c.id))]


def load_definitions(connection: sa.Connection, numbers: Collection[int]) -> Definitions:
    """What these revisions have."""

    def load(table: sa.Table, name: str) -> dict[int, dict[str, str]]:
        by_revision: dict[int, dict[str, str]] = {number: {} for number in numbers}
        query = sa.select(table.c.revision, table.c[name], table.c.definition).where(table.c.revision.in_(numbers))
        for revision, key, definition in connection.execute(query):
            by_revision[revision][key] = definition
        return by_revision

    return Definitions(load(revision_probes, "probe_id"), load(revision_destinations, "destination"))


def load_membership_status(connection: sa.Connection, now: int) -> MembershipStatus:
    """The live members, for pages and commands."""
    all_members = load_members(connection)
    return describe_membership(
        all_members, load_definitions(connection, {member.revision for member in all_members}), now
    )
