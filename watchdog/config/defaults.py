"""`defaults` of the main file: what each probe takes from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from watchdog.config.yaml_tree import YamlNode
from watchdog.config_types import parse_duration
from watchdog.probes import PROBE_KINDS, ProbeDefaults


def apply_defaults(defaults: YamlNode | None, probe: YamlNode) -> YamlNode:
    """The probe with the defaults for what it does not say itself."""
    own = probe.value
    if defaults is None or not isinstance(own, dict):
        return probe
    given = {name: node for name, node in defaults.entries.items() if name in ProbeDefaults.model_fields}
    for name in _overridden_defaults(own, given):
        given.pop(name, None)
    merged = {**own, **{name: node for name, node in given.items() if name not in own}}
    if "alert" in own and "alert" in given and isinstance(own["alert"].value, dict):
        merged["alert"] = replace(own["alert"], value={**given["alert"].entries, **own["alert"].value})
    return replace(probe, value=merged)


def _overridden_defaults(
    probe_entries: Mapping[str, YamlNode], default_entries: Mapping[str, YamlNode]
) -> Iterator[str]:
    """Defaults that make way for how a probe says it runs."""
    for kind in probe_entries.keys() & PROBE_KINDS.keys():
        yield from PROBE_KINDS[kind].unsupported_fields
    if "schedule" in probe_entries:
        yield "every"
    if "every" in probe_entries:
        yield "schedule"
        if (
            "retry_interval" in default_entries
            and "retry_interval" not in probe_entries
            and _duration_ms(default_entries["retry_interval"]) > _duration_ms(probe_entries["every"])
        ):
            yield "retry_interval"


def _duration_ms(node: YamlNode) -> int:
    try:
        return parse_duration(node.value)
    except ValueError:
        return 0
