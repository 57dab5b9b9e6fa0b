"""What the embedded stack hands to its processes, and what of it lies in files."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime import stack
from runtime.processes import _PATHS
from runtime.supervisor import _environment, plan
from runtime.topology import load


@pytest.fixture(autouse=True)
def _nothing_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMS_WEBHOOK_SECRET", "OMS_GATEWAY_URL", "OMS_TIME_SCALE", "OMS_LOGISTICS_URL"):
        monkeypatch.delenv(name, raising=False)


def test_the_sandboxes_know_where_the_gateway_is_and_share_a_secret_with_it(tmp_path: Path) -> None:
    env = _environment(tmp_path, {"gateway": 8080, "logistics-partners": 8091})
    assert env["OMS_GATEWAY_URL"] == "http://127.0.0.1:8080"
    assert env["OMS_LOGISTICS_URL"] == "http://127.0.0.1:8091"
    assert env["OMS_TIME_SCALE"] == "600"
    assert len(env["OMS_WEBHOOK_SECRET"]) == 64


def test_what_the_environment_says_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMS_TIME_SCALE", "1")
    monkeypatch.setenv("OMS_WEBHOOK_SECRET", "ours")
    assert {"OMS_TIME_SCALE", "OMS_WEBHOOK_SECRET"}.isdisjoint(_environment(tmp_path, {"gateway": 8080}))


def test_the_webhook_secret_stays_and_is_nobody_elses(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    secret = stack.webhook_secret(tmp_path)
    assert stack.webhook_secret(tmp_path) == secret
    assert stack.webhook_secret(tmp_path / "other") != secret
    assert (tmp_path / "webhook.secret").stat().st_mode & 0o777 == 0o600


def test_what_holds_the_secret_is_for_this_user_only(tmp_path: Path) -> None:
    written = stack.Stack(1, 2.0, "http://here", {"gateway": 1}, {"OMS_WEBHOOK_SECRET": "s"})
    for _ in range(2):
        stack.write_stack(tmp_path, written)
        assert (tmp_path / "run" / "stack.json").stat().st_mode & 0o777 == 0o600
    assert stack.read_stack(tmp_path) == written
    assert stack.stack_settings(tmp_path).webhook_secret.get_secret_value() == "s"


def test_every_service_of_the_topology_can_be_placed_and_asked(tmp_path: Path) -> None:
    described = load()
    assert set(described.services) == set(stack.SERVICES)
    assert set(described.services) == {*_PATHS, "kafka"}
    ports = dict.fromkeys([*described.services, "gateway"], 1)
    children = {child.name: child for child in plan(described, tmp_path, ports)}
    assert {"clickhouse", "kafka"} <= {*children["views"].needs} & {*children["gateway"].needs}
    assert "logistics-partners" in children["logistics"].needs
    assert children["logistics-partners"].needs == ()


def test_the_second_clickhouse_is_started_for_those_who_ask_for_its_sink(tmp_path: Path) -> None:
    described = load()
    assert "views-replica" not in {child.name for child in plan(described, tmp_path, {"gateway": 1})}
    assert set(described.services) - set(described.services_for("embedded")) == {"clickhouse-replica"}
    sink = described.sinks["views-replica"].model_copy(update={"instances": {"embedded": 1, "production": 1}})
    asked = described.model_copy(update={"sinks": {**described.sinks, "views-replica": sink}})
    assert set(asked.services_for("embedded")) == set(asked.services)
    ports = dict.fromkeys([*asked.services, "gateway"], 1)
    children = {child.name: child for child in plan(asked, tmp_path, ports)}
    assert children["views-replica"].needs == ("clickhouse-replica", "kafka", "topics")
    assert _environment(tmp_path, ports)["OMS_CLICKHOUSE_REPLICA_URL"] == "http://127.0.0.1:1"
