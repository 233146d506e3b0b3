"""Reasons why there is no connection to the target, or no answer in time."""

from __future__ import annotations

from functools import partial

from watchdog.domain.reasons.entry import ReasonCategory, ReasonEntry

_failure_reason_entry = partial(ReasonEntry, ReasonCategory.FAILURE)

_NO_CONNECTION_REASON_ENTRIES = (
    _failure_reason_entry(
        "dns.not_found",
        "Host name not found",
        "The host name does not exist.",
        "Check the spelling of the name, and the zone that should contain it.",
        sentence="host name not found",
    ),
    _failure_reason_entry(
        "dns.no_address",
        "Host name without address",
        "The host name exists, but has no A or AAAA record.",
        "Add an address record to the zone.",
        sentence="host name has no address",
    ),
    _failure_reason_entry(
        "dns.no_response",
        "No response from the name server",
        "The name servers do not respond, or respond with a temporary failure.",
        "Check the name servers of the zone, and the resolver of the machine that Watchdog runs on.",
        sentence="no response from the name server",
    ),
    _failure_reason_entry(
        "dns.failed",
        "Name lookup failed",
        "The host name cannot be resolved. The message shows the resolver's error.",
        "Check the resolver of the machine that Watchdog runs on.",
        sentence="host name lookup failed ({problem})",
    ),
    _failure_reason_entry(
        "connection.refused",
        "Connection refused",
        "No process accepts connections at that address and port.",
        "Check whether the service is running and which address it listens on.",
    ),
    _failure_reason_entry(
        "connection.unreachable",
        "Host unreachable",
        "There is no route to the address.",
        "Check the network, firewalls and VPN between Watchdog and the target.",
    ),
    _failure_reason_entry(
        "connection.failed",
        "Connection failed",
        "The connection could not be established. The cause is unknown.",
        "Try to connect manually from the machine that Watchdog runs on.",
    ),
    _failure_reason_entry(
        "connection.reset",
        "Connection reset",
        "The server, or a firewall in front of it, reset the connection before the response was complete.",
        "Look for crashes of the service, and for firewalls that drop long or idle connections.",
    ),
    _failure_reason_entry(
        "connection.closed",
        "Connection closed",
        "The server closed the connection before it sent a response.",
        "Look for crashes and restarts of the service, and for time limits of proxies.",
    ),
    _failure_reason_entry(
        "connection.lost",
        "Connection lost",
        "The connection broke before the response was complete.",
        "Look for crashes and restarts of the service, and for time limits of proxies.",
    ),
    _failure_reason_entry(
        "connection.address_blocked",
        "Address blocked",
        "The host name resolves to an address that must not be probed.",
        "Link-local and metadata addresses are always blocked; for private addresses see `allow_private_addresses`.",
    ),
)

_TIMEOUT_REASON_ENTRIES = (
    _failure_reason_entry(
        "timeout.dns",
        "Timed out: name lookup",
        "The host name was not resolved within `timeout`.",
        "Check the name servers of the zone, and the resolver of the machine that Watchdog runs on.",
    ),
    _failure_reason_entry(
        "timeout.connect",
        "Timed out: connecting",
        "No address of the host accepted or refused the connection within `timeout`.",
        "Check whether the host is up, and whether a firewall drops the packets.",
    ),
    _failure_reason_entry(
        "timeout.tls",
        "Timed out: TLS",
        "The server accepted the connection, but did not complete the TLS handshake within `timeout`.",
        "Check the load of the server, and whether the port speaks TLS.",
    ),
    _failure_reason_entry(
        "timeout.starttls",
        "Timed out: STARTTLS",
        "The server accepted the connection, but did not accept STARTTLS within `timeout`. The evidence shows what it "
        "sent.",
        "Check the load of the server, and whether `starttls` names the protocol of this port. If the port uses TLS "
        "from the start, as ports 465 and 993 do, remove `starttls`.",
    ),
    _failure_reason_entry(
        "timeout.first_byte",
        "Timed out: no response",
        "The server accepted the connection or the request, but sent no byte of a response within `timeout`.",
        "Check the load of the service and what it is waiting for. Raise the probe's `timeout` only if slow responses "
        "are normal.",
    ),
    _failure_reason_entry(
        "timeout.body",
        "Timed out: reading the response",
        "The response began, but was not complete within `timeout`. The evidence shows the status and how many bytes "
        "arrived.",
        "Check what the service does while it sends the response, and the network between Watchdog and the target.",
    ),
    _failure_reason_entry(
        "timeout.text",
        "Timed out: expected text",
        "The server sent data within `timeout`, but not the text of `contains` or, without `contains`, not a complete "
        "first line. The evidence shows what arrived.",
        "Check what the service sends instead. If its response is right, correct `send` or `contains`.",
    ),
    _failure_reason_entry(
        "timeout.check",
        "Timed out: health check",
        "The server speaks HTTP/2, but did not complete the gRPC health check within `timeout`.",
        "Check the load of the service, and what its health check is waiting for.",
    ),
    _failure_reason_entry(
        "timeout.upgrade",
        "Timed out: opening the WebSocket",
        "The server accepted the connection, but did not complete the WebSocket handshake within `timeout`.",
        "Check the load of the service, and whether a proxy in front of it passes on WebSocket connections.",
    ),
    _failure_reason_entry(
        "timeout.ping",
        "Timed out: no response to a ping",
        "The WebSocket was opened, but the server did not respond to a ping within `timeout`.",
        "Check whether the application behind the WebSocket is busy or blocked.",
    ),
    _failure_reason_entry(
        "timeout.message",
        "Timed out: no expected message",
        "The WebSocket was opened, but no message that contains the text in `contains` arrived within `timeout`. The "
        "evidence shows how many messages arrived, and the excerpt their beginning.",
        "If no message arrived, check the application that sends them. If others arrived, check `send` and `contains`.",
    ),
    _failure_reason_entry(
        "timeout.spawn",
        "Timed out: starting the server",
        "The `command`, of an MCP server or of a check, did not start within `timeout`.",
        "Run the command manually.",
    ),
    _failure_reason_entry(
        "timeout.negotiate",
        "Timed out: negotiating MCP",
        "The MCP server did not answer the first requests of a session within `timeout`.",
        "See the server's log. If the evidence shows a line that is not MCP, check whether `command` starts a server "
        "with the stdio transport.",
    ),
    _failure_reason_entry(
        "timeout.list",
        "Timed out: listing tools",
        "The MCP server did not answer `tools/list` within `timeout`.",
        "See the server's log.",
    ),
    _failure_reason_entry(
        "timeout.call",
        "Timed out: calling the tool",
        "The called tool did not return within `timeout`.",
        "Check what the tool is waiting for. Raise the probe's `timeout` only if it is normally that slow.",
    ),
    _failure_reason_entry(
        "timeout.read",
        "Timed out: reading",
        "The MCP resource, the queue or the jobs were not read within `timeout`.",
        "Check the load of the server or database.",
    ),
    _failure_reason_entry(
        "timeout.login",
        "Timed out: database login",
        "The server accepted the connection, but did not complete the login within `timeout`, at most 3 s.",
        "Check the load of the database server, and whether a database listens on this port.",
        sentence="the database did not complete the login {problem}",
    ),
    _failure_reason_entry(
        "timeout.query",
        "Timed out: query",
        "The database query was not answered within `timeout`.",
        "Check the load and the locks of the database.",
    ),
    _failure_reason_entry(
        "timeout.command",
        "Timed out: command",
        "The command did not end within `timeout`. It was killed with all processes that it had started. The evidence "
        "shows what it had written.",
        "Find out what the command waits for. Raise the probe's `timeout` only if it is normally that slow.",
    ),
    _failure_reason_entry(
        "timeout.enqueue",
        "Timed out: sending the canary job",
        "The queue did not accept the canary job within `timeout`.",
        "Check the load of the broker.",
    ),
    _failure_reason_entry(
        "timeout.exceeded",
        "Timed out",
        "The run took longer than `timeout`.",
        "Check the load of the target. Raise the probe's `timeout` only if slow responses are normal.",
    ),
)

CONNECTION_REASON_ENTRIES = (*_NO_CONNECTION_REASON_ENTRIES, *_TIMEOUT_REASON_ENTRIES)
