"""docker-compose.yml is what Compose understands, and runs what topology.yaml names."""

import json
import time
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
import yaml

from deploy.healthcheck import complaint
from runtime import health
from runtime.clickhouse_engine import ANALYST_LIMITS
from runtime.settings import Settings, settings
from runtime.topology import Process, load

ROOT = Path(__file__).parents[2]
BESIDES = {"apply", "schema-registry", "fill-registry", "proxy", "prometheus", "grafana"}
"""One-shots, the way in, and what only outside consumers and onlookers need."""


def processes() -> list[Process]:
    """Those that production has."""
    return [process for process in load().processes() if process.instances["production"]]


@cache
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return found


def test_it_fits_the_compose_schema() -> None:
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(compose())
    broken = {**compose(), "services": {"order": {"image": "oms", "comand": []}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(broken)


def test_every_process_and_service_of_the_topology_is_there_and_nothing_else() -> None:
    named = {process.name for process in processes()} | set(load().services)
    assert set(compose()["services"]) == named | BESIDES


def test_every_process_is_started_by_oms_run_after_the_topics_and_what_it_needs() -> None:
    services = compose()["services"]
    for process in processes():
        service = services[process.name]
        assert service["command"] == ["run", process.name]
        assert service["depends_on"]["apply"] == {"condition": "service_completed_successfully"}, process.name
        for need in process.needs:
            assert service["depends_on"][need] == {"condition": "service_healthy"}, process.name
        assert service["healthcheck"]["test"], process.name
    assert services["apply"]["command"] == ["topology", "apply"]
    for name, service in load().services.items():
        if service.run.startswith("sandbox."):
            assert services[name]["command"] == ["run", name]
            assert services[name]["healthcheck"]["test"], name


def test_only_settings_that_exist_are_given() -> None:
    known = {f"OMS_{name.upper()}" for name in Settings.model_fields}
    for name, service in compose()["services"].items():
        given = {variable for variable in service.get("environment", {}) if variable.startswith("OMS_")}
        assert given <= known, name


def test_what_it_depends_on_and_mounts_is_declared() -> None:
    services = compose()["services"]
    for name, service in services.items():
        for need, how in service.get("depends_on", {}).items():
            assert need in services, name
            assert how["condition"] != "service_healthy" or "healthcheck" in services[need], (name, need)
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in compose()["volumes"], name
        for config in service.get("configs", []):
            assert (ROOT / compose()["configs"][config["source"]]["file"]).is_file(), name


def test_the_broker_is_set_up_as_the_embedded_one() -> None:
    """What keeps state and readers safe must not differ between the two."""
    embedded = (ROOT / "runtime" / "embedded_kafka.py").read_text()
    listeners = {"listeners", "advertised.listeners", "inter.broker.listener.name", "controller.listener.names"}
    for variable, value in compose()["services"]["kafka"]["environment"].items():
        name = variable.removeprefix("KAFKA_").lower().replace("_", ".")
        if f"\n{name}=" in embedded and name not in listeners | {"log.dirs"}:
            assert f"\n{name}={value}\n" in embedded, name
    for needed in ("AUTO_CREATE_TOPICS_ENABLE", "OFFSETS_RETENTION_MINUTES", "LOG_MESSAGE_TIMESTAMP_TYPE"):
        assert f"KAFKA_{needed}" in compose()["services"]["kafka"]["environment"]


def test_who_only_reads_has_the_bounds_of_the_embedded_stack_and_sees_nothing_personal() -> None:
    found = ElementTree.parse(ROOT / "deploy/clickhouse/analyst.xml").getroot()  # noqa: S314  (our own file)
    bounds = {bound.tag: bound.text for bound in found.iterfind("profiles/analyst/*")}
    assert bounds.items() >= {**ANALYST_LIMITS, "readonly": "1"}.items()
    for name in ("analyst", "grafana"):
        user = found.find(f"users/{name}")
        assert user is not None
        assert [grant.text for grant in user.iterfind("grants/query")] == ["GRANT SELECT ON oms.*"]
        profile = user.findtext("profile")
        assert profile == "analyst" or found.findtext(f"profiles/{profile}/profile") == "analyst"
    services = compose()["services"]
    for server in ("clickhouse", "clickhouse-replica"):
        (mounted,) = services[server]["configs"]
        assert mounted["source"] == "clickhouse-analyst"
    source = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/oms.yaml").read_text())["datasources"][0]
    assert source["jsonData"]["username"] == "grafana"
    (password,) = {user.find("password").get("from_env") for user in found.iterfind("users/*")}  # type: ignore[union-attr]
    assert source["secureJsonData"]["password"] == f"${password}"
    asked = {services[name]["environment"][str(password)] for name in ("clickhouse", "clickhouse-replica", "grafana")}
    assert asked == {services["gateway-query"]["environment"]["OMS_CLICKHOUSE_ANALYST_PASSWORD"]}


def test_the_image_has_every_package_and_nothing_that_it_copies_is_missing() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = {name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]}
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied)
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages <= copied


def test_a_container_is_healthy_when_its_process_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMS_DATA_DIR", str(tmp_path))
    settings.cache_clear()
    try:
        assert complaint("order") == "order has not reported yet"
        health.report("order", "starting")
        assert complaint("order") == "order is starting"
        for state in ("ready", "degraded"):
            health.report("order", state)
            assert complaint("order") is None
        monkeypatch.setattr(time, "time", lambda now=time.time: now() + 60)
        assert complaint("order") == "order has not reported for 60 s"
    finally:
        settings.cache_clear()
    assert "127.0.0.1:9/healthz" in str(complaint("http://127.0.0.1:9/healthz"))
