"""Real servers that speak TLS, at once or on request, on free ports of loopback."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.nginx import find_nginx
from tests.support.ports import find_free_port
from tests.support.postgres import UNPRIVILEGED_UID
from tests.support.third_party import listening_process

_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin"
NGINX_TLS_CONFIG = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {pem}; ssl_certificate_key {pem};
    location / {{ return 200 'all is well'; }}
  }}
}}
"""
PGBOUNCER_CONFIG = """
[databases]
* = host=127.0.0.1 port=1
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
logfile = {folder}/log
client_tls_sslmode = require
client_tls_cert_file = {pem}
client_tls_key_file = {pem}
"""
DOVECOT_CONFIG = """
base_dir = {folder}/run
log_path = {folder}/log
protocols = imap
listen = 127.0.0.1
ssl = {ssl}
ssl_cert = <{pem}
ssl_key = <{pem}
{users}
mail_location = maildir:{folder}/mail
service imap-login {{
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
  chroot =
}}
service anvil {{
  chroot =
}}
passdb {{
  driver = static
  args = nopassword=y
}}
"""


def find_pgbouncer() -> str | None:
    """The path of its binary."""
    return shutil.which("pgbouncer", path=_SYSTEM_PATH)


def find_dovecot() -> str | None:
    """The path of its binary, if its IMAP server is installed as well."""
    has_imap = any(Path(folder, "dovecot/imap-login").exists() for folder in ("/usr/lib", "/usr/libexec"))
    return shutil.which("dovecot", path=_SYSTEM_PATH) if has_imap else None


@contextmanager
def _folder_for_all_users(pem_file: str) -> Iterator[tuple[Path, Path]]:
    """A folder, and a copy of the file in it, that servers which give up root's rights can use."""
    folder = Path(tempfile.mkdtemp(prefix="watchdog-tls-"))
    try:
        folder.chmod(0o777)
        pem = Path(shutil.copy(pem_file, folder / "server.pem"))
        pem.chmod(0o644)
        yield folder, pem
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_nginx_with_tls(pem_file: str) -> Iterator[int]:
    """Its port. `pem_file`: the certificates that it sends, and the key of the first."""
    binary, port = find_nginx(), find_free_port()
    assert binary is not None
    with _folder_for_all_users(pem_file) as (folder, pem):
        config, log = folder / "nginx.conf", str(folder / "error.log")
        config.write_text(NGINX_TLS_CONFIG.format(folder=folder, port=port, pem=pem))
        with listening_process([binary, "-p", str(folder), "-c", str(config), "-e", log], port):
            yield port


@contextmanager
def running_pgbouncer(pem_file: str) -> Iterator[int]:
    """Its port, which requires TLS."""
    binary, port = find_pgbouncer(), find_free_port()
    assert binary is not None
    with _folder_for_all_users(pem_file) as (folder, pem):
        config = folder / "pgbouncer.ini"
        config.write_text(PGBOUNCER_CONFIG.format(folder=folder, port=port, pem=pem))
        user = ["-u", pwd.getpwuid(UNPRIVILEGED_UID).pw_name] if os.geteuid() == 0 else []
        with listening_process([binary, *user, str(config)], port):
            yield port


@contextmanager
def running_dovecot(pem_file: str, *, offers_tls: bool = True) -> Iterator[int]:
    """Its port for IMAP."""
    binary, port, me = find_dovecot(), find_free_port(), pwd.getpwuid(os.geteuid()).pw_name
    assert binary is not None
    users = "" if os.geteuid() == 0 else f"default_internal_user = {me}\ndefault_login_user = {me}"
    with _folder_for_all_users(pem_file) as (folder, pem):
        config, ssl = folder / "dovecot.conf", "yes" if offers_tls else "no"
        config.write_text(DOVECOT_CONFIG.format(folder=folder, port=port, pem=pem, users=users, ssl=ssl))
        with listening_process([binary, "-F", "-c", str(config)], port):
            yield port
