"""What answers of a warehouse or a carrier mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from processors.logistics.http import booked, done, labelled
from processors.logistics.port import Booked, Label, Refused
from processors.outside import Unavailable

BOOKED = b'{"carrier": "Post", "tracking_number": "T1", "tracking_url": "http://t", "status": "booked"}'
LABEL = b'{"carrier": "Post", "tracking_number": "T1", "label_url": "http://l"}'
OWN_WORDS = b'{"error": {"code": "too_late", "message": "It has left."}}'


@pytest.mark.parametrize(
    ("read", "status", "content", "outcome"),
    [
        (done, 200, b"{}", None),
        (done, 204, b"", None),
        (done, 409, OWN_WORDS, Refused("too_late")),
        (done, 404, OWN_WORDS, Refused("too_late")),
        (booked, 200, BOOKED, Booked("Post", "T1", "http://t", None)),
        (booked, 422, OWN_WORDS, Refused("too_late")),
        (labelled, 200, LABEL, Label("Post", "T1", "http://l")),
        (labelled, 400, OWN_WORDS, Refused("too_late")),
    ],
)
def test_an_answer_is_what_the_partner_said(
    read: Callable[[int, bytes], Any], status: int, content: bytes, outcome: object
) -> None:
    assert read(status, content) == outcome


@pytest.mark.parametrize("read", [done, booked, labelled])
@pytest.mark.parametrize(
    ("status", "content"),
    [
        (404, b"<html>no such page</html>"),
        (422, b"{}"),
        (401, OWN_WORDS),
        (403, OWN_WORDS),
        (302, b""),
        (409, b'{"error": "no"}'),
    ],
)
def test_what_a_proxy_or_a_wrong_address_says_is_no_outcome(
    read: Callable[[int, bytes], Any], status: int, content: bytes
) -> None:
    with pytest.raises(Unavailable):
        read(status, content)


@pytest.mark.parametrize("content", [b"", b"ok", b'{"carrier": "Post"}', b"[]", b'{"carrier": null}'])
@pytest.mark.parametrize("read", [booked, labelled])
def test_a_success_that_cannot_be_read_is_no_success(read: Callable[[int, bytes], Any], content: bytes) -> None:
    with pytest.raises(Unavailable):
        read(200, content)
