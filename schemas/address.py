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
    """A shipping or billing address: `sealed` holds the name, street_address and city. `fingerprint` is a keyed hash of
    the whole: the same place has the same one, and nothing can be read from it."""

    sealed: Sealed
    state: str | None = None
    postal_code: str | None = None
    country: str
    fingerprint: str | None = None
