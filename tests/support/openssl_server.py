"""A server of the `openssl` command: TLS versions, ciphers and keys that Python's servers do not offer."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def create_self_signed_certificate(folder: Path, *key_options: str, name: str = "localhost") -> str:
    """A PEM file with a certificate for `name` and its key. `key_options`: of `openssl req`, by default RSA 2048."""
    certificate, key, pem = folder / "certificate.pem", folder / "key.pem", folder / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", *(key_options or ("-newkey", "rsa:2048")), "-nodes", "-days", "2"),
            *("-keyout", str(key), "-out", str(certificate), "-subj", f"/CN={name}"),
            *("-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    pem.write_bytes(certificate.read_bytes() + key.read_bytes())
    return str(pem)


@contextmanager
def running_openssl_server(pem_file: str, *options: str) -> Iterator[int]:
    """The port of a server that answers every request with its status page."""
    command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-www", "-cert", pem_file, "-key", pem_file, *options]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert server.stdout
        lines = []
        while not (accepted := re.match(rb"ACCEPT .*:(\d+)", line := server.stdout.readline())):
            lines.append(line)
            assert line, b"".join(lines)
        yield int(accepted[1])
    finally:
        server.kill()
        server.communicate()
