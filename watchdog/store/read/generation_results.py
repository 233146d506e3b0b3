"""Results as they counted in one clock generation: an incident is about those of the generation in which it began."""

from __future__ import annotations

import sqlalchemy as sa

from watchdog.store.tables import END_OF_TIME_MS, clock_steps, results

_ended_generation = sa.select(clock_steps.c.generation - 1).where(clock_steps.c.ended_timeline == results.c.location)
_newest_generation = sa.select(sa.func.max(clock_steps.c.generation)).scalar_subquery()
result_generation = sa.func.coalesce(
    _ended_generation.correlate(results).scalar_subquery(), _newest_generation, 0, type_=sa.Integer
)
"""The clock generation of a row of `results`."""


def build_results_as_of_clock_generation_subquery(generation: int) -> sa.Subquery:
    """As `effective_results`, but as of the end of this clock generation: without what came later."""
    step = clock_steps.alias("step")
    came_again_at = (
        sa.select(sa.func.min(step.c.stepped_to))
        .where(step.c.generation > result_generation, step.c.generation <= generation)
        .correlate(results)
        .scalar_subquery()
    )
    counted = result_generation <= generation, results.c.slot <= sa.func.coalesce(came_again_at, END_OF_TIME_MS)
    return sa.select(results).where(*counted).subquery("results_of_generation")
