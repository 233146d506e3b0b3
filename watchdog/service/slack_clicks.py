"""What a click on a button of a Slack message does, however Slack sends it: as a signed request or over a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from watchdog.domain.acts import Actor, OperatorActRefusedError, OperatorInterfaceKind
from watchdog.domain.formatting import format_duration, format_number, format_utc_timestamp
from watchdog.domain.model import Outcome
from watchdog.domain.silencing import Silence, SilenceMatcher
from watchdog.domain.text import capitalize_first
from watchdog.net import NetworkAccess
from watchdog.notifiers import NotificationDeliveryError, SlackNotifier
from watchdog.notifiers.message_fields import (
    MAX_MESSAGE_CAUSE_CHARS,
    MAX_MESSAGE_NAME_CHARS,
    to_safe_single_line,
)
from watchdog.notifiers.slack_buttons import (
    ACKNOWLEDGE_ACTION_ID,
    RUN_NOW_ACTION_ID,
    SILENCE_DURATION_MS_BY_ACTION_ID,
    SILENCE_UNTIL_RESOLVED_ACTION_ID,
    SlackButtonValue,
)
from watchdog.service.acts import (
    ActRunner,
    SilenceRequest,
    acknowledge_open_incidents,
    begin_silences_unless_repeated,
    request_run,
    silence_open_incidents_until_resolved,
)
from watchdog.service.requested_runs import RequestedRunResultTimeoutError, wait_for_requested_run_result
from watchdog.service.run_once import judge_single_result
from watchdog.service.slack_requests import (
    InboundSlackRequestRefusedError,
    SlackClick,
    SlackRequestDeduplicationKey,
    record_slack_request_or_raise_if_repeated,
)
from watchdog.store.database import Database
from watchdog.store.read.messages import (
    IncidentOfMessage,
    SentMessage,
    list_messages_of_incident,
    list_open_incidents_of_message,
)
from watchdog.store.read.query import STORE_READ_QUERY_ERRORS, StoreReadRunner
from watchdog.store.read.status import Connection
from watchdog.store.write.requested_runs import RequestedRun

log = structlog.get_logger()

SLACK_ACT_TIMEOUT_S = 2.0
"""Slack waits for 3 s."""
SLACK_CLICK_RESULT_DELIVERY_TIMEOUT_S = 10.0
SLACK_RUN_RESULT_TIMEOUT_S = 120.0
"""How long the result of a run is awaited."""
MESSAGE_IS_OVER_TEXT = "The incidents of this message are over: there is nothing to do."
RUN_REQUESTED_BEFORE_TEXT = "A run is already requested. No second run is added."
NO_RUN_RESULT_TEXT = "The run has no result yet: see the page of the probe later."
RUN_VERB_BY_OUTCOME = {Outcome.PASS: "passed", Outcome.FAIL: "failed"}
SLACK_CLICK_DATABASE_UNAVAILABLE_TEXT = (
    "Watchdog's database does not respond at the moment. See whether the message has changed before you click again."
)
UNEXPECTED_ERROR_TEXT = "Watchdog could not act because of an error; its log has it."


class SlackClickResult(NamedTuple):
    """What the person who clicked is shown."""

    destination: str
    """Of the message."""
    text: str = ""
    """Empty: nothing, because the message will show it, or the result of a run."""
    requested_run: RequestedRun | None = None
    """Its result is shown as soon as it is stored."""


class ClickedSlackMessageWithOpenIncidents(NamedTuple):
    """The message of a click."""

    sent: SentMessage
    open_incidents: list[IncidentOfMessage]


@dataclass(frozen=True, slots=True)
class SlackClickHandler:
    """Acts on clicks, and shows the people who clicked what they led to."""

    notifiers: Mapping[str, SlackNotifier]
    """By destination: those to whose messages a click may belong."""
    network: NetworkAccess
    run_read_query: StoreReadRunner
    run_act: ActRunner
    clock: Callable[[], int]
    """Epoch ms."""

    async def act(
        self, click: SlackClick, request: SlackRequestDeduplicationKey, destinations: Sequence[str]
    ) -> SlackClickResult:
        """`destinations`: the message is one of theirs. Raises InboundSlackRequestRefusedError."""
        destination, reference = destinations[0], click.message
        if reference is None:
            return SlackClickResult(destination)
        try:
            async with asyncio.timeout(SLACK_ACT_TIMEOUT_S):
                await self.run_act(
                    lambda database, now: record_slack_request_or_raise_if_repeated(database, request, now)
                )
                message = await self.run_read_query(lambda c: load_message_of_click(c, click, reference, destinations))
                destination = message.sent.destination
                if not message.open_incidents:
                    return SlackClickResult(destination, MESSAGE_IS_OVER_TEXT)
                result = await run_act_of_click(click, message, self.run_act)
        except OperatorActRefusedError as error:
            return SlackClickResult(destination, f"{capitalize_first(str(error))}.")
        except STORE_READ_QUERY_ERRORS:
            return SlackClickResult(destination, SLACK_CLICK_DATABASE_UNAVAILABLE_TEXT)
        except InboundSlackRequestRefusedError:
            raise
        except Exception:  # the click is accepted by now, so nothing would act on it if Slack sent it again
            log.exception("slack_click_failed", destination=destination)
            return SlackClickResult(destination, UNEXPECTED_ERROR_TEXT)
        log.info("slack_click", act=click.action_id, incident=reference.lead_incident, user=click.user.id)
        return result

    async def show_result(self, click: SlackClick, result: SlackClickResult) -> None:
        """To the person who clicked. Slack ignores what a response to a click on a button contains. Never raises."""
        try:
            await self._show_result(click, result)
        except Exception:
            log.exception("slack_reply_failed", destination=result.destination)

    async def _show_result(self, click: SlackClick, result: SlackClickResult) -> None:
        text = result.text
        if result.requested_run is not None:
            text = await describe_result_of_requested_run(result.requested_run, self.run_read_query, self.clock)
        if not text:
            return
        notifier, destination = self.notifiers[result.destination], result.destination
        try:
            async with asyncio.timeout(SLACK_CLICK_RESULT_DELIVERY_TIMEOUT_S):
                await notifier.show_text_to_person(
                    self.network, click.channel_id, click.user.id, text, now=self.clock()
                )
        except (NotificationDeliveryError, TimeoutError) as error:
            log.warning("slack_reply_not_delivered", destination=destination, error=str(error) or "no response in time")


async def run_act_of_click(
    click: SlackClick, message: ClickedSlackMessageWithOpenIncidents, run_act: ActRunner
) -> SlackClickResult:
    """Raises OperatorActRefusedError, and what the store raises."""
    actor, destination = Actor(click.user.display_name, OperatorInterfaceKind.SLACK), message.sent.destination
    if click.action_id == ACKNOWLEDGE_ACTION_ID:
        return SlackClickResult(
            destination, await acknowledge_incidents_of_slack_message(message.open_incidents, actor, run_act)
        )
    if click.action_id == RUN_NOW_ACTION_ID:
        return await request_run_for_slack_message(message, actor, run_act)
    if click.action_id == SILENCE_UNTIL_RESOLVED_ACTION_ID:
        return SlackClickResult(
            destination, await silence_incidents_of_slack_message_until_resolved(message.open_incidents, actor, run_act)
        )
    duration_ms = SILENCE_DURATION_MS_BY_ACTION_ID[click.action_id]
    return SlackClickResult(
        destination, await silence_incidents_and_describe_end(message.open_incidents, duration_ms, actor, run_act)
    )


def load_message_of_click(
    connection: Connection, click: SlackClick, reference: SlackButtonValue, destinations: Sequence[str]
) -> ClickedSlackMessageWithOpenIncidents:
    """The message is one of these destinations, in the channel of the click. Raises InboundSlackRequestRefusedError."""
    messages = list_messages_of_incident(connection, reference.lead_incident, destinations)
    if not messages:
        raise InboundSlackRequestRefusedError(
            "the receivers of this Slack app have no message about this incident", status_code=404
        )
    in_channel = [message for message in messages if message.receipt.get("channel") == click.channel_id]
    if not in_channel:
        raise InboundSlackRequestRefusedError("the message was sent to another channel", status_code=403)
    clicked = [message for message in in_channel if message.receipt.get("ts") == click.message_ts]
    sent = (clicked or in_channel)[0]  # a message may have been posted again since
    if click.team_id and sent.receipt.get("team", click.team_id) != click.team_id:
        raise InboundSlackRequestRefusedError("the message was sent to another workspace", status_code=403)
    incidents = list_open_incidents_of_message(
        connection, reference.lead_incident, sent.destination, reference.shown_at
    )
    return ClickedSlackMessageWithOpenIncidents(sent, incidents)


async def acknowledge_incidents_of_slack_message(
    incidents: list[IncidentOfMessage], actor: Actor, run_act: ActRunner
) -> str:
    """What the person is shown: nothing, unless others have acknowledged all of them."""
    ids = [incident.id for incident in incidents]

    def act(database: Database, now: int) -> str:
        acknowledged = acknowledge_open_incidents(database, ids, actor, "", now)
        if any(is_new for _, is_new in acknowledged):
            return ""
        first, _ = acknowledged[0]
        return f"Already acknowledged by {first.actor.name} at {format_utc_timestamp(first.at, now)}."

    return await run_act(act)


async def request_run_for_slack_message(
    message: ClickedSlackMessageWithOpenIncidents, actor: Actor, run_act: ActRunner
) -> SlackClickResult:
    """A message with this button is about one probe."""
    probe_id = message.open_incidents[0].probe_id
    requested = await run_act(lambda database, now: request_run(database, probe_id, actor, "", now))
    if not requested.is_new:
        return SlackClickResult(message.sent.destination, RUN_REQUESTED_BEFORE_TEXT)
    return SlackClickResult(message.sent.destination, requested_run=requested)


async def describe_result_of_requested_run(
    requested: RequestedRun, run_read_query: StoreReadRunner, clock: Callable[[], int]
) -> str:
    """ "API failed: HTTP 503, expected 200 (182 ms)"."""
    name = to_safe_single_line(requested.registered.info.name, MAX_MESSAGE_NAME_CHARS)
    try:
        async with asyncio.timeout(SLACK_RUN_RESULT_TIMEOUT_S):
            stored = await wait_for_requested_run_result(run_read_query, requested, clock)
    except RequestedRunResultTimeoutError as error:
        return capitalize_first(str(error))
    except STORE_READ_QUERY_ERRORS:
        return NO_RUN_RESULT_TEXT
    verdict = judge_single_result(requested.registered.policy, stored.result)
    verb = RUN_VERB_BY_OUTCOME.get(verdict.outcome, "has no verdict")
    message = to_safe_single_line(verdict.message, MAX_MESSAGE_CAUSE_CHARS)
    duration = stored.result.duration
    return (
        f"{name} {verb}{f': {message}' if message else ''}"
        f"{'' if duration is None else f' ({format_duration(duration)})'}"
    )


async def silence_incidents_and_describe_end(
    incidents: list[IncidentOfMessage], duration_ms: int, actor: Actor, run_act: ActRunner
) -> str:
    """What the person is shown: until when, and how to end it."""
    matchers = [SilenceMatcher.of_incident(incident.probe_id, incident.subject) for incident in incidents]

    def act(database: Database, now: int) -> str:
        requests = [SilenceRequest(matcher, now + duration_ms) for matcher in matchers]
        return describe_silences(begin_silences_unless_repeated(database, requests, actor, now), now)

    return await run_act(act)


async def silence_incidents_of_slack_message_until_resolved(
    incidents: list[IncidentOfMessage], actor: Actor, run_act: ActRunner
) -> str:
    """Each incident until it is resolved. Returns what the person is shown."""
    ids = [incident.id for incident in incidents]

    def act(database: Database, now: int) -> str:
        return describe_silences(silence_open_incidents_until_resolved(database, ids, actor, "", now), now)

    return await run_act(act)


def describe_silences(silences: list[Silence], now: int) -> str:
    if len(silences) == 1:
        (only,) = silences
        return f"Silenced by {only.actor.name} {only.describe_end(now)}. To end it: watchdog unsilence {only.id}"
    count = format_number(len(silences))
    end = f"until {format_utc_timestamp(min(silence.ends_at for silence in silences), now)}"
    if all(silence.incident for silence in silences):
        end = "until each incident is resolved"
    return f"Silenced {end}, by {count} silences. To end them: watchdog silences, watchdog unsilence"
