"""How a message reaches a customer: the port, and its implementations.

E-mail goes by SMTP, webhooks by HTTP; SMS and push are ports for the provider of your choice. Without a provider (the
embedded stack) messages land as files in the outbox folder. A repeat has the same Message-ID (`Idempotency-Key` of a
webhook), so that who gets it can tell.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import os
import ssl
import time
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import aiohttp
import aiosmtplib
import orjson
from aiohttp.abc import ResolveResult

from processors.notification.templates import Rendered
from processors.notification.webhooks import named
from schemas.notification import SendNotice

TIMEOUT = 10.0


class NotDelivered(Exception):
    """Nothing came of it; worth another try, with the same Message-ID."""


class Refused(Exception):
    """It will never be taken: no such address, say."""


@dataclass(frozen=True)
class Letter:
    """A message on its way: `to` is what the channel needs to reach the customer."""

    message_id: str
    to: str
    notice: SendNotice
    rendered: Rendered


class Channel(Protocol):
    async def send(self, letter: Letter) -> None:
        """Hand the message over. Raises NotDelivered or Refused."""
        ...


def email_of(letter: Letter, sender: str) -> EmailMessage:
    """Text and HTML, with the Message-ID that a repeat has too."""
    message = EmailMessage(policy=SMTP)
    message["Message-ID"] = letter.message_id
    message["Date"] = format_datetime(letter.notice.occurred_at)
    message["From"] = sender
    message["To"] = letter.to
    message["Subject"] = letter.rendered.subject
    message["Content-Language"] = letter.rendered.language
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(letter.rendered.text)
    message.add_alternative(letter.rendered.html, subtype="html")
    return message


class Smtp:
    """E-mail over SMTP: smtp://[USER:PASSWORD@]HOST[:PORT], with STARTTLS where it is offered, or smtps://."""

    def __init__(self, url: str, sender: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
            raise ValueError("OMS_SMTP_URL is smtp://HOST:PORT or smtps://HOST:PORT")
        self._tls = parts.scheme == "smtps"
        self._host, self._port = parts.hostname, parts.port or (465 if self._tls else 587)
        self._user = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password) if parts.password else None
        self._sender = sender

    async def send(self, letter: Letter) -> None:
        try:
            await aiosmtplib.send(
                email_of(letter, self._sender),
                sender=parseaddr(self._sender)[1],
                recipients=[letter.to],
                hostname=self._host,
                port=self._port,
                username=self._user,
                password=self._password,
                use_tls=self._tls,
                tls_context=ssl.create_default_context(),
                timeout=TIMEOUT,
            )
        except aiosmtplib.SMTPRecipientsRefused as error:
            codes = {refused.code for refused in error.recipients}
            raise (Refused if min(codes) >= 500 else NotDelivered)(f"recipient refused: {sorted(codes)}") from error
        except aiosmtplib.SMTPResponseException as error:
            raise (Refused if error.code >= 550 else NotDelivered)(f"SMTP {error.code}") from error
        except (aiosmtplib.SMTPException, OSError) as error:
            raise NotDelivered(type(error).__name__) from error


class PublicResolver(aiohttp.ThreadedResolver):
    """Names of hosts on the internet only: a customer's URL must not reach into our own network."""

    async def resolve(self, *arguments: Any, **options: Any) -> list[ResolveResult]:
        found = await super().resolve(*arguments, **options)
        public = [result for result in found if ipaddress.ip_address(result["host"]).is_global]
        if not public:
            raise OSError("not a host on the internet")
        return public


class Webhook:
    """POST of the facts to the customer's own URL, signed like the webhooks that we get: `OMS-Signature: t=…,v1=…`,
    v1 the HMAC-SHA256 (hex) of `t.body`. The order's status is none of them: it may be another one when this arrives.
    Redirects are not followed."""

    def __init__(self, session: aiohttp.ClientSession, secret: bytes, *, private: bool = False) -> None:
        self._session = session
        self._secret = secret
        self._private = private

    async def send(self, letter: Letter) -> None:
        if not self._private and not named(letter.to):
            raise Refused("not an https URL with the name of a host")
        facts = letter.notice.model_dump(mode="json", exclude={"status"})
        body = orjson.dumps({"message_id": letter.message_id, **facts})
        at = str(int(time.time()))
        signature = hmac.new(self._secret, at.encode() + b"." + body, hashlib.sha256).hexdigest()
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": letter.message_id,
            "OMS-Signature": f"t={at},v1={signature}",
        }
        try:
            async with self._session.post(letter.to, data=body, headers=headers, allow_redirects=False) as response:
                status = response.status
        except (aiohttp.InvalidURL, ValueError) as error:
            raise Refused(type(error).__name__) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise NotDelivered(type(error).__name__) from error
        if status == 410:
            raise Refused("HTTP 410")
        if not 200 <= status < 300:
            raise NotDelivered(f"HTTP {status}")


class Outbox:
    """Messages as files in a folder: an .eml for e-mail, a .txt for what is short. A repeat replaces its file."""

    def __init__(self, folder: Path, sender: str, channel: str) -> None:
        self._folder = folder / channel
        self._sender = sender
        self._email = channel == "email"

    async def send(self, letter: Letter) -> None:
        if self._email:
            name, content = "eml", email_of(letter, self._sender).as_bytes()
        else:
            name, content = "txt", f"To: {letter.to}\n{letter.message_id}\n\n{letter.rendered.short}\n".encode()
        await asyncio.to_thread(self._write, f"{letter.message_id.strip('<>').partition('@')[0]}.{name}", content)

    def _write(self, name: str, content: bytes) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            fresh = self._folder / f".{name}.{os.getpid()}"
            fresh.write_bytes(content)
            fresh.replace(self._folder / name)
        except OSError as error:
            raise NotDelivered(str(error)) from error
