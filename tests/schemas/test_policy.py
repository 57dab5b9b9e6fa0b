"""A policy that could not do what it says is refused at start, and the message names the place."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.order import OrderStatus
from schemas.policy import PolicyError, load

SHIPPED = Path(__file__).parents[2] / "policy.yaml"


def changed(folder: Path, place: str, value: Any) -> Path:
    """The shipped policy with another value at a place like returns.window."""
    rules = yaml.safe_load(SHIPPED.read_text())
    *sections, name = place.split(".")
    section = rules
    for each in sections:
        section = section[each]
    section[name] = value
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(rules))
    return path


def without_country(method: dict[str, Any], country: str) -> dict[str, Any]:
    zones = [{**zone, "countries": [each for each in zone["countries"] if each != country]} for zone in method["zones"]]
    return {**method, "zones": [zone for zone in zones if zone["countries"]]}


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("deadlines.stuck_after", {"PROCESING": "P3D"}, r"yaml: deadlines\.stuck_after\.PROCESING\..*PROCESSING"),
        ("deadlines.stuck_after", {"DRAFT": "P3D"}, r"deadlines\.stuck_after\.DRAFT\..*nobody watches orders in DRAFT"),
        ("deadlines.stuck_after", {"DELIVERED": "P3D"}, "nobody watches orders in DELIVERED"),
        ("deadlines.stuck_after", {"CANCELLED": "P3D"}, "nobody watches orders in CANCELLED"),
        ("deadlines.stuck_after", {"PENDING_PAYMENT": "PT0S"}, r"deadlines\.stuck_after\.PENDING_PAYMENT: .*greater"),
        ("returns.category_windows", {"groceries": "-P3D"}, r"returns\.category_windows\.groceries: .*greater"),
        ("fraud.amounts", {"EUR": -5}, r"fraud\.amounts\.EUR: .*greater"),
        ("limits.max_total", {"EUR": -5}, r"limits\.max_total\.EUR: .*greater"),
        ("tax", [{"country": "US", "state": "California", "percent": 7}], r"tax\.0: .*US has no state 'California'"),
        ("tax", [{"country": "US", "state": "US-CA", "percent": 7}], r"tax\.0: .*US has no state 'US-CA'"),
        ("shipping", {}, "yaml: shipping: .*at least 1"),
    ],
)
def test_what_can_not_work_is_refused(tmp_path: Path, place: str, value: Any, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        load(changed(tmp_path, place, value))


def test_a_country_that_nothing_can_be_shipped_to_is_refused(tmp_path: Path) -> None:
    shipping = yaml.safe_load(SHIPPED.read_text())["shipping"]
    nowhere = {name: without_country(method, "JP") for name, method in shipping.items()}
    with pytest.raises(PolicyError, match=r"yaml: Value error, shipping: no zone has JP"):
        load(changed(tmp_path, "shipping", nowhere))
    once = {**nowhere, "standard": shipping["standard"]}
    assert load(changed(tmp_path, "shipping", once)).shipping["express"].zone("JP") is None


def test_what_means_none_is_taken(tmp_path: Path) -> None:
    """No window, and no amount that is not looked at."""
    assert load(changed(tmp_path, "returns.category_windows", {"groceries": "PT0S"})).returns.category_windows
    assert load(changed(tmp_path, "fraud.amounts", {"EUR": 0})).fraud.amounts == {"EUR": 0}


def test_the_shipped_policy_watches_an_order_wherever_it_waits() -> None:
    policy = load(SHIPPED)
    ends = {OrderStatus.DRAFT, OrderStatus.DELIVERED, OrderStatus.REFUNDED, OrderStatus.CANCELLED}
    watched = policy.deadlines.stuck_after
    assert watched.keys() == set(OrderStatus) - ends
    held_for_review = policy.payment.timeout + policy.fraud.review_within + timedelta(hours=1)
    assert watched[OrderStatus.PENDING_PAYMENT] > held_for_review, "what ends by itself is not stuck"
