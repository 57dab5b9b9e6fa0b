"""The sandbox's warehouse and carrier on a clock of the test: what is reported, in which order, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.parcels import (
    SCHEMA,
    Conduct,
    Customs,
    CustomsLine,
    LabelRequest,
    Parcels,
    PickLine,
    PickRequest,
    Plan,
    Recipient,
    RedeliveryRequest,
    ReturnPlan,
    ShipmentRequest,
    Short,
)
from sandbox.service import Journal, Refusal

START = 1_800_000_000.0
ADDRESS = Recipient(name="Ada", street_address="Torstraße 1", city="Berlin", postal_code="10119", country="DE")


class Depot:
    """The books, and a clock that goes from one due time to the next."""

    def __init__(self, journal: Journal, conduct: Conduct) -> None:
        self.parcels = Parcels(journal, conduct)
        self.now = START

    def pick(self, shipment_id: str = "s1", *skus: str, quantity: int = 2) -> dict[str, Any]:
        lines = tuple(PickLine(line_id=f"l{n}", sku=sku, quantity=quantity) for n, sku in enumerate(skus or ("MUG",)))
        return self.parcels.pick(PickRequest(shipment_id=shipment_id, order_id="o1", lines=lines), self.now)

    def book(self, shipment_id: str = "s1", **changes: Any) -> dict[str, Any]:
        values = {"order_id": "o1", "method": "standard", "address": ADDRESS, "weight_grams": 500, **changes}
        return self.parcels.book(ShipmentRequest(shipment_id=shipment_id, **values), self.now)

    def redeliver(self, attempt: int, shipment_id: str = "s1") -> None:
        self.parcels.redeliver(shipment_id, RedeliveryRequest(attempt=attempt), self.now)

    def run(self, until: float = float("inf")) -> list[str]:
        """All that happens by itself; the kinds of what was reported meanwhile."""
        before = len(self.events())
        while (due := self.parcels.next_due()) is not None and due <= until:
            self.now = max(self.now, due)
            assert self.parcels.step(self.now) > 0
        return [event["kind"] for event in self.events()[before:]]

    def events(self) -> list[dict[str, Any]]:
        every = [*self.parcels.undelivered("warehouse", 10_000), *self.parcels.undelivered("carrier", 10_000)]
        return [event for _, event in sorted(every, key=lambda one: one[0])]


MakeDepot = Callable[..., Depot]


@pytest.fixture
def depots(tmp_path: Path) -> Iterator[MakeDepot]:
    journals: list[Journal] = []

    def make(**conduct: Any) -> Depot:
        journals.append(Journal(tmp_path / f"{len(journals)}.sqlite", SCHEMA, "NORMAL"))
        return Depot(journals[-1], Conduct(public_url="http://here", **conduct))

    yield make
    for journal in journals:
        journal.close()


@pytest.fixture
def depot(depots: MakeDepot) -> Depot:
    return depots()


def refusal(status: int, code: str, call: Callable[[], object]) -> None:
    with pytest.raises(Refusal) as refused:
        call()
    assert (refused.value.status, refused.value.code) == (status, code)


GOOD = ["shipped", "in_transit", "out_for_delivery", "delivered"]


def test_a_parcel_without_trouble_takes_six_steps(depot: Depot) -> None:
    depot.pick()
    assert depot.run() == ["picked", "packed"]
    assert depot.now == START + 2
    booked = depot.book()
    assert booked["tracking_url"] == f"http://here/track/{booked['tracking_number']}"
    assert booked["estimated_delivery"] > "2027-01-15"
    assert depot.run() == GOOD
    assert depot.now == START + 6
    assert {event["order_id"] for event in depot.events()} == {"o1"}
    assert len({event["event_id"] for event in depot.events()}) == 6
    parcel, said = depot.parcels.tracked(booked["tracking_number"])
    assert parcel["status"] == "delivered"
    assert [event["kind"] for event in said] == GOOD


def test_express_is_expected_sooner(depot: Depot) -> None:
    soon, late = depot.book("a", method="express"), depot.book("b")
    assert soon["estimated_delivery"] < late["estimated_delivery"]
    assert soon["carrier"] != late["carrier"]


def test_every_request_can_be_repeated_and_another_body_is_told_apart(depot: Depot) -> None:
    assert depot.pick() == depot.pick()
    refusal(409, "shipment_exists", lambda: depot.pick("s1", "MUG", quantity=3))
    depot.run()
    assert depot.book() == depot.book()
    refusal(409, "shipment_exists", lambda: depot.book(weight_grams=501))
    assert depot.run() == GOOD
    assert depot.pick()["status"] == "packed"
    assert depot.book()["status"] == "delivered"
    assert depot.run() == []


def test_a_short_pick_packs_the_rest(depot: Depot) -> None:
    depot.parcels.plan_next("o1", Plan(short=(Short(line="l1", quantity=1),)))
    depot.pick("s1", "MUG", "PEN")
    assert depot.run() == ["short", "picked", "packed"]
    assert depot.events()[0]["lines"] == [{"line_id": "l1", "sku": "PEN", "quantity": 1}]
    depot.pick("s2", "MUG", "PEN")
    assert depot.run() == ["picked", "packed"], "only the next parcel was planned"


def test_a_pick_of_which_nothing_is_there_ends(depot: Depot) -> None:
    depot.parcels.plan_next("o1", Plan(short=(Short(line="MUG", quantity=9),)))
    depot.pick()
    assert depot.run() == ["short"]
    assert depot.events()[0]["lines"][0]["quantity"] == 2
    refusal(409, "too_late", lambda: depot.parcels.cancel_pick("s1", depot.now))


def test_failed_attempts_wait_for_a_redelivery_each(depot: Depot) -> None:
    depot.parcels.plan_next("o1", Plan(fail_attempts=2))
    depot.pick()
    depot.run()
    first = depot.book()["estimated_delivery"]
    assert depot.run() == [*GOOD[:3], "failed_attempt"]
    failed = depot.events()[-1]
    assert failed["attempt"] == 1
    assert failed["estimated_delivery"] >= first
    depot.redeliver(1)
    assert depot.run() == ["out_for_delivery", "failed_attempt"]
    assert depot.events()[-1]["attempt"] == 2
    depot.redeliver(1)
    assert depot.run() == [], "a repeat of the first request is no second one"
    depot.redeliver(2)
    assert depot.run() == ["out_for_delivery", "delivered"]
    refusal(409, "cannot_redeliver", lambda: depot.redeliver(3))
    refusal(404, "shipment_not_found", lambda: depot.redeliver(1, "nowhere"))


@pytest.mark.parametrize(
    ("plan", "ends"),
    [
        (Plan(lose=True), [*GOOD[:2], "lost"]),
        (Plan(return_to_sender=True), [*GOOD[:3], "returned"]),
    ],
)
def test_parcels_that_never_arrive(depot: Depot, plan: Plan, ends: list[str]) -> None:
    depot.parcels.plan_next("o1", plan)
    depot.pick()
    depot.run()
    depot.book()
    assert depot.run() == ends
    if ends[-1] == "lost":
        refusal(409, "too_late", lambda: depot.parcels.cancel("s1", depot.now))
    else:
        assert depot.parcels.cancel("s1", depot.now)["status"] == "returned"


def test_a_plan_for_a_parcel_that_is_under_way(depot: Depot) -> None:
    depot.book()
    depot.run(START + 1)
    depot.parcels.plan_shipment("s1", Plan(lose=True))
    assert depot.run() == ["in_transit", "lost"]
    refusal(404, "shipment_not_found", lambda: depot.parcels.plan_shipment("s9", Plan()))


def test_a_refused_booking_is_refused_again_until_the_plan_is_another(depot: Depot) -> None:
    depot.pick("s1", "WHALE-SANDBOX-REFUSED")
    depot.run()
    for _ in range(2):
        refusal(422, "not_accepted", depot.book)
    depot.parcels.plan_shipment("s1", Plan())
    depot.book()
    assert depot.run() == GOOD
    depot.parcels.plan_next("o1", Plan(refuse="too_large"))
    for _ in range(2):
        refusal(422, "too_large", lambda: depot.book("s2"))


@pytest.mark.parametrize(
    ("sku", "ends"),
    [
        ("X-SANDBOX-SHORT", ["short", "picked", "packed", *GOOD]),
        ("X-SANDBOX-FAIL", ["picked", "packed", *GOOD[:3], "failed_attempt"]),
        ("X-SANDBOX-NOBODY", ["picked", "packed", *GOOD[:3], "failed_attempt"]),
        ("X-SANDBOX-LOST", ["picked", "packed", *GOOD[:2], "lost"]),
        ("X-SANDBOX-RETURN", ["picked", "packed", *GOOD[:3], "returned"]),
    ],
)
def test_the_end_of_a_sku_says_what_goes_wrong(depot: Depot, sku: str, ends: list[str]) -> None:
    depot.pick("s1", "MUG", sku)
    found = depot.run()
    depot.book()
    assert [*found, *depot.run()] == ends


@pytest.mark.parametrize(("steps", "after"), [(0, []), (1, ["picked"]), (2, ["picked", "packed"])])
def test_a_pick_is_cancelled_at_any_time_before_the_carrier_has_it(depot: Depot, steps: int, after: list[str]) -> None:
    depot.pick()
    assert depot.run(START + steps) == after
    assert depot.parcels.cancel_pick("s1", depot.now)["status"] == "cancelled"
    assert depot.parcels.cancel_pick("s1", depot.now)["status"] == "cancelled"
    assert depot.run() == []
    assert [event["kind"] for event in depot.events()] == [*after, "cancelled"]
    assert depot.pick()["status"] == "cancelled", "a repeated pick does not start again"
    refusal(404, "shipment_not_found", lambda: depot.parcels.cancel_pick("s9", depot.now))


def test_what_the_carrier_has_is_not_unpacked_but_can_be_called_back(depot: Depot) -> None:
    depot.pick()
    depot.run()
    depot.book()
    depot.run(depot.now + 2)
    refusal(409, "too_late", lambda: depot.parcels.cancel_pick("s1", depot.now))
    assert depot.parcels.cancel("s1", depot.now)["status"] == "returning"
    assert depot.parcels.cancel("s1", depot.now)["status"] == "returning"
    assert depot.run() == ["returned"]


def test_a_parcel_that_was_not_fetched_yet_just_stays(depot: Depot) -> None:
    depot.book()
    assert depot.parcels.cancel("s1", depot.now)["status"] == "cancelled"
    assert depot.run() == []
    assert depot.book()["status"] == "cancelled"


def test_a_customer_sends_a_return_back_unless_told_otherwise(depot: Depot) -> None:
    request = LabelRequest(rma="RMA-1", order_id="o1", address=ADDRESS)
    label = depot.parcels.label(request, depot.now)
    assert label["label_url"] == f"http://here/labels/{label['tracking_number']}"
    assert depot.parcels.label(request, depot.now) == label
    refusal(
        409,
        "rma_exists",
        lambda: depot.parcels.label(request.model_copy(update={"order_id": "o2"}), depot.now),
    )
    assert depot.run() == ["return_received"]
    assert depot.now == START + 2
    assert depot.events()[-1]["reference"] == "RMA-1"

    depot.parcels.plan_returns("o1", ReturnPlan(keep=True))
    depot.parcels.label(request.model_copy(update={"rma": "RMA-2"}), depot.now)
    assert depot.run() == []
    depot.parcels.send_return("RMA-2", depot.now)
    assert depot.run() == ["return_received"]
    depot.parcels.plan_returns("o1", ReturnPlan(refuse="no_service"))
    third = request.model_copy(update={"rma": "RMA-3"})
    refusal(422, "no_service", lambda: depot.parcels.label(third, depot.now))


def test_customs_are_kept_with_the_parcel(depot: Depot) -> None:
    line = CustomsLine(sku="MUG", name="Mug", quantity=1, value=900, currency="EUR", hs_code="6912", origin="PT")
    depot.book(customs=Customs(incoterm="DDP", items=(line,)))
    assert depot.parcels.find_parcel("s1")["customs"]["items"][0]["hs_code"] == "6912"


def test_nothing_that_names_a_person_is_kept(depot: Depot, tmp_path: Path) -> None:
    depot.book()
    depot.parcels.label(LabelRequest(rma="RMA-1", order_id="o1", address=ADDRESS), depot.now)
    depot.run()
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("*.sqlite*"))
    assert b"s1" in kept
    assert b"Torstra" not in kept
    assert b"Ada" not in kept


def test_the_outbox_goes_on_where_it_was(depot: Depot) -> None:
    depot.pick()
    depot.run()
    depot.book()
    depot.run()
    (first, picked), (second, packed) = depot.parcels.undelivered("warehouse", 10)
    assert (picked["kind"], packed["kind"]) == ("picked", "packed")
    depot.parcels.delivered("warehouse", first)
    assert depot.parcels.undelivered("warehouse", 10) == [(second, packed)]
    assert len(depot.parcels.undelivered("carrier", 10)) == 4
    assert len(depot.parcels.undelivered("carrier", 3)) == 3


def test_chance_hits_the_same_parcels_each_time_and_about_so_many(depots: MakeDepot) -> None:
    def lost(seed: str) -> set[str]:
        depot = depots(lost_rate=0.2, seed=seed)
        for n in range(500):
            depot.pick(f"s{n}")
        depot.run()
        for n in range(500):
            depot.book(f"s{n}")
        depot.run()
        return {event["reference"] for event in depot.events() if event["kind"] == "lost"}

    once = lost("a")
    assert once == lost("a")
    assert once != lost("b")
    assert 60 < len(once) < 140


def test_a_restart_goes_on_with_what_was_due(tmp_path: Path) -> None:
    path = tmp_path / "books.sqlite"
    kinds: list[str] = []
    now = START
    for start in range(8):
        journal = Journal(path, SCHEMA, "NORMAL")
        depot = Depot(journal, Conduct())
        depot.now = now
        if start == 0:
            depot.pick()
        elif start == 2:
            depot.book()
        kinds += depot.run(now + 1)
        now += 1
        journal.close()
    assert kinds == ["picked", "packed", *GOOD]


FINAL = {"delivered", "lost", "returned"}
STEP = st.sampled_from(["tick", "book", "cancel", "cancel_pick", "redeliver", "pick"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEP, max_size=25), st.integers(0, 3), st.booleans(), st.booleans())
def test_whatever_is_asked_when_reports_make_sense(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], fails: int, lose: bool, back: bool
) -> None:
    journal = Journal(tmp_path_factory.mktemp("walk") / "books.sqlite", SCHEMA, "NORMAL")
    refusals: set[int] = set()
    try:
        depot = Depot(journal, Conduct())
        depot.parcels.plan_next("o1", Plan(fail_attempts=fails, lose=lose, return_to_sender=back))
        for n, step in enumerate(["pick", *steps, *["tick"] * 10]):
            try:
                match step:
                    case "pick":
                        depot.pick()
                    case "book":
                        depot.book()
                    case "cancel":
                        depot.parcels.cancel("s1", depot.now)
                    case "cancel_pick":
                        depot.parcels.cancel_pick("s1", depot.now)
                    case "redeliver":
                        depot.redeliver(n)
                    case _:
                        depot.run(depot.now + 1)
            except Refusal as refused:
                refusals.add(refused.status)
        kinds = [event["kind"] for event in depot.events() if "reference" in event]
    finally:
        journal.close()
    assert refusals <= {404, 409}
    assert sum(kind in FINAL for kind in kinds) <= 1
    assert all(kind not in FINAL for kind in kinds[:-1]), "nothing comes after the end"
    assert kinds.count("shipped") <= 1
    assert kinds == [] or kinds[0] == "shipped"
    assert kinds.count("failed_attempt") <= fails
