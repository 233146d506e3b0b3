"""The contracts of MCP servers as JSON. Instants are ISO 8601 in UTC."""

from __future__ import annotations

from pydantic import with_config
from typing_extensions import TypedDict

from watchdog.api.serializers.results import FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG
from watchdog.domain.formatting import format_iso8601
from watchdog.domain.mcp_contract.changes import ContractChange
from watchdog.domain.mcp_contract.stored import AcceptedContractRecord, ContractAcceptanceRecord, StoredContract
from watchdog.store.write.contract_acceptances import AcceptedContractDrift


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class ContractAcceptanceJson(TypedDict):
    """Who has accepted a contract."""

    at: str
    by: str
    """The name of the person or of the API key; empty: it was accepted by itself."""
    through: str
    """Where it was done, such as page, cli or api; empty: it was accepted by itself."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class ContractChangeJson(TypedDict):
    """A difference from the accepted contract. Texts of the server are untrusted."""

    effect: str
    """breaking: a call that was valid may be refused; additive: every such call is still valid; notice: only texts
    differ."""
    is_certain: bool
    """False: it cannot be decided whether valid calls are refused, so the change counts as breaking."""
    part: str
    """What it is about: protocol, capabilities, server, instructions or tools."""
    text: str
    before: str
    after: str
    suspicion: str
    """Why the new text may be an instruction to a model; empty: it is not suspicious."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class ContractDriftJson(TypedDict):
    """How a server differs from its accepted contract."""

    digest: str
    """Of what the server offers now. An act that states it accepts nothing else."""
    since: str
    protocol: str
    change_count: int
    changes: list[ContractChangeJson]
    """The first 100, breaking ones first."""
    acceptance: ContractAcceptanceJson | None
    """null: no one has accepted it. Otherwise the next run of the probe ends it."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class ProbeContractJson(TypedDict):
    """What is stored of the contract of an MCP server."""

    probe: str
    """The id of the probe."""
    protocol: str | None
    """The version of MCP of the accepted contract; null: no contract is accepted yet."""
    accepted: ContractAcceptanceJson | None
    drift: ContractDriftJson | None
    """null: the server offers what was accepted."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class AcceptedContractDriftJson(TypedDict):
    """Changes that are accepted, starting with the next run of the probe."""

    probe: str
    """The id of the probe."""
    digest: str
    """Of the contract that is accepted."""
    change_count: int
    acceptance: ContractAcceptanceJson
    """The one that applies: the first stays."""


def serialize_probe_contract(probe_id: str, stored: StoredContract) -> ProbeContractJson:
    accepted, drift = stored.accepted, stored.drift
    return {
        "probe": probe_id,
        "protocol": None if accepted is None else accepted.protocol,
        "accepted": None if accepted is None else _serialize_acceptance(accepted),
        "drift": None
        if drift is None
        else {
            "digest": drift.digest,
            "since": format_iso8601(drift.since),
            "protocol": drift.protocol,
            "change_count": drift.change_count,
            "changes": list(map(_serialize_contract_change, drift.changes)),
            "acceptance": _serialize_acceptance(stored.acceptance)
            if stored.acceptance and stored.is_drift_accepted
            else None,
        },
    }


def serialize_accepted_contract_drift(accepted: AcceptedContractDrift) -> AcceptedContractDriftJson:
    return {
        "probe": accepted.probe_id,
        "digest": accepted.drift.digest,
        "change_count": accepted.drift.change_count,
        "acceptance": _serialize_acceptance(accepted.acceptance),
    }


def _serialize_acceptance(record: AcceptedContractRecord | ContractAcceptanceRecord) -> ContractAcceptanceJson:
    return {"at": format_iso8601(record.accepted_at), "by": record.name, "through": record.through}


def _serialize_contract_change(change: ContractChange) -> ContractChangeJson:
    return {
        "effect": change.change_class.value,
        "is_certain": change.is_certain,
        "part": change.part.value,
        "text": change.text,
        "before": change.before,
        "after": change.after,
        "suspicion": change.suspicion,
    }
