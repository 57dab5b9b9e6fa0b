"""Finding what looks like a card number, so that none is ever accepted, stored or logged."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

_SUSPICIOUS = re.compile(rb"[0-9](?:[ .-]{0,3}[0-9]){12}")
_GROUPS = re.compile(r"[0-9]+(?:[ .-]{1,3}[0-9]+)*")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

# Their values are looked up in the catalogue; article numbers (EAN-13) pass the Luhn test one time in ten.
_EXEMPT = frozenset({"sku", "product_id"})


def contains_card_number(text: str) -> bool:
    """Whether the text has 13 to 19 digits in a row (spaces, dots and hyphens between groups allowed) that pass
    the Luhn test."""
    plain = _UUID.sub(" x ", unicodedata.normalize("NFKC", text))
    for run in _GROUPS.findall(plain):
        groups = re.findall("[0-9]+", run)
        for start in range(len(groups)):
            digits = ""
            for group in groups[start:]:
                digits += group
                if len(digits) > 19:
                    break
                if len(digits) >= 13 and luhn(digits):
                    return True
    return False


def luhn(digits: str) -> bool:
    """The check of ISO/IEC 7812: from the right, every second digit doubled."""
    total = 0
    for position, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if position % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0 and digits.strip("0") != ""


def card_field(raw: bytes) -> str | None:
    """The field of a JSON body that holds what looks like a card number, or None. A body that is not JSON has no
    fields; it is refused elsewhere."""
    # A cheap look first: almost no body has 13 digits in a row. Escapes and non-ASCII digits could hide them.
    if raw.isascii() and b"\\" not in raw and _SUSPICIOUS.search(raw) is None:
        return None
    try:
        return _search(json.loads(raw), "")  # what the routes read bodies with, so that both see the same
    except (ValueError, RecursionError):
        return None


def _search(value: Any, path: str) -> str | None:
    if isinstance(value, dict):
        for name, inner in value.items():
            if contains_card_number(name):
                return path or "body"
            found = None if name in _EXEMPT else _search(inner, f"{path}.{name}" if path else name)
            if found is not None:
                return found
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found = _search(inner, f"{path}[{index}]")
            if found is not None:
                return found
    elif isinstance(value, str | int) and not isinstance(value, bool) and contains_card_number(str(value)):
        return path or "body"
    return None
