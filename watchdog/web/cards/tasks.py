"""The tasks that an MCP server lists: what the server reports about each, and how Watchdog judges it."""

from __future__ import annotations

from dataclasses import dataclass

from watchdog.domain.model import HealthState, ReportedTask
from watchdog.domain.rules import task as task_rule
from watchdog.store.read.jobs import jobs_from_tasks
from watchdog.web.cards.base import CardContext, CardType
from watchdog.web.cards.jobs import JobRow, build_job_row

MAX_TASK_ROWS = 50


@dataclass(frozen=True, slots=True)
class TaskRow:
    job_row: JobRow
    server_report: str
    """ "ok: true, success"; "not listed" for a task that is configured and missing."""
    last_run_age: int | None
    """Milliseconds since its last run, as of now."""
    max_age: int | None
    """The configured limit of that age."""


@dataclass(frozen=True, slots=True)
class TasksCard:
    read_at: int
    total: int
    rows: tuple[TaskRow, ...]
    """The first MAX_TASK_ROWS, those that need attention first."""


def load_tasks_card(context: CardContext) -> TasksCard | None:
    source = context.source_listing
    listing = source.listing(task_rule.RULE_NAME) if source else None
    if source is None or source.result is None or listing is None:
        return None
    rows = []
    for job in sorted(jobs_from_tasks(source), key=lambda job: (not job.reason, job.state is not HealthState.DOWN)):
        age = None if job.last_start is None else context.now - job.last_start
        report = _format_server_report(listing.subjects.get(job.name))
        rows.append(TaskRow(build_job_row(job), report, age, task_rule.max_task_age(source.probe, job.name)))
    return TasksCard(source.result.slot, len(rows), tuple(rows[:MAX_TASK_ROWS]))


def _format_server_report(task: ReportedTask | None) -> str:
    if task is None:
        return "not listed"
    return ", ".join([f"ok: {'true' if task.ok else 'false'}", *filter(None, (task.status, task.error))])


CARD = CardType("cards/tasks.j2", load_tasks_card, jobs_section_id="tasks")
