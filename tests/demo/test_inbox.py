"""The demo's inbox: a Slack and a mail server that show what they hear as people would see it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from typing import Any

import aiosmtplib
import httpx
import pytest

from watchdog.demo.inbox import MAX_KEPT_MESSAGES, SLACK_CHANNEL_ID, DemoInbox, create_inbox_app, render_mrkdwn
from watchdog.notifiers.blocks import escape_mrkdwn

HOSTILE = "<script>alert(\"1\")</script> & <https://evil.example|click> *bold* `code` <!channel> 'x'"


@asynccontextmanager
async def visitor(inbox: DemoInbox) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_inbox_app(inbox, "http://127.0.0.1:8080/"))
    async with httpx.AsyncClient(transport=transport, base_url="http://inbox") as client:
        yield client


@asynccontextmanager
async def post_office(inbox: DemoInbox) -> AsyncIterator[int]:
    async with await asyncio.start_server(inbox.handle_smtp_connection, "127.0.0.1", 0, limit=2**16) as server:
        yield server.sockets[0].getsockname()[1]


def letter(subject: str, html: str, text: str = "as text") -> EmailMessage:
    made = EmailMessage()
    made["Subject"], made["From"], made["To"] = subject, "watchdog@demo.example", "oncall@demo.example"
    made.set_content(text)
    made.add_alternative(html, subtype="html")
    return made


def section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


@pytest.mark.parametrize(
    ("written", "shown"),
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
def test_slacks_markup_as_slack_shows_it(written: str, shown: str) -> None:
    assert render_mrkdwn(written) == shown


def test_what_is_escaped_for_slack_is_shown_as_it_was() -> None:
    shown = render_mrkdwn(escape_mrkdwn(HOSTILE))
    assert "<" not in shown.replace("<br>", "")
    assert "https://evil.example|click" in shown
    assert "&lt;script&gt;" in shown


async def test_hostile_text_is_text_wherever_the_page_shows_it() -> None:
    inbox = DemoInbox()
    head = {"type": "header", "text": {"type": "plain_text", "text": escape_mrkdwn(HOSTILE)}}
    code = {"type": "rich_text", "elements": [{"elements": [{"type": "text", "text": HOSTILE}]}]}
    foot = {"type": "context", "elements": [{"type": "mrkdwn", "text": escape_mrkdwn(HOSTILE)}]}
    facts = {"type": "section", "fields": [{"type": "mrkdwn", "text": escape_mrkdwn(HOSTILE)}]}
    body = {
        "channel": SLACK_CHANNEL_ID,
        "text": "x",
        "blocks": [head, section(escape_mrkdwn(HOSTILE)), facts, code, foot],
    }
    async with visitor(inbox) as client:
        root = (await client.post("/api/chat.postMessage", json=body)).json()
        reply = {"channel": SLACK_CHANNEL_ID, "thread_ts": root["ts"], "text": escape_mrkdwn(HOSTILE)}
        assert (await client.post("/api/chat.postMessage", json=reply)).json()["ok"]
        page = await client.get("/")
    assert page.text.count("&lt;script&gt;") == 6
    assert "<script" not in page.text
    assert '<a href="https://evil.example' not in page.text
    assert "&amp;lt;" not in page.text, "nothing is escaped twice"
    assert "frame-src 'self'" in page.headers["content-security-policy"]
    assert "script-src" not in page.headers["content-security-policy"]


async def test_a_message_is_edited_in_place_and_its_thread_hangs_below_it() -> None:
    inbox = DemoInbox()
    async with visitor(inbox) as client:
        assert "Nothing yet: all is well." in (await client.get("/")).text
        sent = (await client.post("/api/chat.postMessage", json={"text": "x", "blocks": [section("it broke")]})).json()
        edit = {"channel": SLACK_CHANNEL_ID, "ts": sent["ts"], "text": "y", "blocks": [section("it recovered")]}
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


async def test_letters_are_kept_as_they_were_written() -> None:
    inbox = DemoInbox()
    html = f"<p>.a line that begins with a dot</p>\n.\n..\n<p>{'x' * 3_000}</p>"
    async with post_office(inbox) as port, aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False) as client:
        await client.send_message(
            letter("[DOWN] API: got 503 ✕", html), recipients=["a@demo.example", "b@demo.example"]
        )
        await client.send_message(letter("Re: second", "<p>on the same connection</p>"))
    first, second = inbox.emails
    assert (first.subject, first.to) == ("[DOWN] API: got 503 ✕", "a@demo.example, b@demo.example")
    assert first.html.split() == html.split()
    assert (second.subject, second.to) == ("Re: second", "oncall@demo.example")


async def test_a_letter_is_shown_in_a_frame_that_runs_nothing() -> None:
    inbox = DemoInbox()
    async with post_office(inbox) as port, aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False) as client:
        await client.send_message(letter(f"Hi {HOSTILE}", "<p style='color:red'>hello</p><script>alert(1)</script>"))
    async with visitor(inbox) as client:
        page, shown, none = [await client.get(path) for path in ("/", "/letters/0", "/letters/7")]
    assert 'src="/letters/0"' in page.text
    assert "sandbox></iframe>" in page.text
    assert "<script" not in page.text
    assert "&lt;script&gt;" in page.text
    policy = shown.headers["content-security-policy"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    assert "hello" in shown.text
    assert (none.status_code, none.text) == (404, "This letter is no longer kept.")


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"EHLO x\r\n",
        b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: half a let",
        b"x" * 100_000,
        b"\xff\xfe\r\n",
    ],
    ids=["at once", "after a greeting", "within a letter", "after a line without an end", "after what is no text"],
)
async def test_a_client_that_hangs_up_harms_nobody(said: bytes) -> None:
    inbox, troubles = DemoInbox(), list[Any]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
    async with post_office(inbox) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        writer.write_eof()
        await writer.drain()
        writer.close()
        async with aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False) as client:
            await client.send_message(letter("still here", "<p>yes</p>"))
    assert [kept.subject for kept in inbox.emails] == ["still here"]
    assert not troubles


async def test_only_the_newest_are_kept() -> None:
    inbox = DemoInbox()
    for number in range(MAX_KEPT_MESSAGES + 5):
        inbox.handle_slack_call("chat.postMessage", {"text": f"message {number}"})
    assert [post.text for post in inbox.messages][:: MAX_KEPT_MESSAGES - 1] == [
        "message 5",
        f"message {MAX_KEPT_MESSAGES + 4}",
    ]
