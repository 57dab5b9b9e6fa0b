"""docs/kpis.md, made of the sidecars: `python -m analytics.kpis.page docs/kpis.md`, with --check only looks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from .asked import GRAINS
from .report import target_text
from .sidecars import DIMENSIONS, Kpi, Target, load

HEAD = f"""\
# KPIs

Made of the sidecars in `analytics/kpis/` by `make schemas`; don't edit it here.

`oms kpi` shows the figures that matter, `oms kpi NAME` one KPI whole; for staff `GET /v1/kpis` and `GET /v1/kpis/NAME`
give the same. All take a period [`from`, `to`); those of one KPI also:

- `grain` cuts it: {", ".join(GRAINS)}. Periods without anything have no row.
- `tz`: on whose clocks days and weeks (from Monday) begin, and what a date without a time means. A name of the IANA
  database, UTC by default; a day when clocks change has 23 or 25 hours.
- `group_by` cuts each period into groups, by a dimension of the KPI.
- `format`: json, csv or parquet (the command: table, too), or `Accept: text/csv`.

A ratio is 0 to 1, a duration in seconds, money an amount of a currency; currencies are never added up. Figures of
periods and groups can be added up only where they are counts of orders, units, returns, refunds or attempts.

A target is met or missed once nothing can turn that any more; as long as what is under way or undecided could, it is
open.

## What to group by

| | |
|---|---|
"""


def render() -> str:
    """The whole page."""
    return HEAD + "".join(f"| `{name}` | {meaning} |\n" for name, meaning in DIMENSIONS.items()) + "".join(_sections())


def _sections() -> Iterator[str]:
    yield "\n## The KPIs\n\n| KPI | question | target |\n|---|---|---|\n"
    for kpi in load().values():
        target = target_text(kpi, kpi.target) if kpi.target else ""
        yield f"| [`{kpi.name}`](#{kpi.name}) | {kpi.question} | {target} |\n"
    for kpi in load().values():
        yield f"\n### {kpi.name}\n\n**{kpi.title}.** {kpi.question} {kpi.meaning}\n\n"
        yield from (f"- {line}\n" for line in _facts(kpi))


def _facts(kpi: Kpi) -> Iterator[str]:
    if kpi.target:
        yield f"Target: `{kpi.target.column}` {target_text(kpi, kpi.target)}{_open(kpi.target)}"
    yield f"Counts {kpi.counts}; {kpi.grain}"
    yield f"Unit: {kpi.unit}"
    yield "Columns: " + ", ".join(f"`{name}` ({unit})" for name, unit in kpi.columns.items())
    if kpi.dimensions:
        yield "Group by: " + ", ".join(f"`{name}`" for name in kpi.dimensions)
    tables = ", ".join(f"`oms.{table.strip()}`" for table in kpi.made_of.split(","))
    yield f"Made of {tables} by [{kpi.name}.sql](../analytics/kpis/{kpi.name}.sql)"


def _open(target: Target) -> str:
    return f"; open while those of `{target.cohort.open}` could turn it" if target.cohort else ""


def main(arguments: list[str]) -> int:
    """Write the page; with --check only say whether it is fresh."""
    check, path = "--check" in arguments, Path(arguments[-1])
    page = render()
    if not check:
        path.write_text(page)
        return 0
    if path.exists() and path.read_text() == page:
        return 0
    print(f"{path} is not what the sidecars say: run `make schemas`")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
