"""Celery beat: schedules that it keeps where others can read them."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, ClassVar, Self

from pydantic import model_validator

from watchdog.fields import FROM_FILE, Line, Zone
from watchdog.queues import django_beat, redbeat
from watchdog.queues.base import JobSource, Reach, Snapshot, installed
from watchdog.queues.database import Database, look
from watchdog.queues.database_kinds import DatabaseUrl, database
from watchdog.queues.redis import RedisUrl, host_of, opened, spoken


class CeleryJobs(JobSource):
    """The schedules of Celery beat, kept by RedBeat or django-celery-beat. A run is what beat sent: whether a worker
    did it, a canary tells. Solar ones of django-celery-beat are judged by `watch` alone. A plain beat keeps its
    schedules in a file of its own: let one of its tasks check in (docs/heartbeats.md)."""

    name: ClassVar[str] = "Celery"

    redbeat: Annotated[RedisUrl | None, FROM_FILE] = None
    """Where RedBeat keeps them: redis://user:password@host:6379/0, or rediss:// for TLS (extra `celery`)."""
    prefix: Line = "redbeat:"
    """What all keys of RedBeat begin with: its redbeat_key_prefix."""
    database: Annotated[DatabaseUrl | None, FROM_FILE] = None
    """Where django-celery-beat keeps them: postgresql://user:password@host/database (extra `postgres`), mysql://...
    (extra `mysql`), sqlite:///file.db. The role needs SELECT on its tables, no more. Beat writes down every three
    minutes what it sent: each grace is so much longer."""
    timezone: Zone = "UTC"
    """The time zone of the database's times that carry none: Django's TIME_ZONE where USE_TZ is off."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.redbeat is None) == (self.database is None):
            raise ValueError("expected one of redbeat and database" + (", not both" if self.redbeat else ""))
        if self.there is None:
            installed(self.name, ["redis"], "celery")
        else:
            installed(self.there.name, [self.there.module], self.there.extra)
        return self

    @property
    def there(self) -> Database | None:
        return None if self.database is None else database(self.database, django_beat.TABLE)

    @property
    def database_url(self) -> str:
        return self.database or ""

    @property
    def target(self) -> str:
        return self.there.shown if self.there else self.host

    @property
    def host(self) -> str:
        return self.there.host if self.there else host_of(self.redbeat or "")

    def prepare(self) -> None:
        for module in ("sqlalchemy", self.there.module) if self.there else ("redis",):
            import_module(module)

    async def snapshot(self, reach: Reach) -> Snapshot:
        there = self.there
        if there is not None:
            snapshot, facts = await look(there, reach, lambda line: django_beat.read(line, there, self.timezone))
            reach.facts.update(facts)
            return snapshot
        async with opened(self.redbeat or "", reach) as client:
            with spoken():
                return await redbeat.read(client, self.prefix, reach.facts)
