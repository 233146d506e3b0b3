"""What Slack sends when a person clicks on a button: whether Slack has signed a request, and what the person asks for
in a request, or in an envelope of a socket."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple, TypeVar
from urllib.parse import parse_qs

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError

from watchdog.config_types import Secret
from watchdog.notifiers.slack_buttons import (
    ACKNOWLEDGE_ACTION_ID,
    DETAILS_ACTION_ID,
    RUN_NOW_ACTION_ID,
    SILENCE_DURATION_MS_BY_ACTION_ID,
    SILENCE_UNTIL_RESOLVED_ACTION_ID,
    SlackButtonValue,
)
from watchdog.store.database import Database
from watchdog.store.write.slack_requests import store_accepted_slack_request

SLACK_REQUEST_TOLERANCE_MS = 300_000
"""How far the time that Slack states may be from now."""
SOCKET_CLICK_MEMORY_MS = 3_600_000
"""How long a click that came over a socket is remembered. Slack may send it again until it is acknowledged."""
MAX_SLACK_FORM_FIELDS = 10
_SLACK_ACTION_IDS = (
    *(ACKNOWLEDGE_ACTION_ID, SILENCE_UNTIL_RESOLVED_ACTION_ID, RUN_NOW_ACTION_ID, DETAILS_ACTION_ID),
    *SILENCE_DURATION_MS_BY_ACTION_ID,
)


class InboundSlackRequestRefusedError(Exception):
    """A request is not answered. The message states why, and quotes nothing of the request."""

    def __init__(self, message: str, *, status_code: int):
        super().__init__(message)
        self.status_code = status_code


class SlackRequestRepeatedError(InboundSlackRequestRefusedError):
    """The request was accepted before."""


class SlackRequestDeduplicationKey(NamedTuple):
    """What a request and its repetitions have in common."""

    value: str
    forgotten_after: int
    """Epoch ms: from when on no repetition arrives, or none is accepted."""


# --- signatures


class SlackSignature(NamedTuple):
    """The headers by which Slack signs a request. Its time is near."""

    timestamp: str
    """Decimal digits: epoch s."""
    value: str

    @property
    def identity(self) -> SlackRequestDeduplicationKey:
        """Forgotten when no process accepts the signature any more, even if their clocks differ by minutes."""
        return SlackRequestDeduplicationKey(self.value, int(self.timestamp) * 1_000 + 2 * SLACK_REQUEST_TOLERANCE_MS)


def parse_slack_signature(timestamp: str, value: str, now: int) -> SlackSignature:
    """Of the headers of a request, before its body is read. `now`: epoch ms. Raises InboundSlackRequestRefusedError."""
    if not timestamp or not value:
        raise InboundSlackRequestRefusedError("the signature or its time is missing", status_code=403)
    if not re.fullmatch(r"[0-9]{1,12}", timestamp):
        raise InboundSlackRequestRefusedError("the time of the signature is not valid", status_code=403)
    if abs(now - int(timestamp) * 1_000) > SLACK_REQUEST_TOLERANCE_MS:
        message = "the time of the signature is more than 5 minutes from now: the request is old, or a clock is wrong"
        raise InboundSlackRequestRefusedError(message, status_code=403)
    return SlackSignature(timestamp, value)


def find_destinations_whose_secret_signed_request(
    secrets: Mapping[str, Secret], signature: SlackSignature, body: bytes
) -> list[str]:
    """The destinations whose signing secret has signed a request. `secrets`: by destination. Raises
    InboundSlackRequestRefusedError."""
    content = b"v0:%s:%s" % (signature.timestamp.encode(), body)
    signature_by_secret = {secret: _sign(secret, content) for secret in set(secrets.values())}
    destinations = [
        destination
        for destination, secret in secrets.items()
        if hmac.compare_digest(signature_by_secret[secret].encode(), signature.value.encode())
    ]
    if not destinations:
        raise InboundSlackRequestRefusedError("the signature matches no signing secret", status_code=403)
    return destinations


def _sign(secret: Secret, content: bytes) -> str:
    return f"v0={hmac.new(secret.get_secret_value().encode(), content, hashlib.sha256).hexdigest()}"


def record_slack_request_or_raise_if_repeated(
    database: Database, request: SlackRequestDeduplicationKey, now: int
) -> None:
    """Accept a verified request, once in all processes on the database. Raises SlackRequestRepeatedError if it was
    accepted before."""
    if not store_accepted_slack_request(database, request.value, request.forgotten_after, now):
        raise SlackRequestRepeatedError("the request was made before", status_code=403)


# --- payloads

SlackObjectId = Annotated[str, Field(pattern=r"^[A-Z0-9]{1,40}$")]


class _SlackPayloadModel(BaseModel):
    """A part of a payload. Fields that Watchdog does not need are ignored."""

    model_config = ConfigDict(defer_build=True, frozen=True, strict=True, hide_input_in_errors=True)


class SlackTeam(_SlackPayloadModel):
    id: SlackObjectId


class SlackChannel(_SlackPayloadModel):
    id: SlackObjectId


class SlackUser(_SlackPayloadModel):
    """The person who clicks."""

    id: SlackObjectId
    team_id: SlackObjectId | None = None
    real_name: str | None = None
    name: str | None = None
    username: str | None = None

    @property
    def display_name(self) -> str:
        """The real name if Slack states it, else the name of the account."""
        names = (self.real_name, self.name, self.username)
        return next((name for name in names if name and name.strip()), self.id)


class SlackButtonActionPayload(_SlackPayloadModel):
    action_id: str
    value: str = ""
    action_ts: Annotated[str, BeforeValidator(lambda value: value if isinstance(value, str) else "")] = ""


class SlackContainer(_SlackPayloadModel):
    """What the button is in."""

    message_ts: str = ""


class SlackInteraction(_SlackPayloadModel):
    """A click on a button of a message."""

    type: Literal["block_actions"]
    user: SlackUser
    channel: SlackChannel
    team: SlackTeam | None = None
    """None: the app is installed for a whole organization."""
    container: SlackContainer | None = None
    actions: Annotated[list[SlackButtonActionPayload], Field(min_length=1, max_length=1)]


class SlackClick(NamedTuple):
    """What a person asks for."""

    action_id: str
    message: SlackButtonValue | None
    """None for a link."""
    user: SlackUser
    channel_id: str
    team_id: str
    """Empty: the app is installed for a whole organization."""
    message_ts: str = ""
    """Of the message with the button, as its receipt has it."""
    clicked_at: str = ""
    """Slack's time of the click, by which two clicks of a person on one button differ."""


def parse_slack_click(body: bytes) -> SlackClick:
    """The click that a signed body states. Raises InboundSlackRequestRefusedError."""
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=MAX_SLACK_FORM_FIELDS)
        (payload,) = fields["payload"]
    except (KeyError, ValueError):
        raise InboundSlackRequestRefusedError("the body is not a form with one payload", status_code=400) from None
    return parse_slack_interaction(payload)


def parse_slack_interaction(payload: str) -> SlackClick:
    """The click that a payload states, which is JSON. Raises InboundSlackRequestRefusedError."""
    interaction = _parse_json_from_slack(SlackInteraction, payload, "payload")
    (action,) = interaction.actions
    if action.action_id not in _SLACK_ACTION_IDS:
        raise InboundSlackRequestRefusedError("Watchdog has no such button", status_code=400)
    team_id = interaction.team.id if interaction.team else ""
    if team_id and interaction.user.team_id not in (None, team_id):
        raise InboundSlackRequestRefusedError("the person belongs to another workspace", status_code=403)
    try:
        message = None if action.action_id == DETAILS_ACTION_ID else SlackButtonValue.decode_button_value(action.value)
    except ValueError as error:
        raise InboundSlackRequestRefusedError(str(error), status_code=400) from None
    return SlackClick(
        action_id=action.action_id,
        message=message,
        user=interaction.user,
        channel_id=interaction.channel.id,
        team_id=team_id,
        message_ts="" if interaction.container is None else interaction.container.message_ts,
        clicked_at=action.action_ts,
    )


_SlackModelT = TypeVar("_SlackModelT", bound=_SlackPayloadModel)


def _parse_json_from_slack(model: type[_SlackModelT], text: str, name: str) -> _SlackModelT:
    """Raises InboundSlackRequestRefusedError."""
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise InboundSlackRequestRefusedError(f"the {name} is not valid: {place or 'JSON'}", status_code=400) from None


# --- sockets


class SlackSocketMessage(_SlackPayloadModel):
    """What Slack sends over a socket: a greeting, the announcement that it will close the socket, or an envelope."""

    type: Annotated[str, Field(max_length=100)]
    """hello, disconnect, or the type of an envelope: interactive, slash_commands, events_api."""
    reason: Annotated[str, Field(max_length=100)] | None = None
    """Of a disconnect: warning, refresh_requested, link_disabled or too_many_websockets."""
    envelope_id: Annotated[str, Field(max_length=200)] | None = None
    """By which an envelope is acknowledged; None or empty: nothing is to be acknowledged."""
    payload: JsonValue = None


def parse_slack_socket_message(text: str) -> SlackSocketMessage:
    """Raises InboundSlackRequestRefusedError."""
    return _parse_json_from_slack(SlackSocketMessage, text, "message")


def parse_click_and_identity_of_envelope(
    envelope: SlackSocketMessage, now: int
) -> tuple[SlackClick, SlackRequestDeduplicationKey]:
    """The click and what identifies it, also if Slack sends it again in another envelope. `now`: epoch ms. Raises
    InboundSlackRequestRefusedError."""
    click = parse_slack_interaction(json.dumps(envelope.payload))
    message = "" if click.message is None else click.message.encode_as_button_value()
    when = click.clicked_at or envelope.envelope_id or ""
    parts = [click.team_id, click.channel_id, click.user.id, click.action_id, message, when]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return click, SlackRequestDeduplicationKey(f"click {digest}", now + SOCKET_CLICK_MEMORY_MS)
