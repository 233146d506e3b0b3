"""What people on call do: the one place that pages, commands, the API, Slack and tools call.

Each act checks its input, is stored in one transaction with an entry in the audit log, and takes effect in all
processes on the database. All of them raise OperatorActRefusedError, whose message a person can act on, and
StoreUnavailableError.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from hashlib import blake2b
from typing import NamedTuple, Protocol, TypeVar
from uuid import uuid4

import structlog

from watchdog.domain.acts import (
    MAX_ACT_COMMENT_CHARS,
    MAX_ACTOR_NAME_CHARS,
    Acknowledgement,
    Actor,
    Closure,
    OperatorActKind,
    OperatorActRefusalReason,
    OperatorActRefusedError,
)
from watchdog.domain.formatting import DAY_MS, format_number
from watchdog.domain.maintenance_windows import MAX_MAINTENANCE_DURATION_MS, MaintenanceWindow
from watchdog.domain.model import LOCAL_LOCATION_NAME
from watchdog.domain.pausing import MAX_PAUSE_DURATION_MS, Pause
from watchdog.domain.routing import ProbeMatcher
from watchdog.domain.silencing import (
    EVERY_PROBE_MATCHER,
    MAX_SILENCE_DURATION_MS,
    MAX_SILENCE_SUBJECT_PATTERN_CHARS,
    MAX_SILENCE_TAGS,
    Silence,
    SilenceMatcher,
)
from watchdog.domain.text import replace_invisible_characters, truncate_to_single_line
from watchdog.service.notifications import NotificationSender
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.database import Database
from watchdog.store.write import (
    acknowledgements,
    audit,
    closures,
    maintenance_windows,
    pauses,
    receiver_tests,
    requested_runs,
    resends,
    silence_ends,
    silences,
)
from watchdog.store.write.pauses import PausedProbe
from watchdog.store.write.requested_runs import RequestedRun

log = structlog.get_logger()

REPEATED_SILENCE_TOLERANCE_MS = 60_000
"""A silence that would end at most so much later than one in effect repeats it."""
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
    """How many open incidents it selects."""


class MaintenanceRequest(NamedTuple):
    """What a person puts into maintenance."""

    matcher: ProbeMatcher
    ends_at: int
    """Epoch ms."""
    comment: str = ""
    selects_everything: bool = False
    """An empty matcher is intended."""


class StartedMaintenance(NamedTuple):
    window: MaintenanceWindow
    probe_count: int
    """How many probes it selects."""


def acknowledge_incident(
    database: Database, incident: str, actor: Actor, comment: str, now: int
) -> tuple[Acknowledgement, bool]:
    """Returns the acknowledgement that the incident then has, and whether it is this one: the first stays."""
    return acknowledgements.acknowledge_incident(
        database, incident, _clean_actor_name(actor), _validate_and_clean_act_comment(comment), now
    )


def acknowledge_open_incidents(
    database: Database, incidents: Collection[str], actor: Actor, comment: str, now: int
) -> list[tuple[Acknowledgement, bool]]:
    """The same for those of several incidents that are open: all or none. Refused if none of them is open."""
    return acknowledgements.acknowledge_open_incidents(
        database, incidents, _clean_actor_name(actor), _validate_and_clean_act_comment(comment), now
    )


def remove_acknowledgement(database: Database, incident: str, actor: Actor, comment: str, now: int) -> bool:
    """Returns whether the incident was acknowledged."""
    return acknowledgements.remove_acknowledgement(
        database, incident, _clean_actor_name(actor), _validate_and_clean_act_comment(comment), now
    )


def close_incident(database: Database, incident: str, actor: Actor, comment: str, now: int) -> tuple[Closure, bool]:
    """Close an open incident whose failure was handled outside Watchdog. Returns the closure that the incident then
    has, and whether it is new. The first closure stays."""
    comment = _validate_and_clean_act_comment(comment)
    return closures.close_incident(database, LOCAL_LOCATION_NAME, incident, _clean_actor_name(actor), comment, now=now)


def resend_undelivered_notifications(
    database: Database, incident: str, destination: str, actor: Actor, comment: str, *, now: int
) -> list[str]:
    """Send again what could not be delivered to this destination; empty: to any. Returns the destinations."""
    _require_act_text_within_limit("destination", destination, MAX_SILENCE_SUBJECT_PATTERN_CHARS)
    return resends.resend_undelivered_notifications(
        database, incident, destination, _clean_actor_name(actor), _validate_and_clean_act_comment(comment), now=now
    )


def begin_silence(database: Database, request: SilenceRequest, actor: Actor, now: int) -> StartedSilence:
    """Hold back the notifications of matching incidents from now until `ends_at`. If the actor has used the key of the
    request before, returns the silence that began then."""
    return StartedSilence(*silences.begin_silence(database, _validate_and_build_silence(request, actor, now)))


def begin_silences_unless_repeated(
    database: Database, requests: Sequence[SilenceRequest], actor: Actor, now: int
) -> list[Silence]:
    """Begin several silences: all or none. One that only repeats a silence in effect, because a button was pressed
    twice, begins none. Returns the silences that are in effect instead or begin now."""
    new = [_validate_and_build_silence(request, actor, now) for request in requests]
    return silences.begin_silences_unless_repeated(database, new, REPEATED_SILENCE_TOLERANCE_MS)


def _validate_and_build_silence(request: SilenceRequest, actor: Actor, now: int) -> Silence:
    matcher = _validate_silence_matcher(request.matcher, selects_everything=request.selects_everything)
    _check_end(request.ends_at, now, MAX_SILENCE_DURATION_MS, "silence")
    return Silence(
        id=_make_silence_id(actor, request.idempotency_key),
        matcher=matcher,
        started_at=now,
        ends_at=request.ends_at,
        actor=_clean_actor_name(actor),
        comment=_validate_and_clean_act_comment(request.comment),
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
        id=_make_silence_id(actor, ""),
        matcher=SilenceMatcher(),
        started_at=now,
        ends_at=now + MAX_SILENCE_DURATION_MS,
        actor=_clean_actor_name(actor),
        comment=_validate_and_clean_act_comment(comment),
        incident=incident,
    )


def _make_silence_id(actor: Actor, idempotency_key: str) -> str:
    text = f"{actor.interface}\0{actor.name}\0{idempotency_key}" if idempotency_key else uuid4().hex
    return f"s-{blake2b(text.encode(errors='replace'), digest_size=5).hexdigest()}"


def end_silence(database: Database, silence: str, actor: Actor, now: int) -> Silence:
    """End a silence before its time; returns it as it has ended. What it held back about open incidents is sent at
    once."""
    return silence_ends.end_silence(database, silence, _clean_actor_name(actor), now)


async def run_act(store_executor: StoreExecutor, act: Callable[[Database, int], ActResultT]) -> ActResultT:
    """Run an act in the thread that writes. Raises TimeoutError after ACT_TIMEOUT_S; an act that has not started by
    then does not take place."""
    async with asyncio.timeout(ACT_TIMEOUT_S):
        return await store_executor.run_write_with_now(lambda now: act(store_executor.database, now))


async def run_act_and_send(
    store_executor: StoreExecutor, sender: NotificationSender, act: Callable[[Database, int], ActResultT]
) -> ActResultT:
    """Run an act, and start to send what it caused."""
    result = await run_act(store_executor, act)
    sender.send_due_soon("after an act")
    return result


def pause_probe(
    database: Database, probe: str, ends_at: int | None, actor: Actor, comment: str, *, now: int
) -> PausedProbe:  # fmt: skip
    """Stop running and judging a probe, until `ends_at` or until someone resumes it. `probe`: its id or name."""
    if ends_at is not None:
        _check_end(ends_at, now, MAX_PAUSE_DURATION_MS, "pause")
    pause = Pause(now, ends_at, _clean_actor_name(actor), _validate_and_clean_act_comment(comment))
    return pauses.begin_pause(database, LOCAL_LOCATION_NAME, probe, pause)


def resume_probe(database: Database, probe: str, actor: Actor, comment: str, now: int) -> PausedProbe:
    """End a pause before its time. Returns what ended."""
    return pauses.end_pause(
        database,
        LOCAL_LOCATION_NAME,
        probe,
        _clean_actor_name(actor),
        comment=_validate_and_clean_act_comment(comment),
        now=now,
    )


def request_run(database: Database, probe: str, actor: Actor, comment: str, now: int) -> RequestedRun:
    """Have a running process run a probe at once. `probe`: its id or name. It is judged like any run, except while the
    probe is paused, and the schedule does not move."""
    comment = _validate_and_clean_act_comment(comment)
    return requested_runs.request_run(database, LOCAL_LOCATION_NAME, probe, _clean_actor_name(actor), comment, now=now)


def begin_maintenance(database: Database, request: MaintenanceRequest, actor: Actor, now: int) -> StartedMaintenance:
    """Put matching probes into maintenance from now until `ends_at`: no incident of theirs opens."""
    matcher = _validate_maintenance_matcher(request.matcher, selects_everything=request.selects_everything)
    _check_end(request.ends_at, now, MAX_MAINTENANCE_DURATION_MS, "maintenance window")
    actor = _clean_actor_name(actor)
    window = MaintenanceWindow(
        id=f"m-{uuid4().hex[:10]}",
        name="",
        matcher=matcher,
        starts_at=now,
        ends_at=request.ends_at,
        actor=actor,
        comment=_validate_and_clean_act_comment(request.comment),
    )
    return StartedMaintenance(window, maintenance_windows.begin_maintenance(database, window, actor))


def end_maintenance(database: Database, window: str, actor: Actor, now: int) -> MaintenanceWindow:
    """End maintenance before its time, also of a configured window. Returns the window as it has ended."""
    return maintenance_windows.end_maintenance(database, window, _clean_actor_name(actor), now)


def record_probe_edit(database: Database, kind: OperatorActKind, probe: str, actor: Actor, now: int) -> None:
    """That the managed file was changed. `probe`: its id."""
    audit.record_operator_act_alone(database, kind, _clean_actor_name(actor), now, probe=probe)


def record_receiver_test(
    database: Database, destinations: Sequence[str], actor: Actor, comment: str, now: int
) -> None:  # fmt: skip
    """Record that test alerts are sent to these destinations. Refused if one was tested a moment ago."""
    receiver_tests.record_receiver_test(
        database, destinations, _clean_actor_name(actor), _validate_and_clean_act_comment(comment), now
    )


def _validate_silence_matcher(matcher: SilenceMatcher, *, selects_everything: bool) -> SilenceMatcher:
    _require_deliberate_selection(
        is_empty=matcher.is_empty,
        selects_everything=selects_everything,
        fields="an id, group, tag, kind, severity or subject",
        verb="silence",
    )
    _require_act_text_within_limit("subject", matcher.subject_pattern, MAX_SILENCE_SUBJECT_PATTERN_CHARS)
    return SilenceMatcher(_validate_and_clean_probe_matcher(matcher.probe, "silence"), matcher.subject_pattern)


def _validate_maintenance_matcher(matcher: ProbeMatcher, *, selects_everything: bool) -> ProbeMatcher:
    _require_deliberate_selection(
        is_empty=matcher == EVERY_PROBE_MATCHER,
        selects_everything=selects_everything,
        fields="an id, group, tag, kind or severity",
        verb="select",
    )
    return _validate_and_clean_probe_matcher(matcher, "maintenance window")


def _require_deliberate_selection(*, is_empty: bool, selects_everything: bool, fields: str, verb: str) -> None:
    if is_empty and not selects_everything:
        message = f"nothing is selected: state {fields}, or `all` to {verb} everything"
        raise OperatorActRefusedError(OperatorActRefusalReason.INVALID, message)
    if not is_empty and selects_everything:
        message = f"`all` {verb}s everything: leave out the other conditions"
        raise OperatorActRefusedError(OperatorActRefusalReason.INVALID, message)


def _validate_and_clean_probe_matcher(matcher: ProbeMatcher, owner: str) -> ProbeMatcher:
    """Without characters that are invisible or cannot be stored. `owner`: what has too many tags, in a message."""
    for name, text in (
        ("id", matcher.probe),
        ("group", matcher.group),
        ("kind", matcher.kind),
        *(("tag", tag) for tag in matcher.tags),
    ):
        _require_act_text_within_limit(name, text, MAX_SILENCE_SUBJECT_PATTERN_CHARS)
    if len(matcher.tags) > MAX_SILENCE_TAGS:
        message = f"the {owner} has {format_number(len(matcher.tags))} tags; at most {MAX_SILENCE_TAGS} are possible"
        raise OperatorActRefusedError(OperatorActRefusalReason.INVALID, message)
    return ProbeMatcher(
        matcher.severity,
        frozenset(map(replace_invisible_characters, matcher.tags)),
        replace_invisible_characters(matcher.group),
        replace_invisible_characters(matcher.kind),
        replace_invisible_characters(matcher.probe),
    )


def _check_end(ends_at: int, now: int, max_duration_ms: int, name: str) -> None:
    if ends_at <= now:
        raise OperatorActRefusedError(
            OperatorActRefusalReason.INVALID, f"the {name} would end in the past: choose a later end"
        )
    if ends_at - now > max_duration_ms:
        days = max_duration_ms // DAY_MS
        raise OperatorActRefusedError(
            OperatorActRefusalReason.INVALID, f"a {name} may last for {days} days at most: choose an earlier end"
        )


def _validate_and_clean_act_comment(comment: str) -> str:
    """Without characters that are invisible or cannot be stored."""
    _require_act_text_within_limit("comment", comment, MAX_ACT_COMMENT_CHARS)
    return replace_invisible_characters(comment).strip()


def _require_act_text_within_limit(name: str, text: str, max_chars: int) -> None:
    if len(text) > max_chars:
        raise OperatorActRefusedError(
            OperatorActRefusalReason.INVALID,
            f"the {name} has {format_number(len(text))} characters; at most {format_number(max_chars)} are possible",
        )


def _clean_actor_name(actor: Actor) -> Actor:
    name = truncate_to_single_line(replace_invisible_characters(actor.name), MAX_ACTOR_NAME_CHARS)
    return actor._replace(name=name or "unknown")
