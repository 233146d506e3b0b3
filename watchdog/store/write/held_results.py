"""Decisions whose fault a failure is, stored with the results that were held for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from watchdog.domain.model import IncidentTransition, ProbeResult
from watchdog.domain.text import replace_unstorable_characters
from watchdog.store.listings import ResultKey
from watchdog.store.tables import results
from watchdog.store.write.recorder import ResultRecorder


class HeldResultsOutcome(NamedTuple):
    """What a decision led to."""

    unrecorded: set[ResultKey]
    """Results that are not stored yet, so that they have to be passed again."""
    transitions: list[IncidentTransition]


def decide_held_results(recorder: ResultRecorder, decided: Sequence[ProbeResult], now: int) -> HeldResultsOutcome:
    """Store how results count that were held, and evaluate them, in one transaction.

    Results whose hold has expired are evaluated already, and stay as they are.
    """
    database = recorder.database
    unrecorded, evaluable = set(), set()
    with database.write_transaction() as connection:
        database.lock_probes(connection, {result.probe for result in decided})
        for result in decided:
            key = {"probe": result.probe, "slot": result.slot, "location": result.location}
            is_result = [results.c[name] == value for name, value in key.items()]
            row = connection.execute(sa.select(results.c.held_until).where(*is_result)).first()
            if row is None:
                unrecorded.add(result[:3])
            elif row.held_until is not None:
                message = replace_unstorable_characters(result.message)
                values = {"held_until": None, "outcome": result.outcome, "reason": result.reason, "message": message}
                connection.execute(sa.update(results).where(*is_result).values(values))
                evaluable.add(result.probe)
        evaluable = {probe for probe in evaluable if probe in recorder.registry}
        transitions = recorder.evaluator.evaluate_probes(connection, evaluable, {}, now) if evaluable else []
    return HeldResultsOutcome(unrecorded, transitions)
