"""Celery beat with schedules in RedBeat or django-celery-beat: every second, every night, and on working days."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.schedules import crontab
from celery.signals import beat_init

app = Celery("shop", broker=os.environ["BROKER"])
app.conf.timezone = "Europe/Berlin"
app.conf.beat_max_loop_interval = 1
app.conf.beat_sync_every = 1
app.conf.redbeat_redis_url = os.environ["BROKER"]
app.conf.redbeat_redis_options = {}
app.conf.redbeat_lock_timeout = 1500
app.conf.beat_schedule = {
    name: {"task": "celery.accumulate", "schedule": schedule}
    for name, schedule in {
        "digest": 1.0,
        "nightly": crontab("0", "3"),
        "rates": crontab("*/15", "8-18", "mon-fri"),
    }.items()
}


def create_django_tables(url: str) -> None:
    """Runs the migrations of django-celery-beat."""
    import django
    from django.conf import settings
    from django.core.management import call_command
    from sqlalchemy import make_url

    parts = make_url(url)
    engine = "sqlite3" if parts.get_backend_name() == "sqlite" else "postgresql"
    settings.configure(
        USE_TZ=True,
        INSTALLED_APPS=["django_celery_beat"],
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        DATABASES={
            "default": {
                "ENGINE": f"django.db.backends.{engine}", "NAME": parts.database, "USER": parts.username or "",
                "PASSWORD": parts.password or "", "HOST": parts.host or "", "PORT": str(parts.port or ""),
            }
        },
    )  # fmt: skip
    django.setup()
    call_command("migrate", verbosity=0)


@beat_init.connect  # type: ignore[untyped-decorator]
def announce_ready(**_: Any) -> None:
    os.write(1, b"ready\n")


if __name__ == "__main__":
    database = os.environ.get("DATABASE")
    if database:
        create_django_tables(database)
    app.start(["beat", "-S", "django" if database else "redbeat.RedBeatScheduler", "--loglevel=WARNING"])
