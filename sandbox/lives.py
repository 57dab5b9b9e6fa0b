"""What becomes of an order after it was placed: reviews, second cards, changes of mind, parcels and what befalls them,
returns and surveys, until nothing more will happen to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from sandbox.client import Client, Refused
from sandbox.people import DECLINES, Persona, Visit
from sandbox.staff import Partners, Staff
from sandbox.tally import Outcome, Tally
from sandbox.travels import Travels

PATIENCE = 60.0
"""Seconds until we no longer wait for an order to be paid or cancelled, or for a return to get on."""
TRAVEL = 420.0
"""Seconds until we no longer wait for an order to arrive."""
IMPATIENT = 10.0
"""Seconds after which one who has missed a parcel asks the carrier to come again."""

PAID = frozenset({"PAYMENT_CONFIRMED", "PROCESSING", "SHIPPED", "DELIVERED", "REFUND_REQUESTED", "REFUNDED"})
ARRIVED = frozenset({"DELIVERED", "REFUND_REQUESTED", "REFUNDED"})
ENDED = frozenset({"DELIVERED", "REFUNDED", "CANCELLED"})

Document = dict[str, Any]


class Lives:
    """`live` sees one order to its end. Customers act for themselves, staff acts for the shop."""

    def __init__(self, client: Client, staff: Staff, partners: Partners, travels: Travels, tally: Tally) -> None:
        self._client = client
        self._staff = staff
        self._partners = partners
        self._travels = travels
        self._tally = tally

    # Until it is paid

    async def settle(self, visit: Visit, order: Document) -> Document:
        """The order once it is paid or cancelled. What is held is reviewed; who was declined tries another card, while
        that is possible."""
        cards = iter((visit.second_card, visit.second_card))
        while True:
            order = await self._client.follow(visit.customer.id, order, _somebody_must_act, PATIENCE)
            if order["status"] in PAID or order["status"] == "CANCELLED":
                return order
            if order["holds"]:
                order = await self.as_far_as_it_goes(order, self._staff.review(order, visit.verdict))
            elif "pay" in order["allowed_actions"]:
                order = await self._pay_again(visit, order, next(cards, None))

    async def _pay_again(self, visit: Visit, order: Document, card: str | None) -> Document:
        """Another card, or nothing more to do with it."""
        path, key = f"/v1/orders/{order['id']}", f"{visit.number}-{order['version']}"
        if card is None:
            body = {"reason": "changed_mind", "comment": "No card works."}
            work = self._client.call("POST", f"{path}/cancel", visit.customer.id, f"{key}-give-up", body)
        else:
            work = self._client.call("POST", f"{path}/pay", visit.customer.id, f"{key}-pay", {"payment_token": card})
            self._tally.done["another card, declined too" if card == DECLINES else "another card"] += 1
        return await self.as_far_as_it_goes(order, work)

    # From then on

    async def live(self, visit: Visit, order: Document) -> Outcome:
        """To its end; `order` is paid or cancelled."""
        order = await self._changes(visit, order)
        order = await self._arrival(visit, order)
        if order["status"] == "CANCELLED":
            return Outcome.CANCELLED
        if self._lost(order):
            await self._staff.apologise(order)
        if visit.returning is not None:
            order = await self._send_back(visit, order)
        if visit.score is not None:
            await self._answer_survey(visit, order)
        return Outcome.REFUNDED if order["status"] == "REFUNDED" else Outcome.DELIVERED

    async def _changes(self, visit: Visit, order: Document) -> Document:
        """What somebody thinks of after having paid."""
        match visit.persona:
            case Persona.EDITS if visit.patience:
                await asyncio.sleep(visit.patience)
                return await self.as_far_as_it_goes(order, self.edit(visit, order))
            case Persona.CANCELS_PART:
                await asyncio.sleep(visit.patience)
                return await self.as_far_as_it_goes(order, self._cancel_part(visit, order))
            case Persona.CANCELS if order["status"] != "CANCELLED":
                await asyncio.sleep(visit.patience)
                return await self.as_far_as_it_goes(order, self.cancel(visit, order))
            case Persona.WAITS_FOR_STOCK if order["status"] != "CANCELLED":
                await asyncio.sleep(2.0)
                sku, units = visit.basket[-1]
                await self._staff.restock(sku, units, f"{order['id']}-restock")
                return order
            case _:
                return order

    async def cancel(self, visit: Visit, order: Document) -> Document:
        body = {"reason": "changed_mind", "comment": "Found it in the attic."}
        path = f"/v1/orders/{order['id']}/cancel"
        cancelled = await self._client.call("POST", path, visit.customer.id, f"{visit.number}-cancel", body)
        self._tally.done["cancelled by the customer"] += 1
        return cancelled

    async def _cancel_part(self, visit: Visit, order: Document) -> Document:
        """One unit of the first line."""
        items = [{"line_id": order["items"][0]["line_id"], "quantity": 1}]
        body = {"reason": "changed_mind", "comment": "One less will do.", "items": items}
        path = f"/v1/orders/{order['id']}/cancel"
        order = await self._client.call("POST", path, visit.customer.id, f"{visit.number}-cancel-part", body)
        self._tally.done["unit cancelled by the customer"] += 1
        return order

    async def edit(self, visit: Visit, order: Document) -> Document:
        """One change, until it has happened or not."""
        path, first = f"/v1/orders/{order['id']}", order["items"][0]
        line, reason = f"{path}/items/{first['line_id']}", {"reason": "second thoughts"}
        method, body = "PATCH", {"quantity": first["quantity"] + 1, **reason}
        what, url = "a unit more", line
        match visit.change:
            case "line" if visit.added is not None:
                sku, quantity = visit.added
                what, method, url = "a line more", "POST", f"{path}/items"
                body = {"sku": sku, "quantity": quantity, **reason}
            case "method":
                other = "express" if order["shipping_method"] == "standard" else "standard"
                what, method, url = "another shipping method", "PUT", f"{path}/shipping-method"
                body = {"shipping_method": other, **reason}
            case "fewer" if first["quantity"] > 1:
                what, body = "a unit less", {"quantity": first["quantity"] - 1, **reason}
            case "fewer" if len(order["items"]) > 1:
                what, method, body = "a line less", "DELETE", {}
            case "code":
                what, method, url = "a code", "POST", f"{path}/promo-codes"
                body = {"code": "SPRING10", **reason}
            case _:
                pass
        changed = await self._client.call(method, url, visit.customer.id, f"{visit.number}-edit", body or None)
        changed = await self._client.follow(visit.customer.id, changed, lambda found: not found["edit"], PATIENCE)
        happened = _content(changed) != _content(order)
        self._tally.done[f"edit: {what}" if happened else "edit that failed"] += 1
        return changed

    # Parcels

    async def arrange(self, visit: Visit, order: Document) -> None:
        """What becomes of the next parcel of an order that was just placed."""
        if visit.fate is not None:
            await self._partners.plan(order["id"], visit.fate)

    async def _arrival(self, visit: Visit, order: Document) -> Document:
        if visit.persona is not Persona.MISSES_PARCEL:
            return await self._travels.until(order, ENDED | ARRIVED, TRAVEL)
        arrival = asyncio.create_task(self._travels.until(order, ENDED | ARRIVED, TRAVEL))
        try:
            await self._come_again(order, arrival)
            return await arrival
        finally:
            arrival.cancel()

    async def _come_again(self, order: Document, arrival: asyncio.Task[Document]) -> None:
        """The shop has another attempt made; where that takes long, the customer rings the carrier up."""
        missed_for = 0.0
        while not arrival.done() and missed_for <= IMPATIENT:
            await asyncio.wait([arrival], timeout=2.0)
            found = None if arrival.done() else await self._client.read(None, order["id"])
            parcel = None if found is None else _parcel(found, "failed")
            missed_for += 2.0 if parcel else 0.0
            if parcel and missed_for > IMPATIENT:
                again = await self._partners.come_again(parcel["shipment_id"], parcel["delivery_attempts"] + 1)
                self._tally.done["carrier asked to come again"] += again

    def _lost(self, order: Document) -> bool:
        return _parcel(order, "lost") is not None

    # Returns

    async def _send_back(self, visit: Visit, order: Document) -> Document:
        returning = visit.returning
        if returning is None:
            return order
        skus = {item["sku"] for item in order["items"]} if returning.whole else {returning.sku}
        items = [
            {
                "line_id": item["line_id"],
                "quantity": item["quantities"]["delivered"] if returning.whole else 1,
                "reason": returning.reason,
                **({"exchange_sku": returning.exchange_sku} if returning.exchange_sku else {}),
            }
            for item in order["items"]
            if item["sku"] in skus and item["quantities"]["delivered"] > 0
        ]
        body = {"items": items, "comment": "I would like to send this back."}
        path = f"/v1/orders/{order['id']}/returns"
        try:
            asked = await self._client.call("POST", path, visit.customer.id, f"{visit.number}-return", body)
        except Refused as refused:
            self._by_a_rule(refused)
            return order
        self._tally.notice(asked)
        rma = asked["returns"][-1]["rma"]
        answered = await self._staff.answer_return(rma, returning)
        if not returning.approved:
            return answered
        back = await self._client.follow(None, answered, lambda found: _return(found, rma) == "received", PATIENCE)
        inspected = await self._staff.inspect(rma, [item["line_id"] for item in items], returning.condition)
        closed = await self._client.follow(None, inspected, lambda found: _return(found, rma) == "closed", PATIENCE)
        if returning.exchange_sku is not None:
            await self._follow_exchange(visit, back)
        return closed

    async def _follow_exchange(self, visit: Visit, order: Document) -> None:
        """The order that the shop makes in exchange lives like any other."""
        made = await self._made_in_exchange(visit, order)
        self._tally.orders.setdefault(made["id"], None)
        self._tally.notice(made)
        settled = await self.settle(visit, made)
        arrived = await self._travels.until(settled, ENDED | ARRIVED, TRAVEL)
        self._tally.end(arrived["id"], Outcome.CANCELLED if arrived["status"] == "CANCELLED" else Outcome.DELIVERED)
        self._tally.done["exchanged"] += 1

    async def _made_in_exchange(self, visit: Visit, order: Document) -> Document:
        path = f"/v1/customers/{visit.customer.id}/orders"
        async with asyncio.timeout(PATIENCE):
            while True:
                page = await self._client.get(path, visit.customer.id, {"limit": "100"})
                for found in page["items"] if page else ():
                    if found["exchange_of"] == order["id"]:
                        return dict(found)
                await asyncio.sleep(0.5)

    # The end

    async def _answer_survey(self, visit: Visit, order: Document) -> None:
        """Who had trouble likes it less."""
        trouble = bool(order["returns"]) + any(s["status"] in ("lost", "returned") for s in order["shipments"])
        score = max(1, (visit.score or 1) - 2 * trouble)
        body = {"score": score, "comment": "Thank you!" if score > 3 else "It could have gone better."}
        path = f"/v1/orders/{order['id']}/survey"
        await self._client.call("POST", path, visit.customer.id, f"{visit.number}-survey", body)
        self._tally.scores.append(score)

    async def as_far_as_it_goes(self, order: Document, work: Awaitable[Document]) -> Document:
        """What came of the work; the order as it was when it came too late."""
        try:
            changed = await work
        except Refused as refused:
            self._by_a_rule(refused)
            return await self._client.read(None, order["id"]) or order
        self._tally.notice(changed)
        return changed

    def _by_a_rule(self, refused: Refused) -> None:
        """Counted; raised again when no rule explains it."""
        if not refused.by_a_rule:
            raise refused
        self._tally.refusals[refused.type] += 1


def _somebody_must_act(order: Document) -> bool:
    """Paid or cancelled; or held for a review, or declined: then it is a person's turn."""
    declined = "pay" in order["allowed_actions"]
    return order["status"] in PAID or order["status"] == "CANCELLED" or bool(order["holds"]) or declined


def _content(order: Document) -> tuple[Any, ...]:
    units = tuple((item["line_id"], item["quantity"]) for item in order["items"])
    return units, order["shipping_method"], order["total"]["amount"], tuple(order["promo_codes"])


def _parcel(order: Document, status: str) -> Document | None:
    return next((shipment for shipment in order["shipments"] if shipment["status"] == status), None)


def _return(order: Document, rma: str) -> str | None:
    return next((one["status"] for one in order["returns"] if one["rma"] == rma), None)
