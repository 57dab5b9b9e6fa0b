"""The dashboard as a person sees it, in a headless Chromium on the running stack."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from selenium.webdriver.common.by import By

from tests.gateway.conftest import Shop
from tests.support.browser import DESKTOP, PHONE, Browser, chromium

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def browser(chrome: Browser, shop: Shop) -> Browser:
    """Signed out, nothing noted."""
    chrome.driver.get(f"{shop.stack.url}/dashboard/sign-in")
    chrome.driver.delete_all_cookies()
    chrome.look()
    chrome.complaints()
    chrome.asked()
    return chrome


def sign_in(browser: Browser, shop: Shop, period: str = "all") -> None:
    """By the address that `oms dashboard` prints."""
    browser.driver.get(f"{shop.stack.url}/dashboard/sign-in?#token={shop.token('staff')}")
    until(lambda: urlsplit(browser.driver.current_url).path == "/dashboard", "signed in")
    browser.driver.get(f"{shop.stack.url}/dashboard?period={period}")
    # Ten times as often as it is shipped, from now on.
    browser.run("""
        document.querySelector("main").dataset.every = "500";
        document.dispatchEvent(new Event("visibilitychange"));
    """)


def until(condition: Callable[[], Any], what: str, seconds: float = 15) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


def text(browser: Browser, selector: str) -> str:
    """Of the first such element; empty while there is none."""
    return str(browser.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector))


def test_the_address_with_a_token_signs_in_and_forgets_the_token(browser: Browser, shop: Shop) -> None:
    sign_in(browser, shop)
    assert text(browser, "h1") == "Orders"
    token = shop.token("staff")
    assert token not in browser.driver.current_url
    assert not [url for url in browser.asked() if token in url.partition("#")[0]]
    cookie = browser.driver.get_cookie("oms_dashboard")
    assert cookie is not None
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/dashboard")
    assert 3000 < cookie["expiry"] - time.time() <= 3600, "as long as the token"
    assert browser.run("return document.cookie") == ""
    browser.driver.find_element(By.XPATH, "//button[.='Sign out']").click()
    until(lambda: browser.driver.get_cookie("oms_dashboard") is None, "signed out")
    browser.driver.get(f"{shop.stack.url}/dashboard")
    assert browser.driver.find_element(By.ID, "token")


def test_signing_in_by_hand(browser: Browser, shop: Shop) -> None:
    def send(token: str) -> None:
        field = browser.driver.find_element(By.ID, "token")
        field.send_keys(token)
        field.submit()

    send("not-a-token")
    until(lambda: browser.driver.find_elements(By.CSS_SELECTOR, ".fault"), "it is refused")
    assert text(browser, ".fault") == "The token is not valid here."
    send(shop.token("customer"))
    until(lambda: text(browser, "h1") == "Forbidden", "a customer's is refused")
    browser.driver.get(f"{shop.stack.url}/dashboard")
    send(shop.token("staff"))
    until(lambda: text(browser, "h1") == "Orders", "staff's is good")


def test_tiles_say_what_the_kpis_say(browser: Browser, shop: Shop) -> None:
    shop.placed(shop.product())

    def same() -> bool:
        browser.driver.get(f"{shop.stack.url}/dashboard?period=all")
        seen = {
            tile.get_attribute("data-kpi"): tile.find_element(By.CLASS_NAME, "value").text
            for tile in browser.driver.find_elements(By.CSS_SELECTOR, ".tile[data-kpi]")
        }
        items = shop.call("GET", "/v1/kpis", as_="staff").json()["items"]
        told = {kpi["name"]: kpi["headline"][0]["text"] for kpi in items if kpi["target"]}
        assert told
        return seen == told

    sign_in(browser, shop)
    # Figures of all time are good for half a minute, and longer on a slow machine.
    until(same, "the same figures at a quiet moment", 120)


def test_the_chart_is_drawn(browser: Browser, shop: Shop) -> None:
    shop.draft(shop.product())
    sign_in(browser, shop)

    def created() -> list[int]:
        """In each minute, as the table below the chart has it."""
        found: list[int] = browser.run("""
            const rows = [...document.querySelectorAll("[data-live=minutes] tr")];
            return rows.map((row) => Number(row.cells[1].textContent));
        """)
        return found

    until(lambda: sum(created()), "an order in the table")
    assert 15 <= len(created()) <= 61, "one row a minute, the present one too"

    def colours() -> int:
        return int(
            browser.run("""
                const canvas = document.querySelector(".chart canvas");
                const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
                const seen = new Set();
                for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 200) seen.add(data.slice(i, i + 3).join());
                return canvas.width > 300 && canvas.height > 100 ? seen.size : 0;
            """)
        )

    until(lambda: colours() > 3, "lines of several colours")


def test_a_new_order_shows_without_loading_the_page_again(browser: Browser, shop: Shop) -> None:
    sign_in(browser, shop)
    browser.run("window.same = true")
    number = shop.draft(shop.product())["number"]
    until(lambda: number in text(browser, ".tail"), "the order is in the tail")
    assert browser.run("return window.same"), "the page was not loaded again"
    browser.run(
        """
        [...document.querySelectorAll(".tail a")].find((link) => link.textContent === arguments[0]).click();
    """,
        number,
    )
    until(lambda: text(browser, "h1") == number, "its page")
    assert "Created" in text(browser, "tbody")


def test_what_the_keyboard_is_on_is_not_taken_away(browser: Browser, shop: Shop) -> None:
    order = shop.draft(shop.product())
    sign_in(browser, shop)
    until(lambda: order["number"] in text(browser, ".tail"), "the order is in the tail")
    browser.run("document.querySelector('.tail a').focus()")
    shop.draft(shop.product())
    before = text(browser, "[data-live=state]")
    until(lambda: text(browser, "[data-live=state]") != before, "read again")
    assert browser.run("return document.activeElement.matches('.tail a')")


def test_pausing(browser: Browser, shop: Shop) -> None:
    sign_in(browser, shop)
    button = browser.driver.find_element(By.ID, "pause")
    button.click()
    assert (button.text, button.get_attribute("aria-pressed")) == ("Resume", "true")
    time.sleep(0.5)  # for one that is under way
    browser.asked()
    time.sleep(1.5)
    assert browser.asked() == []
    button.click()
    until(browser.asked, "it goes on at once", 3)


def test_dark_and_light(browser: Browser, shop: Shop) -> None:
    sign_in(browser, shop)

    def page_and_text() -> list[int]:
        found: list[int] = browser.run("""
            const style = getComputedStyle(document.body);
            const sum = (colour) => colour.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0);
            return [sum(style.backgroundColor), sum(style.color)];
        """)
        return found

    page, words = page_and_text()
    assert page > 600 > 150 > words
    browser.look(dark=True)
    page, words = page_and_text()
    assert page < 150 < 600 < words


CONTRAST = (Path(__file__).parents[1] / "support" / "contrast.js").read_text()


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_can_be_read(browser: Browser, shop: Shop, dark: bool) -> None:
    browser.look(dark=dark)
    assert browser.run(CONTRAST) == [], "signing in"
    sign_in(browser, shop)
    assert browser.run(CONTRAST) == []


@pytest.mark.parametrize("size", [PHONE, (320, 640), (768, 1024), (1100, 800), (1280, 800), DESKTOP])
def test_nothing_is_wider_than_the_screen(browser: Browser, shop: Shop, size: tuple[int, int]) -> None:
    shop.placed(shop.product())
    browser.look(size)
    sign_in(browser, shop)
    until(lambda: text(browser, ".tail"), "the page")
    assert browser.run("return document.documentElement.scrollWidth") <= size[0]
    sticking_out = browser.run("""
        const right = (element) => element.getBoundingClientRect().right;
        return [...document.querySelectorAll(".card :not(.scroll *), .tile *")]
          .filter((element) => right(element) > right(element.closest(".card, .tile")))
          .map((element) => `${element.tagName} ${element.textContent.trim()}`);
    """)
    assert sticking_out == []


def test_no_complaints_and_no_other_host(browser: Browser, shop: Shop) -> None:
    sign_in(browser, shop)
    until(lambda: [url for url in browser.asked() if "period=all" in url], "it was read again")
    assert browser.complaints() == []
    browser.driver.get(f"{shop.stack.url}/dashboard")
    assert browser.hosts() == {urlsplit(shop.stack.url).netloc}
    assert browser.complaints() == []


def test_the_policy_lets_nothing_in(browser: Browser, shop: Shop) -> None:
    """What got into the page by a fault of ours could neither run nor tell anybody."""
    sign_in(browser, shop)
    browser.run("""
        const script = document.createElement("script");
        script.textContent = "window.intruder = true";
        document.body.append(script);
        fetch("http://127.0.0.1:9/").catch(() => {});
    """)
    assert browser.run("return window.intruder") is None
    refused = until(lambda: browser.complaints(), "the browser says what it refused")
    refused += browser.complaints()
    assert all("Content Security Policy" in line for line in refused), refused
    assert urlsplit(shop.stack.url).netloc in browser.hosts()
    assert "127.0.0.1:9" not in browser.hosts()


def test_while_clickhouse_is_away(browser: Browser, shop: Shop) -> None:
    number = shop.draft(shop.product())["number"]
    sign_in(browser, shop)
    until(lambda: number in text(browser, ".tail"), "something to see")

    def state() -> Any:
        return browser.run("return document.querySelector('main').dataset.state")

    with shop.stack.frozen("clickhouse"):
        until(lambda: state() == "stale", "it is seen", 30)
        assert "The views can’t be read" in text(browser, ".away")
        assert "Not live" in text(browser, "[data-live=state]")
        assert number in text(browser, ".tail"), "what was read last stays"
        assert any("503" in line for line in browser.complaints()), "programs can tell, too"
    until(lambda: state() == "live", "it goes on by itself", 30)
    assert text(browser, ".away") == ""
