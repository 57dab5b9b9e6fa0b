"""The logistics worker: warehouse.commands and shipping.commands → the partners → shipping.results.

A booking and a return label have a result whatever happens. What becomes of a pick, and of everything else, the
partners report by themselves; a pick that the warehouse refuses becomes a dead letter.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import structlog
from uuid_utils import UUID, uuid5

from processors.kit import Outgoing
from processors.logistics.http import HttpLogistics
from processors.logistics.port import Carrier, Customs, PostalAddress, Refused, Unavailable, Warehouse
from processors.outside import Client
from runtime import workers
from runtime.keystore import Vault, vault
from runtime.settings import Settings
from schemas.address import Address
from schemas.base import Envelope, Message, Payload
from schemas.logistics import (
    BookingFailed,
    BookShipment,
    CancelPick,
    CancelShipment,
    MakeReturnLabel,
    PickShipment,
    RedeliverShipment,
    ReturnLabelFailed,
    ReturnLabelMade,
    ShipmentBooked,
)

log = structlog.get_logger(__name__)

ACTOR = "system:logistics"
RESULTS = "shipping.results"
BOOKING_ATTEMPTS = 180
"""With the runtime's backoff about 25 minutes; then a person must look."""
_RESULT_IDS = UUID("0c4c0d55-8d0e-5c53-8e15-7f0f0f6f0b1e")


def run(settings: Settings, name: str) -> None:
    """Run until SIGTERM or SIGINT. Blocks; raises as `runtime.workers.run`."""
    workers.run(settings, name, _calls)


@asynccontextmanager
async def _calls(settings: Settings) -> AsyncIterator[workers.Handle]:
    async with HttpLogistics(Client("logistics-partners", settings.logistics_url)) as partners:
        yield LogisticsWorker(partners, partners, vault(settings)).handle


class LogisticsWorker:
    def __init__(self, warehouse: Warehouse, carrier: Carrier, addresses: Vault) -> None:
        self._warehouse = warehouse
        self._carrier = carrier
        self._addresses = addresses

    async def handle(self, message: Envelope, attempt: int) -> Sequence[Outgoing]:
        """One command to a partner; its result, of those that have one.

        Raises:
            workers.TryLater: the partner did not take it, and there is still time.
            ValueError: no command to a logistics worker, or a pick that the warehouse refuses.
        """
        if not isinstance(message, Message) or message.order_id is None:
            raise ValueError(f"a {type(message.data).__name__} without an order_id is no logistics command")
        order_id = message.order_id
        match message.data:
            case PickShipment() as command:
                refused = await _asked(self._warehouse.pick(command.shipment_id, order_id, command.lines))
                if refused is not None:
                    raise ValueError(f"the warehouse refuses to pick shipment {command.shipment_id}: {refused.code}")
                return []
            case CancelPick() as command:
                await _told(self._warehouse.cancel_pick(command.shipment_id), "cancel pick", command.shipment_id)
                return []
            case CancelShipment() as command:
                await _told(self._carrier.cancel(command.shipment_id), "cancel shipment", command.shipment_id)
                return []
            case RedeliverShipment() as command:
                again = self._carrier.redeliver(command.shipment_id, command.attempt)
                await _told(again, "redeliver", command.shipment_id)
                return []
            case BookShipment() as command:
                result = await self._book(command, order_id, attempt)
            case MakeReturnLabel() as command:
                result = await self._label(command, order_id, attempt)
            case other:
                raise ValueError(f"a logistics worker knows no {type(other).__name__}")
        return [_answer(message, order_id, result, datetime.now(UTC))]

    async def _book(self, command: BookShipment, order_id: str, attempt: int) -> Payload:
        def failed(code: str) -> BookingFailed:
            return BookingFailed(shipment_id=command.shipment_id, code=code)

        try:
            address = await self._open(command.address)
            if address is None:
                return failed("address_forgotten")
            outcome = await self._carrier.book(
                command.shipment_id,
                order_id,
                command.shipping_method,
                address,
                command.weight_grams,
                _customs(command),
            )
        except Unavailable as unavailable:
            _try_later(unavailable, attempt)
            return failed("no_answer")
        except Exception as error:
            # A person who sees why is better than an order that waits for a dead letter.
            log.exception("book", shipment_id=command.shipment_id)
            return failed(f"internal: {type(error).__name__}")
        if isinstance(outcome, Refused):
            return failed(outcome.code)
        return ShipmentBooked(
            shipment_id=command.shipment_id,
            carrier=outcome.carrier,
            tracking_number=outcome.tracking_number,
            tracking_url=outcome.tracking_url,
            estimated_delivery=outcome.estimated_delivery,
        )

    async def _label(self, command: MakeReturnLabel, order_id: str, attempt: int) -> Payload:
        def failed(code: str) -> ReturnLabelFailed:
            return ReturnLabelFailed(rma=command.rma, code=code)

        try:
            address = await self._open(command.address)
            if address is None:
                return failed("address_forgotten")
            outcome = await self._carrier.label(command.rma, order_id, address)
        except Unavailable as unavailable:
            _try_later(unavailable, attempt)
            return failed("no_answer")
        except Exception as error:
            log.exception("label", rma=command.rma)
            return failed(f"internal: {type(error).__name__}")
        if isinstance(outcome, Refused):
            return failed(outcome.code)
        return ReturnLabelMade(
            rma=command.rma,
            carrier=outcome.carrier,
            tracking_number=outcome.tracking_number,
            label_url=outcome.label_url,
        )

    async def _open(self, address: Address) -> PostalAddress | None:
        """None when the customer's key was erased. ValueError when the envelope was tampered with."""
        if self._addresses.knows_key(address.sealed.key_id):
            personal = self._addresses.open(address.sealed)
        else:
            personal = await asyncio.to_thread(self._addresses.open, address.sealed)
        if personal is None:
            return None
        return PostalAddress(
            name=personal["name"],
            street_address=personal["street_address"],
            city=personal["city"],
            state=address.state,
            postal_code=address.postal_code,
            country=address.country,
        )


def _customs(command: BookShipment) -> Customs | None:
    if not command.customs:
        return None
    return Customs(command.incoterm or "DAP", command.currency, command.customs)


async def _asked(request: Awaitable[Refused | None]) -> Refused | None:
    try:
        return await request
    except Unavailable as unavailable:
        raise workers.TryLater(str(unavailable)) from unavailable


async def _told(request: Awaitable[Refused | None], what: str, shipment_id: str) -> None:
    """Ask for what may come too late: then what happens anyway is reported."""
    if (refused := await _asked(request)) is not None:
        log.info("refused", what=what, shipment_id=shipment_id, code=refused.code)


def _try_later(unavailable: Unavailable, attempt: int) -> None:
    if attempt + 1 < BOOKING_ATTEMPTS:
        raise workers.TryLater(str(unavailable)) from unavailable


def _answer(command: Message[Payload], order_id: str, result: Payload, at: datetime) -> Outgoing:
    """The result on its way to the saga. Its id derives from the command's, so that a repeat is the same result."""
    message: Message[Payload] = Message(
        id=str(uuid5(_RESULT_IDS, f"{command.id}/{type(result).__name__}")),
        at=at,
        actor=ACTOR,
        correlation_id=command.correlation_id,
        causation_id=command.id,
        order_id=order_id,
        data=result,
    )
    return Outgoing(RESULTS, order_id, message)
