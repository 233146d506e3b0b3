"""Does what is to be done about findings by itself: as configured, within limits, and told of."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from watchdog.probes.base import Probe
from watchdog.queues import Reach
from watchdog.remedies import RUN, Cause
from watchdog.service.clock import Clock
from watchdog.service.storage import Storage
from watchdog.store.remedies import Case, Remedies, Wanted
from watchdog.wire import Mask, Trace, Wire, cap, harmless
from watchdog.wire.faults import Fault, fault_of
from watchdog.words import span

log = structlog.get_logger()

PATIENCE = 10.0
"""Seconds that a remedy may take."""
DETAIL = 300
"""Characters that are kept of what came of it."""


class Remedying:
    def __init__(
        self, store: Remedies, storage: Storage, probes: Mapping[int, Probe], wire: Wire, mask: Mask, clock: Clock
    ):
        """`probes`: those that have a remedy."""
        self.store, self.storage, self.probes = store, storage, probes
        self.wire, self.mask, self.clock = wire, mask, clock
        self._acts = {id: probe.act for id, probe in probes.items() if probe.act is not None}
        self._wanted = {
            id: Wanted(self._text(act.shown), r.reasons, r.most, r.every)
            for id, act in self._acts.items()
            if (r := probes[id].remedy) is not None
        }

    async def remedy(self) -> None:
        """Do what is to be done, one thing after another. What we are stopped in is not done again."""
        while case := await self.storage.write(self.store.begin, self._wanted, self.clock()):
            probe = self.probes[case.probe]
            told = {"probe": probe.key, "subject": case.subject, "reason": case.reason, "incident": case.incident}
            log.info("remedy_begun", what=self._wanted[case.probe].what, **told)
            detail, state = await self._try(probe, case)
            await self.storage.write(self.store.end, case, state, detail, self.clock())
            log.info("remedy_ended", state=state, detail=detail, **told)

    async def _try(self, probe: Probe, case: Case) -> tuple[str, str]:
        """What came of it, and how it ended."""
        dry = probe.remedy is not None and probe.remedy.dry_run
        try:
            async with asyncio.timeout(PATIENCE):
                said = await self._apply(probe, case, dry=dry)
        except TimeoutError:
            return f"no end within {span(PATIENCE * 1000)}: what came of it is not known", "failed"
        except Exception as e:
            fault = fault_of(e)
            if fault is None:
                log.exception("remedy_failed_internally", probe=probe.key)
            said = fault.message if fault else f"{type(e).__name__} inside Watchdog; please report it"
            return self._text(said), "failed"
        return self._text(said), "tried" if dry else "done"

    async def _apply(self, probe: Probe, case: Case, *, dry: bool) -> str:
        act = self._acts[case.probe]
        cause = Cause(case.run, case.subject, case.reason, probe.key, case.incident)
        if RUN in act.parameters and not case.run:
            raise Fault("no_run", "no run is under way, or its id is not told: there is nothing to name")
        reach = Reach(self.wire, Trace(), probe.egress, PATIENCE, self.clock())
        return await act.apply(cause, reach, dry=dry)

    def _text(self, text: str) -> str:
        return cap(harmless(self.mask(text)), DETAIL)
