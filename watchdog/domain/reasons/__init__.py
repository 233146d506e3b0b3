"""The catalogue of reasons: why a run failed, an incident opened, or a notification was not delivered. Pure.

A reason is a stable code, `family.cause`, in results, incidents, JSON and metrics. A code is never given another
meaning; the message beside it is for people and may be reworded. docs/reasons.md is rendered from this catalogue.

Some codes are built from what a server answers: `http.503`, `smtp.550`, `slack.channel_not_found`. They are described
by an entry of their own, else by that of their class (`http.5xx`), else by that of their family (`slack.*`).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from difflib import get_close_matches

from watchdog.domain.reasons.contracts import CONTRACT_REASON_ENTRIES
from watchdog.domain.reasons.dns import DNS_REASON_ENTRIES
from watchdog.domain.reasons.entry import ReasonCategory, ReasonEntry
from watchdog.domain.reasons.failures import FAILURE_REASON_ENTRIES
from watchdog.domain.reasons.findings import ERROR_MISSED_AND_FINDING_REASON_ENTRIES
from watchdog.domain.reasons.icmp import ICMP_REASON_ENTRIES
from watchdog.domain.reasons.operations import DELIVERY_REMEDIATION_AND_ACCESS_REASON_ENTRIES
from watchdog.domain.reasons.resolutions import RESOLUTION_REASON_ENTRIES

__all__ = [
    "REASON_CATALOGUE",
    "TRANSPORT_AND_RESPONSE_REASON_FAMILIES",
    "ReasonCategory",
    "ReasonEntry",
    "build_reason_and_message",
    "find_reason_pattern_problem",
    "generalize_http_status_reason",
    "get_reason_advice",
    "get_reason_entry",
    "get_reason_family",
    "get_reason_sentence_for_several",
    "get_reason_title",
    "is_same_incident_cause",
    "matches_reason_pattern",
]

REASON_CATALOGUE: Mapping[str, ReasonEntry] = {
    entry.code: entry
    for entry in (
        *FAILURE_REASON_ENTRIES,
        *DNS_REASON_ENTRIES,
        *ICMP_REASON_ENTRIES,
        *ERROR_MISSED_AND_FINDING_REASON_ENTRIES,
        *CONTRACT_REASON_ENTRIES,
        *RESOLUTION_REASON_ENTRIES,
        *DELIVERY_REMEDIATION_AND_ACCESS_REASON_ENTRIES,
    )
}
"""By code."""

MAX_JOB_NAME_CHARS_IN_COMMAND = 80
TRANSPORT_AND_RESPONSE_REASON_FAMILIES = (
    *("dns", "connection", "proxy", "tls", "starttls", "timeout", "auth", "protocol", "http", "body", "json"),
)
"""Families about a request and its response, for every probe kind that sends one."""


def get_reason_family(code: str) -> str:
    """The part before the dot: "http" of "http.503"."""
    return code.partition(".")[0]


def is_same_incident_cause(code: str, other_code: str) -> bool:
    """Whether both describe one cause of an incident. Reasons of one transport family do: which phase of a request
    fails, or with which status, varies while one problem lasts."""
    return code == other_code or (
        get_reason_family(code) == get_reason_family(other_code)
        and get_reason_family(code) in TRANSPORT_AND_RESPONSE_REASON_FAMILIES
    )


def get_reason_entry(code: str) -> ReasonEntry:
    """The entry of a reason. Raises KeyError for a reason that is not in the catalogue."""
    for key in (code, generalize_http_status_reason(code), f"{get_reason_family(code)}.*"):
        if key in REASON_CATALOGUE:
            return REASON_CATALOGUE[key]
    raise KeyError(code)


def matches_reason_pattern(pattern: str, code: str) -> bool:
    """Whether a reason is the pattern itself or belongs to it: a family ("tls") or a class of statuses ("http.5xx")."""
    return pattern in (code, get_reason_family(code), generalize_http_status_reason(code))


def generalize_http_status_reason(code: str) -> str:
    """ "http.5xx" of "http.503"; the code itself if its cause is not a status."""
    cause = code.partition(".")[2]
    return f"{get_reason_family(code)}.{cause[0]}xx" if len(cause) == 3 and cause.isdigit() else code


def find_reason_pattern_problem(pattern: str) -> str:
    """Why no reason can match a pattern, with a correction if there is one; empty if some reason can."""
    families = {get_reason_family(code) for code in REASON_CATALOGUE}
    if (
        pattern in families
        or pattern in REASON_CATALOGUE
        or (pattern != generalize_http_status_reason(pattern) and _is_known_reason_code(pattern))
    ):
        return ""
    close = get_close_matches(pattern, {*families, *REASON_CATALOGUE}, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ": docs/reasons.md lists them"
    return f"unknown reason {pattern!r}{hint}"


def _is_known_reason_code(code: str) -> bool:
    try:
        return bool(get_reason_entry(code))
    except KeyError:
        return False


def get_reason_title(code: str) -> str:
    """A few words for labels and headings. A reason that another version stored is shown in its own words."""
    try:
        return get_reason_entry(code).title
    except KeyError:
        return code.replace(".", " ").replace("_", " ").capitalize()


def get_reason_advice(code: str, *, probe_id: str = "PROBE", job_name: str = "JOB") -> str:
    """What to do about it, in Markdown; empty if there is none. `probe_id`, `job_name`: to fill in the commands in it;
    the name of a job is untrusted."""
    try:
        advice = get_reason_entry(code).advice
    except KeyError:
        return ""
    is_safe = job_name.isprintable() and "`" not in job_name and len(job_name) <= MAX_JOB_NAME_CHARS_IN_COMMAND
    values = {"PROBE": probe_id, "JOB": shlex.quote(job_name) if is_safe and job_name else "JOB"}
    return re.sub(
        r"`watchdog [^`]*`", lambda command: _fill_placeholders_of_suggested_command(command[0], values), advice
    )


def _fill_placeholders_of_suggested_command(command: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\b(PROBE|JOB)\b", lambda name: values[name[0]], command)


def get_reason_sentence_for_several(code: str) -> str:
    """The template of the message about several subjects that have the problem; empty if there is none."""
    try:
        return get_reason_entry(code).sentence_for_several
    except KeyError:
        return ""


def build_reason_and_message(code: str, detail: str = "", **facts: str) -> tuple[str, str]:
    """A reason with its sentence filled in, and a detail after a colon: "task digest failed: disk full"."""
    sentence = get_reason_entry(code).sentence.format(**facts)
    return code, f"{sentence}: {detail}" if detail else sentence
