"""Promotions over HTTP, as far as no Kafka is needed: what is refused before anything is written, and the table."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from gateway.auth import issue
from gateway.main import create_app, create_parts
from gateway.problems import Problem
from gateway.promotions import LEVELS, Promotions
from gateway.routes.promotions import PromotionBody, _terms, promotion_json
from runtime import kafka
from runtime.feed import Received
from runtime.settings import Settings
from schemas.base import Message
from schemas.order import PromotionTerms
from schemas.promotion import PromotionLevel
from tests.gateway.conftest import problem

EUR10 = {"amount": "10.00", "currency": "EUR"}
PERCENTAGE = {"kind": "percentage", "percent": 10}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]  # nobody listens there
    return Settings(data_dir=tmp_path, kafka_bootstrap=f"127.0.0.1:{port}", command_timeout=1)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


def answers(
    settings: Settings, *requests: tuple[str, str, Any], admin: bool = True, levels: Sequence[PromotionLevel] = ()
) -> list[httpx.Response]:
    who = {"admin": "boss"} if admin else {"customer": "ada"}
    headers = {"Authorization": f"Bearer {issue(settings, ttl=timedelta(hours=1), **who)}"}

    async def scenario() -> list[httpx.Response]:
        parts = create_parts(settings)
        if levels:
            read(parts.promotions, *levels)
            parts.promotions.feed.caught_up.set()
        app = create_app(parts)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://x", headers=headers) as http,
        ):
            return [await http.request(method, path, json=body) for method, path, body in requests]

    return asyncio.run(scenario())


WRONG = [
    ({}, "kind"),
    ({"kind": "half-price"}, "kind"),
    ({"kind": "percentage"}, "percent"),
    ({"kind": "percentage", "percent": 0}, "percent"),
    ({"kind": "percentage", "percent": 100.5}, "percent"),
    ({"kind": "percentage", "percent": "ten"}, "percent"),
    ({"kind": "percentage", "percent": True}, "percent"),
    ({"kind": "free_shipping", "percent": 10}, "percent"),
    ({"kind": "fixed"}, "amounts"),
    ({"kind": "fixed", "amounts": [EUR10, EUR10]}, "amounts"),
    ({"kind": "fixed", "amounts": [EUR10, {"amount": "0.00", "currency": "USD"}]}, "amounts[1]"),
    ({"kind": "fixed", "amounts": [{"amount": "-1.00", "currency": "EUR"}]}, "amounts[0]"),
    ({"kind": "fixed", "amounts": [{"amount": "1.005", "currency": "EUR"}]}, "amounts[0]"),
    ({"kind": "fixed", "amounts": [{"amount": "1", "currency": "XXQ"}]}, "amounts[0].currency"),
    ({**PERCENTAGE, "amounts": [EUR10]}, "amounts"),
    ({"kind": "buy_x_get_y", "buy": 2}, "get"),
    ({"kind": "buy_x_get_y", "get": 1}, "buy"),
    ({"kind": "buy_x_get_y", "buy": 0, "get": 1}, "buy"),
    ({**PERCENTAGE, "buy": 2}, "buy"),
    ({**PERCENTAGE, "minimum_subtotal": [EUR10, EUR10]}, "minimum_subtotal"),
    ({**PERCENTAGE, "skus": ["no spaces"]}, "skus[0]"),
    ({**PERCENTAGE, "categories": [""]}, "categories[0]"),
    ({**PERCENTAGE, "valid_from": "2026-03-01T00:00:00"}, "valid_from"),
    ({**PERCENTAGE, "valid_from": "yesterday"}, "valid_from"),
    ({**PERCENTAGE, "valid_from": 1_700_000_000}, "valid_from"),
    ({**PERCENTAGE, "valid_from": "1700000000"}, "valid_from"),
    ({**PERCENTAGE, "valid_from": "2026-03-02T00:00:00Z", "valid_until": "2026-03-02T01:00:00+01:00"}, "valid_until"),
    ({**PERCENTAGE, "limit": 0}, "limit"),
    ({**PERCENTAGE, "limit": "5"}, "limit"),
    ({**PERCENTAGE, "limit_per_customer": -1}, "limit_per_customer"),
    ({**PERCENTAGE, "exclusive": "yes"}, "exclusive"),
    ({**PERCENTAGE, "used": 3}, "used"),
]


def test_what_is_wrong_is_named(settings: Settings) -> None:
    found = answers(settings, *(("PUT", "/v1/admin/promotions/SPRING10", body) for body, _ in WRONG))
    for answer, (_, field) in zip(found, WRONG, strict=True):
        problem(answer, 422, "invalid-request", field)


def test_several_mistakes_are_told_at_once(settings: Settings) -> None:
    body = {"kind": "buy_x_get_y", "percent": 10}
    (answer,) = answers(settings, ("PUT", "/v1/admin/promotions/SPRING10", body))
    told = problem(answer, 422, "invalid-request")
    assert [error["field"] for error in told["errors"]] == ["percent", "buy", "get"]


def test_a_code_is_a_name(settings: Settings) -> None:
    (answer,) = answers(settings, ("PUT", "/v1/admin/promotions/10%25%20off", PERCENTAGE))
    problem(answer, 422, "invalid-request", "code")


def test_promotions_are_for_staff(settings: Settings) -> None:
    requests = [
        ("PUT", "/v1/admin/promotions/SPRING10", PERCENTAGE),
        ("GET", "/v1/admin/promotions/SPRING10", None),
        ("GET", "/v1/admin/promotions", None),
    ]
    for answer in answers(settings, *requests, admin=False):
        problem(answer, 403, "forbidden")


def test_without_kafka(settings: Settings) -> None:
    put, one, every = answers(
        settings,
        ("PUT", "/v1/admin/promotions/SPRING10", PERCENTAGE),
        ("GET", "/v1/admin/promotions/SPRING10", None),
        ("GET", "/v1/admin/promotions", None),
    )
    problem(put, 503, "kafka-unavailable")
    problem(one, 503, "promotions-loading")
    problem(every, 503, "promotions-loading")


def test_a_code_that_is_used_up_is_named_as_the_request_has_it(settings: Settings) -> None:
    path = "/v1/orders/00000000-0000-4000-8000-000000000001/promo-codes"
    levels = [level(limit=1, used=1)]
    used_up, unknown = answers(
        settings, ("POST", path, {"code": "spring10"}), ("POST", path, {"code": "SPRUNG10"}), levels=levels
    )
    told = problem(used_up, 409, "promotion-used-up")
    assert [error["field"] for error in told["errors"]] == ["code"]
    problem(unknown, 422, "unknown-promo-code", "code")


def test_a_promotion_is_shown_as_it_was_put() -> None:
    body = {
        "kind": "fixed",
        "percent": None,
        "amounts": [EUR10, {"amount": "1200", "currency": "JPY"}],
        "buy": None,
        "get": None,
        "minimum_subtotal": [{"amount": "50.00", "currency": "EUR"}],
        "skus": ["MUG"],
        "categories": ["home"],
        "valid_from": "2026-03-01T00:00:00Z",
        "valid_until": "2026-04-01T00:00:00Z",
        "exclusive": True,
        "limit": 100,
        "limit_per_customer": 1,
        "active": False,
    }
    parsed = PromotionBody.model_validate(body)
    terms = _terms("SPRING10", parsed)
    assert terms.amounts == {"EUR": 1000, "JPY": 1200}
    assert terms.valid_from == datetime(2026, 3, 1, tzinfo=UTC)
    shown = promotion_json(PromotionLevel(terms=terms, limit=parsed.limit, limit_per_customer=1, used=7))
    assert {**shown, "skus": list(shown["skus"]), "categories": list(shown["categories"])} == {
        "code": "SPRING10",
        **body,
        "used": 7,
        "version": 1,
    }


@pytest.mark.parametrize(("given", "kept"), [(10, "10"), (12.5, "12.5"), ("7.2500", "7.25"), (100, "100")])
def test_a_percentage_is_kept_exactly(given: Any, kept: str) -> None:
    body = PromotionBody.model_validate({"kind": "percentage", "percent": given})
    assert _terms("X", body).percent == kept


def level(code: str = "SPRING10", version: int = 1, **changes: Any) -> PromotionLevel:
    terms = PromotionTerms(code=code, kind="percentage", percent="10", version=version)
    return PromotionLevel(terms=terms, **changes)


def read(table: Promotions, *levels: PromotionLevel | str) -> None:
    """As the feed does; a code alone is a tombstone."""
    now = datetime.now(UTC)
    table._take(
        [
            Received(LEVELS, found, None)
            if isinstance(found, str)
            else Received(LEVELS, found.terms.code, Message(id="m", at=now, actor="a", correlation_id="c", data=found))
            for found in levels
        ]
    )


@pytest.fixture
def table(settings: Settings) -> Promotions:
    found = Promotions(settings, kafka.producer(settings))
    found.feed.caught_up.set()
    return found


def test_the_terms_of_the_codes_that_exist_in_the_order_asked_for(table: Promotions) -> None:
    read(table, level("A"), level("B"), level("C"))
    assert [terms.code for terms in table.terms(["C", "NONE", "A"])] == ["C", "A"]
    assert table.terms([]) == ()
    read(table, "C")
    assert table.terms(["C"]) == ()
    assert [found.terms.code for found in table.page("A", 5)] == ["B"]
    assert [found.terms.code for found in table.page("", 1)] == ["A"]


def test_terms_are_not_guessed_while_the_table_is_not_complete(table: Promotions) -> None:
    table.feed.caught_up.clear()
    assert table.terms([]) == ()
    with pytest.raises(Problem) as error:
        table.terms(["A"])
    assert (error.value.status, error.value.type) == (503, "promotions-loading")


def test_used_up(table: Promotions) -> None:
    read(
        table, level("A", used=5), level("B", limit=5, used=4), level("C", limit=5, used=5), level("D", limit=5, used=6)
    )
    assert [table.used_up(code) for code in ("A", "B", "C", "D", "NONE")] == [False, False, True, True, False]


def test_what_was_learned_directly_is_not_forgotten_over_what_the_feed_still_has(table: Promotions) -> None:
    read(table, level(version=1, used=1))
    table.learn(level(version=3))
    read(table, level(version=2))
    table.learn(level(version=2))
    assert table.terms(["SPRING10"])[0].version == 3
    read(table, level(version=3, used=2))
    found = table.level("SPRING10")
    assert found is not None
    assert found.used == 2
