"""Test alerts that a person has sent: by page and API, how often, and what a refusal shows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI

from tests.support.fakes import CannedResponse, FakeWebhookReceiver
from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.html_checks import find_html_problems, visible_text
from tests.support.web import create_test_app, filled_database, request_page
from watchdog.domain.acts import Actor, OperatorActRefusalReason, OperatorActRefusedError, OperatorInterfaceKind
from watchdog.net import NetworkAccess, SecretMask
from watchdog.notifiers.webhook import WebhookNotifier
from watchdog.service.acts import record_receiver_test_start_or_refuse
from watchdog.service.receiver_tests import ConfiguredReceiverTestDependencies, ReceiverTester
from watchdog.store.act_tables import acts
from watchdog.store.database import Database
from watchdog.store.tables import outbox
from watchdog.store.write.receiver_tests import MIN_RECEIVER_TEST_INTERVAL_MS
from watchdog.web import ApiKey

ANA = Actor("ana", OperatorInterfaceKind.PAGE)
SECRET = "sesame-token-0123456789"
PATH = "/receivers/test"
API_PATH = "/api/v1/receivers/oncall/test"


class ReceiverTesterOfTest(ReceiverTester):
    """Has a network for each test."""

    def __init__(self, urls: Mapping[str, str]):
        self._notifiers = {name: WebhookNotifier(url=url) for name, url in urls.items()}
        super().__init__(self._make_access(NetworkAccess()))

    def _make_access(self, network: NetworkAccess) -> ConfiguredReceiverTestDependencies:
        return ConfiguredReceiverTestDependencies(self._notifiers, network, SecretMask([SECRET]), lambda: NOW)

    async def test(self, *args: Any) -> Any:
        async with NetworkAccess() as network:
            return await ReceiverTester(self._make_access(network)).test(*args)


@pytest.fixture
def hook() -> Iterator[FakeWebhookReceiver]:
    with FakeWebhookReceiver() as hook:
        yield hook


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Database]:
    rows = FixtureRows()
    rows.add_watermark(NOW)
    with filled_database(f"sqlite:///{tmp_path}/watchdog.db", rows) as database:
        yield database


@pytest.fixture
def app(store: Database, hook: FakeWebhookReceiver) -> FastAPI:
    urls = {"oncall/webhook": f"{hook.url}{SECRET}", "oncall/webhook-2": f"{hook.url}b", "chat/webhook": hook.url}
    return create_test_app(
        store, receiver_tester=ReceiverTesterOfTest(urls), destination_addresses=dict.fromkeys(urls, "127.0.0.1")
    )


def post(app: FastAPI, path: str = PATH, destination: str = "oncall/webhook", **options: Any) -> tuple[int, str]:
    response = request_page(
        app, path, "POST", data={"destination": destination}, headers={"Sec-Fetch-Site": "same-origin"}, **options
    )
    assert find_html_problems(response.text) == []
    return response.status_code, visible_text(response.text)


def test_a_page_asks_first_and_then_shows_what_became_of_it(app: FastAPI, hook: FakeWebhookReceiver) -> None:
    listed = request_page(app, "/receivers").text
    assert 'href="/receivers/test?destination=oncall%2Fwebhook"' in listed
    question = request_page(app, f"{PATH}?destination=oncall%2Fwebhook")
    assert "Test oncall/webhook?" in visible_text(question.text)
    assert hook.received == []
    status, text = post(app)
    assert (status, "oncall/webhook works" in text) == (200, True)
    assert "127.0.0.1 confirmed a test alert and its end." in text
    assert [(request.json["event"], request.json["test"]) for request in hook.received] == [
        ("opened", True), ("resolved", True),
    ]  # fmt: skip
    audit = request_page(app, "/api/v1/audit").json()["items"]
    assert [(act["act"], act["by"], act["through"], act["comment"]) for act in audit] == [
        ("test_receiver", "localhost", "page", "oncall/webhook")
    ]


def test_a_destination_is_tested_once_in_a_while(app: FastAPI, hook: FakeWebhookReceiver) -> None:
    assert post(app)[0] == 200
    status, text = post(app)
    assert status == 429
    assert re.search(r"Oncall/webhook was tested at \d\d:\d\d:\d\d UTC: test it again in 30 s\.", text)
    answer = request_page(app, "/api/v1/receivers/oncall/test", "POST")
    assert answer.status_code == 429
    assert len(hook.received) == 2
    assert post(app, destination="chat/webhook")[0] == 200


def test_a_refusal_shows_the_error_and_no_secret(app: FastAPI, hook: FakeWebhookReceiver) -> None:
    """And the end of an alert that was not delivered is not sent."""
    hook.canned_responses.append(CannedResponse(401, SECRET.encode()))
    status, text = post(app)
    assert (status, "oncall/webhook did not confirm the test" in text) == (200, True)
    assert "the alert was not delivered" in text
    assert "401" in text
    assert SECRET not in text
    assert len(hook.received) == 1


def test_the_api_tests_a_receiver_or_one_destination(app: FastAPI, hook: FakeWebhookReceiver) -> None:
    hook.canned_responses.append(CannedResponse(500, SECRET.encode()))
    body = {"destination": "oncall/webhook", "comment": "after a new token", "on_behalf_of": "Ana"}
    response = request_page(app, API_PATH, "POST", json=body)
    assert response.status_code == 200
    (result,) = response.json()["destinations"]
    assert (result["destination"], result["delivered"]) == ("oncall/webhook", False)
    assert "500" in result["error"]
    assert SECRET not in response.text
    (act,) = request_page(app, "/api/v1/audit").json()["items"]
    assert (act["comment"], act["by"]) == ("oncall/webhook: after a new token", "localhost for Ana")
    assert request_page(app, "/api/v1/receivers/none/test", "POST").status_code == 404
    for destination in ("oncall/none", "chat/webhook", "oncall", "\u202e"):
        status = request_page(app, "/api/v1/receivers/none/test", "POST", json={"destination": destination}).status_code
        assert status == 404
    assert request_page(app, f"/api/v1/receivers/{'x' * 201}/test", "POST").status_code == 422
    chat = request_page(app, "/api/v1/receivers/chat/test", "POST").json()
    assert [(each["destination"], each["delivered"]) for each in chat["destinations"]] == [("chat/webhook", True)]


def test_only_operators_test(store: Database, hook: FakeWebhookReceiver) -> None:
    keys = (ApiKey("grafana", "reader", "read-me-0123456789"),)
    tester = ReceiverTesterOfTest({"oncall/webhook": hook.url})
    app = create_test_app(store, api_keys=keys, receiver_tester=tester)
    bearer = {"Authorization": f"Bearer {keys[0].secret}"}
    for method in ("GET", "POST"):
        assert request_page(app, f"{PATH}?destination=oncall/webhook", method, headers=bearer).status_code == 403
    assert request_page(app, API_PATH, "POST", headers=bearer).status_code == 403
    assert ">Test<" not in request_page(app, "/receivers", headers=bearer).text
    assert hook.received == []


def test_an_unknown_destination_has_no_page(app: FastAPI) -> None:
    assert request_page(app, PATH).status_code == 404
    assert request_page(app, f"{PATH}?destination=%3Cscript%3E").status_code == 404
    assert post(app, destination="")[0] == 404


def test_what_failed_is_due_at_once_where_the_test_is_confirmed(
    app: FastAPI, store: Database, hook: FakeWebhookReceiver
) -> None:
    later = NOW + 600_000
    common = {"incident": "i", "seq": 0, "event": "opened", "state": "waiting", "created_at": NOW, "detail": ""}
    names = ("oncall/webhook", "oncall/webhook-2", "chat/webhook")
    rows = [{**common, "destination": name, "due_at": later, "attempts": 8} for name in names]
    with store.open_write_transaction() as connection:
        connection.execute(sa.insert(outbox), rows)
    assert post(app)[0] == 200
    hook.canned_responses.append(CannedResponse(500))
    assert post(app, destination="oncall/webhook-2")[0] == 200
    with store.open_read_transaction() as connection:
        due_at = {row.destination: row.due_at for row in connection.execute(sa.select(outbox))}
    assert due_at == {"oncall/webhook": NOW, "oncall/webhook-2": later, "chat/webhook": later}


def test_each_destination_has_a_limit_of_its_own(database: Database) -> None:
    """All destinations of a request are tested or none; another one may be tested at once."""

    def test(now: int, *destinations: str) -> OperatorActRefusalReason | None:
        try:
            record_receiver_test_start_or_refuse(database, destinations, ANA, "why: because", now)
        except OperatorActRefusedError as e:
            return e.refusal
        return None

    too_soon = OperatorActRefusalReason.TOO_SOON
    assert test(NOW, "a/slack") is None
    assert test(NOW + MIN_RECEIVER_TEST_INTERVAL_MS - 1, "b/slack", "a/slack") is too_soon
    assert test(NOW + MIN_RECEIVER_TEST_INTERVAL_MS - 1, "b/slack", "a/slack-2") is None
    assert test(NOW + MIN_RECEIVER_TEST_INTERVAL_MS, "a/slack") is None
    with database.open_read_transaction() as connection:
        comments = connection.execute(sa.select(acts.c.comment).order_by(acts.c.id)).scalars().all()
    assert comments == [f"{name}: why: because" for name in ("a/slack", "b/slack", "a/slack-2", "a/slack")]
