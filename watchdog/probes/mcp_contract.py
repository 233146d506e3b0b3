"""Compares what an MCP server offers with its accepted contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from watchdog.domain.mcp_contract.changes import ContractChange
from watchdog.domain.mcp_contract.contract import McpContract
from watchdog.domain.mcp_contract.contract_comparison import compare_contracts
from watchdog.domain.mcp_contract.drift import (
    ContractReview,
    DiscoveryOutcome,
    DriftMode,
    ObservedContract,
    build_contract_state_updates,
    review_compared_contract,
    review_contract_without_comparison,
)
from watchdog.domain.mcp_contract.stored import AcceptedContractRecord, StoredContract
from watchdog.domain.model import Json, Observation, Outcome, SubjectListing
from watchdog.domain.probe_state import NEGOTIATED_MCP_ERA_STATE_KEY
from watchdog.domain.rules import contract as contract_rule
from watchdog.probes.base import ProbeAttemptContext

if TYPE_CHECKING:
    from watchdog.net.mcp import McpSessionResult

MAX_CONTRACT_CHANGES_IN_EVIDENCE = 20
CONTRACT_CHANGES_EVIDENCE_KEY = "contract_changes"


class SessionContract(NamedTuple):
    """What a session shows of the contract of its server."""

    digest: str
    contract: McpContract
    """Limited in size; without tools if it is the accepted one."""


def build_session_contract(session: McpSessionResult, accepted_digest: str) -> SessionContract:
    """`session`: with its large results unpacked."""
    tools: dict[str, Json] = {}
    for tool in session.tools:
        other = tools.get(tool.name, tool.definition)  # of several with one name, always the same
        tools[tool.name] = min(tool.definition, other, key=repr) if tool.name in tools else tool.definition
    contract = McpContract(
        session.protocol_version, session.server_name, session.instructions, session.capabilities, tools
    )
    digest = contract.compute_digest()
    is_accepted = digest == accepted_digest
    return SessionContract(digest, contract._replace(tools={}) if is_accepted else contract.limit_stored_size())


class McpContractReviewer:
    """Reviews the contract that one run observes. What takes long runs in the worker process."""

    def __init__(self, context: ProbeAttemptContext, remembered: Mapping[str, Json], mode: DriftMode) -> None:
        """`remembered`: the state of the probe, without that of another server."""
        self._context, self._mode = context, mode
        self._stored = StoredContract.from_probe_state(remembered)

    @property
    def accepted_digest(self) -> str:
        """Empty: no contract is accepted yet."""
        return "" if self._stored.accepted is None else self._stored.accepted.digest

    async def add_review_to_observation(
        self, observation: Observation, observed: SessionContract, discovery: DiscoveryOutcome
    ) -> Observation:
        """With the deviations as a listing, the changes as evidence, and what is remembered. Raises ProbeError."""
        identity = ObservedContract(
            observed.digest,
            observed.contract.protocol,
            discovery,
            is_good=observation.outcome is Outcome.PASS,
            observed_at=self._context.started_at,
        )
        review = review_contract_without_comparison(self._stored, identity, self._mode)
        if isinstance(review, AcceptedContractRecord):
            masked = observed.contract.map_texts(self._context.mask_secrets)
            changes = await self._context.network.run_cpu_work_inline_or_in_worker(
                self._context.phase_timer, compare_with_accepted_contract, review, masked, in_worker=True
            )
            review = review_compared_contract(review, identity, changes, self._mode)
        updates = build_contract_state_updates(
            self._stored, review, lambda: observed.contract.map_texts(self._context.mask_secrets)
        )
        if review.needs_discovery:
            updates[NEGOTIATED_MCP_ERA_STATE_KEY] = None
        return _add_to_observation(observation, review, updates, self._context.started_at)


def compare_with_accepted_contract(accepted: AcceptedContractRecord, observed: McpContract) -> list[ContractChange]:
    return compare_contracts(accepted.decode_contract(), observed)


def _add_to_observation(
    observation: Observation, review: ContractReview, state_updates: Mapping[str, Json], observed_at: int
) -> Observation:
    listings, evidence = dict(observation.listings), observation.evidence
    if review.deviations:
        listings[contract_rule.ALERT_RULE_NAME] = SubjectListing(observed_at, review.deviations)
    if review.drift is not None:
        changes = review.drift.changes[:MAX_CONTRACT_CHANGES_IN_EVIDENCE]
        texts = [f"{change.label}: {change.text}" for change in changes]
        evidence = replace(evidence, facts={CONTRACT_CHANGES_EVIDENCE_KEY: texts, **evidence.facts})
    return replace(
        observation,
        listings=listings,
        evidence=evidence,
        state_updates={**observation.state_updates, **state_updates},
    )
