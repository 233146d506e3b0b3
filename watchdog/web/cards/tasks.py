"""The tasks that an MCP server lists: what the server reports about each, and how Watchdog judges it."""

from __future__ import annotations

from dataclasses import dataclass

from watchdog.domain.model import HealthState
from watchdog.domain.observations import McpScheduledTaskFacts
from watchdog.domain.rules import task as task_rule
from watchdog.store.read.jobs import build_job_summaries_of_mcp_tasks
from watchdog.web.cards.base import ProbeCardLoadContext, ProbePageCardType
from watchdog.web.cards.jobs import JobsCardRow, build_jobs_card_row

MAX_MCP_TASKS_ON_CARD = 50


@dataclass(frozen=True, slots=True)
class McpTasksCardRow:
    job_row: JobsCardRow
    server_report: str
    """ "ok: true, success"; "not listed" for a task that is configured and missing."""
    last_run_age: int | None
    """Milliseconds since its last run, as of now."""
    max_age: int | None
    """The configured limit of that age."""


@dataclass(frozen=True, slots=True)
class McpTasksCard:
    read_at: int
    total: int
    rows: tuple[McpTasksCardRow, ...]
    """The first MAX_MCP_TASKS_ON_CARD, those that need attention first."""


def load_mcp_tasks_card(context: ProbeCardLoadContext) -> McpTasksCard | None:
    source = context.newest_job_source_listing
    listing = source.find_listing_of_rule(task_rule.ALERT_RULE_NAME) if source else None
    if source is None or source.result is None or listing is None:
        return None
    rows = []
    for job in sorted(
        build_job_summaries_of_mcp_tasks(source), key=lambda job: (not job.reason, job.state is not HealthState.DOWN)
    ):
        age = None if job.last_start is None else context.now - job.last_start
        report = _format_reported_mcp_task_state(listing.subjects.get(job.name))
        rows.append(
            McpTasksCardRow(
                build_jobs_card_row(job), report, age, task_rule.find_mcp_task_age_limit_ms(source.probe, job.name)
            )
        )
    return McpTasksCard(source.result.slot, len(rows), tuple(rows[:MAX_MCP_TASKS_ON_CARD]))


def _format_reported_mcp_task_state(task: McpScheduledTaskFacts | None) -> str:
    if task is None:
        return "not listed"
    return ", ".join([f"ok: {'true' if task.ok else 'false'}", *filter(None, (task.status, task.error))])


PROBE_PAGE_CARD = ProbePageCardType("cards/tasks.j2", load_mcp_tasks_card, jobs_section_id="tasks")
