"""Fixtures: a broker on its own, for tests of one part that need no whole stack."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from runtime.settings import Settings
from tests.support.parts import kafka_broker

# Known to fail on a busy machine: comparing refuses tables of relaxed views that are the same (docs/analytics.md says
# what to do then). `make chaos` runs it; it belongs here as soon as that is found.
collect_ignore = [] if "OMS_CHAOS" in os.environ else ["test_rebuild.py"]


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A broker with all topics, and no process of ours."""
    with kafka_broker(tmp_path_factory.mktemp("broker")) as settings:
        yield settings
