"""The dashboard over HTTP and on the command line, on the running stack."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.gateway.conftest import UNKNOWN, Shop

pytestmark = pytest.mark.stack


@pytest.mark.parametrize("period", ["1h", "24h", "7d", "30d", "all"])
def test_a_bearer_header_will_do(shop: Shop, period: str) -> None:
    answer = shop.call("GET", f"/dashboard?period={period}", as_="staff")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["cache-control"] == "no-store"
    assert '<main data-state="live"' in answer.text


def test_the_cookie_is_good_for_the_dashboard_only(shop: Shop) -> None:
    cookie = {"Cookie": f"oms_dashboard={shop.token('staff')}"}
    assert httpx.get(f"{shop.stack.url}/dashboard", headers=cookie).status_code == 200
    assert httpx.get(f"{shop.stack.url}/v1/kpis", headers=cookie).status_code == 401


def test_the_page_of_an_order(shop: Shop) -> None:
    order = shop.draft(shop.product())
    shop.call("GET", f"/v1/orders/{order['id']}?min_version=1")
    answer = shop.call("GET", f"/dashboard/orders/{order['id']}", as_="staff")
    assert answer.status_code == 200
    for said in (order["number"], "Draft", order["customer_id"], order["total"]["amount"]):
        assert said in answer.text
    assert "Ada Lovelace" not in answer.text, "who sees what happens need not see to whom"
    for unknown in (UNKNOWN, "x"):
        missing = shop.call("GET", f"/dashboard/orders/{unknown}", as_="staff")
        assert (missing.status_code, missing.headers["content-type"]) == (404, "text/html; charset=utf-8")


def test_the_command_prints_an_address_that_signs_in(shop: Shop, tmp_path: Path) -> None:
    def oms(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "runtime", "dashboard", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    done = oms("--data-dir", str(shop.stack.data_dir), "--admin", "bo")
    assert done.returncode == 0, done.stderr
    page, _, token = done.stdout.strip().partition("#token=")
    assert page == f"{shop.stack.url}/dashboard/sign-in"
    form = {"token": token}
    answer = httpx.post(page, data=form, headers={"Origin": shop.stack.url})
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard")
    nowhere = oms("--data-dir", str(tmp_path))
    assert nowhere.returncode == 1
    assert nowhere.stderr.startswith(f"No stack is running in {tmp_path}")
