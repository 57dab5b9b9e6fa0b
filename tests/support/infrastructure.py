"""Where a test stack's Kafka and ClickHouse come from: from the environment (`OMS_KAFKA_BOOTSTRAP`,
`OMS_CLICKHOUSE_URL`), else from containers when `OMS_TEST_CONTAINERS=1`, else embedded, by `oms up` itself.

Containers have to be asked for: a machine that happens to have a Docker engine shall not need the network for its
second `make test`, and the tests that kill the broker need a process of ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

ADDRESSES = ("OMS_KAFKA_BOOTSTRAP", "OMS_CLICKHOUSE_URL", "OMS_CLICKHOUSE_USER", "OMS_CLICKHOUSE_PASSWORD")


@contextmanager
def infrastructure(*, own: bool = False) -> Iterator[dict[str, str]]:
    """The environment of a stack. `own`: nothing that another stack uses too, so no address from outside."""
    environment = {name: value for name, value in os.environ.items() if not (own and name in ADDRESSES)}
    if os.environ.get("OMS_TEST_CONTAINERS") != "1" or "OMS_KAFKA_BOOTSTRAP" in environment:
        yield environment
        return
    with _containers() as addresses:
        yield {**environment, **addresses}


@contextmanager
def _containers() -> Iterator[dict[str, str]]:
    """A broker and a ClickHouse server, thrown away afterwards."""
    from testcontainers.community.clickhouse import ClickHouseContainer
    from testcontainers.community.kafka import KafkaContainer

    broker = KafkaContainer("confluentinc/cp-kafka:8.1.0").with_kraft()
    broker = broker.with_env("KAFKA_OFFSETS_RETENTION_MINUTES", "3700000")  # rule 4: as long as the longest topic
    broker = broker.with_env("KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR", "1")
    broker = broker.with_env("KAFKA_TRANSACTION_STATE_LOG_MIN_ISR", "1")
    server = ClickHouseContainer("clickhouse/clickhouse-server:26.9", username="default", password="tests")
    with broker as kafka, server as clickhouse:
        host, port = clickhouse.get_container_host_ip(), clickhouse.get_exposed_port(8123)
        yield {
            "OMS_KAFKA_BOOTSTRAP": kafka.get_bootstrap_server(),
            "OMS_CLICKHOUSE_URL": f"http://{host}:{port}",
            "OMS_CLICKHOUSE_USER": "default",
            "OMS_CLICKHOUSE_PASSWORD": "tests",
        }
