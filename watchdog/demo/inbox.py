"""A Slack and a mail server that keep what they hear, and a page that shows it as people would see it."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as policy
from typing import Any

from fastapi import FastAPI, Request
from markupsafe import Markup
from starlette.responses import HTMLResponse, JSONResponse, Response

from watchdog.assets import asset
from watchdog.web.pages import HEADERS, Pages

CHANNEL = "C0ONCALL"
KEPT = 100
"""The newest so many messages and letters are kept."""
LETTER = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
"""A letter brings its own styles, and nothing else."""


@dataclass
class Post:
    """A message in the channel, with its thread."""

    ts: str
    text: str
    blocks: list[dict[str, Any]]
    at: datetime
    edited: datetime | None = None
    replies: list[Post] = field(default_factory=list)


@dataclass
class Letter:
    subject: str
    to: str
    html: str
    at: datetime


class Inbox:
    def __init__(self) -> None:
        self.posts: list[Post] = []
        self.letters: list[Letter] = []

    # ------------------------------------------------------------------------------------------ Slack
    def slack(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """chat.postMessage and chat.update, as far as Watchdog uses them."""
        now = datetime.now(UTC)
        if method == "chat.update":
            for post in self.posts:
                if post.ts == body.get("ts"):
                    post.text, post.blocks, post.edited = body.get("text", ""), body.get("blocks", []), now
                    return {"ok": True, "channel": CHANNEL, "ts": post.ts}
            return {"ok": False, "error": "message_not_found"}
        if method != "chat.postMessage":
            return {"ok": False, "error": "unknown_method"}
        made = Post(f"{now.timestamp():.6f}", body.get("text", ""), body.get("blocks", []), now)
        root = next((post for post in self.posts if post.ts == body.get("thread_ts")), None)
        (self.posts if root is None else root.replies).append(made)
        del self.posts[:-KEPT]
        return {"ok": True, "channel": CHANNEL, "ts": made.ts}

    # ------------------------------------------------------------------------------------------ mail
    async def smtp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One conversation in as much SMTP as a client needs that trusts this machine."""
        recipients: list[str] = []

        async def say(line: str) -> None:
            writer.write(f"{line}\r\n".encode())
            await writer.drain()

        try:
            await say("220 inbox ready")
            while line := (await reader.readline()).decode("utf-8", "replace").strip():
                verb = line[:4].upper()
                if verb == "QUIT":
                    await say("221 bye")
                    break
                if verb == "DATA":
                    await say("354 go on")
                    self._keep(await reader.readuntil(b"\r\n.\r\n"), recipients)
                    recipients = []
                elif verb == "RCPT":
                    recipients.append(line.partition("<")[2].partition(">")[0])
                elif verb not in ("EHLO", "HELO", "MAIL", "RSET", "NOOP"):
                    await say("502 not here")
                    continue
                await say("250 fine")
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass  # it hung up, or sends without end
        finally:
            writer.close()

    def _keep(self, data: bytes, recipients: list[str]) -> None:
        raw = data.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.")
        letter = message_from_bytes(raw, EmailMessage, policy=policy)
        rich = letter.get_body(("html",))
        html = "" if rich is None else rich.get_content()
        self.letters.append(Letter(str(letter["subject"]), ", ".join(recipients), html, datetime.now(UTC)))
        del self.letters[:-KEPT]


# ---------------------------------------------------------------------------------------------- as people see it
_MARKS = re.compile(
    r"<(?P<token>[^<>]+)>|`(?P<code>[^`\n]+)`|(?<![\w*])\*(?P<bold>[^*\s](?:[^*\n]*[^*\s])?)\*(?![\w*])"
)


def mrkdwn(text: str) -> Markup:
    """Slack's markup as Slack shows it: bold, code and links; everything else is text."""
    shown, end = Markup(), 0
    for found in _MARKS.finditer(text):
        shown += _text(text[end : found.start()]) + _marked(found)
        end = found.end()
    return shown + _text(text[end:])


def _marked(found: re.Match[str]) -> Markup:
    match found.lastgroup:
        case "code":
            return Markup("<code>{}</code>").format(_text(found["code"]))
        case "bold":
            return Markup("<b>{}</b>").format(_text(found["bold"]))
    target, _, label = found["token"].partition("|")
    if target.startswith(("http://", "https://")):
        return Markup('<a href="{}">{}</a>').format(unescaped(target), _text(label or target))
    return _text(label or target)


def _text(text: str) -> Markup:
    return Markup("<br>").join(unescaped(text).split("\n"))


def unescaped(text: str) -> str:
    """What Slack shows of text that is escaped for it."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def preformatted(block: dict[str, Any]) -> str:
    """The text of a rich_text block."""
    return "".join(run["text"] for element in block["elements"] for run in element["elements"] if "text" in run)


def inbox_app(inbox: Inbox, status: str) -> FastAPI:
    """The inbox's pages, and the Slack that Watchdog posts to. `status`: the URL of the status page."""
    filters = {"mrkdwn": mrkdwn, "preformatted": preformatted, "unescaped": unescaped}
    pages = Pages("Inbox", also="demo", filters=filters)
    style = (asset("templates") / "demo" / "inbox.css").read_bytes()
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    framing = {**HEADERS, "Content-Security-Policy": HEADERS["Content-Security-Policy"] + "; frame-src 'self'"}

    @app.get("/")
    async def page() -> Response:
        now = datetime.now(UTC)
        told = {"posts": list(reversed(inbox.posts)), "letters": list(reversed(list(enumerate(inbox.letters))))}
        page = pages.render("inbox.j2", round(now.timestamp() * 1000), status=status, clock_time=now, **told)
        return HTMLResponse(page, headers={**framing, "Refresh": "5"})

    @app.get("/letters/{number}")
    async def letter(number: int) -> Response:
        if not 0 <= number < len(inbox.letters):
            return HTMLResponse("This letter is no longer kept.", 404)
        return HTMLResponse(inbox.letters[number].html, headers=LETTER)

    @app.get("/static/{name}")
    async def static(name: str) -> Response:
        if name == "inbox.css":
            return Response(style, media_type="text/css")
        file = pages.static.get(name)
        return Response(status_code=404) if file is None else Response(file.content, media_type=file.media_type)

    @app.post("/api/{method}")
    async def slack(method: str, request: Request) -> Response:
        return JSONResponse(inbox.slack(method, await request.json()))

    return app
