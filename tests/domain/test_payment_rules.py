"""What the payment worker says for what a provider said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from processors.payment import rules
from processors.payment.provider import (
    AuthorizationOutcome,
    Authorized,
    Captured,
    CaptureMade,
    CaptureOutcome,
    CaptureRefused,
    ChargeOutcome,
    Declined,
    NotFound,
    Refunded,
    RefundOutcome,
    RefundRefused,
    Unknown,
    Voided,
    VoidOutcome,
    VoidRefused,
)
from schemas.base import Message, Payload
from schemas.codec import decode, encode
from schemas.payment import (
    AuthorizePayment,
    CapturePayment,
    ChargePayment,
    PaymentAuthorized,
    PaymentCaptured,
    PaymentCaptureFailed,
    PaymentCaptureMade,
    PaymentDeclined,
    PaymentNotMade,
    PaymentRefunded,
    PaymentUnknown,
    PaymentVoided,
    PaymentVoidFailed,
    QueryPayment,
    RefundFailed,
    RefundPayment,
    VoidPayment,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
CHARGE = ChargePayment(
    attempt_id="a1", amount=1290, currency="EUR", payment_token="pm_card_visa", valid_until=NOW + timedelta(minutes=10)
)
AUTHORIZE = AuthorizePayment(**CHARGE.model_dump())
CAPTURE = CapturePayment(attempt_id="a1", capture_id="c1", amount=500, currency="EUR")
VOID = VoidPayment(attempt_id="a1")
QUERY = QueryPayment(attempt_id="a1", amount=1290, currency="EUR", asked=3)
REFUND = RefundPayment(refund_id="r1", attempt_id="a1", amount=290, currency="EUR")


@pytest.mark.parametrize(
    ("outcome", "charged", "asked"),
    [
        (
            Captured("ch_1", 1290),
            PaymentCaptured(attempt_id="a1", amount=1290, currency="EUR", provider_ref="ch_1"),
            PaymentCaptured(attempt_id="a1", amount=1290, currency="EUR", provider_ref="ch_1"),
        ),
        # Another amount than was asked for is reported as it is.
        (
            Captured("ch_1", 1),
            PaymentCaptured(attempt_id="a1", amount=1, currency="EUR", provider_ref="ch_1"),
            PaymentCaptured(attempt_id="a1", amount=1, currency="EUR", provider_ref="ch_1"),
        ),
        (
            Declined("card_declined"),
            PaymentDeclined(attempt_id="a1", code="card_declined"),
            PaymentDeclined(attempt_id="a1", code="card_declined"),
        ),
        (NotFound(), PaymentNotMade(attempt_id="a1"), PaymentNotMade(attempt_id="a1")),
        (
            Unknown("timeout"),
            PaymentUnknown(attempt_id="a1", amount=1290, currency="EUR", reason="timeout", asked=0),
            PaymentUnknown(attempt_id="a1", amount=1290, currency="EUR", reason="timeout", asked=3),
        ),
    ],
)
def test_every_outcome_of_a_charge_has_a_result(outcome: ChargeOutcome, charged: Payload, asked: Payload) -> None:
    assert rules.of_attempt(CHARGE, outcome) == charged
    assert rules.of_attempt(QUERY, outcome) == asked


@pytest.mark.parametrize("command", [AUTHORIZE, QUERY])
@pytest.mark.parametrize(
    ("outcome", "result"),
    [
        (
            Authorized("au_1", 1200, NOW),
            PaymentAuthorized(attempt_id="a1", amount=1200, currency="EUR", provider_ref="au_1", expires_at=NOW),
        ),
        (Declined("poor"), PaymentDeclined(attempt_id="a1", code="poor")),
        (NotFound(), PaymentNotMade(attempt_id="a1")),
    ],
)
def test_every_outcome_of_an_authorization_has_a_result(
    command: AuthorizePayment | QueryPayment, outcome: AuthorizationOutcome, result: Payload
) -> None:
    assert rules.of_attempt(command, outcome) == result


@pytest.mark.parametrize(
    ("outcome", "result"),
    [
        (
            CaptureMade("ca_1", 499),
            PaymentCaptureMade(attempt_id="a1", capture_id="c1", amount=499, currency="EUR", provider_ref="ca_1"),
        ),
        (
            CaptureRefused("authorization_expired"),
            PaymentCaptureFailed(attempt_id="a1", capture_id="c1", amount=500, code="authorization_expired"),
        ),
        (Unknown("timeout"), None),
    ],
)
def test_a_capture_is_made_refused_or_tried_again(outcome: CaptureOutcome, result: Payload | None) -> None:
    assert rules.of_capture(CAPTURE, outcome) == result


@pytest.mark.parametrize(
    ("outcome", "result"),
    [
        (Voided(), PaymentVoided(attempt_id="a1")),
        (VoidRefused("authorization_not_found"), PaymentVoidFailed(attempt_id="a1", code="authorization_not_found")),
        (Unknown("timeout"), None),
    ],
)
def test_a_void_is_done_refused_or_tried_again(outcome: VoidOutcome, result: Payload | None) -> None:
    assert rules.of_void(VOID, outcome) == result


@pytest.mark.parametrize(
    ("outcome", "result"),
    [
        (
            Refunded("re_1"),
            PaymentRefunded(refund_id="r1", attempt_id="a1", amount=290, currency="EUR", provider_ref="re_1"),
        ),
        (RefundRefused("too_much"), RefundFailed(refund_id="r1", attempt_id="a1", amount=290, code="too_much")),
        (Unknown("timeout"), None),
    ],
)
def test_a_refund_is_done_refused_or_tried_again(outcome: RefundOutcome, result: Payload | None) -> None:
    assert rules.of_refund(REFUND, outcome) == result


@pytest.mark.parametrize("command", [CHARGE, AUTHORIZE])
def test_an_attempt_is_submitted_before_its_time_is_over_and_not_at_it(
    command: ChargePayment | AuthorizePayment,
) -> None:
    assert rules.may_submit(command, command.valid_until - timedelta(microseconds=1))
    assert not rules.may_submit(command, command.valid_until)


def test_the_same_result_of_a_command_has_the_same_id() -> None:
    command: Message[Payload] = Message(
        id="m1", at=NOW, actor="system:placement", correlation_id="c1", order_id="o1", data=CHARGE
    )
    declined = PaymentDeclined(attempt_id="a1", code="card_declined")
    first, repeat = (rules.answer(command, "o1", declined, NOW + timedelta(seconds=n)).message for n in (1, 9))
    other = rules.answer(command, "o1", PaymentNotMade(attempt_id="a1"), NOW).message
    assert first.id == repeat.id != other.id
    assert isinstance(first, Message)
    assert (first.order_id, first.correlation_id, first.causation_id, first.actor) == ("o1", "c1", "m1", rules.ACTOR)
    assert decode(encode(first)) == first
    outgoing = rules.answer(command, "o1", declined, NOW)
    assert (outgoing.topic, outgoing.key) == ("payment.results", "o1")
