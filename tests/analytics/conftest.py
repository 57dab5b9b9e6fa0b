from __future__ import annotations

from collections.abc import Iterator

import pytest
from clickhouse_connect.driver.client import Client

from analytics.clickhouse import connect
from analytics.migrate import migrate
from runtime.settings import Settings
from runtime.stack import free_port
from tests.support.processes import clickhouse


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Of an engine with the views' tables in it, empty."""
    port, folder = free_port(), tmp_path_factory.mktemp("clickhouse")
    with clickhouse(folder, port):
        here = Settings(data_dir=folder, clickhouse_url=f"http://127.0.0.1:{port}")
        with connect(here) as client:
            assert migrate(client)
        yield here


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with connect(settings) as client:
        yield client
