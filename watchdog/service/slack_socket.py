"""Socket Mode: Slack sends the clicks on buttons over a connection that Watchdog opens, so that Slack need not reach
Watchdog.

open       ask Slack for an address with the app token, connect to it, and wait for its greeting (`hello`)
serve      act on each click, and acknowledge its envelope within the 3 s that Slack waits
replace    Slack announces that it will close the connection: the next one is opened before that
reopen     a connection that ends, or cannot be opened, is opened again after 1 s to 60 s
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from random import uniform
from typing import NamedTuple, Self

import structlog

from watchdog.config_types import Secret
from watchdog.net import ProbeError
from watchdog.net.websocket import WebSocket, open_websocket, preload_websocket_library
from watchdog.notifiers import NotificationDeliveryError, Notifier, SlackNotifier
from watchdog.notifiers.base import DELIVERY_CONFIG_ERROR_RETRY_DURATION_S
from watchdog.notifiers.slack_socket_url import request_slack_socket_url
from watchdog.service.acts import run_act_and_send
from watchdog.service.notifications import NOTIFICATION_SEND_TIMEOUT_S, NotificationSender
from watchdog.service.slack_clicks import SlackClickHandler, SlackClickResult
from watchdog.service.slack_requests import (
    InboundSlackRequestRefusedError,
    SlackClick,
    SlackRequestRepeatedError,
    SlackSocketMessage,
    parse_click_and_identity_of_envelope,
    parse_slack_socket_message,
)

log = structlog.get_logger()

MAX_SLACK_SOCKET_MESSAGE_BYTES = 1_048_576
SLACK_GREETING_TIMEOUT_S = 30.0
SLACK_ACKNOWLEDGEMENT_TIMEOUT_S = 1.0
"""After an act, which may take 2 s: Slack waits for 3 s."""
ANNOUNCED_SLACK_SOCKET_END_TIMEOUT_S = 30.0
"""Slack closes a connection seconds after it has announced that; if not, Watchdog closes it."""
FIRST_SLACK_SOCKET_RETRY_DELAY_S, MAX_SLACK_SOCKET_RETRY_DELAY_S = 1.0, 60.0
"""Delay after a failure, doubled for each further failure up to the maximum. A longer delay is a problem at once."""
REFUSED_SLACK_SOCKET_RETRY_DELAY_S = 300.0
"""After an error that lasts until a person changes something, and the longest that Slack can ask for."""
STABLE_SLACK_SOCKET_AGE_MS = 60_000
"""A connection that lasted so long after its greeting was no failure."""
FAILURES_BEFORE_SLACK_SOCKET_PROBLEM = 6
"""In a row, which takes half a minute if each fails at once: most outages are over by then."""
MAX_CLICKS_IN_PROGRESS_PER_SLACK_SOCKET = 20
"""A further click waits for up to 3 s, and may be acted on after Slack has shown the person that it failed."""
REFUSAL_BY_DISCONNECT_REASON = {
    "link_disabled": "Socket Mode is turned off in the settings of the app",
    "too_many_websockets": "the app has more connections than Slack allows (ten)",
}
"""Why Slack ends a connection that it does not replace."""


class SlackAppConnectionKey(NamedTuple):
    """What identifies a connection. Receivers with one app share it, because Slack sends a click over any one of the
    connections of an app."""

    app_token: Secret
    api_url: str


class SlackSocketError(Exception):
    """A connection cannot be opened, or has ended. The message is safe to show.

    `is_refused`: it lasts until a person changes something.
    `retry_after_s`: when to retry, if Slack asks for a time.
    """

    def __init__(self, message: str, *, is_refused: bool = False, retry_after_s: float = 0.0):
        super().__init__(message)
        self.is_refused, self.retry_after_s = is_refused, retry_after_s


def group_notifiers_by_slack_app(
    notifiers: Mapping[str, Notifier],
) -> dict[SlackAppConnectionKey, dict[str, SlackNotifier]]:
    """App -> destination -> notifier, of those that have an app token."""
    notifiers_by_app: dict[SlackAppConnectionKey, dict[str, SlackNotifier]] = {}
    for destination, notifier in notifiers.items():
        if isinstance(notifier, SlackNotifier) and notifier.app_token is not None:
            app = SlackAppConnectionKey(notifier.app_token, notifier.api_url)
            notifiers_by_app.setdefault(app, {})[destination] = notifier
    return notifiers_by_app


def compute_slack_socket_retry_delay_s(failures: int, error: SlackSocketError, jitter: float) -> float:
    """`failures`: in a row. `jitter`: 0 to 1; so that processes that lost their connections together do not come back
    together."""
    delay_s = min(FIRST_SLACK_SOCKET_RETRY_DELAY_S * 2.0 ** min(failures - 1, 10), MAX_SLACK_SOCKET_RETRY_DELAY_S)
    if error.is_refused:
        delay_s = REFUSED_SLACK_SOCKET_RETRY_DELAY_S
    return max(delay_s * (1 - jitter / 2), min(error.retry_after_s, REFUSED_SLACK_SOCKET_RETRY_DELAY_S))


class SlackSockets:
    """Owns the connections of the apps whose tokens the receivers have, for as long as its `async with` block runs. A
    reload opens and closes only those of other tokens.

    `report_problem`: called with the reason why clicks do not arrive; empty: they arrive. `wait`: for seconds.
    """

    def __init__(
        self,
        sender: NotificationSender,
        report_problem: Callable[[str], None],
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ):
        self._sender, self._report_problem, self._wait = sender, report_problem, wait
        self._sockets: dict[SlackAppConnectionKey, SlackSocket] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._results: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._sender.on_destination_change = self.open_and_close_as_configured
        self.open_and_close_as_configured()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sender.on_destination_change = None
        closing = (*self._closing, *(socket.close() for socket in self._sockets.values()))
        await asyncio.gather(*closing, return_exceptions=True)
        await _cancel_tasks_and_wait(self._results)

    def open_and_close_as_configured(self) -> None:
        notifiers_by_app = group_notifiers_by_slack_app(self._sender.notifiers)
        for app in self._sockets.keys() - notifiers_by_app.keys():
            closing = asyncio.create_task(self._sockets.pop(app).close(), name="close Slack socket")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        for app, notifiers in notifiers_by_app.items():
            if app in self._sockets:
                self._sockets[app].notifiers = notifiers
            else:
                self._sockets[app] = SlackSocket(
                    *(app, notifiers, self._sender),
                    on_problem_change=self._report_problems_of_all_sockets,
                    show_result_soon=self._show_result_soon,
                    wait=self._wait,
                )
        self._report_problems_of_all_sockets()

    def _show_result_soon(self, handler: SlackClickHandler, click: SlackClick, result: SlackClickResult) -> None:
        """Also if a reload closes the connection before the result is known."""
        task = asyncio.create_task(handler.show_result(click, result), name="show result of Slack click")
        self._results.add(task)
        task.add_done_callback(self._results.discard)

    def _report_problems_of_all_sockets(self) -> None:
        problems = [
            f"{', '.join(sorted(socket.notifiers))}: {socket.problem}"
            for socket in self._sockets.values()
            if socket.problem
        ]
        self._report_problem("; ".join(sorted(problems)))


class SlackSocket:
    """Keeps a connection to Slack for one app, from its creation until `close()`."""

    def __init__(
        self,
        app: SlackAppConnectionKey,
        notifiers: Mapping[str, SlackNotifier],
        sender: NotificationSender,
        *,
        on_problem_change: Callable[[], None],
        show_result_soon: Callable[[SlackClickHandler, SlackClick, SlackClickResult], None],
        wait: Callable[[float], Awaitable[None]],
    ):
        self.notifiers = notifiers
        """By destination. A reload may change them."""
        self.problem = ""
        """What keeps clicks away; empty: nothing does, or not for long enough."""
        self._app, self._sender, self._wait = app, sender, wait
        self._on_problem_change, self._show_result_soon = on_problem_change, show_result_soon
        self._logged_error = ""
        self._greeted_at: int | None = None
        """When Slack greeted over the newest connection, in epoch ms."""
        self._recoveries: set[asyncio.Task[None]] = set()
        self._serving: dict[asyncio.Task[None], _SlackSocketConnection] = {}
        self._keeper = asyncio.create_task(self._keep_connected(), name="keep Slack socket")

    async def close(self) -> None:
        """At once, but for the acts in progress, which end within seconds."""
        await _cancel_tasks_and_wait({self._keeper, *self._recoveries})
        serving = dict(self._serving)
        for task, connection in serving.items():
            if not connection.is_ending:
                task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    async def _keep_connected(self) -> None:
        failures = 0
        while True:
            self._greeted_at = None
            error: SlackSocketError | None = None
            try:
                await self._serve_until_replacement_needed()
            except SlackSocketError as e:
                error = e
            except Exception as e:
                error = SlackSocketError(f"{type(e).__name__} inside Watchdog")
                if str(error) != self._logged_error:
                    log.exception("slack_socket_error")
            if self._was_stable():
                failures = 0
                if error is None:
                    continue
            failures += 1
            error = error or SlackSocketError("Slack replaces connections after less than a minute")
            delay_s = compute_slack_socket_retry_delay_s(failures, error, uniform(0, 1))  # noqa: S311 - no secret
            self._note_failure(error, failures, delay_s)
            await self._wait(delay_s)

    def _was_stable(self) -> bool:
        return self._greeted_at is not None and self._sender.clock() - self._greeted_at >= STABLE_SLACK_SOCKET_AGE_MS

    async def _serve_until_replacement_needed(self) -> None:
        """Returns once Slack has announced that it will close the connection, which is served until then. Raises
        SlackSocketError."""
        connection = _SlackSocketConnection(await self._open())
        task = asyncio.create_task(self._serve(connection), name="serve Slack socket")
        self._serving[task] = connection
        task.add_done_callback(self._serving.pop)
        await connection.replacement_needed.wait()
        if connection.error is not None:
            raise connection.error

    async def _open(self) -> WebSocket:
        sender = self._sender
        await asyncio.to_thread(preload_websocket_library)
        try:
            async with asyncio.timeout(NOTIFICATION_SEND_TIMEOUT_S):
                url = await request_slack_socket_url(sender.network, *self._app, now=sender.clock())
            return await open_websocket(
                sender.network.connector,
                url,
                max_message_bytes=MAX_SLACK_SOCKET_MESSAGE_BYTES,
                routing=sender.network.routing,
            )
        except TimeoutError:
            raise SlackSocketError(f"no response from Slack within {NOTIFICATION_SEND_TIMEOUT_S:g} s") from None
        except ProbeError as error:
            raise SlackSocketError(sender.mask(str(error))) from None
        except NotificationDeliveryError as error:
            is_refused = error.retry_for_s <= DELIVERY_CONFIG_ERROR_RETRY_DURATION_S
            message, retry_after_s = sender.mask(str(error)), error.retry_after_s or 0.0
            raise SlackSocketError(message, is_refused=is_refused, retry_after_s=retry_after_s) from None

    async def _serve(self, connection: _SlackSocketConnection) -> None:
        """Until the connection ends. Acts in progress end before it is closed."""
        try:
            async with asyncio.timeout(SLACK_GREETING_TIMEOUT_S) as deadline:
                while True:
                    await self._take_message(connection, await connection.websocket.receive(), deadline)
        except TimeoutError:
            connection.record_error_and_request_replacement(
                SlackSocketError(f"no greeting from Slack within {SLACK_GREETING_TIMEOUT_S:g} s")
            )
        except ProbeError as error:
            connection.record_error_and_request_replacement(SlackSocketError(str(error)))
        except SlackSocketError as error:
            connection.record_error_and_request_replacement(error)
        except Exception as error:
            log.exception("slack_socket_error")
            connection.record_error_and_request_replacement(SlackSocketError(f"{type(error).__name__} inside Watchdog"))
        finally:
            connection.is_ending = True
            connection.record_error_and_request_replacement(SlackSocketError("the connection was lost"))
            await asyncio.gather(*connection.acts, return_exceptions=True)
            await connection.websocket.close()

    async def _take_message(self, connection: _SlackSocketConnection, text: str, deadline: asyncio.Timeout) -> None:
        """Raises SlackSocketError if no other connection can be opened."""
        try:
            message = parse_slack_socket_message(text)
        except InboundSlackRequestRefusedError as error:
            log.warning("slack_message_ignored", destinations=sorted(self.notifiers), error=str(error))
            return
        if message.type == "disconnect" and message.reason in REFUSAL_BY_DISCONNECT_REASON:
            raise SlackSocketError(REFUSAL_BY_DISCONNECT_REASON[message.reason], is_refused=True)
        if message.type in ("hello", "disconnect") and connection.replacement_needed.is_set():
            return  # nothing puts off an announced end
        if message.type == "hello":
            deadline.reschedule(None)
            self._note_connected()
        elif message.type == "disconnect":
            deadline.reschedule(asyncio.get_running_loop().time() + ANNOUNCED_SLACK_SOCKET_END_TIMEOUT_S)
            connection.replacement_needed.set()
        elif message.envelope_id:
            await connection.places.acquire()
            act = asyncio.create_task(
                self._act_on_envelope_and_acknowledge(connection, message), name="act on Slack click"
            )
            connection.acts.add(act)
            act.add_done_callback(connection.end_act)

    async def _act_on_envelope_and_acknowledge(
        self, connection: _SlackSocketConnection, envelope: SlackSocketMessage
    ) -> None:
        """Acknowledge an envelope once it is acted on. Without that, Slack shows the person that the click failed."""
        handler = self._build_click_handler()
        acted: tuple[SlackClick, SlackClickResult] | None = None
        try:
            if envelope.type == "interactive":
                click, request = parse_click_and_identity_of_envelope(envelope, self._sender.clock())
                acted = click, await handler.act(click, request, list(handler.notifiers))
            else:
                log.info("slack_envelope_ignored", type=envelope.type)
        except SlackRequestRepeatedError:
            log.info("slack_click_repeated", destinations=sorted(handler.notifiers))
        except InboundSlackRequestRefusedError as error:
            log.warning("slack_request_refused", destinations=sorted(handler.notifiers), error=str(error))
            return
        except Exception:
            log.exception("slack_click_failed", destinations=sorted(handler.notifiers))
            return
        with suppress(ProbeError, TimeoutError):  # Slack may send it again, and it is acknowledged then
            async with asyncio.timeout(SLACK_ACKNOWLEDGEMENT_TIMEOUT_S):
                await connection.websocket.send(json.dumps({"envelope_id": envelope.envelope_id}))
        if acted is not None:
            self._show_result_soon(handler, *acted)

    def _build_click_handler(self) -> SlackClickHandler:
        sender, store_executor = self._sender, self._sender.store_executor
        run_act = partial(run_act_and_send, store_executor, sender)
        return SlackClickHandler(self.notifiers, sender.network, store_executor.run_read_query, run_act, sender.clock)

    def _note_connected(self) -> None:
        log.info("slack_socket_connected", destinations=sorted(self.notifiers))
        self._greeted_at = self._sender.clock()
        self._logged_error = ""
        if self.problem:
            recovery = asyncio.create_task(self._end_problem_once_stable(), name="end problem of Slack socket")
            self._recoveries.add(recovery)
            recovery.add_done_callback(self._recoveries.discard)

    async def _end_problem_once_stable(self) -> None:
        """Cancelled by a failure before: a connection that ends soon after its greeting is of no use."""
        await self._wait(STABLE_SLACK_SOCKET_AGE_MS / 1_000)
        self.problem = ""
        self._on_problem_change()

    def _note_failure(self, error: SlackSocketError, failures: int, delay_s: float) -> None:
        """Logged once, until a connection is open or another error occurs."""
        for recovery in self._recoveries:
            recovery.cancel()
        text = str(error)
        if text != self._logged_error:
            log.warning(
                "slack_socket_failed", destinations=sorted(self.notifiers), error=text, retry_in_s=round(delay_s, 1)
            )
            self._logged_error = text
        is_long = delay_s > MAX_SLACK_SOCKET_RETRY_DELAY_S or failures >= FAILURES_BEFORE_SLACK_SOCKET_PROBLEM
        if is_long or self.problem:
            self.problem = text
            self._on_problem_change()


class _SlackSocketConnection:
    """An open connection, and the clicks in progress that came over it."""

    def __init__(self, websocket: WebSocket):
        self.websocket = websocket
        self.replacement_needed = asyncio.Event()
        """Slack has announced the end of the connection, or it has ended."""
        self.error: SlackSocketError | None = None
        """Why it ended, if Slack had not announced that."""
        self.is_ending = False
        """No further message is read. It is closed as soon as its acts have ended, which nothing may cancel."""
        self.acts: set[asyncio.Task[None]] = set()
        self.places = asyncio.Semaphore(MAX_CLICKS_IN_PROGRESS_PER_SLACK_SOCKET)

    def record_error_and_request_replacement(self, error: SlackSocketError) -> None:
        if not self.replacement_needed.is_set():
            self.error = error
            self.replacement_needed.set()

    def end_act(self, act: asyncio.Task[None]) -> None:
        self.acts.discard(act)
        self.places.release()


async def _cancel_tasks_and_wait(tasks: set[asyncio.Task[None]]) -> None:
    cancelled = list(tasks)
    for task in cancelled:
        task.cancel()
    await asyncio.gather(*cancelled, return_exceptions=True)
