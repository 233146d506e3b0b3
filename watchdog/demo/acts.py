"""The play: what is broken, one act after the other, and what people read about it."""

from __future__ import annotations

from typing import NamedTuple

from watchdog.demo.faults import DemoFault


class DemoPlayAct(NamedTuple):
    """One thing that breaks and is repaired. Both texts are parts of sentences."""

    fault: DemoFault
    probe_id: str
    """The probe that reports it."""
    broken_text: str
    """ "the checkout answers every request with 503" """
    repaired_text: str
    """ "the checkout answers again" """
    incident_within_s: int
    """An incident can be expected within this time, in seconds."""


DEMO_PLAY_ACTS = (
    DemoPlayAct(
        DemoFault.CHECKOUT,
        "checkout",
        "the checkout answers every request with 503",
        "the checkout has database connections again",
        10,
    ),
    DemoPlayAct(
        DemoFault.TOOLS,
        "search",
        "the MCP server answers tools/list with an error",
        "the MCP server lists its tools again",
        10,
    ),
    DemoPlayAct(
        DemoFault.EMAILS,
        "email-delivery",
        "the worker of the queue emails is killed, and the canary job waits",
        "the queue emails has a worker again",
        20,
    ),
    DemoPlayAct(
        DemoFault.ORDERS,
        "order-jobs",
        "the worker of the job table is killed during a job",
        "the job table has a worker again",
        30,
    ),
    DemoPlayAct(
        DemoFault.THUMBNAILS,
        "thumbnail-backlog",
        "the worker of the queue thumbnails hangs in a job, and jobs pile up",
        "the worker of the queue thumbnails is restarted",
        30,
    ),
    DemoPlayAct(
        DemoFault.REINDEX,
        "search",
        "the MCP server no longer runs its task reindex, although it answers",
        "the MCP server runs its task reindex again",
        25,
    ),
    DemoPlayAct(
        DemoFault.BACKUP,
        "backup",
        "the backup job does not check in",
        "the backup job checks in again",
        30,
    ),
)
DEMO_QUEUE_PROBE_IDS = frozenset({"email-delivery", "thumbnail-backlog"})
"""Probes that need the queues."""
