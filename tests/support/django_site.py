"""A real Django with its admin pages: a login with a CSRF token and a session cookie.

As a program, `python -m tests.support.django_site FOLDER PORT`, it creates its database and serves the pages.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.ports import find_free_port
from tests.support.third_party import PROJECT_ROOT, listening_process

USERNAME, PASSWORD = "canary", "pa55word-of-the-canary"


@contextmanager
def running_django_site() -> Iterator[str]:
    """Starts the site and stops it afterwards. Yields its base URL, without a final slash."""
    port = find_free_port()
    with tempfile.TemporaryDirectory(prefix="watchdog-django-") as folder:
        command = [sys.executable, "-m", "tests.support.django_site", folder, str(port)]
        with listening_process(
            command, port, {"PYTHONPATH": f"{PROJECT_ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
        ):
            yield f"http://127.0.0.1:{port}"


def serve_django_site(folder: Path, port: int) -> None:
    """Never returns."""
    import django
    from django.conf import settings
    from django.core.management import call_command

    contrib = [f"django.contrib.{name}" for name in ("admin", "auth", "contenttypes", "sessions", "messages")]
    processors = ("request", "auth.context_processors.auth", "messages.context_processors.messages")
    settings.configure(
        SECRET_KEY="a-key-for-the-tests",
        ALLOWED_HOSTS=["127.0.0.1"],
        ROOT_URLCONF="tests.support.django_site_urls",
        INSTALLED_APPS=contrib,
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request" if name == "request" else f"django.contrib.{name}"
                        for name in processors
                    ]
                },
            }
        ],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "site.db")}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        STATIC_URL="/static/",
        USE_TZ=True,
    )
    django.setup()
    call_command("migrate", verbosity=0)
    os.environ["DJANGO_SUPERUSER_PASSWORD"] = PASSWORD
    call_command("createsuperuser", interactive=False, username=USERNAME, email="canary@acme.example", verbosity=0)
    call_command("runserver", f"127.0.0.1:{port}", use_reloader=False, skip_checks=True)


if __name__ == "__main__":
    serve_django_site(Path(sys.argv[1]), int(sys.argv[2]))
