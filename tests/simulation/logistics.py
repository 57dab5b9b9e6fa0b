"""The other side of the warehouse's and the carrier's topics in the simulation: parcels that go their way step by step,
some of them badly. Which, the seed decides, or a test (`fates`).

Partners like these may report twice, and a carrier's reports may come in another order than things happened.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from processors.kit import Outgoing
from processors.order.parcels import without
from schemas import logistics as g
from schemas.base import Message, Payload
from schemas.order import ShipmentLine

LABEL = "https://carrier.example/labels/"


@dataclass
class Parcel:
    """pick: picking | picked | packed | nothing (was there) | cancelled. way: none | booked | shipped | in_transit |
    out_for_delivery | failed | delivered | lost | returning | returned | cancelled."""

    order_id: str
    correlation_id: str
    lines: tuple[ShipmentLine, ...] = ()
    pick: str = "picking"
    way: str = "none"
    fate: str = ""  # short | fail | lose | return
    attempts: int = 0
    asked: int = 0
    reports: int = 0


@dataclass
class Logistics:
    """Shares (0 to 1) of parcels that are short of units, whose delivery fails (and fails again: `nobody`), that get
    lost or are sent back; and of reports that are repeated, or held back until after the next one (`disorder`)."""

    seed: int = 1
    short: float = 0
    fail: float = 0
    lose: float = 0
    back: float = 0
    nobody: float = 0.3
    repeats: float = 0
    disorder: float = 0
    parcels: dict[str, Parcel] = field(default_factory=dict)
    fates: dict[str, list[str]] = field(default_factory=dict)  # order id → the fates of its parcels
    refuses: set[str] = field(default_factory=set)  # orders whose bookings the carrier refuses
    written_off: Counter[str] = field(default_factory=Counter)  # SKU → units that the warehouse didn't find
    _held: dict[str, Outgoing] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(f"logistics {self.seed}")

    def handle(self, command: Message[Any], now: datetime) -> list[Outgoing]:
        """A command from warehouse.commands or shipping.commands: the worker's answer, if it has one."""
        order_id = command.order_id or ""
        match command.data:
            case g.PickShipment(shipment_id=shipment_id, lines=lines):
                if shipment_id not in self.parcels:
                    picked = tuple(ShipmentLine(line_id=x.line_id, sku=x.sku, quantity=x.quantity) for x in lines)
                    fate = self._fate(order_id)
                    self.parcels[shipment_id] = Parcel(order_id, command.correlation_id, picked, fate=fate)
            case g.CancelPick(shipment_id=shipment_id):
                parcel = self.parcels[shipment_id]
                if parcel.pick in ("picking", "picked", "packed") and parcel.way in ("none", "booked", "cancelled"):
                    parcel.pick = "cancelled"
                    return self._warehouse(shipment_id, now, "cancelled")
            case g.BookShipment() as booking:
                return [_answer(command, self._book(booking, order_id))]
            case g.CancelShipment(shipment_id=shipment_id):
                parcel = self.parcels[shipment_id]
                if parcel.way == "booked":
                    parcel.way = "cancelled"
                elif parcel.way in ("shipped", "in_transit", "out_for_delivery", "failed"):
                    parcel.way = "returning"
            case g.RedeliverShipment(shipment_id=shipment_id, attempt=attempt):
                parcel = self.parcels[shipment_id]
                if parcel.way == "failed" and attempt > parcel.asked:
                    parcel.way, parcel.asked = "in_transit", attempt
            case g.MakeReturnLabel(rma=rma):
                made = g.ReturnLabelMade(rma=rma, carrier="Post", tracking_number=f"T-{rma}", label_url=LABEL + rma)
                return [_answer(command, made)]
            case other:
                raise TypeError(f"{type(other).__name__} is no logistics command")
        return []

    def busy(self) -> list[str]:
        """Parcels that go on by themselves."""
        return [shipment_id for shipment_id, parcel in self.parcels.items() if _goes_on(parcel)]

    def step(self, shipment_id: str, now: datetime) -> list[Outgoing]:
        """The next thing that happens to a parcel."""
        parcel = self.parcels[shipment_id]
        if parcel.pick == "picking":
            return self._pick(shipment_id, parcel, now)
        if parcel.pick == "picked":
            parcel.pick = "packed"
            return self._warehouse(shipment_id, now, "packed")
        match parcel.way:
            case "booked":
                return self._carry(shipment_id, now, "shipped")
            case "shipped":
                return self._carry(shipment_id, now, "in_transit")
            case "in_transit" if parcel.fate == "lose":
                return self._carry(shipment_id, now, "lost")
            case "in_transit":
                return self._carry(shipment_id, now, "out_for_delivery")
            case "out_for_delivery" if parcel.fate == "return":
                return self._carry(shipment_id, now, "returned")
            case "out_for_delivery" if parcel.fate == "fail":
                parcel.attempts += 1
                if self.random.random() > self.nobody:
                    parcel.fate = ""
                return self._carry(shipment_id, now, "failed_attempt", attempt=parcel.attempts)
            case "out_for_delivery":
                return self._carry(shipment_id, now, "delivered")
            case "returning":
                return self._carry(shipment_id, now, "returned")
            case way:
                raise AssertionError(f"a parcel that is {way} has no next step")

    def arrived(self, order_id: str) -> Counter[str]:
        """Line id → units that the customer has really got."""
        count: Counter[str] = Counter()
        for parcel in self.parcels.values():
            if parcel.order_id == order_id and parcel.way == "delivered":
                count.update({x.line_id: x.quantity for x in parcel.lines})
        return count

    def _fate(self, order_id: str) -> str:
        if self.fates.get(order_id):
            return self.fates[order_id].pop(0)
        chance = self.random.random()
        for fate, share in (("short", self.short), ("fail", self.fail), ("lose", self.lose), ("return", self.back)):
            if chance < share:
                return fate
            chance -= share
        return ""

    def _pick(self, shipment_id: str, parcel: Parcel, now: datetime) -> list[Outgoing]:
        reports = []
        if parcel.fate == "short":
            line = self.random.choice(parcel.lines)
            gone = line.model_copy(update={"quantity": self.random.randint(1, line.quantity)})
            parcel.lines = without(parcel.lines, [gone])
            self.written_off[gone.sku] += gone.quantity
            reports = self._warehouse(shipment_id, now, "short", (gone,))
        if not parcel.lines:
            parcel.pick = "nothing"
            return reports
        parcel.pick = "picked"
        return [*reports, *self._warehouse(shipment_id, now, "picked")]

    def _book(self, booking: g.BookShipment, order_id: str) -> Payload:
        parcel = self.parcels[booking.shipment_id]
        if order_id in self.refuses:
            return g.BookingFailed(shipment_id=booking.shipment_id, code="not_accepted")
        if parcel.way == "none":
            parcel.way = "booked"
        number = f"T-{booking.shipment_id[:8]}"
        return g.ShipmentBooked(
            shipment_id=booking.shipment_id,
            carrier="Post",
            tracking_number=number,
            tracking_url=f"https://carrier.example/{number}",
            estimated_delivery="2026-03-09",
        )

    def _warehouse(
        self, shipment_id: str, now: datetime, kind: str, lines: tuple[ShipmentLine, ...] = ()
    ) -> list[Outgoing]:
        parcel = self.parcels[shipment_id]
        event_id = self._event_id(shipment_id, parcel)
        report = g.WarehouseReported(
            event_id=event_id, shipment_id=shipment_id, kind=kind, lines=lines, occurred_at=now
        )
        return self._reported("warehouse.events", parcel, event_id, report, now)

    def _carry(self, shipment_id: str, now: datetime, kind: str, attempt: int = 0) -> list[Outgoing]:
        parcel = self.parcels[shipment_id]
        parcel.way = "failed" if kind == "failed_attempt" else kind
        event_id = self._event_id(shipment_id, parcel)
        report = g.CarrierReported(
            event_id=event_id,
            reference=shipment_id,
            kind=kind,
            tracking_number=f"T-{shipment_id[:8]}",
            attempt=attempt,
            occurred_at=now + timedelta(milliseconds=parcel.reports),
        )
        found = self._reported("carrier.events", parcel, event_id, report, now)
        late = self._held.pop(shipment_id, None)
        if late is None and _goes_on(parcel) and self.random.random() < self.disorder:
            self._held[shipment_id] = found[0]
            return []
        return [*found, late] if late else found

    @staticmethod
    def _event_id(shipment_id: str, parcel: Parcel) -> str:
        parcel.reports += 1
        return str(uuid5(NAMESPACE_URL, f"{shipment_id} {parcel.reports}"))

    def _reported(self, topic: str, parcel: Parcel, event_id: str, report: Payload, now: datetime) -> list[Outgoing]:
        message: Message[Any] = Message(
            id=event_id,
            at=now,
            actor="system:gateway",
            correlation_id=parcel.correlation_id,
            order_id=parcel.order_id,
            data=report,
        )
        times = 2 if self.random.random() < self.repeats else 1
        return [Outgoing(topic, parcel.order_id, message)] * times


def _goes_on(parcel: Parcel) -> bool:
    if parcel.pick in ("picking", "picked"):
        return True
    moves = ("booked",) if parcel.pick == "packed" else ()
    return parcel.way in (*moves, "shipped", "in_transit", "out_for_delivery", "returning")


def _answer(command: Message[Any], result: Payload) -> Outgoing:
    message: Message[Any] = Message(
        id=str(uuid5(NAMESPACE_URL, f"{type(result).__name__}:{command.id}")),
        at=command.at,
        actor="system:logistics",
        correlation_id=command.correlation_id,
        causation_id=command.id,
        order_id=command.order_id,
        data=result,
    )
    return Outgoing("shipping.results", command.order_id or "", message)
