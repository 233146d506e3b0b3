"""The managed file and changes of it as JSON. Secrets in texts are masked."""

from __future__ import annotations

from typing import Any, cast

from pydantic import with_config
from typing_extensions import TypedDict

from watchdog.api.probe_run import serialize_on_demand_run
from watchdog.api.serializers.reload import ConfigReloadJson, serialize_config_reload
from watchdog.api.serializers.results import FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG, EvidenceJson
from watchdog.service.managed_edits import CheckedProbeEdit, ManagedProbe, ManagedProbes, SavedProbeEdit
from watchdog.service.run_once import OnDemandRun


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class ManagedProbeJson(TypedDict):
    """A probe of the managed file."""

    id: str
    name: str
    line: int
    """Where it begins in the file, from 1."""
    yaml: str
    """Its text. Secrets are masked. Empty: it shares values with other parts of the file, and is edited by hand."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class ManagedProbesJson(TypedDict):
    """The managed file."""

    file: str | None
    """Its path; null: the configuration names none, and probes cannot be changed here."""
    version: str
    """Of its content, as in the ETag. A change states it in If-Match."""
    probes: list[ManagedProbeJson]


def serialize_managed_probe(probe: ManagedProbe) -> ManagedProbeJson:
    return {"id": probe.id, "name": probe.name, "line": probe.line, "yaml": probe.yaml}


def serialize_managed_probes(managed: ManagedProbes) -> ManagedProbesJson:
    probes = [serialize_managed_probe(probe) for probe in managed.probes]
    return {"file": managed.file or None, "version": managed.version, "probes": probes}


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class ManagedProbeChangeJson(TypedDict):
    """A change of the managed file."""

    id: str
    """Of the probe."""
    is_stored: bool
    """false: it was checked only."""
    diff: str
    """The lines that change. Secrets are masked."""
    warnings: list[str]
    """What is valid but has no effect."""
    version: str | None
    """Of the file with the change; null: it was not stored."""
    reload: ConfigReloadJson | None
    """What the reload led to; null: none took place, because it was not stored or `reload` is `on_signal`."""


def serialize_checked_probe_edit(checked: CheckedProbeEdit) -> ManagedProbeChangeJson:
    return {
        "id": checked.probe_id,
        "is_stored": False,
        "diff": checked.diff,
        "warnings": list(checked.warnings),
        "version": None,
        "reload": None,
    }


def serialize_saved_probe_edit(saved: SavedProbeEdit) -> ManagedProbeChangeJson:
    reload = None if saved.reload is None else serialize_config_reload(saved.reload)
    return {
        **serialize_checked_probe_edit(saved.checked),
        "is_stored": True,
        "version": saved.version,
        "reload": reload,
    }


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class TriedProbeJson(TypedDict):
    """What a run of a probe observed. Nothing of it is stored."""

    probe: str
    """Its id."""
    kind: str
    outcome: str
    """pass, fail or error."""
    reason: str
    message: str
    duration_ms: float | None
    phases_ms: dict[str, float]
    measurements: dict[str, Any]
    listings: dict[str, Any]
    findings: list[dict[str, Any]]
    evidence: EvidenceJson


def serialize_tried_probe(run: OnDemandRun) -> TriedProbeJson:
    return cast(TriedProbeJson, serialize_on_demand_run(run))
