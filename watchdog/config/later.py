"""What the format has a place for and this version does not do."""

from __future__ import annotations

PLANNED_FIELDS = {
    "": {"dispatch", "inhibit", "maintenance", "reference", "heartbeat_out"},
    "probes": {
        *("command", "tcp", "dns"),
        "locations",
    },
    "alert": {"remind"},
    "mcp": {"drift"},
    "receivers": {"apprise"},
    "slack": {"signing_secret"},
    "routes": {"group_by", "group_wait", "escalate"},
}
"""Field that holds a model -> that model's fields to come. Empty: the file itself."""

NOT_SUPPORTED_MESSAGE = "not in this version"
