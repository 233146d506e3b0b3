"""Reasons of Watchdog's own operations: notifications, remediations, and access to the operator pages."""

from __future__ import annotations

from functools import partial

from watchdog.domain.reasons.entry import ReasonCategory, ReasonEntry

_delivery_reason_entry = partial(ReasonEntry, ReasonCategory.DELIVERY)
_remediation_reason_entry = partial(ReasonEntry, ReasonCategory.REMEDIATION)
_access_reason_entry = partial(ReasonEntry, ReasonCategory.ACCESS)

DELIVERY_REMEDIATION_AND_ACCESS_REASON_ENTRIES = (
    _delivery_reason_entry(
        "delivery.invalid_request",
        "Request cannot be sent",
        "The URL, a header or an address is invalid, so the request cannot be sent.",
        "Fix the configuration of the receiver.",
    ),
    _delivery_reason_entry(
        "delivery.invalid_response",
        "Invalid response",
        "The service that answers is not the one that the receiver is for, such as Slack or PagerDuty.",
        "Check `api_url`.",
    ),
    _delivery_reason_entry(
        "delivery.denied",
        "Denied by the response",
        "The receiver answered 2xx with `ok: false`: nothing was delivered. Watchdog retries the notification.",
        "See the receiver's response in the detail.",
    ),
    _delivery_reason_entry(
        "delivery.unconfirmed",
        "Not confirmed",
        "The response does not show whether the message arrived. The receiver answered 2xx with an HTML page, "
        "`confirm` is false, Slack's response was cut off, or a mail server closed the connection after it had "
        "received the email. Watchdog sends two more copies, and then one an hour while the incident is open.",
        "Check that the URL belongs to the receiver and requires no login, or set `confirm`.",
    ),
    _delivery_reason_entry(
        "delivery.test",
        "Test alert",
        "A test message, sent by `watchdog test-alert` or through a page, the API or a tool.",
    ),
    _delivery_reason_entry(
        "apprise.invalid_url",
        "Unusable Apprise URL",
        "The library Apprise does not know the service, or the URL lacks something that the service needs.",
        "Compare the URL with the documentation of the service at appriseit.com.",
    ),
    _delivery_reason_entry(
        "apprise.not_accepted",
        "Not accepted",
        "The service that an Apprise URL names did not accept the message, or could not be reached. Watchdog retries "
        "the notification. If the message may have arrived, it sends two more copies, and then one an hour.",
        "See the detail, and check the token and the address in the URL.",
    ),
    _delivery_reason_entry(
        "slack.no_service",
        "Unknown Slack webhook",
        "Slack has no incoming webhook at this URL.",
        "Create a new one.",
    ),
    _delivery_reason_entry(
        "slack.*",
        "Refused by Slack",
        "Slack refused the message. The cause is Slack's own error code, such as `channel_not_found`.",
        "See the detail.",
    ),
    _delivery_reason_entry(
        "smtp.not_configured",
        "No mail server",
        "An email receiver is configured without a mail server.",
        "Add an `email` section.",
    ),
    _delivery_reason_entry(
        "smtp.auth_failed",
        "Mail login refused",
        "The mail server does not accept the login.",
        "Depending on the message, correct `username` and `password`, change `security`, or wait.",
    ),
    _delivery_reason_entry(
        "smtp.auth_unavailable",
        "Mail login not offered",
        "The mail server offers no supported login method on this connection.",
        "Check `security`, and whether the server requires a login.",
    ),
    _delivery_reason_entry(
        "smtp.starttls_missing",
        "STARTTLS not offered",
        "The mail server does not offer STARTTLS, so Watchdog does not send the message.",
        "Check `security` and the port.",
    ),
    _delivery_reason_entry(
        "smtp.recipients_refused",
        "Recipients refused",
        "The mail server refuses some or all recipients. All others receive the message once. Refused recipients are "
        "retried for an hour, or for three days if the refusal is temporary. An unknown address is not retried if "
        "another recipient received the message.",
        "Check the addresses of the refused recipients, and the quota and relay rules of the server.",
    ),
    _delivery_reason_entry(
        "smtp.protocol_error",
        "Invalid SMTP response",
        "The service that answers does not speak SMTP.",
        "Check host, port and `security`.",
    ),
    _delivery_reason_entry(
        "smtp.4xx",
        "Mail server refused temporarily",
        "The mail server temporarily refuses the message.",
        "See the server's response in the detail.",
    ),
    _delivery_reason_entry(
        "smtp.5xx",
        "Mail server refused",
        "The mail server refuses the message because of its sender, a policy, a quota, relaying or the login. It is "
        "retried for an hour, unless the refusal is about its content or length (5.6.x, 5.3.4, 5.2.3).",
        "See the server's response in the detail.",
    ),
    _remediation_reason_entry(
        "remediation.too_many_rows",
        "Too many rows",
        "The statement would have changed more than 100 rows and was rolled back.",
        "Narrow its WHERE clause.",
    ),
    _remediation_reason_entry(
        "remediation.parameter_truncated",
        "Parameter unusable",
        "The remediation needs a name or id that cannot be used. It is too long or contains a secret, so Watchdog does "
        "not store it exactly; or it is `.` or `..`, which would change the path of the URL.",
        "Rename the job, or use an id without a secret.",
    ),
    _access_reason_entry(
        "access.loopback_only",
        "Local access only",
        "No keys are configured, and the request might come from another machine.",
        "Add `access.api_keys`.",
    ),
    _access_reason_entry(
        "access.missing_key",
        "Key missing",
        "The request has no key.",
        "Sign in, or send `Authorization: Bearer ...`.",
    ),
    _access_reason_entry(
        "access.invalid_key",
        "Key unknown",
        "The key is not configured.",
        "Check the key.",
    ),
    _access_reason_entry(
        "access.session_expired",
        "Session expired",
        "The session has ended.",
        "Sign in again.",
    ),
    _access_reason_entry(
        "access.cross_origin_form",
        "Form from another site",
        "Another site sent the form.",
        "Open the page in Watchdog, and submit the form there.",
    ),
    _access_reason_entry(
        "access.too_many_attempts",
        "Too many attempts",
        "Ten wrong keys came from this address within a minute (429, with `Retry-After`).",
        "Wait, and find out where the requests come from.",
    ),
    _access_reason_entry(
        "access.operator_required",
        "Operators only",
        "The key has the role `reader`, which may only read.",
        "Use a key with the role `operator`.",
    ),
    _access_reason_entry(
        "access.csrf_token",
        "CSRF token missing",
        "A request with a session cookie that is to change something lacks the CSRF token of the session.",
        "Send `Authorization: Bearer ...` instead of the cookie, or reload the page that sent the request.",
    ),
)
