"""How a customer wants to be told, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.notification import Preferences
from tests.gateway.conftest import Shop, problem

WISHES: dict[str, Any] = {
    "email": "ada@example.org",
    "phone": "+491701234567",
    "channel": "sms",
    "language": "de",
    "opt_outs": ["delivered"],
}


def path(shop: Shop) -> str:
    return f"/v1/customers/{shop.customer}/preferences"


def test_preferences_are_kept_and_shown(shop: Shop) -> None:
    problem(shop.call("GET", path(shop)), 404, "not-found")
    answer = shop.call("PUT", path(shop), WISHES)
    assert answer.status_code == 200, answer.text
    expected = {"customer_id": shop.customer, "webhook_url": None, "push_token": None, **WISHES}
    assert answer.json() == expected
    assert shop.call("GET", path(shop)).json() == expected
    shop.call("PUT", path(shop), {"email": "ada@example.org"})
    replaced = shop.call("GET", path(shop), as_="staff").json()
    assert (replaced["channel"], replaced["phone"], replaced["opt_outs"]) == ("email", None, [])


def test_what_reaches_a_person_is_sealed_on_the_topic(shop: Shop) -> None:
    assert shop.call("PUT", path(shop), WISHES).status_code == 200
    mine = [r for r in shop.stack.read("customer.preferences") if r.key == shop.customer.encode()]
    assert mine
    assert mine[-1].message is not None
    assert isinstance(mine[-1].message.data, Preferences)
    assert mine[-1].value is not None
    assert b"ada@example.org" not in mine[-1].value
    assert b"4917" not in mine[-1].value


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"email": "nobody"}, "email"),
        ({"email": "a@b"}, "email"),
        ({"phone": "0170"}, "phone"),
        ({"channel": "pigeon"}, "channel"),
        ({"language": "german"}, "language"),
        ({"opt_outs": ["cancelled"]}, "opt_outs[0]"),
        ({"opt_outs": ["nonsense"]}, "opt_outs[0]"),
        ({"webhook_url": "ftp://x"}, "webhook_url"),
        ({"webhook_url": "http://hooks.example/x"}, "webhook_url"),
        ({"webhook_url": "https://169.254.169.254/x"}, "webhook_url"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_bad_preferences_name_the_field(shop: Shop, change: dict[str, Any], field: str) -> None:
    problem(shop.call("PUT", path(shop), {**WISHES, **change}), 422, "invalid-request", field)


@pytest.mark.parametrize(
    ("wishes", "field"),
    [
        ({"channel": "email"}, "email"),
        ({"channel": "sms"}, "phone"),
        ({"channel": "webhook", "webhook_url": None}, "webhook_url"),
        ({"channel": "push", "email": "ada@example.org"}, "push_token"),
        ({}, "email"),
    ],
)
def test_the_preferred_channel_needs_its_address(shop: Shop, wishes: dict[str, Any], field: str) -> None:
    found = problem(shop.call("PUT", path(shop), wishes), 422, "invalid-request")
    assert [error["field"] for error in found["errors"]] == [field]


def test_a_webhook_is_kept(shop: Shop) -> None:
    wishes = {"channel": "webhook", "webhook_url": "https://hooks.example:8443/orders?of=ada"}
    answer = shop.call("PUT", path(shop), wishes)
    assert answer.status_code == 200, answer.text
    assert answer.json()["webhook_url"] == wishes["webhook_url"]


def test_somebody_elses_are_nobodys_business(shop: Shop) -> None:
    assert shop.call("PUT", path(shop), WISHES).status_code == 200
    problem(shop.call("GET", path(shop), as_="somebody-else"), 404, "not-found")
    problem(shop.call("PUT", path(shop), WISHES, as_="somebody-else"), 404, "not-found")
    problem(shop.call("GET", path(shop), as_=None), 401, "unauthorized")
