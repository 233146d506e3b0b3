"""What people on call do: the one place that pages, commands, the API, Slack and tools call.

Each act checks its input, is stored in one transaction with an entry in the audit log, and takes effect in all
processes on the database. All of them raise OperatorActRefusedError, whose message a person can act on, and
StoreUnavailableError.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from hashlib import blake2b
from typing import NamedTuple, Protocol, TypeVar
from uuid import uuid4

from watchdog.domain.acts import Acknowledgement, Actor, Closure, OperatorActKind
from watchdog.domain.maintenance_windows import (
    MAX_MAINTENANCE_DURATION_MS,
    MAX_MAINTENANCE_LEAD_MS,
    MaintenanceWindow,
)
from watchdog.domain.model import LOCAL_LOCATION_NAME
from watchdog.domain.pausing import MAX_PAUSE_DURATION_MS, Pause
from watchdog.domain.routing import ProbeMatcher
from watchdog.domain.selection import SelectedProbeCountAndWarnings
from watchdog.domain.silencing import (
    MAX_SILENCE_DURATION_MS,
    MAX_SILENCE_SUBJECT_PATTERN_CHARS,
    Silence,
    SilenceMatcher,
)
from watchdog.service.act_input import (
    copy_actor_with_clean_name,
    require_act_text_within_limit,
    require_end_within_limit,
    require_start_within_limit,
    validate_and_clean_act_comment,
    validate_maintenance_matcher,
    validate_silence_matcher,
)
from watchdog.service.notifications import NotificationSender
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.database import Database
from watchdog.store.errors import StoreUnavailableError
from watchdog.store.read.reopening import load_reopening_outlook_text
from watchdog.store.read.selections import load_silence_selection_summary
from watchdog.store.read.status import Connection
from watchdog.store.write import (
    acknowledgements,
    audit,
    closures,
    contract_acceptances,
    forgotten_jobs,
    maintenance_windows,
    pauses,
    receiver_tests,
    requested_runs,
    resends,
    silence_ends,
    silences,
)
from watchdog.store.write.contract_acceptances import AcceptedContractDrift
from watchdog.store.write.forgotten_jobs import ForgottenJobs
from watchdog.store.write.pauses import PausedProbe
from watchdog.store.write.requested_runs import RequestedRun

log = logging.getLogger(__name__)

REPEATED_SILENCE_TOLERANCE_MS = 60_000
"""A silence that would end at most so much later than one in effect repeats it."""
UNREADABLE_SELECTION = SelectedProbeCountAndWarnings(
    0, ("the probes that it selects cannot be read from the database",)
)
ACT_TIMEOUT_S = 15.0
"""Longer than SQLite and PostgreSQL usually wait for a lock."""


ActResultT = TypeVar("ActResultT")


class ActRunner(Protocol):
    """Runs an act, which gets the database and the time in epoch ms. Raises what the act raises."""

    def __call__(self, act: Callable[[Database, int], ActResultT], /) -> Awaitable[ActResultT]: ...


class SilenceRequest(NamedTuple):
    """What a person asked to silence."""

    matcher: SilenceMatcher
    ends_at: int
    """Epoch ms."""
    comment: str = ""
    selects_everything: bool = False
    """An empty matcher is intended."""
    idempotency_key: str = ""
    """Requests of one actor with the same key begin one silence; empty: each request begins another."""


class StartedSilence(NamedTuple):
    silence: Silence
    open_incident_count: int
    """How many open incidents it selected when it began."""
    selection: SelectedProbeCountAndWarnings
    """Of the probes that there are."""


class IncidentClosingOutcome(NamedTuple):
    closure: Closure
    """The one that the incident has now."""
    is_new: bool
    """False: a person had closed it before."""
    outlook: str
    """When another incident opens if the failure continues, as a clause. Empty: that is not known, for example because
    the last result was good, the probe is paused or in maintenance, or the incident was closed before."""


class MaintenanceRequest(NamedTuple):
    """What a person puts into maintenance."""

    matcher: ProbeMatcher
    ends_at: int
    """Epoch ms."""
    comment: str = ""
    selects_everything: bool = False
    """An empty matcher is intended."""
    starts_at: int | None = None
    """Epoch ms; None: now."""


class StartedMaintenance(NamedTuple):
    window: MaintenanceWindow
    probe_count: int
    """How many probes it selects."""


def acknowledge_incident(
    database: Database, incident: str, actor: Actor, comment: str, now: int
) -> tuple[Acknowledgement, bool]:
    """Returns the acknowledgement that the incident then has, and whether it is this one: the first stays."""
    return acknowledgements.acknowledge_incident(
        database, incident, copy_actor_with_clean_name(actor), validate_and_clean_act_comment(comment), now
    )


def acknowledge_open_incidents(
    database: Database, incidents: Collection[str], actor: Actor, comment: str, now: int
) -> list[tuple[Acknowledgement, bool]]:
    """The same for those of several incidents that are open: all or none. Refused if none of them is open."""
    return acknowledgements.acknowledge_open_incidents(
        database, incidents, copy_actor_with_clean_name(actor), validate_and_clean_act_comment(comment), now
    )


def remove_acknowledgement(database: Database, incident: str, actor: Actor, comment: str, now: int) -> bool:
    """Returns whether the incident was acknowledged."""
    return acknowledgements.remove_acknowledgement(
        database, incident, copy_actor_with_clean_name(actor), validate_and_clean_act_comment(comment), now
    )


def close_incident(database: Database, incident: str, actor: Actor, comment: str, now: int) -> IncidentClosingOutcome:
    """Close an open incident whose failure was handled outside Watchdog. The first closure stays."""
    comment, actor = validate_and_clean_act_comment(comment), copy_actor_with_clean_name(actor)
    outlook = _read_unless_error(
        database, lambda connection: load_reopening_outlook_text(connection, incident, now), ""
    )
    closure, is_new = closures.close_incident(database, LOCAL_LOCATION_NAME, incident, actor, comment, now=now)
    return IncidentClosingOutcome(closure, is_new, outlook if is_new else "")


def resend_undelivered_notifications(
    database: Database, incident: str, destination: str, actor: Actor, comment: str, *, now: int
) -> list[str]:
    """Send again what could not be delivered to this destination; empty: to any. Returns the destinations."""
    require_act_text_within_limit("destination", destination, MAX_SILENCE_SUBJECT_PATTERN_CHARS)
    return resends.resend_undelivered_notifications(
        database,
        incident,
        destination,
        copy_actor_with_clean_name(actor),
        validate_and_clean_act_comment(comment),
        now=now,
    )


def begin_silence(database: Database, request: SilenceRequest, actor: Actor, now: int) -> StartedSilence:
    """Hold back the notifications of matching incidents from now until `ends_at`. If the actor has used the key of the
    request before, returns the silence that began then."""
    silence, count = silences.begin_silence(database, _validate_and_build_silence(request, actor, now))
    selection = _read_unless_error(
        database, lambda connection: load_silence_selection_summary(connection, silence.matcher), UNREADABLE_SELECTION
    )
    return StartedSilence(silence, count, selection)


def _read_unless_error(
    database: Database, read: Callable[[Connection], ActResultT], default: ActResultT
) -> ActResultT:  # fmt: skip
    """What the response to an act adds. If it cannot be read, the act takes place nevertheless."""
    try:
        with database.open_read_transaction() as connection:
            return read(connection)
    except Exception as e:
        if not isinstance(e, StoreUnavailableError):  # the act itself raises it
            log.error("act_response_incomplete: %s", type(e).__name__)  # a command prints it, so no traceback
        return default


def begin_silences_unless_repeated(
    database: Database, requests: Sequence[SilenceRequest], actor: Actor, now: int
) -> list[Silence]:
    """Begin several silences: all or none. One that only repeats a silence in effect, because a button was pressed
    twice, begins none. Returns the silences that are in effect instead or begin now."""
    new = [_validate_and_build_silence(request, actor, now) for request in requests]
    return silences.begin_silences_unless_repeated(database, new, REPEATED_SILENCE_TOLERANCE_MS)


def _validate_and_build_silence(request: SilenceRequest, actor: Actor, now: int) -> Silence:
    matcher = validate_silence_matcher(request.matcher, actor.interface, selects_everything=request.selects_everything)
    require_end_within_limit(request.ends_at, now, MAX_SILENCE_DURATION_MS, "silence")
    return Silence(
        id=_make_idempotent_silence_id(actor, request.idempotency_key),
        matcher=matcher,
        started_at=now,
        ends_at=request.ends_at,
        actor=copy_actor_with_clean_name(actor),
        comment=validate_and_clean_act_comment(request.comment),
    )


def silence_until_resolved(database: Database, incident: str, actor: Actor, comment: str, now: int) -> Silence:
    """Hold back the notifications of one open incident until it is resolved. If that is so already, returns the silence
    that is in effect."""
    return silences.begin_silence_until_resolved(database, _build_silence_of_incident(incident, actor, comment, now))


def silence_open_incidents_until_resolved(
    database: Database, incidents: Collection[str], actor: Actor, comment: str, now: int
) -> list[Silence]:
    """The same for those of several incidents that are open: all or none. Refused if none of them is open."""
    new = [_build_silence_of_incident(incident, actor, comment, now) for incident in incidents]
    return silences.begin_silences_until_resolved(database, new)


def _build_silence_of_incident(incident: str, actor: Actor, comment: str, now: int) -> Silence:
    """Its matcher is that of the incident, which is still to be read."""
    return Silence(
        id=_make_idempotent_silence_id(actor, ""),
        matcher=SilenceMatcher(),
        started_at=now,
        ends_at=now + MAX_SILENCE_DURATION_MS,
        actor=copy_actor_with_clean_name(actor),
        comment=validate_and_clean_act_comment(comment),
        incident=incident,
    )


def _make_idempotent_silence_id(actor: Actor, idempotency_key: str) -> str:
    text = f"{actor.interface}\0{actor.name}\0{idempotency_key}" if idempotency_key else uuid4().hex
    return f"s-{blake2b(text.encode(errors='replace'), digest_size=5).hexdigest()}"


def end_silence(database: Database, silence: str, actor: Actor, now: int) -> Silence:
    """End a silence before its time; returns it as it has ended. What it held back about open incidents is sent at
    once."""
    return silence_ends.end_silence(database, silence, copy_actor_with_clean_name(actor), now)


async def run_act_in_writer_thread_with_timeout(
    store_executor: StoreExecutor, act: Callable[[Database, int], ActResultT]
) -> ActResultT:
    """Run an act in the thread that writes. Raises TimeoutError after ACT_TIMEOUT_S; an act that has not started by
    then does not take place."""
    async with asyncio.timeout(ACT_TIMEOUT_S):
        return await store_executor.run_write_with_now(lambda now: act(store_executor.database, now))


async def run_act_and_send(
    store_executor: StoreExecutor, sender: NotificationSender, act: Callable[[Database, int], ActResultT]
) -> ActResultT:
    """Run an act, and start to send what it caused."""
    result = await run_act_in_writer_thread_with_timeout(store_executor, act)
    sender.send_due_soon("after an act")
    return result


def pause_probe(
    database: Database, probe: str, ends_at: int | None, actor: Actor, comment: str, *, now: int
) -> PausedProbe:  # fmt: skip
    """Stop running and judging a probe, until `ends_at` or until someone resumes it. `probe`: its id or name."""
    if ends_at is not None:
        require_end_within_limit(ends_at, now, MAX_PAUSE_DURATION_MS, "pause")
    pause = Pause(now, ends_at, copy_actor_with_clean_name(actor), validate_and_clean_act_comment(comment))
    return pauses.begin_pause(database, LOCAL_LOCATION_NAME, probe, pause)


def resume_probe(database: Database, probe: str, actor: Actor, comment: str, now: int) -> PausedProbe:
    """End a pause before its time. Returns what ended."""
    return pauses.end_pause(
        database,
        LOCAL_LOCATION_NAME,
        probe,
        copy_actor_with_clean_name(actor),
        comment=validate_and_clean_act_comment(comment),
        now=now,
    )


def request_run(database: Database, probe: str, actor: Actor, comment: str, now: int) -> RequestedRun:
    """Have a running process run a probe at once. `probe`: its id or name. It is judged like any run, except while the
    probe is paused, and the schedule does not move."""
    comment = validate_and_clean_act_comment(comment)
    return requested_runs.request_run(
        database, LOCAL_LOCATION_NAME, probe, copy_actor_with_clean_name(actor), comment, now=now
    )


def forget_missing_jobs(
    database: Database, probe: str, job: str, actor: Actor, comment: str, *, now: int
) -> ForgottenJobs:  # fmt: skip
    """Decide that a job which its source no longer lists was removed on purpose, and is not missed any more. It takes
    effect at the next run of the probe. `probe`: its id or name. `job`: its name; empty: every missing job."""
    comment = validate_and_clean_act_comment(comment)
    return forgotten_jobs.forget_missing_jobs(database, probe, job, copy_actor_with_clean_name(actor), comment, now=now)


def accept_contract(
    database: Database, probe: str, digest: str, actor: Actor, comment: str, *, now: int
) -> AcceptedContractDrift:  # fmt: skip
    """Decide that what an MCP server offers now is right. It takes effect at the next run of the probe that observes
    the same. `probe`: its id or name. `digest`: of the contract that the person has read; empty: the newest one."""
    comment, actor = validate_and_clean_act_comment(comment), copy_actor_with_clean_name(actor)
    require_act_text_within_limit("digest", digest, MAX_SILENCE_SUBJECT_PATTERN_CHARS)
    return contract_acceptances.accept_contract(database, probe, digest, actor, comment, now=now)


def begin_maintenance(database: Database, request: MaintenanceRequest, actor: Actor, now: int) -> StartedMaintenance:
    """Put matching probes into maintenance from `starts_at` until `ends_at`: no incident of theirs opens."""
    matcher = validate_maintenance_matcher(
        request.matcher, actor.interface, selects_everything=request.selects_everything
    )
    starts_at = now if request.starts_at is None else request.starts_at
    require_start_within_limit(starts_at, now, MAX_MAINTENANCE_LEAD_MS, "maintenance window")
    require_end_within_limit(
        request.ends_at, now, MAX_MAINTENANCE_DURATION_MS, "maintenance window", starts_at=starts_at
    )
    actor = copy_actor_with_clean_name(actor)
    window = MaintenanceWindow(
        id=f"m-{uuid4().hex[:10]}",
        name="",
        matcher=matcher,
        starts_at=starts_at,
        ends_at=request.ends_at,
        actor=actor,
        comment=validate_and_clean_act_comment(request.comment),
    )
    return StartedMaintenance(
        window, maintenance_windows.store_begun_maintenance_and_count_probes(database, window, actor, now)
    )


def end_maintenance(database: Database, window: str, actor: Actor, now: int) -> MaintenanceWindow:
    """End maintenance before its time, also of a configured window, or cancel what a person has planned. Returns the
    window as it has ended."""
    return maintenance_windows.end_maintenance(database, window, copy_actor_with_clean_name(actor), now)


def record_config_act(
    database: Database, kind: OperatorActKind, actor: Actor, now: int, *, probe: str = "", comment: str = ""
) -> None:
    """Record that the managed file was changed, or the configuration read again. `probe`: its id."""
    audit.record_operator_act_alone(
        database, kind, copy_actor_with_clean_name(actor), now, probe=probe, comment=comment
    )


def record_receiver_test_start_or_refuse(
    database: Database, destinations: Sequence[str], actor: Actor, comment: str, now: int
) -> None:  # fmt: skip
    """Record that test alerts are sent to these destinations. Refused if one was tested a moment ago."""
    receiver_tests.record_receiver_test(
        database, destinations, copy_actor_with_clean_name(actor), validate_and_clean_act_comment(comment), now
    )
