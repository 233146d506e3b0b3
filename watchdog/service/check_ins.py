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

from watchdog.domain.heartbeat import CheckIn, CheckInKind
from watchdog.domain.text import replace_unsafe_characters
from watchdog.net import SecretMask
from watchdog.service.check_in_log import CheckInLog, CheckInLogError
from watchdog.service.clock import Clock
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.errors import StoreUnavailableError
from watchdog.store.write.check_ins import CheckInStore, ProbeCheckIn
from watchdog.store.write.claims import CLAIM_AHEAD_MS, SlotClaimer

log = structlog.get_logger()

CHECK_IN_FLUSH_INTERVAL_S = 0.5
"""Seconds in which check-ins gather before they are stored together."""
CHECK_IN_BATCH_SIZE = 500
CHECK_IN_FLUSH_TIMEOUT_S = 2.0
"""Seconds that storing may take before we start and after we were told to stop; what is left is stored later."""
MAX_OUTPUT_BYTES = 10_240
"""Bytes kept of a job's output."""


class CheckInReceiver:
    """Takes check-ins; whoever runs it calls `drain` every so often. `ids`: the probes that may be meant, by key."""

    def __init__(
        self,
        check_in_log: CheckInLog,
        store_executor: StoreExecutor,
        check_in_store: CheckInStore,
        claims: SlotClaimer,
        probe_by_id: Mapping[str, int],
        mask: SecretMask,
        clock: Clock,
    ):
        self.check_in_log, self.store_executor, self.check_in_store, self.claims = (
            check_in_log,
            store_executor,
            check_in_store,
            claims,
        )
        self.probe_by_id, self.mask, self.clock = probe_by_id, mask, clock
        self._disk_executor = ThreadPoolExecutor(1, "spool")
        self._pending: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writing = self._stopping = False
        self._flush_lock = asyncio.Lock()
        self._id_prefix, self._id_counter = token_hex(6), count()
        self._log_unavailable = False

    async def __aenter__(self) -> Self:
        await self._flush_all()  # what an earlier process left is known before anything is judged
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        await self._flush_all()
        await asyncio.get_running_loop().run_in_executor(self._disk_executor, self.check_in_log.close)
        self._disk_executor.shutdown()

    async def accept_check_in(
        self, probe_id: str, kind: CheckInKind, occurred_at: int, run_id: str, exit_code: int | None, output: bytes
    ) -> bool:
        """Keep a check-in. False: it cannot be kept at the moment. It happened `at`; `body` is masked before it is
        written anywhere."""
        if self._stopping:
            return False
        told = CheckIn(
            f"{self._id_prefix}-{next(self._id_counter):x}",
            occurred_at,
            kind,
            run_id,
            exit_code,
            self._sanitize_output(output),
        )
        record = json.dumps([probe_id, *told], ensure_ascii=False).encode("utf-8", "replace")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((record, done))
        if not self._writing:
            self._write_pending()
        try:
            await done
        except CheckInLogError as e:
            if not self._log_unavailable:
                log.error("not_kept", why=str(e))
            self._log_unavailable = True
            return False
        if self._log_unavailable:
            log.info("not_kept_no_more")
        self._log_unavailable = False
        return True

    def _sanitize_output(self, output: bytes) -> str:
        if not output:
            return ""
        text = replace_unsafe_characters(self.mask(output.decode("utf-8", "replace")))
        return text.encode("utf-8", "replace")[-MAX_OUTPUT_BYTES:].decode("utf-8", "ignore")

    def _write_pending(self) -> None:
        """All that came in while the disk was busy, in one go."""
        group, self._pending = self._pending, []
        records = [record for record, _ in group]
        self._writing = True
        wrote = asyncio.get_running_loop().run_in_executor(self._disk_executor, self.check_in_log.append, records)

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
            if self._pending:
                self._write_pending()

        wrote.add_done_callback(done)

    async def flush_check_ins(self) -> None:
        """Store what was on disk when this began. Raises what keeps us from it."""
        on_disk = asyncio.get_running_loop().run_in_executor
        more = True
        async with self._flush_lock:
            while more and (
                records := await on_disk(self._disk_executor, self.check_in_log.read_batch, CHECK_IN_BATCH_SIZE)
            ):
                hot = await self._store_batch([told for record in records if (told := self._parse_record(record))])
                more = await on_disk(self._disk_executor, self.check_in_log.acknowledge)
                if hot:  # a run that was claimed ahead may not know of them yet: the next comes after it
                    await self.store_executor.run_write(
                        self.claims.reschedule_sooner, dict.fromkeys(hot, self.clock() + CLAIM_AHEAD_MS + 1)
                    )

    async def _flush_all(self) -> None:
        with suppress(Exception):
            async with asyncio.timeout(CHECK_IN_FLUSH_TIMEOUT_S):
                await self.flush_check_ins()  # the file that was being drained
                await self.flush_check_ins()

    def _parse_record(self, record: bytes) -> ProbeCheckIn | None:
        try:
            probe, id, at, kind, *rest = json.loads(record)
            told = CheckIn(id, at, CheckInKind(kind), *rest)
        except (TypeError, ValueError):
            log.error("check_in_dropped", why="another version of Watchdog kept it, and this one cannot read it")
            return None
        if probe not in self.probe_by_id:
            log.warning("check_in_dropped", probe=probe, why="it is no longer configured")
            return None
        return ProbeCheckIn(self.probe_by_id[probe], told)

    async def _store_batch(self, batch: Sequence[ProbeCheckIn]) -> set[int]:
        """Where a batch cannot be stored by what is in it, each check-in is by itself; one that cannot be is dropped,
        unless none can: then it is not for what they say, and all of them wait."""
        try:
            return await self.store_executor.run_write(self.check_in_store.save_check_ins, batch)
        except StoreUnavailableError:
            raise
        except Exception as e:
            if len(batch) == 1:
                raise
            fault = e
        hot, dropped = set(), 0
        for told in batch:
            try:
                hot |= await self.store_executor.run_write(self.check_in_store.save_check_ins, [told])
            except StoreUnavailableError:
                raise
            except Exception:
                dropped += 1
        if dropped == len(batch):
            raise fault
        log.error("check_ins_dropped", n=dropped, why=type(fault).__name__)
        return hot
