"""Decisions that jobs are no longer missed, and probes that wait for their first run."""

from __future__ import annotations

import pytest

from tests.support.missing_jobs import store_missing_jobs
from tests.support.store import START_AT, StoreHarness, make_recorded_result, make_registered_probe, make_results
from watchdog.domain.acts import Actor, OperatorActRefusedError, OperatorInterfaceKind
from watchdog.domain.model import HealthState
from watchdog.domain.probe_state import (
    WAITING_FOR_FIRST_RUN_STATE_KEY,
    build_forget_job_state_key,
    build_scheduled_job_state_key,
)
from watchdog.store.act_tables import acts
from watchdog.store.database import Database
from watchdog.store.read.status import list_probe_statuses
from watchdog.store.transition_tables import transitions
from watchdog.store.write.forgotten_jobs import forget_missing_jobs
from watchdog.store.write.probe_state import load_state_by_probe

ANA = Actor("Ana", OperatorInterfaceKind.CLI)


@pytest.fixture
def harness(database: Database) -> StoreHarness:
    """A source of which two jobs are missing."""
    harness = StoreHarness(database, [make_registered_probe("api"), make_registered_probe("shop")])
    store_missing_jobs(database, harness.database_id("api"), "b", "c", listed="a")
    return harness


def test_only_missing_jobs_are_forgotten(database: Database, harness: StoreHarness) -> None:
    for probe, job, message in (
        ("api", "a", "a is not missing; missing jobs of Api: b, c"),
        ("api", "other", "other is not missing; missing jobs of Api: b, c"),
        ("shop", "", "no job of Shop is missing"),
        ("nowhere", "", "no probe has the id or name nowhere"),
    ):
        with pytest.raises(OperatorActRefusedError, match=f"^{message}$"):
            forget_missing_jobs(database, probe, job, ANA, "", now=START_AT)
    assert harness.select_rows(acts) == []
    for job, names in {"b": ("b",), "": ("b", "c")}.items():
        forgotten = forget_missing_jobs(database, "Api", job, ANA, "moved" if job else "", now=START_AT)
        assert forgotten == ("api", "Api", names)
    with database.open_read_transaction() as connection:
        stored = load_state_by_probe(connection, [harness.database_id("api")])[harness.database_id("api")]
    assert stored[build_forget_job_state_key(build_scheduled_job_state_key("c"))] == {"name": "c", "at": START_AT}


def test_the_audit_log_names_the_jobs_and_who_forgot_them(database: Database, harness: StoreHarness) -> None:
    forget_missing_jobs(database, "api", "", ANA, "moved", now=START_AT)
    row = harness.select_row(acts)
    assert (row["kind"], row["author"], row["interface"], row["probe"], row["comment"], row["occurred_at"]) == (
        *("forget_jobs", "Ana", "cli", "api", "b, c: moved"),
        START_AT,
    )
    (transition,) = [each for each in harness.select_rows(transitions) if each["act"] == row["id"]]
    assert (transition["kind"], transition["probe"]) == ("jobs_forgotten", "api")


@pytest.mark.parametrize(("value", "state"), [(True, HealthState.UNKNOWN), (None, HealthState.UP)])
def test_a_probe_whose_jobs_wait_for_their_first_run_is_unknown(
    database: Database, value: bool | None, state: HealthState
) -> None:
    harness = StoreHarness(database, [make_registered_probe("api")])
    (result,) = make_results(harness.database_id("api"), "p")
    waiting = make_recorded_result(result)._replace(state_updates={WAITING_FOR_FIRST_RUN_STATE_KEY: value})
    harness.recorder.record_results([waiting], result.slot + 300)
    with database.open_read_transaction() as connection:
        assert list_probe_statuses(connection)[0].state is state
