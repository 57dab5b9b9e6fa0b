"""Cursors of lists: where the last page ended (keyset), opaque to users, and bound to the filters they came from."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson

from gateway.problems import Problem


def encode(position: list[Any], filters: Mapping[str, Any]) -> str:
    """`position`: the sort key of the last item."""
    return base64.urlsafe_b64encode(orjson.dumps([_mark(filters), *position])).decode().rstrip("=")


def decode(cursor: str, filters: Mapping[str, Any], shape: tuple[type, ...]) -> list[Any]:
    """The position in a cursor. Problem (422 at `cursor`) when it is none of ours or belongs to other filters."""
    try:
        found = orjson.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        found = None
    if (
        not isinstance(found, list)
        or len(found) != len(shape) + 1
        or found[0] != _mark(filters)
        or not all(type(value) is kind for value, kind in zip(found[1:], shape, strict=True))
    ):
        raise Problem(
            "invalid-cursor",
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "This cursor does not belong to this list with these filters.",
            field="cursor",
        )
    return found[1:]


def _mark(filters: Mapping[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(filters, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]
