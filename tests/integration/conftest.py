"""Fixtures: a broker on its own, for tests of one part that need no whole stack."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runtime.settings import Settings
from tests.support.parts import kafka_broker


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A broker with all topics, and no process of ours."""
    with kafka_broker(tmp_path_factory.mktemp("broker")) as settings:
        yield settings
