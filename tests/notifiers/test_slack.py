from __future__ import annotations

import asyncio
import gzip
import json
import re
from dataclasses import replace
from typing import Any

import httpx
import pytest
import respx
from pydantic import SecretStr, ValidationError
from slack_sdk.models.blocks import (
    ActionsBlock,
    Block,
    ButtonElement,
    ContextBlock,
    HeaderBlock,
    RichTextBlock,
    SectionBlock,
)

from tests.notifiers.conftest import SendFixture
from tests.support import alert_contexts
from tests.support.alert_contexts import (
    CHANGED_ALERT,
    MERGED_ALERT,
    MINIMAL_ALERT,
    NOW,
    OPENED_ALERT,
    RESOLVED_ALERT,
    TASK_ALERT,
    hostile_alert,
    notification_for,
)
from tests.support.fakes import CannedResponse, FakeSlack, are_blocks_valid
from tests.support.scripted_servers import running_server, send_parts
from watchdog.domain.alert_message import AlertMessageContext
from watchdog.domain.model import Json
from watchdog.net import NetworkAccess
from watchdog.notifiers import post
from watchdog.notifiers.base import NotificationDeliveryError, NotificationDeliveryRequest
from watchdog.notifiers.blocks import (
    MAX_SLACK_HEADER_CHARS,
    build_slack_blocks,
    escape_and_truncate_mrkdwn,
    escape_mrkdwn,
)
from watchdog.notifiers.message import compose_alert_message
from watchdog.notifiers.slack import (
    SLACK_ADVICE_BY_ERROR_CODE,
    SLACK_LAYOUT_ERRORS,
    SLACK_UNRETRYABLE_CONTENT_ERRORS,
    SlackNotifier,
)

TOKEN = "xoxb-1-stand-in"
WAIT = (("Retry-After", "7"),)
FORMS = "either `webhook`, or `bot_token` with `channel`"


def refused(error: str) -> CannedResponse:
    return CannedResponse(200, json.dumps({"ok": False, "error": error}).encode())


def bot(slack: FakeSlack, **changed: Any) -> SlackNotifier:
    return SlackNotifier.model_validate(
        {"bot_token": slack.token, "channel": "#oncall", "api_url": slack.url} | changed
    )


def incoming(slack: FakeSlack) -> SlackNotifier:
    return SlackNotifier(webhook=SecretStr(slack.webhook))


def block(post: dict[str, Any], id: str) -> Any:
    return next((b for b in post["blocks"] if b.get("block_id") == id), None)


def test_an_app_posts_one_message_and_stores_its_position(slack: FakeSlack, send: SendFixture) -> None:
    receipt = send(bot(slack), OPENED_ALERT)
    (post,) = slack.posts
    assert receipt == {"channel": slack.channel, "ts": post["ts"], "team": slack.team}
    assert post["text"] == "✕ Down: API: HTTP 503, expected 200 · critical"
    assert block(post, "header")["text"]["text"] == "✕ Down: API: HTTP 503, expected 200"
    assert block(post, "main_fields")["text"]["text"].replace("\u00a0", " ").splitlines() == [
        "*Checked* `https://api.acme.example/health`",
        "*Expected* `status == 200` · observed 503",
        "*Since* 01:48:00 UTC, 3 checks; last good 01:47:00 UTC, response time 182 ms",
        "*Last 20 checks* `▁▁▁▁▁▁▂▁▁▁▁▁▁▂▁▁▁✕✕✕` every 60 s",
        "*What to do* Check the load of the service and, if it is behind a proxy, whether its instances are ready.",
        "*Also to* ops/email, pager/webhook (not delivered)",
    ]
    assert [f["text"] for f in block(post, "attributes")["fields"]] == [
        "*Severity*\ncritical",
        "*Group*\nCore",
        "*Location*\neu",
    ]
    (evidence,) = block(post, "evidence")["elements"]
    assert evidence["type"] == "rich_text_preformatted"
    assert alert_contexts.RESPONSE_BODY in evidence["elements"][0]["text"]
    (details,) = block(post, "actions")["elements"]
    assert (details["text"]["text"], details["url"]) == ("Details", OPENED_ALERT.incident_url)
    assert block(post, "footer")["elements"][0]["text"] == (
        "<https://status.acme.example/probes/api|Probe> · <https://wiki.acme.example/api?a=1&amp;b=2|Runbook>"
    )
    assert post["unfurl_links"] is post["unfurl_media"] is False


def test_a_resolve_edits_that_message_and_is_broadcast_from_its_thread(slack: FakeSlack, send: SendFixture) -> None:
    receipt = send(bot(slack), OPENED_ALERT)
    assert send(bot(slack), RESOLVED_ALERT, receipt) == receipt
    root, reply = slack.posts
    assert root["edited"]
    assert root["text"] == "✅ API recovered (was: HTTP 503, expected 200) · down 54 min"
    header = block(root, "header")["text"]["text"]
    assert header == "✅ API recovered (was: HTTP 503, expected 200) · down 54\u00a0min"
    assert block(root, "actions") is None, "the buttons are gone"
    assert block(root, "footer")["elements"][0]["text"].startswith(f"<{RESOLVED_ALERT.incident_url}|Incident> · ")
    assert block(root, "evidence")
    assert (reply["thread_ts"], reply["reply_broadcast"]) == (receipt["ts"], True)
    assert reply["text"] == root["text"]
    assert [request.path for request in slack.received] == [
        "/api/chat.postMessage",
        "/api/chat.update",
        "/api/chat.postMessage",
    ]


def test_a_change_retitles_that_message_and_replies_in_its_thread(slack: FakeSlack, send: SendFixture) -> None:
    receipt = send(bot(slack), OPENED_ALERT)
    assert send(bot(slack), CHANGED_ALERT, receipt) == receipt
    root, reply = slack.posts
    assert root["edited"]
    assert block(root, "header")["text"]["text"] == "✕ Down: API: connection refused"
    assert block(root, "actions"), "it is still open"
    assert (reply["thread_ts"], reply["reply_broadcast"]) == (receipt["ts"], False)
    assert reply["text"] == "✕ Still down: API: connection refused (was: HTTP 503, expected 200) · critical"


def test_a_change_whose_message_was_deleted_is_a_message(slack: FakeSlack, send: SendFixture) -> None:
    receipt = send(bot(slack), CHANGED_ALERT, {"channel": slack.channel, "ts": "0.0"})
    (post,) = slack.posts
    assert receipt["ts"] == post["ts"]
    assert block(post, "header")["text"]["text"].startswith("✕ Still down: API: connection refused (was:")


def test_an_incoming_webhook_gets_a_change_as_a_message(slack: FakeSlack, send: SendFixture) -> None:
    send(incoming(slack), CHANGED_ALERT)
    (post,) = slack.posts
    assert post["text"] == "✕ Still down: API: connection refused (was: HTTP 503, expected 200) · critical"


def test_sending_a_resolve_again_edits_the_same_message(slack: FakeSlack, send: SendFixture) -> None:
    receipt = send(bot(slack), OPENED_ALERT)
    for _ in range(2):
        send(bot(slack), RESOLVED_ALERT, receipt)
    assert len(slack.thread_roots) == 1


@pytest.mark.parametrize("context", [MERGED_ALERT, RESOLVED_ALERT])
def test_a_resolve_without_a_message_to_edit_is_a_message(
    slack: FakeSlack, send: SendFixture, context: AlertMessageContext
) -> None:
    receipt = send(bot(slack), context)
    (post,) = slack.posts
    assert receipt["ts"] == post["ts"]
    assert "thread_ts" not in post
    assert (block(post, "notice") is not None) == context.merged


def test_a_deleted_message_is_posted_again(slack: FakeSlack, send: SendFixture) -> None:
    receipt = send(bot(slack), RESOLVED_ALERT, {"channel": slack.channel, "ts": "1.1"})
    (post,) = slack.posts
    assert receipt["ts"] == post["ts"] != "1.1"


def test_a_webhook_posts_the_same_and_resolves_with_another_message(slack: FakeSlack, send: SendFixture) -> None:
    assert send(incoming(slack), OPENED_ALERT) == {}
    assert send(incoming(slack), RESOLVED_ALERT) == {}
    opened, resolved = slack.posts
    assert opened["blocks"] == build_slack_blocks(compose_alert_message(OPENED_ALERT))
    assert resolved["blocks"] == build_slack_blocks(compose_alert_message(RESOLVED_ALERT))
    assert "authorization" not in slack.received[0].headers


def test_a_recovery_names_the_time_of_its_evidence() -> None:
    opened, resolved = (build_slack_blocks(compose_alert_message(each)) for each in (OPENED_ALERT, RESOLVED_ALERT))
    assert "evidence_title" not in [block["block_id"] for block in opened]
    position = [block["block_id"] for block in resolved].index("evidence")
    (title,) = resolved[position - 1]["elements"]
    assert title["text"] == "Evidence from the first bad check, 01:48:00 UTC"


def test_without_a_public_url_there_is_no_button(slack: FakeSlack, send: SendFixture) -> None:
    send(bot(slack), MINIMAL_ALERT)
    assert block(slack.posts[0], "actions") is None


def test_a_task_is_named(slack: FakeSlack, send: SendFixture) -> None:
    send(bot(slack), TASK_ALERT)
    assert slack.posts[0]["text"].startswith(
        "▲ Degraded: Search MCP: task reindex is stale: last run 00:53 UTC, limit 15 min"
    )


@pytest.mark.parametrize(
    ("items", "response", "reason", "retried", "retry_after"),
    [
        (
            "rate limited with Retry-After",
            refused("ratelimited")._replace(status=429, headers=WAIT),
            "slack.ratelimited",
            "always",
            7.0,
        ),
        ("rate limited without Retry-After", CannedResponse(429, b"", WAIT), "http.429", "always", 7.0),
        ("temporary failure", CannedResponse(503, b"<html>"), "http.503", "always", None),
        ("internal error of Slack", refused("internal_error"), "slack.internal_error", "always", None),
        ("unknown error", refused("brand_new"), "slack.brand_new", "always", None),
        ("no error code", CannedResponse(200, b'{"ok":false}'), "delivery.invalid_response", "always", None),
        (
            "not a response of Slack",
            CannedResponse(200, b"<html>welcome</html>"),
            "delivery.invalid_response",
            "always",
            None,
        ),
        ("not an object", CannedResponse(200, b"[1]"), "delivery.invalid_response", "always", None),
        ("a bare word of JSON", CannedResponse(200, b"true"), "delivery.invalid_response", "always", None),
        ("nested too deep", CannedResponse(200, b"[" * 65_000), "delivery.invalid_response", "always", None),
        (
            "a proxy's redirect",
            CannedResponse(302, b"", (("Location", "http://127.0.0.1:1/"),)),
            "http.302",
            "always",
            None,
        ),
        ("a wrong address", CannedResponse(404, b"not here"), "http.404", "an hour", None),
        *(
            (error, refused(error), f"slack.{error}", "never", None)
            for error in sorted(SLACK_UNRETRYABLE_CONTENT_ERRORS - SLACK_LAYOUT_ERRORS)
        ),
        *((error, refused(error), f"slack.{error}", "an hour", None) for error in SLACK_ADVICE_BY_ERROR_CODE),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refusals_of_the_web_api(
    slack: FakeSlack,
    fail: SendFixture,
    items: str,
    response: CannedResponse,
    reason: str,
    retried: str,
    retry_after: float | None,
) -> None:
    slack.canned_responses.append(response)
    failed = fail(bot(slack), OPENED_ALERT)
    assert (failed["reason"], failed["retried"], failed["retry_after"]) == (reason, retried, retry_after)
    assert slack.token not in str(failed["message"])


@pytest.mark.parametrize(
    ("response", "reason", "retried"),
    [
        (CannedResponse(404, b"no_service"), "slack.no_service", "an hour"),
        (CannedResponse(403, b"<html>"), "slack.no_service", "an hour"),
        (CannedResponse(410, b""), "slack.no_service", "an hour"),
        (CannedResponse(403, b"action_prohibited"), "slack.action_prohibited", "an hour"),
        (CannedResponse(410, b"channel_is_archived"), "slack.channel_is_archived", "an hour"),
        (CannedResponse(400, b"no_text"), "slack.no_text", "never"),
        (CannedResponse(429, b"", (("Retry-After", "1"),)), "http.429", "always"),
        (CannedResponse(500, b"rollup_error"), "slack.rollup_error", "always"),
        (CannedResponse(502, b""), "http.502", "always"),
        (CannedResponse(400, b"user_not_found"), "slack.user_not_found", "an hour"),
        (CannedResponse(400, b"<html>bad gateway"), "http.400", "an hour"),
        (CannedResponse(200, b"<!doctype html><title>Sign in</title>"), "delivery.invalid_response", "always"),
        (CannedResponse(200, b""), "delivery.invalid_response", "always"),
        (CannedResponse(200, b'{"ok": false, "error": "no_service"}'), "slack.no_service", "an hour"),
        (CannedResponse(200, b'{"success": true}'), "delivery.invalid_response", "always"),
        (CannedResponse(202, b"OK"), "delivery.invalid_response", "always"),
    ],
)
def test_refusals_of_a_webhook(
    slack: FakeSlack, fail: SendFixture, response: CannedResponse, reason: str, retried: str
) -> None:
    slack.canned_responses.append(response)
    failed = fail(incoming(slack), OPENED_ALERT)
    assert (failed["reason"], failed["retried"]) == (reason, retried)
    assert "/services/" not in str(failed["message"])


@pytest.mark.parametrize("body", [b"ok", b"ok\n", b'{"ok": true}'])
def test_a_webhook_confirms_with_ok(slack: FakeSlack, send: SendFixture, body: bytes) -> None:
    slack.canned_responses.append(CannedResponse(200, body))
    assert send(incoming(slack), OPENED_ALERT) in ({}, {"ok": True})


def test_a_webhook_whose_ok_is_compressed_confirms(slack: FakeSlack, send: SendFixture) -> None:
    slack.canned_responses.append(CannedResponse(200, gzip.compress(b"ok"), (("Content-Encoding", "gzip"),)))
    assert send(incoming(slack), OPENED_ALERT) == {}


@pytest.mark.parametrize("body", [b"", b"o", b'{"ok": tr', b"no_serv"])
@pytest.mark.parametrize("delay_s", [0, 60], ids=["cut", "stalls"])
def test_a_response_that_is_cut_off_leaves_the_delivery_unknown(
    monkeypatch: pytest.MonkeyPatch, body: bytes, delay_s: float
) -> None:
    monkeypatch.setattr(post, "NOTIFICATION_RESPONSE_BODY_TIMEOUT_S", 0.2)
    response = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + body

    async def send() -> None:
        async with running_server(send_parts(response, delay_s=delay_s)) as server, NetworkAccess() as network:
            notifier = SlackNotifier(webhook=SecretStr(server.url_of()))
            await notifier.send(NotificationDeliveryRequest(notification_for(OPENED_ALERT), OPENED_ALERT, {}, network))

    with pytest.raises(NotificationDeliveryError) as failed:
        asyncio.run(send())
    assert (failed.value.reason, failed.value.maybe_delivered) == ("delivery.unconfirmed", True)


def test_an_error_includes_advice(slack: FakeSlack, fail: SendFixture) -> None:
    slack.canned_responses.append(refused("not_in_channel"))
    assert fail(bot(slack), OPENED_ALERT)["message"] == "Slack error not_in_channel: invite the app to the channel"


def test_a_wrong_token_and_a_wrong_channel(slack: FakeSlack, fail: SendFixture) -> None:
    assert fail(bot(slack, bot_token="xoxb-wrong"), OPENED_ALERT)["reason"] == "slack.invalid_auth"
    assert fail(bot(slack, channel="#nowhere"), OPENED_ALERT)["reason"] == "slack.channel_not_found"


def test_a_message_whose_blocks_slack_rejects_is_sent_as_text(slack: FakeSlack, send: SendFixture) -> None:
    slack.canned_responses.append(refused("invalid_blocks"))
    send(bot(slack), OPENED_ALERT)
    (post,) = slack.posts
    assert "blocks" not in post
    assert post["text"].startswith("✕ Down: API")


def test_a_message_that_slack_rejects_as_text_too_is_given_up(slack: FakeSlack, fail: SendFixture) -> None:
    slack.canned_responses += [refused("invalid_blocks")] * 2
    failed = fail(bot(slack), OPENED_ALERT)
    assert (failed["reason"], failed["retried"]) == ("slack.invalid_blocks", "never")


def test_an_edit_that_is_rate_limited_is_retried(slack: FakeSlack, send: SendFixture, fail: SendFixture) -> None:
    receipt = send(bot(slack), OPENED_ALERT)
    slack.canned_responses.append(CannedResponse(429, b"", (("Retry-After", "3"),)))
    assert fail(bot(slack), RESOLVED_ALERT, receipt)["retry_after"] == 3
    assert len(slack.posts) == 1
    send(bot(slack), RESOLVED_ALERT, receipt)
    assert len(slack.posts) == 2


def test_an_unreachable_slack_is_retried(fail: SendFixture) -> None:
    away = SlackNotifier.model_validate({"bot_token": TOKEN, "channel": "#oncall", "api_url": "http://127.0.0.1:9/api"})
    failed = fail(away, OPENED_ALERT)
    assert (failed["reason"], failed["message"]) == ("connection.refused", "connection refused (127.0.0.1:9)")
    assert failed["retried"] == "always"


def test_a_token_that_is_invalid_in_a_header_is_not_quoted(slack: FakeSlack, fail: SendFixture) -> None:
    for token in ("xoxb-\nsecret", "xoxb-sécret"):
        failed = fail(bot(slack, bot_token=token), OPENED_ALERT)
        assert "cret" not in str(failed["message"])


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (httpx.ReadTimeout("secret"), "timeout.first_byte"),
        (httpx.ConnectError("secret"), "connection.failed"),
        (httpx.RemoteProtocolError("secret"), "protocol.invalid_response"),
    ],
)
def test_network_faults_are_retried(fail: SendFixture, error: Exception, reason: str) -> None:
    with respx.mock(base_url="https://slack.com/api/", using="httpx") as mock:
        mock.post("chat.postMessage").mock(side_effect=error)
        failed = fail(SlackNotifier(bot_token=SecretStr(TOKEN), channel="#oncall"), OPENED_ALERT)
    assert (failed["reason"], failed["retried"]) == (reason, "always")
    assert "secret" not in str(failed["message"])


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({}, "expected exactly one of webhook, bot_token, found none"),
        ({"bot_token": "x"}, "bot_token and channel must be set together"),
        ({"channel": "#x"}, "expected exactly one of webhook, bot_token, found none"),
        ({"webhook": "https://x/", "bot_token": "x"}, "found webhook and bot_token"),
        ({"webhook": "https://x/", "channel": "#x"}, "bot_token and channel must be set together"),
        ({"webhook": "hooks.slack.com/x"}, "expected a URL that starts with"),
        ({"bot_token": "x", "channel": "#x", "api_url": "slack.com"}, "expected a URL that starts with"),
    ],
)  # fmt: skip
def test_exactly_one_form_is_required(config: dict[str, str], complaint: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(complaint)):
        SlackNotifier.model_validate(config)


def test_addresses_are_safe_to_show() -> None:
    assert SlackNotifier(bot_token=SecretStr(TOKEN), channel="#oncall").recipient == "#oncall"
    assert (
        SlackNotifier(webhook=SecretStr("https://hooks.slack.com/services/T/B/secret")).recipient == "incoming webhook"
    )
    assert "T/B/" not in repr(SlackNotifier(webhook=SecretStr("https://hooks.slack.com/services/T/B/secret")))


def all_contexts() -> list[AlertMessageContext]:
    items = [context for context in vars(alert_contexts).values() if isinstance(context, AlertMessageContext)]
    return items + [
        hostile_alert(text, resolved=over) for text in alert_contexts.HOSTILE_TEXTS for over in (False, True)
    ]


@pytest.mark.parametrize("context", all_contexts())
def test_every_message_is_within_slacks_limits(context: AlertMessageContext) -> None:
    made = build_slack_blocks(compose_alert_message(context))
    assert are_blocks_valid(made)
    for items in made:
        parsed = Block.parse(items)
        assert parsed is not None
        parsed.validate_json()


def test_slacks_own_models_know_every_block() -> None:
    kinds = {type(Block.parse(items)) for items in build_slack_blocks(compose_alert_message(OPENED_ALERT))}
    assert kinds == {HeaderBlock, SectionBlock, RichTextBlock, ActionsBlock, ContextBlock}
    (act,) = [b for b in build_slack_blocks(compose_alert_message(OPENED_ALERT)) if b["type"] == "actions"]
    actions = ActionsBlock.parse(act)
    assert isinstance(actions, ActionsBlock)
    assert isinstance(actions.elements[0], ButtonElement)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a < b && c > d", "a &lt; b &amp;&amp; c &gt; d"),
        ("<!channel> <@U1> <https://x|y>", "&lt;!channel&gt; &lt;@U1&gt; &lt;https://x|y&gt;"),
        ("&lt;", "&amp;lt;"),
        ("elapsed_ms <= 800", "elapsed_ms &lt;= 800"),
        ("*bold* _it_ ~no~ `code`", "\u2217bold\u2217 \u02cdit\u02cd \u223cno\u223c \u02cbcode\u02cb"),
    ],
)
def test_escaping(text: str, escaped: str) -> None:
    assert escape_mrkdwn(text) == escaped


@pytest.mark.parametrize("text", ["&" * 500, "🚨" * 500, "a" * 150, "a" * 151, "a" * 149 + "<"])
def test_a_header_is_within_the_limit_in_characters_and_code_units(text: str) -> None:
    escaped: Json = escape_and_truncate_mrkdwn(text, MAX_SLACK_HEADER_CHARS)
    assert len(escaped.encode("utf-16-le")) // 2 <= MAX_SLACK_HEADER_CHARS
    assert escaped == escape_mrkdwn(text) or escaped.endswith("…")


def test_a_truncated_header_is_repeated_in_full_in_the_text(slack: FakeSlack, send: SendFixture) -> None:
    cause = "the answer is long: " + "word " * 40
    send(bot(slack), replace(MINIMAL_ALERT, incident=replace(MINIMAL_ALERT.incident, message=cause), now=NOW))
    assert block(slack.posts[0], "header")["text"]["text"].endswith("…")
    assert cause.strip() in block(slack.posts[0], "title")["text"]["text"]
