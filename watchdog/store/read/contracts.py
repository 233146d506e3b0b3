"""What is stored of the contracts of MCP servers. Every page, command and tool reads them here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from watchdog.domain.mcp_contract.stored import MCP_CONTRACT_STATE_KEYS, MCP_PROBE_KIND, StoredContract
from watchdog.domain.model import Json, ProbeInfo
from watchdog.store.codec import decode_probe_info
from watchdog.store.json_text import decode_nullable_json
from watchdog.store.tables import probe_state, probes


class ProbeContract(NamedTuple):
    """The contract of the server of one probe."""

    probe: ProbeInfo
    stored: StoredContract

    @property
    def status_label(self) -> str:
        """ "changed", "as accepted"."""
        if self.stored.drift is None:
            return "as accepted"
        return "accepted, from the next run on" if self.stored.is_drift_accepted else "changed"

    @property
    def is_to_be_accepted(self) -> bool:
        return self.stored.drift is not None and not self.stored.is_drift_accepted


def list_probe_contracts(connection: Connection, database_ids: Collection[int] | None = None) -> list[ProbeContract]:
    """Of every configured probe that has a contract, or of those with these database ids; by name."""
    query = (
        sa.select(probes.c.id, probes.c.info, probe_state.c.key, probe_state.c.value)
        .join(probe_state, probe_state.c.probe == probes.c.id)
        .where(probes.c.removed_at.is_(None), probes.c.kind == MCP_PROBE_KIND)
        .where(probe_state.c.key.in_(MCP_CONTRACT_STATE_KEYS))
        .order_by(probes.c.name, probes.c.id)
    )
    if database_ids is not None:
        query = query.where(probes.c.id.in_(list(database_ids)))
    infos: dict[int, ProbeInfo] = {}
    states: dict[int, dict[str, Json]] = defaultdict(dict)
    for row in connection.execute(query):
        infos[row.id] = infos.get(row.id) or decode_probe_info(row.id, row.info)
        states[row.id][row.key] = decode_nullable_json(row.value)
    return [ProbeContract(info, StoredContract.from_probe_state(states[id])) for id, info in infos.items()]


def load_probe_contract(connection: Connection, database_id: int) -> ProbeContract | None:
    """None: the probe has no contract."""
    return next(iter(list_probe_contracts(connection, [database_id])), None)
