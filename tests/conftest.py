"""Fixtures: the real stack, started once for all tests that need it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stack import Stack, running_stack

# Brokers live for a minute here: compiling for long runs would cost more than it wins (decision 0001).
os.environ.setdefault("OMS_KAFKA_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with the shipped policy."""
    with running_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture(scope="session")
def impatient_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack where an order has 10 seconds to be paid and a provider without an answer is asked again at once."""
    folder = tmp_path_factory.mktemp("impatient")
    shipped = (Path(__file__).parent.parent / "policy.yaml").read_text()
    policy = shipped.replace("timeout: PT15M", "timeout: PT10S").replace("submit_within: PT10M", "submit_within: PT9S")
    policy = policy.replace("ask_first_after: PT5S", "ask_first_after: PT1S").replace("PT1H", "PT2S")
    (folder / "policy.yaml").write_text(policy)
    with running_stack(
        folder, own=True, OMS_POLICY=str(folder / "policy.yaml"), OMS_PAYMENT_REQUEST_TIMEOUT="2"
    ) as running:
        yield running
