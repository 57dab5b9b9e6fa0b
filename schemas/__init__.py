"""The language everyone speaks: commands, events, results, money, addresses."""

from schemas import (
    catalog,
    commands,
    events,
    inventory,
    operations,
    order,
    payment,
    replies,
    sagas,
    timers,
)

__all__ = [
    "catalog",
    "commands",
    "events",
    "inventory",
    "operations",
    "order",
    "payment",
    "replies",
    "sagas",
    "timers",
]
