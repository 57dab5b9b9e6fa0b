"""A headless Chromium, the system's own (Debian: chromium, chromium-driver), to see pages as a person does."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

PROGRAMS = ("chromium", "chromedriver")
DESKTOP, PHONE = (1440, 900), (390, 844)


class Browser:
    """`driver` is Selenium's; what the page complained of and which addresses it asked for is noted from the start."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def look(self, size: tuple[int, int] = DESKTOP, *, dark: bool = False, scale: float = 1) -> None:
        """As on a screen of so many (CSS) pixels, and a person who likes it so."""
        width, height = size
        screen = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": size == PHONE}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def run(self, script: str, *arguments: Any) -> Any:
        """What the body of a function in JavaScript returns."""
        return self.driver.execute_script(script, *arguments)

    def png(self) -> bytes:
        """The screen."""
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        return base64.b64decode(shot["data"])

    def complaints(self) -> list[str]:
        """What went to the console as an error since the last call: failures, and what the page's policy refused."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def asked(self) -> list[str]:
        """The addresses of all requests since the last call."""
        events = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def hosts(self) -> set[str]:
        return {urlsplit(url).netloc for url in self.asked() if urlsplit(url).scheme != "data"}


@contextmanager
def chromium() -> Iterator[Browser]:
    """Skips the test where there is none, but not in CI."""
    programs = [shutil.which(name) for name in PROGRAMS]
    if None in programs:
        missing = " and ".join(name for name, found in zip(PROGRAMS, programs, strict=True) if not found)
        if os.environ.get("CI"):
            pytest.fail(f"CI has no {missing}")
        pytest.skip(f"no {missing} here (Debian: apt install chromium chromium-driver)")
    options = ChromeOptions()
    options.binary_location = str(programs[0])
    for argument in (
        "headless=new",
        "hide-scrollbars",
        "disable-dev-shm-usage",
        "disable-gpu",
        "disable-background-networking",
    ):
        options.add_argument(f"--{argument}")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # root can't have one
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=Service(programs[1]))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
