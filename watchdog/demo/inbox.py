"""A fake Slack and a fake mail server, and a page that shows the messages as people would see them."""

from __future__ import annotations

import asyncio
import hmac
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as policy
from typing import Any

from fastapi import FastAPI, Request
from markupsafe import Markup
from starlette.middleware.base import RequestResponseEndpoint
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from watchdog.demo.inbox_clicks import DemoSlackClickSender
from watchdog.domain.local_hosts import is_loopback_host
from watchdog.domain.timestamps import to_epoch_ms
from watchdog.resources import find_resource_folder
from watchdog.web.auth.access import strip_port_from_host
from watchdog.web.forms import read_form
from watchdog.web.templating import SECURITY_HEADERS, PageRenderer

DEMO_SLACK_CHANNEL_ID = "C0ONCALL"
MAX_DEMO_INBOX_MESSAGES = 100
"""Number of Slack messages, and of emails, that are kept: the newest."""
CHANGES_CHECKED_AFTER_CLICK, CHANGE_CHECK_INTERVAL_S = 20, 0.1
DEMO_EMAIL_PAGE_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
"""An email may use its own styles, and nothing else."""


@dataclass
class DemoSlackMessage:
    """A message in the channel, with the replies in its thread."""

    ts: str
    text: str
    blocks: list[dict[str, Any]]
    posted_at: datetime
    edited_at: datetime | None = None
    is_for_one_person: bool = False
    """Only the person who clicked sees it."""
    replies: list[DemoSlackMessage] = field(default_factory=list)


@dataclass
class DemoEmail:
    subject: str
    to: str
    html: str
    received_at: datetime


class DemoSlackChannelAndMailbox:
    """Everything that the demo's Slack channel and mailbox received, newest last, in memory."""

    def __init__(self) -> None:
        self.messages: list[DemoSlackMessage] = []
        self.emails: list[DemoEmail] = []
        self.change_count = 0
        """How many calls of the Slack API there have been."""

    # --- Slack
    def handle_slack_call(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """Implements chat.postMessage, chat.postEphemeral and chat.update as far as Watchdog uses them."""
        now = datetime.now(UTC)
        self.change_count += 1
        if method == "chat.update":
            for message in self.messages:
                if message.ts == body.get("ts"):
                    message.text, message.blocks, message.edited_at = body.get("text", ""), body.get("blocks", []), now
                    return {"ok": True, "channel": DEMO_SLACK_CHANNEL_ID, "ts": message.ts}
            return {"ok": False, "error": "message_not_found"}
        if method == "chat.postEphemeral":
            self.post_ephemeral_message(body.get("text", ""), now)
            return {"ok": True}
        if method != "chat.postMessage":
            return {"ok": False, "error": "unknown_method"}
        message = DemoSlackMessage(f"{now.timestamp():.6f}", body.get("text", ""), body.get("blocks", []), now)
        root = next((root for root in self.messages if root.ts == body.get("thread_ts")), None)
        (self.messages if root is None else root.replies).append(message)
        del self.messages[:-MAX_DEMO_INBOX_MESSAGES]
        return {"ok": True, "channel": DEMO_SLACK_CHANNEL_ID, "ts": message.ts}

    def post_ephemeral_message(self, text: str, now: datetime) -> None:
        """A text for the person who clicked, below the last message."""
        message = DemoSlackMessage(f"{now.timestamp():.6f}", text, [], now, is_for_one_person=True)
        self.messages.append(message)
        del self.messages[:-MAX_DEMO_INBOX_MESSAGES]

    def find_button(self, message_ts: str, action_id: str) -> dict[str, Any] | None:
        """A button of a message that acts; None: the message no longer has it."""
        blocks = next((message.blocks for message in self.messages if message.ts == message_ts), [])
        elements = [element for block in blocks if block["type"] == "actions" for element in block["elements"]]
        return next((each for each in elements if each["action_id"] == action_id and "value" in each), None)

    async def wait_for_change(self, former_change_count: int) -> None:
        """Until Watchdog has edited or posted a message, but not for long."""
        for _ in range(CHANGES_CHECKED_AFTER_CLICK):
            if self.change_count != former_change_count:
                return
            await asyncio.sleep(CHANGE_CHECK_INTERVAL_S)

    # --- mail
    async def handle_smtp_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one SMTP connection: the commands that a client without TLS and authentication needs."""
        recipients: list[str] = []

        async def write_smtp_reply_line(line: str) -> None:
            writer.write(f"{line}\r\n".encode())
            await writer.drain()

        try:
            await write_smtp_reply_line("220 inbox ready")
            while line := (await reader.readline()).decode("utf-8", "replace").strip():
                verb = line[:4].upper()
                if verb == "QUIT":
                    await write_smtp_reply_line("221 bye")
                    break
                if verb == "DATA":
                    await write_smtp_reply_line("354 send the message")
                    self._store_email(await reader.readuntil(b"\r\n.\r\n"), recipients)
                    recipients = []
                elif verb == "RCPT":
                    recipients.append(line.partition("<")[2].partition(">")[0])
                elif verb not in ("EHLO", "HELO", "MAIL", "RSET", "NOOP"):
                    await write_smtp_reply_line("502 not implemented")
                    continue
                await write_smtp_reply_line("250 ok")
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass  # the client disconnected, or sent too long a line
        finally:
            writer.close()

    def _store_email(self, data: bytes, recipients: list[str]) -> None:
        raw = data.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.")
        message = message_from_bytes(raw, EmailMessage, policy=policy)
        body = message.get_body(("html",))
        html = "" if body is None else body.get_content()
        self.emails.append(DemoEmail(str(message["subject"]), ", ".join(recipients), html, datetime.now(UTC)))
        del self.emails[:-MAX_DEMO_INBOX_MESSAGES]


# --- the page
_MRKDWN_LINK_CODE_OR_BOLD_PATTERN = re.compile(
    r"<(?P<token>[^<>]+)>|`(?P<code>[^`\n]+)`|(?<![\w*])\*(?P<bold>[^*\s](?:[^*\n]*[^*\s])?)\*(?![\w*])"
)


def mrkdwn_to_html(text: str) -> Markup:
    """Render Slack's markup as Slack does: bold, code and links; everything else is plain text."""
    html, end = Markup(), 0
    for match in _MRKDWN_LINK_CODE_OR_BOLD_PATTERN.finditer(text):
        html += _slack_text_to_html(text[end : match.start()]) + _mrkdwn_match_to_html(match)
        end = match.end()
    return html + _slack_text_to_html(text[end:])


def _mrkdwn_match_to_html(markup_match: re.Match[str]) -> Markup:
    match markup_match.lastgroup:
        case "code":
            return Markup("<code>{}</code>").format(_slack_text_to_html(markup_match["code"]))
        case "bold":
            return Markup("<b>{}</b>").format(_slack_text_to_html(markup_match["bold"]))
    target, _, label = markup_match["token"].partition("|")
    if target.startswith(("http://", "https://")):
        return Markup('<a href="{}">{}</a>').format(unescape_slack_text(target), _slack_text_to_html(label or target))
    return _slack_text_to_html(label or target)


def _slack_text_to_html(text: str) -> Markup:
    return Markup("<br>").join(unescape_slack_text(text).split("\n"))


def unescape_slack_text(text: str) -> str:
    """Undo the escaping that Slack requires."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def extract_slack_rich_text(block: dict[str, Any]) -> str:
    """The text of a rich_text block."""
    return "".join(run["text"] for element in block["elements"] for run in element["elements"] if "text" in run)


def create_demo_inbox_app(
    inbox: DemoSlackChannelAndMailbox, status_url: str, signing_secret: str, slack_token: str
) -> FastAPI:
    """The inbox's page, and the Slack API that Watchdog posts to. `status_url` links back to the status page.
    `signing_secret`: of the Slack app, by which Watchdog knows that clicks come from this inbox. `slack_token`: by
    which the inbox knows that messages come from Watchdog."""
    filters = {"mrkdwn": mrkdwn_to_html, "preformatted": extract_slack_rich_text, "unescape": unescape_slack_text}
    pages = PageRenderer("Inbox", extra_folder="demo", filters=filters)
    style = (find_resource_folder("templates") / "demo" / "inbox.css").read_bytes()
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    framing = {
        **SECURITY_HEADERS,
        "Content-Security-Policy": SECURITY_HEADERS["Content-Security-Policy"] + "; frame-src 'self'",
    }

    add_host_check(app)

    @app.get("/")
    async def page() -> Response:
        now = datetime.now(UTC)
        page = pages.render(
            "inbox.j2",
            to_epoch_ms(now),
            status_url=status_url,
            clock_time=now,
            messages=list(reversed(inbox.messages)),
            emails=list(reversed(list(enumerate(inbox.emails)))),
        )
        return HTMLResponse(page, headers={**framing, "Refresh": "5"})

    @app.get("/emails/{number}")
    async def demo_email_page_endpoint(number: int) -> Response:
        if not 0 <= number < len(inbox.emails):
            return HTMLResponse("This email is no longer available.", 404)
        return HTMLResponse(inbox.emails[number].html, headers=DEMO_EMAIL_PAGE_HEADERS)

    @app.get("/static/{name}")
    async def static(name: str) -> Response:
        if name == "inbox.css":
            return Response(style, media_type="text/css")
        file = pages.static_files.get(name)
        return Response(status_code=404) if file is None else Response(file.body.body, media_type=file.media_type)

    add_click_route(app, inbox, DemoSlackClickSender(f"{status_url}slack/interactivity", signing_secret))

    add_slack_api_route(app, inbox, slack_token)
    return app


def add_host_check(app: FastAPI) -> None:
    """Otherwise another site could read the inbox under a name that it has resolve to 127.0.0.1."""

    @app.middleware("http")
    async def require_loopback_host(request: Request, call_next: RequestResponseEndpoint) -> Response:
        if not is_loopback_host(strip_port_from_host(request.headers.get("host", ""))):
            return HTMLResponse("The inbox is available only under a loopback name such as localhost.", 403)
        return await call_next(request)


def add_slack_api_route(app: FastAPI, inbox: DemoSlackChannelAndMailbox, slack_token: str) -> None:
    """`slack_token`: without it, a page of another site in the same browser could post messages."""

    @app.post("/api/{method}")
    async def handle_slack_api_request(method: str, request: Request) -> Response:
        authorization = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(authorization, f"Bearer {slack_token}".encode()):
            return JSONResponse({"ok": False, "error": "invalid_auth"}, 401)
        return JSONResponse(inbox.handle_slack_call(method, await request.json()))


def add_click_route(app: FastAPI, inbox: DemoSlackChannelAndMailbox, sender: DemoSlackClickSender) -> None:
    """The buttons of the messages. The page shows what became of a click."""

    @app.post("/clicks")
    async def click(request: Request) -> Response:
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return HTMLResponse("The form was sent by another site.", 403)
        form, now, before = await read_form(request), datetime.now(UTC), inbox.change_count
        message_ts = form.get("message_ts", "")
        button = inbox.find_button(message_ts, form.get("action_id", ""))
        if button is None:
            inbox.post_ephemeral_message("The message no longer has this button.", now)
        elif problem := await sender.send(DEMO_SLACK_CHANNEL_ID, message_ts, button, now.timestamp()):
            inbox.post_ephemeral_message(problem, now)
        else:
            await inbox.wait_for_change(before)
        return RedirectResponse("/", 303)
