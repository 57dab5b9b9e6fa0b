"""How the sandboxes report by themselves: signed webhooks from a durable outbox, at least once and in order."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import random
import time
from collections.abc import Sequence
from typing import Any, Protocol

import aiohttp
import orjson

log = logging.getLogger(__name__)

BATCH = 100
PAUSE = 0.1
"""Seconds between two batches: events that happen close together travel together."""
BACKOFF = (0.2, 10.0)
TIMEOUT = aiohttp.ClientTimeout(total=10, connect=2)


class Outbox(Protocol):
    """Events in the order in which they happened, and how far they were delivered; durable."""

    def undelivered(self, limit: int) -> Sequence[tuple[int, dict[str, Any]]]:
        """(position, event), those after the position delivered last."""
        ...

    async def delivered(self, position: int) -> None:
        """Everything up to this position has arrived."""
        ...


class Reporter:
    """Posts `{"events": […]}` to `url` until all is delivered, then waits for `wake`.

    Whatever is not answered with 2xx is sent again, from 0.2 s on, doubling up to 10 s. An event that the receiver
    says it will never take (400, 413, 422) is logged and left out, so that one does not hold up all the others.
    """

    def __init__(self, url: str, secret: str, outbox: Outbox) -> None:
        self._url = url
        self._secret = secret
        self._outbox = outbox
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Something new is in the outbox."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
            failures, size = 0, BATCH
            while True:
                batch = self._outbox.undelivered(size)
                if not batch:
                    self._wake.clear()
                    await self._wake.wait()
                    await asyncio.sleep(PAUSE)
                    continue
                status = await self._post(session, [event for _, event in batch])
                if status is not None and status < 300:
                    await self._outbox.delivered(batch[-1][0])
                    if len(batch) < size:
                        await asyncio.sleep(PAUSE)
                    failures, size = 0, min(BATCH, 2 * size)
                elif status in (400, 413, 422) and len(batch) > 1:
                    size = len(batch) // 2  # which one is it?
                elif status in (400, 413, 422):
                    log.error("the receiver refuses an event (%d) for good: %s", status, batch[0][1])
                    await self._outbox.delivered(batch[0][0])
                else:
                    await asyncio.sleep(_backoff(failures))
                    failures += 1

    async def _post(self, session: aiohttp.ClientSession, events: list[dict[str, Any]]) -> int | None:
        """The answer's status, or None when there was none."""
        body = orjson.dumps({"events": events})
        headers = {"Content-Type": "application/json", "OMS-Signature": sign(self._secret, body)}
        try:
            async with session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
                await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            log.info("webhook to %s: %s", self._url, type(error).__name__)
            return None
        if answer.status >= 300:
            log.warning("webhook to %s: HTTP %d", self._url, answer.status)
        return answer.status


def sign(secret: str, body: bytes, at: float | None = None) -> str:
    """The header OMS-Signature of this body, at this Unix time (default: now)."""
    seconds = str(int(time.time() if at is None else at))
    digest = hmac.new(secret.encode(), seconds.encode() + b"." + body, hashlib.sha256)
    return f"t={seconds},v1={digest.hexdigest()}"


def _backoff(failures: int) -> float:
    first, most = BACKOFF
    return min(most, first * 2.0 ** min(failures, 30)) * random.uniform(0.5, 1)  # noqa: S311
