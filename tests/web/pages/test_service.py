"""The page about Watchdog itself: readiness, findings, tasks, processes, configuration, downtime and acts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.html_checks import find_html_problems, visible_text
from tests.support.page_checks import NO_PROBLEMS, WIDE_TABLES, page_problems, violations
from tests.support.web import create_test_app, filled_database, request_page, running_app
from watchdog.domain.acts import OperatorActKind
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS, NBSP, SECOND_MS
from watchdog.domain.model import Severity
from watchdog.domain.rules.service import WATCHDOG_SELF_PROBE_ID, WATCHDOG_SELF_PROBE_KIND
from watchdog.service.background_tasks import BackgroundTask
from watchdog.service.config_check import ConfigCheckOutcome, RunningConfigActions
from watchdog.service.config_reload import (
    ConfigReloadCounts,
    ConfigReloadOutcome,
    ConfigReloadResultKind,
    FinishedConfigReload,
)
from watchdog.service.process_metrics import WatchdogActivityMetrics
from watchdog.store.errors import StoreUnavailableError
from watchdog.web import ApiKey
from watchdog.web.auth.session import SESSION_COOKIE_NAME
from watchdog.web.pages.acts import TITLE_BY_ACT_KIND
from watchdog.web.pages.service import ACTS_PER_PAGE, MAX_DOWNTIME_GAPS_ON_PAGE

if TYPE_CHECKING:
    from playwright.sync_api import Browser

READER = ApiKey("grafana", "reader", "read-me-0123456789")
OPERATOR = ApiKey("ops", "operator", "operate-0123456789")
MEMBER = "host-1-aaaaaa"


@pytest.fixture
def rows() -> FixtureRows:
    """One probe, which runs."""
    rows = FixtureRows()
    rows.add_watermark(NOW)
    rows.add_passing_results(rows.add_probe("API"), count=1)
    return rows


@pytest.fixture
def read(tmp_path: Path, rows: FixtureRows) -> Callable[..., str]:
    """The page about what `rows` holds by now. `options`: parameters of `create_web_app`."""

    def read(path: str = "/service", key: ApiKey = OPERATOR, **options: Any) -> str:
        (tmp_path / "watchdog.db").unlink(missing_ok=True)
        with filled_database(f"sqlite:///{tmp_path}/watchdog.db", rows) as database:
            app = create_test_app(database, **{"api_keys": (READER, OPERATOR)} | options)
            response = request_page(app, path, headers={"Authorization": f"Bearer {key.secret}"})
        assert response.status_code == 200
        assert find_html_problems(response.text) == []
        return response.text

    return read


def text_of(html: str) -> str:
    return visible_text(html).replace(NBSP, " ")


def add_finding(rows: FixtureRows, message: str) -> str:
    """Returns the id of its incident."""
    probe = rows.add_probe("Watchdog", WATCHDOG_SELF_PROBE_KIND)
    rows.rows["probes"][-1]["probe_id"] = WATCHDOG_SELF_PROBE_ID
    since, reason = NOW - 5 * MINUTE_MS, "watchdog.delivery_failing"
    return rows.add_incident(probe, "service", message, since, reason=reason, severity=Severity.CRITICAL)


def add_act(rows: FixtureRows, kind: OperatorActKind = OperatorActKind.PAUSE, **columns: Any) -> None:
    defaults = {"author": "Ana", "interface": "page", "comment": "", "incident": "", "silence": "", "probe": "",
                "maintenance": "", "occurred_at": NOW - MINUTE_MS}  # fmt: skip
    rows.rows["acts"].append({"id": len(rows.rows["acts"]) + 1, "kind": kind, **defaults | columns})


def add_member(rows: FixtureRows, id: str, revision: int, definition: str, lease_until: int = NOW + HOUR_MS) -> None:
    """A process that has the probe `api`."""
    lease = {"started_at": NOW - 2 * MINUTE_MS, "lease_until": lease_until, "left_in_order": False, "sections": None}
    rows.rows["members"].append({"id": id, "revision": revision, **lease})
    row = {"revision": revision, "probe_id": "api", "definition": definition, "content_digest": definition}
    rows.rows["revision_probes"].append(row)


def make_task(name: str, error: str = "", last_ended_at: int | None = NOW - SECOND_MS) -> BackgroundTask:
    async def run() -> None:
        raise AssertionError

    task = BackgroundTask(name, run, interval_ms=SECOND_MS, first_due_at=NOW - SECOND_MS, last_ended_at=last_ended_at)
    if error:
        task.record_failure(NOW - SECOND_MS, error)
    return task


def process_with(last_reload: FinishedConfigReload | None = None) -> Callable[[], WatchdogActivityMetrics]:
    counts = ConfigReloadCounts(last_reload=last_reload)
    return lambda: WatchdogActivityMetrics(member_id=MEMBER, started_at=NOW - 3 * HOUR_MS, reload_counts=counts)


def reload_that_returns(outcome: ConfigReloadOutcome, calls: list[str]) -> RunningConfigActions:
    async def reload() -> ConfigReloadOutcome:
        calls.append("reload")
        return outcome

    async def check(_: str) -> ConfigCheckOutcome:
        raise AssertionError

    return RunningConfigActions(reload, check)


APPLIED = ConfigReloadOutcome(ConfigReloadResultKind.APPLIED)


def test_a_service_that_is_ready(read: Callable[..., str]) -> None:
    html = read(collect_process_metrics=process_with())
    text = text_of(html)
    assert "The service itself Ready Watchdog" in text
    assert "running since 21 Nov 23:29:14 UTC" in text
    assert "No open findings What is wrong with Watchdog itself No incident about Watchdog itself is open." in text
    assert "Applied at the start; not reloaded since then No warnings." in text
    assert "It ran all the time." in text
    assert "No process has a lease" in text
    assert "No one has acknowledged, silenced, paused or changed anything yet." in text
    assert 'aria-current="page">Service' in html


def test_a_service_that_is_not_ready_states_why(read: Callable[..., str]) -> None:
    text = text_of(read(not_ready_reason=lambda: "no run was scheduled for 2 min"))
    assert "The service itself Not ready" in text
    assert "Not ready: no run was scheduled for 2 min" in text


def test_an_open_finding_is_listed_once_with_what_to_do(read: Callable[..., str], rows: FixtureRows) -> None:
    incident = add_finding(rows, "oncall/slack confirms no notifications: <b>invalid_auth")
    html = read()
    text = text_of(html)
    assert "1 open finding What is wrong with Watchdog itself since 02:24:14 Oncall/slack confirms no" in text
    assert "critical Fix the receiver" in text
    assert html.count(f'href="/incidents/{incident}"') == 1
    assert "Watchdog itself has 1 problem" not in text
    assert "Watchdog itself has 1 problem" in text_of(read("/receivers"))


def test_tasks_with_problems_come_first(read: Callable[..., str]) -> None:
    tasks = [
        make_task("claim"),
        make_task("maintain", last_ended_at=None),
        make_task("record", "disk full <b>now</b>"),
        make_task("wake", last_ended_at=NOW - 60 * SECOND_MS),
    ]
    text = text_of(read(list_background_tasks=lambda: tasks))
    assert "record Failed 02:29:13 disk full <b>now</b> wake Overdue 02:28:14 no run has ended for 1 min;" in text
    assert "the task runs every 1 s claim Works 02:29:13 maintain Not run yet none" in text


@pytest.mark.parametrize(("key", "names"), [(OPERATOR, ": api"), (READER, "")])
def test_processes_state_what_others_do_for_them(
    read: Callable[..., str], rows: FixtureRows, key: ApiKey, names: str
) -> None:
    add_member(rows, MEMBER, 4, "former")
    add_member(rows, "host-2-bbbbbb", 5, "newer")
    add_member(rows, "host-3-cccccc", 6, "newest", lease_until=NOW - SECOND_MS)
    text = text_of(read(key=key, collect_process_metrics=process_with()))
    sentence = f"1 probe of this process is run by processes with the newer revision 5{names}."
    assert f"{MEMBER} this process 4 02:27:14 03:29:14 {sentence} host-2-bbbbbb 5 02:27:14 03:29:14" in text
    assert "host-3" not in text


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (APPLIED, "Applied at the last reload, 02:19:14 UTC No warnings."),
        (
            ConfigReloadOutcome(ConfigReloadResultKind.INVALID, ("watchdog.yaml:4:3: unknown <b>",)),
            "Not valid at the last reload, 02:19:14 UTC The former configuration stays in use. watchdog validate"
            " shows every problem. watchdog.yaml:4:3: unknown <b> No warnings.",
        ),
        (
            ConfigReloadOutcome(ConfigReloadResultKind.POSTPONED),
            "Postponed at the last reload, 02:19:14 UTC It is applied when the database is available.",
        ),
    ],
)
def test_the_last_reload_is_shown(read: Callable[..., str], outcome: ConfigReloadOutcome, expected: str) -> None:
    reload = FinishedConfigReload(NOW - 10 * MINUTE_MS, outcome)
    assert expected in text_of(read(collect_process_metrics=process_with(reload)))


def test_warnings_are_listed_once(read: Callable[..., str]) -> None:
    text = text_of(read(config_warnings=("probe <b> has no receiver",)))
    assert text.count("probe <b> has no receiver") == 1
    assert "Warning probe <b> has no receiver" in text


def test_only_operators_of_a_process_that_can_reload_have_the_button(read: Callable[..., str]) -> None:
    actions = reload_that_returns(APPLIED, [])
    assert 'action="/service/reload"' in read(config_actions=actions)
    assert "/service/reload" not in read(key=READER, config_actions=actions)
    assert "/service/reload" not in read()


def test_the_button_reloads_with_the_token_of_the_session_alone(tmp_path: Path, rows: FixtureRows) -> None:
    calls: list[str] = []
    with filled_database(f"sqlite:///{tmp_path}/watchdog.db", rows) as database:
        actions = reload_that_returns(APPLIED, calls)
        app = create_test_app(database, api_keys=(READER, OPERATOR), config_actions=actions)
        signed_in = request_page(app, "/login", "POST", data={"key": OPERATOR.secret})
        cookie = {"Cookie": f"{SESSION_COOKIE_NAME}={signed_in.cookies[SESSION_COOKIE_NAME]}"}
        page = request_page(app, "/service", headers=cookie).text
        token = page.partition('name="csrf_token" value="')[2].partition('"')[0]
        refused = request_page(app, "/service/reload", "POST", headers=cookie, data={"csrf_token": "other"})
        reader = request_page(
            app, "/service/reload", "POST", headers={"Authorization": f"Bearer {READER.secret}"}, data={}
        )
        assert (refused.status_code, reader.status_code, calls) == (403, 403, [])
        answer = request_page(app, "/service/reload", "POST", headers=cookie, data={"csrf_token": token})
    assert (answer.status_code, answer.headers["location"], calls) == (303, "/service#configuration", ["reload"])


def test_times_in_which_watchdog_did_not_run(read: Callable[..., str], rows: FixtureRows) -> None:
    for start, length in ((NOW - 9 * DAY_MS, HOUR_MS), (NOW - 2 * DAY_MS, 90 * SECOND_MS), (NOW - HOUR_MS, MINUTE_MS)):
        rows.rows["downtime"].append({"location": "local", "started_at": start, "ended_at": start + length})
    text = text_of(read())
    assert "01:29:14 to 01:30:14 1 min 20 Nov 02:29:14 to 20 Nov 02:30:44 1 min 30 s" in text
    assert "13 Nov" not in text


def test_only_the_newest_times_are_listed(read: Callable[..., str], rows: FixtureRows) -> None:
    for number in range(MAX_DOWNTIME_GAPS_ON_PAGE + 1):
        start = NOW - (number + 1) * HOUR_MS
        rows.rows["downtime"].append({"location": "local", "started_at": start, "ended_at": start + MINUTE_MS})
    text = text_of(read())
    assert "The newest 20 of 21 times" in text
    assert "21 Nov 05:29:14" not in text
    assert "21 Nov 06:29:14" in text


def test_acts_link_to_what_they_are_about_if_it_exists(read: Callable[..., str], rows: FixtureRows) -> None:
    incident = rows.add_incident(rows.probe_by_name["API"], "availability", "HTTP 503 <b>", NOW - HOUR_MS)
    add_act(rows, OperatorActKind.ACKNOWLEDGE, incident=incident, author="<b>Ben", comment="<script>alert(1)</script>")
    add_act(rows, OperatorActKind.CLOSE, incident="deleted-incident")
    add_act(rows, OperatorActKind.RUN_NOW, probe="api", interface="api")
    add_act(rows, OperatorActKind.DELETE_PROBE, probe="deleted-probe", interface="cli")
    add_act(rows, OperatorActKind.SILENCE, silence="s-1")
    add_act(rows, OperatorActKind.BEGIN_MAINTENANCE, maintenance="m-1")
    html = read()
    assert "<script>alert" not in html
    text = text_of(html)
    expected = (
        "Maintenance started 02:28:14 Ana (page) m-1 Silence started 02:28:14 Ana (page) s-1"
        " Probe deleted 02:28:14 Ana (cli) deleted-probe Run requested 02:28:14 Ana (api) api"
        " Closed by hand 02:28:14 Ana (page) incident deleted-incident"
        " Acknowledged 02:28:14 <b>Ben (page) API: HTTP 503 <b> <script>alert(1)</script>"
    )
    assert expected in text
    assert f'href="/incidents/{incident}"' in html
    assert 'href="/probes/api"' in html
    assert 'href="/incidents/deleted-incident"' not in html
    assert 'href="/probes/deleted-probe"' not in html


def test_older_acts_are_on_further_pages(read: Callable[..., str], rows: FixtureRows) -> None:
    for number in range(1, 2 * ACTS_PER_PAGE + 1):
        add_act(rows, comment=f"act {number}.")
    first = read()
    assert "act 100." in first
    assert "act 51." in first
    assert "act 50." not in first
    assert "newest</a>" not in first
    assert 'href="?before=51#acts">older</a>' in first
    second = read("/service?before=51")
    assert "act 51." not in second
    assert "act 50." in second
    assert "act 1." in second
    assert 'href="/service#acts">newest</a>' in second
    assert "older</a>" not in second
    assert "No older acts." in read("/service?before=1")
    assert "act 100." in read("/service?before=x")


def test_each_act_has_a_title() -> None:
    assert set(TITLE_BY_ACT_KIND) == set(OperatorActKind)


def test_without_the_database_the_page_shows_what_the_process_knows(read: Callable[..., str]) -> None:
    async def run_read_query(_: object) -> None:
        raise StoreUnavailableError("away")

    tasks = [make_task("record", "the database is locked")]
    text = text_of(read(run_read_query=run_read_query, list_background_tasks=lambda: tasks))
    assert "Not ready: the database is unavailable" in text
    assert "Watchdog cannot read its database at the moment" in text
    assert "record Failed 02:29:13 the database is locked" in text
    assert "Applied at the start" in text
    assert "Who did what" not in text
    assert "Watchdog is not running its probes" not in text


@pytest.mark.parametrize(("width", "colors"), [(320, "light"), (320, "dark"), (1280, "light"), (1280, "dark")])
def test_long_texts_fit_a_phone(
    browser: Browser, axe: str, tmp_path: Path, rows: FixtureRows, width: int, colors: Literal["light", "dark"]
) -> None:
    long = "worker_of_a_long_name_" * 6
    add_finding(rows, long)
    add_member(rows, long, 4, "former")
    add_member(rows, "host-2", 5, "newer")
    rows.rows["downtime"].append({"location": "local", "started_at": NOW - DAY_MS, "ended_at": NOW - HOUR_MS})
    add_act(rows, author=long, probe=long, comment=long)
    options: dict[str, Any] = {
        "not_ready_reason": lambda: long,
        "list_background_tasks": lambda: [make_task("check_database_file", long), make_task("wake")],
        "config_warnings": (long,),
        "config_actions": reload_that_returns(APPLIED, []),
        "collect_process_metrics": process_with(
            FinishedConfigReload(NOW, ConfigReloadOutcome(ConfigReloadResultKind.INVALID, (long,)))
        ),
    }
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=colors)
    with (
        filled_database(f"sqlite:///{tmp_path}/watchdog.db", rows) as database,
        running_app(create_test_app(database, **options)) as address,
    ):
        assert page_problems(page, f"{address}/service") == NO_PROBLEMS
        assert page.evaluate(WIDE_TABLES) == []
        assert violations(page, axe) == []
        assert page.get_by_role("button", name="Reload").is_visible()
    page.close()
