"""The client that the conformance suite of MCP starts for each scenario.

It loads nothing of Watchdog, so that it starts fast: it hands the scenario to the process of the tests, which runs the
probes (tests/support/mcp_conformance.py).

usage: mcp_conformance_client.py SOCKET URL, with the variables MCP_CONFORMANCE_SCENARIO and MCP_CONFORMANCE_CONTEXT
that the suite sets. Prints the results of the probes. Exits 0 if each comes to the verdict that the scenario calls for.
"""

from __future__ import annotations

import json
import os
import socket
import sys


def main(socket_path: str, url: str) -> int:
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
    request = {"url": url, "scenario": os.environ["MCP_CONFORMANCE_SCENARIO"], "context": context}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(socket_path)
        connection.sendall(json.dumps(request).encode() + b"\n")
        reply = connection.makefile().read()
    print(reply)
    return 0 if json.loads(reply)["is_as_expected"] else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
