"""Sealed envelopes, opened for rows in clear."""

from __future__ import annotations

from typing import Any

from runtime.keystore import Vault
from schemas.address import Sealed

from .rows import Open


class KeysAway(Exception):
    """The key store did not answer; the message is not to blame."""


def opener(vault: Vault) -> Open:
    """Opens envelopes. ValueError: this one is broken. KeysAway: try again later."""

    def opened(sealed: Sealed) -> dict[str, Any] | None:
        try:
            return vault.open(sealed)
        except ValueError:
            raise
        except Exception as error:
            raise KeysAway(f"{type(error).__name__}: {error}") from error

    return opened
