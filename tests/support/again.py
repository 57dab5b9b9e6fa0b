"""What the sink makes of a message, and what a rebuild makes of it that doesn't validate it once more: the same."""

from __future__ import annotations

from typing import Any

from processors.sinks.views import VIEWS, Make
from schemas import trusted
from schemas.address import Sealed
from schemas.base import Envelope
from schemas.codec import validated

TOPICS = sorted({topic for view in VIEWS.values() for topic in view.sources})
AT = 1_772_445_600_123


def somebody(sealed: Sealed) -> dict[str, Any]:
    return {"name": sealed.key_id, "street_address": sealed.nonce, "city": sealed.ciphertext}


def assert_the_same_rows(topic: str, raw: bytes) -> None:
    first, again = validated(raw), trusted.decode(raw)
    assert again.model_dump() == first.model_dump()
    assert type(again.data) is type(first.data)
    for view in VIEWS.values():
        if make := view.sources.get(topic):
            assert _outcome(make, again, raw) == _outcome(make, first, raw), view.name


def _outcome(make: Make, message: Envelope, raw: bytes) -> list[Any] | str:
    """Its rows, or why it is poison."""
    try:
        return make(message, raw, AT, somebody)
    except ValueError as error:
        return str(error)
