"""The search that the lists of probes and of incidents share."""

from __future__ import annotations

from watchdog.domain.model import ProbeInfo

MAX_SEARCH_TEXT_CHARS = 200


def does_probe_match_search_term(probe: ProbeInfo, term: str) -> bool:
    """`term`, in lower case: `group:core`, `kind:mcp`, `tag:prod`, or a part of the name, the id or the group, or a
    tag."""
    tags = [tag.lower() for tag in probe.tags]
    field, colon, value = term.partition(":")
    match field if colon else "":
        case "tag":
            return value in tags
        case "group":
            return value in probe.group.lower()
        case "kind":
            return value in probe.kind.lower()
    return term in probe.name.lower() or term in probe.id or term in tags or term in probe.group.lower()
