"""Names of things, derived, so that a repeat is the same thing."""

from __future__ import annotations

import hashlib

from uuid_utils import NAMESPACE_URL, UUID, uuid5


def payment_attempt_id(order_id: str, attempt: int) -> str:
    return str(uuid5(NAMESPACE_URL, f"oms:payment:{order_id}:{attempt}"))


def refund_id(attempt_id: str, count: int) -> str:
    return str(uuid5(NAMESPACE_URL, f"oms:refund:{attempt_id}:{count}"))


def edit_id(order_id: str, count: int) -> str:
    return str(uuid5(NAMESPACE_URL, f"oms:edit:{order_id}:{count}"))


def capture_id(attempt_id: str, count: int) -> str:
    return str(uuid5(NAMESPACE_URL, f"oms:capture:{attempt_id}:{count}"))


def rma(number: str, count: int) -> str:
    """Readable on a parcel: RMA-, the order's number, and which of its returns it is."""
    return f"RMA-{number}-{count}"


ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"


def order_number(order_id: str) -> str:
    """Short, for people, without letters that look alike: 10 of 32 signs (50 bits) of a hash of the order id."""
    try:
        seed = UUID(order_id).bytes
    except ValueError:
        seed = order_id.encode()
    number = int.from_bytes(hashlib.sha256(seed).digest()[:8], "big")
    signs = "".join(ALPHABET[number >> 5 * i & 31] for i in range(10))
    return f"{signs[:5]}-{signs[5:]}"
