"""Decisions of people that what an MCP server offers is right. The next run of the probe carries them out."""

from __future__ import annotations

from typing import NamedTuple

from watchdog.domain.acts import Actor, OperatorActKind, OperatorActRefusalReason, OperatorActRefusedError
from watchdog.domain.formatting import format_count_with_noun
from watchdog.domain.mcp_contract.stored import (
    MCP_CONTRACT_ACCEPTANCE_STATE_KEY,
    MCP_PROBE_KIND,
    ContractAcceptanceRecord,
    ContractDriftRecord,
    StoredContract,
)
from watchdog.store import json_text
from watchdog.store.database import Database
from watchdog.store.write.audit import record_operator_act
from watchdog.store.write.probe_rows import load_probe_row_or_refuse, open_probe_act_transaction
from watchdog.store.write.probe_state import load_state_by_probe, upsert_probe_state


class AcceptedContractDrift(NamedTuple):
    """Changes of a contract that a person has accepted."""

    probe_id: str
    probe_name: str
    drift: ContractDriftRecord
    acceptance: ContractAcceptanceRecord
    """The one that applies."""
    is_new: bool
    """False: a person had accepted the same before."""


def accept_contract(
    database: Database, probe: str, digest: str, actor: Actor, comment: str, *, now: int
) -> AcceptedContractDrift:  # fmt: skip
    """`probe`: id or name. `digest`: of the contract that the person has seen; empty: the newest one. Raises
    OperatorActRefusedError if there is no such probe, if its contract has not changed, or if it has changed again. The
    first acceptance stays."""
    with open_probe_act_transaction(database, probe) as connection:
        row = load_probe_row_or_refuse(connection, probe)
        database.lock_probes(connection, [row.id])
        state = load_state_by_probe(connection, [row.id]).get(row.id, {}) if row.kind == MCP_PROBE_KIND else {}
        stored = StoredContract.from_probe_state(state)
        drift = stored.drift
        if drift is None:
            message = f"the contract of {row.name} has not changed"
            if stored.accepted is None:
                message = f"{row.name} has no contract that could have changed"
            raise OperatorActRefusedError(OperatorActRefusalReason.CONFLICT, message)
        if digest not in ("", drift.digest):
            message = f"the contract of {row.name} has changed again: read its changes once more"
            raise OperatorActRefusedError(OperatorActRefusalReason.CONFLICT, message)
        if stored.acceptance is not None and stored.is_drift_accepted:
            return AcceptedContractDrift(row.probe_id, row.name, drift, stored.acceptance, is_new=False)
        acceptance = ContractAcceptanceRecord(
            drift.digest, drift.accepted_digest, now, actor.name, actor.interface.value
        )
        value = json_text.encode_storable_json(acceptance.to_json())
        upsert_probe_state(
            database, connection, [{"probe": row.id, "key": MCP_CONTRACT_ACCEPTANCE_STATE_KEY, "value": value}]
        )
        changes = format_count_with_noun(drift.change_count, "change")
        text = ": ".join(filter(None, (changes, comment)))
        record_operator_act(connection, OperatorActKind.ACCEPT_CONTRACT, actor, now, probe=row.probe_id, comment=text)
        return AcceptedContractDrift(row.probe_id, row.name, drift, acceptance, is_new=True)
