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
from markupsafe import Markup, escape
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
    text: str
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
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    def _keep(self, data: bytes, recipients: list[str]) -> None:
        raw = data.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.")
        letter = message_from_bytes(raw, EmailMessage, policy=policy)
        plain, rich = letter.get_body(("plain",)), letter.get_body(("html",))
        text = "" if plain is None else plain.get_content()
        html = "" if rich is None else rich.get_content()
        self.letters.append(Letter(str(letter["subject"]), ", ".join(recipients), text, html, datetime.now(UTC)))
        del self.letters[:-KEPT]


# ---------------------------------------------------------------------------------------------- as people see it
def mrkdwn(text: str) -> Markup:
    """Slack's markup as Slack shows it: bold, code, links and dates; everything else is text."""
    shown = str(escape(text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")))
    shown = re.sub(r"&lt;!date\^\d+\^[^|]*\|([^&]*)&gt;", r"\1", shown)
    shown = re.sub(r"&lt;(https?://[^|&]+(?:&amp;[^|&]+)*)\|([^&]*)&gt;", r'<a href="\1">\2</a>', shown)
    shown = re.sub(r"`([^`\n]+)`", r"<code>\1</code>", shown)
    shown = re.sub(r"(?<![\w*])\*([^*\n]+)\*(?![\w*])", r"<b>\1</b>", shown)
    return Markup(shown.replace("\n", "<br>"))  # noqa: S704 - escaped first, then only these marks are put in


def preformatted(block: dict[str, Any]) -> str:
    """The text of a rich_text block."""
    return "".join(run["text"] for element in block["elements"] for run in element["elements"] if "text" in run)


def inbox_app(inbox: Inbox, status: str) -> FastAPI:
    """The inbox's pages, and the Slack that Watchdog posts to. `status`: the URL of the status page."""
    pages = Pages("Inbox", also="demo", filters={"mrkdwn": mrkdwn, "preformatted": preformatted})
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
