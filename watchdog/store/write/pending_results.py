"""Evaluates what waits for other results, before nothing more of it is evaluated."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.store.database import Database
from watchdog.store.tables import evaluation_cursors, results
from watchdog.store.write.evaluation import AlertEvaluator
from watchdog.store.write.probe_registry import InMemoryProbeRegistry
from watchdog.store.write.watermark import ClaimWatermark


def evaluate_pending_results(
    database: Database,
    connection: sa.Connection,
    location: str,
    registered: Mapping[int, RegisteredProbe],
    now: int,
) -> None:
    """Fold the stored results of these probes that wait for others. A result that is held counts as one that was in
    flight: late. The caller holds the probes' locks."""
    watermark = ClaimWatermark(database, location)
    watermark.load_clock_generation(connection)
    evaluator = AlertEvaluator(database, watermark, build_probe_registry(registered), gives_up_awaited=True)
    cursors = evaluator.load_evaluation_cursors(connection, registered, evaluation_cursors.c.awaiting_slot)
    if cursors:
        slot = results.c.probe == sa.bindparam("p"), results.c.slot > sa.bindparam("s")
        is_held = results.c.location == watermark.clock_timeline_id, results.c.held_until > now
        drop_held = sa.update(results).where(*slot, *is_held).values(late=True, held_until=None)
        connection.execute(drop_held, [{"p": probe, "s": cursor.evaluated_until} for probe, cursor in cursors.items()])
        evaluator.evaluate_probes(connection, set(cursors), cursors, now)


def build_probe_registry(registered: Mapping[int, RegisteredProbe]) -> InMemoryProbeRegistry:
    registry = InMemoryProbeRegistry()
    registry.replace_probes(registered)
    return registry
