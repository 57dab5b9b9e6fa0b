"""Fixtures: the real stack, in two kinds, each started once for all tests that need it.

A stack that nobody uses takes a good part of the machine from those who measure time. So what needs none comes first,
then what needs the first kind, and that one is stopped when the second is started.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.stack import Stack, running_stack

# Brokers live for a minute here: compiling for long runs would cost more than it wins (decision 0001).
os.environ.setdefault("OMS_KAFKA_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")

CROWD: dict[str, dict[str, Any]] = {"fraud": {"customer_orders": 1_000_000, "address_orders": 1_000_000}}
"""The customers of all tests live in one house, which looks like fraud after fifty orders."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "OMS_CHAOS" not in os.environ:
        long = [item for item in items if "long" in item.keywords]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
    kinds = ("stack", "impatient_stack")

    def needed(item: pytest.Item) -> int:
        found = [number for number, kind in enumerate(kinds, start=1) if kind in getattr(item, "fixturenames", ())]
        assert len(found) < 2, f"{item.nodeid} needs two stacks, and there is one at a time"
        return sum(found)

    items.sort(key=needed)


@pytest.fixture(scope="session")
def running() -> Iterator[ExitStack]:
    """What holds the stack that runs; closing it stops that one."""
    with ExitStack() as found:
        yield found


@pytest.fixture(scope="session")
def stack(running: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """A stack with the shipped policy and real time: a paid order rests for half an hour before it is picked."""
    folder = tmp_path_factory.mktemp("stack")
    return running.enter_context(running_stack(folder, OMS_POLICY=str(policy(folder)), OMS_TIME_SCALE="1"))


@pytest.fixture(scope="session")
def impatient_stack(running: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """A stack where an order has 10 seconds to be paid, a provider without an answer is asked again at once, a paid
    order is delivered a few seconds later, and a carrier who found nobody comes again after two seconds."""
    folder = tmp_path_factory.mktemp("impatient")
    rules = policy(
        folder,
        payment={"timeout": "PT10S", "submit_within": "PT9S", "ask_first_after": "PT1S", "ask_at_most_every": "PT2S"},
        # An edit whose payment could not be asked for in time (its saga was dead) waits for its own deadline.
        edits={"timeout": "PT30S"},
        fulfilment={"redeliver_after": "PT20M"},  # the embedded stack's time scale is 600
    )
    running.close()
    return running.enter_context(
        running_stack(folder, own=True, OMS_POLICY=str(rules), OMS_PAYMENT_REQUEST_TIMEOUT="2")
    )


@pytest.fixture(scope="session")
def lively_stack(impatient_stack: Stack) -> Stack:
    """The same, for tests of what happens after the payment."""
    return impatient_stack


def policy(folder: Path, **changes: dict[str, Any]) -> Path:
    """The shipped policy with some of its values changed: `section={name: value}`."""
    rules = yaml.safe_load((Path(__file__).parent.parent / "policy.yaml").read_text())
    for section, values in {**CROWD, **changes}.items():
        assert values.keys() <= rules[section].keys(), f"policy.yaml has other names in {section}"
        rules[section] |= values
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(rules))
    return path
