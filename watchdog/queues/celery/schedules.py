"""Schedules of Celery beat that are stored where other programs can read them."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, ClassVar, Self

from pydantic import model_validator

from watchdog.config_types import FILE_BACKED_FIELD_MARKER, SingleLineText, TimezoneName, require_exactly_one_of
from watchdog.domain.observations import JobSourceSnapshot
from watchdog.net.redact import strip_url_to_scheme_host_and_path
from watchdog.queues.base import JobSource, QueueConnectContext, require_installed_modules
from watchdog.queues.celery import django_celery_beat, redbeat
from watchdog.queues.celery.crontab import MAX_CELERY_SCHEDULES
from watchdog.queues.clients.dialects import ExternalDatabaseUrl, external_database_from_url
from watchdog.queues.clients.external_database import ExternalDatabase, run_external_database_transaction
from watchdog.queues.clients.redis import RedisUrl, open_redis_client_mapping_errors, parse_url_host


class CeleryBeatJobSource(JobSource):
    """Celery beat schedules, in RedBeat or django-celery-beat: exactly one of `redbeat` and `database`. A task
    counts as run when beat has sent it; use a canary to monitor the workers. Watchdog cannot compute the run times of
    a solar schedule: set the expected schedule in `watch`. Otherwise, a solar schedule in django-celery-beat is
    reported as unreadable. Without RedBeat or django-celery-beat, beat keeps its schedules in a local file, which
    Watchdog does not read: have one of the tasks check in instead (docs/heartbeats.md)."""

    form_fields: ClassVar[tuple[str, ...]] = ("redbeat", "database")
    kind: ClassVar[str] = "celery"
    example: ClassVar[str] = """
        probes:
          - name: RedBeat schedules
            jobs: {celery: {redbeat: "${REDIS_URL}"}}
          - name: django-celery-beat schedules
            jobs: {celery: {database: "${APP_DB_URL}"}}
    """
    name: ClassVar[str] = "Celery"
    max_jobs: ClassVar[int] = MAX_CELERY_SCHEDULES

    redbeat: Annotated[RedisUrl | None, FILE_BACKED_FIELD_MARKER] = None
    """The Redis database that RedBeat uses (requires the `celery` extra): `redis://user:password@host:6379/0`, or
    `rediss://` for TLS."""
    prefix: SingleLineText = "redbeat:"
    """The prefix of RedBeat's Redis keys: RedBeat's `redbeat_key_prefix` setting."""
    database: Annotated[ExternalDatabaseUrl | None, FILE_BACKED_FIELD_MARKER] = None
    """The database of django-celery-beat: `postgresql://user:password@host/database` (requires the `postgres` extra),
    `mysql://...` (`mysql` extra) or `sqlite:///file.db`. The role needs only SELECT on its tables. Beat saves
    its record of sent tasks only once every 3 min, so Watchdog adds 190 s to every `grace`."""
    timezone: TimezoneName = "UTC"
    """The time zone of times that the database stores without a time zone: Django's `TIME_ZONE` if `USE_TZ` is off."""

    @model_validator(mode="after")
    def _require_one_source(self) -> Self:
        require_exactly_one_of(self, ("redbeat", "database"))
        if self.external_database is None:
            require_installed_modules(self.name, ["redis"], "celery")
        else:
            database = self.external_database
            require_installed_modules(database.name, [database.driver_module], database.pip_extra)
        return self

    @property
    def external_database(self) -> ExternalDatabase | None:
        if self.database is None:
            return None
        return external_database_from_url(self.database, django_celery_beat.CELERY_BEAT_PERIODIC_TASK_TABLE)

    @property
    def database_url(self) -> str:
        return self.database or ""

    @property
    def target(self) -> str:
        return (
            self.external_database.display_name
            if self.external_database
            else strip_url_to_scheme_host_and_path(self.redbeat or "")
        )

    @property
    def host(self) -> str:
        return self.external_database.host if self.external_database else parse_url_host(self.redbeat or "")

    def preload(self) -> None:
        for module in ("sqlalchemy", self.external_database.driver_module) if self.external_database else ("redis",):
            import_module(module)

    async def fetch_job_source_snapshot(self, context: QueueConnectContext) -> JobSourceSnapshot:
        database = self.external_database
        if database is not None:
            snapshot, facts = await run_external_database_transaction(
                database,
                context,
                lambda connection: django_celery_beat.read_django_celery_beat_jobs(connection, database, self.timezone),
            )
            context.facts.update(facts)
            return snapshot
        async with open_redis_client_mapping_errors(self.redbeat or "", context) as client:
            snapshot = await redbeat.read_redbeat_jobs(client, self.prefix, context.facts)
        redis = strip_url_to_scheme_host_and_path(self.redbeat or "")
        return snapshot._replace(location=f"{self.prefix}:schedule does not exist in {redis}")
