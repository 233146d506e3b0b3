"""TLS as configurations write it, and the contexts made from it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import StrictBool, model_validator

from watchdog.fields import FieldsError, LocalFile, Model
from watchdog.wire.faults import Fault


class Tls(Model):
    """How a server's certificate is judged, and which one we show."""

    verify: StrictBool = True
    """False: take any certificate."""
    ca_file: LocalFile = ""
    """PEM file of the authorities to trust instead of the system's."""
    cert_file: LocalFile = ""
    """PEM file of our own certificate, for servers that ask for one."""
    key_file: LocalFile = ""
    """PEM file of its key; default: inside `cert_file`."""
    server_name: str = ""
    """The name to ask for and to expect in the certificate; default: the URL's host."""

    @model_validator(mode="after")
    def _consistent(self) -> Tls:
        if self.key_file and not self.cert_file:
            raise FieldsError([(("key_file",), "expected a cert_file beside it")])
        if self.ca_file and not self.verify:
            raise FieldsError([(("ca_file",), "names whom to trust, while verify: false trusts everybody")])
        return self


def make_context(options: Tls) -> ssl.SSLContext:
    """Takes about 15 ms: make one per set of options. Raises Fault (`ours`) when a file cannot be used."""
    with _file("ca_file", options.ca_file):
        context = ssl.create_default_context(cafile=options.ca_file or None)
    if not options.ca_file and not _has_authorities(context):
        import certifi

        context.load_verify_locations(certifi.where())
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # refuses the authorities of many companies
    context.set_alpn_protocols(["http/1.1"])
    if not options.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options.cert_file:
        with _file("cert_file", options.cert_file):
            context.load_cert_chain(options.cert_file, options.key_file or None, password=_locked)
    return context


def _locked() -> str:
    """Called for a key that needs a password: OpenSSL would ask for it on the terminal."""
    raise ValueError("its key is locked with a password")


@contextmanager
def _file(option: str, path: str) -> Iterator[None]:
    try:
        yield
        return
    except ssl.SSLError:
        why = "it does not hold what it should"
    except OSError as error:
        why = (error.strerror or "it cannot be read").lower()
    except ValueError as error:
        why = str(error)
    raise Fault("tls.invalid_file", f"cannot use {option} {path}: {why}", "tls", ours=True)


def _has_authorities(context: ssl.SSLContext) -> bool:
    """A directory of authorities is read as needed, so that its contents do not show in the context."""
    directory = ssl.get_default_verify_paths().capath
    return bool(context.cert_store_stats()["x509_ca"] or (directory and any(Path(directory).iterdir())))
