"""Reasons of the `icmp` probe: missing replies, and errors that routers and hosts report."""

from __future__ import annotations

from functools import partial

from watchdog.domain.reasons.entry import ReasonCategory, ReasonEntry

_failure_reason_entry = partial(ReasonEntry, ReasonCategory.FAILURE)
_error_reason_entry = partial(ReasonEntry, ReasonCategory.ERROR)

ICMP_REASON_ENTRIES = (
    _failure_reason_entry(
        "icmp.no_reply",
        "No reply to ping",
        "The host replied to none of the echo requests, and no router reported an error.",
        "Check whether the host is running, and whether a firewall drops ICMP echo requests or replies.",
        sentence="no reply to {requests}",
    ),
    _failure_reason_entry(
        "icmp.loss",
        "Packet loss",
        "More echo requests than `max_loss` permits got no reply. The evidence lists each request.",
        "Check the links on the path to the host for errors and overload.",
        sentence="{lost} of {sent} packets lost ({loss}), limit {limit}",
    ),
    _failure_reason_entry(
        "icmp.unreachable",
        "Ping: host unreachable",
        "A router, or this machine itself, reports that the host cannot be reached. In Watchdog's own network, this "
        "means that no device responds at the address.",
        "Check whether the host is running, and the routes at the router that the message names.",
    ),
    _failure_reason_entry(
        "icmp.ttl_exceeded",
        "Routing loop",
        "The echo requests passed 64 routers without reaching the host, so the last router discarded them.",
        "Check the routes at the router that the message names: two routers may send the packets to each other.",
    ),
    _failure_reason_entry(
        "icmp.prohibited",
        "Ping prohibited",
        "A firewall on the path to the host, or on the host itself, rejects the echo requests and reports this.",
        "Permit ICMP echo requests from Watchdog's address in the firewall that the message names.",
    ),
    _failure_reason_entry(
        "icmp.packet_too_big",
        "Packet too big",
        "The echo requests are larger than a link on the path to the host can transmit. The message shows the maximum, "
        "if it is reported.",
        "Reduce `size`. If packets of this size must reach the host, check the MTU of the links on the path.",
    ),
    _failure_reason_entry(
        "timeout.echo",
        "Timed out: ping",
        "`timeout` passed while the run waited for replies.",
        "Check the load of the machine that Watchdog runs on.",
    ),
    _error_reason_entry(
        "watchdog.ping_not_permitted",
        "Ping not permitted",
        "The operating system does not permit Watchdog's user to send echo requests.",
        "To permit them for all groups, run `sysctl -w net.ipv4.ping_group_range='0 2147483647'`, and store the "
        "setting in `/etc/sysctl.d`. It also applies to IPv6. For a container, use the option `--sysctl "
        "net.ipv4.ping_group_range='0 2147483647'`.",
        sentence="no verdict: the operating system does not permit Watchdog to send echo requests: {problem}",
    ),
    _error_reason_entry(
        "watchdog.ping_not_sent",
        "Ping not sent",
        "The operating system of Watchdog's machine refuses to send the echo request. The message shows its error.",
        "Check the firewall rules for outgoing packets on that machine, and whether the address belongs to a single "
        "host: broadcast addresses cannot be probed.",
        sentence="no verdict: the operating system refuses to send the echo request: {problem}",
    ),
)
