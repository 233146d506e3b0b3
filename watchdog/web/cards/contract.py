"""The contract of an MCP server: how the server differs from what was accepted, and a form to accept that."""

from __future__ import annotations

from dataclasses import dataclass

from watchdog.domain.mcp_contract.changes import ContractChange, ContractChangeClass
from watchdog.domain.mcp_contract.stored import AcceptedContractRecord, ContractAcceptanceRecord, ContractDriftRecord
from watchdog.domain.model import HealthState
from watchdog.store.read.contracts import load_probe_contract
from watchdog.web.cards.base import ProbeCardLoadContext, ProbePageCardType

_STATE_BY_CHANGE_CLASS = {
    ContractChangeClass.BREAKING: HealthState.DEGRADED,
    ContractChangeClass.ADDITIVE: HealthState.UP,
    ContractChangeClass.NOTICE: HealthState.UNKNOWN,
}
"""The glyph and colour of a change. A suspicious text has those of a breaking one."""


@dataclass(frozen=True, slots=True)
class ContractCardRow:
    change: ContractChange
    state: HealthState


@dataclass(frozen=True, slots=True)
class ContractCard:
    accepted: AcceptedContractRecord
    accepted_by: str
    """ "Ana (page)"; "itself": no person has accepted it."""
    drift: ContractDriftRecord | None
    """None: the server offers what was accepted."""
    rows: tuple[ContractCardRow, ...]
    acceptance: ContractAcceptanceRecord | None
    """Who has accepted the difference; the next run carries it out. None: no one."""


def load_contract_card(context: ProbeCardLoadContext) -> ContractCard | None:
    contract = load_probe_contract(context.connection, context.probe_database_id)
    if contract is None or contract.stored.accepted is None:
        return None
    accepted, drift = contract.stored.accepted, contract.stored.drift
    return ContractCard(
        accepted,
        f"{accepted.name} ({accepted.through})" if accepted.name else "itself",
        drift,
        tuple(map(_build_row, drift.changes if drift else ())),
        contract.stored.acceptance if contract.stored.is_drift_accepted else None,
    )


def _build_row(change: ContractChange) -> ContractCardRow:
    state = HealthState.DEGRADED if change.suspicion else _STATE_BY_CHANGE_CLASS[change.change_class]
    return ContractCardRow(change, state)


PROBE_PAGE_CARD = ProbePageCardType("cards/contract.j2", load_contract_card)
