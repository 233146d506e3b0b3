"""Receives check-ins: written to disk before the sender is answered, then stored in batches."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from secrets import token_hex
from typing import Self

import structlog

from watchdog.domain.heartbeat import CheckIn, CheckInKind, ReceivedCheckIn
from watchdog.domain.text import replace_invisible_characters
from watchdog.net import SecretMask
from watchdog.service.check_in_log import CheckInLogError, CheckInWriteAheadLog
from watchdog.service.clock import MAX_CLOCK_DEVIATION_MS, Clock
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.errors import StoreUnavailableError
from watchdog.store.read.members import load_database_ids_of_active_probes
from watchdog.store.write.check_ins import CheckInStore, ProbeCheckIn
from watchdog.store.write.claims import SLOT_CLAIM_AHEAD_MS, SlotClaimer

log = structlog.get_logger()

CHECK_IN_FLUSH_INTERVAL_S = 0.5
"""How often check-ins are stored, as a batch."""
ENDED_PROCESS_CHECK_IN_LOG_SEARCH_INTERVAL_MS = 30_000
"""How often this process looks for check-ins that processes which have ended left on this machine."""
CHECK_IN_BATCH_SIZE = 500
CHECK_IN_FLUSH_TIMEOUT_S = 2.0
"""Limit for storing what is left, at start-up and at shutdown; what remains on disk is stored later."""
MAX_CHECK_IN_OUTPUT_BYTES = 10_240
"""Stored bytes of a job's output: its end."""


class DurableCheckInReceiver:
    """Owns the check-in log, and the thread that writes it.

    A check-in that `accept_check_in` accepted is on disk and reaches the database, possibly after a restart, and
    possibly twice: it is stored once all the same. `flush_check_ins` must run at an interval. `database_id_by_probe`:
    the heartbeats of this process, by probe id; those of other processes are looked up.
    """

    def __init__(
        self,
        *,
        check_in_log: CheckInWriteAheadLog,
        store_executor: StoreExecutor,
        check_in_store: CheckInStore,
        claims: SlotClaimer,
        database_id_by_probe: Mapping[str, int],
        mask: SecretMask,
        clock: Clock,
    ):
        self.check_in_log, self.check_in_store = check_in_log, check_in_store
        self.store_executor, self.claims = store_executor, claims
        self.database_id_by_probe, self.mask, self.clock = database_id_by_probe, mask, clock
        self._disk_executor = ThreadPoolExecutor(1, "check-in-log")
        self._pending: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writing = self._stopping = False
        self._flush_lock = asyncio.Lock()
        self._id_prefix, self._id_counter = token_hex(6), count()
        self._log_unavailable = False
        self._took_over_at = 0

    async def __aenter__(self) -> Self:
        # Before anything is evaluated: an earlier process may have left check-ins on disk.
        await self._flush_within_timeout_ignoring_errors()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        await self._flush_within_timeout_ignoring_errors()
        await asyncio.get_running_loop().run_in_executor(self._disk_executor, self.check_in_log.close)
        self._disk_executor.shutdown()

    async def accept_check_in(self, probe_id: str, received: ReceivedCheckIn) -> bool:
        """Write a check-in to disk. Returns False if that is not possible at present. The output is masked first."""
        if self._stopping:
            return False
        id = f"{self._id_prefix}-{next(self._id_counter):x}"
        check_in = CheckIn(id, **received._asdict() | {"output": self._sanitize_output(received.output)})
        record = json.dumps([probe_id, *check_in], ensure_ascii=False).encode("utf-8", "replace")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((record, done))
        if not self._writing:
            self._append_pending_check_ins_to_log()
        try:
            await done
        except CheckInLogError as e:
            if not self._log_unavailable:
                log.error("check_in_log_unavailable", error=str(e))
            self._log_unavailable = True
            return False
        if self._log_unavailable:
            log.info("check_in_log_recovered")
        self._log_unavailable = False
        return True

    def _sanitize_output(self, output: bytes) -> str:
        if not output:
            return ""
        text = replace_invisible_characters(self.mask(output.decode("utf-8", "replace")))
        return text.encode("utf-8", "replace")[-MAX_CHECK_IN_OUTPUT_BYTES:].decode("utf-8", "ignore")

    def _append_pending_check_ins_to_log(self) -> None:
        """Write everything that arrived while the disk was busy, with one sync."""
        group, self._pending = self._pending, []
        records = [record for record, _ in group]
        self._writing = True
        write = asyncio.get_running_loop().run_in_executor(self._disk_executor, self.check_in_log.append, records)

        def resolve_senders_after_log_write(write: asyncio.Future[None]) -> None:
            error = write.exception()
            for _, written in group:
                if written.done():  # the sender has disconnected
                    continue
                if error is None:
                    written.set_result(None)
                else:
                    written.set_exception(error)
            self._writing = False
            if self._pending:
                self._append_pending_check_ins_to_log()

        write.add_done_callback(resolve_senders_after_log_write)

    async def flush_check_ins(self) -> None:
        """Store what is on disk when this begins. Raises what prevents it."""
        in_disk_thread = asyncio.get_running_loop().run_in_executor
        if not 0 <= (now := self.clock()) - self._took_over_at < ENDED_PROCESS_CHECK_IN_LOG_SEARCH_INTERVAL_MS:
            self._took_over_at = now
            await in_disk_thread(self._disk_executor, self.check_in_log.take_over_abandoned_check_in_logs)
        if not self.database_id_by_probe and not self.check_in_log.is_open:
            return  # no check-in of another process's heartbeat has come yet
        async with self._flush_lock:
            while records := await in_disk_thread(
                self._disk_executor, self.check_in_log.read_check_in_batch, CHECK_IN_BATCH_SIZE
            ):
                urgent_probes = await self._store_check_in_batch_and_list_probes_to_run(
                    await self._parse_check_ins_of_active_probes(records)
                )
                await in_disk_thread(self._disk_executor, self.check_in_log.acknowledge)
                if urgent_probes:  # a run that is already claimed may not see these check-ins: one more runs after it
                    await self._schedule_runs_soon(urgent_probes)
            if self.check_in_log.is_drain_file_fully_stored():
                await self.store_executor.run_write(self.store_executor.database.sync_to_disk)
                await in_disk_thread(self._disk_executor, self.check_in_log.truncate_drained_log_file)

    async def _schedule_runs_soon(self, probes: Iterable[int]) -> None:
        await self.store_executor.run_write_with_now(
            lambda now: self.claims.reschedule_sooner(dict.fromkeys(probes, now + SLOT_CLAIM_AHEAD_MS + 1))
        )

    async def _flush_within_timeout_ignoring_errors(self) -> None:
        with suppress(Exception):
            async with asyncio.timeout(CHECK_IN_FLUSH_TIMEOUT_S):
                await self.flush_check_ins()  # each call empties one of the two files
                await self.flush_check_ins()

    async def _parse_check_ins_of_active_probes(self, records: Iterable[bytes]) -> list[ProbeCheckIn]:
        """The check-ins of probes that are not retired."""
        parsed = [check_in for record in records if (check_in := self._parse_check_in_record(record))]
        database_ids = dict(self.database_id_by_probe)
        if others := {probe_id for probe_id, _ in parsed} - database_ids.keys():
            database_ids |= await self.store_executor.run_read_query(
                lambda c: load_database_ids_of_active_probes(c, others)
            )
            for probe_id in others - database_ids.keys():
                log.warning("check_in_dropped", probe_id=probe_id, detail="the probe is no longer configured")
        return [
            ProbeCheckIn(database_ids[probe_id], check_in) for probe_id, check_in in parsed if probe_id in database_ids
        ]

    def _parse_check_in_record(self, record: bytes) -> tuple[str, CheckIn] | None:
        try:
            probe_id, id, occurred_at, kind, *rest = json.loads(record)
            if self.claims.watermark.generation:  # the clock may have been set back since the check-in was received
                now = self.clock()
                occurred_at = now if occurred_at > now + MAX_CLOCK_DEVIATION_MS else occurred_at
            check_in = CheckIn(id, occurred_at, CheckInKind(kind), *rest)
        except (TypeError, ValueError):
            log.error(
                "check_in_dropped",
                detail="written by another version of Watchdog, in a format that this version cannot read",
            )
            return None
        return str(probe_id), check_in

    async def _store_check_in_batch_and_list_probes_to_run(self, batch: Sequence[ProbeCheckIn]) -> set[int]:
        """Store a batch; if its content is refused, store each check-in by itself and drop those that are refused.

        If every check-in is refused, the content is not the reason, and the whole batch waits. Returns the probes
        that must run soon.
        """
        try:
            return await self.store_executor.run_write(self.check_in_store.save_check_ins_and_list_probes_to_run, batch)
        except StoreUnavailableError:
            raise
        except Exception as e:
            if len(batch) == 1:
                raise
            batch_error = e
        urgent_probes, dropped = set(), 0
        for check_in in batch:
            try:
                urgent_probes |= await self.store_executor.run_write(
                    self.check_in_store.save_check_ins_and_list_probes_to_run, [check_in]
                )
            except StoreUnavailableError:
                raise
            except Exception:
                dropped += 1
        if dropped == len(batch):
            raise batch_error
        log.error("check_ins_dropped", count=dropped, error=type(batch_error).__name__)
        return urgent_probes
