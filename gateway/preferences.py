"""How customers want to be reached: a table in memory, fed by `customer.preferences`. Contacts stay sealed in it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from confluent_kafka import Producer

from runtime.feed import Feed, Received, from_beginning
from runtime.settings import Settings
from schemas.notification import Preferences

TOPIC = "customer.preferences"
CHANGES = "customer.events"


class PreferenceTable:
    """Read on the event loop, written by the feed's thread: single dictionary operations, which are atomic."""

    def __init__(self, settings: Settings, producer: Producer) -> None:
        self.feed = Feed(settings, "preferences", producer, from_beginning(TOPIC), self._take)
        self._known: dict[str, Preferences] = {}
        self._awaited: dict[str, asyncio.Future[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.feed.start()

    @property
    def loaded(self) -> bool:
        return self.feed.caught_up.is_set()

    def of(self, customer_id: str) -> Preferences | None:
        return self._known.get(customer_id)

    def seen(self, message_id: str) -> asyncio.Future[None]:
        """Resolves when this process has read the message with this id."""
        future = asyncio.get_running_loop().create_future()
        self._awaited[message_id] = future
        future.add_done_callback(lambda _: self._awaited.pop(message_id, None))
        return future

    def _take(self, batch: Sequence[Received]) -> None:
        for received in batch:
            if received.message is None:
                self._known.pop(received.key, None)
            elif isinstance(received.message.data, Preferences):
                self._known[received.key] = received.message.data
        ids = [received.message.id for received in batch if received.message is not None]
        if self._awaited and self._loop is not None:
            self._loop.call_soon_threadsafe(self._resolve, ids)

    def _resolve(self, message_ids: Sequence[str]) -> None:
        for message_id in message_ids:
            future = self._awaited.get(message_id)
            if future is not None and not future.done():
                future.set_result(None)
