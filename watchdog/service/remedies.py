"""Does what is to be done about findings by itself: as configured, within limits, and told of."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

import structlog

from watchdog.probes.base import Probe
from watchdog.queues import Reach
from watchdog.remedies import RUN, Cause
from watchdog.service.clock import Clock
from watchdog.service.storage import Storage
from watchdog.store.remedies import Need, Remedies, Wanted
from watchdog.wire import Mask, Trace, Wire, cap, harmless
from watchdog.wire.faults import Fault, fault_of
from watchdog.wire.redact import MASKED
from watchdog.words import span

log = structlog.get_logger()

PATIENCE = 10.0
"""Seconds that a remedy may take."""
DETAIL = 300
"""Characters that are kept of what came of it."""
ALTERED = (MASKED, "\N{REPLACEMENT CHARACTER}", "… cut after ")
"""What a text holds that is not as its source has it."""


class Remedying:
    def __init__(
        self, store: Remedies, storage: Storage, probes: Mapping[int, Probe], wire: Wire, mask: Mask, clock: Clock
    ):
        """`probes`: those that have a remedy."""
        self.store, self.storage, self.probes = store, storage, probes
        self.wire, self.mask, self.clock = wire, mask, clock
        self._acts = {id: probe.act for id, probe in probes.items() if probe.act is not None}
        self._wanted = {
            id: Wanted(self._text(act.shown), r.reasons, r.most, r.every, r.dry_run, RUN in act.parameters)
            for id, act in self._acts.items()
            if (r := probes[id].remedy) is not None
        }
        self._busy = asyncio.Lock()
        self._stopping = False

    async def remedy(self) -> None:
        """Do one thing about each probe that needs it, side by side. What we are killed in is not done again."""
        async with self._busy:
            if self._stopping:
                return
            probes = await self.storage.write(self.store.waiting, self._wanted, self.clock())
            ended = await asyncio.gather(*map(self._see_to, probes), return_exceptions=True)
        for fault in filter(None, ended):
            raise fault

    async def stop(self, grace: float) -> None:
        """Begin nothing more; what is being done may end within so many seconds."""
        self._stopping = True
        with suppress(TimeoutError):
            async with asyncio.timeout(grace), self._busy:
                pass

    async def _see_to(self, id: int) -> None:
        probe, wanted = self.probes[id], self._wanted[id]
        need = await self.storage.write(self.store.begin, id, wanted, self.clock())
        if need is None:
            return
        told = {"probe": probe.key, "subject": need.subject, "reason": need.reason, "incident": need.incident}
        log.info("remedy_begun", what=wanted.what, **told)
        detail, state = await self._try(probe, need, dry=wanted.dry)
        await self.storage.write(self.store.end, need, state, detail, self.clock())
        log.info("remedy_ended", state=state, detail=detail, **told)

    async def _try(self, probe: Probe, need: Need, *, dry: bool) -> tuple[str, str]:
        """What came of it, and how it ended."""
        try:
            async with asyncio.timeout(PATIENCE):
                said = await self._apply(probe, need, dry=dry)
        except TimeoutError:
            return f"no end within {span(PATIENCE * 1000)}: what came of it is not known", "failed"
        except Exception as e:
            fault = fault_of(e)
            if fault is None:
                log.exception("remedy_failed_internally", probe=probe.key)
            said = fault.message if fault else f"{type(e).__name__} inside Watchdog; please report it"
            return self._text(said), "failed"
        return self._text(said), "tried" if dry else "done"

    async def _apply(self, probe: Probe, need: Need, *, dry: bool) -> str:
        act = self._acts[need.probe]
        cause = Cause(need.run, need.subject, need.reason, probe.key, need.incident)
        for name in act.parameters:
            if any(sign in getattr(cause, name) for sign in ALTERED):
                raise Fault(
                    "remediation.parameter_truncated", f"{name} is not known to the letter: it is too long, or holds what is not shown"
                )
        reach = Reach(self.wire, Trace(), probe.egress, PATIENCE, self.clock())
        return await act.apply(cause, reach, dry=dry)

    def _text(self, text: str) -> str:
        return cap(harmless(self.mask(text)), DETAIL)
