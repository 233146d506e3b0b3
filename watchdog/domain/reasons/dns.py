"""Reasons of the `dns` probe: errors and unexpected answers of a name server, and missing responses."""

from __future__ import annotations

from functools import partial

from watchdog.domain.reasons.entry import ReasonCategory, ReasonEntry

_failure_reason_entry = partial(ReasonEntry, ReasonCategory.FAILURE)

DNS_REASON_ENTRIES = (
    _failure_reason_entry(
        "dns.nxdomain",
        "Name does not exist",
        "The name server responds that the name, or the name that its CNAME record leads to, has no record of any "
        "type (NXDOMAIN).",
        "Check the spelling of the name, whether the record was deleted from its zone, and whether the domain has "
        "expired.",
        sentence="{name} does not exist (NXDOMAIN)",
    ),
    _failure_reason_entry(
        "dns.no_data",
        "No record of this type",
        "The name exists, but has no record of the queried type.",
        "Add the record to the zone, or correct `type`.",
        sentence="{name} has no {type} record",
    ),
    _failure_reason_entry(
        "dns.unexpected_answer",
        "Unexpected DNS answer",
        "The answers are not those that `contains` or `equals` requires. The message lists the missing and the "
        "unexpected ones.",
        "Find out who changed the zone. A name server that caches returns the former records until their TTL has "
        "passed. If the change was intended, correct `contains` or `equals`.",
        sentence="{question} {observed}; {difference}",
    ),
    _failure_reason_entry(
        "dns.servfail",
        "Name server failure",
        "The name server responds that it cannot answer the query (SERVFAIL). The message contains the cause, if the "
        "server states it.",
        "See the log of the name server. Frequent causes are a zone that is not loaded or has expired on a secondary "
        "server, authoritative servers that do not respond, and invalid DNSSEC signatures.",
        sentence="{server} failed to answer (SERVFAIL)",
    ),
    _failure_reason_entry(
        "dns.refused",
        "Query refused",
        "The name server refuses to answer this query from Watchdog's address (REFUSED).",
        "Check whether the server serves the zone, and whether its access list permits queries from Watchdog's "
        "address.",
        sentence="{server} refuses the query (REFUSED)",
    ),
    _failure_reason_entry(
        "dns.error_response",
        "Name server error",
        "The name server responds with another error code, which the message shows, such as NOTIMP or FORMERR.",
        "See the log of the name server, and check whether a firewall or proxy alters DNS messages.",
        sentence="{server} responds with {rcode}",
    ),
    _failure_reason_entry(
        "dns.referral",
        "Referral instead of an answer",
        "The name server is not authoritative for the name and does not resolve it: its response only refers to other "
        "name servers.",
        "Query one of the servers in the message, or permit recursive queries from Watchdog's address on this server.",
        sentence="{server} has no answer, but refers to {servers}",
    ),
    _failure_reason_entry(
        "dns.cname_loop",
        "CNAME records form a loop",
        "The CNAME records in the response form a loop, or a chain of more than 16 links. No program can resolve the "
        "name.",
        "Correct the CNAME records of the zone. The excerpt of the response shows them.",
        sentence="the CNAME records form a loop or a chain of more than 16 links",
    ),
    _failure_reason_entry(
        "dns.truncated",
        "Response truncated",
        "The server truncated its response, because it is too long for UDP, and the same query over TCP failed. "
        "Clients cannot read the whole response.",
        "Permit TCP on the same port, in the server and in the firewalls in front of it.",
        sentence="the response over UDP is truncated, and the query over TCP failed: {problem}",
    ),
    _failure_reason_entry(
        "dns.malformed_response",
        "Malformed DNS response",
        "The response is not a valid DNS message. The evidence shows its first bytes.",
        "Check which service responds at that address and port, and whether a firewall or proxy alters DNS messages.",
        sentence="the response is malformed: {problem}",
    ),
    _failure_reason_entry(
        "timeout.dns_query",
        "Timed out: DNS query",
        "The name server in `server` did not respond to the query within `timeout`. Over UDP, the query was "
        "repeated every 2 s.",
        "Check whether the name server is running, and whether a firewall drops its packets. If the evidence shows "
        "ignored responses, they had the id or the question of another query.",
    ),
)
