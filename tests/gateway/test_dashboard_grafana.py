"""The Grafana dashboard: what it asks is asked here, of the running stack's ClickHouse and of the gateway's metrics."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from analytics.clickhouse import connect_analyst
from deploy.grafana import generate
from tests.support.stack import Stack

FOLDER = Path(generate.__file__).parent
DASHBOARD: dict[str, Any] = json.loads(generate.OUT.read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]


def of(kind: str) -> list[Any]:
    return [
        pytest.param(target, id=panel["title"])
        for panel in PANELS
        for target in panel["targets"]
        if target["datasource"]["type"] == kind
    ]


def test_it_is_as_it_is_generated() -> None:
    assert generate.dashboard() == DASHBOARD, "run python -m deploy.grafana.generate"


def test_its_data_sources_are_provided() -> None:
    provided = yaml.safe_load((FOLDER / "provisioning" / "datasources" / "oms.yaml").read_text())["datasources"]
    known = {source["uid"]: source["type"] for source in provided}
    for panel in PANELS:
        for asked in (panel, *panel["targets"]):
            assert known[asked["datasource"]["uid"]] == asked["datasource"]["type"]


def test_panels_lie_side_by_side() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not taken & cells, panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells


def expanded(sql: str, begin: datetime, end: datetime) -> str:
    """As version 4 of the ClickHouse plugin does it."""
    sql = sql.replace("$__fromTime", f"toDateTime({begin.timestamp():.0f})")
    sql = sql.replace("$__toTime", f"toDateTime({end.timestamp():.0f})")
    assert "$" not in sql, "a macro that was not expanded"
    return sql


@pytest.mark.stack
@pytest.mark.parametrize("target", of("grafana-clickhouse-datasource"))
def test_every_query_is_answered_to_an_analyst(stack: Stack, target: dict[str, Any]) -> None:
    now = datetime.now(UTC)
    sql = expanded(target["rawSql"], now - timedelta(hours=6), now)
    with connect_analyst(stack.settings) as client:
        rows = client.query(sql).result_rows
        columns = [name for name, *_ in client.query(f"DESCRIBE TABLE ({sql})").result_rows]
    panel = next(panel for panel in PANELS if target in panel["targets"])
    for transformation in panel.get("transformations", []):
        assert set(transformation["options"]["include"]["names"]) <= set(columns)
    if field := panel["options"].get("reduceOptions", {}).get("fields"):
        assert field.strip("/^$") in columns
    if panel["type"] == "timeseries":
        assert columns[0] == "time"
        assert len(rows) in (360, 361), "a row a minute, whatever happened"


def names_in(expression: str) -> set[str]:
    """The metrics of a PromQL expression."""
    plain = re.sub(r"by \([^)]*\)|\"[^\"]*\"", "", expression)
    return set(re.findall(r"[a-z_]{4,}(?=[\[{)]|$)", plain))


@pytest.mark.stack
def test_every_expression_names_a_metric_that_there_is(stack: Stack) -> None:
    wanted = {name for target in of("prometheus") for name in names_in(target.values[0]["expr"])}
    assert {"orders_created_total", "order_value_sum", "active_orders", "oms_consumer_lag"} <= wanted

    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}

    def missing() -> set[str]:
        families = list(text_string_to_metric_families(stack.http.get("/metrics").text))
        exported = {f"{family.name}{suffix}" for family in families for suffix in suffixes.get(family.type, [""])}
        return wanted - exported

    # The orders are counted in the background.
    stack.until(lambda: not missing(), "every metric is exported")
