"""Taking authorized money for what is shipped."""

from __future__ import annotations

from collections.abc import Sequence

from processors.order.names import capture_id
from processors.order.parcels import units
from processors.order.refunding import price_risen, share
from schemas import events as e
from schemas.order import Line, Order, Payment, ShipmentLine


def captures_for(order: Order, leaving: Sequence[ShipmentLine]) -> list[e.OrderPaymentCaptureRequested]:
    """What to capture because a parcel leaves (`order` is as before it), over the authorized payments, oldest first.

    It is what all units that are out and not lost cost, shipping included, less the money that was taken or asked for
    already and not given back for units that will not come. So the first parcel carries the shipping, the next one
    makes up for a failed capture, what is sent again costs nothing, and the last one brings the sum to the cent. Never
    more than what is left of the authorizations."""
    held = sum(payment.taken + payment.capturing for payment in order.payments)
    amount = _due(order, leaving) - (held - _given_back(order))
    number = 1 + sum(1 for shipment in order.shipments if shipment.shipped_at is not None)
    captures = []
    for payment in order.payments:
        take = min(amount, uncaptured(payment))
        if take > 0:
            amount -= take
            captures.append(
                e.OrderPaymentCaptureRequested(
                    attempt_id=payment.attempt_id,
                    capture_id=capture_id(payment.attempt_id, number),
                    amount=take,
                    currency=order.currency,
                )
            )
    return captures


def uncaptured(payment: Payment) -> int:
    """What of an authorization was neither taken nor asked for yet (minor units)."""
    return payment.amount - payment.taken - payment.capturing if payment.status == "authorized" else 0


def excess(order: Order) -> int:
    """What was taken beyond the price of all that was not cancelled (minor units): a parcel was lost while the capture
    for it was under way, or a failed capture was tried again that the next parcel had made up for."""
    cancelled = sum(share(line.paid, 0, line.cancelled, line.quantity) for line in order.lines)
    return max(0, _kept(order) - (order.totals.total - cancelled))


def unused(order: Order) -> int:
    """What was taken beyond the price of all that is out and not lost, shipping included (minor units)."""
    return max(0, _kept(order) - _due(order, ()))


def _kept(order: Order) -> int:
    """What was taken and not given back. Units that staff gave back the price of count as paid for at today's price."""
    taken = sum(payment.taken for payment in order.payments)
    return taken - _given_back(order) + sum(price_risen(order, line) for line in order.lines)


def _given_back(order: Order) -> int:
    """For units that will not come, or for an edit; not out of goodwill, and not for what came and was returned."""
    return sum(r.amount for r in order.refunds if not r.kept and r.rma is None and r.counts)


def _due(order: Order, leaving: Sequence[ShipmentLine]) -> int:
    now = units(leaving)
    goods = sum(_worth(line, line.shipped + now.get(line.line_id, 0)) for line in order.lines)
    return goods + order.totals.shipping + order.totals.shipping_tax


def _worth(line: Line, out: int) -> int:
    """The price of so many units that are out. They count from the line's end, because cancelled ones count from its
    beginning (refunding): so the two never claim the same cent."""
    return share(line.paid, line.quantity - out, line.quantity, line.quantity)
