"""Ids that derive from a request, so that its repeat meets the same order and the same remembered outcome."""

from __future__ import annotations

from uuid import UUID, uuid5

import orjson
import uuid_utils

NAMESPACE = UUID("6f0d7a52-2f0e-5d5c-9d0b-0e5f5c1b7a10")


def command_id(actor: str, method: str, path: str, key: str | None) -> str:
    """uuid5(caller, method, path, idempotency key); without a key every request is one of its own."""
    if key is None:
        return str(uuid_utils.uuid7())
    return str(uuid5(NAMESPACE, orjson.dumps([actor, method, path, key]).decode()))


def order_id_of(command: str) -> str:
    """The order that this command creates."""
    return str(uuid5(UUID(command), "order"))


def requote_id(command: str, attempt: int) -> str:
    """The id of the same request sent again with newer quotes."""
    return str(uuid5(UUID(command), f"requote-{attempt}"))


def is_uuid(text: str) -> bool:
    """Whether this is a UUID as we write them."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
