"""The embedded broker: how its jars are fetched, and that it is a Kafka which loses nothing."""

from __future__ import annotations

import errno
import hashlib
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from runtime import embedded_kafka, jars
from runtime.embedded_kafka import EmbeddedKafkaError, free_port
from runtime.errors import UserError
from tests.support.embedded import broker, running

COORDINATE = "org.example:thing:1.0"
CONTENT = b"what is in the jar"

Resolve = Callable[[Path], Path]
Serve = Callable[[Resolve], None]


@pytest.fixture
def one_jar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """An empty cache, a lock with one jar, and whatever the repository does when asked for it."""
    lock = tmp_path / "kafka-jars.lock"
    lock.write_text(f"{COORDINATE} {hashlib.sha256(CONTENT).hexdigest()}\n")
    monkeypatch.setenv("OMS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded_kafka, "LOCK_FILE", lock)
    monkeypatch.setattr(embedded_kafka, "_make_aot_cache", lambda jars: None)
    monkeypatch.setattr(jars, "_RETRY_SECONDS", 0)

    def repository(resolve: Resolve) -> None:
        def context(repo_cache: Path) -> SimpleNamespace:
            artifact = SimpleNamespace(resolve=lambda: resolve(repo_cache))
            return SimpleNamespace(create_dependency=lambda coordinate: SimpleNamespace(artifact=artifact))

        monkeypatch.setattr(jars, "MavenContext", context)

    return repository


def _serving(content: bytes) -> Resolve:
    def resolve(repo_cache: Path) -> Path:
        repo_cache.mkdir(parents=True)
        (repo_cache / "thing.jar").write_bytes(content)
        return repo_cache / "thing.jar"

    return resolve


def _failing(error: Exception) -> Resolve:
    def resolve(_: Path) -> Path:
        raise error

    return resolve


def test_jars_are_fetched_once(one_jar: Serve) -> None:
    seen = []
    one_jar(_serving(CONTENT))
    (jar,) = embedded_kafka.fetch(lambda name, done, total: seen.append((name, done, total)))
    assert jar.read_bytes() == CONTENT
    assert seen == [("thing-1.0.jar", 1, 1)]
    one_jar(_failing(AssertionError("asked again")))
    assert embedded_kafka.fetch() == [jar]


def test_a_missing_jar_is_fetched_again_and_a_good_one_is_not(one_jar: Serve) -> None:
    one_jar(_serving(CONTENT))
    (jar,) = embedded_kafka.fetch()
    jar.unlink()
    assert embedded_kafka.fetch() == [jar]
    assert jar.exists()
    for stamp in jar.parent.glob("*.complete"):
        stamp.unlink()
    one_jar(_failing(AssertionError("asked again")))
    assert embedded_kafka.fetch() == [jar]


@pytest.mark.parametrize(
    ("resolve", "says"),
    [
        (_serving(b"something else"), "wrong checksum"),
        (_failing(requests.ConnectionError("no route")), "check the network"),
        (_failing(requests.Timeout("slow")), "check the network"),
        (_failing(RuntimeError("not found")), "not in the Maven repository"),
        (_failing(OSError(errno.ENOSPC, "No space left on device")), "No space left"),
    ],
)
def test_a_failed_fetch_is_one_sentence_and_leaves_nothing(
    one_jar: Serve, resolve: Resolve, says: str, tmp_path: Path
) -> None:
    one_jar(resolve)
    with pytest.raises(UserError, match=says) as raised:
        embedded_kafka.fetch()
    assert "\n" not in str(raised.value)
    assert not list((tmp_path / "cache" / "jars").glob("*.jar"))
    assert not list((tmp_path / "cache" / "jars").glob("*.complete"))


def test_the_lock_pins_everything_and_names_no_host() -> None:
    lines = embedded_kafka.LOCK_FILE.read_text().splitlines()
    assert len(lines) > 40
    assert lines == sorted(lines)
    for line in lines:
        coordinate, digest = line.split(" ")
        assert coordinate.count(":") == 2
        assert len(digest) == 64
        assert "/" not in line
    assert any(line.startswith(f"{embedded_kafka.KAFKA} ") for line in lines)


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        arguments = ("runtime.embedded_kafka", "run", "--data-dir", str(tmp_path), "--port", str(port))
        with running(*arguments, log=tmp_path / "out") as process:
            assert process.wait(30) == 1
    assert (tmp_path / "out").read_text() == f"Port {port} on 127.0.0.1 is in use.\n"


def test_a_folder_that_is_not_kafkas_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "letters.txt").write_text("dear")
    with pytest.raises(EmbeddedKafkaError, match="not a Kafka log folder"):
        embedded_kafka.format_storage(tmp_path, free_port(), free_port())
    assert (tmp_path / "kafka" / "letters.txt").read_text() == "dear"


def test_nothing_acknowledged_is_lost_by_a_kill(tmp_path: Path) -> None:
    """Records, their broker time, offsets and an open transaction survive `kill -9`, even on other ports."""
    with broker(tmp_path) as (bootstrap, process):
        _create(bootstrap, "orders", partitions=4)
        assert _is_unknown(bootstrap, "unheard.of"), "topics are not made by asking for them"
        _produce_in_transactions(bootstrap, "orders", transactions=5, records=200)
        half = _producer(bootstrap)
        half.begin_transaction()
        half.produce("orders", key="half", value="half")
        half.flush(10)
        _commit(bootstrap, TopicPartition("orders", 0, 17))
        process.kill()
        process.wait()

    with broker(tmp_path) as (bootstrap, _):
        _producer(bootstrap)  # the next writer of that name ends what the dead one left open
        records = _read(bootstrap, "orders", 1000)
        assert sorted(int(value) for value, _ in records) == list(range(1000))
        assert all(kind == TIMESTAMP_LOG_APPEND_TIME for _, kind in records)
        assert _committed(bootstrap, TopicPartition("orders", 0)) == 17
    assert not (tmp_path / "out").read_text(), "what the broker has to say goes to its log"
    assert (tmp_path / "logs" / "kafka.log").stat().st_size > 0


def _create(bootstrap: str, topic: str, partitions: int) -> None:
    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    client.create_topics([NewTopic(topic, partitions, 1)])[topic].result(20)


def _is_unknown(bootstrap: str, topic: str) -> bool:
    found = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}).list_topics(topic, timeout=10)
    return found.topics[topic].error is not None


def _producer(bootstrap: str) -> Producer:
    settings = {"bootstrap.servers": bootstrap, "transactional.id": "writer-0", "linger.ms": 1, "log_level": 0}
    producer = Producer(settings)
    producer.init_transactions(30)
    return producer


def _produce_in_transactions(bootstrap: str, topic: str, transactions: int, records: int) -> None:
    producer = _producer(bootstrap)
    for transaction in range(transactions):
        producer.begin_transaction()
        for record in range(records):
            value = str(transaction * records + record)
            # A time of its own, which the broker's replaces.
            producer.produce(topic, key=value, value=value, timestamp=1_500_000_000_000)
        producer.commit_transaction(30)


def _consumer(bootstrap: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "readers",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )


def _commit(bootstrap: str, position: TopicPartition) -> None:
    consumer = _consumer(bootstrap)
    consumer.commit(offsets=[position], asynchronous=False)
    consumer.close()


def _committed(bootstrap: str, partition: TopicPartition) -> int:
    consumer = _consumer(bootstrap)
    offset: int = consumer.committed([partition], timeout=20)[0].offset
    consumer.close()
    return offset


def _read(bootstrap: str, topic: str, count: int) -> list[tuple[bytes, int]]:
    consumer = _consumer(bootstrap)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(4)])
    found: list[tuple[bytes, int]] = []
    deadline = time.monotonic() + 20
    while len(found) < count and time.monotonic() < deadline:
        for message in consumer.consume(count, timeout=0.5):
            assert message.error() is None
            found.append((message.value(), message.timestamp()[0]))
    consumer.close()
    return found
