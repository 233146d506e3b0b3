"""Which requests are accepted as Slack's, and which clicks are understood."""

from __future__ import annotations

import json
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from tests.support.slack_clicks import SIGNING_SECRET, encode_payload, make_payload, sign
from watchdog.service.slack_requests import (
    InboundSlackRequestRefusedError,
    SlackSignature,
    SlackSocketMessage,
    find_destinations_whose_secret_signed_request,
    parse_click_and_identity_of_envelope,
    parse_slack_click,
    parse_slack_signature,
    parse_slack_socket_message,
    record_slack_request_or_raise_if_repeated,
)
from watchdog.store.act_tables import slack_requests
from watchdog.store.database import Database

NOW = 1_700_000_040_000
BODY = b"payload=%7B%22a%22%3A1%7D"
OTHER_SECRET = "0123456789abcdef0123456789abcdef"
SECRETS = {
    "oncall/slack": SecretStr(SIGNING_SECRET),
    "core/slack": SecretStr(OTHER_SECRET),
    "chat/slack": SecretStr(SIGNING_SECRET),
}
SIGNATURE, TIME = "X-Slack-Signature", "X-Slack-Request-Timestamp"
VALUE = f"5d41402abc4b2a76b9719d91:{NOW - 1_000}"


def parse(headers: dict[str, str], now: int = NOW) -> SlackSignature:
    return parse_slack_signature(headers.get(TIME, ""), headers.get(SIGNATURE, ""), now)


def verify(headers: dict[str, str], body: bytes = BODY, *, now: int = NOW) -> list[str]:
    return find_destinations_whose_secret_signed_request(SECRETS, parse(headers, now), body)


def without(headers: dict[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in headers.items() if key != name}


def test_the_destinations_with_the_signing_secret_are_those_of_the_request() -> None:
    assert verify(sign(BODY, NOW)) == ["oncall/slack", "chat/slack"]
    assert verify(sign(BODY, NOW, OTHER_SECRET)) == ["core/slack"]


def test_the_example_of_slacks_documentation_is_accepted() -> None:
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&"
        b"channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&"
        b"response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&"
        b"trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    signature = parse_slack_signature(
        "1531420618", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503", 1_531_420_618_000
    )
    secrets = {"a/slack": SecretStr("8f742231b10e8888abcd99yyyzzz85a5")}
    assert find_destinations_whose_secret_signed_request(secrets, signature, body) == ["a/slack"]


SIGNED = sign(BODY, NOW)


@pytest.mark.parametrize(
    ("sentence", "headers", "body", "message"),
    [
        ("no headers", {}, BODY, "missing"),
        ("no signature", without(SIGNED, SIGNATURE), BODY, "missing"),
        ("no time", without(SIGNED, TIME), BODY, "missing"),
        ("an empty signature", SIGNED | {SIGNATURE: ""}, BODY, "missing"),
        ("another secret", sign(BODY, NOW, "f" * 32), BODY, "no signing secret"),
        ("the beginning of the secret", sign(BODY, NOW, SIGNING_SECRET[:-1]), BODY, "no signing secret"),
        ("a changed body", SIGNED, BODY + b" ", "no signing secret"),
        ("no body", SIGNED, b"", "no signing secret"),
        ("a changed time", SIGNED | {TIME: str(NOW // 1_000 + 1)}, BODY, "no signing secret"),
        ("another version", SIGNED | {SIGNATURE: SIGNED[SIGNATURE].replace("v0=", "v1=")}, BODY, "no signing secret"),
        ("no version", SIGNED | {SIGNATURE: SIGNED[SIGNATURE].removeprefix("v0=")}, BODY, "no signing secret"),
        ("upper case", SIGNED | {SIGNATURE: SIGNED[SIGNATURE].upper()}, BODY, "no signing secret"),
        ("half a signature", SIGNED | {SIGNATURE: SIGNED[SIGNATURE][:30]}, BODY, "no signing secret"),
        ("a signature that is not ASCII", SIGNED | {SIGNATURE: "v0=ü\xff"}, BODY, "no signing secret"),
        ("a time that is no number", SIGNED | {TIME: "now"}, BODY, "not valid"),
        ("a negative time", SIGNED | {TIME: f"-{NOW // 1_000}"}, BODY, "not valid"),
        ("a time with a fraction", SIGNED | {TIME: f"{NOW // 1_000}.5"}, BODY, "not valid"),
        ("a time of other digits", SIGNED | {TIME: "\u0661\u0667"}, BODY, "not valid"),
        ("a time of very many digits", SIGNED | {TIME: "1" * 5_000}, BODY, "not valid"),
        ("a time with a line end", SIGNED | {TIME: f"{NOW // 1_000}\n"}, BODY, "not valid"),
        ("an old request", sign(BODY, NOW - 301_000), BODY, "more than 5 minutes"),
        ("a request from the future", sign(BODY, NOW + 301_000), BODY, "more than 5 minutes"),
        ("the beginning of time", sign(BODY, 0), BODY, "more than 5 minutes"),
    ],
)
def test_what_slack_has_not_signed_is_refused(
    sentence: str, headers: dict[str, str], body: bytes, message: str
) -> None:
    with pytest.raises(InboundSlackRequestRefusedError, match=message) as refused:
        verify(headers, body)
    assert refused.value.status_code == 403, sentence
    assert SIGNING_SECRET not in str(refused.value)


@pytest.mark.parametrize("signed_at", [NOW - 300_000, NOW, NOW + 300_000])
def test_a_request_is_verified_within_five_minutes(signed_at: int) -> None:
    headers = sign(BODY, signed_at)
    for now in (NOW, signed_at - 300_000, signed_at + 300_000):
        assert verify(headers, now=now) == ["oncall/slack", "chat/slack"]
    for now in (signed_at - 300_001, signed_at + 300_001):
        with pytest.raises(InboundSlackRequestRefusedError, match="more than 5 minutes"):
            verify(headers, now=now)


def test_a_request_is_accepted_once(database: Database) -> None:
    signatures = [parse(sign(body, NOW)) for body in (BODY, BODY + b" ")]
    for signature in signatures:
        record_slack_request_or_raise_if_repeated(database, signature.identity, NOW)
        for now in (NOW, NOW + 300_000, NOW + 600_000):
            with pytest.raises(InboundSlackRequestRefusedError, match="made before"):
                record_slack_request_or_raise_if_repeated(database, signature.identity, now)


def test_accepted_requests_are_forgotten(database: Database) -> None:
    for number in range(3):
        record_slack_request_or_raise_if_repeated(database, parse(sign(BODY, NOW + number * 1_000)).identity, NOW)
    record_slack_request_or_raise_if_repeated(
        database, parse(sign(BODY, NOW + 601_000), NOW + 601_000).identity, NOW + 601_000
    )
    with database.open_read_transaction() as connection:
        remembered = list(connection.execute(sa.select(slack_requests.c.forgotten_after)).scalars())
    assert sorted(remembered) == [NOW + 601_000, NOW + 602_000, NOW + 1_201_000]


def test_a_click_is_read() -> None:
    click = parse_slack_click(encode_payload(make_payload("silence_4h", VALUE, NOW + 123)))
    assert (click.action_id, click.channel_id, click.team_id) == ("silence_4h", "C0ONCALL", "T0ACME")
    assert click.message == ("5d41402abc4b2a76b9719d91", NOW - 1_000)
    assert (click.user.id, click.user.display_name) == ("U0ANA", "Ana Example")


@pytest.mark.parametrize(
    ("names", "display_name"),
    [
        ({"name": "ana.e", "username": "ana"}, "ana.e"),
        ({"username": "ana"}, "ana"),
        ({"real_name": " \n", "name": "", "username": "ana"}, "ana"),
        ({"real_name": None, "name": None}, "U0ANA"),
        ({}, "U0ANA"),
    ],
)
def test_the_name_of_a_person_is_the_first_that_is_stated(names: dict[str, str | None], display_name: str) -> None:
    payload = make_payload("acknowledge", VALUE, NOW, user={"id": "U0ANA", **names})
    assert parse_slack_click(encode_payload(payload)).user.display_name == display_name


def test_an_app_of_a_whole_organization_states_no_team() -> None:
    payload = make_payload("acknowledge", VALUE, NOW, team=None, user={"id": "U0ANA", "team_id": "T0OTHER"})
    assert parse_slack_click(encode_payload(payload)).team_id == ""


def test_a_click_on_a_link_needs_no_value() -> None:
    click = parse_slack_click(encode_payload(make_payload("details", "", NOW)))
    assert click.message is None


def changed(**changes: Any) -> dict[str, Any]:
    return make_payload("acknowledge", VALUE, NOW, **changes)


def with_action(**changes: Any) -> dict[str, Any]:
    payload = make_payload("acknowledge", VALUE, NOW)
    return payload | {"actions": [payload["actions"][0] | changes]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not a form"),
        (b"{}", "not a form"),
        (b"payload=", "not a form"),
        (b"payload=%7B%7D&payload=%7B%7D", "not a form"),
        (b"a=1&" * 20 + b"payload=%7B%7D", "not a form"),
        ("payload=ü".encode(), "not a form"),
        (b"\xff\xfe", "not a form"),
        (b"payload=%7B%7D", "not valid: type"),
        (encode_payload("{"), "not valid: JSON"),
        (encode_payload("[1]"), "not valid: JSON"),
        (encode_payload("null"), "not valid: JSON"),
        (encode_payload("NaN"), "not valid: JSON"),
        (encode_payload("[" * 100_000), "not valid: JSON"),
        (encode_payload('{"a":' * 50_000), "not valid: JSON"),
        (encode_payload(changed(type="view_submission")), "not valid: type"),
        (encode_payload(changed(type=1)), "not valid: type"),
        (encode_payload(changed(user=None)), "not valid: user"),
        (encode_payload(changed(user={"id": "<!channel>"})), "not valid: user.id"),
        (encode_payload(changed(user={"id": 7})), "not valid: user.id"),
        (encode_payload(changed(user={"id": "U0ANA", "name": ["x"]})), "not valid: user.name"),
        (encode_payload(changed(channel={"id": "C0/../x"})), "not valid: channel.id"),
        (encode_payload(changed(channel=None)), "not valid: channel"),
        (encode_payload(changed(team={"id": ""})), "not valid: team.id"),
        (encode_payload(changed(actions=[])), "not valid: actions"),
        (encode_payload(changed(actions=[1])), "not valid: actions.0"),
        (encode_payload(changed(actions="acknowledge")), "not valid: actions"),
        (encode_payload(changed(actions=changed()["actions"] * 2)), "not valid: actions"),
        (encode_payload(with_action(action_id="unknown")), "no such button"),
        (encode_payload(with_action(action_id="")), "no such button"),
        (encode_payload(with_action(value="")), "not one of Watchdog's"),
        (encode_payload(with_action(value="x" * 3_000)), "not one of Watchdog's"),
        (encode_payload(with_action(value="'; DROP TABLE incidents:1")), "not one of Watchdog's"),
        (encode_payload(with_action(value=f"{VALUE}\n")), "not one of Watchdog's"),
        (encode_payload(with_action(value="a:\u0661")), "not one of Watchdog's"),
        (encode_payload(json.dumps(changed(user={"id": "U0ANA", "name": "\ud800"}))), "not valid: JSON"),
    ],
)
def test_a_payload_that_is_not_a_click_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(InboundSlackRequestRefusedError, match=message) as refused:
        parse_slack_click(body)
    assert refused.value.status_code == 400


def test_a_person_of_another_workspace_is_refused() -> None:
    with pytest.raises(InboundSlackRequestRefusedError, match="another workspace") as refused:
        parse_slack_click(encode_payload(changed(user={"id": "U0EVE", "team_id": "T0OTHER"})))
    assert refused.value.status_code == 403


@pytest.mark.parametrize("time", [None, 1_795_312_000.1, [], {"a": 1}])
def test_a_time_that_is_no_text_is_ignored(time: object) -> None:
    click = parse_slack_click(encode_payload(with_action(action_ts=time)))
    assert (click.action_id, click.clicked_at) == ("acknowledge", "")


def make_envelope(payload: Any, envelope_id: str = "e1") -> SlackSocketMessage:
    return parse_slack_socket_message(
        json.dumps(
            {"type": "interactive", "envelope_id": envelope_id, "payload": payload, "accepts_response_payload": False}
        )
    )


CLICK = make_payload("acknowledge", VALUE, NOW)
WITHOUT_TIME = CLICK | {"actions": [{"action_id": "acknowledge", "value": VALUE}]}


@pytest.mark.parametrize(
    ("sentence", "first", "second", "is_same"),
    [
        ("sent again", make_envelope(CLICK), make_envelope(CLICK), True),
        ("in another envelope", make_envelope(CLICK), make_envelope(CLICK, "e2"), True),
        ("with another message text", make_envelope(CLICK), make_envelope(CLICK | {"message": {}}), True),
        ("later", make_envelope(CLICK), make_envelope(make_payload("acknowledge", VALUE, NOW + 1)), False),
        ("by another person", make_envelope(CLICK), make_envelope(changed(user={"id": "U0BEN"})), False),
        ("in another channel", make_envelope(CLICK), make_envelope(changed(channel={"id": "C0OPS"})), False),
        ("on another button", make_envelope(CLICK), make_envelope(make_payload("silence_1h", VALUE, NOW)), False),
        ("on another message", make_envelope(CLICK), make_envelope(make_payload("acknowledge", "a:1", NOW)), False),
        ("no time", make_envelope(WITHOUT_TIME), make_envelope(WITHOUT_TIME), True),
        ("no time, another envelope", make_envelope(WITHOUT_TIME), make_envelope(WITHOUT_TIME, "e2"), False),
    ],
)
def test_what_identifies_a_click_of_a_socket(
    sentence: str, first: SlackSocketMessage, second: SlackSocketMessage, is_same: bool
) -> None:
    (click, identity), (_, other) = (parse_click_and_identity_of_envelope(each, NOW) for each in (first, second))
    assert (identity == other) == is_same, sentence
    assert click.user.display_name == "Ana Example"
    assert identity.forgotten_after == NOW + 3_600_000


def test_a_click_of_a_socket_is_no_signature() -> None:
    """A signature could not stand for a click, nor a click for a signature."""
    _, identity = parse_click_and_identity_of_envelope(make_envelope(CLICK), NOW)
    assert not identity.value.startswith("v0=")
