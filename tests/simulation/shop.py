"""What the simulated scenarios share: another policy, promotions, trying again from the exception queue, and whether
all books agree at the end."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any
from uuid import uuid5

import yaml

from processors.order.attempts import price_of
from runtime.settings import Settings
from schemas import events as e
from schemas import promotion as promo
from schemas.base import Message
from schemas.codec import decode
from schemas.operations import ExceptionOpened, ExceptionResolved
from schemas.order import Order, PromotionTerms
from schemas.policy import _shipped
from tests.simulation.world import World
from tests.support.examples import NAMES

STAFF = {"actor": "staff:clerk"}


def policy(folder: Path, **changes: dict[str, Any]) -> Settings:
    """Settings of a shop whose policy differs from the shipped one, section by section."""
    rules = yaml.safe_load(_shipped().read_text())
    for section, values in changes.items():
        rules[section] |= values
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(rules))
    return Settings(policy=path)


def promotion(world: World, terms: PromotionTerms, limit: int | None = None) -> None:
    put: Message[Any] = Message(
        id=str(uuid5(NAMES, f"promotion {terms.code}")),
        at=world.now,
        actor="staff:clerk",
        correlation_id="c",
        data=promo.PutPromotion(terms=terms, limit=limit),
    )
    world.write("promotion.commands", terms.code, put)
    world.settle()


def used(world: World, code: str) -> int:
    uses: int = world.messages("promotion.levels", code)[-1].used
    return uses


def open_exceptions(world: World) -> dict[str, ExceptionOpened]:
    opened: dict[str, ExceptionOpened] = {}
    for record in world.records("exceptions"):
        match record.message.data if record.message else None:
            case ExceptionOpened() as found:
                opened[found.exception_id] = found
            case ExceptionResolved(exception_id=exception_id):
                opened.pop(exception_id, None)
    return opened


def retry(world: World, kind: str) -> None:
    """Somebody says: try again."""
    (found,) = [x for x in open_exceptions(world).values() if x.kind == kind]
    assert found.retry_topic is not None
    assert isinstance(decode(found.retry), Message)
    world.write(found.retry_topic, found.retry_key, found.retry)
    world.settle()


def events(world: World, order: Order, kind: type[Any]) -> list[Any]:
    return [x for x in world.messages("order.events", order.order_id) if isinstance(x, kind)]


def books_agree(world: World, orders: list[Order], codes: tuple[str, ...] = ()) -> None:
    """Nothing needs a person; the provider has of each live order what it costs, of each dead one nothing; stock holds
    for each line what it wants, and each promotion counts the orders that have it."""
    assert open_exceptions(world) == {}
    held: Counter[str] = Counter()
    for order in orders:
        assert order.edit is None
        charges = [world.bank.charges[p.attempt_id] for p in order.payments if p.attempt_id in world.bank.charges]
        has = sum(charge.taken - charge.refunded for charge in charges)
        reserved = sum(charge.left for charge in charges)
        alive = order.status != "CANCELLED"
        price = price_of(order, order.lines, order.totals) if alive else 0
        assert has == order.captured - order.refunded
        # What is reserved may be more than the order costs after an edit; the rest is never captured.
        assert has <= price <= has + reserved if reserved and price else has + reserved == price, order
        assert all(refund.status == "completed" for refund in order.refunds)
        for line in order.lines if alive else ():
            held[line.sku] += line.quantity - line.cancelled
    for record in world.records("inventory.levels"):
        held.setdefault(str(record.message.data.sku) if record.message else "", 0)
    for sku, units in held.items():
        level = world.messages("inventory.levels", f"{sku}#main")[-1]
        assert level.reserved == units, sku
    for code in codes:
        having = [o for o in orders if o.status != "CANCELLED" and _uses(world, o, code)]
        assert used(world, code) == len(having), code


def _uses(world: World, order: Order, code: str) -> bool:
    """A promotion that took nothing off when the order was placed is not used; one that did, stays used."""
    uses = False
    for event in world.messages("order.events", order.order_id):
        match event:
            case e.OrderSubmitted(promotions=applied):
                uses = any(p.terms.code == code and p.amount > 0 for p in applied)
            case e.OrderPromotionRemoved(promotions=left):
                uses = uses and any(p.terms.code == code for p in left)
            case e.OrderPromotionApplied(code=new) if new == code:
                uses = True
    return uses
