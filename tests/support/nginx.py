"""A real nginx for the tests, on free ports of loopback, without root's rights or paths."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.ports import find_free_port
from tests.support.third_party import listening_process

NGINX_CONFIG = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; default_type application/json; gzip_types *; gzip_min_length 1; types {{ }}
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{ return 200 '{{"ok": true, "queue": {{"failed": 61, "waiting": 3}}}}'; }}
    location /zipped {{ gzip on; alias {folder}/zipped; }}
    location /down {{ return 503 '{{"ok": false, "why": "maintenance"}}'; }}
    location /old {{ return 301 /new; }}
    location = /shop/login {{
      if ($request_method != POST) {{ return 405; }}
      add_header Set-Cookie "session=s3ssion-of-nginx; Path=/shop; HttpOnly";
      return 200 '{{"token": "t0ken-of-nginx", "cart": {{"id": 17}}}}';
    }}
    location ~ ^/shop/carts/([0-9]+)$ {{
      if ($cookie_session != "s3ssion-of-nginx") {{ return 403 '{{"why": "no session"}}'; }}
      if ($http_authorization != "Bearer t0ken-of-nginx") {{ return 401 '{{"why": "no token"}}'; }}
      return 200 '{{"cart": $1, "items": ["a", "b"], "for": "$http_authorization"}}';
    }}
    location /echo {{ return 200 '$request_method $http_idempotency_key $http_authorization $content_type'; }}
  }}
}}
"""


def find_nginx() -> str | None:
    """The path of its binary."""
    return shutil.which("nginx", path="/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin")


@contextmanager
def running_nginx() -> Iterator[str]:
    """Starts nginx and stops it afterwards. Yields its base URL, without a final slash."""
    binary = find_nginx()
    assert binary is not None
    port = find_free_port()
    folder = Path(tempfile.mkdtemp(prefix="watchdog-nginx-"))
    (folder / "zipped").write_text('{"zipped": "' + "x" * 5_000 + '"}')
    (folder / "nginx.conf").write_text(NGINX_CONFIG.format(folder=folder, port=port))
    command = [binary, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    try:
        with listening_process(command, port):
            yield f"http://127.0.0.1:{port}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
