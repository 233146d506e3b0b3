"""Drift of an MCP server from the contract that people have accepted: what a run finds, and what is remembered.

The first good run of a server is accepted by itself, and so is that of each newer version of the protocol, unless it
brings texts that strongly suggest instructions to a model. So is a difference that is not reported, once it has lasted
for a day. Every other difference is reported until a person accepts it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum, StrEnum
from typing import NamedTuple

from watchdog.domain.formatting import DAY_MS
from watchdog.domain.mcp_contract.changes import (
    MAX_LISTED_CONTRACT_CHANGES,
    ContractChange,
    ContractChangeClass,
    ContractPart,
    summarize_texts,
)
from watchdog.domain.mcp_contract.contract import McpContract
from watchdog.domain.mcp_contract.stored import (
    MCP_CONTRACT_DRIFT_STATE_KEY,
    MCP_CONTRACT_STATE_KEY,
    AcceptedContractRecord,
    ContractDriftRecord,
    StoredContract,
)
from watchdog.domain.model import Json
from watchdog.domain.observations import McpContractDeviationFacts

UNREPORTED_DRIFT_ACCEPTED_AFTER_MS = DAY_MS
FIRST_PROTOCOL_WITH_DISCOVERY = "2026-07-28"
"""The first version that is not negotiated by `initialize`. A server may support it and older ones."""
SUSPICIOUS_TEXTS_SUBJECT = "texts"
_REASONS_BY_PART = {
    ContractPart.PROTOCOL: ("mcp.downgraded", "mcp.contract_changed"),
    ContractPart.CAPABILITIES: ("mcp.capability_lost", "mcp.contract_changed"),
    ContractPart.SERVER: ("mcp.contract_changed", "mcp.renamed"),
    ContractPart.INSTRUCTIONS: ("mcp.contract_changed", "mcp.contract_changed"),
    ContractPart.TOOLS: ("mcp.contract_breaking", "mcp.contract_changed"),
}
"""The reason if a change is breaking, and if none is."""


class DriftMode(StrEnum):
    """Which differences are reported."""

    BREAKING = "breaking"
    """Those that refuse valid calls, and new texts that strongly suggest instructions to a model."""
    ANY = "any"


class DiscoveryOutcome(Enum):
    """Whether a session shows that the server supports FIRST_PROTOCOL_WITH_DISCOVERY."""

    DECIDED = "decided"
    UNANSWERED = "unanswered"
    """The server has not answered in time, and then to the older request: it may only be slow."""
    NOT_REQUESTED = "not_requested"
    """The session began with the older request, which an earlier session had to use. The server may have been upgraded
    since then."""


class ObservedContract(NamedTuple):
    """What a run has found."""

    digest: str
    protocol: str
    discovery: DiscoveryOutcome
    is_good: bool
    """The run has passed."""
    observed_at: int
    """Epoch ms."""


class ContractReview(NamedTuple):
    """What a run leads to."""

    deviations: Mapping[str, McpContractDeviationFacts]
    """What is reported, by subject."""
    drift: ContractDriftRecord | None
    """What is remembered of the differences from now on."""
    newly_accepted: AcceptedContractRecord | None = None
    """The observed contract is the accepted one from now on. Without the contract itself."""
    needs_discovery: bool = False
    """The next session has to find out anew whether the server supports the newer protocol."""


def review_contract_without_comparison(
    stored: StoredContract, observed: ObservedContract, mode: DriftMode
) -> ContractReview | AcceptedContractRecord:
    """The review, or the accepted contract with which the observed one has to be compared for it."""
    accepted, drift = stored.accepted, stored.drift
    if accepted is None:
        return _accept_by_itself(observed) if observed.is_good else ContractReview({}, drift)
    is_newer = observed.protocol > accepted.protocol
    if is_newer and not observed.is_good:
        return _review_without_evidence(stored, mode)
    if observed.digest == accepted.digest:
        return ContractReview({}, None)
    is_older = observed.protocol < accepted.protocol and accepted.protocol >= FIRST_PROTOCOL_WITH_DISCOVERY
    if is_older and observed.discovery is not DiscoveryOutcome.DECIDED:
        return _review_without_evidence(stored, mode)
    if drift is None or drift[:2] != (observed.digest, accepted.digest):
        if (
            observed.discovery is DiscoveryOutcome.NOT_REQUESTED and not is_newer
        ):  # an upgraded server may have changed with that
            return _review_without_evidence(stored, mode)._replace(needs_discovery=True)
        return accepted
    if stored.acceptance is not None and stored.is_drift_accepted:
        by = stored.acceptance
        record = AcceptedContractRecord(observed.digest, observed.protocol, by.accepted_at, by.name, by.through)
        return ContractReview({}, None, record)
    return _review_drift(observed, drift, mode)


def _review_without_evidence(stored: StoredContract, mode: DriftMode) -> ContractReview:
    """What was reported before still is."""
    drift = stored.drift
    is_reported = drift is not None and not stored.is_drift_accepted
    return ContractReview(describe_deviations(drift.changes, mode) if drift and is_reported else {}, drift)


def review_compared_contract(
    accepted: AcceptedContractRecord, observed: ObservedContract, changes: Sequence[ContractChange], mode: DriftMode
) -> ContractReview:
    """`changes`: of the observed contract from the accepted one."""
    if not changes:  # only the spelling of the schemas differs
        return ContractReview({}, None, accepted._replace(digest=observed.digest))
    if observed.protocol > accepted.protocol and not any(change.is_suspicion_strong for change in changes):
        return _accept_by_itself(observed)
    drift = ContractDriftRecord(
        digest=observed.digest,
        accepted_digest=accepted.digest,
        since=observed.observed_at,
        protocol=observed.protocol,
        change_count=len(changes),
        changes=tuple(changes[:MAX_LISTED_CONTRACT_CHANGES]),
    )
    return _review_drift(observed, drift, mode)


def build_contract_state_updates(
    stored: StoredContract, review: ContractReview, get_contract: Callable[[], McpContract]
) -> dict[str, Json]:
    """`get_contract`: the observed contract, masked and limited in size. It is called only if it is to be stored."""
    updates: dict[str, Json] = {}
    if review.newly_accepted is not None:
        updates[MCP_CONTRACT_STATE_KEY] = review.newly_accepted.with_contract(get_contract()).to_json()
    if review.drift != stored.drift:
        updates[MCP_CONTRACT_DRIFT_STATE_KEY] = None if review.drift is None else review.drift.to_json()
    return updates


def _review_drift(observed: ObservedContract, drift: ContractDriftRecord, mode: DriftMode) -> ContractReview:
    deviations = describe_deviations(drift.changes, mode)
    has_lasted = observed.observed_at - drift.since >= UNREPORTED_DRIFT_ACCEPTED_AFTER_MS
    if not deviations and has_lasted and observed.is_good:
        return _accept_by_itself(observed)
    # While a downgrade is reported, so that its end is noticed.
    is_downgraded = any(
        change.part is ContractPart.PROTOCOL and change.before >= max(FIRST_PROTOCOL_WITH_DISCOVERY, change.after)
        for change in drift.changes
    )
    return ContractReview(deviations, drift, needs_discovery=is_downgraded)


def _accept_by_itself(observed: ObservedContract) -> ContractReview:
    record = AcceptedContractRecord(observed.digest, observed.protocol, observed.observed_at)
    return ContractReview({}, None, record)


def describe_deviations(changes: Iterable[ContractChange], mode: DriftMode) -> dict[str, McpContractDeviationFacts]:
    """What is reported, by subject: a part of the contract, or its suspicious texts."""
    suspicious: list[ContractChange] = []
    by_part: dict[ContractPart, list[ContractChange]] = defaultdict(list)
    for change in changes:
        if change.suspicion and (change.is_suspicion_strong or mode is DriftMode.ANY):
            suspicious.append(change)
        elif mode is DriftMode.ANY or change.change_class is ContractChangeClass.BREAKING:
            by_part[change.part].append(change)
    deviations = {part.value: _describe_part(part, reported) for part, reported in sorted(by_part.items())}
    if suspicious:
        deviations[SUSPICIOUS_TEXTS_SUBJECT] = _describe_with_reason("mcp.suspicious_text", suspicious)
    return deviations


def _describe_part(part: ContractPart, changes: list[ContractChange]) -> McpContractDeviationFacts:
    """If there are breaking changes, these alone are named."""
    reason_if_breaking, reason = _REASONS_BY_PART[part]
    if breaking := [change for change in changes if change.change_class is ContractChangeClass.BREAKING]:
        return _describe_with_reason(reason_if_breaking, breaking)
    return _describe_with_reason(reason, changes)


def _describe_with_reason(reason: str, changes: list[ContractChange]) -> McpContractDeviationFacts:
    summary = summarize_texts([change.text for change in changes])
    return McpContractDeviationFacts(reason, summary)
