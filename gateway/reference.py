"""Reference data that is replaced whole over HTTP: products, how customers are reached."""

from __future__ import annotations

import asyncio

from gateway.call import Call
from gateway.catalogue import Catalogue
from gateway.preferences import PreferenceTable
from gateway.problems import unavailable
from schemas.base import Payload


async def replace(
    call: Call,
    table: Catalogue | PreferenceTable,
    key: str,
    *,
    now: tuple[str, Payload],
    changed: tuple[str, Payload],
    sorry: str,
) -> None:
    """Write what it is `now` and how it `changed` (topic, what is said); returns when this gateway has read it. Problem
    (503, `sorry`) when Kafka did not take it in time."""
    topic, data = now
    message = call.message(data)
    seen = table.seen(message.id)
    changes, change = changed
    try:
        async with asyncio.timeout(call.parts.settings.command_timeout):
            # First who does it: a change that nobody made would be worse than one that did not come about.
            await call.parts.bus.produce(changes, key, call.message(change))
            await call.parts.bus.produce(topic, key, message)
            await seen
    except TimeoutError:
        raise unavailable("kafka-unavailable", sorry) from None
    finally:
        seen.cancel()
