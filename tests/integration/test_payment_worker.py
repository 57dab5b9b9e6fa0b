"""The payment worker on a real broker and against the real sandbox provider: one charge for each command, and a
result whatever happens."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from runtime import kafka
from runtime.settings import Settings
from schemas.base import Message, Payload
from schemas.codec import decode, encode
from schemas.operations import DeadLettered
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
from tests.support.parts import free_port, oms_run, payment_provider, until

pytestmark = pytest.mark.stack


class Rig:
    """Commands in, results out; the provider at `url`, with a ledger of its own. Tests share the topics, and a worker
    may repeat what the one before it left: only results of, and charges for, this rig's own commands are seen."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.sent: set[str] = set()
        self.attempts: set[str] = set()
        self.results: list[Message[Any]] = []
        self.letters: list[Message[Any]] = []
        self._producer = kafka.producer(settings)
        self._consumer = from_the_end(settings, "payment.results", "dead.letters")

    def worker(self) -> Any:
        return oms_run("payment", self.settings, self.folder, OMS_PAYMENT_URL=self.url)

    def provider(self) -> Any:
        return payment_provider(self.folder, self.port)

    def command(self, data: Payload, order_id: str | None = None) -> Message[Any]:
        order_id = order_id or str(uuid4())
        return Message(
            id=str(uuid4()),
            at=datetime.now(UTC),
            actor="system:placement",
            correlation_id=f"request-of-{order_id}",
            order_id=order_id,
            data=data,
        )

    def send(self, *commands: Message[Any]) -> None:
        for command in commands:
            assert command.order_id is not None
            self.sent.add(command.id)
            self.attempts.add(command.data.attempt_id)
            self._producer.produce("payment.commands", key=command.order_id.encode(), value=encode(command))
        assert self._producer.flush(20) == 0

    def raw(self, key: bytes | None, value: bytes | None) -> None:
        self._producer.produce("payment.commands", key=key, value=value)
        assert self._producer.flush(20) == 0

    def wait(self, done: Callable[[], bool], timeout: float = 30) -> None:
        def look() -> bool:
            self._drain()
            return done()

        until(look, f"results, {len(self.results)} so far", timeout)

    def answer(self, command: Message[Any], timeout: float = 30) -> Message[Any]:
        """The first result of a command."""
        self.wait(lambda: bool(self.answers(command)), timeout)
        return self.answers(command)[0]

    def answers(self, command: Message[Any]) -> list[Message[Any]]:
        return [result for result in self.results if result.causation_id == command.id]

    def ask(self, data: Payload, order_id: str | None = None, timeout: float = 30) -> Payload:
        command = self.command(data, order_id)
        self.send(command)
        payload: Payload = self.answer(command, timeout).data
        return payload

    def ledger(self) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = []
        after: int | None = 0
        while after is not None:
            page = httpx.get(f"{self.url}/v1/ledger", params={"after": after}, timeout=10).json()
            lines += [line for line in page["items"] if line["attempt_id"] in self.attempts]
            after = page["next"]
        return lines

    def outage(self, seconds: float) -> None:
        httpx.post(f"{self.url}/sandbox/outage", json={"seconds": seconds}, timeout=10).raise_for_status()

    def close(self) -> None:
        self._consumer.close()

    def _drain(self) -> None:
        while (record := self._consumer.poll(0.02)) is not None:
            assert record.error() is None, record.error()
            message = decode(record.value())
            assert isinstance(message, Message)
            if record.topic() == "dead.letters":
                self.letters.append(message)
            elif message.causation_id in self.sent:
                assert record.key() == str(message.order_id).encode()
                self.results.append(message)


def from_the_end(settings: Settings, *topics: str) -> Consumer:
    """A consumer of what comes from now on."""
    consumer = kafka.consumer(settings, f"test-{uuid4()}")
    there = consumer.list_topics(timeout=10).topics
    ends = []
    for topic in topics:
        for number in there[topic].partitions:
            partition = TopicPartition(topic, number)

            def end(partition: TopicPartition = partition) -> tuple[int] | None:
                try:
                    return (consumer.get_watermark_offsets(partition, timeout=10)[1],)
                except KafkaException as error:
                    # The topic is so new that this client has yet to hear who leads it.
                    if error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION:
                        raise
                    return None

            (partition.offset,) = until(end, f"the end of {topic}")
            ends.append(partition)
    consumer.assign(ends)
    return consumer


def charge(token: str = "pm_card_visa", amount: int = 1290, within: float = 60) -> ChargePayment:
    return ChargePayment(
        attempt_id=str(uuid4()),
        amount=amount,
        currency="EUR",
        payment_token=token,
        valid_until=datetime.now(UTC) + timedelta(seconds=within),
    )


def authorize(token: str = "pm_card_visa", amount: int = 1290, within: float = 60) -> AuthorizePayment:
    return AuthorizePayment(**charge(token, amount, within).model_dump())


@pytest.fixture
def rig(broker: Settings, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(broker, tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_every_token_has_its_result(rig: Rig) -> None:
    with rig.provider(), rig.worker() as worker:
        tokens = ("pm_card_visa", "pm_card_chargeDeclined", "pm_sandbox_flaky", "pm_sandbox_slow", "pm_sandbox_timeout")
        commands = {token: rig.command(charge(token)) for token in tokens}
        rig.send(*commands.values())
        found = {token: rig.answer(command) for token, command in commands.items()}

        visa = found["pm_card_visa"]
        command = commands["pm_card_visa"]
        assert isinstance(visa.data, PaymentCaptured)
        assert (visa.data.attempt_id, visa.data.amount, visa.data.currency) == (command.data.attempt_id, 1290, "EUR")
        assert (visa.order_id, visa.correlation_id) == (command.order_id, command.correlation_id)
        assert visa.actor == "system:payment"
        assert found["pm_card_chargeDeclined"].data == PaymentDeclined(
            attempt_id=commands["pm_card_chargeDeclined"].data.attempt_id, code="card_declined"
        )
        assert isinstance(found["pm_sandbox_flaky"].data, PaymentCaptured)
        assert isinstance(found["pm_sandbox_slow"].data, PaymentCaptured)
        silent = found["pm_sandbox_timeout"].data
        assert isinstance(silent, PaymentUnknown)
        assert silent.asked == 0

        # Asked later: still nothing, then it was captured after all.
        attempt = commands["pm_sandbox_timeout"].data.attempt_id
        query = QueryPayment(attempt_id=attempt, amount=1290, currency="EUR", asked=2)
        order_id = commands["pm_sandbox_timeout"].order_id
        again = rig.ask(query, order_id)
        assert isinstance(again, PaymentUnknown)
        assert again.asked == 2
        httpx.post(f"{rig.url}/sandbox/charges/{attempt}/settle", json={"status": "captured"}).raise_for_status()
        assert isinstance(rig.ask(query, order_id), PaymentCaptured)

        # Money back, and what can't be given back.
        refund = RefundPayment(refund_id=str(uuid4()), attempt_id=attempt, amount=1000, currency="EUR")
        refunded = rig.ask(refund, order_id)
        assert isinstance(refunded, PaymentRefunded)
        assert (refunded.refund_id, refunded.amount) == (refund.refund_id, 1000)
        too_much = rig.ask(refund.model_copy(update={"refund_id": str(uuid4())}), order_id)
        assert isinstance(too_much, RefundFailed)
        assert too_much.code == "amount_exceeds_refundable"

        never = QueryPayment(attempt_id=str(uuid4()), amount=1, currency="EUR", asked=1)
        assert rig.ask(never) == PaymentNotMade(attempt_id=never.attempt_id)

        assert worker.stop() < 5
        assert worker.exit_code == 0


def test_an_authorization_is_made_captured_in_parts_and_voided(rig: Rig) -> None:
    with rig.provider(), rig.worker():
        order_id = str(uuid4())
        command = authorize()
        attempt = command.attempt_id
        authorized = rig.ask(command, order_id)
        assert isinstance(authorized, PaymentAuthorized)
        assert (authorized.attempt_id, authorized.amount, authorized.currency) == (attempt, 1290, "EUR")
        assert timedelta(days=6) < authorized.expires_at - datetime.now(UTC) < timedelta(days=8)
        # The question does not say whether it was a charge or an authorization.
        query = QueryPayment(attempt_id=attempt, amount=1290, currency="EUR", asked=1)
        assert rig.ask(query, order_id) == authorized

        capture = CapturePayment(attempt_id=attempt, capture_id=str(uuid4()), amount=500, currency="EUR")
        made = rig.ask(capture, order_id)
        assert isinstance(made, PaymentCaptureMade)
        assert (made.attempt_id, made.capture_id, made.amount) == (attempt, capture.capture_id, 500)
        assert rig.ask(capture, order_id) == made
        too_much = capture.model_copy(update={"capture_id": str(uuid4()), "amount": 791})
        assert rig.ask(too_much, order_id) == PaymentCaptureFailed(
            attempt_id=attempt, capture_id=too_much.capture_id, amount=791, code="amount_exceeds_authorized"
        )
        assert rig.ask(VoidPayment(attempt_id=attempt), order_id) == PaymentVoided(attempt_id=attempt)
        late = capture.model_copy(update={"capture_id": str(uuid4())})
        failed = rig.ask(late, order_id)
        assert isinstance(failed, PaymentCaptureFailed)
        assert failed.code == "authorization_voided"
        refund = RefundPayment(refund_id=str(uuid4()), attempt_id=attempt, amount=500, currency="EUR")
        assert isinstance(rig.ask(refund, order_id), PaymentRefunded)
        assert [(line["kind"], line["amount"]) for line in rig.ledger()] == [
            ("authorization", 1290),
            ("capture", 500),
            ("void", 790),
            ("refund", 500),
        ]


def test_authorizations_that_come_to_nothing(rig: Rig) -> None:
    with rig.provider(), rig.worker():
        declined = authorize("pm_card_chargeDeclined")
        assert rig.ask(declined) == PaymentDeclined(attempt_id=declined.attempt_id, code="card_declined")
        never = authorize(within=-1)
        assert rig.ask(never) == PaymentNotMade(attempt_id=never.attempt_id)
        nothing = VoidPayment(attempt_id=never.attempt_id)
        assert rig.ask(nothing) == PaymentVoidFailed(attempt_id=never.attempt_id, code="authorization_not_found")

        expired = authorize()
        assert isinstance(rig.ask(expired), PaymentAuthorized)
        httpx.post(f"{rig.url}/sandbox/authorizations/{expired.attempt_id}/expire").raise_for_status()
        capture = CapturePayment(attempt_id=expired.attempt_id, capture_id=str(uuid4()), amount=1, currency="EUR")
        failed = rig.ask(capture)
        assert isinstance(failed, PaymentCaptureFailed)
        assert failed.code == "authorization_expired"
        query = QueryPayment(attempt_id=expired.attempt_id, amount=1290, currency="EUR", asked=1)
        assert rig.ask(query) == PaymentDeclined(attempt_id=expired.attempt_id, code="authorization_expired")

        unlucky = authorize("pm_sandbox_captureFails")
        assert isinstance(rig.ask(unlucky), PaymentAuthorized)
        failed = rig.ask(capture.model_copy(update={"attempt_id": unlucky.attempt_id, "capture_id": str(uuid4())}))
        assert isinstance(failed, PaymentCaptureFailed)
        assert failed.code == "capture_declined"


def test_lost_answers_are_found_out_by_asking(rig: Rig) -> None:
    late = "pm_sandbox_reportsLate"
    with rig.provider(), rig.worker():
        order_id = str(uuid4())
        assert isinstance(rig.ask(charge(late)), PaymentCaptured)
        command = authorize(late)
        attempt = command.attempt_id
        # With breaker and backoff: the provider fails every submission of this token.
        assert isinstance(rig.ask(command, order_id), PaymentAuthorized)
        capture = CapturePayment(attempt_id=attempt, capture_id=str(uuid4()), amount=500, currency="EUR")
        assert isinstance(rig.ask(capture, order_id), PaymentCaptureMade)
        refund = RefundPayment(refund_id=str(uuid4()), attempt_id=attempt, amount=100, currency="EUR")
        assert isinstance(rig.ask(refund, order_id), PaymentRefunded)
        assert rig.ask(VoidPayment(attempt_id=attempt), order_id) == PaymentVoided(attempt_id=attempt)


def test_captures_voids_and_refunds_wait_out_an_outage(rig: Rig) -> None:
    with rig.provider(), rig.worker():
        orders = [(str(uuid4()), authorize()) for _ in range(3)]
        for order_id, command in orders:
            assert isinstance(rig.ask(command, order_id), PaymentAuthorized)
        charged = charge()
        assert isinstance(rig.ask(charged), PaymentCaptured)
        (first, a), (second, b), _ = orders
        rig.outage(3)
        sent = [
            rig.command(CapturePayment(attempt_id=a.attempt_id, capture_id="C", amount=9, currency="EUR"), first),
            rig.command(VoidPayment(attempt_id=b.attempt_id), second),
            rig.command(RefundPayment(refund_id=str(uuid4()), attempt_id=charged.attempt_id, amount=9, currency="EUR")),
        ]
        rig.send(*sent)
        kinds = [type(rig.answer(command, 40).data) for command in sent]
    assert kinds == [PaymentCaptureMade, PaymentVoided, PaymentRefunded]


def test_after_its_time_a_charge_is_only_asked_about(rig: Rig) -> None:
    with rig.provider(), rig.worker():
        made = charge()
        assert isinstance(rig.ask(made), PaymentCaptured)
        late = made.model_copy(update={"valid_until": datetime.now(UTC) - timedelta(seconds=1)})
        assert isinstance(rig.ask(late), PaymentCaptured)
        never = charge(within=-1)
        assert rig.ask(never) == PaymentNotMade(attempt_id=never.attempt_id)
        assert [line["key"] for line in rig.ledger()] == [made.attempt_id]


def test_killed_in_the_middle_of_a_burst_every_command_is_charged_once(rig: Rig) -> None:
    commands = [rig.command(charge(amount=100 + n)) for n in range(300)]
    with rig.provider():
        with rig.worker() as worker:
            rig.send(*commands)
            rig.wait(lambda: len(rig.results) >= 40)
            worker.kill()
        with rig.worker() as worker:
            rig.wait(lambda: len(rig.results) >= 150)
            worker.kill()
        with rig.worker():
            rig.wait(lambda: all(rig.answers(command) for command in commands), 60)
        charged = Counter(line["key"] for line in rig.ledger())
        assert charged == Counter(command.data.attempt_id for command in commands)
    for command in commands:
        assert {(r.id, r.data) for r in rig.answers(command)} == {
            (rig.answers(command)[0].id, rig.answers(command)[0].data)
        }
        assert rig.answers(command)[0].data.amount == command.data.amount


def test_a_provider_that_is_down_delays_and_loses_nothing(rig: Rig) -> None:
    patient = [rig.command(charge(within=120)) for _ in range(20)]
    hurried = rig.command(charge(within=2))
    with rig.worker():
        rig.send(*patient, hurried)
        # Nobody there: the one whose time is over gets its result, without an answer of the provider.
        assert isinstance(rig.answer(hurried, 30).data, PaymentUnknown)
        assert len(rig.results) == 1
        with rig.provider():
            rig.wait(lambda: all(rig.answers(command) for command in patient), 60)
            assert all(isinstance(rig.answer(command).data, PaymentCaptured) for command in patient)
            assert len(rig.ledger()) == len(patient)


def test_what_waits_for_a_retry_stops_with_the_worker_and_goes_on_with_the_next(rig: Rig) -> None:
    command = rig.command(charge(within=120))
    with rig.worker() as worker:
        rig.send(command)
        time.sleep(1.5)
        assert worker.stop() < 5
        assert worker.exit_code == 0
    with rig.provider(), rig.worker():
        assert isinstance(rig.answer(command).data, PaymentCaptured)


def test_poison_becomes_a_dead_letter_and_the_rest_flows_on(rig: Rig) -> None:
    order_id = str(uuid4())
    with rig.provider(), rig.worker():
        rig.raw(order_id.encode(), b"not a message")
        rig.raw(None, None)
        rig.raw(b"\xff\xfe", encode(rig.command(QueryPayment(attempt_id="a", amount=1, currency="EUR", asked=1))))
        command = rig.command(charge(), order_id)
        rig.send(command)
        assert isinstance(rig.answer(command).data, PaymentCaptured)
        rig.wait(lambda: len(rig.letters) >= 2)
    letters = {letter.data.key: letter.data for letter in rig.letters}
    assert set(letters) == {order_id.encode(), None}
    letter = letters[order_id.encode()]
    assert isinstance(letter, DeadLettered)
    assert (letter.processor, letter.topic, letter.reason) == ("payment", "payment.commands", "undecodable")
    assert letter.value == b"not a message"
    assert letters[None].value is None


def test_commands_of_one_order_are_done_in_order(rig: Rig) -> None:
    order_id = str(uuid4())
    with rig.provider(), rig.worker():
        slow = rig.command(charge("pm_sandbox_slow"), order_id)
        query = QueryPayment(attempt_id=slow.data.attempt_id, amount=1290, currency="EUR", asked=1)
        asked = rig.command(query, order_id)
        other = rig.command(charge())
        rig.send(slow, asked, other)
        rig.wait(lambda: len(rig.results) == 3)
    assert [result.causation_id for result in rig.results] == [other.id, slow.id, asked.id]
    assert all(isinstance(result.data, PaymentCaptured) for result in rig.results)
