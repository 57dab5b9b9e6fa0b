"""Who shops, what for and how: a seeded plan, made before the first request. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sandbox.catalogue import SampleProduct


class Persona(StrEnum):
    BUYS_AT_ONCE = "buys at once"
    BUILDS_DRAFT = "builds a draft, then submits"
    CANCELS = "cancels after placing"
    DECLINED_CARD = "declined card"
    FLAKY_CARD = "flaky card"
    SLOW_CARD = "slow card"
    WANTS_SCARCE = "wants what is scarce"
    ABANDONS_DRAFT = "abandons a draft"


MIX: Mapping[Persona, float] = {
    Persona.BUYS_AT_ONCE: 0.62,
    Persona.BUILDS_DRAFT: 0.16,
    Persona.CANCELS: 0.05,
    Persona.DECLINED_CARD: 0.04,
    Persona.FLAKY_CARD: 0.03,
    Persona.SLOW_CARD: 0.01,
    Persona.WANTS_SCARCE: 0.05,
    Persona.ABANDONS_DRAFT: 0.04,
}
"""Shares of the visits; they add up to 1."""

TOKENS: Mapping[Persona, str] = {
    Persona.DECLINED_CARD: "pm_card_chargeDeclined",
    Persona.FLAKY_CARD: "pm_sandbox_flaky",
    Persona.SLOW_CARD: "pm_sandbox_slow",
}
"""What the sandbox payment provider makes of a card; pm_card_visa for everyone else."""

MAX_GRAMS = 25_000
"""No cart of ours is heavier; every shipping method takes that much."""


@dataclass(frozen=True, slots=True)
class Place:
    country: str
    state: str | None
    city: str
    postal_code: str
    currency: str
    streets: tuple[str, ...]
    names: tuple[str, ...]


PLACES = (
    Place("DE", None, "Berlin", "10437", "EUR", ("Kastanienallee", "Oderberger Straße"), ("Lena Vogt", "Jonas Brandt")),
    Place("DE", None, "Hamburg", "20359", "EUR", ("Hafenstraße", "Paul-Roosen-Straße"), ("Mia Petersen", "Ole Hansen")),
    Place("DE", None, "München", "80469", "EUR", ("Klenzestraße", "Auenstraße"), ("Sophie Huber", "Max Lechner")),
    Place("FR", None, "Lyon", "69001", "EUR", ("rue Burdeau", "rue des Capucins"), ("Camille Roux", "Hugo Girard")),
    Place("FR", None, "Nantes", "44000", "EUR", ("rue Crébillon", "quai de la Fosse"), ("Chloé Morel", "Léo Fabre")),
    Place("US", "CA", "Oakland", "94607", "USD", ("Linden St", "Peralta St"), ("Grace Kim", "Daniel Ortiz")),
    Place("US", "NY", "Brooklyn", "11215", "USD", ("5th Ave", "Garfield Pl"), ("Hannah Cohen", "Marcus Reed")),
    Place("US", "TX", "Austin", "78704", "USD", ("S Congress Ave", "Annie St"), ("Emily Carter", "Luis Mendoza")),
    Place("US", "WA", "Seattle", "98103", "USD", ("Fremont Ave N", "Stone Way N"), ("Nora Larsen", "Kevin Tran")),
    Place("GB", None, "Bristol", "BS6 5BZ", "GBP", ("Cotham Hill", "Picton Street"), ("Amelia Hughes", "Oliver Shaw")),
    Place("GB", None, "Leeds", "LS6 1AA", "GBP", ("Otley Road", "Brudenell Road"), ("Priya Patel", "Jack Walker")),
    Place("JP", None, "Kyoto", "604-8005", "JPY", ("Sanjo-dori", "Kiyamachi-dori"), ("Yui Tanaka", "Haruto Sato")),
    Place("JP", None, "Sapporo", "060-0061", "JPY", ("Minami 1-jo Nishi", "Odori Nishi"), ("Aoi Suzuki", "Ren Ito")),
)


@dataclass(frozen=True, slots=True)
class Customer:
    """Someone with an address; `id` is the `sub` of their token."""

    id: str
    name: str
    street_address: str
    place: Place

    @property
    def currency(self) -> str:
        return self.place.currency


@dataclass(frozen=True, slots=True)
class Visit:
    """One customer's errand. `basket`: (sku, quantity) of each line; `added` comes later, to the draft.
    `patience`: seconds until one who cancels does so."""

    number: int
    customer: Customer
    persona: Persona
    basket: tuple[tuple[str, int], ...]
    shipping_method: str
    added: tuple[str, int] | None = None
    patience: float = 0.0

    @property
    def payment_token(self) -> str:
        return TOKENS.get(self.persona, "pm_card_visa")


def plan(
    seed: int,
    count: int,
    products: Sequence[SampleProduct],
    mix: Mapping[Persona, float] = MIX,
    customers: int | None = None,
) -> Iterator[Visit]:
    """`count` visits, the same for the same arguments. Someone comes about four times, unless `customers` says how
    many there are."""
    chance = random.Random(seed)  # noqa: S311 (a plan, not a secret)
    people = [customer(seed, i) for i in range(customers or max(1, count // 4))]
    scarce = [product for product in products if product.scarce]
    plenty = [product for product in products if not product.scarce]
    # A few things sell much better than the rest: the k-th of the shuffled list is bought 1/k as often as the first.
    chance.shuffle(plenty)
    popularity = [1 / (rank + 3) for rank in range(len(plenty))]
    for number, persona in enumerate(_personas(chance, count, mix)):
        wanted = _distinct(chance, plenty, popularity, chance.choices((1, 2, 3, 4), (45, 30, 17, 8))[0] + 1)
        spare, basket = wanted[0], [(product, chance.choices((1, 2, 3), (75, 20, 5))[0]) for product in wanted[1:]]
        if persona is Persona.WANTS_SCARCE:
            basket.append((chance.choice(scarce), 1))
        yield Visit(
            number=number,
            customer=chance.choice(people),
            persona=persona,
            basket=_light_enough(basket),
            shipping_method=chance.choices(("standard", "express"), (80, 20))[0],
            added=(spare.sku, 1) if persona is Persona.BUILDS_DRAFT else None,
            patience=chance.uniform(0.0, 0.6) if persona is Persona.CANCELS else 0.0,
        )


def customer(seed: int, number: int) -> Customer:
    """The same person for the same seed and number."""
    chance = random.Random(f"{seed}/{number}")  # noqa: S311
    place = chance.choice(PLACES)
    return Customer(
        id=f"shopper-{seed}-{number:05d}",
        name=chance.choice(place.names),
        street_address=f"{chance.choice(place.streets)} {chance.randint(1, 120)}",
        place=place,
    )


def arrivals(rate: float, count: int, seed: int | None = None) -> Iterator[float]:
    """When each of `count` visitors comes, in seconds from the start, `rate` a second: with a seed at random moments
    (a Poisson process, as in life), without one evenly (as a benchmark wants it)."""
    if rate <= 0:
        raise ValueError(f"a rate is above 0, not {rate}")
    if seed is None:
        yield from (number / rate for number in range(count))
        return
    chance, at = random.Random(seed), 0.0  # noqa: S311
    for _ in range(count):
        at += chance.expovariate(rate)
        yield at


def _personas(chance: random.Random, count: int, mix: Mapping[Persona, float]) -> list[Persona]:
    """Every persona with its exact share (largest remainders fill up), shuffled: a demo shows all of them."""
    exact = {persona: share * count / sum(mix.values()) for persona, share in mix.items()}
    found = {persona: int(share) for persona, share in exact.items()}
    by_remainder = sorted(exact, key=lambda persona: found[persona] - exact[persona])
    for persona in by_remainder[: count - sum(found.values())]:
        found[persona] += 1
    personas = [persona for persona, times in found.items() for _ in range(times)]
    chance.shuffle(personas)
    return personas


def _distinct(
    chance: random.Random, products: Sequence[SampleProduct], popularity: Sequence[float], count: int
) -> list[SampleProduct]:
    found: dict[str, SampleProduct] = {}
    while len(found) < min(count, len(products)):
        product = chance.choices(products, popularity)[0]
        found[product.sku] = product
    return list(found.values())


def _light_enough(basket: list[tuple[SampleProduct, int]]) -> tuple[tuple[str, int], ...]:
    """Without what would make the parcel too heavy; what was put in last stays."""
    kept: list[tuple[str, int]] = []
    grams = 0
    for product, quantity in reversed(basket):
        if not kept or grams + product.weight_grams * quantity <= MAX_GRAMS:
            kept.append((product.sku, quantity))
            grams += product.weight_grams * quantity
    return tuple(reversed(kept))
