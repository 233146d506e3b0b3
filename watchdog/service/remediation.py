"""Runs the remediations of open incidents: as configured, within limits, and recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

import structlog

from watchdog.domain.formatting import format_duration
from watchdog.domain.remediation_attempts import RemediationAttemptState
from watchdog.domain.text import (
    REPLACEMENT_CHARACTER,
    TRUNCATION_NOTE_PREFIX,
    replace_invisible_characters,
    truncate_with_note,
)
from watchdog.net import NetworkAccess, PhaseTimer, SecretMask
from watchdog.net.errors import ProbeError, build_probe_error_from_exception
from watchdog.net.redact import MASK_PLACEHOLDER
from watchdog.probes.base import Probe
from watchdog.queues import QueueConnectContext
from watchdog.remediations import JOB_RUN_ID_REMEDIATION_PARAMETER, RemediationAction, RemediationParameters
from watchdog.service.clock import Clock
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.write.remediations import PendingRemediation, ProbeRemediationPolicy, RemediationStore

log = structlog.get_logger()

REMEDIATION_TIMEOUT_S = 10.0
MAX_REMEDIATION_DETAIL_CHARS = 300
ALTERED_TEXT_MARKERS = (MASK_PLACEHOLDER, REPLACEMENT_CHARACTER, TRUNCATION_NOTE_PREFIX)
"""Marks in a text that show that it was masked, decoded with errors, or truncated."""


class RemediationRunner:
    """Runs at most one remediation for each probe at a time, different probes concurrently.

    A remediation is stored as started before it runs, and finished afterwards: it runs at most once for an incident,
    a reason and a run of a job. After a crash in between it is not run again; the incident shows that its outcome is
    unknown.
    """

    def __init__(
        self,
        *,
        store: RemediationStore,
        store_executor: StoreExecutor,
        probes: Mapping[int, Probe],
        network: NetworkAccess,
        mask: SecretMask,
        clock: Clock,
    ):
        self.store, self.store_executor = store, store_executor
        self.network, self.mask, self.clock = network, mask, clock
        self._lock = asyncio.Lock()
        self._stopping = False
        self.change_probes(probes)

    @property
    def has_remediation_actions(self) -> bool:
        """Whether a probe has a remediation."""
        return bool(self._actions)

    def change_probes(self, probes: Mapping[int, Probe]) -> None:
        """Remediate these probes from now on. What is in progress goes on."""
        self.probes = probes
        self._actions = {
            id: probe.remediation_action for id, probe in probes.items() if probe.remediation_action is not None
        }
        self._specs = {
            id: ProbeRemediationPolicy(
                action=self._sanitize_text(action.description),
                reason_patterns=settings.reason_patterns,
                max_runs=settings.max_runs,
                per_ms=settings.per,
                dry_run=settings.dry_run,
                requires_run_id=JOB_RUN_ID_REMEDIATION_PARAMETER in action.used_parameters,
            )
            for id, action in self._actions.items()
            if (settings := probes[id].remediation) is not None
        }

    async def run_pending_remediations(self) -> None:
        """Run the next remediation of each probe that has a pending one."""
        async with self._lock:
            if self._stopping or not self._specs:
                return
            probes = await self.store_executor.run_write_with_now(
                lambda now: self.store.list_probes_to_remediate(self._specs, now)
            )
            errors = await asyncio.gather(*map(self._remediate_probe, probes), return_exceptions=True)
        for error in filter(None, errors):
            raise error

    async def stop(self, grace_s: float) -> None:
        """Start nothing more; remediations in progress may finish within `grace_s` seconds."""
        self._stopping = True
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s), self._lock:
                pass

    async def _remediate_probe(self, database_id: int) -> None:
        probe, spec, action = self.probes.get(database_id), self._specs.get(database_id), self._actions.get(database_id)
        if probe is None or spec is None or action is None:
            return  # a reload has just removed it
        pending = await self.store_executor.run_write_with_now(
            lambda now: self.store.mark_next_remediation_started(database_id, spec, now)
        )
        if pending is None:
            return
        fields = {
            "probe_id": probe.id,
            "subject": pending.subject,
            "reason": pending.reason,
            "incident": pending.incident,
        }
        log.info("remediation_started", action=spec.action, **fields)
        detail, state = await self._execute_remediation_action_safely(action, probe, pending, dry_run=spec.dry_run)
        await self.store_executor.run_write_with_now(
            lambda now: self.store.store_remediation_result(pending, state, detail, now)
        )
        log.info("remediation_finished", state=state, detail=detail, **fields)

    async def _execute_remediation_action_safely(
        self, action: RemediationAction, probe: Probe, pending: PendingRemediation, *, dry_run: bool
    ) -> tuple[str, RemediationAttemptState]:
        """Returns the detail and the state to store."""
        try:
            async with asyncio.timeout(REMEDIATION_TIMEOUT_S):
                detail = await self._execute_remediation_action_or_raise(action, probe, pending, dry_run=dry_run)
        except TimeoutError:
            timeout = format_duration(REMEDIATION_TIMEOUT_S * 1000)
            return f"not finished after {timeout}; its outcome is unknown", RemediationAttemptState.FAILED
        except Exception as e:
            error = build_probe_error_from_exception(e)
            if error is None:
                log.exception("remediation_error", probe_id=probe.id)
            detail = error.message if error else f"{type(e).__name__} inside Watchdog; please report this"
            return self._sanitize_text(detail), RemediationAttemptState.FAILED
        return self._sanitize_text(
            detail
        ), RemediationAttemptState.DRY_RUN if dry_run else RemediationAttemptState.SUCCEEDED

    async def _execute_remediation_action_or_raise(
        self, action: RemediationAction, probe: Probe, pending: PendingRemediation, *, dry_run: bool
    ) -> str:
        context = RemediationParameters(pending.run_id, pending.subject, pending.reason, probe.id, pending.incident)
        for name in action.used_parameters:
            if any(marker in getattr(context, name) for marker in ALTERED_TEXT_MARKERS):
                raise ProbeError(
                    "remediation.parameter_truncated",
                    f"the exact value of {name} is not stored: it was truncated, or contains a masked secret",
                )
        network = self.network.route_by(
            probe.build_routing_change(allow_private_addresses=probe.allow_private_addresses)
        )
        connect = QueueConnectContext(
            network, PhaseTimer(), probe.allow_private_addresses, REMEDIATION_TIMEOUT_S, self.clock()
        )
        return await action.execute(context, connect, dry_run=dry_run)

    def _sanitize_text(self, text: str) -> str:
        masked = self.network.mask_tokens(self.mask(text))
        return truncate_with_note(replace_invisible_characters(masked), MAX_REMEDIATION_DETAIL_CHARS)
