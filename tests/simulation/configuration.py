"""The configurations of the simulated members: 20 probes of 5 kinds and 2 receivers, and variations of them."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from watchdog.config.load import LoadedConfig, load_config

HTTP_TARGETS = tuple(f"http-{n}" for n in range(8))
MCP_TARGETS = tuple(f"mcp-{n}" for n in range(3))
JOB_TARGETS = tuple(f"jobs-{n}" for n in range(3))
QUEUE_TARGETS = tuple(f"queue-{n}" for n in range(3))
HEARTBEATS = tuple(f"beat-{n}" for n in range(3))
TARGETS = (*HTTP_TARGETS, *MCP_TARGETS, *JOB_TARGETS, *QUEUE_TARGETS)
REVISION_COUNT = 8
RECEIVERS = ("oncall", "backup")
CRON_TARGET, CRON_INTERVAL_S = HTTP_TARGETS[-1], 600.0
"""The probe with a cron schedule; all others have an interval."""
HEARTBEAT_INTERVAL_MS = 600_000
HEARTBEAT_GRACE_MS = 300_000


def _build_probe(name: str) -> dict[str, Any]:
    kind = name.partition("-")[0]
    match kind:
        case "http":
            target: Any = f"http://{name}.example/"
        case "mcp":
            target = {"url": f"http://{name}.example/mcp"}
        case "jobs":
            columns = {"type": "kind", "status": "status", "started": "started_at"}
            statuses = {"running": ["running"], "done": ["done"]}
            sql = {"url": f"sqlite:////{name}.db", "table": name.replace("-", "_"), "columns": columns}
            target = {"sql": {**sql, "statuses": statuses}}
        case "queue":
            target = {"bullmq": {"redis": f"redis://{name}.example/0", "queue": name}}
        case _:
            token = f"{name}-0123456789abcdef"
            schedule = {"every": f"{HEARTBEAT_INTERVAL_MS // 1000}s", "grace": f"{HEARTBEAT_GRACE_MS // 1000}s"}
            return {"name": name, "heartbeat": {"token": token, **schedule}}
    probe = {"name": name, kind: target}
    if kind == "queue":
        probe["rules"] = {"waiting": {"over": 200}}
    if name == CRON_TARGET:
        probe["schedule"] = "*/10 * * * *"
    elif kind != "http":
        probe["every"] = "10m"
    return probe


@cache
def load_revision(revision: int) -> LoadedConfig:
    """Revision 0 has all probes. Each later one leaves one out, and has other thresholds and intervals."""
    random = Random(revision)
    probes = [_build_probe(name) for name in (*TARGETS, *HEARTBEATS)]
    if revision:
        probes.pop(random.randrange(len(TARGETS)))
        for probe in random.sample(probes, 4):
            probe["alert"] = {"failure_threshold": random.randint(1, 3), "success_threshold": random.randint(1, 2)}
        for probe in random.sample(probes[:4], 2):
            probe["every"] = random.choice(["4m", "6m"])
    content = {
        "receivers": {name: {"webhook": {"url": f"http://{name}.example/"}} for name in RECEIVERS},
        "defaults": {
            "every": "5m",
            "timeout": "10s",
            "alert": {"failure_threshold": 2, "success_threshold": 1, "repeat_interval": "5m"},
        },
        "probes": probes,
    }
    return load_config(Path("watchdog.yaml"), json.dumps(content), {})


def build_configuration(folder: Path, revision: int, keep_results_ms: int | None) -> LoadedConfig:
    """A revision, with its database in this folder. `keep_results_ms`: None for the default."""
    loaded = load_revision(revision)
    update: dict[str, Any] = {"url": f"sqlite:///{folder / 'watchdog.db'}"}
    if keep_results_ms is not None:
        update["keep_results"] = keep_results_ms
    storage = loaded.config.storage.model_copy(update=update)
    return replace(loaded, config=loaded.config.model_copy(update={"storage": storage}))
