"""The slots of a probe that are claimed and have no result yet, as the table schedule stores them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypeAlias

NO_SLOTS_IN_FLIGHT = "[]"
InFlightSlot: TypeAlias = tuple[int, str]
"""(slot, timeline)"""


def encode_in_flight_slots(starts: Mapping[InFlightSlot, int], current_timeline: str) -> str:
    """Slots in flight: the number of a slot; [slot, when it was claimed] if it is caught up; [slot, start, timeline] if
    it was claimed before the last step of the clock."""

    if len(starts) == 1:  # the usual case
        [((slot, timeline), start)] = starts.items()
        if timeline == current_timeline and start == slot:
            return f"[{slot}]"

    def encode_in_flight_slot(slot: int, timeline: str, start: int) -> int | list[int | str]:
        if timeline != current_timeline:
            return [slot, start, timeline]
        return slot if start == slot else [slot, start]

    return json.dumps([encode_in_flight_slot(*key, start) for key, start in starts.items()])


def decode_in_flight_slots(text: str, current_timeline: str) -> dict[InFlightSlot, int]:
    """(slot, timeline) -> when it was to start, from which its lateness counts."""
    if text == NO_SLOTS_IN_FLIGHT:
        return {}
    if (digits := text[1:-1]).isdecimal():  # one slot, which is the usual case
        slot = int(digits)
        return {(slot, current_timeline): slot}
    starts = {}
    for entry in json.loads(text):
        slot, start, timeline = entry if isinstance(entry, list) and len(entry) == 3 else (entry, entry, "")
        if isinstance(slot, list):
            slot, start = slot
        starts[slot, timeline or current_timeline] = start
    return starts
