"""What the payment worker says for what a provider said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from processors.payment import rules
from processors.payment.provider import (
    Captured,
    ChargeOutcome,
    Declined,
    NotFound,
    Refunded,
    RefundOutcome,
    RefundRefused,
    Unknown,
)
from schemas.base import Message, Payload
from schemas.codec import decode, encode
from schemas.payment import (
    ChargePayment,
    PaymentCaptured,
    PaymentDeclined,
    PaymentNotMade,
    PaymentRefunded,
    PaymentUnknown,
    QueryPayment,
    RefundFailed,
    RefundPayment,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
CHARGE = ChargePayment(
    attempt_id="a1", amount=1290, currency="EUR", payment_token="pm_card_visa", valid_until=NOW + timedelta(minutes=10)
)
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
    assert rules.of_charge(CHARGE, outcome) == charged
    assert rules.of_charge(QUERY, outcome) == asked


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


def test_a_charge_is_submitted_before_its_time_is_over_and_not_at_it() -> None:
    assert rules.may_submit(CHARGE, CHARGE.valid_until - timedelta(microseconds=1))
    assert not rules.may_submit(CHARGE, CHARGE.valid_until)


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
