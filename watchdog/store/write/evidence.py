"""Which evidence is stored with results: enough to explain every change, and a sample of the rest."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import sqlalchemy as sa

from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.model import Evidence, Outcome, ResultToRecord
from watchdog.domain.rules import missed_run
from watchdog.domain.text import replace_unstorable_characters
from watchdog.store.database import Database
from watchdog.store.json_text import encode_storable_json
from watchdog.store.tables import evidence

EVIDENCE_SAMPLE_INTERVAL_MS = HOUR_MS
"""The evidence of one passing result is stored in each interval of this length."""


class EvidenceWriter:
    """Stores the evidence of failures and errors, of the last pass before each, and of a sample of passes.

    Owns the newest pass of each probe, in memory: it is stored only once a failure follows. A restart loses it, and
    with it the evidence of one pass.
    """

    def __init__(self, database: Database):
        self.database = database
        self._last_pass: dict[int, tuple[tuple[int, int, str], Evidence]] = {}
        """Probe -> the key of the result, and its evidence."""

    def save_notable_and_sampled_evidence(
        self,
        connection: sa.Connection,
        recorded_results: Iterable[ResultToRecord],
        suspect_keys: Collection[tuple[int, int, str]],
    ) -> None:
        """`recorded_results`: by probe and slot. `suspect_keys`: of results that may change an alert state, passes
        included."""
        selected: dict[tuple[int, int, str], Evidence] = {}
        for result, result_evidence, *_ in recorded_results:
            notable = (
                result[:3] in suspect_keys
                or result.outcome in (Outcome.FAIL, Outcome.ERROR)
                or missed_run.REQUESTED_RUN_MEASUREMENT_NAME in result.measurements
            )
            sampled = (
                result.previous_slot is None
                or result.previous_slot // EVIDENCE_SAMPLE_INTERVAL_MS != result.slot // EVIDENCE_SAMPLE_INTERVAL_MS
            )
            if notable and (last_pass := self._last_pass.get(result.probe)):
                selected[last_pass[0]] = last_pass[1]
            if notable or sampled:
                selected[result[:3]] = result_evidence
            if result.outcome is Outcome.PASS:
                self._last_pass[result.probe] = (result[:3], result_evidence)
        rows = [
            {"probe": probe, "slot": slot, "location": location,
             "facts": encode_storable_json(dict(content.facts)),
             "excerpt": replace_unstorable_characters(content.excerpt)}
            for (probe, slot, location), content in selected.items() if content.facts or content.excerpt
        ]  # fmt: skip
        if rows:
            connection.execute(self.database.build_insert_statement(evidence).on_conflict_do_nothing(), rows)
