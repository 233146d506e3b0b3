"""Lists as JSON: thousands of rows hold the event loop no longer than a few."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.support.web import create_test_app, request_page
from watchdog.store.database import Database
from watchdog.web.routes import api


@pytest.mark.parametrize(
    ("path", "serializer"),
    [
        ("/api/probes", "serialize_probe_status"),
        ("/api/incidents", "serialize_incident"),
        ("/api/jobs", "serialize_job_summary"),
    ],
)
def test_lists_are_serialized_beside_the_event_loop(
    acme_database: Database, monkeypatch: pytest.MonkeyPatch, path: str, serializer: str
) -> None:
    serialize, threads = getattr(api, serializer), set()

    def serialize_and_note_thread(item: Any) -> Any:
        threads.add(threading.current_thread())
        return serialize(item)

    monkeypatch.setattr(api, serializer, serialize_and_note_thread)
    assert request_page(create_test_app(acme_database), path).json()
    assert threads
    assert threading.main_thread() not in threads
