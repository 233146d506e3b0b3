"""Does what is to be done about findings by itself: as configured, within limits, and told of."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

import structlog

from watchdog.domain.formatting import format_duration
from watchdog.domain.text import REPLACEMENT_CHARACTER, TRUNCATION_MARK, replace_unsafe_characters, truncate
from watchdog.net import Network, PhaseTimer, SecretMask
from watchdog.net.errors import ProbeError, error_from_exception
from watchdog.net.redact import MASK_PLACEHOLDER
from watchdog.probes.base import Probe
from watchdog.queues import ConnectContext
from watchdog.remediations import RUN_ID_PARAMETER, RemediationContext
from watchdog.service.clock import Clock
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.write.remediations import PendingRemediation, RemediationSpec, RemediationStore

log = structlog.get_logger()

REMEDIATION_TIMEOUT_S = 10.0
"""Seconds that a remedy may take."""
MAX_DETAIL_CHARS = 300
"""Characters that are kept of what came of it."""
ALTERED_TEXT_MARKERS = (MASK_PLACEHOLDER, REPLACEMENT_CHARACTER, TRUNCATION_MARK)
"""What a text holds that is not as its source has it."""


class RemediationRunner:
    def __init__(
        self,
        store: RemediationStore,
        store_executor: StoreExecutor,
        probes: Mapping[int, Probe],
        network: Network,
        mask: SecretMask,
        clock: Clock,
    ):
        """`probes`: those that have a remedy."""
        self.store, self.store_executor, self.probes = store, store_executor, probes
        self.network, self.mask, self.clock = network, mask, clock
        self._actions = {
            id: probe.remediation_action for id, probe in probes.items() if probe.remediation_action is not None
        }
        self._specs = {
            id: RemediationSpec(
                self._sanitize_text(act.description),
                r.expanded_reasons,
                r.max_runs,
                r.per,
                r.dry_run,
                RUN_ID_PARAMETER in act.used_parameters,
            )
            for id, act in self._actions.items()
            if (r := probes[id].remediation) is not None
        }
        self._lock = asyncio.Lock()
        self._stopping = False

    async def run_remediations(self) -> None:
        """Do one thing about each probe that needs it, side by side. What we are killed in is not done again."""
        async with self._lock:
            if self._stopping:
                return
            probes = await self.store_executor.run_write(self.store.list_probes_to_remediate, self._specs, self.clock())
            ended = await asyncio.gather(*map(self._remediate_probe, probes), return_exceptions=True)
        for fault in filter(None, ended):
            raise fault

    async def stop(self, grace_s: float) -> None:
        """Begin nothing more; what is being done may end within so many seconds."""
        self._stopping = True
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s), self._lock:
                pass

    async def _remediate_probe(self, database_id: int) -> None:
        probe, wanted = self.probes[database_id], self._specs[database_id]
        need = await self.store_executor.run_write(self.store.start_next_remediation, database_id, wanted, self.clock())
        if need is None:
            return
        told = {"probe": probe.id, "subject": need.subject, "reason": need.reason, "incident": need.incident}
        log.info("remedy_begun", what=wanted.action, **told)
        detail, state = await self._run_action(probe, need, dry_run=wanted.dry_run)
        await self.store_executor.run_write(self.store.finish_remediation, need, state, detail, self.clock())
        log.info("remedy_ended", state=state, detail=detail, **told)

    async def _run_action(self, probe: Probe, pending: PendingRemediation, *, dry_run: bool) -> tuple[str, str]:
        """What came of it, and how it ended."""
        try:
            async with asyncio.timeout(REMEDIATION_TIMEOUT_S):
                said = await self._apply_action(probe, pending, dry_run=dry_run)
        except TimeoutError:
            return (
                f"no end within {format_duration(REMEDIATION_TIMEOUT_S * 1000)}: what came of it is not known",
                "failed",
            )
        except Exception as e:
            fault = error_from_exception(e)
            if fault is None:
                log.exception("remedy_failed_internally", probe=probe.id)
            said = fault.message if fault else f"{type(e).__name__} inside Watchdog; please report it"
            return self._sanitize_text(said), "failed"
        return self._sanitize_text(said), "dry_run" if dry_run else "succeeded"

    async def _apply_action(self, probe: Probe, pending: PendingRemediation, *, dry_run: bool) -> str:
        act = self._actions[pending.probe]
        cause = RemediationContext(pending.run_id, pending.subject, pending.reason, probe.id, pending.incident)
        for name in act.used_parameters:
            if any(sign in getattr(cause, name) for sign in ALTERED_TEXT_MARKERS):
                raise ProbeError(
                    "remediation.parameter_truncated",
                    f"{name} is not known to the letter: it is too long, or holds what is not shown",
                )
        reach = ConnectContext(
            self.network, PhaseTimer(), probe.allow_private_addresses, REMEDIATION_TIMEOUT_S, self.clock()
        )
        return await act.execute(cause, reach, dry_run=dry_run)

    def _sanitize_text(self, text: str) -> str:
        return truncate(replace_unsafe_characters(self.mask(text)), MAX_DETAIL_CHARS)
