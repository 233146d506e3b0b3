"""Pages that keep themselves current, in a real browser and over a real server."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI

from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.fixtures import acme_rows
from tests.support.polling import HANG_S, wait_until
from tests.support.web import DatabaseTransitionFeed, create_test_app, filled_database
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS, format_duration_rounded, format_time_ago
from watchdog.domain.transitions import TransitionKind
from watchdog.server import InboundConnectionGuard, InboundConnectionLimits, WebServer, open_listen_socket
from watchdog.store.database import Database
from watchdog.store.tables import incidents, probes
from watchdog.store.write.transitions import record_transition
from watchdog.web import ApiKey
from watchdog.web.auth.session import SESSION_COOKIE_NAME
from watchdog.web.pages.probes import format_time_until_next_run
from watchdog.web.routes.public import STATUS_PAGE_CACHE_MS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

LIVE, RECONNECTING, NOT_LIVE = "Live", "Reconnecting", "Not live: reload"
KEY = ApiKey("ops", "operator", "0123456789")


@pytest.fixture(scope="module")
def rows() -> FixtureRows:
    return acme_rows()


@pytest.fixture(scope="module")
def filled_file(rows: FixtureRows, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("live") / "watchdog.db"
    with filled_database(f"sqlite:///{file}", rows):
        return file


@pytest.fixture
def database(filled_file: Path, tmp_path: Path) -> Iterator[Database]:
    """A copy, which a test may change."""
    database = Database(f"sqlite:///{shutil.copy(filled_file, tmp_path)}")
    yield database
    database.close()


class RunningServer:
    """A guarded server in a thread of its own, which can be stopped and started again on its port."""

    def __init__(self, create_app: Callable[[DatabaseTransitionFeed], FastAPI], database: Database):
        self._create_app, self._database = create_app, database
        self.port = 0
        self.requested_paths: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def running(self) -> Iterator[None]:
        started, loop = Event(), asyncio.new_event_loop()
        stop = asyncio.Event()
        with open_listen_socket("127.0.0.1", self.port) as listen_socket:
            self.port = listen_socket.getsockname()[1]
            thread = Thread(target=lambda: loop.run_until_complete(self._serve(listen_socket, started, stop)))
            thread.start()
            assert started.wait(HANG_S)
            try:
                yield
            finally:
                loop.call_soon_threadsafe(stop.set)
                thread.join()
                loop.close()

    async def _serve(self, listen_socket: socket.socket, started: Event, stop: asyncio.Event) -> None:
        feed = DatabaseTransitionFeed(self._database)
        app = self._create_app(feed)

        async def note_paths(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                self.requested_paths.append(scope["path"])
            await app(scope, receive, send)

        guard = InboundConnectionGuard(InboundConnectionLimits(total=64, reserved=16, per_address=64))
        async with WebServer(note_paths, listen_socket, guard, feed.end_subscriptions):
            started.set()
            await stop.wait()

    def count_requests(self, path: str) -> int:
        return self.requested_paths.count(path)


@contextmanager
def serving(database: Database, **options: Any) -> Iterator[RunningServer]:
    server = RunningServer(lambda feed: create_test_app(database, transition_feed=feed, **options), database)
    with server.running():
        yield server


@pytest.fixture
def server(database: Database) -> Iterator[RunningServer]:
    with serving(database) as server:
        yield server


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context()
    context.set_default_timeout(HANG_S * 1000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


def open_live(page: Page, address: str) -> list[str]:
    """Open a page, and wait until it is live. Returns what the browser complains about, which grows."""
    complaints: list[str] = []
    page.on("console", lambda line: complaints.append(line.text) if line.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    wait_for_state(page, LIVE)
    return complaints


def wait_for_state(page: Page, text: str) -> None:
    page.locator("#live", has_text=text).wait_for()


def rename_probe(database: Database, name: str, probe_id: str = "api") -> None:
    """A change that a page shows, with the event that makes it fetch itself."""
    with database.open_write_transaction() as connection:
        info = connection.execute(sa.select(probes.c.info).where(probes.c.probe_id == probe_id)).scalar_one()
        old = connection.execute(sa.select(probes.c.name).where(probes.c.probe_id == probe_id)).scalar_one()
        values = {"name": name, "info": info.replace(f'"{old}"', f'"{name}"')}
        connection.execute(sa.update(probes).where(probes.c.probe_id == probe_id).values(values))
        record_transition(connection, TransitionKind.RELOADED, NOW)


def test_two_people_on_one_incident(browser: Browser, server: RunningServer, rows: FixtureRows) -> None:
    """Each sees what the other does, without a reload; the other's buttons follow."""
    address = f"{server.url}/incidents/{rows.incident_by_name['down']}"
    contexts = [browser.new_context() for _ in range(2)]
    ana, ben = (context.new_page() for context in contexts)
    complaints = [open_live(page, address) for page in (ana, ben)]
    ana.get_by_label("Comment", exact=True).fill("restarting the database")
    ana.get_by_role("button", name="Acknowledge").click()
    ben.get_by_role("heading", name="Acknowledged by localhost").wait_for()
    ben.get_by_role("button", name="Remove acknowledgement").wait_for()
    wait_for_state(ana, LIVE)
    ben.get_by_role("button", name="Silence 4 h").click()
    ana.get_by_role("heading", name="Silenced until").wait_for()
    assert complaints == [[], []]
    for context in contexts:
        context.close()


def test_what_an_update_brings_is_in_local_time(browser: Browser, server: RunningServer, rows: FixtureRows) -> None:
    """And what has not changed never shows UTC in between."""
    context = browser.new_context(timezone_id="Asia/Kolkata")
    context.set_default_timeout(HANG_S * 1000)
    page, incident = context.new_page(), rows.incident_by_name["down"]
    complaints = open_live(page, f"{server.url}/incidents/{incident}")
    page.evaluate("""() => {
        window.seen = []
        const note = () => seen.push(...[...document.querySelectorAll("[data-as]")].map(time => time.textContent))
        new MutationObserver(note).observe(document.body, {subtree: true, childList: true, characterData: true})
    }""")
    page.request.post(f"{server.url}/api/v1/incidents/{incident}/acknowledge")
    page.get_by_role("heading", name="Acknowledged by localhost at 07:59 GMT+5:30").wait_for()
    shown_texts = page.evaluate("seen")
    assert "07:59:14 GMT+5:30" in shown_texts
    assert [text for text in shown_texts if text.startswith(("01:", "02:")) or "UTC" in text] == []
    assert page.locator("time[data-as]:not([title])").count() == 0
    assert complaints == []
    context.close()


def test_what_a_person_does_meanwhile_stays(page: Page, database: Database) -> None:
    """Focus, scroll position and opened details; the title follows."""
    with serving(database, clock=count(NOW, STATUS_PAGE_CACHE_MS).__next__) as server:
        page.set_viewport_size({"width": 800, "height": 300})
        complaints = open_live(page, f"{server.url}/")
        page.locator("details.days summary").click()
        page.get_by_role("link", name="Operators").focus()
        page.evaluate("scrollTo(0, 400)")
        page.evaluate("window.kept = document.querySelector('details.days')")
        rename_probe(database, "APX")
        page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")  # instead of 15 s
        page.get_by_text("APX", exact=True).first.wait_for(state="attached")
        assert page.evaluate("[document.activeElement.textContent, scrollY]") == ["Operators", 400]
        assert page.evaluate("window.kept.isConnected && window.kept.open")
        assert complaints == []


def test_a_form_that_is_filled_in_is_not_replaced(
    page: Page, server: RunningServer, database: Database, rows: FixtureRows
) -> None:
    """The rest of the page follows. Once the form is as it was, it follows as well."""
    incident = rows.incident_by_name["down"]
    open_live(page, f"{server.url}/incidents/{incident}")
    comment = page.get_by_label("Comment", exact=True)
    comment.fill("half a sent")
    page.evaluate("window.kept = document.querySelector('#comment')")
    with database.open_write_transaction() as connection:
        resolve = sa.update(incidents).where(incidents.c.id == incident)
        connection.execute(resolve.values(resolved_at=NOW, resolved_slot=NOW, resolved_generation=0))
        record_transition(connection, TransitionKind.RESOLVED, NOW, incident=incident)
    page.get_by_text("Resolved").first.wait_for()
    assert comment.input_value() == "half a sent"
    assert page.evaluate("window.kept.isConnected && document.activeElement === window.kept")
    comment.press_sequentially("ence")
    assert comment.input_value() == "half a sentence"
    comment.fill("")
    page.locator("h1").hover()
    page.evaluate("document.activeElement.blur()")
    rename_probe(database, "Renamed")
    comment.wait_for(state="detached")


def test_a_button_does_not_become_another_one_under_the_pointer(
    page: Page, server: RunningServer, database: Database, rows: FixtureRows
) -> None:
    """Someone is about to acknowledge when another person does."""
    incident = rows.incident_by_name["down"]
    open_live(page, f"{server.url}/incidents/{incident}")
    page.get_by_role("button", name="Acknowledge").hover()
    page.request.post(f"{server.url}/api/v1/incidents/{incident}/acknowledge")
    page.get_by_role("heading", name="Acknowledged by localhost").wait_for()
    page.get_by_role("button", name="Acknowledge", exact=True).click()
    wait_for_state(page, LIVE)
    page.get_by_role("button", name="Remove acknowledgement").wait_for()


def test_a_form_with_a_field_named_id_stays(page: Page, database: Database) -> None:
    """Such as that of a silence: the browser hides the id of the form itself behind the field."""
    with serving(database, clock=count(NOW, 1_000).__next__) as server:
        open_live(page, f"{server.url}/silences")
        page.evaluate("window.kept = document.querySelector('form')")
        before = page.evaluate("document.body.dataset.now")
        rename_probe(database, "Renamed")
        page.locator(f"body:not([data-now='{before}'])").wait_for(state="attached")
        assert page.evaluate("[document.forms.length, window.kept.isConnected]") == [1, True]


def test_rows_of_a_list_come_and_go(page: Page, server: RunningServer, database: Database) -> None:
    """The rows that stay are the same elements: a link that has the focus leads where it led."""
    complaints = open_live(page, f"{server.url}/probes")
    link = page.get_by_role("link", name="API", exact=True)
    link.focus()
    page.evaluate("window.kept = document.activeElement")
    rename_probe(database, "Moved to the front", "website")
    page.get_by_role("link", name="Moved to the front").wait_for()
    with database.open_write_transaction() as connection:
        connection.execute(sa.update(probes).where(probes.c.probe_id == "website").values(removed_at=NOW))
        record_transition(connection, TransitionKind.RELOADED, NOW)
    page.get_by_role("link", name="Moved to the front").wait_for(state="detached")
    assert page.evaluate("document.activeElement === window.kept && window.kept.getAttribute('href')") == "/probes/api"
    assert complaints == []


def test_reconnecting_after_a_restart(page: Page, database: Database) -> None:
    """What happened in between is shown as soon as the server is back."""
    server = RunningServer(lambda feed: create_test_app(database, transition_feed=feed), database)
    with server.running():
        open_live(page, f"{server.url}/probes")
    wait_for_state(page, RECONNECTING)
    rename_probe(database, "Renamed while no server ran")
    with server.running():
        page.get_by_role("link", name="Renamed while no server ran", exact=True).wait_for()
        wait_for_state(page, LIVE)


def test_a_session_that_has_ended(context: BrowserContext, page: Page, database: Database) -> None:
    """Another page of the same browser signs out."""
    with serving(database, api_keys=(KEY,)) as server:
        page.goto(f"{server.url}/probes")
        page.get_by_label("Key").fill(KEY.secret)
        page.get_by_role("button", name="Sign in").click()
        wait_for_state(page, LIVE)
        other = context.new_page()
        open_live(other, f"{server.url}/incidents")
        other.get_by_role("button", name="Sign out ops").click()
        wait_for_state(page, NOT_LIVE)
        assert page.get_by_role("heading", level=1).is_visible()  # what was shown stays
        page.get_by_role("link", name=NOT_LIVE).click()
        page.get_by_label("Key").wait_for()
        assert SESSION_COOKIE_NAME not in {cookie["name"] for cookie in context.cookies()}


def test_an_incident_that_is_deleted(page: Page, server: RunningServer, database: Database, rows: FixtureRows) -> None:
    incident = rows.incident_by_name["down"]
    open_live(page, f"{server.url}/incidents/{incident}")
    with database.open_write_transaction() as connection:
        connection.execute(sa.delete(incidents).where(incidents.c.id == incident))
        record_transition(connection, TransitionKind.RELOADED, NOW)
    wait_for_state(page, NOT_LIVE)


def test_a_storm_of_events_causes_few_requests(page: Page, server: RunningServer, database: Database) -> None:
    """The first is shown at once, and the last in the end."""
    open_live(page, f"{server.url}/incidents")
    before = server.count_requests("/incidents")
    for number in range(100):
        rename_probe(database, f"Storm {number}", "api")
        page.wait_for_timeout(20)  # the pace of the storm: nothing is awaited
    rename_probe(database, "Calm", "api")
    page.get_by_role("link", name="Calm").first.wait_for()
    assert 1 <= server.count_requests("/incidents") - before <= 10


def test_a_full_server(page: Page, server: RunningServer, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a place for its stream, the page is complete, and states that it is not live yet."""
    monkeypatch.setattr("watchdog.web.routes.event_streams.derive_event_stream_limit_from_rlimit", lambda: 0)
    with serving(database) as full:
        page.goto(f"{full.url}/probes")
        wait_for_state(page, RECONNECTING)
        wait_until(lambda: full.count_requests("/probes") > 1)
        wait_for_state(page, RECONNECTING)
        assert page.get_by_role("link", name="API", exact=True).is_visible()


def test_without_a_script_pages_are_complete(browser: Browser, server: RunningServer, rows: FixtureRows) -> None:
    page = browser.new_context(java_script_enabled=False).new_page()
    for path in ("/", "/probes", "/probes/api", f"/incidents/{rows.incident_by_name['down']}", "/incidents"):
        page.goto(server.url + path)
        assert page.get_by_role("heading", level=1).inner_text()
        assert page.locator("#live").inner_text() == ""
    page.context.close()
    assert "/api/v1/events" not in server.requested_paths


def test_a_hidden_page_holds_no_stream(page: Page, server: RunningServer, database: Database) -> None:
    """It is current again as soon as it is visible."""
    open_live(page, f"{server.url}/probes")
    set_hidden = "isHidden => { Object.defineProperty(document, 'hidden', {get: () => isHidden, configurable: true}); "
    set_hidden += "document.dispatchEvent(new Event('visibilitychange')) }"
    page.evaluate(set_hidden, True)
    rename_probe(database, "Renamed while hidden")
    streams = server.count_requests("/api/v1/events")
    page.evaluate(set_hidden, False)
    page.get_by_role("link", name="Renamed while hidden", exact=True).wait_for()
    wait_until(lambda: server.count_requests("/api/v1/events") == streams + 1)


OF_SCRIPTS = ("fetch", "eventsource")
AGES = (0, 999, 1_000, 59_999, 60_000, 9 * MINUTE_MS + 59_000, 41 * MINUTE_MS, 2 * HOUR_MS + 19 * MINUTE_MS,
        47 * HOUR_MS + 59 * MINUTE_MS, 2 * DAY_MS, 9 * DAY_MS + 5 * HOUR_MS, 30 * DAY_MS)  # fmt: skip


def test_times_go_on_in_the_words_of_the_server(page: Page, server: RunningServer) -> None:
    """By the clock of the server, which differs from that of the browser."""
    page.route("**/*", lambda route: route.abort() if route.request.resource_type in OF_SCRIPTS else route.continue_())
    page.clock.install(time=datetime.fromtimestamp(NOW / 1000 + 12_345, UTC))
    page.clock.pause_at(datetime.fromtimestamp(NOW / 1000 + 12_346, UTC))
    page.goto(f"{server.url}/probes")
    add = """([ages, now]) => { for (const age of ages) for (const kind of ["ago", "for", "next"]) {
        const time = Object.assign(document.createElement("time"), {className: kind})
        time.dateTime = new Date(now + (kind === "next" ? age : -age)).toISOString()
        time.dataset.age = kind
        document.querySelector("h1").append(time) } }"""
    page.evaluate(add, [AGES, NOW])
    page.clock.run_for(1_000)
    now = NOW + 1_000

    def read_texts(kind: str) -> Any:
        read = "kind => [...document.querySelectorAll(`h1 time.${kind}`)].map(time => time.textContent)"
        return page.evaluate(read, kind)

    assert read_texts("ago") == [format_time_ago(NOW - age, now) for age in AGES]
    assert read_texts("for") == [format_duration_rounded(now - (NOW - age)) for age in AGES]
    assert read_texts("next") == [format_time_until_next_run(NOW + age, now) for age in AGES]
    page.clock.run_for(60_000)
    assert [read_texts(kind)[0] for kind in ("ago", "for", "next")] == ["1\u00a0min ago", "1\u00a0min", "late"]
