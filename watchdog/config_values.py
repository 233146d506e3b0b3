"""What single values of a configuration mean. Without pydantic, so that `watchdog exec` starts fast."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any

from watchdog.domain.local_hosts import get_local_connect_host

DEFAULT_LISTEN_ADDRESS = "127.0.0.1:8080"
MAX_SECRET_FILE_BYTES = 64 * 1024
PERCENTAGE_PATTERN = r"^[0-9]{1,2}(\.[0-9]{1,2})? ?%$"


def slugify(text: str) -> str:
    """ "Warm the cache!" -> "warm-the-cache". Empty when no letter or digit of ASCII is left."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:64].strip("-")


def read_secret_file(path: Path, regular_file_only: bool = False) -> str:
    """The content of the file without its final line end. Raises ValueError that names the file and the problem.

    `regular_file_only`: refuse a named pipe, because reading it would wait for its writer.
    """
    if regular_file_only and path.exists() and not path.is_file():
        raise ValueError(f"cannot read {path}: not a regular file")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SECRET_FILE_BYTES + 1)
        text = content.decode()
    except OSError as e:
        raise ValueError(f"cannot read {path}: {(e.strerror or 'not a file').lower()}") from None
    except ValueError:
        raise ValueError(f"cannot read {path}: not text in UTF-8") from None
    if len(content) > MAX_SECRET_FILE_BYTES:
        raise ValueError(f"cannot read {path}: larger than 64 KiB")
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise ValueError(f"{path} is empty")
    return text


def split_listen_address(text: str) -> tuple[str, int]:
    """ "[::1]:8080" -> ("::1", 8080); ":8080" is every IPv4 address. Raises ValueError with the remedy."""
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65_535:
        raise ValueError("expected host:port, such as 127.0.0.1:8080, or :8080 for every IPv4 address")
    if not re.fullmatch(r"[A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\]", host):
        raise ValueError("expected a host name or address before the port; write an IPv6 address in [ ]")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - the meaning of ":8080"; refused without API keys


def build_local_base_url(listen: str) -> str:
    """Where this machine reaches a service that listens there: ":8080" -> "http://127.0.0.1:8080"."""
    host, port = split_listen_address(listen)
    host = get_local_connect_host(host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def build_check_in_url(listen: str, public_url: str, token: str) -> str:
    """Where the job with this heartbeat token checks in."""
    return f"{public_url.rstrip('/') or build_local_base_url(listen)}/in/{token}"


def describe_missing_package_extra(extra: str) -> str:
    """What to do where a package of an extra is not installed."""
    return f"install Watchdog with the `{extra}` extra, for example with `uv tool install '.[{extra}]'` in a clone"


def parse_percentage(value: Any) -> float:
    """20.0 of "20%". Raises ValueError unless it is at least 0% and less than 100%."""
    if isinstance(value, str) and re.fullmatch(PERCENTAGE_PATTERN, value):
        return float(value.rstrip("% "))
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"a percentage needs its sign, such as {value:g}%")
    actual = f", found '{value}'" if isinstance(value, str) and len(value) <= 40 else ""
    raise ValueError(f"expected a percentage from 0% to 99.99%, such as 20%{actual}")
