"""The notification worker: notification.commands → the customer's channel → notification.events.

At least once, with the same Message-ID; one message an event and channel. Who has no preferences has no address that we
know, and who opted out of what is optional gets nothing: both are told as NoticeSkipped.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
import structlog
from uuid_utils import NAMESPACE_URL, uuid5

from processors.kit import Outgoing
from processors.notification.channels import (
    TIMEOUT,
    Channel,
    Letter,
    NotDelivered,
    Outbox,
    PublicResolver,
    Refused,
    Smtp,
    Webhook,
)
from processors.notification.notices import OPTIONAL
from processors.notification.templates import FALLBACK, render
from runtime import kafka, workers
from runtime.feed import Feed, Received, from_beginning
from runtime.keystore import Vault, vault
from runtime.settings import Settings
from schemas.base import Envelope, Message, Payload
from schemas.notification import NoticeFailed, NoticeSent, NoticeSkipped, Preferences, SendNotice

log = structlog.get_logger(__name__)

ACTOR = "system:notification"
EVENTS = "notification.events"
PREFERENCES = "customer.preferences"
ATTEMPTS = 120
"""With the runtime's backoff about a quarter of an hour; then it is visible as failed."""
DEFAULT_CHANNEL = "email"
CONTACT = {"email": "email", "sms": "phone", "webhook": "webhook_url", "push": "push_token"}
"""Channel → the field of the contact that it needs."""


def run(settings: Settings, name: str) -> None:
    """Run until SIGTERM or SIGINT. Blocks; raises as `runtime.workers.run`."""
    workers.run(settings, name, _calls)


@asynccontextmanager
async def _calls(settings: Settings) -> AsyncIterator[workers.Handle]:
    table = PreferenceTable(settings)
    table.feed.start()
    try:
        # Without it everybody would look like somebody without preferences.
        while not await asyncio.to_thread(table.feed.caught_up.wait, 0.5):
            pass
        resolver = None if settings.webhooks_to_private else PublicResolver()
        connector = aiohttp.TCPConnector(resolver=resolver)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            channels = make_channels(settings, session)
            domain = settings.mail_from.rpartition("@")[2].rstrip(">")
            yield NotificationWorker(table.known, vault(settings), channels, domain).handle
    finally:
        await asyncio.to_thread(table.feed.stop, 1)


def make_channels(settings: Settings, session: aiohttp.ClientSession) -> dict[str, Channel]:
    folder = settings.outbox or settings.data_dir / "outbox"
    channels: dict[str, Channel] = {name: Outbox(folder, settings.mail_from, name) for name in ("email", "sms", "push")}
    secret = settings.webhook_secret.get_secret_value().encode()
    channels["webhook"] = Webhook(session, secret, private=settings.webhooks_to_private)
    if settings.smtp_url:
        channels["email"] = Smtp(settings.smtp_url, settings.mail_from)
    return channels


class PreferenceTable:
    """The newest preferences of every customer, in memory."""

    def __init__(self, settings: Settings) -> None:
        self.known: dict[str, Preferences] = {}
        self.feed = Feed(
            settings,
            "preferences",
            kafka.producer(settings),
            from_beginning(PREFERENCES),
            self._take,
            process="notification",
        )

    def _take(self, batch: Sequence[Received]) -> None:
        for received in batch:
            if received.message is None:
                self.known.pop(received.key, None)
            elif isinstance(received.message.data, Preferences):
                self.known[received.key] = received.message.data


class NotificationWorker:
    def __init__(
        self, preferences: Mapping[str, Preferences], vault: Vault, channels: Mapping[str, Channel], domain: str
    ) -> None:
        self._preferences = preferences
        self._vault = vault
        self._channels = channels
        self._domain = domain

    async def handle(self, message: Envelope, attempt: int) -> Sequence[Outgoing]:
        """One message to one customer; what became of it.

        Raises:
            workers.TryLater: the channel did not take it.
            ValueError: no command to a notification worker.
        """
        notice = message.data
        if not isinstance(message, Message) or not isinstance(notice, SendNotice):
            raise ValueError(f"a notification worker knows no {type(notice).__name__}")
        wishes = self._preferences.get(notice.customer_id)
        channel = wishes.channel if wishes else DEFAULT_CHANNEL
        if wishes is not None and notice.kind in OPTIONAL and notice.kind in wishes.opt_outs:
            return [_answer(message, notice, self._skipped(notice, channel, "opted_out"))]
        contact = await self._contact(wishes)
        if contact is None:
            return [_answer(message, notice, self._skipped(notice, channel, "forgotten"))]
        to = contact.get(CONTACT[channel])
        if not to:
            return [_answer(message, notice, self._skipped(notice, channel, "no_contact"))]
        message_id = f"<{uuid5(NAMESPACE_URL, f'oms:message:{notice.event_id}:{channel}')}@{self._domain}>"
        rendered = render(notice, wishes.language if wishes else FALLBACK)
        about = {"kind": notice.kind, "event_id": notice.event_id, "channel": channel, "message_id": message_id}
        result: Payload
        try:
            await self._channels[channel].send(Letter(message_id, to, notice, rendered))
            result = NoticeSent(**about, language=rendered.language)
        except Refused as error:
            result = NoticeFailed(**about, error=str(error))
        except NotDelivered as error:
            if attempt + 1 < ATTEMPTS:
                raise workers.TryLater(str(error)) from error
            result = NoticeFailed(**about, error=str(error))
        return [_answer(message, notice, result)]

    async def _contact(self, wishes: Preferences | None) -> dict[str, Any] | None:
        """The customer's addresses; {} when we never had any, None when their key is gone."""
        if wishes is None:
            return {}
        return await asyncio.to_thread(self._vault.open, wishes.contact)

    @staticmethod
    def _skipped(notice: SendNotice, channel: str, reason: str) -> NoticeSkipped:
        return NoticeSkipped(kind=notice.kind, event_id=notice.event_id, channel=channel, reason=reason)


def _answer(cause: Message[Any], notice: SendNotice, result: Payload) -> Outgoing:
    message: Message[Any] = Message(
        id=str(uuid5(NAMESPACE_URL, f"oms:{type(result).__name__}:{cause.id}")),
        at=datetime.now(UTC),
        actor=ACTOR,
        correlation_id=cause.correlation_id,
        causation_id=cause.id,
        order_id=cause.order_id,
        data=result,
    )
    return Outgoing(EVENTS, notice.customer_id, message)
