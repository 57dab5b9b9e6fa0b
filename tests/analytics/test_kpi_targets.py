"""How figures are judged by their targets, also those that are not final yet. No engine."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from analytics import kpi_cli, kpis


def completion(submitted: int, delivered: int, under_way: int) -> kpis.Row:
    cancelled = submitted - delivered - under_way
    counts = {"submitted": submitted, "paid": delivered, "delivered": delivered, "cancelled": cancelled}
    rate = delivered / submitted if submitted else None
    return {**counts, "under_way": under_way, "paid_rate": rate, "delivered_rate": rate}


def abandonment(submitted: int, abandoned: int, undecided: int) -> kpis.Row:
    decided = submitted + abandoned
    counts = {"created": decided + undecided, "submitted": submitted, "abandoned": abandoned}
    rate = abandoned / decided if decided else None
    return {**counts, "decided": decided, "undecided": undecided, "abandonment_rate": rate}


@pytest.mark.parametrize(
    ("name", "row", "verdict"),
    [
        # More than 95 % are to be delivered.
        ("completion", completion(100, 96, 0), "met"),
        ("completion", completion(100, 96, 4), "met"),
        ("completion", completion(100, 95, 0), "missed"),
        ("completion", completion(100, 95, 5), "open"),
        ("completion", completion(100, 0, 96), "open"),
        ("completion", completion(100, 0, 95), "missed"),
        ("completion", completion(100, 90, 5), "missed"),
        ("completion", completion(0, 0, 0), None),
        # Less than 30 % are to be abandoned.
        ("cart_abandonment", abandonment(71, 29, 0), "met"),
        ("cart_abandonment", abandonment(71, 20, 9), "met"),
        ("cart_abandonment", abandonment(70, 30, 0), "missed"),
        ("cart_abandonment", abandonment(4, 0, 96), "open"),
        ("cart_abandonment", abandonment(0, 0, 5), "open"),
        ("cart_abandonment", abandonment(70, 20, 10), "open"),
        ("cart_abandonment", abandonment(0, 30, 70), "missed"),
        ("cart_abandonment", abandonment(0, 0, 0), None),
        # Of orders that were delivered: nothing is open.
        ("processing_time", {"mean": 259_199.0}, "met"),
        ("processing_time", {"mean": 259_200.0}, "missed"),
        ("processing_time", {"mean": None}, None),
    ],
)
def test_a_verdict_is_what_the_undecided_can_no_longer_turn(
    name: str, row: kpis.Row, verdict: kpis.Verdict | None
) -> None:
    target = kpis.load()[name].target
    assert target is not None
    assert target.verdict(row) == verdict


def test_targets_are_about_columns_of_their_kpi() -> None:
    for name, kpi in kpis.load().items():
        if kpi.target is None:
            continue
        assert kpi.target.column in kpi.columns, name
        if kpi.target.cohort is not None:
            assert kpi.columns[kpi.target.column] == "ratio", name
            assert {kpi.columns[c] for c in kpi.target.cohort.model_dump().values()} == {"count"}, name


def test_the_report_says_that_it_is_open_and_of_how_many() -> None:
    rows = {"completion": [completion(100, 10, 88)], "cart_abandonment": [abandonment(3, 1, 96)]}
    out = io.StringIO()
    found = [(kpis.load()[name], row) for name, row in rows.items()]
    Console(file=out, width=80).print(kpi_cli.headline_table(found))
    for words in (
        r"Order completion rate +10\.0 % +… > 95 % open +10 of 100, 88 under way",
        r"Cart abandonment +25\.0 % +… < 30 % open +1 of 4 decided, 96 undecided",
    ):
        assert re.search(words, out.getvalue()), out.getvalue()
