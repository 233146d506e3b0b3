"""Creating, editing, copying and deleting probes on pages: nothing that was entered is lost, and nothing leaks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.support.fixture_rows import FixtureRows
from tests.support.html_checks import find_html_problems, visible_text
from tests.support.managed_files import ENV, MANAGED_TEXT, ManagedFileHarness
from tests.support.web import create_test_app, filled_database, request_page
from watchdog.config.load import load_config
from watchdog.config.probe_form import PROBE_FORM_KINDS, list_form_field_paths_of_probe_kind
from watchdog.probes import PROBE_KINDS
from watchdog.service.config_check import RunningConfigActions
from watchdog.service.config_reload import ConfigReloadOutcome, ConfigReloadResultKind
from watchdog.store.act_tables import acts
from watchdog.store.database import Database
from watchdog.web import ApiKey
from watchdog.web.auth.session import SESSION_COOKIE_NAME
from watchdog.web.pages.probe_form import NEW_PROBE_KINDS

READER = ApiKey("grafana", "reader", "read-me-0123456789")
OPERATOR = ApiKey("ops", "operator", "operate-0123456789")
NEW, SHOP, BLOG = "/config/new-probe", "/config/probes/shop", "/config/probes/blog"
JOB = {
    "kind": "http",
    "name": "Warm the cache",
    "schedule": "*/5 * * * *",
    "http.url": "http://127.0.0.1:9/warm",
    "http.method": "POST",
}


@pytest.fixture
def harness(tmp_path: Path) -> ManagedFileHarness:
    return ManagedFileHarness(tmp_path)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    rows = FixtureRows()
    rows.add_probe("Shop")
    rows.add_probe("Main")
    with filled_database(f"sqlite:///{tmp_path}/test.db", rows) as database:
        yield database


def create_app(harness: ManagedFileHarness, database: Database, **options: Any) -> FastAPI:
    async def check(_: str) -> Any:
        raise AssertionError

    actions = RunningConfigActions(harness.reload, check, harness.create_editor())
    defaults = {"api_keys": (READER, OPERATOR), "config_actions": actions}
    return create_test_app(database, **defaults | options)


@pytest.fixture
def app(harness: ManagedFileHarness, database: Database) -> FastAPI:
    return create_app(harness, database)


class Browser:
    """A person who is signed in."""

    def __init__(self, app: FastAPI, key: ApiKey = OPERATOR):
        response = request_page(app, "/login", "POST", data={"key": key.secret})
        self.app, self.cookie = app, response.headers["set-cookie"].partition(";")[0].partition("=")[2]

    def get(self, path: str, status_code: int = 200) -> str:
        response = request_page(self.app, path, headers={"Cookie": f"{SESSION_COOKIE_NAME}={self.cookie}"})
        assert response.status_code == status_code
        assert find_html_problems(response.text) == []
        return response.text

    def submit(self, path: str, fields: Mapping[str, str], headers: Mapping[str, str] | None = None) -> httpx.Response:
        given = {"Cookie": f"{SESSION_COOKIE_NAME}={self.cookie}", "Sec-Fetch-Site": "same-origin", **(headers or {})}
        response = request_page(self.app, path, "POST", data=dict(fields), headers=given)
        if response.status_code != 303:
            assert find_html_problems(response.text) == []
        return response

    def press(self, html: str, action: str, path: str, **changes: str) -> httpx.Response:
        """Send the form of a page with other values in some fields, which are named with __ for a dot."""
        fields = read_fields(html) | {name.replace("__", "."): value for name, value in changes.items()}
        return self.submit(path, {**fields, "action": action})


def read_fields(html: str) -> dict[str, str]:
    """What a browser would send of the form."""
    form = re.findall(r'<form class="pad form".*?</form>', html, re.DOTALL)[0]
    fields = {unescape(n): unescape(v) for n, v in re.findall(r'<input[^>]* name="([^"]*)" value="([^"]*)"', form)}
    for name, text in re.findall(r'<textarea[^>]* name="([^"]*)"[^>]*>\n(.*?)</textarea>', form, re.DOTALL):
        fields[unescape(name)] = unescape(text).replace("\n", "\r\n")
    for name, options in re.findall(r'<select[^>]* name="([^"]*)"[^>]*>(.*?)</select>', form, re.DOTALL):
        selected = re.findall(r'<option value="([^"]*)" selected>', options)
        fields[unescape(name)] = unescape(selected[0]) if selected else ""
    return {name: value for name, value in fields.items() if value}


def list_problems(html: str, id: str) -> list[str]:
    lists = re.findall(rf'<ul class="problems" id="{id}-problems">(.*?)</ul>', html, re.DOTALL)
    return [unescape(text) for part in lists for text in re.findall(r"<li>(.*?)</li>", part)]


def test_a_recurring_job_is_four_fields(app: FastAPI, harness: ManagedFileHarness, database: Database) -> None:
    browser = Browser(app)
    page = browser.get(NEW)
    checked = browser.press(page, "check", NEW, **{name.replace(".", "__"): value for name, value in JOB.items()})
    assert (checked.status_code, harness.file.read_text()) == (200, MANAGED_TEXT)
    assert '+schedule: "*/5 * * * *"' in visible_text(checked.text)
    saved = browser.press(checked.text, "save", NEW)
    assert (saved.status_code, saved.headers["location"]) == (303, "/probes/warm-the-cache")
    assert harness.file.read_text() == MANAGED_TEXT + (
        "  - name: Warm the cache\n    http:\n      url: http://127.0.0.1:9/warm\n      method: POST\n"
        '    schedule: "*/5 * * * *"\n'
    )
    assert harness.loaded_config.managed_probe_ids == {"shop", "blog", "warm-the-cache"}
    with database.open_read_transaction() as connection:
        assert [(row.kind, row.author, row.interface) for row in connection.execute(acts.select())] == [
            ("create_probe", "ops", "page")
        ]
    again = browser.press(checked.text, "save", NEW)
    assert again.status_code == 422, "sent twice, it is one probe"


def test_problems_are_at_their_fields_and_nothing_is_lost(app: FastAPI, harness: ManagedFileHarness) -> None:
    browser = Browser(app)
    entered = {
        **JOB,
        "name": "Shop",
        "schedule": "5 * *",
        "http.url": "ftp://x",
        "every": "",
        "expect": "status == 200\r\nstatus = 5",
        "yaml": "evry: 5s\r\n# keep me\r\ntimeout: soon",
    }
    page = browser.press(browser.get(NEW), "save", NEW, **{name.replace(".", "__"): v for name, v in entered.items()})
    assert page.status_code == 422
    assert list_problems(page.text, "name") == ["duplicate name: another probe uses it on line 4 of the managed file"]
    assert read_fields(page.text).items() >= {name: value for name, value in entered.items() if value}.items()
    page = browser.press(page.text, "save", NEW, name="Warm")
    assert list_problems(page.text, "http-url") == ["expected a URL that starts with http:// or https://"]
    assert len(list_problems(page.text, "schedule")) == len(list_problems(page.text, "expect")) == 1
    rest = list_problems(page.text, "yaml")
    assert "evry: unknown field 'evry'; did you mean 'every'?" in rest
    assert any(text.startswith("timeout: expected a duration such as") for text in rest)
    assert read_fields(page.text).items() >= {"yaml": entered["yaml"], "expect": entered["expect"]}.items()
    assert harness.file.read_text() == MANAGED_TEXT


def test_a_probe_is_edited_and_keeps_its_comments_and_its_secret(app: FastAPI, harness: ManagedFileHarness) -> None:
    browser = Browser(app)
    page = browser.get(SHOP)
    assert "s3cret" not in page
    assert read_fields(page)["http.url"] == "http://127.0.0.1:9/shop"
    saved = browser.press(page, "save", SHOP, every="30s", name="The shop")
    assert saved.status_code == 303
    text = harness.file.read_text()
    for comment in ("# Ours; see the wiki", "# The first", "# keep this name", "# Second", "# The end"):
        assert text.count(comment) == 1
    probe = next(probe for probe in load_config(harness.main, env=ENV).config.probes if probe.id == "shop")
    assert (probe.name, probe.every) == ("The shop", 30_000)
    assert "Bearer sh0p-s3cret-1" in text


def test_a_secret_is_not_sent_to_another_address(app: FastAPI) -> None:
    browser = Browser(app)
    for action in ("try", "check", "save"):
        page = browser.press(browser.get(SHOP), action, SHOP, http__url="http://evil.test/")
        assert page.status_code == 422
        assert list_problems(page.text, "yaml") == [
            "http.headers.Authorization: an address beside this secret, or how its server is verified, has changed: "
            "enter the secret again"
        ]


def test_a_probe_is_copied(app: FastAPI, harness: ManagedFileHarness) -> None:
    browser = Browser(app)
    page = browser.get(f"{NEW}?copy=shop")
    assert read_fields(page)["name"] == "Shop (copy)"
    assert browser.press(page, "save", NEW).headers["location"] == "/probes/shop-copy"
    assert harness.file.read_text().count("Bearer sh0p-s3cret-1") == 2


def test_a_probe_is_deleted_after_a_question(app: FastAPI, harness: ManagedFileHarness) -> None:
    browser = Browser(app)
    page = browser.get(f"{BLOG}/delete")
    assert "-name: Blog" in visible_text(page)
    assert harness.file.read_text() == MANAGED_TEXT
    fields = dict(re.findall(r'name="(csrf_token|version)" value="([^"]+)"', page))
    harness.file.write_text(MANAGED_TEXT + "# by hand\n")
    assert browser.submit(f"{BLOG}/delete", fields).status_code == 412
    assert browser.submit(f"{BLOG}/delete", {"csrf_token": fields["csrf_token"]}).status_code == 412
    page = browser.get(f"{BLOG}/delete")
    fields = dict(re.findall(r'name="(csrf_token|version)" value="([^"]+)"', page))
    assert browser.submit(f"{BLOG}/delete", fields).headers["location"] == "/probes"
    assert "Blog" not in harness.file.read_text()
    assert harness.file.read_text().endswith("# by hand\n")


def test_two_people_and_a_change_by_hand_lose_nothing(app: FastAPI, harness: ManagedFileHarness) -> None:
    ana, ben = Browser(app), Browser(app)
    page_of_ana, page_of_ben = ana.get(BLOG), ben.get(BLOG)
    assert ana.press(page_of_ana, "save", BLOG, group="Ana's").status_code == 303
    conflict = ben.press(page_of_ben, "save", BLOG, every="45s", yaml="# of Ben")
    assert conflict.status_code == 409
    text = visible_text(conflict.text)
    assert "The file has changed since you opened this form, and nothing was stored" in text
    assert '-group: "Ana\'s"' in text
    assert "+every: 45s" in text
    assert read_fields(conflict.text).items() >= {"every": "45s", "yaml": "# of Ben"}.items()
    assert "45s" not in harness.file.read_text()
    harness.file.write_text(harness.file.read_text() + "# by hand\n")
    conflict = ben.press(conflict.text, "save", BLOG)
    assert conflict.status_code == 409
    assert ben.press(conflict.text, "save", BLOG).status_code == 303
    text = harness.file.read_text()
    assert "every: 45s" in text
    assert "# of Ben" in text
    assert text.endswith("# The end\n# by hand\n")


def test_a_probe_that_is_gone_can_be_added_again(app: FastAPI, harness: ManagedFileHarness) -> None:
    browser = Browser(app)
    page = browser.get(BLOG)
    harness.file.write_text(MANAGED_TEXT.replace("Blog", "Weblog"))
    conflict = browser.press(page, "save", BLOG, group="Press")
    assert (conflict.status_code, "no longer in the file" in conflict.text) == (409, True)
    assert browser.press(conflict.text, "save", NEW).status_code == 303
    assert harness.loaded_config.managed_probe_ids == {"shop", "weblog", "blog"}


def test_what_is_not_applied_at_once_is_stated(app: FastAPI, harness: ManagedFileHarness, database: Database) -> None:
    outcomes = {
        ConfigReloadResultKind.POSTPONED: "It takes effect when the database is back.",
        ConfigReloadResultKind.INVALID: "It takes effect once the configuration is valid: watchdog.yaml: broken.",
    }
    for number, (status, text) in enumerate(outcomes.items()):

        async def reload(status: ConfigReloadResultKind = status) -> ConfigReloadOutcome:
            return ConfigReloadOutcome(status, ("watchdog.yaml: broken",))

        harness.reload = reload  # type: ignore[method-assign]
        browser = Browser(create_app(harness, database))
        page = browser.press(browser.get(NEW), "save", NEW, name=f"N{number}", http__url="http://127.0.0.1:9/")
        assert page.status_code == 200
        assert text in visible_text(page.text)


@pytest.mark.parametrize("kind", [kind for kind in PROBE_FORM_KINDS if kind.partition(".")[0] in NEW_PROBE_KINDS])
def test_each_kind_has_a_form_with_labels(app: FastAPI, kind: str) -> None:
    page = Browser(app).get(f"{NEW}?kind={kind}")
    form_kind = read_fields(page)["kind"]
    probe_kind, _, system = form_kind.partition(".")
    assert form_kind.startswith(kind)
    assert bool(system) == bool(PROBE_KINDS[probe_kind].form_systems)
    labels = dict(re.findall(r'<label class="lab" for="([^"]+)">([^<]+)</label>', page))
    for path in list_form_field_paths_of_probe_kind(form_kind):
        assert labels[path.replace(".", "-")] != path


def test_a_command_is_not_offered_and_not_accepted(app: FastAPI, harness: ManagedFileHarness) -> None:
    browser, before = Browser(app), harness.file.read_bytes()
    page = browser.get(f"{NEW}?kind=command")
    assert read_fields(page)["kind"] == "http"
    assert "kind=command" not in page
    assert "kind=sql" in page
    for yaml in ("command: [id]", "command: {run: [id]}", "mcp: {command: [id]}"):
        for action in ("save", "try"):
            refused = browser.press(page, action, NEW, kind="command", name="Mine", yaml=yaml)
            assert refused.status_code == 422
            assert "a command cannot be entered here" in visible_text(refused.text)
    assert harness.file.read_bytes() == before


FILLED_FORMS = {
    "heartbeat": ({"heartbeat.schedule": "0 3 * * *", "heartbeat.timezone": "Europe/Berlin"}, "max_runtime", "soon"),
    "canary.bullmq": (
        {"canary.bullmq.redis": "redis://127.0.0.1:9/0", "canary.bullmq.queue": "q"},
        "redis",
        "http://x",
    ),
    "jobs.apscheduler": ({"jobs.apscheduler.url": "postgresql://127.0.0.1:9/a"}, "table", "a table"),
    "dns": ({"dns.name": "acme.example", "dns.type": "MX"}, "server", "http://x"),
    "icmp": ({"icmp.host": "192.0.2.1", "icmp.count": "5"}, "max_loss", "20"),
    "tcp": ({"tcp.host": "db.acme.example:5432"}, "host", "https://db.acme.example/"),
    "tls": ({"tls.host": "acme.example", "tls.min_days": "21", "tls.starttls": "smtp"}, "min_days", "many"),
    "sql": (
        {"sql.url": "postgresql://127.0.0.1:9/a", "sql.query": "SELECT 1 AS a WHERE 'x: y' = 'z'"},
        "query",
        "DELETE FROM a",
    ),
    "queue.rq": ({"queue.rq.redis": "redis://127.0.0.1:9/0", "queue.rq.queue": "7"}, "over", "many"),
}


@pytest.mark.parametrize("kind", FILLED_FORMS)
def test_a_form_of_a_kind_is_filled_in_corrected_and_edited(
    app: FastAPI, harness: ManagedFileHarness, kind: str
) -> None:
    browser, (values, name, invalid_text) = Browser(app), FILLED_FORMS[kind]
    path = next(path for path in list_form_field_paths_of_probe_kind(kind) if path.endswith(f".{name}"))
    entered = {path.replace(".", "__"): value for path, value in {"name": "New one", **values}.items()}
    page = browser.press(
        browser.get(f"{NEW}?kind={kind}"), "save", NEW, **{**entered, path.replace(".", "__"): invalid_text}
    )
    assert page.status_code == 422
    assert len(list_problems(page.text, path.replace(".", "-"))) == 1
    assert list_problems(page.text, "yaml") == []
    corrected = {path.replace(".", "__"): values.get(path, "200" if name == "over" else "")}
    assert browser.press(page.text, "save", NEW, **corrected).status_code == 303
    stored = browser.get("/config/probes/new-one")
    assert read_fields(stored).items() >= values.items()
    assert browser.press(stored, "save", "/config/probes/new-one", group="Jobs").status_code == 303
    probe = next(probe for probe in load_config(harness.main, env=ENV).config.probes if probe.id == "new-one")
    assert (probe.kind, probe.group) == (kind.partition(".")[0], "Jobs")


def test_a_problem_of_a_section_is_at_its_first_field(app: FastAPI) -> None:
    page = Browser(app).press(Browser(app).get(f"{NEW}?kind=heartbeat"), "save", NEW, name="Backup")
    assert list_problems(page.text, "heartbeat-schedule") == [
        "no schedule: set schedule or every, so that missed runs can be detected"
    ]


def test_a_heartbeat_gets_a_token_that_is_masked_once_it_is_stored(app: FastAPI, harness: ManagedFileHarness) -> None:
    browser = Browser(app)
    page = browser.get(f"{NEW}?kind=heartbeat")
    (token,) = re.findall(r"[0-9a-f]{40}", read_fields(page)["heartbeat.token"])
    assert browser.press(page, "save", NEW, name="Backup", heartbeat__every="1h").status_code == 303
    assert token in harness.file.read_text()
    stored = browser.get("/config/probes/backup")
    assert "•••" in stored
    assert token not in stored
    assert browser.press(stored, "save", "/config/probes/backup", group="Jobs").status_code == 303


HOSTILE = (
    '"><script>alert(1)</script>',
    "</textarea><script>x</script>",
    "{{ 7 * 7 }}",
    "x\r\nroutes: []\r\n- y",
    "•••",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_markup_in_every_field_is_text(app: FastAPI, harness: ManagedFileHarness, text: str) -> None:
    browser = Browser(app)
    names = ("name", "schedule", "http__url", "http__method", "timezone", "every", "group", "id", "expect", "yaml")
    entered = dict.fromkeys((*names, "alert__severity", "copy_of", "version", "kind", "former_name"), text)
    for action in ("check", "try", "save", text):
        page = browser.press(browser.get(NEW), action, NEW, **entered)
        assert page.status_code == 422
        assert "<script" not in page.text.replace('<script src="/static/times.', "", 1)
        fields = read_fields(page.text)
        assert fields["group"] == text.replace("\r\n", "\n") if "\n" not in text else "group" in fields
    assert harness.file.read_text() == MANAGED_TEXT
    refused = browser.submit(BLOG, {**entered, "csrf_token": "x"}).text
    assert refused.count("<script") <= 1
    assert "<script>" not in refused


@pytest.mark.parametrize("path", [NEW, BLOG, f"{BLOG}/delete"])
def test_who_may_not_edit(app: FastAPI, harness: ManagedFileHarness, path: str) -> None:
    browser, reader = Browser(app), Browser(app, READER)
    token = re.findall(r'name="csrf_token" value="([^"]+)"', browser.get(path))[0]
    fields = {**JOB, "action": "save", "version": "-"}
    assert "requires the role operator" in reader.get(path, 403)
    assert reader.submit(path, {**fields, "csrf_token": token}).status_code == 403
    assert browser.submit(path, fields).status_code == 403, "no token"
    assert browser.submit(path, {**fields, "csrf_token": f"{token}x"}).status_code == 403
    assert browser.submit(path, {**fields, "csrf_token": token}, {"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert request_page(app, path, "POST", data=fields).status_code == 401
    assert request_page(app, path).status_code == 401
    assert harness.file.read_text() == MANAGED_TEXT


def test_the_links_are_for_those_who_may_use_them(
    app: FastAPI, harness: ManagedFileHarness, database: Database
) -> None:
    browser = Browser(app)
    assert 'href="/config/new-probe"' in browser.get("/probes")
    assert all(f'href="{path}"' in browser.get("/probes/shop") for path in (SHOP, f"{SHOP}/delete", f"{NEW}?copy=shop"))
    assert "/config/" not in browser.get("/probes/main"), "it is in another file"
    reader = Browser(app, READER)
    assert "/config/" not in reader.get("/probes") + reader.get("/probes/shop")
    without = Browser(create_app(harness, database, config_actions=None))
    assert "/config/" not in without.get("/probes") + without.get("/probes/shop")


def test_what_cannot_be_edited(app: FastAPI, harness: ManagedFileHarness, database: Database) -> None:
    browser = Browser(app)
    assert "Other probes are edited in their own files" in visible_text(browser.get("/config/probes/main", 404))
    harness.file.write_text("probes:\n  - &a {name: Blog, http: 'http://127.0.0.1:9/'}\n")
    assert "Edit the file by hand" in visible_text(browser.get(BLOG, 409))
    harness.file.write_text("probes: [\n")
    text = visible_text(browser.get(BLOG, 409))
    assert "managed.yaml:1:10: a value is missing here; correct the file by hand" in text
    page = browser.press(browser.get(NEW), "save", NEW, name="Kept", http__url="http://127.0.0.1:9/")
    assert page.status_code == 409
    assert read_fields(page.text)["name"] == "Kept"
    without = Browser(create_app(harness, database, config_actions=None))
    assert "names no managed file" in visible_text(without.get(NEW, 409))


def test_a_form_that_is_too_long(app: FastAPI) -> None:
    browser = Browser(app)
    page = browser.get(NEW)
    assert browser.press(page, "check", NEW, name="A", yaml="# " + "x" * 70_000).status_code == 422
    assert browser.press(page, "check", NEW, name="A", yaml="# " + "x" * 140_000).status_code == 413
