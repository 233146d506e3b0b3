"""Merges `defaults` of the main file into the probes of all files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from watchdog.config.yaml_tree import YamlNode
from watchdog.config_types import parse_config_duration_ms
from watchdog.probes import PROBE_KINDS, ProbeDefaults


def merge_defaults_into_probe_node(defaults: YamlNode | None, probe: YamlNode) -> YamlNode:
    """The probe with the defaults of the fields that it does not set."""
    own = probe.value
    if defaults is None or not isinstance(own, dict):
        return probe
    inherited = {name: node for name, node in defaults.mapping_entries.items() if name in ProbeDefaults.model_fields}
    for name in _list_defaults_inapplicable_to_probe(own, inherited):
        inherited.pop(name, None)
    merged = {**own, **{name: node for name, node in inherited.items() if name not in own}}
    if "alert" in own and "alert" in inherited and isinstance(own["alert"].value, dict):
        merged["alert"] = replace(own["alert"], value={**inherited["alert"].mapping_entries, **own["alert"].value})
    return replace(probe, value=merged)


def _list_defaults_inapplicable_to_probe(
    probe_entries: Mapping[str, YamlNode], default_entries: Mapping[str, YamlNode]
) -> Iterator[str]:
    """Defaults that do not apply to a probe: its kind does not support them, or it has its own interval or schedule."""
    for kind in probe_entries.keys() & PROBE_KINDS.keys():
        yield from PROBE_KINDS[kind].unsupported_fields
    if "schedule" in probe_entries:
        yield "every"
    if "every" in probe_entries:
        yield "schedule"
        if (
            "retry_interval" in default_entries
            and "retry_interval" not in probe_entries
            and _parse_yaml_duration_ms_or_zero(default_entries["retry_interval"])
            > _parse_yaml_duration_ms_or_zero(probe_entries["every"])
        ):
            yield "retry_interval"


def _parse_yaml_duration_ms_or_zero(node: YamlNode) -> int:
    try:
        return parse_config_duration_ms(node.value)
    except ValueError:
        return 0
