"""docs/lifecycle.md is whole: every command of orders is tried, and each leads to something somewhere."""

from __future__ import annotations

import pytest

from processors.order.lifecycle import NOTHING, cells
from processors.order.sample import COMMANDS, NEVER, told
from schemas.commands import COMMANDS as FAMILY
from schemas.order import OrderStatus
from tests.support.examples import POLICY

FOUND = cells(POLICY)
STORIES = told(POLICY)


def leads_somewhere(command: str) -> bool:
    said = [cell for row, answers in FOUND.items() if row.partition(" ")[0] == command for cell in answers.values()]
    return any(cell != NOTHING and not cell.startswith("*") for cell in said)


def test_every_command_is_tried_under_its_own_name() -> None:
    draft = STORIES["DRAFT"].now
    rows = [tried for area in COMMANDS.values() for tried in area]
    assert [tried.name.partition(" ")[0] for tried in rows] == [type(tried.make(draft)).__name__ for tried in rows]
    assert {tried.name.partition(" ")[0] for tried in rows} == set(FAMILY.payloads)


@pytest.mark.parametrize("command", sorted(FAMILY.payloads))
def test_every_command_leads_to_something_in_one_state_at_least(command: str) -> None:
    assert leads_somewhere(command) is (command not in NEVER)


def test_every_status_is_shown_and_states_are_what_they_are_called() -> None:
    statuses = {name: story.order and story.order.status for name, story in STORIES.items()}
    assert {name.partition(",")[0] for name in statuses if statuses[name]} == set(OrderStatus)
    assert all(status is None or name.partition(",")[0] == status for name, status in statuses.items())


def test_what_the_clock_tells_is_tried_when_it_is_due() -> None:
    assert FOUND["ExpirePayment"]["PENDING_PAYMENT"] == "Cancelled"
    assert FOUND["BeginFulfilment"]["PAYMENT_CONFIRMED"] == "ProcessingStarted"
    assert FOUND["ExpireReturn"]["REFUND_REQUESTED, approved"] == "ReturnExpired"
