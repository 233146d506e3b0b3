"""Real servers that speak HTTP/2 over TLS, on free ports of loopback."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.nginx import find_nginx
from tests.support.ports import find_free_port
from tests.support.proxy_servers import find_system_program
from tests.support.third_party import listening_process

NGINX_HTTP2_CONFIG = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; default_type application/json; types {{ }} gzip on; gzip_types *; gzip_min_length 1;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e; client_max_body_size 8m;
  ssl_certificate {certificate}; ssl_certificate_key {certificate};
  server {{
    listen 127.0.0.1:{port} ssl http2; root {folder}; error_page 405 =200 /posted;
    location / {{ return 200 '{{"protocol": "$server_protocol", "host": "$http_host", "tag": "$http_x_tag"}}'; }}
    location /posted {{ return 200 '$request_method $request_length'; }}
    location /large {{ gzip off; alias {folder}/large; }}
    location /down {{ return 503 '{{"ok": false}}'; }}
    location /old {{ return 301 /new; }}
  }}
  server {{ listen 127.0.0.1:{http1_port} ssl; location / {{ return 200 '{{}}'; }} }}
}}
"""
LARGE_BODY = b"0123456789abcdef" * (3 << 16)
"""3 MiB."""


@contextmanager
def running_nginx_with_http2(certificate: str) -> Iterator[tuple[int, int]]:
    """Yields the port that speaks HTTP/2, and one that speaks HTTP/1.1 alone."""
    binary, port, http1_port = find_nginx(), find_free_port(), find_free_port()
    assert binary is not None
    folder = Path(tempfile.mkdtemp(prefix="watchdog-nginx-"))
    (folder / "large").write_bytes(LARGE_BODY)
    text = NGINX_HTTP2_CONFIG.format(folder=folder, port=port, http1_port=http1_port, certificate=certificate)
    (folder / "nginx.conf").write_text(text)
    command = [binary, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    try:
        with listening_process(command, port):
            yield port, http1_port
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_nghttpd(certificate: str) -> Iterator[int]:
    """The server of the reference implementation. Serves the folder of the certificate. Yields its port."""
    binary, port = find_system_program("nghttpd"), find_free_port()
    assert binary is not None
    folder = str(Path(certificate).parent)
    command = [binary, "-a", "127.0.0.1", "-d", folder, "--echo-upload", str(port), certificate, certificate]
    with listening_process(command, port):
        yield port
