"""The demo's inbox: a fake Slack and a fake mail server, and the page that shows what they received."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from typing import Any

import aiosmtplib
import httpx
import pytest
import respx
from pydantic import SecretStr

from watchdog.demo.inbox import (
    DEMO_SLACK_CHANNEL_ID,
    MAX_DEMO_INBOX_MESSAGES,
    DemoSlackChannelAndMailbox,
    create_demo_inbox_app,
    mrkdwn_to_html,
)
from watchdog.notifiers.blocks import escape_mrkdwn
from watchdog.notifiers.slack_buttons import SlackButtonValue
from watchdog.service.slack_requests import (
    find_destinations_whose_secret_signed_request,
    parse_slack_click,
    parse_slack_signature,
)

SIGNING_SECRET = "0123456789abcdef0123456789abcdef"
TOKEN = "xoxb-0123456789"
HOSTILE = "<script>alert(\"1\")</script> & <https://evil.example|click> *bold* `code` <!channel> 'x'"


@asynccontextmanager
async def open_client(inbox: DemoSlackChannelAndMailbox) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_demo_inbox_app(inbox, "http://127.0.0.1:8080/", SIGNING_SECRET, TOKEN))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8081", headers=headers) as client:
        yield client


@asynccontextmanager
async def run_smtp_server(inbox: DemoSlackChannelAndMailbox) -> AsyncIterator[int]:
    async with await asyncio.start_server(inbox.handle_smtp_connection, "127.0.0.1", 0, limit=2**16) as server:
        yield server.sockets[0].getsockname()[1]


def make_email(subject: str, html: str, text: str = "as text") -> EmailMessage:
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = subject, "watchdog@demo.example", "oncall@demo.example"
    message.set_content(text)
    message.add_alternative(html, subtype="html")
    return message


def section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


@pytest.mark.parametrize(
    ("mrkdwn", "html"),
    [
        ("plain", "plain"),
        ("two\nlines", "two<br>lines"),
        ("*Rule* a status of 2xx", "<b>Rule</b> a status of 2xx"),
        ("2 * 3 * 4", "2 * 3 * 4"),
        ("`status == 200` · observed 503", "<code>status == 200</code> · observed 503"),
        ("`a * b * c`", "<code>a * b * c</code>"),
        ("<https://a.example/?x=1&amp;y=2|Runbook>", '<a href="https://a.example/?x=1&amp;y=2">Runbook</a>'),
        ("<https://a.example/>", '<a href="https://a.example/">https://a.example/</a>'),
        ("&lt;https://evil.example|click&gt;", "&lt;https://evil.example|click&gt;"),
        ("<javascript:alert(1)|click>", "click"),
        ('<https://a.example/"onclick="x|y>', '<a href="https://a.example/&#34;onclick=&#34;x">y</a>'),
        ("&lt;b&gt; &amp;amp;", "&lt;b&gt; &amp;amp;"),
        ("<b>", "b"),
    ],
)
def test_slack_markup_is_rendered(mrkdwn: str, html: str) -> None:
    assert mrkdwn_to_html(mrkdwn) == html


def test_text_escaped_for_slack_is_shown_unescaped() -> None:
    html = mrkdwn_to_html(escape_mrkdwn(HOSTILE))
    assert "<" not in html.replace("<br>", "")
    assert "https://evil.example|click" in html
    assert "&lt;script&gt;" in html


async def test_hostile_text_is_escaped_everywhere_on_the_page() -> None:
    inbox = DemoSlackChannelAndMailbox()
    head = {"type": "header", "text": {"type": "plain_text", "text": escape_mrkdwn(HOSTILE)}}
    code = {"type": "rich_text", "elements": [{"elements": [{"type": "text", "text": HOSTILE}]}]}
    foot = {"type": "context", "elements": [{"type": "mrkdwn", "text": escape_mrkdwn(HOSTILE)}]}
    facts = {"type": "section", "fields": [{"type": "mrkdwn", "text": escape_mrkdwn(HOSTILE)}]}
    body = {
        "channel": DEMO_SLACK_CHANNEL_ID,
        "text": "x",
        "blocks": [head, section(escape_mrkdwn(HOSTILE)), facts, code, foot],
    }
    async with open_client(inbox) as client:
        root = (await client.post("/api/chat.postMessage", json=body)).json()
        reply = {"channel": DEMO_SLACK_CHANNEL_ID, "thread_ts": root["ts"], "text": escape_mrkdwn(HOSTILE)}
        assert (await client.post("/api/chat.postMessage", json=reply)).json()["ok"]
        page = await client.get("/")
    assert page.text.count("&lt;script&gt;") == 6
    assert "<script" not in page.text
    assert '<a href="https://evil.example' not in page.text
    assert "&amp;lt;" not in page.text, "nothing is escaped twice"
    assert "frame-src 'self'" in page.headers["content-security-policy"]
    assert "script-src" not in page.headers["content-security-policy"]


async def test_a_message_is_edited_in_place_and_its_thread_follows_it() -> None:
    inbox = DemoSlackChannelAndMailbox()
    async with open_client(inbox) as client:
        assert "No messages yet." in (await client.get("/")).text
        sent = (await client.post("/api/chat.postMessage", json={"text": "x", "blocks": [section("it broke")]})).json()
        edit = {"channel": DEMO_SLACK_CHANNEL_ID, "ts": sent["ts"], "text": "y", "blocks": [section("it recovered")]}
        assert (await client.post("/api/chat.update", json=edit)).json() == {
            "ok": True,
            **{k: sent[k] for k in ("channel", "ts")},
        }
        await client.post("/api/chat.postMessage", json={"thread_ts": sent["ts"], "text": "recovered after 2 min"})
        page = (await client.get("/")).text
        gone = (await client.post("/api/chat.update", json={"ts": "0.1"})).json()
        odd = (await client.post("/api/files.upload", json={})).json()
    assert page.count('<article class="msg">') == 1
    assert "it recovered" in page
    assert "it broke" not in page
    assert "(edited " in page
    assert "recovered after 2 min" in page
    assert gone == {"ok": False, "error": "message_not_found"}
    assert odd == {"ok": False, "error": "unknown_method"}


def acts_block() -> dict[str, Any]:
    link = {"type": "button", "action_id": "details", "text": {"text": "Details"}, "url": "http://127.0.0.1:8080/x"}
    acknowledge = {"type": "button", "action_id": "acknowledge", "text": {"text": "Acknowledge"}, "value": "i1:1700"}
    return {"type": "actions", "elements": [{**acknowledge, "style": "primary"}, link]}


async def post_message_with_buttons(client: httpx.AsyncClient) -> str:
    message = {"text": "x", "blocks": [section("it broke"), acts_block()]}
    return str((await client.post("/api/chat.postMessage", json=message)).json()["ts"])


@respx.mock
async def test_a_click_is_sent_to_watchdog_as_slack_signs_it() -> None:
    inbox = DemoSlackChannelAndMailbox()
    watchdog = respx.post("http://127.0.0.1:8080/slack/interactivity")
    async with open_client(inbox) as client:
        ts = await post_message_with_buttons(client)
        assert (
            f'value="{ts}"><button class="btn btn-primary" name="action_id" value="acknowledge">'
            in (await client.get("/")).text
        )

        def acknowledge(_: httpx.Request) -> httpx.Response:
            inbox.handle_slack_call("chat.update", {"ts": ts, "text": "y", "blocks": [section("acknowledged by You")]})
            return httpx.Response(200)

        watchdog.mock(side_effect=acknowledge)
        response = await client.post("/clicks", data={"message_ts": ts, "action_id": "acknowledge"})
        assert (response.status_code, response.headers["location"]) == (303, "/")
        assert "acknowledged by You" in (await client.get("/")).text
        again = await client.post("/clicks", data={"message_ts": ts, "action_id": "acknowledge"})
        assert again.status_code == 303
        assert "The message no longer has this button." in (await client.get("/")).text
    (call,) = watchdog.calls
    headers, body = call.request.headers, call.request.content
    timestamp = headers["x-slack-request-timestamp"]
    signature = parse_slack_signature(timestamp, headers["x-slack-signature"], int(timestamp) * 1_000)
    assert find_destinations_whose_secret_signed_request(
        {"oncall/slack": SecretStr(SIGNING_SECRET)}, signature, body
    ) == ["oncall/slack"]
    click = parse_slack_click(body)
    assert (click.action_id, click.channel_id, click.message_ts) == ("acknowledge", DEMO_SLACK_CHANNEL_ID, ts)
    assert (click.message, click.user.display_name) == (SlackButtonValue("i1", 1_700), "You")


@respx.mock
@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (httpx.Response(403), "Watchdog refused the click: HTTP 403"),
        (httpx.ConnectError("refused"), "Watchdog did not respond: ConnectError"),
    ],
)
async def test_a_click_that_fails_is_explained_to_the_person(answer: Any, text: str) -> None:
    respx.post("http://127.0.0.1:8080/slack/interactivity").mock(side_effect=[answer])
    async with open_client(DemoSlackChannelAndMailbox()) as client:
        ts = await post_message_with_buttons(client)
        await client.post("/clicks", data={"message_ts": ts, "action_id": "acknowledge"})
        page = (await client.get("/")).text
    assert text in page
    assert "only visible to you" in page


async def test_a_click_of_another_site_is_refused() -> None:
    async with open_client(DemoSlackChannelAndMailbox()) as client:
        ts = await post_message_with_buttons(client)
        fields = {"message_ts": ts, "action_id": "acknowledge"}
        response = await client.post("/clicks", data=fields, headers={"Sec-Fetch-Site": "cross-site"})
        assert response.status_code == 403


async def test_a_page_of_another_site_cannot_post_messages() -> None:
    inbox = DemoSlackChannelAndMailbox()
    async with open_client(inbox) as client:
        for authorization in ("", f"Bearer {TOKEN}0"):
            headers = {"Authorization": authorization, "Content-Type": "text/plain"}
            response = await client.post("/api/chat.postMessage", content=b'{"text": "x"}', headers=headers)
            assert (response.status_code, response.json()) == (401, {"ok": False, "error": "invalid_auth"})
    assert inbox.messages == []


@pytest.mark.parametrize(("host", "status"), [("localhost:8081", 200), ("[::1]:8081", 200), ("evil.example:8081", 403)])
async def test_a_name_of_another_site_does_not_lead_to_the_inbox(host: str, status: int) -> None:
    async with open_client(DemoSlackChannelAndMailbox()) as client:
        assert (await client.get("/", headers={"Host": host})).status_code == status


async def test_watchdog_shows_a_text_to_the_person_who_clicked() -> None:
    async with open_client(DemoSlackChannelAndMailbox()) as client:
        text = {"channel": DEMO_SLACK_CHANNEL_ID, "user": "U0DEMO", "text": "Silenced by You"}
        assert (await client.post("/api/chat.postEphemeral", json=text)).json() == {"ok": True}
        assert "Silenced by You" in (await client.get("/")).text


async def test_emails_are_stored_unchanged() -> None:
    inbox = DemoSlackChannelAndMailbox()
    html = f"<p>.a line that begins with a dot</p>\n.\n..\n<p>{'x' * 3_000}</p>"
    async with (
        run_smtp_server(inbox) as port,
        aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False) as client,
    ):
        await client.send_message(
            make_email("[DOWN] API: HTTP 503 ✕", html), recipients=["a@demo.example", "b@demo.example"]
        )
        await client.send_message(make_email("Re: second", "<p>on the same connection</p>"))
    first, second = inbox.emails
    assert (first.subject, first.to) == ("[DOWN] API: HTTP 503 ✕", "a@demo.example, b@demo.example")
    assert first.html.split() == html.split()
    assert (second.subject, second.to) == ("Re: second", "oncall@demo.example")


async def test_an_email_is_shown_in_a_frame_without_scripts() -> None:
    inbox = DemoSlackChannelAndMailbox()
    async with (
        run_smtp_server(inbox) as port,
        aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False) as client,
    ):
        await client.send_message(
            make_email(f"Hi {HOSTILE}", "<p style='color:red'>hello</p><script>alert(1)</script>")
        )
    async with open_client(inbox) as client:
        page, email_page, none = [await client.get(path) for path in ("/", "/emails/0", "/emails/7")]
    assert 'src="/emails/0"' in page.text
    assert "sandbox></iframe>" in page.text
    assert "<script" not in page.text
    assert "&lt;script&gt;" in page.text
    policy = email_page.headers["content-security-policy"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    assert "hello" in email_page.text
    assert (none.status_code, none.text) == (404, "This email is no longer available.")


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"EHLO x\r\n",
        b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: half a let",
        b"x" * 100_000,
        b"\xff\xfe\r\n",
    ],
    ids=[
        "at once",
        "after the greeting",
        "during the message",
        "after an endless line",
        "after bytes that are not text",
    ],
)
async def test_a_client_that_disconnects_has_no_effect_on_others(sent: bytes) -> None:
    inbox, loop_errors = DemoSlackChannelAndMailbox(), list[Any]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: loop_errors.append(context))
    async with run_smtp_server(inbox) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        writer.write_eof()
        await writer.drain()
        writer.close()
        async with aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False) as client:
            await client.send_message(make_email("still here", "<p>yes</p>"))
    assert [email.subject for email in inbox.emails] == ["still here"]
    assert not loop_errors


async def test_only_the_newest_messages_are_kept() -> None:
    inbox = DemoSlackChannelAndMailbox()
    for number in range(MAX_DEMO_INBOX_MESSAGES + 5):
        inbox.handle_slack_call("chat.postMessage", {"text": f"message {number}"})
    assert [message.text for message in inbox.messages][:: MAX_DEMO_INBOX_MESSAGES - 1] == [
        "message 5",
        f"message {MAX_DEMO_INBOX_MESSAGES + 4}",
    ]
