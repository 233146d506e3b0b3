"""The stored form of a probe, and of the routes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.support.alert_contexts import PROBE
from watchdog.domain.routing import NotificationRoute, NotificationRoutingTable
from watchdog.store.codec import (
    decode_notification_routing_table,
    decode_probe_info,
    encode_notification_routing_table,
    encode_probe_info_as_json,
)


def test_a_probe_is_decoded_as_it_was_stored() -> None:
    text = encode_probe_info_as_json(PROBE)
    assert decode_probe_info(PROBE.database_id, text) == decode_probe_info(PROBE.database_id, text) == PROBE


def test_another_version_of_a_probe_is_decoded_anew() -> None:
    renamed = replace(PROBE, name="Other")
    decode_probe_info(PROBE.database_id, encode_probe_info_as_json(PROBE))
    assert decode_probe_info(PROBE.database_id, encode_probe_info_as_json(renamed)) == renamed
    other = replace(PROBE, database_id=PROBE.database_id + 1)
    assert decode_probe_info(other.database_id, encode_probe_info_as_json(other)) == other


@pytest.mark.parametrize("group_by", [None, (), ("group", "severity")])
def test_a_route_is_decoded_as_it_was_stored(group_by: tuple[str, ...] | None) -> None:
    route = NotificationRoute(("chat",), group_by=group_by, group_wait_ms=0 if group_by is None else 30_000)
    table = NotificationRoutingTable({"chat": ("chat/slack",)}, (route,))
    text = encode_notification_routing_table(table)
    assert decode_notification_routing_table(text) == table


def test_a_route_of_an_earlier_version_does_not_group() -> None:
    table = NotificationRoutingTable({"chat": ("chat/slack",)}, (NotificationRoute(("chat",)),))
    stored = json.loads(encode_notification_routing_table(table))
    del stored["routes"][0]["group_by"], stored["routes"][0]["group_wait_ms"]
    assert decode_notification_routing_table(json.dumps(stored)) == table
