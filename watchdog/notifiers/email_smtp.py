"""The SMTP client: a client of aiosmtplib that notes when the email itself is sent."""

from __future__ import annotations

from typing import Any

import aiosmtplib


class SendTrackingSmtpClient(aiosmtplib.SMTP):
    """A connection that is lost once the email itself is being sent does not show what became of it."""

    is_email_sent = False
    """The text of the email has been written, at least in part."""

    async def execute_command(self, *args: bytes, **options: Any) -> aiosmtplib.SMTPResponse:
        """Raises SMTPResponseException if the server ends the session: the next command would report a lost
        connection, without the reason."""
        response = await super().execute_command(*args, **options)
        if response.code == aiosmtplib.SMTPStatus.domain_unavailable:
            raise aiosmtplib.SMTPResponseException(response.code, response.message)
        return response

    async def data(self, message: str | bytes, /, **options: Any) -> aiosmtplib.SMTPResponse:
        """Sends the command DATA and the text."""
        if (protocol := self.protocol) is not None:
            write = protocol.write

            def note_and_write(data: bytes) -> None:
                self.is_email_sent = data != b"DATA\r\n"
                write(data)

            protocol.write = note_and_write  # type: ignore[method-assign] # aiosmtplib has no hook between DATA and the text
        return await super().data(message, **options)
