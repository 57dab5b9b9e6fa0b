"""The KPIs: each is `NAME.sql`, and beside it `NAME.yaml` with what it means and how its columns are to be read.

A KPI takes a period [from, to), cut into hours, days or weeks on the clocks of a time zone, and a dimension to group
by. It counts by the orders' own times. Every query reads the newest row of each thing (FINAL), so that a replay
changes no number.
"""

from .asked import EARLIEST, GRAINS, LATEST, PARAMETERS, Asked, BadParameter, asked
from .reading import Row, run, run_async, stream, stream_async
from .report import described, headline, target_text, text
from .sidecars import DIMENSIONS, ORDER, Kpi, Line, Target, Unit, Verdict, load

__all__ = [
    "DIMENSIONS",
    "EARLIEST",
    "GRAINS",
    "LATEST",
    "ORDER",
    "PARAMETERS",
    "Asked",
    "BadParameter",
    "Kpi",
    "Line",
    "Row",
    "Target",
    "Unit",
    "Verdict",
    "asked",
    "described",
    "headline",
    "load",
    "run",
    "run_async",
    "stream",
    "stream_async",
    "target_text",
    "text",
]
