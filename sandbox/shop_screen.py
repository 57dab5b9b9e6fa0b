"""What `oms simulate` and `oms demo` show: figures that move while it runs, and a table at the end."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Coroutine
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from sandbox.tally import Outcome, Tally, percentile

SHOWN = 5
RECENT = 5000
"""The live display's percentiles are of so many, because it sorts them several times a second."""


async def watched(console: Console, tally: Tally, total: int, work: Coroutine[Any, Any, None]) -> None:
    """Run the work with a live display, or a line every 2 seconds where there is no terminal."""
    doing = asyncio.create_task(work)
    if not console.is_terminal:
        while not doing.done():
            await asyncio.wait([doing], timeout=2.0)
            console.print(_line(tally, total), highlight=False, soft_wrap=True)
        return await doing
    bar = Progress(
        TextColumn("[bold]{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn(), TaskProgressColumn(),
        TimeRemainingColumn(), console=console, expand=True,
    )  # fmt: skip
    visits, ends = bar.add_task("visits", total=total), bar.add_task("orders at their end", total=total)
    with Live(console=console, refresh_per_second=8) as live:
        while True:
            await asyncio.wait([doing], timeout=0.2)
            bar.update(visits, completed=tally.visits)
            # Not every visit leads to an order; how many do is known when all have been.
            orders = total if tally.visits < total else len(tally.orders)
            bar.update(ends, completed=tally.finished, total=orders)
            grid = Table.grid(expand=True)
            grid.add_row(bar)
            grid.add_row(_figures(tally))
            live.update(grid)
            if doing.done():
                return await doing


COLUMNS = (
    ("placed", "bold"), ("paid", "green"), ("shipped", "cyan"), ("delivered", "green"), ("cancelled", "yellow"),
    ("returned", "magenta"), ("money back", "magenta"), ("refused", "yellow"), ("open", "cyan"), ("failed", "red"),
    ("placed/s", "bold"), ("create P95", ""), ("create → paid P95", ""),
)  # fmt: skip


def _figures(tally: Tally) -> Table:
    table = Table(box=None, expand=True, padding=(0, 1))
    for name, style in COLUMNS:
        table.add_column(name, justify="right", style=style)
    table.add_row(*_values(tally))
    return table


def _values(tally: Tally) -> list[str]:
    """As COLUMNS. Shipped and delivered are as seen in the list that is read now and then."""
    return [
        f"{tally.reached('submitted'):,}",
        f"{tally.reached('paid'):,}",
        f"{tally.reached('shipped'):,}",
        f"{tally.reached('delivered'):,}",
        f"{tally.reasons.total():,}",
        f"{tally.reached('return asked'):,}",
        f"{tally.reached('money back'):,}",
        f"{tally.refusals.total():,}",
        f"{tally.open:,}",
        f"{tally.outcomes[Outcome.FAILED] + tally.outcomes[Outcome.UNFINISHED]:,}",
        f"{tally.placed_per_second:.0f}",
        ms(percentile(tally.create[-RECENT:], 95)),
        ms(percentile(tally.paid[-RECENT:], 95)),
    ]


def _line(tally: Tally, total: int) -> str:
    figures = "  ".join(f"{name} {value}" for (name, _), value in zip(COLUMNS, _values(tally), strict=True))
    return f"{tally.seconds():5.1f} s  visits {tally.visits:,}/{total:,}  {figures}"


def summary(tally: Tally) -> Table:
    """The figures at the end."""
    table = Table(title="Simulated shop", title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    ends, reached = tally.outcomes, tally.reached
    table.add_row(
        "orders",
        f"{len(tally.orders):,}, the last placed after {tally.placed_after:.1f} s ({tally.placed_per_second:.0f} a "
        f"second) and the last at its end after {tally.ended_after:.1f} s",
    )
    if ends[Outcome.PAID]:
        table.add_row("paid", f"[green]{ends[Outcome.PAID]:,}")
    table.add_row("delivered", f"[green]{reached('delivered'):,}")
    table.add_row("cancelled", f"[yellow]{tally.reasons.total():,}[/] {listed(tally.reasons)}")
    table.add_row("left as drafts", f"{ends[Outcome.DRAFT]:,}")
    table.add_row("changed", _done(tally, "edit"))
    table.add_row("reviewed", _done(tally, "review"))
    befell = ("split", "delivery failed", "lost", "came back", "partly cancelled")
    table.add_row("parcels", f"{reached('shipped'):,} {listed(Counter({stage: reached(stage) for stage in befell}))}")
    table.add_row("returns", f"{reached('return asked'):,} {_done(tally, 'return', 'inspected', 'exchanged')}")
    table.add_row("money back", f"{reached('money back'):,} orders, {ends[Outcome.REFUNDED]:,} of them all of it")
    table.add_row("with promotion", f"{reached('with promotion'):,}")
    if tally.scores:
        average = sum(tally.scores) / len(tally.scores)
        table.add_row("surveys", f"{len(tally.scores):,}, {average:.1f} of 5 on average")
    others = {what: n for what, n in tally.done.items() if what.split(":")[0] not in SHOWN_ABOVE}
    table.add_row("besides", listed(Counter(others))[1:-1])
    table.add_row("requests refused", f"{tally.refusals.total():,} {listed(tally.refusals)}")
    table.add_row("failed", f"{len(tally.failures):,} (requests sent again: {tally.retries:,})")
    for name, values in (("create", tally.create), ("create → paid, seen in the view", tally.paid)):
        percentiles = "  ".join(f"P{percent} {ms(percentile(values, percent))}" for percent in (50, 95, 99))
        table.add_row(name, percentiles)
    return table


SHOWN_ABOVE = ("edit", "review", "return", "inspected", "exchanged")


def _done(tally: Tally, *kinds: str) -> str:
    """What was done of these kinds ("edit: a unit more" is of kind edit)."""
    found = Counter({what: n for what, n in tally.done.items() if what.split(":")[0] in kinds})
    return listed(Counter({what.split(": ")[-1]: n for what, n in found.items()})) or "–"


def listed(counts: Counter[str]) -> str:
    named = ", ".join(f"{count:,} {what}" for what, count in counts.most_common() if count)
    return named and f"({named})"


def show_failures(console: Console, tally: Tally) -> None:
    for failure in tally.failures[:SHOWN]:
        console.print(f"[red]{failure}", highlight=False)
    if len(tally.failures) > SHOWN:
        console.print(f"[red]… and {len(tally.failures) - SHOWN} more")


def ms(seconds: float) -> str:
    if math.isnan(seconds):
        return "–"
    return f"{seconds * 1000:,.0f} ms" if seconds < 10 else f"{seconds:,.1f} s"
