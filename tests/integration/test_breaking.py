"""Things that break at the worst moment, on the real broker, engine and provider."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from uuid import uuid4

import httpx
import pytest
from confluent_kafka import TopicPartition

from runtime import dead_letters, kafka, topology
from tests.support.books import assert_balanced
from tests.support.stack import Stack, cart

TOKENS = ["pm_card_visa"] * 8 + ["pm_card_chargeDeclined", "pm_sandbox_flaky"]


def place_until_accepted(stack: Stack, n: int, sku: str, token: str) -> str:
    """What a shop's front-end does: the same request with the same key until it has an answer."""
    key = uuid4().hex
    deadline = time.monotonic() + 90
    while True:
        try:
            answer = stack.call("POST", "/v1/orders", cart((sku, 1), token=token), customer=f"k{n % 20}", key=key)
            if answer.status_code == 201:
                return str(answer.json()["id"])
            assert answer.status_code in (202, 503), answer.text
        except httpx.TransportError:
            pass  # the connection broke: ask again, it is the same request
        assert time.monotonic() < deadline, "no answer"
        time.sleep(0.2)


def test_kill_9_of_each_in_the_middle_of_300_orders(stack: Stack) -> None:
    """Every accepted order is finished, stock adds up, charges equal the provider's ledger, views equal the fold."""
    mug = stack.product(stock=1000)
    chance = random.Random(7)
    with ThreadPoolExecutor(8) as pool:
        placed: list[Future[str]] = [
            pool.submit(place_until_accepted, stack, n, mug, chance.choice(TOKENS)) for n in range(300)
        ]
        for name in ("order", "placement", "payment", "views", "inventory", "order"):
            done = sum(future.done() for future in placed)
            stack.until(lambda d=done: sum(f.done() for f in placed) >= min(300, d + 15), "orders go on")  # type: ignore[misc]
            dead = stack.kill(name)
            stack.back(name, dead)
        orders = [future.result() for future in placed]
    ends = [stack.settled(order_id, timeout=90)["status"] for order_id in orders]
    assert len(set(orders)) == 300
    assert set(ends) == {"PAYMENT_CONFIRMED", "CANCELLED"}
    assert_balanced(stack)


def open_transaction(stack: Stack, topics: list[str]) -> bool:
    """Whether one of these topics has records that no read-committed reader may see yet."""
    committed = kafka.consumer(stack.settings, f"test-{uuid4()}")
    everything = kafka.consumer(stack.settings, f"test-{uuid4()}", isolation_level="read_uncommitted")
    try:
        for topic in topics:
            for partition in committed.list_topics(topic, timeout=10).topics[topic].partitions:
                where = TopicPartition(topic, partition)
                stable = committed.get_watermark_offsets(where, timeout=10)[1]
                newest = everything.get_watermark_offsets(where, timeout=10)[1]
                if stable < newest:
                    return True
        return False
    finally:
        committed.close()
        everything.close()


def test_a_saga_frozen_in_mid_transaction_does_not_slow_order_creation(stack: Stack) -> None:
    mug = stack.product(stock=1000)
    outputs = list(topology.load().processors["placement"].outputs)
    for _ in range(30):
        with ThreadPoolExecutor(8) as pool:
            busy = [pool.submit(stack.place, (mug, 1)) for _ in range(24)]
            time.sleep(0.15)
            with stack.frozen("placement"):
                for future in busy:
                    future.result()
                if not open_transaction(stack, outputs):
                    continue
                time.sleep(0.5)  # one that was being committed has its marks by now
                if not open_transaction(stack, outputs):
                    continue
                for _ in range(20):
                    answer = stack.call("POST", "/v1/orders", cart((mug, 1)), key=uuid4().hex)
                    # 202 would mean that the outcome was not there within the gateway's patience
                    assert answer.status_code == 201, answer.text
                assert open_transaction(stack, outputs), "the transaction was open all the time"
                break
    else:
        pytest.fail("the saga was never caught in mid-transaction")
    for order in stack.call("GET", "/v1/orders?limit=100", admin="clerk").json()["items"]:
        stack.settled(order["id"])
    assert_balanced(stack)


READ_BY = {topic: name for name, spec in topology.load().processors.items() for topic in spec.inputs} | {
    "payment.commands": "payment",
    "order.states": "views",
}


@pytest.mark.parametrize("topic", sorted(READ_BY))
def test_a_poison_message_is_dead_lettered_whole_and_the_rest_flows_on(stack: Stack, topic: str) -> None:
    key = f"poison-{topic}".encode()
    poison = b"\x00\x00\x00\x00\x07" + topic.encode()
    stack.write(topic, key, poison)

    def buried() -> bool:
        return any(
            (letter.data.topic, letter.data.key, letter.data.value, letter.data.processor)
            == (topic, key, poison, READ_BY[topic])
            for letter in dead_letters.open_letters(stack.settings)
        )

    stack.until(buried, f"a dead letter of {topic}")
    mug = stack.product(stock=1)
    assert stack.settled(stack.place((mug, 1))["id"])["status"] == "PAYMENT_CONFIRMED"


def test_a_dead_lettered_order_waits_and_a_retry_replays_it_in_order(stack: Stack) -> None:
    """A garbled message in front of a real command: the command waits behind it, and is done once it is discarded."""
    mug = stack.product(stock=5)
    draft = stack.place((mug, 1), submit=False)
    stack.write("order.internal", draft["id"].encode(), b"garbled")
    mine = lambda: [x for x in dead_letters.open_letters(stack.settings) if x.key_text == draft["id"]]  # noqa: E731
    stack.until(lambda: len(mine()) == 1, "the garbled one is buried")
    waiting = stack.call(
        "POST",
        f"/v1/orders/{draft['id']}/cancel",
        {"reason": "changed_mind"},
        key="k",
        headers={"Prefer": "respond-async"},
    )
    assert waiting.status_code == 202, waiting.text
    stack.until(lambda: [x.data.reason for x in mine()] == ["undecodable", "parked"], "the command waits behind it")
    garbled, parked = mine()
    dead_letters.discard(stack.settings, [garbled], "garbled", parks=frozenset(topology.load().processors))
    assert dead_letters.retry(stack.settings, [parked])
    assert stack.settled(draft["id"])["status"] == "CANCELLED"
    assert mine() == []


def test_a_stateful_processor_without_offsets_refuses_to_start(stack: Stack) -> None:
    """Delete the group's offsets of a stopped inventory processor: it must not begin with empty stock."""
    mug = stack.product(stock=3)
    script = (
        "import sys; from runtime import streams, topology; from runtime.settings import settings\n"
        "t = topology.load()\n"
        "object.__setattr__(t.processors['inventory'], 'name', 'lost')\n"
        "t.processors['lost'] = t.processors['inventory']\n"
        "streams.refuse_lost_offsets(settings(), t, sys.argv[1])\n"
    )
    environment = {
        "OMS_DATA_DIR": str(stack.data_dir),
        "OMS_KAFKA_BOOTSTRAP": stack.settings.kafka_bootstrap,
        "PATH": "",
    }

    def attempt(name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", script, name],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    with_offsets, without = attempt("order"), attempt("lost")
    assert with_offsets.returncode == 0, with_offsets.stderr
    assert without.returncode != 0
    assert "has no committed offset" in without.stderr
    assert mug


def test_strangers_read_order_events(stack: Stack) -> None:
    """A stock Avro deserializer that knows only the gateway's URL, and a consumer that knows nothing of our code."""
    from confluent_kafka import Consumer
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.schema_registry.avro import AvroDeserializer
    from confluent_kafka.serialization import MessageField, SerializationContext

    mug = stack.product(stock=5)
    order_id = stack.settled(stack.place((mug, 1))["id"])["id"]
    stranger = Consumer(
        {
            "bootstrap.servers": stack.settings.kafka_bootstrap,
            "group.id": f"stranger-{uuid4()}",
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
    )
    deserialize = AvroDeserializer(SchemaRegistryClient({"url": stack.url}))
    stranger.subscribe(["order.events"])
    found, ends = [], 0
    try:
        while ends < 4:
            message = stranger.poll(20)
            assert message is not None
            if message.error() is not None:
                ends += 1
            elif message.key() == order_id.encode():
                headers = dict(message.headers())
                assert headers["ce_specversion"] == b"1.0"
                assert headers["ce_subject"] == order_id.encode()
                event = deserialize(message.value(), SerializationContext("order.events", MessageField.VALUE))
                assert headers["ce_type"].decode().startswith("oms.order.events.Order")
                found.append((event["version"], headers["ce_type"].decode().rpartition(".")[2]))
    finally:
        stranger.close()
    assert found == [
        (1, "OrderCreated"),
        (2, "OrderSubmitted"),
        (3, "OrderPaymentRequested"),
        (4, "OrderPaymentConfirmed"),
    ]
