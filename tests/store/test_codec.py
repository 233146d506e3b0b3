"""The stored form of a probe."""

from __future__ import annotations

from dataclasses import replace

from tests.support.alert_contexts import PROBE
from watchdog.store.codec import decode_probe_info, encode_probe_info_as_json


def test_a_probe_is_decoded_as_it_was_stored() -> None:
    text = encode_probe_info_as_json(PROBE)
    assert decode_probe_info(PROBE.database_id, text) == decode_probe_info(PROBE.database_id, text) == PROBE


def test_another_version_of_a_probe_is_decoded_anew() -> None:
    renamed = replace(PROBE, name="Other")
    decode_probe_info(PROBE.database_id, encode_probe_info_as_json(PROBE))
    assert decode_probe_info(PROBE.database_id, encode_probe_info_as_json(renamed)) == renamed
    other = replace(PROBE, database_id=PROBE.database_id + 1)
    assert decode_probe_info(other.database_id, encode_probe_info_as_json(other)) == other
