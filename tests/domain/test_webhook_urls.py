"""Which URLs a customer's webhook may have."""

from __future__ import annotations

import pytest

from processors.notification.webhooks import named


@pytest.mark.parametrize(
    "url",
    ["https://hooks.example/x", "https://hooks.example:8443/x?a=1", "https://3d.example./", "https://HOOKS.EXAMPLE"],
)
def test_https_to_a_named_host(url: str) -> None:
    assert named(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example/x",
        "https://127.0.0.1/x",
        "https://127.1/x",
        "https://2130706433/x",
        "https://0x7f000001/x",
        "https://127.0.0.0x1./x",
        "https://[::1]/x",
        "https://[fe80::1]/x",
        "https://ada@10.0.0.1/x",
        "https://hooks.example:99999/x",
        "https://[x",
        "https:///x",
        "nonsense",
    ],
)
def test_no_other_way_and_no_address_in_numbers(url: str) -> None:
    assert not named(url)
