"""Addresses. What names a person is sealed under the customer's key from the first message on; country, state and
postal code stay clear, because tax and shipping need them."""

from __future__ import annotations

from schemas.base import Model


class Sealed(Model):
    """AES-GCM: key id, nonce and ciphertext (both base64) of a JSON object."""

    key_id: str
    nonce: str
    ciphertext: str


class Address(Model):
    """A shipping or billing address: `sealed` holds the name, street_address and city."""

    sealed: Sealed
    state: str | None = None
    postal_code: str | None = None
    country: str
