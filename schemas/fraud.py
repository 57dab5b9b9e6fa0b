"""The language of fraud scoring. A port: whoever reads fraud.commands and answers on fraud.results is the scorer.

An order is looked at from several sides at once (`aspect`), each keyed by what it is about (customer:ID, address:HASH),
so that each has one writer. The placement saga adds the scores up, and policy says what they lead to.
"""

from __future__ import annotations

from schemas.base import Family, Instant, Message, Minor, Payload

Family("fraud.commands", Message)
Family("fraud.results", Message)


class ScoreOrder(Payload, family="fraud.commands"):
    """An order as it was submitted, or as an edit that costs more would make it (`submitted_at`: when that was asked
    for). aspect: customer | address. `subject` is the message key. Everything is there that default rules look at."""

    aspect: str
    subject: str
    customer_id: str
    amount: Minor
    currency: str
    shipping_country: str
    billing_country: str
    submitted_at: Instant
    order_version: int = 0


class OrderScored(Payload, family="fraud.results"):
    """0 (nothing found) to 100; `reasons` are stable words: customer_velocity, address_velocity, amount, mismatch.
    `order_version` is the command's."""

    aspect: str
    score: int
    reasons: tuple[str, ...] = ()
    order_version: int = 0
