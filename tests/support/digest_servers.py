"""Real servers that require Digest authentication, on free ports of loopback."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.ports import find_free_port
from tests.support.proxy_servers import find_system_program
from tests.support.third_party import listening_process

DIGEST_USER, DIGEST_PASSWORD, DIGEST_REALM = "prüfer", 'pa"ss:wörd', "Restricted"
DIGEST_BODY = b"only for you"
UNPRIVILEGED_ID = 65534
"""Apache does not run as root."""
APACHE_MODULES = Path("/usr/lib/apache2/modules")
APACHE_CONFIG = """
ServerRoot {folder}
Listen 127.0.0.1:{port}
ServerName localhost
PidFile {folder}/pid
ErrorLog {folder}/error.log
DefaultRuntimeDir {folder}
Mutex sem
{modules}
DocumentRoot {folder}/files
<Directory {folder}/files>
  AuthType Digest
  AuthName "{realm}"
  AuthDigestDomain /
  AuthDigestProvider file
  AuthUserFile {folder}/users
  AuthDigestNonceLifetime {nonce_lifetime}
  Require valid-user
</Directory>
"""
LIGHTTPD_CONFIG = """
server.port = {port}
server.bind = "127.0.0.1"
server.document-root = "{folder}/files"
server.errorlog = "{folder}/error.log"
server.modules = ("mod_auth", "mod_authn_file")
auth.backend = "htdigest"
auth.backend.htdigest.userfile = "{folder}/users"
auth.require = ("" => (
  "method" => "digest", "algorithm" => "{algorithm}", "realm" => "{realm}", "require" => "valid-user"
))
"""


def _write_files(folder: Path, algorithm: str = "MD5") -> None:
    (folder / "files").mkdir()
    (folder / "files/secret").write_bytes(DIGEST_BODY)
    pair = f"{DIGEST_USER}:{DIGEST_REALM}:{DIGEST_PASSWORD}".encode()
    digest = hashlib.new("sha256" if algorithm == "SHA-256" else "md5", pair).hexdigest()
    (folder / "users").write_text(f"{DIGEST_USER}:{DIGEST_REALM}:{digest}\n", encoding="utf-8")
    for path in (folder, folder / "files", folder / "files/secret", folder / "users"):
        path.chmod(0o755)


@contextmanager
def running_apache_with_digest(nonce_lifetime_s: int = 300) -> Iterator[str]:
    """Yields the URL of a file."""
    binary, port = find_system_program("apache2"), find_free_port()
    assert binary is not None
    folder = Path(tempfile.mkdtemp(prefix="watchdog-apache-"))
    _write_files(folder)
    names = ("mpm_event", "authn_core", "authn_file", "authz_core", "authz_user", "auth_digest")
    modules = "\n".join(f"LoadModule {name}_module {APACHE_MODULES}/mod_{name}.so" for name in names)
    if os.geteuid() == 0:
        modules += f"\nUser #{UNPRIVILEGED_ID}\nGroup #{UNPRIVILEGED_ID}"
    config = folder / "apache.conf"
    config.write_text(
        APACHE_CONFIG.format(
            folder=folder, port=port, modules=modules, realm=DIGEST_REALM, nonce_lifetime=nonce_lifetime_s
        )
    )
    try:
        with listening_process([binary, "-DFOREGROUND", "-f", str(config)], port):
            yield f"http://127.0.0.1:{port}/secret"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_lighttpd_with_digest(algorithm: str) -> Iterator[str]:
    """`algorithm`: MD5 or SHA-256. Yields the URL of a file."""
    binary, port = find_system_program("lighttpd"), find_free_port()
    assert binary is not None
    folder = Path(tempfile.mkdtemp(prefix="watchdog-lighttpd-"))
    _write_files(folder, algorithm)
    config = folder / "lighttpd.conf"
    config.write_text(LIGHTTPD_CONFIG.format(folder=folder, port=port, algorithm=algorithm, realm=DIGEST_REALM))
    try:
        with listening_process([binary, "-D", "-f", str(config)], port):
            yield f"http://127.0.0.1:{port}/secret"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
