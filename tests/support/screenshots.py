"""The dashboard's pictures in the docs, of a stack with a few hundred orders: `make screenshots`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from gateway.dashboard.cli import address
from tests.support.browser import DESKTOP, PHONE, chromium
from tests.support.stack import running_stack

FOLDER = Path(__file__).parents[2] / "docs" / "images"
ORDERS = 300
MINUTES = 3
"""For how long they come in, so that there is something to see in the chart."""


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, running_stack(Path(folder), own=True) as stack, chromium() as browser:
        rate = ORDERS / MINUTES / 60
        simulate = ["simulate", "--orders", str(ORDERS), "--rate", f"{rate:.2f}", "--data-dir", folder]
        subprocess.run([sys.executable, "-m", "runtime", *simulate], check=True)
        browser.driver.get(address(stack.settings, stack.url, "bo", timedelta(hours=1)))
        stack.until(lambda: browser.driver.current_url.endswith("/dashboard"), "signed in")
        for name, size, dark, down in (
            ("desktop-light", DESKTOP, False, 0),
            ("desktop-dark", DESKTOP, True, 0),
            ("phone-light", PHONE, False, 0),
            ("phone-dark", PHONE, True, 620),
        ):
            browser.look(size, dark=dark)
            browser.run("scrollTo(0, arguments[0])", down)
            time.sleep(1)  # until it is laid out and painted
            (FOLDER / f"dashboard-{name}.png").write_bytes(browser.png())


if __name__ == "__main__":
    main()
