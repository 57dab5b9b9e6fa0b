"""How old an answer is at most: never younger than the truth, and told to whoever reads."""

from __future__ import annotations

import time
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from gateway.freshness import TOPICS, Freshness, Reading, note, reading, views_in
from tests.gateway.conftest import Shop
from tests.support.stack import Stack


def ends(**more: int) -> dict[str, dict[int, int]]:
    """Of partition 0 of some topics, `_` for `.`; all other partitions are empty."""
    return {topic: {0: more.get(topic.replace(".", "_"), 0), 1: 0} for topic in TOPICS}


def progress(view: str, topic: str, offset: int) -> dict[str, Any]:
    return {"view": view, "topic": topic, "partition": 0, "offset": offset}


def test_a_view_is_as_of_the_newest_moment_that_it_has_reached() -> None:
    found = Freshness()
    assert found.as_of(["orders"]) is None
    found.look(1.0, ends(), [])
    assert found.as_of(["orders"]) == 1.0  # there was nothing to read
    found.look(2.0, ends(order_states=10), [])
    found.look(3.0, ends(order_states=20), [progress("orders", "order.states", 9)])
    assert found.as_of(["orders"]) == 1.0
    found.look(4.0, ends(order_states=30), [progress("orders", "order.states", 19)])
    assert found.as_of(["orders"]) == 2.0
    found.look(5.0, ends(order_states=30), [progress("orders", "order.states", 30)])
    assert found.as_of(["orders"]) == 5.0
    found.look(6.0, ends(order_states=30), [])
    assert found.as_of(["orders"]) == 1.0  # emptied, to be filled again: there was nothing then


def test_views_are_told_apart_and_several_are_as_old_as_the_oldest() -> None:
    found = Freshness()
    found.look(1.0, ends(), [])
    found.look(2.0, ends(order_states=10), [progress("orders", "order.states", 10)])
    assert found.as_of(["orders"]) == found.as_of(["order_events"]) == 2.0
    assert found.as_of(["payments"]) == found.as_of(["orders", "payments"]) == 1.0


def test_a_view_that_stays_behind_is_known_about_for_ever_and_costs_little() -> None:
    found = Freshness()
    for second in range(5000):
        found.look(float(second), ends(order_states=10 * second), [progress("orders", "order.states", 5 * second)])
    as_of = found.as_of(["orders"])
    assert as_of is not None
    assert 2500 * 0.9 <= as_of <= 2500


def test_an_answer_is_as_old_as_the_oldest_of_what_was_read() -> None:
    statement = "SELECT 1 FROM oms.orders"
    now = time.monotonic()
    with reading() as read:
        assert read.lag is None
        note("SELECT 1", now)
        assert read.lag is None
        note(statement, now - 1)
        note(statement, now - 3)
        assert read.lag is not None
        assert 3 <= read.lag < 4
        note(statement, None)
        assert read.lag is None
    other = Reading()
    other.include(read)
    other.note(now)
    assert other.lag is None


def test_the_views_of_a_statement_are_found_by_their_tables() -> None:
    assert views_in("SELECT * FROM oms.order_summaries FINAL JOIN oms.order_events USING order_id") == {
        "order_summaries",
        "order_events",
    }


def test_every_answer_from_the_views_says_how_old_it_is_and_no_other(shop: Shop, stack: Stack) -> None:
    order = shop.draft(shop.product())
    path = f"/v1/orders/{order['id']}"
    one = shop.call("GET", f"{path}?min_version=1")
    several = shop.call("GET", "/v1/orders")
    missing = shop.call("GET", "/v1/orders/00000000-0000-4000-8000-000000000000")
    kpi = shop.call("GET", "/v1/kpis/orders_created", as_="staff")
    for answer, status in ((one, 200), (several, 200), (missing, 404), (kpi, 200)):
        assert answer.status_code == status
        assert 0 < lag_of(answer) < 30
    unread = (shop.call("GET", "/v1/products"), shop.call("GET", "/v1/orders?limit=0"), shop.client.get("/healthz"))
    for other in unread:
        assert "x-view-lag" not in other.headers
    stack.until(lambda: lag_of(shop.call("GET", path)) < 3, "all is in the views")


def test_it_grows_while_the_sink_stands_still_and_falls_when_it_goes_on(shop: Shop, stack: Stack) -> None:
    order = shop.draft(shop.product())
    path = f"/v1/orders/{order['id']}"
    assert shop.call("GET", f"{path}?min_version=1").status_code == 200
    stack.until(lambda: lag_of(shop.call("GET", path)) < 3, "all is in the views")
    with stack.frozen("views"):
        began = time.monotonic()
        newer = shop.draft(shop.product())  # something to be behind with
        stack.until(lambda: lag_of(shop.call("GET", path)) > 5, "the lag has grown")
        answer = shop.call("GET", path)
        assert lag_of(answer) > 5
        # Not older than it is, but for the look that found everything there.
        assert lag_of(answer) < time.monotonic() - began + 10
        assert shop.call("GET", f"/v1/orders/{newer['id']}").status_code == 404
        stack.until(lambda: gauge(shop.client)["orders"] > 5, "the gauge has grown")
    stack.until(lambda: lag_of(shop.call("GET", path)) < 3, "the sink has caught up")
    assert shop.call("GET", f"/v1/orders/{newer['id']}").status_code == 200


def lag_of(answer: httpx.Response) -> float:
    return float(answer.headers["x-view-lag"])


def gauge(client: httpx.Client) -> dict[str, float]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    [found] = [family for family in families if family.name == "oms_view_lag_seconds"]
    return {sample.labels["view"]: sample.value for sample in found.samples}
