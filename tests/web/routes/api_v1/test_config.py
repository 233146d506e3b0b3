"""A configuration that is posted: its problems without values, and what it would change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from tests.support.web import create_test_app, request_page
from watchdog.app import start_watchdog_service_and_stop_on_exit
from watchdog.config.load import load_config
from watchdog.service import config_check
from watchdog.service.config_check import PostedConfigChecker, RunningConfigActions
from watchdog.service.config_reload import ConfigReloadOutcome
from watchdog.store.database import Database
from watchdog.web import ApiKey

READER = ApiKey("grafana", "reader", "read-me-0123456789")
OPERATOR = ApiKey("ops", "operator", "operate-0123456789")
ENV = {"TOKEN": "S3cretToken-0123456789", "HOST": "api.acme.test", "PIN": "Zq7"}
PROBES = [{"name": "API", "http": {"url": "http://127.0.0.1:9/", "headers": {"Authorization": "Bearer ${TOKEN}"}}}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the main file of a configuration that has run."""
    folder = tmp_path_factory.mktemp("config")
    (folder / "included.yaml").write_text("secret-of-another-program: 1\n")
    (folder / "token").write_text("FileS3cret-0123456789\n")
    (folder / "watchdog.yaml").write_text(dump(probes=PROBES))

    async def run() -> None:
        async with start_watchdog_service_and_stop_on_exit(load_config(folder / "watchdog.yaml", env=ENV)):
            pass

    asyncio.run(run())
    return folder


@pytest.fixture(scope="module")
def app(folder: Path) -> Iterator[FastAPI]:
    path = folder / "watchdog.yaml"
    checker = PostedConfigChecker(path, load_config(path, env=ENV).mask, ENV)
    database = Database(load_config(path, env=ENV).config.storage.url)
    actions = RunningConfigActions(reload, checker.check)
    yield create_test_app(database, api_keys=(READER, OPERATOR), config_actions=actions)
    database.close()


async def reload() -> ConfigReloadOutcome:
    raise AssertionError


def dump(**sections: Any) -> str:
    return json.dumps({"storage": {"url": "sqlite:///watchdog.db"}, **sections}, indent=1)


def post(app: FastAPI, action: str, text: str, key: ApiKey = OPERATOR) -> Any:
    headers = {"Authorization": f"Bearer {key.secret}"}
    return request_page(app, f"/api/v1/config/{action}", "POST", json={"yaml": text}, headers=headers)


def test_a_valid_configuration(app: FastAPI) -> None:
    response = post(app, "validate", dump(probes=PROBES))
    body = response.json()
    assert (response.status_code, body["is_valid"], body["problems"]) == (200, True, [])
    assert response.headers["cache-control"] == "no-store"
    assert len(body["warnings"]) == 1, "no receiver"


def test_every_problem_is_listed_with_its_position(app: FastAPI) -> None:
    text = "probes:\n- name: API\n  http: http://127.0.0.1:9/\n  evry: 30s\n- name: Shop\n  every: hush\n  http: x\n"
    body = post(app, "validate", text).json()
    assert (body["is_valid"], body["warnings"]) == (False, [])
    assert body["problems"][0] == "watchdog.yaml:4:3: probes.0.evry: unknown field 'evry'; did you mean 'every'?"
    assert [problem.partition(": ")[0] for problem in body["problems"]] == [
        "watchdog.yaml:4:3",
        "watchdog.yaml:6:10",
        "watchdog.yaml:7:9",
    ]
    assert "hush" not in str(body)


def test_nothing_changes(app: FastAPI) -> None:
    body = post(app, "diff", dump(probes=PROBES)).json()
    assert not body.pop("is_changed")
    assert body.pop("destinations") == {"added": [], "removed": [], "changed": []}
    assert set(map(str, body.values())) == {"[]"}


def test_what_would_change(app: FastAPI) -> None:
    text = dump(probes=[{**PROBES[0], "every": "45s"}, {"name": "Shop", "http": "http://127.0.0.1:9/shop"}])
    body = post(app, "diff", text).json()
    assert (body["is_changed"], body["added"], body["removed"]) == (True, ["shop"], [])
    assert body["changed"] == [{"probe": "api", "fields": [{"path": "every", "before": None, "after": "45s"}]}]


def test_the_files_stay_as_they_are(app: FastAPI, folder: Path) -> None:
    before = (folder / "watchdog.yaml").read_text()
    post(app, "diff", "probes: []")
    assert (folder / "watchdog.yaml").read_text() == before
    assert not post(app, "diff", before).json()["is_changed"]


def test_a_configuration_that_is_not_valid_has_no_diff(app: FastAPI) -> None:
    response = post(app, "diff", "probes: [{name: API, evry: 1s}]")
    assert response.status_code == 422
    assert response.json()["detail"] == (
        "The configuration is not valid: watchdog.yaml:1:22: probes.0.evry: unknown field 'evry'; did you mean 'every'?"
        ". "
        "POST it to /api/v1/config/validate for every problem."
    )


@pytest.mark.parametrize(
    "text",
    [
        "probes: [{name: '${TOKEN}', http: 'http://127.0.0.1:9/'}]",
        "probes: [{name: API, id: '${HOST}', http: 'http://127.0.0.1:9/'}]",
        "probes: [{name: 'API ${PIN}', http: 'http://127.0.0.1:9/'}]",
        "probes: [{name: API, every: '${TOKEN}', http: 'http://127.0.0.1:9/'}]",
        "probes: [{name: API, http: '${PIN}'}]",
        "probes: [{name: API, http: 'http://127.0.0.1:9/', group: '${PIN}'}]\nroutes: [{match: {group: 'x${PIN}'}}]",
        "probes: [{name: API, http: 'http://127.0.0.1:9/'}]\nroutes: [{match: {id: '${PIN}'}, receivers: ['${HOST}']}]",
        "probes: [{name: API, http: 'http://127.0.0.1:9/?q=${PIN}'}, {name: API, http: 'http://${HOST}/${TOKEN}'}]",
        "include: [included.yaml]",
        "include: [token]",
        "storage: {url: '${TOKEN}'}",
        "probes: [{name: B, heartbeat: {token_file: token, every: '${HOST}'}}]",
    ],
)
@pytest.mark.parametrize("action", ["validate", "diff"])
def test_no_value_of_this_machine_is_revealed(app: FastAPI, action: str, text: str) -> None:
    revealed = post(app, action, text).text.lower()
    for value in (*ENV.values(), "files3cret-0123456789", "secret-of-another-program", "s3crettoken"):
        assert value.lower() not in revealed


def test_an_id_cannot_reveal_a_variable(app: FastAPI) -> None:
    body = post(app, "validate", "probes: [{name: 'x ${TOKEN}', http: 'http://127.0.0.1:9/'}]").json()
    assert body["problems"] == [
        "watchdog.yaml: probes.0.name: a configuration that is sent cannot have variables in ids and names"
    ]


@pytest.mark.parametrize("action", ["validate", "diff"])
def test_readers_and_other_bodies_are_refused(app: FastAPI, action: str) -> None:
    assert post(app, action, "probes: []", READER).status_code == 403
    headers = {"Authorization": f"Bearer {OPERATOR.secret}"}

    def status_of(**options: Any) -> int:
        status_code: int = request_page(
            app, f"/api/v1/config/{action}", "POST", **{"headers": headers, **options}
        ).status_code
        return status_code

    assert status_of(json={}) == 422
    assert status_of(json={"yaml": "probes: []", "apply": True}) == 422
    assert status_of(json={"yaml": ["probes"]}) == 422
    assert status_of(content="probes: []", headers={**headers, "Content-Type": "application/yaml"}) == 415
    assert status_of(json={"yaml": "#" * 200_000}) != 413
    assert status_of(json={"yaml": "#" * 1_048_576}) == 413


def test_a_process_that_does_not_check(folder: Path) -> None:
    database = Database(f"sqlite:///{folder / 'watchdog.db'}")
    response = post(create_test_app(database, api_keys=(OPERATOR,)), "validate", "probes: []")
    database.close()
    assert (response.status_code, response.json()["detail"]) == (
        409,
        "This process does not check configurations. Run `watchdog validate` or `watchdog diff`.",
    )


def test_files_that_hang_end_the_check(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_check, "CONFIG_LOAD_TIMEOUT_S", 0)
    path = folder / "watchdog.yaml"
    outcome = asyncio.run(PostedConfigChecker(path, load_config(path, env=ENV).mask, ENV).check("probes: []"))
    assert (outcome.loaded_config, outcome.problems) == (None, ("its files could not be read within 0 s",))
