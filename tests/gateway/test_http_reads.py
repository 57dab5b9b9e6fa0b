"""Reading over HTTP: one order, its timeline, lists with cursors, key figures, operations, the schema registry."""

from __future__ import annotations

import csv
import io
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest
from pyarrow import parquet

from tests.gateway.conftest import UNKNOWN, Shop, problem

pytestmark = pytest.mark.stack


def seen(shop: Shop, order: dict[str, Any], version: int | None = None) -> dict[str, Any]:
    """The order as the view has it, once it has this version."""
    answer = shop.call("GET", f"/v1/orders/{order['id']}?min_version={version or order['version']}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def listed(shop: Shop, *orders: dict[str, Any]) -> None:
    """Wait until the customer's list has all of these, at these versions (it is another view than the order, and
    orders lie in several partitions)."""
    wanted = {(order["id"], order["version"]) for order in orders}
    deadline = time.monotonic() + 15
    while True:
        items = shop.call("GET", "/v1/orders?limit=100").json()["items"]
        if wanted <= {(item["id"], item["version"]) for item in items}:
            return
        assert time.monotonic() < deadline, items
        time.sleep(0.05)


def test_the_view_shows_what_the_command_answered(shop: Shop) -> None:
    order = shop.draft(shop.product())
    assert seen(shop, order) == order


def test_an_etag_saves_reading_again(shop: Shop) -> None:
    order = shop.draft(shop.product())
    seen(shop, order)
    path = f"/v1/orders/{order['id']}"
    answer = shop.call("GET", path, If_None_Match='"1"')
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", '"1"')
    assert shop.call("GET", path, If_None_Match='"2"').status_code == 200


def test_min_version_waits_for_the_view(shop: Shop) -> None:
    order = shop.draft(shop.product())
    changed = shop.call("PATCH", f"/v1/orders/{order['id']}/items/L1", {"quantity": 7}).json()
    assert seen(shop, changed)["items"][0]["quantity"] == 7


def test_a_version_that_never_comes_is_not_waited_for_for_ever(shop: Shop) -> None:
    order = shop.draft(shop.product())
    seen(shop, order)
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        behind, unknown = pool.map(
            lambda path: shop.call("GET", path),
            (f"/v1/orders/{order['id']}?min_version=99", f"/v1/orders/{UNKNOWN}?min_version=1"),
        )
    problem(behind, 503, "view-behind")
    assert behind.headers["retry-after"] == "1"
    problem(unknown, 404, "not-found")
    assert time.monotonic() - began < 10


def test_the_timeline_tells_what_happened(shop: Shop) -> None:
    order = shop.placed(shop.product(), 2)
    seen(shop, order, 4)
    answer = shop.call("GET", f"/v1/orders/{order['id']}/events?min_version=4")
    events = answer.json()["items"]
    assert [event["version"] for event in events] == [1, 2, 3, 4]
    assert [event["type"] for event in events] == [
        "OrderCreated",
        "OrderSubmitted",
        "OrderPaymentRequested",
        "OrderPaymentConfirmed",
    ]
    created, _, requested, confirmed = (event["data"] for event in events)
    assert created["shipping_address"] == order["shipping_address"]
    assert created["billing_address"] == order["billing_address"]
    assert created["totals"]["total"] == order["total"]
    assert created["lines"][0]["unit_price"] == order["items"][0]["unit_price"]
    assert confirmed["amount"] == order["total"]
    assert "payment_token" not in requested
    assert {event["causation_id"] for event in events[:3]} != {events[3]["causation_id"]}
    assert events[0]["actor"] == f"customer:{shop.customer}"
    assert "sealed" not in answer.text


def pages(shop: Shop, path: str, as_: str = "customer") -> list[list[dict[str, Any]]]:
    """All pages, by following the links."""
    found = []
    following: str | None = path
    while following is not None:
        answer = shop.call("GET", following, as_=as_)
        assert answer.status_code == 200, answer.text
        found.append(answer.json()["items"])
        following = answer.links["next"]["url"] if "next" in answer.links else None
        assert (following is None) == (answer.json()["next"] is None)
    return found


def test_a_list_comes_in_pages_that_new_orders_do_not_shift(shop: Shop) -> None:
    sku = shop.product()
    orders = [shop.draft(sku) for _ in range(5)]
    listed(shop, *orders)
    newest_first = [order["id"] for order in reversed(orders)]
    first = shop.call("GET", "/v1/orders?limit=2")
    assert [order["id"] for order in first.json()["items"]] == newest_first[:2]
    late = shop.draft(sku)
    cancelled = shop.call("POST", f"/v1/orders/{orders[1]['id']}/cancel", {"reason": "changed_mind"}).json()
    listed(shop, late, cancelled)
    rest = pages(shop, first.links["next"]["url"])
    assert [[order["id"] for order in page] for page in rest] == [newest_first[2:4], newest_first[4:]]
    path = f"/v1/customers/{quote(shop.customer)}/orders?limit=6"
    assert [order["id"] for order in pages(shop, path)[0]] == [late["id"], *newest_first]
    assert [order["id"] for order in pages(shop, path, "staff")[0]] == [late["id"], *newest_first]


def test_a_list_is_filtered(shop: Shop) -> None:
    tea, mug = shop.product(), shop.product()
    first, second, third = shop.draft(tea), shop.draft(mug), shop.draft(tea)
    cancelled = shop.call("POST", f"/v1/orders/{first['id']}/cancel", {"reason": "changed_mind"}).json()
    listed(shop, cancelled, second, third)

    def ids(query: str, as_: str = "customer") -> list[str]:
        return [order["id"] for page in pages(shop, f"/v1/orders?{query}", as_) for order in page]

    assert ids(f"sku={tea}") == [third["id"], first["id"]]
    assert ids("status=CANCELLED") == [first["id"]]
    assert ids("status=CANCELLED&status=DRAFT&limit=1") == [third["id"], second["id"], first["id"]]
    assert ids(f"created_from={quote(second['created_at'])}") == [third["id"], second["id"]]
    assert ids(f"created_to={quote(second['created_at'])}") == [first["id"]]
    assert ids(f"customer_id={shop.customer}") == [third["id"], second["id"], first["id"]]
    assert ids(f"customer_id={shop.customer}&status=DRAFT", "staff") == [third["id"], second["id"]]
    assert ids(f"sku={mug}", "staff") == [second["id"]]
    assert ids("status=SHIPPED") == []


def test_held_orders_are_listed_and_why_is_for_staff(shop: Shop) -> None:
    tea = shop.product()
    order, _ = shop.placed(tea), shop.draft(tea)
    held = shop.call("POST", f"/v1/admin/orders/{order['id']}/hold", {"reason": "velocity"}, as_="staff").json()

    def found(query: str, as_: str) -> list[dict[str, Any]]:
        return [one for page in pages(shop, f"/v1/orders?sku={tea}&{query}", as_) for one in page]

    deadline = time.monotonic() + 15
    while not found("hold=any", "staff"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for query in ("hold=any", "hold=staff"):
        (by_staff,), (by_customer,) = found(query, "staff"), found(query, "customer")
        assert by_staff["id"] == by_customer["id"] == order["id"]
        since = held["holds"][0]["since"]
        assert by_customer["holds"] == [{"kind": "staff", "since": since}]
        of_staff = {"reason": "velocity", "score": None, "due_at": None}
        assert by_staff["holds"] == [{"kind": "staff", "since": since, **of_staff}]
    assert found("hold=fraud", "staff") == []
    assert found("hold=any", "somebody-else") == []
    problem(shop.call("GET", "/v1/orders?hold=whim", as_="staff"), 422, "invalid-request", "hold")
    path = f"/v1/orders/{order['id']}/events?min_version={held['version']}"
    assert "velocity" in shop.call("GET", path, as_="staff").text
    assert "velocity" not in shop.call("GET", path).text


def test_a_cursor_belongs_to_its_filters(shop: Shop) -> None:
    sku = shop.product()
    listed(shop, *(shop.draft(sku) for _ in range(2)))
    cursor = shop.call("GET", "/v1/orders?limit=1").json()["next"]
    assert shop.call("GET", f"/v1/orders?limit=1&cursor={cursor}").status_code == 200
    problem(shop.call("GET", f"/v1/orders?status=DRAFT&cursor={cursor}"), 422, "invalid-cursor", "cursor")
    problem(shop.call("GET", f"/v1/orders?cursor={cursor}", as_="somebody-else"), 422, "invalid-cursor", "cursor")


def test_products_come_in_pages_and_only_staff_see_what_is_off_sale(shop: Shop) -> None:
    on, off = shop.product(stock=4), shop.product(active=False)
    mine = {product["sku"]: product for page in pages(shop, "/v1/products?limit=3") for product in page}
    assert mine[on]["available"] == 4
    assert mine[on]["prices"] == [{"amount": "10.00", "currency": "EUR"}]
    assert off not in mine
    assert list(mine) == sorted(mine)
    all_ = {product["sku"] for page in pages(shop, "/v1/products", "staff") for product in page}
    assert {on, off} <= all_


def test_key_figures(shop: Shop) -> None:
    found = shop.call("GET", "/v1/kpis", as_="staff").json()["items"]
    assert {"completion", "orders_created", "saga_durations"} <= {kpi["name"] for kpi in found}
    created = next(kpi for kpi in found if kpi["name"] == "orders_created")
    one = shop.call("GET", "/v1/kpis/orders_created?to=2020-01-01T00:00:00Z", as_="staff").json()
    assert one["meaning"] == created["meaning"]
    assert one["rows"] != created["rows"]
    problem(shop.call("GET", "/v1/kpis/happiness", as_="staff"), 404, "not-found")
    query = "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z"
    problem(shop.call("GET", f"/v1/kpis?{query}", as_="staff"), 422, "invalid-request", "to")
    completion = next(kpi for kpi in found if kpi["name"] == "completion")
    cohort = {"part": "delivered", "whole": "submitted", "open": "under_way"}
    assert completion["target"] == {"column": "delivered_rate", "over": 0.95, "cohort": cohort, "text": "> 95 %"}
    assert completion["dimensions"].keys() == {"currency", "country", "region", "shipping_method"}
    assert completion["headline"][0]["verdict"] in ("met", "missed", "open")


def test_a_key_figure_by_day_and_group(shop: Shop) -> None:
    by_day = "/v1/kpis/orders_created?grain=day&tz=Europe/Berlin&group_by=currency"
    rows = shop.call("GET", by_day, as_="staff").json()["rows"]
    assert {tuple(row) for row in rows} == {("at", "currency", "orders", "customers")}
    assert all(row["at"].endswith(("T00:00:00+01:00", "T00:00:00+02:00")) for row in rows)
    for name, value, possible in (
        ("grain", "month", "hour, day, week"),
        ("group_by", "sku", "currency, country"),
        ("tz", "Atlantis", "Europe/Berlin"),
        ("from", "soon", "2026-03-29"),
        ("format", "xml", "json, csv, parquet"),
    ):
        refused = shop.call("GET", f"/v1/kpis/orders_created?{name}={value}", as_="staff")
        problem(refused, 422, "invalid-request", name)
        assert possible in refused.json()["detail"]


def test_key_figures_as_files(shop: Shop) -> None:
    path = "/v1/kpis/orders_created?group_by=currency"
    rows = shop.call("GET", path, as_="staff").json()["rows"]
    for answer in (
        shop.call("GET", f"{path}&format=csv", as_="staff"),
        shop.call("GET", path, as_="staff", accept="text/csv;q=0.9, */*;q=0.1"),
    ):
        assert answer.headers["content-type"].startswith("text/csv")
        assert 'filename="orders_created.csv"' in answer.headers["content-disposition"]
        found = list(csv.DictReader(io.StringIO(answer.text)))
        assert found == [{name: str(value) for name, value in row.items()} for row in rows]
    answer = shop.call("GET", f"{path}&format=parquet", as_="staff")
    assert parquet.read_table(io.BytesIO(answer.content)).to_pylist() == rows


def test_operations(shop: Shop) -> None:
    assert shop.call("GET", "/healthz", as_=None).status_code == 200
    ready = shop.call("GET", "/readyz", as_=None)
    assert ready.status_code == 200, ready.text
    dependencies = ready.json()["dependencies"]
    assert {
        "kafka",
        "clickhouse",
        "catalogue",
        "promotions",
        "preferences",
        "replies",
        "processes",
    } == dependencies.keys()
    assert all(dependency["ready"] for dependency in dependencies.values())
    shop.draft(shop.product())
    problem(shop.call("GET", "/v1/nothing"), 404, "no-such-route")
    metrics = shop.call("GET", "/metrics", as_=None).text
    assert "oms_business_metrics_age_seconds" in metrics
    assert 'oms_http_requests_total{method="POST",route="/v1/orders",status="201"}' in metrics
    assert 'oms_http_request_duration_seconds_count{method="POST",route="/v1/orders"}' in metrics
    assert 'oms_http_errors_total{method="GET",route="unmatched",type="no-such-route"}' in metrics
    assert "/v1/orders/{order_id}" in shop.call("GET", "/openapi.json", as_=None).json()["paths"]
    assert shop.call("GET", "/docs", as_=None).status_code == 200


def test_the_schema_registry(shop: Shop) -> None:
    def get(path: str) -> Any:
        answer = shop.call("GET", path, as_=None)
        assert answer.status_code == 200, answer.text
        return answer.json()

    subject = next(
        name for name in get("/subjects") if name.startswith("order.events-") and name.endswith("OrderCreated")
    )
    assert 1 in get(f"/subjects/{subject}/versions")
    described = get(f"/subjects/{subject}/versions/latest")
    assert get(f"/schemas/ids/{described['id']}")["schema"] == described["schema"]
    assert {"subject": subject, "version": described["version"]} in get(f"/schemas/ids/{described['id']}/versions")
    body = {"schema": described["schema"]}
    assert shop.call("POST", f"/subjects/{subject}", body, as_=None).json() == described
    assert get("/schemas/types") == ["AVRO"]
    assert "compatibilityLevel" in get("/config")
    for path, code in (
        ("/subjects/x/versions", 40401),
        ("/schemas/ids/1", 40403),
        (f"/subjects/{subject}/versions/99", 40402),
    ):
        assert problem(shop.call("GET", path, as_=None), 404, "not-found")["error_code"] == code
    problem(shop.call("POST", f"/subjects/{subject}", {"schema": "{"}, as_=None), 422, "invalid-schema", "schema")
    problem(shop.call("GET", "/schemas/ids/x", as_=None), 422, "invalid-request", "schema_id")
