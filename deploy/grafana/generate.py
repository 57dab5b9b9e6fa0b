"""The Grafana dashboard, made of the KPIs' own queries and those of the page /dashboard: all three say the same.

    python -m deploy.grafana.generate [--check]

writes `dashboards/orders.json`, or says whether it is as it would be written. Where the queries have parameters its SQL
has the ClickHouse plugin's macros ($__fromTime, $__toTime: the period chosen above the dashboard).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pycountry

from analytics import kpis
from analytics.kpis import Kpi, Target, target_text
from schemas.money import digits

OUT = Path(__file__).parent / "dashboards" / "orders.json"

CLICKHOUSE = {"type": "grafana-clickhouse-datasource", "uid": "clickhouse"}
PROMETHEUS = {"type": "prometheus", "uid": "prometheus"}
UNITS = {"ratio": "percentunit", "seconds": "s", "count": "short", "number": "short", "points": "none"}

_PARAMETERS = {
    "{from:DateTime64(6, 'UTC')}": "$__fromTime",
    "{to:DateTime64(6, 'UTC')}": "$__toTime",
    "{now:DateTime64(6, 'UTC')}": "now64(6, 'UTC')",
    "{grain:String}": "''",
    "{tz:String}": "'UTC'",
    "{group_by:Identifier}": "everything",
    "fromUnixTimestamp64Micro({from_us:Int64}, 'UTC')": "$__fromTime",
    "fromUnixTimestamp64Micro({to_us:Int64}, 'UTC')": "$__toTime",
    "{limit:UInt32}": "50",
}

Panel = dict[str, Any]


def dashboard() -> dict[str, Any]:
    """Grafana's JSON."""
    found = kpis.load()
    targets = [target(kpi, kpi.target) for kpi in found.values() if kpi.target]
    rows: list[tuple[int, list[Panel]]] = [
        (5, [*targets, exceptions()]),
        (9, [minutes(), tail()]),
        (8, [of_rows(found[name]) for name in ("funnel", "time_in_status")]),
        (8, [of_rows(found[name]) for name in ("active_orders", "cancellations_by_reason", "revenue")]),
        (8, business()),
        (8, metrics()[:2]),
        (8, metrics()[2:]),
    ]
    return {
        "uid": "oms-orders",
        "title": "Orders",
        "tags": ["oms"],
        "timezone": "browser",
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "10s",
        "schemaVersion": 41,
        "editable": False,
        "panels": laid_out(rows),
    }


def target(kpi: Kpi, wanted: Target) -> Panel:
    """One number, red or green by its target. Grafana colours a number by itself alone, so that it doesn't know what is
    still open; the description says so."""
    column = wanted.column
    below, above = ("red", "green") if wanted.over is not None else ("green", "red")
    steps = [{"value": None, "color": below}, {"value": wanted.bound, "color": above}]
    caution = " The colour is that of the figure now, also while it can still turn." if wanted.cohort else ""
    return {
        "type": "stat",
        "title": f"{kpi.title} (target {target_text(kpi, wanted)})",
        "description": f"{kpi.question} {kpi.meaning}{caution}",
        "datasource": CLICKHOUSE,
        "targets": [query(of_kpi(kpi))],
        "fieldConfig": {
            "defaults": {
                "unit": UNITS[kpi.columns[column]],
                "decimals": 1,
                "noValue": "no data",
                "thresholds": {"mode": "absolute", "steps": steps},
            },
            "overrides": [],
        },
        "options": {"reduceOptions": {"fields": f"/^{column}$/", "calcs": ["lastNotNull"]}, "colorMode": "value"},
    }


def of_rows(kpi: Kpi) -> Panel:
    """A KPI of several rows."""
    sql = of_kpi(kpi)
    if money := [name for name, unit in kpi.columns.items() if unit == "money"]:
        in_currency = ", ".join(f"{name} / {_minor_units()} AS {name}" for name in money)
        sql = wrapped(f"SELECT * REPLACE ({in_currency})", sql)
    return table(kpi.title, f"{kpi.question} {kpi.meaning}", sql, kpi.columns)


def table(title: str, about: str, sql: str, columns: Mapping[str, str]) -> Panel:
    """`columns`: name → unit as KPIs have them; others are not shown."""
    overrides = [
        {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "unit", "value": UNITS[unit]}]}
        for name, unit in columns.items()
        if unit in UNITS
    ]
    return {
        "type": "table",
        "title": title,
        "description": about,
        "datasource": CLICKHOUSE,
        "targets": [query(sql)],
        "fieldConfig": {"defaults": {"noValue": "–"}, "overrides": overrides},
        "transformations": [{"id": "filterFieldsByName", "options": {"include": {"names": list(columns)}}}],
        "options": {"showHeader": True},
    }


def minutes() -> Panel:
    sql = wrapped("SELECT toDateTime(minute) AS time, created, paid, cancelled", of_gateway("orders_a_minute"))
    return {
        "type": "timeseries",
        "title": "Orders a minute",
        "datasource": CLICKHOUSE,
        "targets": [query(sql, "timeseries")],
        "fieldConfig": {"defaults": {"unit": "short", "min": 0, "custom": {"fillOpacity": 10}}, "overrides": []},
        "options": {"tooltip": {"mode": "multi"}, "legend": {"displayMode": "list", "calcs": ["sum"]}},
        "span": 16,
    }


def tail() -> Panel:
    columns = "SELECT fromUnixTimestamp64Micro(at_us, 'UTC') AS time, type, number, actor"
    return {
        "type": "table",
        "title": "What happens",
        "datasource": CLICKHOUSE,
        "targets": [query(wrapped(columns, of_gateway("newest_events")))],
        "options": {"showHeader": True},
        "span": 8,
    }


def exceptions() -> Panel:
    steps = [{"value": None, "color": "green"}, {"value": 1, "color": "red"}]
    return {
        "type": "stat",
        "title": "Open exceptions",
        "description": "What waits for a person",
        "datasource": CLICKHOUSE,
        "targets": [query(wrapped("SELECT sum(exceptions) AS open", of_gateway("open_exceptions")))],
        "fieldConfig": {"defaults": {"thresholds": {"mode": "absolute", "steps": steps}}, "overrides": []},
        "options": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value"},
    }


def business() -> list[Panel]:
    """The epic's metrics, which the gateway exports for alerts. Several gateways export the same numbers."""

    def quantile(share: float) -> str:
        return f"histogram_quantile({share}, max by (le) (rate(order_processing_duration_bucket[1h])))"

    def value(what: str) -> str:
        return f"max by (currency) (rate(order_value_{what}[1h]))"

    a_minute = {
        "created": "60 * max(rate(orders_created_total[5m]))",
        "completed": "60 * max(rate(orders_completed_total[5m]))",
        "cancelled": "60 * sum(max by (reason) (rate(orders_cancelled_total[5m])))",
    }
    return [
        series("Orders a minute, of the metrics", "short", a_minute),
        series("Active orders", "short", {"{{status}}": "max by (status) (active_orders)"}),
        series("Processing time", "s", {"P50": quantile(0.5), "P95": quantile(0.95)}),
        series("Value of an order", "short", {"{{currency}}": f"{value('sum')} / {value('count')}"}),
    ]


def metrics() -> list[Panel]:
    """What the gateway exports itself."""
    errors = 'sum(rate(oms_http_requests_total{status=~"5.."}[1m]))'
    return [
        series("Requests a second", "reqps", {"all": "sum(rate(oms_http_requests_total[1m]))", "answered 5xx": errors}),
        series(
            "Duration of requests",
            "s",
            {
                name: f"histogram_quantile({share}, sum by (le) (rate(oms_http_request_duration_seconds_bucket[1m])))"
                for name, share in (("P50", 0.5), ("P95", 0.95), ("P99", 0.99))
            },
        ),
        series("Commands without an outcome yet", "short", {"waiting": "sum(oms_commands_waiting)"}),
        series("Messages not read yet", "short", {"{{feed}}": "max by (feed) (oms_consumer_lag)"}),
        series("Dependencies ready", "bool_yes_no", {"{{dependency}}": "min by (dependency) (oms_dependency_ready)"}),
    ]


def series(title: str, unit: str, expressions: dict[str, str]) -> Panel:
    """`expressions` (PromQL) by the name of their line."""
    targets = [
        {"refId": chr(ord("A") + number), "datasource": PROMETHEUS, "expr": expression, "legendFormat": name}
        for number, (name, expression) in enumerate(expressions.items())
    ]
    return {
        "type": "timeseries",
        "title": title,
        "datasource": PROMETHEUS,
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"tooltip": {"mode": "multi"}, "legend": {"displayMode": "list"}},
    }


def query(sql: str, kind: str = "table") -> dict[str, Any]:
    formats = {"timeseries": 0, "table": 1}
    return {
        "refId": "A",
        "datasource": CLICKHOUSE,
        "editorType": "sql",
        "queryType": kind,
        "format": formats[kind],
        "rawSql": sql,
    }


def wrapped(select: str, sql: str) -> str:
    return f"{select}\nFROM\n(\n{sql}\n)"


def of_kpi(kpi: Kpi) -> str:
    return _with_macros(kpi.sql)


def of_gateway(name: str) -> str:
    return _with_macros((files("gateway") / "sql" / f"{name}.sql").read_text())


def laid_out(rows: list[tuple[int, list[Panel]]]) -> list[Panel]:
    """Rows of a height, each 24 columns wide, shared evenly unless its panels say their `span`."""
    made: list[Panel] = []
    y = 0
    for height, panels in rows:
        x = 0
        for panel in panels:
            width = panel.pop("span", 24 // len(panels))
            made.append({"id": len(made) + 1, **panel, "gridPos": {"x": x, "y": y, "w": width, "h": height}})
            x += width
        y += height
    return made


def _with_macros(sql: str) -> str:
    for parameter, macro in _PARAMETERS.items():
        sql = sql.replace(parameter, macro)
    if left := re.findall(r"\{\w+:[^}]*\}", sql):
        raise ValueError(f"nothing stands for the parameter {left[0]}")
    lines = [line for line in sql.splitlines() if not line.lstrip().startswith("--")]
    return "\n".join(lines)


def _minor_units() -> str:
    """SQL: how many minor units make one of the row's currency."""
    unusual = {c.alpha_3: digits(c.alpha_3) for c in pycountry.currencies if digits(c.alpha_3) != 2}
    codes, places = ", ".join(f"'{code}'" for code in unusual), ", ".join(map(str, unusual.values()))
    return f"exp10(transform(toString(currency), [{codes}], [{places}], 2))"


def main() -> int:
    made = json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"
    if "--check" not in sys.argv:
        OUT.write_text(made)
        return 0
    if OUT.read_text() == made:
        return 0
    print(f"{OUT.name} is stale: run python -m deploy.grafana.generate", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
