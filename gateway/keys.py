"""Sealing of addresses on the way in, opening on the way out. The event loop never waits for the key store: what the
vault does not remember is fetched in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from gateway.models import BillingAddressBody, ShippingAddressBody
from runtime.keystore import Vault
from schemas.address import Address, Sealed
from schemas.order import Order


class Addresses:
    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def seal(self, customer_id: str, body: ShippingAddressBody | BillingAddressBody) -> Address:
        """An address as messages carry it. Both kinds seal {name, street_address, city}."""
        name = body.recipient_name if isinstance(body, ShippingAddressBody) else body.name
        personal = {"name": name, "street_address": body.street_address, "city": body.city}
        place = "\n".join([body.street_address, body.city, body.postal_code or "", body.country]).casefold()
        if self._vault.knows(customer_id) and self._vault.can_fingerprint:
            sealed, fingerprint = self._seal(customer_id, personal, place)
        else:
            sealed, fingerprint = await asyncio.to_thread(self._seal, customer_id, personal, place)
        return Address(
            sealed=sealed,
            state=body.state,
            postal_code=body.postal_code,
            country=body.country,
            fingerprint=fingerprint,
        )

    def _seal(self, customer_id: str, personal: dict[str, str], place: str) -> tuple[Sealed, str]:
        return self._vault.seal(customer_id, personal), self._vault.fingerprint(place)

    async def seal_data(self, customer_id: str, data: dict[str, Any]) -> Sealed:
        return await asyncio.to_thread(self._vault.seal, customer_id, data)

    async def open_data(self, sealed: Sealed) -> dict[str, Any] | None:
        """What was sealed; None once the customer's key was erased."""
        return await asyncio.to_thread(self._vault.open, sealed)

    async def prepare(self, orders: Iterable[Order]) -> None:
        """Fetch the keys that `open` will need for these orders."""
        await self.prepare_addresses(
            address
            for order in orders
            for address in (order.shipping_address, order.billing_address)
            if address is not None
        )

    async def prepare_addresses(self, addresses: Iterable[Address]) -> None:
        unknown = {a.sealed.key_id: a for a in addresses if not self._vault.knows_key(a.sealed.key_id)}
        if unknown:
            await asyncio.to_thread(lambda: [self._vault.open(a.sealed) for a in unknown.values()])

    def open(self, address: Address | None, name_field: str) -> dict[str, Any] | None:
        """An address as users see it; the personal fields are null once the customer's key was erased."""
        if address is None:
            return None
        personal = self._vault.open(address.sealed) or {}
        return {
            name_field: personal.get("name"),
            "street_address": personal.get("street_address"),
            "city": personal.get("city"),
            "state": address.state,
            "postal_code": address.postal_code,
            "country": address.country,
        }
