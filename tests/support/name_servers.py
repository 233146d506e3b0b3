"""Real name servers for the tests, on free ports of loopback: NSD, which is authoritative, and dnsmasq, which forwards
to it."""

from __future__ import annotations

import getpass
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.ports import find_free_port
from tests.support.third_party import listening_process

LONG_TEXT_COUNT = 12
ZONE = f"""
$ORIGIN acme.test.
$TTL 300
@       IN SOA ns1 hostmaster 2026113001 7200 3600 1209600 60
@       IN NS ns1
@       IN NS ns2
@       IN MX 10 Mail
@       IN MX 20 backup.acme.example.
@       IN TXT "v=spf1 " "-all"
@       IN CAA 0 issue "letsencrypt.org"
ns1     IN A 192.0.2.53
ns2     IN A 192.0.2.54
www     60 IN CNAME web
web     IN A 203.0.113.7
web     IN A 203.0.113.8
web     IN AAAA 2001:db8::7
dangling IN CNAME nowhere
ring    IN CNAME ring2
ring2   IN CNAME ring
_sip._tcp IN SRV 5 10 5060 sip
sip     IN A 203.0.113.9
long    IN TXT {" ".join(f'"{character * 250}"' for character in "abcdef")}
many    IN TXT "first"
{"".join(f'many IN TXT "{number:03} {"x" * 240}"{chr(10)}' for number in range(LONG_TEXT_COUNT))}
child   IN NS ns.child
ns.child IN A 192.0.2.55
"""
REVERSE_ZONE = """
$ORIGIN 113.0.203.in-addr.arpa.
$TTL 300
@       IN SOA ns1.acme.test. hostmaster.acme.test. 1 7200 3600 1209600 60
@       IN NS ns1.acme.test.
7       IN PTR Web.acme.test.
"""
NSD_CONFIG = """
server:
  ip-address: 127.0.0.1@{port}
  {tls}
  port: {port}
  username: ""
  chroot: ""
  zonesdir: "{folder}"
  database: ""
  pidfile: "{folder}/nsd.pid"
  xfrdfile: "{folder}/xfrd.state"
  zonelistfile: "{folder}/zone.list"
  xfrdir: "{folder}"
  logfile: "{folder}/nsd.log"
  server-count: 1
remote-control: {{ control-enable: no }}
zone: {{ name: acme.test, zonefile: acme.test.zone }}
zone: {{ name: 113.0.203.in-addr.arpa, zonefile: reverse.zone }}
zone: {{ name: unloaded.test, zonefile: missing.zone }}
"""


class NsdServer(NamedTuple):
    port: int
    tls_port: int
    """0: it was started without a certificate."""


def find_program(name: str) -> str | None:
    """The path of a server's executable."""
    return shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")


@contextmanager
def running_nsd(pem_file: str = "") -> Iterator[NsdServer]:
    """`pem_file`: certificate and key, for DNS over TLS."""
    program = find_program("nsd")
    assert program is not None
    port, tls_port = find_free_port(), find_free_port() if pem_file else 0
    folder = Path(tempfile.mkdtemp(prefix="watchdog-nsd-"))
    (folder / "acme.test.zone").write_text(ZONE)
    (folder / "reverse.zone").write_text(REVERSE_ZONE)
    tls = (
        f"ip-address: 127.0.0.1@{tls_port}\n  tls-port: {tls_port}\n"
        f'  tls-service-key: "{pem_file}"\n  tls-service-pem: "{pem_file}"'
    )
    text = NSD_CONFIG.format(folder=folder, port=port, tls=tls if pem_file else "")
    # NSD reads one option on each line
    text = text.replace("{ ", "\n  ").replace(", ", "\n  ").replace(" }", "")
    (folder / "nsd.conf").write_text(text)
    try:
        with listening_process([program, "-d", "-c", str(folder / "nsd.conf")], port):
            yield NsdServer(port, tls_port)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_dnsmasq(upstream_port: int) -> Iterator[int]:
    """Forwards queries below `acme.test` to that port, and refuses all others but its own. Yields its port."""
    program = find_program("dnsmasq")
    assert program is not None
    port = find_free_port()
    command = [
        program, "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", f"--port={port}",
        "--listen-address=127.0.0.1", "--bind-interfaces", f"--user={getpass.getuser()}", "--pid-file=",
        "--log-facility=-", f"--server=/acme.test/127.0.0.1#{upstream_port}", "--local=/own.test/",
        "--host-record=box.own.test,192.0.2.10,2001:db8::10,120", "--txt-record=own.test,hello world",
    ]  # fmt: skip
    with listening_process(command, port):
        yield port
