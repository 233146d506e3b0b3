"""Reasons of the `dns` probe: what a name server responds, or that it does not."""

from __future__ import annotations

from functools import partial

from watchdog.domain.reasons.entry import ReasonCategory, ReasonEntry

_failure_reason_entry = partial(ReasonEntry, ReasonCategory.FAILURE)

DNS_REASON_ENTRIES = (
    _failure_reason_entry(
        "dns.nxdomain",
        "Name does not exist",
        "The name server responds that there are no records of any type at the name, or at the name that a CNAME "
        "record leads to (NXDOMAIN).",
        "Check the spelling of the name, whether the record was deleted from its zone, and whether the domain has "
        "expired.",
        sentence="{name} does not exist (NXDOMAIN)",
    ),
    _failure_reason_entry(
        "dns.no_data",
        "No record of the type",
        "The name exists, but has no record of the queried type.",
        "Add the record to the zone, or correct `type`.",
        sentence="{name} has no {type} record",
    ),
    _failure_reason_entry(
        "dns.unexpected_answer",
        "Unexpected DNS answer",
        "The records are not those that `contains` or `equals` requires. The message names what is missing or not "
        "expected.",
        "Find out who changed the zone. If the name server caches, the change of the zone may be visible only when "
        "the TTL has passed. If the change was intended, correct the expected answers.",
        sentence="{question} is {observed}; {difference}",
    ),
    _failure_reason_entry(
        "dns.servfail",
        "Name server failed",
        "The name server responds that it cannot answer the query (SERVFAIL). The message contains the cause, if the "
        "server states it.",
        "See the log of the name server. Frequent causes are a zone that is not loaded or has expired on a secondary "
        "server, authoritative servers that do not respond, and DNSSEC signatures that are not valid.",
        sentence="{server} failed to answer (SERVFAIL)",
    ),
    _failure_reason_entry(
        "dns.refused",
        "Query refused",
        "The name server refuses to answer this query from Watchdog's address (REFUSED).",
        "Check whether the server has the zone, and whether its access list permits Watchdog's address to query it.",
        sentence="{server} refuses the query (REFUSED)",
    ),
    _failure_reason_entry(
        "dns.error_response",
        "Error of the name server",
        "The name server responds with an error that has no reason of its own. The message shows its response code, "
        "such as NOTIMP or FORMERR.",
        "See the log of the name server, and check whether a firewall or proxy changes DNS messages.",
        sentence="{server} responds with {rcode}",
    ),
    _failure_reason_entry(
        "dns.referral",
        "Referral instead of an answer",
        "The name server is not authoritative for the name, and does not resolve it either: it only names other "
        "servers.",
        "Query one of the servers in the message, or let the server resolve names for Watchdog's address (recursion).",
        sentence="{server} has no answer, but refers to {servers}",
    ),
    _failure_reason_entry(
        "dns.cname_loop",
        "CNAME records form a loop",
        "The CNAME records in the response lead to each other, or their chain has more than 16 links. No program can "
        "resolve the name.",
        "Correct the CNAME records of the zone. The excerpt of the response shows them.",
        sentence="the CNAME records form a loop or a chain of more than 16 links",
    ),
    _failure_reason_entry(
        "dns.truncated",
        "Response truncated",
        "The response is too long for UDP, so the server truncated it, and the same query over TCP failed. Clients "
        "cannot read the whole response.",
        "Let the server, and the firewalls in front of it, accept TCP at the same port.",
        sentence="the response over UDP is truncated, and the query over TCP failed: {problem}",
    ),
    _failure_reason_entry(
        "dns.malformed_response",
        "Malformed DNS response",
        "The response violates the format of DNS messages. The evidence shows its first bytes.",
        "Check which service responds at that address and port, and whether a firewall or proxy changes DNS messages.",
        sentence="the response is malformed: {problem}",
    ),
    _failure_reason_entry(
        "timeout.dns_query",
        "Timed out: DNS query",
        "The name server in `server` did not respond to the query within `timeout`. Over UDP, the query was sent "
        "again every 2 s.",
        "Check whether the name server is running, and whether a firewall drops its packets. If the evidence shows "
        "ignored responses, they had the id or the question of another query.",
    ),
)
