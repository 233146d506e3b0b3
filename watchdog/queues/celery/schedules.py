"""Celery beat: schedules that it keeps where others can read them."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, ClassVar, Self

from pydantic import model_validator

from watchdog.config_types import ALLOW_FROM_FILE, SingleLineText, TimezoneName
from watchdog.domain.observations import JobSourceSnapshot
from watchdog.queues.base import ConnectContext, JobSource, require_modules
from watchdog.queues.celery import django_celery_beat, redbeat
from watchdog.queues.clients.dialects import DatabaseUrl, database_from_url
from watchdog.queues.clients.external_database import ExternalDatabase, run_transaction
from watchdog.queues.clients.redis import RedisUrl, map_redis_errors, open_redis_client, url_host


class CeleryJobSource(JobSource):
    """The schedules of Celery beat, kept by RedBeat or django-celery-beat. A run is what beat sent: whether a worker
    did it, a canary tells. Solar ones of django-celery-beat are judged by `watch` alone. A plain beat keeps its
    schedules in a file of its own: let one of its tasks check in (docs/heartbeats.md)."""

    kind: ClassVar[str] = "celery"
    name: ClassVar[str] = "Celery"

    redbeat: Annotated[RedisUrl | None, ALLOW_FROM_FILE] = None
    """Where RedBeat keeps them: redis://user:password@host:6379/0, or rediss:// for TLS (extra `celery`)."""
    prefix: SingleLineText = "redbeat:"
    """What all keys of RedBeat begin with: its redbeat_key_prefix."""
    database: Annotated[DatabaseUrl | None, ALLOW_FROM_FILE] = None
    """Where django-celery-beat keeps them: postgresql://user:password@host/database (extra `postgres`), mysql://...
    (extra `mysql`), sqlite:///file.db. The role needs SELECT on its tables, no more. Beat writes down every three
    minutes what it sent: each grace is so much longer."""
    timezone: TimezoneName = "UTC"
    """The time zone of the database's times that carry none: Django's TIME_ZONE where USE_TZ is off."""

    @model_validator(mode="after")
    def _require_one_source(self) -> Self:
        if (self.redbeat is None) == (self.database is None):
            raise ValueError("expected one of redbeat and database" + (", not both" if self.redbeat else ""))
        if self.external_database is None:
            require_modules(self.name, ["redis"], "celery")
        else:
            require_modules(
                self.external_database.name, [self.external_database.driver_module], self.external_database.pip_extra
            )
        return self

    @property
    def external_database(self) -> ExternalDatabase | None:
        return (
            None if self.database is None else database_from_url(self.database, django_celery_beat.PERIODIC_TASK_TABLE)
        )

    @property
    def database_url(self) -> str:
        return self.database or ""

    @property
    def target(self) -> str:
        return self.external_database.display_name if self.external_database else self.host

    @property
    def host(self) -> str:
        return self.external_database.host if self.external_database else url_host(self.redbeat or "")

    def prepare(self) -> None:
        for module in ("sqlalchemy", self.external_database.driver_module) if self.external_database else ("redis",):
            import_module(module)

    async def fetch_snapshot(self, context: ConnectContext) -> JobSourceSnapshot:
        there = self.external_database
        if there is not None:
            snapshot, facts = await run_transaction(
                there, context, lambda line: django_celery_beat.read_snapshot(line, there, self.timezone)
            )
            context.facts.update(facts)
            return snapshot
        async with open_redis_client(self.redbeat or "", context) as client:
            with map_redis_errors():
                return await redbeat.read_snapshot(client, self.prefix, context.facts)
