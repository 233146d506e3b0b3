"""The OpenAPI document: it is true of every response, its examples are valid, and random requests find no fault."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.result import Ok

from tests.support.acts import register_probe
from tests.support.api import rows_of_every_kind
from tests.support.fixture_rows import NOW
from tests.support.web import create_test_app, filled_database, list_requests, request_page, running_app
from watchdog.store.database import Database
from watchdog.web import ApiKey
from watchdog.web.auth.login_throttle import LOGIN_ATTEMPT_WINDOW_MS

load_all_checks()
PARAMETER_VALUES = {"{probe_id}": ("api", "search-mcp", "mail-queue"), "{incident_id}": (f"{6:024x}", f"{1:024x}")}


@pytest.fixture(scope="module")
def document(api: FastAPI) -> Any:
    return request_page(api, "/api/v1/openapi.json").json()


@pytest.fixture
def own_database(tmp_path: Path) -> Iterator[Database]:
    """A database that the test may change."""
    with filled_database(f"sqlite:///{tmp_path}/watchdog.db", rows_of_every_kind()) as database:
        yield database


def validate(document: Any, schema: Any, value: Any) -> None:
    jsonschema.validate(value, {**schema, "components": document["components"]}, jsonschema.Draft202012Validator)


def list_operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield path, method, operation


def test_every_operation_is_documented_with_valid_examples(document: Any, api: FastAPI) -> None:
    documented = {(path, method.upper()) for path, method, _ in list_operations(document)}
    declared = {(path, method) for path, method in list_requests(api) if path.startswith("/api/v1/")}
    assert documented == {(p, m) for p, m in declared if m != "HEAD" and not p.endswith("/openapi.json")}
    for path, _, operation in list_operations(document):
        assert operation["summary"], path
        for status, response in operation["responses"].items():
            for content in response.get("content", {}).values():
                validate(document, content["schema"], content["example"])
            assert status == "304" or "content" in response
        for parameter in operation.get("parameters", []):
            for example in parameter.get("examples", parameter["schema"].get("examples", [])):
                validate(document, parameter["schema"], example)


def test_every_field_and_filter_is_described_or_plain(document: Any) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["ProbeJson"]["properties"]["state"]["description"] == "up, degraded, unknown, down or paused."
    assert schemas.keys() >= {"ProbeDetailJson", "IncidentDetailJson", "WatchdogServiceJson", "ProblemDetailsJson"}


def test_responses_have_the_documented_shape(document: Any, api: FastAPI) -> None:
    for path, method, operation in list_operations(document):
        excluded = "{silence_id}", "{window_id}", "/events", "/config/probes/{probe_id}"
        if method != "get" or path.endswith(excluded):
            continue
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        name = next((name for name in PARAMETER_VALUES if name in path), "")
        for value in PARAMETER_VALUES.get(name, ("",)):
            address = path.replace(name, value) if name else path
            response = request_page(api, address, method.upper())
            assert response.status_code == 200
            validate(document, schema, response.json())


def test_acts_and_what_they_store_have_the_documented_shape(document: Any, own_database: Database) -> None:
    app = create_test_app(own_database)

    def request(method: str, path: str, body: Any = None, **values: str) -> Any:
        response = request_page(app, path.format_map(values), method, **({} if body is None else {"json": body}))
        assert response.status_code == 200, response.text
        operation = document["paths"][path][method.lower()]
        validate(document, operation["responses"]["200"]["content"]["application/json"]["schema"], response.json())
        return response.json()

    assert {path for path, method, _ in list_operations(document) if method != "get"} == {
        "/api/v1/incidents/{incident_id}/acknowledge",
        "/api/v1/incidents/{incident_id}/close",
        "/api/v1/incidents/{incident_id}/unacknowledge",
        "/api/v1/incidents/{incident_id}/resend",
        "/api/v1/incidents/{incident_id}/silence",
        "/api/v1/receivers/{receiver}/test",
        "/api/v1/silences",
        "/api/v1/silences/{silence_id}",
        "/api/v1/probes/{probe_id}/pause",
        "/api/v1/probes/{probe_id}/resume",
        "/api/v1/probes/{probe_id}/run-now",
        "/api/v1/probes/{probe_id}/forget-jobs",
        "/api/v1/probes/{probe_id}/accept-contract",
        "/api/v1/maintenance",
        "/api/v1/maintenance/{window_id}",
        "/api/v1/reload",
        "/api/v1/config/validate",
        "/api/v1/config/diff",
        "/api/v1/config/probes",
        "/api/v1/config/probes/{probe_id}",
        "/api/v1/config/try",
    }
    incident = request_page(app, "/api/v1/incidents?state=open&limit=1").json()["items"][0]["id"]
    body = {"match": {"group": "Core", "severity": "warning", "tags": ["prod"]}, "duration_ms": 1_000}
    validate(document, document["components"]["schemas"]["SilenceBody"], body)
    request("POST", "/api/v1/incidents/{incident_id}/acknowledge", {}, incident_id=incident)
    request("POST", "/api/v1/incidents/{incident_id}/unacknowledge", incident_id=incident)
    of_incident = request("POST", "/api/v1/incidents/{incident_id}/silence", incident_id=incident)
    request("DELETE", "/api/v1/silences/{silence_id}", silence_id=of_incident["id"])
    request("POST", "/api/v1/incidents/{incident_id}/close", {"comment": "host removed"}, incident_id=incident)
    id = request("POST", "/api/v1/silences", body)["silence"]["id"]
    request("GET", "/api/v1/silences/{silence_id}", silence_id=id)
    request("DELETE", "/api/v1/silences/{silence_id}", silence_id=id)
    assert len(request("GET", "/api/v1/silences")["items"]) == 2
    request("POST", "/api/v1/probes/{probe_id}/pause", {"duration_ms": 1_000}, probe_id="api")
    assert request("GET", "/api/v1/probes/{probe_id}", probe_id="api")["state"] == "paused"
    request("POST", "/api/v1/probes/{probe_id}/resume", probe_id="api")
    register_probe(own_database, NOW)
    request("POST", "/api/v1/probes/{probe_id}/run-now", probe_id="api")
    assert len(request("POST", "/api/v1/receivers/{receiver}/test", receiver="oncall")["destinations"]) == 2
    validate(document, document["components"]["schemas"]["MaintenanceBody"], body)
    id = request("POST", "/api/v1/maintenance", {**body, "match": {"id": "api"}})["maintenance"]["id"]
    request("GET", "/api/v1/maintenance/{window_id}", window_id=id)
    request("DELETE", "/api/v1/maintenance/{window_id}", window_id=id)
    assert len(request("GET", "/api/v1/maintenance")["items"]) == 1
    assert len(request("GET", "/api/v1/audit")["items"]) == 14


def test_random_requests_find_no_fault(own_database: Database) -> None:
    """Over a real server: statuses, types and shapes are as documented, and invalid requests are refused."""
    key, clock = ApiKey("ci", "operator", "read-me-0123456789"), itertools.count(NOW, LOGIN_ATTEMPT_WINDOW_MS)
    app = create_test_app(own_database, api_keys=[key], clock=lambda: next(clock))
    headers = {"Authorization": f"Bearer {key.secret}"}
    with running_app(app) as url:
        schema = schemathesis.openapi.from_url(f"{url}/api/v1/openapi.json", headers=headers)

        def run(case: Any) -> None:
            # A schema cannot describe the cursors that are valid, nor which silences, pauses and windows are possible.
            limited = "/silences", "/pause", "/maintenance"
            is_limited = "cursor" in (case.query or {}) or case.operation.path.endswith(limited)
            excluded = CHECKS.get_by_names(["positive_data_acceptance"]) if is_limited else []
            if any(value in ([], {}) for value in (case.query or {}).values()):  # a URL does not state such a value
                excluded += CHECKS.get_by_names(["negative_data_rejection"])
            case.call_and_validate(checks=CHECKS.get_all(), excluded_checks=excluded, headers=headers, timeout=30)

        for result in schema.get_all_operations():
            assert isinstance(result, Ok)
            for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
                run_examples(result.ok().as_strategy(generation_mode=mode), run)


def run_examples(strategy: Any, run: Callable[[Any], None]) -> None:
    limits: Any = settings(
        max_examples=15,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    test: Any = given(strategy)
    limits(test(run))()
