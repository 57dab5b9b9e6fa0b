"""The promotions there are and how much of them is used: a table in memory, fed by `promotion.levels`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from confluent_kafka import Producer

from gateway.problems import unavailable
from runtime.feed import Feed, Received, from_beginning
from runtime.settings import Settings
from schemas.order import PromotionTerms
from schemas.promotion import PromotionLevel

LEVELS = "promotion.levels"


class Promotions:
    """Read on the event loop, written by the feed's thread (and `learn`): single dictionary operations, which are
    atomic. Codes are upper-case."""

    def __init__(self, settings: Settings, producer: Producer) -> None:
        self.feed = Feed(settings, "promotions", producer, from_beginning(LEVELS), self._take)
        self._levels: dict[str, PromotionLevel] = {}

    def start(self) -> None:
        self.feed.start()

    @property
    def loaded(self) -> bool:
        return self.feed.caught_up.is_set()

    def need(self) -> None:
        """Problem: 503, while the table is not complete."""
        if not self.loaded:
            raise unavailable("promotions-loading", "The promotions are still being loaded.")

    def level(self, code: str) -> PromotionLevel | None:
        return self._levels.get(code)

    def page(self, after: str, limit: int) -> list[PromotionLevel]:
        """Promotions by code, after this one. There are few, and only staff looks."""
        codes = sorted(code for code in list(self._levels) if code > after)[:limit]
        return [level for code in codes if (level := self._levels.get(code)) is not None]

    def terms(self, codes: Iterable[str]) -> tuple[PromotionTerms, ...]:
        """Today's terms of those that exist, inactive ones too, in the order asked for. [order] refuses the others.

        Raises:
            Problem: 503, while the table is not complete and a code is asked for.
        """
        wanted = tuple(codes)
        if wanted:
            self.need()
        return tuple(level.terms for code in wanted if (level := self._levels.get(code)) is not None)

    def used_up(self, code: str) -> bool:
        """Whether it is known to have no use left. A courtesy, before anybody waits: the redemption decides."""
        level = self._levels.get(code)
        return level is not None and level.limit is not None and level.used >= level.limit

    def learn(self, level: PromotionLevel) -> None:
        """A level that was told directly: who has just changed it finds it changed. The answer to a repeat is an old
        one, so only a newer version counts; the feed has the last word."""
        known = self._levels.get(level.terms.code)
        if known is None or known.terms.version < level.terms.version:
            self._levels[level.terms.code] = level

    def _take(self, batch: Sequence[Received]) -> None:
        for received in batch:
            if received.message is None:
                self._levels.pop(received.key, None)
            elif isinstance(level := received.message.data, PromotionLevel):
                known = self._levels.get(received.key)
                # What was learned directly may be ahead of the feed.
                if known is None or known.terms.version <= level.terms.version:
                    self._levels[received.key] = level
