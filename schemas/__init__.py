"""The language everyone speaks: commands, events, results, money, addresses."""

from schemas import (
    catalog,
    commands,
    events,
    fraud,
    inventory,
    logistics,
    notification,
    operations,
    order,
    payment,
    promotion,
    replies,
    timers,
)

__all__ = [
    "catalog",
    "commands",
    "events",
    "fraud",
    "inventory",
    "logistics",
    "notification",
    "operations",
    "order",
    "payment",
    "promotion",
    "replies",
    "timers",
]
