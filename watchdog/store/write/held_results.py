"""Decisions whose fault a failure is, stored with the results that were held for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from watchdog.domain.clock_steps import parse_clock_generation_of_timeline_id
from watchdog.domain.model import IncidentTransition, ProbeResult, SuspectOrOpenAlertState
from watchdog.domain.rules import availability
from watchdog.domain.text import replace_unstorable_characters
from watchdog.store.listings import ResultKey
from watchdog.store.tables import alert_states, evaluation_cursors, incidents, results
from watchdog.store.write.recorder import ResultRecorder


class UnrecordedHeldResultsAndTransitions(NamedTuple):
    """What a decision led to."""

    unrecorded: set[ResultKey]
    """Results that are not stored yet, so that they have to be passed again."""
    transitions: list[IncidentTransition]


def store_decided_held_results(
    recorder: ResultRecorder, decided: Sequence[ProbeResult], now: int
) -> UnrecordedHeldResultsAndTransitions:
    """Store how results count that were held, and evaluate them, in one transaction.

    Results whose hold has expired are evaluated already, and stay as they are.
    """
    database = recorder.database
    unrecorded, evaluable = set(), set()
    with database.open_write_transaction() as connection:
        database.lock_probes(connection, {result.probe for result in decided})
        for result in decided:
            row = connection.execute(sa.select(results.c.held_until).where(*_build_result_key_filter(result))).first()
            if row is None:
                unrecorded.add(result[:3])
            elif row.held_until is not None:
                _update_held_result_as_decided(connection, result)
                evaluable.add(result.probe)
        evaluable = {probe for probe in evaluable if probe in recorder.registry}
        transitions = recorder.evaluator.evaluate_probes(connection, evaluable, {}, now) if evaluable else []
    return UnrecordedHeldResultsAndTransitions(unrecorded, transitions)


def withdraw_recorded_failures(recorder: ResultRecorder, decided: Sequence[ProbeResult]) -> set[ResultKey]:
    """Store as errors what was evaluated as a failure, if a replay of the stored results leads to the same state: if
    the failure was the newest and the first one of its probe, opened no incident, and ended none.

    `decided`: the errors. Returns which of them were stored.
    """
    database, evaluator = recorder.database, recorder.evaluator
    ids, withdrawn = {result.probe for result in decided}, set()
    with database.open_write_transaction() as connection:
        database.lock_probes(connection, ids)
        cursors, states_by_probe = (
            evaluator.load_evaluation_cursors(connection, ids),
            evaluator.load_alert_states(connection, ids),
        )
        for result in decided:
            cursor, states = cursors.get(result.probe), states_by_probe[result.probe]
            state = states.get((availability.ALERT_RULE_NAME, ""))
            if cursor is None or cursor.evaluated_until != result.slot or state is None or len(states) > 1:
                continue
            generation, is_current = (
                recorder.watermark.generation,
                result.location == recorder.watermark.clock_timeline_id,
            )
            is_first_failure = state == SuspectOrOpenAlertState(
                1, 0, result.slot, None, state.reason, generation=generation
            )
            if is_current and is_first_failure and not _has_incident_resolved_in_result_slot(connection, result):
                _update_held_result_as_decided(connection, result)
                connection.execute(sa.delete(alert_states).where(alert_states.c.probe == result.probe))
                is_cursor = evaluation_cursors.c.probe == result.probe
                connection.execute(sa.update(evaluation_cursors).where(is_cursor).values(active=cursor.awaiting_slot))
                withdrawn.add(result[:3])
    return withdrawn


def _has_incident_resolved_in_result_slot(connection: sa.Connection, result: ProbeResult) -> bool:
    """Whether an incident resolved in the slot of a result."""
    generation = parse_clock_generation_of_timeline_id(result.location)
    is_ended = incidents.c.resolved_slot == result.slot, incidents.c.resolved_generation == generation
    query = sa.select(incidents.c.id).where(incidents.c.probe == result.probe, *is_ended).limit(1)
    return connection.execute(query).first() is not None


def _update_held_result_as_decided(connection: sa.Connection, result: ProbeResult) -> None:
    message = replace_unstorable_characters(result.message)
    values = {"held_until": None, "outcome": result.outcome, "reason": result.reason, "message": message}
    connection.execute(sa.update(results).where(*_build_result_key_filter(result)).values(values))


def _build_result_key_filter(result: ProbeResult) -> list[sa.ColumnElement[bool]]:
    key = {"probe": result.probe, "slot": result.slot, "location": result.location}
    return [results.c[name] == value for name, value in key.items()]
