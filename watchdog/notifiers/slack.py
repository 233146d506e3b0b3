"""Slack: as an app with a bot token (one message per incident, edited in place, with buttons), or through an incoming
webhook."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar

from pydantic import model_validator

from watchdog.config_types import (
    MIN_UNGUESSABLE_SECRET_CHARS,
    MultiFieldValidationError,
    Secret,
    require_exactly_one_of,
)
from watchdog.config_values import describe_missing_package_extra
from watchdog.domain.model import IncidentEvent, Json
from watchdog.net.url import HttpUrl, validate_http_url
from watchdog.notifiers.base import (
    DELIVERY_CONFIG_ERROR_RETRY_DURATION_S,
    NotificationDeliveryError,
    NotificationDeliveryRequest,
    Notifier,
)
from watchdog.notifiers.blocks import build_slack_blocks, escape_mrkdwn, format_slack_fallback_text
from watchdog.notifiers.message import AlertMessage, compose_alert_message
from watchdog.notifiers.post import (
    NotificationResponse,
    build_delivery_error_from_status,
    post_notification_json_without_status_check,
)
from watchdog.notifiers.shared_message import is_merge_of_separate_messages
from watchdog.notifiers.slack_buttons import SlackButtonValue

if TYPE_CHECKING:
    from watchdog.net import NetworkAccess

SLACK_ADVICE_BY_ERROR_CODE = {
    "access_denied": "the app is not allowed to post",
    "account_inactive": "the bot token's app or user was removed",
    "action_prohibited": "an administrator forbids posting to this channel",
    "channel_is_archived": "unarchive the channel or choose another one",
    "channel_not_found": "no such channel, or a private channel without the app",
    "ekm_access_denied": "an administrator forbids posting",
    "invalid_auth": "Slack rejects the bot token",
    "invalid_token": "Slack rejects the webhook: create another",
    "is_archived": "unarchive the channel or choose another one",
    "missing_scope": "the app needs the chat:write scope",
    "no_active_hooks": "the webhook was disabled: create another",
    "no_permission": "the app is not allowed to post to this channel",
    "no_service": "the webhook was removed: create another",
    "no_team": "the workspace was deleted",
    "not_allowed_token_type": "expected a bot token (xoxb-...)",
    "not_authed": "the bot token is empty",
    "not_in_channel": "invite the app to the channel",
    "org_login_required": "the workspace is being moved",
    "restricted_action": "an administrator forbids posting to this channel",
    "token_expired": "create another bot token",
    "token_revoked": "create another bot token",
}
"""Errors that last until a person changes something, and what to change."""
SLACK_APP_TOKEN_PREFIX = "xapp-"
SLACK_UNRETRYABLE_CONTENT_ERRORS = frozenset(
    {"invalid_arguments", "invalid_blocks", "invalid_payload", "msg_too_long", "no_text"}
)
"""Slack rejects the message itself. Errors in neither list are retried."""
SLACK_LAYOUT_ERRORS = frozenset({"invalid_blocks", "invalid_blocks_format", "msg_blocks_too_long", "msg_too_long"})
"""Slack rejects the blocks. The message is sent again as text alone."""
SLACK_MISSING_MESSAGE_ERRORS = frozenset(
    {"cant_update_message", "edit_window_closed", "message_not_found", "thread_not_found"}
)
"""The message of the incident was deleted or can no longer be edited. A new one is posted."""


class SlackNotifier(Notifier):
    """Posts to Slack: either through an incoming `webhook`, or as an app with `bot_token` and `channel`."""

    kind: ClassVar[str] = "slack"
    example: ClassVar[str] = """
        receivers:
          oncall:
            slack: {bot_token: "${SLACK_BOT_TOKEN}", channel: "#oncall", signing_secret: "${SLACK_SIGNING_SECRET}"}
          core:
            slack: {bot_token: "${CORE_BOT_TOKEN}", channel: "#core", app_token: "${CORE_APP_TOKEN}"}
          chat: {slack: {webhook: "${SLACK_WEBHOOK_URL}"}}
    """

    webhook: Secret | None = None
    """The URL of an incoming webhook. Its messages have no buttons and cannot be edited, so a recovery is posted as
    a separate message, and acknowledgements and silences are not shown. Use `bot_token` for buttons and edited
    messages."""
    bot_token: Secret | None = None
    """The bot token of an app with the `chat:write` scope. Requires `channel`. When the cause of an incident changes, a
    reminder is due or the incident resolves, its message is edited and a reply is posted in its thread. The reply about
    a recovery is also posted to the channel."""
    channel: str = ""
    """The name or id of a channel that the app is a member of."""
    signing_secret: Secret | None = None
    """The signing secret of the app, from its settings under Basic Information. With it, messages about open incidents
    have buttons: Acknowledge, Silence 1 h, 4 h or until resolved, and Run now. Requires `bot_token`, and a Request URL
    in the settings of the app that leads to `/slack/interactivity` of Watchdog (docs/acts.md). Everyone in the channel
    can use the buttons."""
    app_token: Secret | None = None
    """An app-level token (`xapp-...`) with the scope `connections:write`, for buttons in Socket Mode: Watchdog opens a
    connection to Slack and receives clicks over it, so Slack need not reach Watchdog. The buttons are the same as with
    `signing_secret`, which is then not needed. Requires `bot_token`, Socket Mode in the settings of the app
    (docs/acts.md), and the extra `slack`."""
    api_url: HttpUrl = "https://slack.com/api/"
    """The base URL of Slack's Web API."""

    @model_validator(mode="after")
    def _require_webhook_or_bot(self) -> SlackNotifier:
        require_exactly_one_of(self, ("webhook", "bot_token"))
        if self.webhook is not None:
            self._require_webhook_url(self.webhook.get_secret_value())
        if bool(self.channel) != (self.bot_token is not None):
            raise ValueError("bot_token and channel must be set together: set both, or only webhook")
        if errors := list(self._list_click_secret_problems()):
            raise MultiFieldValidationError(errors)
        return self

    @staticmethod
    def _require_webhook_url(url: str) -> None:
        try:
            validate_http_url(url)
        except ValueError as error:
            raise MultiFieldValidationError([(("webhook",), str(error))]) from None

    def _list_click_secret_problems(self) -> Iterator[tuple[tuple[str], str]]:
        for name, secret in (("signing_secret", self.signing_secret), ("app_token", self.app_token)):
            if secret is not None and self.bot_token is None:
                yield (
                    (name,),
                    f"{name} requires bot_token, because messages of an incoming webhook have no buttons that "
                    f"Watchdog can react to: set bot_token and channel instead of webhook, or remove {name}",
                )
        if self.bot_token is None:
            return
        signing_secret = self.signing_secret
        if signing_secret is not None and len(signing_secret.get_secret_value()) < MIN_UNGUESSABLE_SECRET_CHARS:
            yield (
                ("signing_secret",),
                f"expected at least {MIN_UNGUESSABLE_SECRET_CHARS} characters: copy the signing secret from the app's "
                "settings, under Basic Information",
            )
        if self.app_token is None:
            return
        if not self.app_token.get_secret_value().startswith(SLACK_APP_TOKEN_PREFIX):
            yield (
                ("app_token",),
                f"expected a token that starts with {SLACK_APP_TOKEN_PREFIX}: generate one in the app's settings, "
                "under Basic Information, App-Level Tokens, with the scope connections:write",
            )
        if find_spec("websockets") is None:
            yield (
                ("app_token",),
                f"app_token needs the package websockets: {describe_missing_package_extra('slack')}",
            )

    @property
    def recipient(self) -> str:
        return self.channel or "incoming webhook"

    @property
    def edits_messages(self) -> bool:
        return self.bot_token is not None

    @property
    def receives_clicks(self) -> bool:
        """Whether Slack can send clicks on buttons, as signed requests or over a socket."""
        return self.signing_secret is not None or self.app_token is not None

    async def send(self, request: NotificationDeliveryRequest) -> dict[str, Json]:
        """The receipt of a bot's message contains `channel` and `ts`, and the `team` if Slack states it; that of a
        webhook is empty, and so is that of a merged message, because no later message may replace it."""
        context, message = request.alert_context, compose_alert_message(request.alert_context)
        body = self._build_slack_message_body(request, message)
        root = {key: request.previous_receipt.get(key, "") for key in ("channel", "ts")}
        if self.webhook is not None or not all(root.values()):
            return await self._post_slack_message(request, body)
        try:
            root_body = self._build_slack_message_body(request, replace(message, change_text=""))
            await self._call_slack_api(request.network, "chat.update", root_body | root, now=context.now)
            is_over = request.notification.event is IncidentEvent.RESOLVED
            is_news = is_over or context.raises_severity or request.notification.event is IncidentEvent.OPENED
            reply = {
                "channel": root["channel"],
                "thread_ts": root["ts"],
                "reply_broadcast": is_news,
                "text": body["text"],
            }
            await self._call_slack_api(request.network, "chat.postMessage", reply, now=context.now)
        except NotificationDeliveryError as error:
            if error.reason.removeprefix("slack.") not in SLACK_MISSING_MESSAGE_ERRORS:
                raise
            return await self._post_slack_message(request, body)
        return dict(request.previous_receipt)

    def _build_slack_message_body(self, request: NotificationDeliveryRequest, message: AlertMessage) -> dict[str, Json]:
        """Only a message that a later one edits has buttons: otherwise it would go on to offer what was done."""
        context = request.alert_context
        is_interactive = self.receives_clicks and not context.is_test and not is_merge_of_separate_messages(context)
        reference = SlackButtonValue(request.notification.incident, context.now) if is_interactive else None
        return {"text": format_slack_fallback_text(message), "blocks": build_slack_blocks(message, reference)}

    async def show_text_to_person(
        self, network: NetworkAccess, channel_id: str, user_id: str, text: str, *, now: int
    ) -> None:
        """Show a text to one person, below the last message of a channel. Raises NotificationDeliveryError. `now`: in
        epoch ms."""
        body: dict[str, Json] = {"channel": channel_id, "user": user_id, "text": escape_mrkdwn(text)}
        await self._call_slack_api(network, "chat.postEphemeral", body, now=now)

    async def _post_slack_message(
        self, request: NotificationDeliveryRequest, body: Mapping[str, Json]
    ) -> dict[str, Json]:
        network, now = request.network, request.alert_context.now
        options = {"unfurl_links": False, "unfurl_media": False}
        if self.webhook is not None:
            await self._call_slack_api(network, "", {**body, **options}, now=now)
            return {}
        message = {"channel": self.channel, **body, **options}
        response = await self._call_slack_api(network, "chat.postMessage", message, now=now)
        if is_merge_of_separate_messages(request.alert_context):
            return {}
        posted = response.get("message")
        team = posted.get("team") if isinstance(posted, dict) else None
        receipt = {"channel": response.get("channel", self.channel), "ts": response.get("ts", "")}
        return receipt | ({"team": team} if team else {})

    async def _call_slack_api(
        self, network: NetworkAccess, method: str, body: Mapping[str, Json], *, now: int
    ) -> dict[str, Json]:
        """Calls a method of the Web API, or posts to the webhook. Returns the response."""
        url, headers = f"{self.api_url.rstrip('/')}/{method}", {}
        if self.webhook is not None:
            url = self.webhook.get_secret_value()
        elif self.bot_token is not None:
            headers = {"authorization": f"Bearer {self.bot_token.get_secret_value()}"}
        response = await post_notification_json_without_status_check(
            network, url, json.dumps(body).encode(), headers, now=now
        )
        try:
            return require_slack_success(response, is_webhook=self.webhook is not None)
        except NotificationDeliveryError as error:
            if error.reason.removeprefix("slack.") in SLACK_LAYOUT_ERRORS and "blocks" in body:
                text_alone = {key: value for key, value in body.items() if key != "blocks"}
                return await self._call_slack_api(network, method, text_alone, now=now)
            raise


def require_slack_success(
    response: NotificationResponse,
    advice_by_error_code: Mapping[str, str] = SLACK_ADVICE_BY_ERROR_CODE,
    *,
    is_webhook: bool = False,
) -> dict[str, Json]:
    """The body of a response that confirms what was asked. Raises NotificationDeliveryError for any other response."""
    status_error = build_delivery_error_from_status(response)
    if is_webhook and status_error is None and response.body_text.strip() == "ok":
        return {}
    body = response.json_or_text_body
    if isinstance(body, str):
        body = {"error": response.body_text.strip()}  # webhooks respond with the bare error
    elif not isinstance(body, dict):
        body = {}
    if status_error is None and body.get("ok") is True:
        return body
    if status_error is None and not response.is_complete:
        message = f"HTTP {response.status}, but Slack's response is incomplete"
        raise NotificationDeliveryError("delivery.unconfirmed", message, maybe_delivered=True)
    error = str(body.get("error", ""))
    if not re.fullmatch(r"[a-z][a-z_]{2,60}", error):
        error = "no_service" if is_webhook and response.status in (403, 404, 410) else ""
    if error:
        advice = advice_by_error_code.get(error, "")
        raise _build_delivery_error_from_slack(error, advice, status_error, response.retry_after_s)
    if status_error is None:
        raise NotificationDeliveryError("delivery.invalid_response", "the response does not come from Slack")
    # Slack gives its reason with every final error: this one is of a proxy, and may be fixed.
    status_error.retry_for_s = max(status_error.retry_for_s, DELIVERY_CONFIG_ERROR_RETRY_DURATION_S)
    raise status_error


def _build_delivery_error_from_slack(
    error: str, advice: str, status_error: NotificationDeliveryError | None, retry_after_s: float | None
) -> NotificationDeliveryError:
    """`error`: Slack's own code, such as `channel_not_found`. `advice`: empty: the error may pass by itself."""
    retry_for_s = (
        math.inf if status_error is None else max(status_error.retry_for_s, DELIVERY_CONFIG_ERROR_RETRY_DURATION_S)
    )
    if error in SLACK_UNRETRYABLE_CONTENT_ERRORS:
        retry_for_s, advice = 0, "Slack rejects the message"
    elif advice:
        retry_for_s = DELIVERY_CONFIG_ERROR_RETRY_DURATION_S
    message = f"Slack error {error}{advice and f': {advice}'}"
    return NotificationDeliveryError(f"slack.{error}", message, retry_for_s=retry_for_s, retry_after_s=retry_after_s)
