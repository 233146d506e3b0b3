"""The cause of an incident changes twice: the Slack message is edited each time, other receivers get one message."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.end_to_end import FAST_PROBE, EndToEndHarness
from tests.support.polling import wait_until_async
from watchdog.store.tables import cause_changes


class FailingTarget:
    """Responds with the status `status`, or closes the connection without a response if it is 0."""

    def __init__(self) -> None:
        self.status = 200

    @contextmanager
    def running(self) -> Iterator[str]:
        target = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.close_connection = True
                if target.status:
                    self.send_response(target.status)
                    self.send_header("content-length", "0")
                    self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            server.server_close()


async def test_a_cause_that_changes_twice(each_harness: EndToEndHarness) -> None:
    harness, target = each_harness, FailingTarget()
    bot, email, hook = (harness.receivers[kind].fake for kind in ("bot", "email", "hook"))

    def bot_titles() -> list[str]:
        """The root's title, then each reply of its thread."""
        return [post["text"].removesuffix(" · warning") for post in bot.posts]

    with target.running() as url:
        harness.probes = [{"name": "API", "http": url, **FAST_PROBE}]
        async with harness.running_watchdog() as watchdog:
            await watchdog.wait_for_results("pass")
            target.status = 503
            await wait_until_async(lambda: len(hook.received) == len(email.received) == len(bot.posts) == 1)
            assert bot_titles() == ["✕ Down: API: HTTP 503, expected 2xx"]
            target.status = 0
            await wait_until_async(lambda: len(hook.received) == len(email.received) == len(bot.posts) == 2)
            lost = watchdog.list_incidents()[0].message
            assert bot_titles() == [
                f"✕ Down: API: {lost}",
                f"✕ Still down: API: {lost} (was: HTTP 503, expected 2xx)",
            ]
            target.status = 500
            await wait_until_async(lambda: len(bot.posts) == 3)
            assert bot_titles()[::2] == [
                "✕ Down: API: HTTP 500, expected 2xx",
                f"✕ Still down: API: HTTP 500, expected 2xx (was: {lost})",
            ]
            target.status = 200
            await wait_until_async(lambda: len(hook.received) == len(email.received) == 3 and len(bot.posts) == 4)
            changes = watchdog.query_store(lambda connection: connection.execute(cause_changes.select()).all())
            (incident,) = watchdog.list_incidents()
    assert len(bot.thread_roots) == 1
    assert [post.get("reply_broadcast") for post in bot.posts[1:]] == [False, False, True]
    assert (incident.message, incident.opening_cause_message) == ("HTTP 500, expected 2xx", "HTTP 503, expected 2xx")
    assert len(changes) == 2
    assert [request.json["event"] for request in hook.received] == ["opened", "changed", "resolved"]
    subjects = [mail.message["subject"] for mail in email.received]
    assert subjects[:2] == [
        "[DOWN warning] API: HTTP 503, expected 2xx",
        f"[CHANGED warning] Still down: API: {lost} (was: HTTP 503, expected 2xx)",
    ]
    assert subjects[2].startswith("[RECOVERED] API: up again after ")
    first, *replies = [mail.message for mail in email.received]
    assert {reply["References"] for reply in replies} == {first["Message-ID"]}, "one thread"
