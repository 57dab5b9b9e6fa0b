"""Who shops, what for and how: a seeded plan, made before the first request. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

from sandbox.catalogue import SampleProduct
from schemas.money import to_minor

T = TypeVar("T")


class Persona(StrEnum):
    """What somebody comes for. Mixes name them by their values, with _ for spaces."""

    BUYS_AT_ONCE = "buys at once"
    BUILDS_DRAFT = "builds a draft"
    ABANDONS_DRAFT = "abandons a draft"
    USES_CODE = "uses a code"
    EDITS = "edits"
    CANCELS = "cancels"
    CANCELS_PART = "cancels part"
    DECLINED_CARD = "declined card"
    FLAKY_CARD = "flaky card"
    SLOW_CARD = "slow card"
    WANTS_SCARCE = "wants scarce"
    WAITS_FOR_STOCK = "waits for stock"
    BIG_SPENDER = "big spender"
    SHORT_PICK = "short pick"
    MISSES_PARCEL = "misses parcel"
    UNREACHABLE = "unreachable"
    LOSES_PARCEL = "loses parcel"
    RETURNS = "returns"
    EXCHANGES = "exchanges"

    @property
    def slug(self) -> str:
        return self.value.replace(" ", "_")


MIX: Mapping[Persona, float] = {
    Persona.BUYS_AT_ONCE: 0.41,
    Persona.BUILDS_DRAFT: 0.10,
    Persona.ABANDONS_DRAFT: 0.05,
    Persona.USES_CODE: 0.10,
    Persona.EDITS: 0.06,
    Persona.CANCELS: 0.025,
    Persona.CANCELS_PART: 0.02,
    Persona.DECLINED_CARD: 0.02,
    Persona.FLAKY_CARD: 0.02,
    Persona.SLOW_CARD: 0.01,
    Persona.WANTS_SCARCE: 0.03,
    Persona.WAITS_FOR_STOCK: 0.02,
    Persona.BIG_SPENDER: 0.01,
    Persona.SHORT_PICK: 0.01,
    Persona.MISSES_PARCEL: 0.02,
    Persona.UNREACHABLE: 0.005,
    Persona.LOSES_PARCEL: 0.01,
    Persona.RETURNS: 0.06,
    Persona.EXCHANGES: 0.02,
}
"""Shares of the visits; they add up to 1."""
SURVEYS = 0.35
"""Share of the visitors who say how it was when they are asked."""
PREFERENCES = 0.15
"""Share of the visitors who say how they want to be told."""

DECLINES = "pm_card_chargeDeclined"
PAYS = "pm_card_visa"
TOKENS: Mapping[Persona, str] = {
    Persona.DECLINED_CARD: DECLINES,
    Persona.FLAKY_CARD: "pm_sandbox_flaky",
    Persona.SLOW_CARD: "pm_sandbox_slow",
}
"""What the sandbox payment provider makes of a card; pm_card_visa for everyone else."""

DRAFTS = frozenset({Persona.BUILDS_DRAFT, Persona.ABANDONS_DRAFT})
FATES: Mapping[Persona, Mapping[str, Any]] = {
    Persona.MISSES_PARCEL: {"fail_attempts": 1},
    Persona.UNREACHABLE: {"return_to_sender": True},
    Persona.LOSES_PARCEL: {"lose": True},
}
"""What becomes of their next parcel, as the sandbox's carrier wants to be told."""
BIG: Mapping[str, str] = {"EUR": "5500", "USD": "6000", "GBP": "5000", "JPY": "880000"}
"""So much (net) makes a big spender: above policy.fraud.amounts."""
NOT_RETURNABLE = frozenset({"groceries"})

# Weighted choices; the first of each pair says what, the second how often.
CODES = (("FIRST50", 55), ("SPRING10", 15), ("FREESHIP", 10), ("B2G1", 10), ("WELCOME5", 10))
CHANGES = (("unit", 30), ("line", 30), ("method", 20), ("fewer", 10), ("code", 10))
"""A unit more, a line more, the other shipping method, a line (or unit) less, a code that was forgotten."""
RETURN_KINDS = (("whole", 35), ("unit", 65))
WHOLE_REASONS = (("defective", 50), ("not_as_described", 30), ("damaged_in_transit", 20))
UNIT_REASONS = (("changed_mind", 50), ("does_not_fit", 30), ("wrong_item", 20))
CONDITIONS = (("as_new", 60), ("opened", 20), ("damaged", 13), ("unusable", 7))
SCORES = ((5, 50), (4, 30), (3, 12), (2, 5), (1, 3))
CHANNELS = (("email", 60), ("sms", 25), ("push", 15))

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

    @property
    def language(self) -> str:
        return {"DE": "de", "FR": "fr", "JP": "ja"}.get(self.country, "en")


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
class Returning:
    """What comes back once it has arrived: units of these SKUs ("whole": every line of the order), why, whether staff
    approves, and in which condition they find it. `exchange_sku`: what is wanted instead of money."""

    whole: bool
    sku: str
    reason: str
    approved: bool
    condition: str
    exchange_sku: str | None = None


@dataclass(frozen=True, slots=True)
class Visit:
    """One customer's errand. `basket`: (sku, quantity) of each line; `added` comes later, to the draft or the order.
    `patience`: seconds until one who cancels or changes something does so (0: before it is paid). `change`: which
    change, as CHANGES. `fate`: what becomes of the next parcel. `verdict`: release | cancel, when it is held for a
    review. `score`: what they would say in a survey, None when they would not. `preferences`: the body of PUT
    …/preferences."""

    number: int
    customer: Customer
    persona: Persona
    basket: tuple[tuple[str, int], ...]
    shipping_method: str
    added: tuple[str, int] | None = None
    patience: float = 0.0
    code: str | None = None
    change: str | None = None
    second_card: str = PAYS
    fate: Mapping[str, Any] | None = None
    verdict: str = "release"
    returning: Returning | None = None
    score: int | None = None
    preferences: Mapping[str, Any] | None = None

    @property
    def payment_token(self) -> str:
        return TOKENS.get(self.persona, PAYS)


def plan(
    seed: int,
    count: int,
    products: Sequence[SampleProduct],
    mix: Mapping[Persona, float] = MIX,
    customers: int | None = None,
    surveys: float = SURVEYS,
    preferences: float = PREFERENCES,
) -> Iterator[Visit]:
    """`count` visits, the same for the same arguments. Someone comes about four times, unless `customers` says how
    many there are."""
    chance = random.Random(seed)  # noqa: S311 (a plan, not a secret)
    people = [customer(seed, i) for i in range(customers or max(1, count // 4))]
    shelves = _Shelves(chance, products)
    for number, persona in enumerate(_personas(chance, count, mix)):
        who = chance.choice(people)
        wanted = shelves.wanted(persona)
        spare, basket = wanted[0], shelves.basket(persona, wanted[1:], who.currency)
        visit = Visit(
            number=number,
            customer=who,
            persona=persona,
            basket=_light_enough(basket),
            shipping_method=chance.choices(("standard", "express"), (80, 20))[0],
            added=(spare.sku, 1) if persona in (Persona.BUILDS_DRAFT, Persona.EDITS) else None,
            fate=FATES.get(persona),
            score=_pick(chance, SCORES) if chance.random() < surveys else None,
            preferences=_preferences(chance, who) if chance.random() < preferences else None,
        )
        yield _with_intentions(chance, visit, {product.sku: product for product in wanted})


class _Shelves:
    """What is there to buy. A few things sell much better than the rest: the k-th of the shuffled list is bought
    1/(k + 3) as often as the first."""

    def __init__(self, chance: random.Random, products: Sequence[SampleProduct]) -> None:
        self._chance = chance
        self._scarce = [product for product in products if product.scarce]
        self._to_order = [product for product in products if product.backorder]
        self._plenty = [product for product in products if not product.scarce and not product.backorder]
        chance.shuffle(self._plenty)
        self._returnable = [product for product in self._plenty if product.category not in NOT_RETURNABLE]
        # Many of them have to fit into one parcel.
        self._dear = sorted(self._plenty, key=lambda product: -float(product.prices["EUR"]) / product.weight_grams)

    def wanted(self, persona: Persona) -> list[SampleProduct]:
        """Different products: first one for later, then those of the basket."""
        lines = self._chance.choices((1, 2, 3, 4), (45, 30, 17, 8))[0]
        gives_up_lines = persona is Persona.CANCELS_PART
        comes_back = persona in (Persona.RETURNS, Persona.EXCHANGES)
        return self._distinct(self._returnable if comes_back else self._plenty, max(lines, 1 + gives_up_lines) + 1)

    def basket(self, persona: Persona, wanted: list[SampleProduct], currency: str) -> list[tuple[SampleProduct, int]]:
        basket = [(product, self._chance.choices((1, 2, 3), (75, 20, 5))[0]) for product in wanted]
        match persona:
            case Persona.WANTS_SCARCE if self._scarce:
                basket.append((self._chance.choice(self._scarce), 1))
            case Persona.WAITS_FOR_STOCK if self._to_order:
                basket.append((self._chance.choice(self._to_order), self._chance.randint(2, 3)))
            case Persona.USES_CODE:
                books = [product for product in self._plenty if product.category == "books" and product not in wanted]
                if books:
                    basket.append((self._chance.choice(books), 3))
            case Persona.BIG_SPENDER if self._dear:
                dear = self._chance.choice(self._dear[:3])
                enough = math.ceil(to_minor(BIG[currency], currency) / dear.price(currency))
                basket = [(product, quantity) for product, quantity in basket if product is not dear]
                basket.append((dear, enough))
            case _:
                pass
        return basket

    def _distinct(self, products: Sequence[SampleProduct], count: int) -> list[SampleProduct]:
        popularity = [1 / (rank + 3) for rank in range(len(products))]
        found: dict[str, SampleProduct] = {}
        while len(found) < min(count, len(products)):
            product = self._chance.choices(products, popularity)[0]
            found[product.sku] = product
        return list(found.values())


def _with_intentions(chance: random.Random, visit: Visit, known: Mapping[str, SampleProduct]) -> Visit:
    """The visit with what only its persona has in mind."""
    match visit.persona:
        case Persona.CANCELS:
            # Half at once, half when the warehouse has begun or may have.
            patience = chance.uniform(0.0, 0.6) if chance.random() < 0.5 else chance.uniform(2.0, 5.0)
            return replace(visit, patience=patience)
        case Persona.EDITS:
            # Most think of it while they are still being charged: then there is time enough.
            patience = 0.0 if chance.random() < 0.7 else chance.uniform(0.1, 1.0)
            return replace(visit, patience=patience, change=_pick(chance, CHANGES))
        case Persona.CANCELS_PART:
            return replace(visit, patience=chance.uniform(0.0, 0.5))
        case Persona.USES_CODE:
            return replace(visit, code=_pick(chance, CODES))
        case Persona.DECLINED_CARD:
            return replace(visit, second_card=chance.choice((PAYS, PAYS, PAYS, DECLINES)))
        case Persona.BIG_SPENDER:
            return replace(visit, verdict=chance.choice(("release", "release", "cancel")))
        case Persona.SHORT_PICK:
            return replace(visit, fate={"short": [{"line": visit.basket[0][0], "quantity": 1}]})
        case Persona.RETURNS | Persona.EXCHANGES:
            return replace(visit, returning=_returning(chance, visit, known))
        case _:
            return visit


def _returning(chance: random.Random, visit: Visit, known: Mapping[str, SampleProduct]) -> Returning:
    sku = visit.basket[0][0]
    if visit.persona is Persona.EXCHANGES:
        instead = next(other for other in known if other != sku)
        return Returning(False, sku, "does_not_fit", True, "as_new", exchange_sku=instead)
    if _pick(chance, RETURN_KINDS) == "whole":
        return Returning(True, sku, _pick(chance, WHOLE_REASONS), True, "defective")
    return Returning(False, sku, _pick(chance, UNIT_REASONS), chance.random() < 0.85, _pick(chance, CONDITIONS))


def _preferences(chance: random.Random, who: Customer) -> dict[str, Any]:
    channel = _pick(chance, CHANNELS)
    return {
        "email": f"{who.id}@shoppers.example",
        "phone": f"+4930{chance.randint(1_000_000, 9_999_999)}",
        "push_token": f"device-{who.id}",
        "channel": channel,
        "language": who.place.language,
    }


def _pick(chance: random.Random, weighted: Sequence[tuple[T, int]]) -> T:
    return chance.choices([what for what, _ in weighted], [weight for _, weight in weighted])[0]


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


def _light_enough(basket: list[tuple[SampleProduct, int]]) -> tuple[tuple[str, int], ...]:
    """Without what would make the parcel too heavy; what was put in last stays."""
    kept: list[tuple[str, int]] = []
    grams = 0
    for product, quantity in reversed(basket):
        if not kept or grams + product.weight_grams * quantity <= MAX_GRAMS:
            kept.append((product.sku, quantity))
            grams += product.weight_grams * quantity
    return tuple(reversed(kept))
