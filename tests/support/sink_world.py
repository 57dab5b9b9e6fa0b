"""A broker, engines that can be killed, and messages for every view: what the sink's tests play with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from clickhouse_connect.driver.client import Client
from confluent_kafka import Producer, TopicPartition

from analytics import kpis
from analytics.clickhouse import connect
from processors.sinks import progress
from processors.sinks.views import VIEWS
from runtime import health, kafka
from runtime.dead_letters import for_me
from runtime.keystore import vault
from runtime.settings import Settings
from schemas.address import Address
from schemas.base import Envelope, Message, Payload
from schemas.catalog import Product, ProductChanged
from schemas.codec import Undecodable, decode, encode
from schemas.notification import NoticeFailed, NoticeSent, NoticeSkipped, PreferencesChanged, Wishes
from schemas.order import OrderState
from tests.support import kpi_fold, view_fold
from tests.support.examples import at
from tests.support.histories import History
from tests.support.parts import Child, child, free_port, oms_run, until
from tests.support.random_lives import walked

TOPICS = sorted({topic for view in VIEWS.values() for topic in view.sources})
TABLES = tuple(view.table for view in VIEWS.values())
MUCH, LITTLE = 210, 15
"""Messages of the random life that a `write` tells of a topic. After the first one something is in every view."""


class Engine:
    """A ClickHouse that can be killed."""

    def __init__(self, folder: Path, running: ExitStack) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._running = running
        self.start()

    def start(self) -> None:
        arguments = ["runtime.embedded_clickhouse", "--data-dir", str(self._folder), "--port", str(self.port)]
        self._process = self._running.enter_context(child(arguments, self._folder / "clickhouse.out"))

    def kill(self) -> None:
        self._process.kill()


class World:
    """`settings` lead to the broker and the first engine. `write` tells more: histories with addresses in envelopes, a
    random life of a shop, messages to customers. Whatever was written, `check` holds every view and KPI to it."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.folder = folder
        self.running = ExitStack()
        self.engine = Engine(folder, self.running)
        self.settings = settings.model_copy(update={"clickhouse_url": self.engine.url, "data_dir": folder})
        self.vault = vault(self.settings)
        self.admin = kafka.admin(settings)
        # As [order] writes: behind each batch lies the marker of its transaction.
        self.producer = Producer({**settings.kafka_config(), "partitioner": "murmur2", "transactional.id": "test"})
        self.producer.init_transactions(60)
        self.histories: list[History] = []
        self.life = walked(5, orders=40, acts=400)
        self._told: dict[str, int] = {}

    # Telling

    def write(self, count: int) -> list[History]:
        """Whole lives of so many orders, interleaved, and a portion of everything else; the first time a large one."""
        fresh = [self._story(number) for number in range(len(self.histories), len(self.histories) + count)]
        self.histories += fresh
        self.producer.begin_transaction()
        for version in range(4):
            for story in fresh:
                if version < len(story.events):
                    self._tell("order.events", story.order_id, story.events[version])
                    self._tell("order.states", story.order_id, story.states[version])
        for topic in TOPICS:
            begin = self._told.get(topic, 0)
            end = begin + (LITTLE if begin else MUCH)
            for record in self.life.world.records(topic)[begin:end]:
                self.producer.produce(topic, key=record.key, value=record.value, headers=record.headers)
            self._told[topic] = end
        for story in fresh:
            for notice in self._notices(story):
                self._tell("notification.events", story.customer, notice)
            self._tell("catalog.events", story.name, _said(f"{story.name}-product", _product_changed(story)))
            self._tell("customer.events", story.customer, _said(f"{story.name}-wishes", _wishes_changed(story)))
        self.producer.commit_transaction(30)
        return fresh

    def tell_raw(self, topic: str, key: str, value: bytes | None, headers: list[tuple[str, bytes]]) -> None:
        self.producer.begin_transaction()
        self.producer.produce(topic, key=key, value=value, headers=headers)
        self.producer.commit_transaction(30)

    def _tell(self, topic: str, key: str, message: Envelope) -> None:
        self.producer.produce(topic, key=key, value=encode(message), headers=kafka.headers(message))

    def _story(self, number: int) -> History:
        story = History(f"o{number}", str(number % 7), ("EUR", "JPY")[number % 2], 1000 + number)
        story.created(number, self._address(story.customer, f"City {number}")).submitted(number + 1)
        if number % 3 == 0:
            story.cancelled(number + 2, "out_of_stock")
        elif number % 3 == 1:
            story.payment_requested(number + 1).paid(number + 3)
        return story

    def _address(self, customer: str, city: str) -> Address:
        sealed = self.vault.seal(customer, {"name": f"Person {customer}", "street_address": "Way 1", "city": city})
        return Address(sealed=sealed, postal_code="10115", country="DE")

    def _notices(self, story: History) -> Iterator[Message[Any]]:
        name = story.name
        for data in (
            NoticeSent(kind="created", event_id=name, channel="email", message_id=f"<{name}>", language="de"),
            NoticeSkipped(kind="created", event_id=name, channel="sms", reason="opted_out"),
            NoticeFailed(kind="created", event_id=name, channel="webhook", message_id=name, error="550"),
        ):
            yield _said(f"{name}-{data.channel}", data, "system:notification", order_id=story.order_id)

    # Running

    def client(self) -> Client:
        return connect(self.settings)

    @contextmanager
    def sink(self, name: str = "views", **environment: str) -> Iterator[Child]:
        environment = {"OMS_CLICKHOUSE_URL": self.engine.url, **environment}
        with oms_run(name, self.settings, self.folder, **environment) as running:
            yield running

    def facts(self, name: str = "views") -> dict[str, Any]:
        report = health.read(self.folder, name, 0)
        return {} if report is None else {"state": report["state"], **report["facts"]}

    # Looking

    def ends(self) -> dict[tuple[str, int], int]:
        """Where the topics end, of the partitions that hold something."""
        found = [progress.look_at(self.admin, topic) for topic in TOPICS]
        return {(topic.name, part): end for topic in found for part, (first, end) in topic.ends.items() if end > first}

    def wait_until_complete(self, client: Client | None = None) -> None:
        """Until each view says that it has everything, to the very end of its topics."""
        ends = self.ends()

        def complete() -> bool:
            with self.client() if client is None else _kept(client) as asked:
                for view in VIEWS.values():
                    reached = {(t, p): o for (t, _, p), o in progress.reached(asked, view.name).items()}
                    if any(reached.get(at, 0) < end for at, end in ends.items() if at[0] in view.sources):
                        return False
            return True

        until(complete, "the views are complete", 60)

    def lying(self) -> list[view_fold.Lying]:
        """What lies on the topics, for the sink."""
        reader = kafka.consumer(self.settings, "test-fold", enable_partition_eof=True)
        ends = self.ends()
        reader.assign([TopicPartition(topic, part, 0) for topic, part in ends])
        found, left = [], set(ends)
        try:
            while left:
                for record in reader.consume(1000, 1):
                    if record.error() is not None:
                        left.discard((record.topic(), record.partition()))
                    elif for_me(record.headers(), "views"):
                        found.append(_lying(record))
        finally:
            reader.close()
        return found

    def check(self, client: Client | None = None) -> None:
        """Every view and every KPI against the fold of the topics."""
        lying = self.lying()
        orders = {}
        for one in lying:
            if one.topic == "order.states" and one.message and isinstance(state := one.message.data, OrderState):
                before = orders.get(state.order.order_id)
                if before is None or before.version <= state.order.version:
                    orders[state.order.order_id] = state.order
        moves = [one.message for one in lying if one.topic == "inventory.events"]
        figures = kpi_fold.Fold(orders.values(), moves, self.life.world.now)  # type: ignore[arg-type]
        with self.client() if client is None else _kept(client) as asked:
            view_fold.assert_equal(asked, view_fold.Fold(lying, self.vault.open).views())
            for name in kpis.load():
                there = kpi_fold.by_key(name, kpis.run(asked, name, {"now": figures.now}))
                assert there == kpi_fold.by_key(name, figures.rows(name)), name

    def rows(self, tables: Sequence[str] = TABLES) -> int:
        """Rows that lie in the views, replaced ones too."""
        with self.client() as client:
            counted = "SELECT count() FROM {database:Identifier}.{table:Identifier}"
            where = [dict(zip(("database", "table"), table.split("."), strict=True)) for table in tables]
            return sum(client.query(counted, parameters=one).result_rows[0][0] for one in where)


@contextmanager
def _kept(client: Client) -> Iterator[Client]:
    yield client


def _lying(record: Any) -> view_fold.Lying:
    seconds = timedelta(milliseconds=record.timestamp()[1])
    try:
        message = decode(record.value())
    except Undecodable:
        message = None
    at = datetime(1970, 1, 1, tzinfo=UTC) + seconds
    return view_fold.Lying(record.topic(), record.value(), message, at)


def _said(id: str, data: Payload, actor: str = "staff:bo", **envelope: Any) -> Message[Any]:
    return Message(id=id, at=at(0), actor=actor, correlation_id="c", data=data, **envelope)


def _product_changed(story: History) -> ProductChanged:
    """A new product, or one that was changed."""
    product = Product(
        sku=story.name,
        product_id=story.name,
        name="A mug",
        category="home",
        tax_category="standard",
        weight_grams=300,
        prices={story.currency: story.total},
    )
    before = product.model_copy(update={"prices": {}, "active": False}) if story.total % 2 else None
    return ProductChanged(before=before, after=product)


def _wishes_changed(story: History) -> PreferencesChanged:
    wishes = Wishes(channel="email", language="de", opt_outs=("delivered",), contacts=("email",))
    before = wishes.model_copy(update={"language": "en"}) if story.total % 2 else None
    return PreferencesChanged(customer_id=story.customer, before=before, after=wishes, new_contacts=("email",))
