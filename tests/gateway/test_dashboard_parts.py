"""The dashboard's parts that need no stack: words and shares, asking once for all, files, who may look."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from fastapi import FastAPI

from analytics import kpis
from gateway import problems
from gateway.auth import Authenticator, issue
from gateway.dashboard import figures, html, routes
from gateway.dashboard.contents import Found, Now
from gateway.dashboard.shared import Seen, Shared
from gateway.freshness import note, reading
from runtime.settings import Settings

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STATIC = Path(html.__file__).parents[1] / "static"


# Words


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "now"), (5, "5 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (172800, "2 days")],
)
def test_ages(seconds: float, said: str) -> None:
    assert figures.age(seconds) == said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("PENDING_PAYMENT", "Pending payment"),
        ("OrderPaymentConfirmed", "Payment confirmed"),
        ("OrderCreated", "Created"),
        ("out_of_stock", "Out of stock"),
    ],
)
def test_names(name: str, said: str) -> None:
    assert figures.words(name) == said


def tile(**changes: Any) -> figures.Tile:
    row = {
        "submitted": 400,
        "paid": 390,
        "delivered": 384,
        "cancelled": 16,
        "under_way": 0,
        "paid_rate": 0.975,
        "delivered_rate": 0.96,
        **changes,
    }
    (found,) = figures.tiles({"completion": [row]}, [kpis.load()["completion"]])
    return found


def test_a_tile_says_whether_the_target_is_met() -> None:
    met = tile()
    assert (met.value, met.target, met.verdict) == ("96.0 %", "target\u00a0>\u00a095\u00a0%", "met")
    assert met.note.startswith("384 of 400")
    assert tile(delivered=380, cancelled=20, delivered_rate=0.95).verdict == "missed", "more than 95 %, not 95 %"
    assert tile(delivered=0, cancelled=0, under_way=400, delivered_rate=0.0).verdict == "open"
    nothing = tile(submitted=0, delivered=0, cancelled=0, delivered_rate=None)
    assert (nothing.value, nothing.verdict) == ("–", "none")


def test_the_page_says_each_verdict_in_words() -> None:
    tiles = [replace(tile(), verdict=verdict) for verdict in ("met", "missed", "open", "none")]
    shown = {"tiles": tiles, "others": [], "funnel": [], "times": [], "active": [], "cancellations": [], "revenue": []}
    page = html.page(
        "dashboard.html",
        staff="bo",
        period="all",
        periods=["all"],
        state="stale",
        behind="",
        now=None,
        figures={"at": NOW, **shown},
    )
    said = re.findall(r'<p class="verdict"><span[^>]*>(.)</span>([^<]+)<', bytes(page.body).decode())
    assert said == [("✓", "met"), ("✗", "missed"), ("…", "still open"), ("–", "no data")]


def test_every_kpi_with_a_target_is_a_tile() -> None:
    with_target = {name: kpi for name, kpi in kpis.load().items() if kpi.target}
    rows = {name: [dict.fromkeys(kpi.columns)] for name, kpi in with_target.items()}
    found = list(figures.tiles(rows, with_target.values()))
    assert {tile.name for tile in found if tile.target} == set(with_target)
    assert {tile.verdict for tile in found} == {"none"}


def test_bars_and_spans() -> None:
    rows = [{"reason": "fraud", "orders": 8, "share": 0.8}, {"reason": "staff", "orders": 2, "share": 0.2}]
    first, second = figures.bars(rows, "reason", "orders", ("share", "ratio"))
    assert (first.label, first.share, first.figures) == ("Fraud", 1, ("8", "80.0 %"))
    assert second.share == 0.25
    assert figures.bars([], "reason", "orders") == []
    assert figures.bars([{"reason": "x", "orders": 0}], "reason", "orders")[0].share == 0
    short, long = figures.spans(
        [
            {"state": "DRAFT", "orders": 2, "p50": 0.0, "p95": 1.0},
            {"state": "SHIPPED", "orders": 1, "p50": 3600.0, "p95": 3600.0},
        ],
        "state",
    )
    assert 0 <= short.p50 < short.p95 < long.p50 == long.p95 <= 1
    assert long.figures == ("1", "60.0 min", "60.0 min")
    assert figures.spans([], "state") == []


@pytest.mark.parametrize(("first", "rows"), [(None, 61), (0, 61), (30, 32), (60, 15)])
def test_the_chart_begins_shortly_before_the_first_order(first: int | None, rows: int) -> None:
    minutes = [
        {"minute": 60 * number, "created": int(number == first), "paid": 0, "cancelled": 0} for number in range(61)
    ]
    shown = figures.shown(Found(seen(Now(minutes, [], [])), None, True), NOW)["now"]
    assert len(shown["minutes"]) == rows
    assert shown["minutes"][-1]["minute"] == 3600
    assert shown["totals"]["created"] == int(first is not None)


def test_the_tail_and_the_timeline() -> None:
    at = int((NOW - timedelta(minutes=3)).timestamp()) * 1_000_000
    row = {"id": "1", "at_us": at, "type": "OrderShipped", "actor": "system:fulfilment", "order_id": "a1b2c3d4-e5"}
    (event,) = figures.events([{**row, "number": ""}], NOW)
    assert (event["what"], event["age"]) == ("Shipped", "3 min")
    assert event["number"] == "a1b2c3d4", "until the order's own view knows it"
    events = [
        {"version": 1, "type": "OrderCreated", "occurred_us": 1_000_000, "actor": "customer:ada"},
        {"version": 2, "type": "OrderSubmitted", "occurred_us": 3_500_000, "actor": "customer:ada"},
    ]
    assert [event["after"] for event in figures.timeline(events)] == ["", "2.50 s"]


def seen(value: Any, behind: float = 0) -> Seen[Any]:
    return Seen(value, NOW, NOW - timedelta(seconds=behind))


def test_it_says_when_the_views_are_behind() -> None:
    said = [figures.shown(Found(seen(Now([], [], []), lag), None, True), NOW) for lag in (3, 40)]
    assert [page["behind"] for page in said] == ["", "40 s"]
    assert said[1]["now"]["at"] == NOW - timedelta(seconds=40), "what is shown is as of then"


# Asking once


def shared(look: Any, fresh: float, share: float = 0.2) -> Shared[str, Any]:
    return Shared(look, lambda _: fresh, share)


async def value(found: Shared[str, Any], key: str = "a") -> Any:
    return (await found.get(key)).value


def test_many_who_look_ask_once() -> None:
    asked = []

    async def look(key: str) -> int:
        asked.append(key)
        await asyncio.sleep(0.01)
        return len(asked)

    async def many() -> None:
        found = shared(look, fresh=60)
        assert found.last("a") is None
        assert await asyncio.gather(*(value(found) for _ in range(50))) == [1] * 50
        assert await value(found) == 1
        assert await value(found, "b") == 2
        assert asked == ["a", "b"]

    asyncio.run(many())


def test_what_is_slow_is_asked_less_often() -> None:
    async def slow(_: str) -> float:
        await asyncio.sleep(0.1)
        return asyncio.get_running_loop().time()

    async def twice() -> None:
        found = shared(slow, fresh=0)
        first = await value(found)
        await asyncio.sleep(0.1)
        assert await value(found) == first, "100 ms of asking are good for 500 ms"
        await asyncio.sleep(0.6)
        assert await value(found) > first

    asyncio.run(twice())


def test_a_failure_is_told_to_all_and_tried_again() -> None:
    tries = []

    async def look(_: str) -> int:
        tries.append(1)
        await asyncio.sleep(0.01)
        if len(tries) == 2:
            raise OSError("away")
        return len(tries)

    async def away_and_back() -> None:
        found = shared(look, fresh=0.01)
        assert await value(found) == 1
        await asyncio.sleep(0.1)
        told = await asyncio.gather(value(found), value(found), return_exceptions=True)
        assert [type(each) for each in told] == [OSError, OSError]
        assert len(tries) == 2
        last = found.last("a")
        assert last is not None
        assert last.value == 1, "what was known stays"
        assert await value(found) == 3

    asyncio.run(away_and_back())


def test_one_who_goes_away_leaves_the_answer_to_the_others() -> None:
    async def look(_: str) -> int:
        await asyncio.sleep(0.02)
        return 1

    async def cancelled() -> None:
        found = shared(look, fresh=60)
        impatient = asyncio.create_task(value(found))
        patient = asyncio.create_task(value(found))
        await asyncio.sleep(0)
        impatient.cancel()
        assert await patient == 1

    asyncio.run(cancelled())


def test_each_who_looks_is_told_how_old_it_is() -> None:
    async def look(_: str) -> None:
        note("SELECT count() FROM oms.orders", time.monotonic() - 5)

    async def twice() -> None:
        found = shared(look, fresh=60)
        for _ in range(2):
            with reading() as read:
                seen = await found.get("a")
            assert read.lag is not None, "also one who did not ask"
            assert 5 <= read.lag < 10
            assert 4.9 < seen.behind < 10

    asyncio.run(twice())


# Files


def test_vendored_files_are_what_was_published() -> None:
    sums = dict(
        re.findall(r"^\| `([^`]+)` .* `([0-9a-f]{64})` \|$", (STATIC / "vendor" / "README.md").read_text(), re.M)
    )
    present = {path.name for path in (STATIC / "vendor").iterdir()} - {"README.md"}
    assert sums.keys() == present
    for name, expected in sums.items():
        assert hashlib.sha256((STATIC / "vendor" / name).read_bytes()).hexdigest() == expected, name


def test_templates_have_no_script_or_style_of_their_own_and_no_other_host() -> None:
    """The policy forbids them; a browser would only say so on the page where it happens."""
    for template in (STATIC.parent / "dashboard" / "templates").iterdir():
        found = template.read_text()
        assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=|javascript:|https?://", found), template


# Who may look


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    """The pages, without views: what they answer before anything is read."""

    class Parts:
        settings = Settings(data_dir=tmp_path)
        authenticator = Authenticator(settings)
        views: Any = None

    found = FastAPI()
    found.state.parts = Parts
    problems.install(found)
    routes.install(found, Parts)  # type: ignore[arg-type]
    return found


def ask(app: FastAPI, method: str, path: str, **options: Any) -> httpx.Response:
    async def one() -> httpx.Response:
        transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url=options.pop("base", "http://oms")) as client:
            return await client.request(method, path, **options)

    return asyncio.run(one())


def token(app: FastAPI, ttl: timedelta = timedelta(hours=1), **who: str) -> str:
    return issue(app.state.parts.settings, ttl=ttl, **who)  # type: ignore[arg-type]


def test_nobody_gets_the_sign_in_page(app: FastAPI) -> None:
    answer = ask(app, "GET", "/dashboard")
    assert answer.status_code == 401
    assert 'name="token"' in answer.text
    assert 'role="alert"' not in answer.text, "nobody did anything wrong yet"
    assert answer.headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_an_expired_token_gets_the_sign_in_page_and_why(app: FastAPI) -> None:
    old = token(app, timedelta(seconds=-1), admin="bo")
    answer = ask(app, "GET", "/dashboard", headers={"Cookie": f"oms_dashboard={old}"})
    assert answer.status_code == 401
    assert "The token has expired." in answer.text


@pytest.mark.parametrize("path", ["/dashboard", "/dashboard/orders/00000000-0000-4000-8000-000000000000"])
def test_customers_may_not_look(app: FastAPI, path: str) -> None:
    customer = token(app, customer="ada")
    for headers in ({"Cookie": f"oms_dashboard={customer}"}, {"Authorization": f"Bearer {customer}"}):
        answer = ask(app, "GET", path, headers=headers)
        assert answer.status_code == 403
        assert "orders:admin" in answer.text


ORIGIN = {"Origin": "http://oms"}


def test_signing_in_sets_a_cookie_for_as_long_as_the_token_is_good(app: FastAPI) -> None:
    good = token(app, admin="bo")
    answer = ask(app, "POST", "/dashboard/sign-in", data={"token": f" Bearer {good}\n"}, headers=ORIGIN)
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"oms_dashboard={good};")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Path=/dashboard" in cookie
    assert "Secure" not in cookie
    (seconds,) = re.findall(r"Max-Age=(\d+)", cookie)
    assert 3590 <= int(seconds) <= 3600


def test_over_https_the_cookie_goes_nowhere_else(app: FastAPI) -> None:
    sent = {"data": {"token": token(app, admin="bo")}, "headers": {"Origin": "https://oms"}, "base": "https://oms"}
    assert "Secure" in ask(app, "POST", "/dashboard/sign-in", **sent).headers["set-cookie"]


FORGED = jwt.encode({"sub": "bo", "aud": "oms", "scope": "orders:admin", "exp": 4102444800}, "x" * 32, "HS256")


@pytest.mark.parametrize("bad", ["", "not-a-token", FORGED])
def test_a_wrong_token_sets_nothing_and_is_not_said_again(app: FastAPI, bad: str) -> None:
    answer = ask(app, "POST", "/dashboard/sign-in", data={"token": bad}, headers=ORIGIN)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert 'role="alert"' in answer.text
    assert not bad or bad not in answer.text


def test_a_customers_token_does_not_sign_in(app: FastAPI) -> None:
    answer = ask(app, "POST", "/dashboard/sign-in", data={"token": token(app, customer="ada")}, headers=ORIGIN)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("path", ["/dashboard/sign-in", "/dashboard/sign-out"])
@pytest.mark.parametrize("headers", [{}, {"Origin": "https://elsewhere.example"}, {"Origin": "null"}])
def test_forms_of_other_sites_are_refused(app: FastAPI, path: str, headers: dict[str, str]) -> None:
    answer = ask(app, "POST", path, data={"token": token(app, admin="bo")}, headers=headers)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_signing_out(app: FastAPI) -> None:
    answer = ask(app, "POST", "/dashboard/sign-out", headers=ORIGIN)
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/sign-in")
    assert "Max-Age=0" in answer.headers["set-cookie"]


def test_files_are_kept_for_ever_under_the_address_of_their_version_only(app: FastAPI) -> None:
    page = ask(app, "GET", "/dashboard/sign-in").text
    addresses = re.findall(r'(?:src|href)="(/dashboard/static/[^"]+)"', page)
    assert len(addresses) == 3
    for address in addresses:
        answer = ask(app, "GET", address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert ask(app, "GET", address.replace("?v=", "?v=0")).headers["cache-control"] == "no-cache"
    assert ask(app, "GET", "/dashboard/static/../auth.py").status_code == 404
    assert ask(app, "GET", "/dashboard/static/vendor/README.md").status_code == 404


def test_a_period_that_there_is_not(app: FastAPI) -> None:
    headers = {"Authorization": f"Bearer {token(app, admin='bo')}"}
    answer = ask(app, "GET", "/dashboard?period=99y", headers=headers)
    assert answer.status_code == 422
    assert "period" in answer.text


def test_a_name_is_never_markup() -> None:
    tail = [{"id": "1", "what": "<b>x", "order_id": "o", "number": "<i>n", "actor": "<script>", "age": "now"}]
    now = {
        "at": NOW,
        "minutes": [],
        "totals": {"created": 0, "paid": 0, "cancelled": 0},
        "events": tail,
        "exceptions": [],
    }
    found = html.page(
        "dashboard.html",
        staff='"><script>',
        period="all",
        periods=["all"],
        state="live",
        behind="",
        now=now,
        figures=None,
    )
    body = bytes(found.body).decode()
    assert "<script>" not in body
    assert "&lt;script&gt;" in body
