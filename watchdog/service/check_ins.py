"""Check-ins from the door to the database: on disk before anybody is told "ok", then stored in batches."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from secrets import token_hex
from typing import Self

import structlog

from watchdog.beat import CheckIn, Kind
from watchdog.service.clock import Clock
from watchdog.service.spool import Spool, SpoolError
from watchdog.service.storage import Storage
from watchdog.store.check_ins import CheckIns, Told
from watchdog.store.claims import AHEAD, Claims
from watchdog.store.database import away
from watchdog.wire import Mask, harmless

log = structlog.get_logger()

DRAIN = 0.5
"""Seconds in which check-ins gather before they are stored together."""
BATCH = 500
LAST = 2.0
"""Seconds that storing may take before we start and after we were told to stop; what is left is stored later."""
BODY = 10_240
"""Bytes kept of a job's output."""


class Reception:
    """Takes check-ins; whoever runs it calls `drain` every so often. `ids`: the probes that may be meant, by key."""

    def __init__(
        self, spool: Spool, storage: Storage, store: CheckIns, claims: Claims, ids: Mapping[str, int], mask: Mask,
        clock: Clock,
    ):  # fmt: skip
        self.spool, self.storage, self.store, self.claims = spool, storage, store, claims
        self.ids, self.mask, self.clock = ids, mask, clock
        self._disk = ThreadPoolExecutor(1, "spool")
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writing = self._stopping = False
        self._draining = asyncio.Lock()
        self._prefix, self._numbers = token_hex(6), count()
        self._troubled = False

    async def __aenter__(self) -> Self:
        await self._drain_all()  # what an earlier process left is known before anything is judged
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        await self._drain_all()
        await asyncio.get_running_loop().run_in_executor(self._disk, self.spool.close)
        self._disk.shutdown()

    async def take(self, probe: str, kind: Kind, at: int, run: str, code: int | None, body: bytes) -> bool:
        """Keep a check-in. False: it cannot be kept at the moment. It happened `at`; `body` is masked before it is
        written anywhere."""
        if self._stopping:
            return False
        told = CheckIn(f"{self._prefix}-{next(self._numbers):x}", at, kind, run, code, self._output(body))
        record = json.dumps([probe, *told], ensure_ascii=False).encode("utf-8", "replace")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((record, done))
        if not self._writing:
            self._write()
        try:
            await done
        except SpoolError as e:
            if not self._troubled:
                log.error("not_kept", why=str(e))
            self._troubled = True
            return False
        if self._troubled:
            log.info("not_kept_no_more")
        self._troubled = False
        return True

    def _output(self, body: bytes) -> str:
        if not body:
            return ""
        text = harmless(self.mask(body.decode("utf-8", "replace")))
        return text.encode("utf-8", "replace")[-BODY:].decode("utf-8", "ignore")

    def _write(self) -> None:
        """All that came in while the disk was busy, in one go."""
        group, self._waiting = self._waiting, []
        records = [record for record, _ in group]
        self._writing = True
        wrote = asyncio.get_running_loop().run_in_executor(self._disk, self.spool.append, records)

        def done(wrote: asyncio.Future[None]) -> None:
            fault = wrote.exception()
            for _, waiter in group:
                if waiter.done():
                    continue
                if fault is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(fault)
            self._writing = False
            if self._waiting:
                self._write()

        wrote.add_done_callback(done)

    async def drain(self) -> None:
        """Store what was on disk when this began. Raises what keeps us from it."""
        on_disk = asyncio.get_running_loop().run_in_executor
        more = True
        async with self._draining:
            while more and (records := await on_disk(self._disk, self.spool.read, BATCH)):
                hot = await self._store([told for record in records if (told := self._told(record))])
                more = await on_disk(self._disk, self.spool.settled)
                if hot:  # a run that was claimed ahead may not know of them yet: the next comes after it
                    await self.storage.write(self.claims.hasten, dict.fromkeys(hot, self.clock() + AHEAD + 1))

    async def _drain_all(self) -> None:
        with suppress(Exception):
            async with asyncio.timeout(LAST):
                await self.drain()  # the file that was being drained
                await self.drain()

    def _told(self, record: bytes) -> Told | None:
        try:
            probe, id, at, kind, *rest = json.loads(record)
            told = CheckIn(id, at, Kind(kind), *rest)
        except (TypeError, ValueError):
            log.error("check_in_dropped", why="another version of Watchdog kept it, and this one cannot read it")
            return None
        if probe not in self.ids:
            log.warning("check_in_dropped", probe=probe, why="it is no longer configured")
            return None
        return Told(self.ids[probe], told)

    async def _store(self, batch: Sequence[Told]) -> set[int]:
        """Where a batch cannot be stored by what is in it, each check-in is by itself; one that cannot be is dropped,
        unless none can: then it is not for what they say, and all of them wait."""
        try:
            return await self.storage.write(self.store.record, batch)
        except Exception as e:
            if away(e) or len(batch) == 1:
                raise
            fault = e
        hot, dropped = set(), 0
        for told in batch:
            try:
                hot |= await self.storage.write(self.store.record, [told])
            except Exception as e:
                if away(e):
                    raise
                dropped += 1
        if dropped == len(batch):
            raise fault
        log.error("check_ins_dropped", n=dropped, why=type(fault).__name__)
        return hot
