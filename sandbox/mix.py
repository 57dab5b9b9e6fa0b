"""In which proportions visitors do what: the default, and what somebody says instead. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox.people import MIX, PREFERENCES, SURVEYS, Persona

PERSONAS = {persona.slug: persona for persona in Persona}


class MixError(ValueError):
    """The shares are wrong; the text says which and why."""


@dataclass(frozen=True)
class Mix:
    """`personas`: shares of the visits, adding up to 1. `surveys` and `preferences`: shares of all visitors who answer
    a survey, and who say how they want to be told."""

    personas: Mapping[Persona, float] = field(default_factory=lambda: MIX)
    surveys: float = SURVEYS
    preferences: float = PREFERENCES


def mixed(shares: Mapping[str, Any]) -> Mix:
    """The default mix with these shares (0 to 1) instead, by the personas' slugs, `surveys` and `preferences`. Personas
    that are not named have what is left, in the default's proportions. MixError."""
    shares = {name: _share(name, share) for name, share in shares.items()}
    surveys, preferences = shares.pop("surveys", SURVEYS), shares.pop("preferences", PREFERENCES)
    if unknown := shares.keys() - PERSONAS.keys():
        known = ", ".join([*PERSONAS, "surveys", "preferences"])
        raise MixError(f"there is no share called {', '.join(sorted(unknown))}; there are {known}")
    named = {PERSONAS[name]: share for name, share in shares.items()}
    left = 1 - sum(named.values())
    others = {persona: share for persona, share in MIX.items() if persona not in named}
    if left < -1e-9 or (left > 1e-9 and not others):
        raise MixError(f"the shares add up to {1 - left:g}, not to 1")
    total = math.fsum(others.values()) or 1.0
    rest = {persona: max(0.0, left) * share / total for persona, share in others.items()}
    return Mix({persona: {**named, **rest}[persona] for persona in Persona}, surveys, preferences)


def parse_share(text: str) -> tuple[str, str]:
    """ "returns=0.1" → ("returns", "0.1"). MixError."""
    name, separator, share = text.partition("=")
    if not separator:
        raise MixError(f"{text!r} is not NAME=SHARE, as in returns=0.1")
    return name.strip(), share.strip()


def _share(name: str, value: Any) -> float:
    try:
        share = float(value)
    except (TypeError, ValueError):
        share = math.nan
    if not 0 <= share <= 1:
        raise MixError(f"{name}: a share is a number from 0 to 1, not {value!r}")
    return share
