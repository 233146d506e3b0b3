"""Clicks over Slack's Socket Mode: connections that are opened, replaced, lost and refused, and what they carry."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.exceptions import ConnectionClosed

from tests.support.acts import BEN
from tests.support.delivery import DeliveryHarness, Receivers
from tests.support.fakes import CannedResponse
from tests.support.polling import wait_until_async
from tests.support.slack_clicks import find_buttons, make_payload
from tests.support.slack_sockets import FakeSlackSockets, HeldWaits
from tests.support.store import DatabasePair, delete_all_rows, make_registered_probe
from watchdog.domain.formatting import HOUR_MS
from watchdog.net import ProbeError
from watchdog.notifiers.slack import SlackNotifier
from watchdog.service import slack_clicks, slack_socket
from watchdog.service.acts import end_silence
from watchdog.service.slack_clicks import (
    MESSAGE_IS_OVER_TEXT,
    SLACK_CLICK_DATABASE_UNAVAILABLE_TEXT,
    UNEXPECTED_ERROR_TEXT,
    SlackClickHandler,
    SlackClickResult,
)
from watchdog.service.slack_socket import (
    FAILURES_BEFORE_SLACK_SOCKET_PROBLEM,
    MAX_CLICKS_IN_PROGRESS_PER_SLACK_SOCKET,
    MAX_SLACK_SOCKET_MESSAGE_BYTES,
    SlackSocketError,
    SlackSockets,
    compute_slack_socket_retry_delay_s,
)
from watchdog.store.act_tables import acts, silences
from watchdog.store.database import Database
from watchdog.store.errors import StoreUnavailableError

ACKNOWLEDGE, SILENCE_1H, SILENCE_4H = "acknowledge", "silence_1h", "silence_4h"
APP_TOKEN = "xapp-1-stand-in"
LONG_S = 300.0
"""So that a slow machine passes."""


@pytest.fixture
def receivers() -> Iterator[Receivers]:
    with Receivers() as receivers:
        yield receivers


@pytest.fixture(autouse=True)
def no_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slack_clicks, "SLACK_ACT_TIMEOUT_S", LONG_S)
    for name in ("SLACK_GREETING_TIMEOUT_S", "SLACK_ACKNOWLEDGEMENT_TIMEOUT_S", "ANNOUNCED_SLACK_SOCKET_END_TIMEOUT_S"):
        monkeypatch.setattr(slack_socket, name, LONG_S)


@dataclass
class SocketHarness:
    """A receiver with an app token, an open incident that its message is about, and Slack."""

    delivery: DeliveryHarness
    slack: FakeSlackSockets
    waits: HeldWaits
    problems: list[str] = field(default_factory=list)
    """Those that were reported, without repetitions."""

    def report_problem(self, problem: str) -> None:
        if problem != (self.problems[-1] if self.problems else ""):
            self.problems.append(problem)

    def sockets(self) -> SlackSockets:
        return SlackSockets(self.delivery.sender, self.report_problem, self.waits)

    def make_click(self, action_id: str = ACKNOWLEDGE, **changes: Any) -> dict[str, Any]:
        """On a button of the first message of the bot."""
        value = find_buttons(self.delivery.bot.posts[0])[action_id]["value"]
        return make_payload(action_id, value, self.delivery.now, **changes)

    def list_acts(self) -> list[tuple[str, str, str]]:
        return [(row["kind"], row["author"], row["interface"]) for row in self.delivery.store.select_rows(acts)]


@asynccontextmanager
async def open_harness(database: Database, receivers: Receivers) -> AsyncIterator[SocketHarness]:
    probe = make_registered_probe("api", failure_threshold=1, success_threshold=1, staleness_threshold=10 * HOUR_MS)
    delivery = DeliveryHarness(database, receivers, [probe], ("bot/slack",), bot_options={"app_token": APP_TOKEN})
    async with delivery, FakeSlackSockets(receivers.bot) as slack:
        delivery.record(delivery.store.database_ids, "fail")
        await delivery.settle()
        delivery.now += 2_000
        yield SocketHarness(delivery, slack, HeldWaits())


@pytest.fixture
async def harness(on_sqlite: DatabasePair, receivers: Receivers) -> AsyncIterator[SocketHarness]:
    delete_all_rows(on_sqlite.first)
    async with open_harness(on_sqlite.first, receivers) as harness:
        yield harness


@pytest.fixture
async def harness_on_each(database: Database, receivers: Receivers) -> AsyncIterator[SocketHarness]:
    """Runs the test on each kind of database."""
    async with open_harness(database, receivers) as harness:
        yield harness


def count_events(logs: Any, event: str) -> int:
    return sum(log["event"] == event for log in logs)


# --- clicks


async def test_a_click_is_acted_on_and_acknowledged(harness_on_each: SocketHarness) -> None:
    harness = harness_on_each
    (root,) = harness.delivery.bot.posts
    async with harness.sockets():
        await harness.slack.wait_until_connected()
        envelope_id = await harness.slack.send_acknowledged(harness.make_click())
        assert harness.slack.acknowledged == [envelope_id]
        assert harness.list_acts() == [("acknowledge", "Ana Example", "slack")]
        await wait_until_async(lambda: "*Acknowledged* by Ana Example at" in str(root["blocks"]))
    assert ACKNOWLEDGE not in find_buttons(root)
    assert harness.problems == []


async def test_a_text_is_shown_to_the_person(harness: SocketHarness) -> None:
    click = harness.make_click()
    harness.delivery.record(harness.delivery.store.database_ids, "pass")
    texts = harness.delivery.bot.texts_to_one_person
    async with harness.sockets():
        await harness.slack.wait_until_connected()
        await harness.slack.send_acknowledged(click)
        await wait_until_async(lambda: texts)
    assert texts == [("U0ANA", MESSAGE_IS_OVER_TEXT)]


async def test_a_click_that_slack_sends_again_acts_once(harness_on_each: SocketHarness) -> None:
    """In the same envelope, in another one, and over the connection of another process."""
    harness = harness_on_each
    async with harness.sockets(), harness.sockets():
        await harness.slack.wait_until_connected(2)
        click = harness.make_click(SILENCE_1H)
        envelope_id = await harness.slack.send_acknowledged(click)
        (silence,) = harness.delivery.store.select_rows(silences)
        end_silence(harness.delivery.store.database, silence["id"], BEN, harness.delivery.now)
        before = harness.list_acts()
        with capture_logs() as logs:
            harness.delivery.now += 600_000
            await harness.slack.send_acknowledged(click, envelope_id=envelope_id)
            for connection in list(harness.slack.connections):
                await harness.slack.send_acknowledged(click, connection=connection)
        assert harness.list_acts() == before
        assert count_events(logs, "slack_click_repeated") == 3
        await harness.slack.send_acknowledged(harness.make_click(SILENCE_1H))
        assert len(harness.list_acts()) == len(before) + 1, "a later click is another one"


async def test_many_clicks_at_once_are_all_acknowledged(harness: SocketHarness) -> None:
    async with harness.sockets():
        await harness.slack.wait_until_connected()
        ids = []
        for number in range(50):
            harness.delivery.now += 1
            ids.append(await harness.slack.send_envelope(harness.make_click(SILENCE_1H if number % 2 else SILENCE_4H)))
        await wait_until_async(lambda: len(harness.slack.acknowledged) == 50)
        assert sorted(harness.slack.acknowledged) == sorted(ids)
        kinds = {kind for kind, _, _ in harness.list_acts()}
        assert kinds == {"silence"}


async def test_so_many_clicks_are_acted_on_at_a_time(harness: SocketHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    started_count, may_end = 0, asyncio.Event()

    async def act_slowly(*_: object) -> SlackClickResult:
        nonlocal started_count
        started_count += 1
        await may_end.wait()
        return SlackClickResult("bot/slack")

    monkeypatch.setattr(SlackClickHandler, "act", act_slowly)
    async with harness.sockets():
        await harness.slack.wait_until_connected()
        for _ in range(MAX_CLICKS_IN_PROGRESS_PER_SLACK_SOCKET + 5):
            await harness.slack.send_envelope(harness.make_click())
        try:
            await wait_until_async(lambda: started_count >= MAX_CLICKS_IN_PROGRESS_PER_SLACK_SOCKET)
            for _ in range(10):
                await (await harness.slack.connections[-1].ping())
            assert started_count == MAX_CLICKS_IN_PROGRESS_PER_SLACK_SOCKET
        finally:
            may_end.set()
        await wait_until_async(lambda: len(harness.slack.acknowledged) == MAX_CLICKS_IN_PROGRESS_PER_SLACK_SOCKET + 5)


NO_MESSAGES = ("", "{", "[]", "null", '"hello"', '{"type": 1}', "[" * 100_000, '{"type": "hello", "reason": {}}')


async def test_what_is_no_click_is_ignored_and_the_connection_goes_on(harness: SocketHarness) -> None:
    async with harness.sockets():
        await harness.slack.wait_until_connected()
        with capture_logs() as logs:
            for text in NO_MESSAGES:
                await harness.slack.send(text)
            await harness.slack.connections[-1].send(b"\xff\xfe")
            await harness.slack.send({"type": "of the future"})
            for payload in (None, 7, {"type": "view_submission"}, harness.make_click(user=None)):
                await harness.slack.send_envelope(payload)
            for kind in ("events_api", "slash_commands", "of the future"):
                await harness.slack.send_acknowledged({"a": [1, 2]}, kind=kind)
            await harness.slack.send_acknowledged(make_payload("details", "", harness.delivery.now))
            await harness.slack.send_acknowledged(harness.make_click())
            await wait_until_async(lambda: count_events(logs, "slack_request_refused") == 4)
        assert count_events(logs, "slack_message_ignored") == 9
        assert count_events(logs, "slack_envelope_ignored") == 3
        assert harness.slack.opened_count == 1
        assert len(harness.slack.acknowledged) == 5, "Slack shows the person that a click which was refused has failed"
        assert harness.list_acts() == [("acknowledge", "Ana Example", "slack")]


async def test_a_click_in_another_channel_is_refused_and_not_acknowledged(harness: SocketHarness) -> None:
    async with harness.sockets():
        await harness.slack.wait_until_connected()
        with capture_logs() as logs:
            await harness.slack.send_envelope(harness.make_click(channel={"id": "C0OTHER"}))
            await wait_until_async(lambda: count_events(logs, "slack_request_refused"))
    assert harness.slack.acknowledged == []
    assert harness.list_acts() == []


async def test_an_error_inside_watchdog_is_logged_and_the_connection_goes_on(
    harness: SocketHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    async with harness.sockets():
        await harness.slack.wait_until_connected()
        with capture_logs() as logs, monkeypatch.context() as patch:
            patch.setattr(SlackClickHandler, "act", fail)
            await harness.slack.send_envelope(harness.make_click())
            await wait_until_async(lambda: count_events(logs, "slack_click_failed"))
        await harness.slack.send_acknowledged(harness.make_click())
        assert harness.slack.opened_count == 1


async def fail_by_a_bug(*_: object) -> None:
    raise RuntimeError("a bug")


async def fail_without_a_database(*_: object) -> None:
    raise StoreUnavailableError("locked")


@pytest.mark.parametrize(
    ("fail", "text", "logged_count"),
    [(fail_by_a_bug, UNEXPECTED_ERROR_TEXT, 1), (fail_without_a_database, SLACK_CLICK_DATABASE_UNAVAILABLE_TEXT, 0)],
)
async def test_an_act_that_fails_after_its_acceptance_is_explained(
    harness: SocketHarness,
    monkeypatch: pytest.MonkeyPatch,
    fail: Callable[..., Awaitable[None]],
    text: str,
    logged_count: int,
) -> None:
    """If Slack sends the click again, it is a repetition that nothing acts on."""
    click, texts = harness.make_click(), harness.delivery.bot.texts_to_one_person
    async with harness.sockets():
        await harness.slack.wait_until_connected()
        with capture_logs() as logs, monkeypatch.context() as patch:
            patch.setattr(slack_clicks, "run_act_of_click", fail)
            envelope_id = await harness.slack.send_acknowledged(click)
            await wait_until_async(lambda: texts)
        await harness.slack.send_acknowledged(click, envelope_id=envelope_id)
    assert texts == [("U0ANA", text)]
    assert count_events(logs, "slack_click_failed") == logged_count
    assert harness.list_acts() == []


async def test_receivers_with_one_app_share_a_connection(harness: SocketHarness) -> None:
    """Slack sends a click over any of the connections of an app."""
    bot = harness.delivery.notifiers["bot/slack"]
    other = bot.model_copy(update={"channel": "#other"})
    harness.delivery.sender.change_destinations({"another/slack": other, "bot/slack": bot}, "https://status.example")
    async with harness.sockets():
        await harness.slack.wait_until_connected()
        await harness.slack.send_acknowledged(harness.make_click())
        assert harness.list_acts() == [("acknowledge", "Ana Example", "slack")]
        assert harness.slack.opened_count == 1


# --- connections


@pytest.mark.parametrize("reason", ["warning", "refresh_requested", None, "of the future"])
async def test_a_connection_is_replaced_before_slack_closes_it(harness: SocketHarness, reason: str | None) -> None:
    async with harness.sockets():
        await harness.slack.wait_until_connected()
        (first,) = harness.slack.connections
        await harness.slack.send({"type": "disconnect", "reason": reason})
        await harness.slack.wait_until_connected(2)
        assert len(harness.slack.connections) == 2
        await harness.slack.send_acknowledged(harness.make_click(), connection=first)
        await harness.slack.send_acknowledged(harness.make_click(SILENCE_1H))
        await first.close()
        await wait_until_async(lambda: len(harness.slack.connections) == 1)
        await harness.slack.send_acknowledged(harness.make_click(SILENCE_4H))
        assert [kind for kind, _, _ in harness.list_acts()] == ["acknowledge", "silence", "silence"]
        assert harness.slack.opened_count == 2
    assert harness.problems == []


async def test_a_stable_connection_is_replaced_at_once(harness: SocketHarness) -> None:
    async with harness.sockets():
        for number in range(1, 4):
            await harness.slack.wait_until_connected(number)
            harness.delivery.now += HOUR_MS
            await harness.slack.send({"type": "disconnect", "reason": "refresh_requested"})
        await harness.slack.wait_until_connected(4)
    assert harness.waits.delays_s == []


async def test_a_stable_connection_that_is_lost_is_opened_again_soon(harness: SocketHarness) -> None:
    async with harness.sockets():
        for number in range(1, 4):
            await harness.slack.wait_until_connected(number)
            harness.delivery.now += HOUR_MS
            await harness.slack.lose_connections()
        await harness.slack.wait_until_connected(4)
    assert len(harness.waits.delays_s) == 3
    assert max(harness.waits.delays_s) <= 1.0


async def test_a_connection_with_a_greeting_has_no_deadline(
    harness: SocketHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadlines: list[asyncio.Timeout] = []
    create_timeout = asyncio.timeout

    def record(delay_s: float | None) -> asyncio.Timeout:
        timeout = create_timeout(delay_s)
        if delay_s == slack_socket.SLACK_GREETING_TIMEOUT_S:
            deadlines.append(timeout)
        return timeout

    monkeypatch.setattr(slack_socket, "SLACK_GREETING_TIMEOUT_S", LONG_S + 1)
    monkeypatch.setattr(asyncio, "timeout", record)
    async with harness.sockets():
        await harness.slack.wait_until_connected()
        await harness.slack.send_acknowledged({}, kind="events_api")
        assert [deadline.when() for deadline in deadlines] == [None]
        (first,) = harness.slack.connections
        await harness.slack.send({"type": "disconnect", "reason": "warning"})
        await harness.slack.wait_until_connected(2)
        ends_at = deadlines[0].when()
        assert ends_at is not None
        for repetition in ({"type": "hello"}, {"type": "disconnect", "reason": "warning"}):
            await harness.slack.send(repetition, connection=first)
        await harness.slack.send_acknowledged({}, kind="events_api", connection=first)
        assert deadlines[0].when() == ends_at, "nothing puts off an announced end"


async def test_an_announced_end_that_does_not_come_is_not_awaited(
    harness: SocketHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slack_socket, "ANNOUNCED_SLACK_SOCKET_END_TIMEOUT_S", 0.0)
    async with harness.sockets():
        await harness.slack.wait_until_connected()
        (first,) = harness.slack.connections
        await harness.slack.send({"type": "disconnect", "reason": "warning"})
        await wait_until_async(lambda: first not in harness.slack.connections)
        await harness.slack.wait_until_connected(2)
    assert harness.problems == []


async def abort(slack: FakeSlackSockets) -> None:
    await slack.lose_connections()


async def close(slack: FakeSlackSockets) -> None:
    await slack.connections[-1].close(1011, "text of the server")


async def send_long_message(slack: FakeSlackSockets) -> None:
    with suppress(ConnectionClosed):  # Watchdog does not read to the end
        await slack.send("x" * (MAX_SLACK_SOCKET_MESSAGE_BYTES + 1))


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (abort, "the connection was lost"),
        (close, "the server closed the connection (code 1011)"),
        (send_long_message, "the server sent a message larger than 1 MiB"),
    ],
)
async def test_a_connection_that_ends_is_opened_again(
    harness: SocketHarness, end: Callable[[FakeSlackSockets], Awaitable[None]], error: str
) -> None:
    harness.waits.are_over.clear()
    async with harness.sockets():
        await harness.slack.wait_until_connected()
        with capture_logs() as logs:
            await end(harness.slack)
            await wait_until_async(lambda: harness.waits.delays_s)
        (log,) = [log for log in logs if log["event"] == "slack_socket_failed"]
        assert (log["error"], log["destinations"]) == (error, ["bot/slack"])
        assert 0.5 <= harness.waits.delays_s[0] <= 1.0
        harness.waits.are_over.set()
        await harness.slack.wait_until_connected(2)
        await harness.slack.send_acknowledged(harness.make_click())
    assert harness.problems == [], "it came back soon"
    assert harness.list_acts() == [("acknowledge", "Ana Example", "slack")]


async def test_a_connection_without_a_greeting_is_opened_again(
    harness: SocketHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slack_socket, "SLACK_GREETING_TIMEOUT_S", 0.0)
    harness.waits.are_over.clear()
    harness.slack.greets = False
    with capture_logs() as logs:
        async with harness.sockets():
            await wait_until_async(lambda: harness.waits.delays_s)
    (log,) = [log for log in logs if log["event"] == "slack_socket_failed"]
    assert log["error"] == "no greeting from Slack within 0 s"


async def test_slack_is_away_and_comes_back(harness: SocketHarness) -> None:
    url, harness.delivery.bot.socket_url = harness.slack.url, "ws://127.0.0.1:1/link/"
    with capture_logs() as logs:
        async with harness.sockets():
            await wait_until_async(lambda: harness.problems)
            assert harness.problems == ["bot/slack: connection refused"]
            assert len(harness.waits.delays_s) >= FAILURES_BEFORE_SLACK_SOCKET_PROBLEM - 1
            assert harness.slack.opened_count == 0
            delays_s = list(harness.waits.delays_s)
            harness.delivery.bot.socket_url = url
            await harness.slack.wait_until_connected()
            await harness.slack.send_acknowledged(harness.make_click())
            await wait_until_async(lambda: not harness.problems[-1])
    assert harness.problems == ["bot/slack: connection refused", ""]
    assert count_events(logs, "slack_socket_failed") == 1
    assert count_events(logs, "slack_socket_connected") == 1
    for number, delay_s in enumerate(delays_s[:7]):
        assert 0.5 * min(2**number, 60) <= delay_s <= min(2**number, 60)


async def test_a_refused_token_is_a_problem_at_once_and_is_retried_slowly(harness: SocketHarness) -> None:
    harness.delivery.bot.app_token = "xapp-1-another"
    harness.waits.are_over.clear()
    with capture_logs() as logs:
        async with harness.sockets():
            await wait_until_async(lambda: harness.waits.delays_s)
            problem = "bot/slack: Slack error invalid_auth: Slack rejects the app token"
            assert harness.problems == [problem]
            assert 150 <= harness.waits.delays_s[0] <= 300
            harness.delivery.bot.app_token = APP_TOKEN
            harness.waits.are_over.set()
            await harness.slack.wait_until_connected()
            await wait_until_async(lambda: harness.problems == [problem, ""])
    assert count_events(logs, "slack_socket_failed") == 1
    assert APP_TOKEN not in str(logs)
    assert "t1cket" not in str(logs)


async def test_slack_asks_for_a_long_time_without_attempts(harness: SocketHarness) -> None:
    harness.delivery.bot.canned_responses.append(
        CannedResponse(429, b'{"ok": false, "error": "ratelimited"}', (("retry-after", "3600"),))
    )
    harness.waits.are_over.clear()
    async with harness.sockets():
        await wait_until_async(lambda: harness.waits.delays_s)
        assert harness.waits.delays_s == [300.0]
        (problem,) = harness.problems
        assert "ratelimited" in problem


async def test_attempts_that_fail_slowly_are_a_problem(harness: SocketHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection was open in the time that an attempt takes."""

    async def fail_slowly(*_: object, **__: object) -> None:
        harness.delivery.now += 70_000
        raise ProbeError("timeout.exceeded", "no response within 70 s")

    monkeypatch.setattr(slack_socket, "open_websocket", fail_slowly)
    async with harness.sockets():
        await wait_until_async(lambda: len(harness.waits.delays_s) > FAILURES_BEFORE_SLACK_SOCKET_PROBLEM)
    assert harness.problems == ["bot/slack: no response within 70 s"]


async def test_a_problem_lasts_while_connections_end_after_their_greeting(harness: SocketHarness) -> None:
    async def wait_for_delays(count: int) -> None:
        await wait_until_async(lambda: len(delays_s) >= count)

    delays_s = harness.waits.delays_s
    harness.delivery.bot.app_token = "xapp-1-another"
    harness.waits.are_over.clear()
    async with harness.sockets():
        await wait_until_async(lambda: harness.problems)
        harness.delivery.bot.app_token = APP_TOKEN
        for number in range(1, 4):
            harness.waits.end_all()
            await harness.slack.wait_until_connected(number)
            await wait_for_delays(2 * number)
            assert delays_s[-1] == 60.0
            await harness.slack.lose_connections()
            await wait_for_delays(2 * number + 1)
        assert harness.problems == [
            "bot/slack: Slack error invalid_auth: Slack rejects the app token",
            "bot/slack: the connection was lost",
        ]
        harness.waits.end_all()
        await harness.slack.wait_until_connected(4)
        await wait_for_delays(8)
        harness.waits.end_all()
        await wait_until_async(lambda: harness.problems[2:] == [""])


async def test_an_error_inside_watchdog_is_logged_once(harness: SocketHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(slack_socket, "open_websocket", fail)
    with capture_logs() as logs:
        async with harness.sockets():
            await wait_until_async(lambda: len(harness.waits.delays_s) > 3)
    assert count_events(logs, "slack_socket_error") == 1


@pytest.mark.parametrize(
    ("reason", "problem"),
    [
        ("link_disabled", "bot/slack: Socket Mode is turned off in the settings of the app"),
        ("too_many_websockets", "bot/slack: the app has more connections than Slack allows (ten)"),
    ],
)
async def test_a_connection_that_slack_does_not_replace_is_a_problem(
    harness: SocketHarness, reason: str, problem: str
) -> None:
    harness.waits.are_over.clear()
    async with harness.sockets():
        await harness.slack.wait_until_connected()
        await harness.slack.send({"type": "disconnect", "reason": reason})
        await wait_until_async(lambda: harness.waits.delays_s)
        assert harness.problems == [problem]
        assert harness.waits.delays_s[0] >= 150
        await wait_until_async(lambda: not harness.slack.connections)


REFUSED = SlackSocketError("", is_refused=True)
FAILED = SlackSocketError("")
LIMITED = SlackSocketError("", retry_after_s=90.0)
LIMITED_FOR_LONG = SlackSocketError("", retry_after_s=36_000.0)


@pytest.mark.parametrize(
    ("failures", "error", "jitter", "delay_s"),
    [
        (1, FAILED, 0.0, 1.0), (1, FAILED, 1.0, 0.5), (2, FAILED, 0.0, 2.0), (6, FAILED, 0.0, 32.0),
        (7, FAILED, 0.0, 60.0), (7, FAILED, 1.0, 30.0), (100_000, FAILED, 0.0, 60.0),
        (1, REFUSED, 0.0, 300.0), (9, REFUSED, 1.0, 150.0), (1, LIMITED, 1.0, 90.0), (1, LIMITED_FOR_LONG, 0.0, 300.0),
    ],
)  # fmt: skip
def test_the_delay_before_the_next_attempt(
    failures: int, error: SlackSocketError, jitter: float, delay_s: float
) -> None:
    assert compute_slack_socket_retry_delay_s(failures, error, jitter) == delay_s


# --- the end, and other configurations


async def test_nothing_is_awaited_at_the_end(harness: SocketHarness) -> None:
    harness.waits.are_over.clear()
    async with harness.sockets():
        await harness.slack.wait_until_connected()
        await harness.slack.lose_connections()
        await wait_until_async(lambda: harness.waits.delays_s)
    async with harness.sockets():
        await harness.slack.wait_until_connected(2)
    await wait_until_async(lambda: not harness.slack.connections)
    async with harness.sockets():
        pass
    tasks = [task.get_name() for task in asyncio.all_tasks() if "Slack" in task.get_name()]
    assert tasks == []


class ActsSlowly:
    """Each act ends once `may_end` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.has_started, self.may_end = asyncio.Event(), asyncio.Event()
        monkeypatch.setattr(SlackClickHandler, "act", lambda *_: self._act())

    async def _act(self) -> SlackClickResult:
        self.has_started.set()
        await self.may_end.wait()
        return SlackClickResult("bot/slack")


async def test_a_click_in_progress_is_acknowledged_before_the_connection_ends(
    harness: SocketHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    acts_slowly = ActsSlowly(monkeypatch)
    sockets = harness.sockets()
    await sockets.__aenter__()
    await harness.slack.wait_until_connected()
    envelope_id = await harness.slack.send_envelope(harness.make_click())
    await acts_slowly.has_started.wait()
    closing = asyncio.create_task(sockets.__aexit__())
    for _ in range(10):
        await (await harness.slack.connections[-1].ping())
    assert not closing.done(), "the connection stays open"
    acts_slowly.may_end.set()
    await closing
    await wait_until_async(lambda: harness.slack.acknowledged == [envelope_id])


async def turn_off(slack: FakeSlackSockets) -> None:
    await slack.send({"type": "disconnect", "reason": "link_disabled"})


async def announce_the_end(slack: FakeSlackSockets) -> None:
    await slack.send({"type": "disconnect", "reason": "warning"})


@pytest.mark.parametrize("end", [turn_off, announce_the_end])
async def test_a_click_in_progress_is_acknowledged_if_watchdog_ends_while_the_connection_does(
    harness: SocketHarness, monkeypatch: pytest.MonkeyPatch, end: Callable[[FakeSlackSockets], Awaitable[None]]
) -> None:
    """The connection is open until its act has ended, and is closed then."""
    acts_slowly = ActsSlowly(monkeypatch)
    monkeypatch.setattr(slack_socket, "ANNOUNCED_SLACK_SOCKET_END_TIMEOUT_S", 0.0)
    harness.waits.are_over.clear()
    sockets = harness.sockets()
    await sockets.__aenter__()
    await harness.slack.wait_until_connected()
    envelope_id = await harness.slack.send_envelope(harness.make_click())
    await acts_slowly.has_started.wait()
    (first,) = harness.slack.connections
    (socket,) = sockets._sockets.values()
    (serving,) = socket._serving.values()
    await end(harness.slack)
    await wait_until_async(lambda: serving.is_ending)
    closing = asyncio.create_task(sockets.__aexit__())
    for _ in range(10):
        await (await first.ping())
    assert not closing.done(), "the connection stays open"
    acts_slowly.may_end.set()
    await closing
    await wait_until_async(lambda: harness.slack.acknowledged == [envelope_id])
    await wait_until_async(lambda: not harness.slack.connections)


async def test_a_reload_opens_and_closes_the_connections_of_other_tokens(harness: SocketHarness) -> None:
    bot = harness.delivery.bot
    values = {"bot_token": bot.token, "channel": bot.channel, "api_url": bot.url}

    def reload(**changes: Any) -> None:
        notifier = SlackNotifier.model_validate(values | changes)
        harness.delivery.sender.change_destinations({"bot/slack": notifier}, "https://status.example")

    async with harness.sockets():
        await harness.slack.wait_until_connected()
        (first,) = harness.slack.connections
        reload(app_token=APP_TOKEN, channel="#oncall")
        await harness.slack.send_acknowledged(harness.make_click())
        assert harness.slack.connections == [first]
        bot.app_token = "xapp-1-another"
        reload(app_token="xapp-1-another")
        await harness.slack.wait_until_connected(2)
        await wait_until_async(lambda: len(harness.slack.connections) == 1)
        assert harness.slack.connections != [first]
        await harness.slack.send_acknowledged(harness.make_click(SILENCE_1H))
        reload(app_token=None)
        await wait_until_async(lambda: not harness.slack.connections)
        reload(app_token="xapp-1-refused")
        await wait_until_async(lambda: harness.problems)
        reload(app_token=None)
        assert harness.problems[-1] == "", "a problem ends with its receiver"
    assert harness.slack.opened_count == 2
    opened = [request for request in bot.received if request.path.endswith("connections.open")]
    assert [json.loads(request.body) for request in opened] == [{}] * len(opened)
