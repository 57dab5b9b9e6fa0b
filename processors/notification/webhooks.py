"""Which URLs a customer's webhook may have: the rule of who sets one and of who sends there. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit


def named(url: str) -> bool:
    """Whether it is https and names its host: an address in numbers never meets the resolver, which knows public ones
    only."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False  # no URL at all
    # 2130706433 and 0x7f.1 are addresses too: the last label of a name begins with a letter.
    letter = host.removesuffix(".").rpartition(".")[2][:1].isalpha()
    return parts.scheme == "https" and letter and ":" not in host
