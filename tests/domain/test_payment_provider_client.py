"""A payment provider's answers as outcomes: what it said, and never more."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from processors.payment.client import (
    authorization_outcome,
    capture_outcome,
    charge_outcome,
    found_authorization,
    found_capture,
    found_charge,
    found_refund,
    found_void,
    refund_outcome,
    void_outcome,
)
from processors.payment.provider import (
    Authorized,
    Captured,
    CaptureMade,
    CaptureRefused,
    Declined,
    NotFound,
    ProviderUnavailable,
    Refunded,
    RefundRefused,
    Unknown,
    Voided,
    VoidRefused,
)
from sandbox.payment_provider import has_card_number

CHARGE = {"id": "ch_1", "amount": 5, "currency": "EUR", "reference": "o"}
UNTIL = datetime(2026, 3, 8, tzinfo=UTC)
READERS = [
    charge_outcome,
    found_charge,
    authorization_outcome,
    found_authorization,
    capture_outcome,
    found_capture,
    void_outcome,
    found_void,
    refund_outcome,
    found_refund,
]


def answer(**fields: object) -> bytes:
    return orjson.dumps(CHARGE | fields)


def refusal(code: str) -> bytes:
    return orjson.dumps({"error": {"code": code, "message": "no"}})


@pytest.mark.parametrize(
    ("read", "status", "content", "outcome"),
    [
        (charge_outcome, 200, answer(status="captured"), Captured("ch_1", 5)),
        (charge_outcome, 200, answer(status="declined", decline_code="poor"), Declined("poor")),
        (charge_outcome, 200, answer(status="declined"), Declined("declined")),
        (charge_outcome, 200, answer(status="processing"), Unknown("processing")),
        (charge_outcome, 409, refusal("idempotency_key_reuse"), Unknown("idempotency_key_reuse")),
        (charge_outcome, 409, b"", Unknown("http_409")),
        (charge_outcome, 422, refusal("card_number"), Declined("card_number")),
        (charge_outcome, 400, refusal("invalid"), Declined("invalid")),
        (found_charge, 200, answer(status="processing"), Unknown("processing")),
        (found_charge, 200, answer(status="captured"), Captured("ch_1", 5)),
        (found_charge, 404, refusal("charge_not_found"), NotFound()),
        (refund_outcome, 200, answer(status="refunded"), Refunded("ch_1")),
        (refund_outcome, 409, refusal("amount_exceeds_refundable"), RefundRefused("amount_exceeds_refundable")),
        (refund_outcome, 409, refusal("idempotency_key_reuse"), Unknown("idempotency_key_reuse")),
        (refund_outcome, 409, b"<html>", Unknown("http_409")),
        (refund_outcome, 404, refusal("charge_not_found"), RefundRefused("charge_not_found")),
        (refund_outcome, 422, refusal("invalid_request"), RefundRefused("invalid_request")),
        (found_refund, 200, answer(status="refunded"), Refunded("ch_1")),
        (found_refund, 404, refusal("refund_not_found"), NotFound()),
        (charge_outcome, 402, refusal("card_declined"), Declined("card_declined")),
        (
            authorization_outcome,
            200,
            answer(status="authorized", expires_at="2026-03-08T00:00:00Z"),
            Authorized("ch_1", 5, UNTIL),
        ),
        (authorization_outcome, 200, answer(status="declined", decline_code="poor"), Declined("poor")),
        (authorization_outcome, 200, answer(status="processing"), Unknown("processing")),
        (authorization_outcome, 409, refusal("idempotency_key_reuse"), Unknown("idempotency_key_reuse")),
        (authorization_outcome, 422, refusal("card_number"), Declined("card_number")),
        (
            found_authorization,
            200,
            answer(status="authorized", expires_at="2026-03-08T01:00:00+01:00"),
            Authorized("ch_1", 5, UNTIL),
        ),
        (found_authorization, 200, answer(status="expired"), Declined("authorization_expired")),
        (found_authorization, 200, answer(status="voided"), Declined("authorization_voided")),
        (found_authorization, 404, refusal("authorization_not_found"), NotFound()),
        (capture_outcome, 200, answer(status="captured"), CaptureMade("ch_1", 5)),
        (capture_outcome, 402, refusal("capture_declined"), CaptureRefused("capture_declined")),
        (capture_outcome, 404, refusal("authorization_not_found"), CaptureRefused("authorization_not_found")),
        (capture_outcome, 409, refusal("authorization_expired"), CaptureRefused("authorization_expired")),
        (capture_outcome, 409, refusal("idempotency_key_reuse"), Unknown("idempotency_key_reuse")),
        (found_capture, 200, answer(status="captured"), CaptureMade("ch_1", 5)),
        (found_capture, 404, refusal("capture_not_found"), NotFound()),
        (void_outcome, 200, answer(status="voided"), Voided()),
        (void_outcome, 409, refusal("authorization_declined"), VoidRefused("authorization_declined")),
        (void_outcome, 404, refusal("authorization_not_found"), VoidRefused("authorization_not_found")),
        (found_void, 200, answer(status="voided"), Voided()),
        (found_void, 404, refusal("void_not_found"), NotFound()),
    ],
)
def test_an_answer_is_what_the_provider_said(
    read: Callable[[int, bytes], Any], status: int, content: bytes, outcome: object
) -> None:
    assert read(status, content) == outcome


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("status", "content"),
    [
        (302, b""),
        (400, b"<html>Bad Request</html>"),
        (401, refusal("unauthorized")),
        (403, b""),
        (404, b"<html>"),
        (404, refusal("not_found")),
        (405, refusal("method_not_allowed")),
    ],
)
def test_what_a_proxy_or_a_wrong_address_says_is_no_outcome(
    read: Callable[[int, bytes], Any], status: int, content: bytes
) -> None:
    with pytest.raises(ProviderUnavailable):
        read(status, content)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "content",
    [b"", b"ok", b"{}", answer(status="thinking"), answer(status="captured", id=None), answer(status="authorized")],
)
def test_a_success_that_cannot_be_read_is_no_success(read: Callable[[int, bytes], Any], content: bytes) -> None:
    with pytest.raises(Exception, match="unreadable_answer"):
        read(200, content)


@pytest.mark.parametrize(
    ("text", "card"),
    [
        ("4111111111111111", True),
        ("4111 1111 1111 1111", True),
        ("tok 2026 4111-1111-1111-1111", False),  # 20 digits, grouped: not the shape of a card number
        ("tok_2026_4111-1111-1111-1111", True),
        ("378282246310005", True),
        ("4222222222222", True),
        ("6304000000000000000", True),
        ("4111111111111112", False),
        ("41111111111111111111111", False),
        ("pm_card_visa", False),
        ("1c9e6679-7425-40de-944b-e07fc1f90ae7", False),
        ("", False),
    ],
)
def test_a_card_number_is_13_to_19_digits_that_pass_luhn(text: str, card: bool) -> None:
    assert has_card_number(text) is card
