"""The proxy of docker-compose.yml sends every request to a gateway that answers it."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.main import create_app, create_parts
from gateway.roles import Role, misdirected, role_of
from runtime.settings import Settings

CONFIG = (Path(__file__).parents[2] / "deploy" / "haproxy" / "haproxy.cfg").read_text()


def backend(method: str, path: str) -> Role:
    """Where haproxy.cfg sends it: the first use_backend of which a condition holds."""
    lines = [line.split() for line in CONFIG.splitlines()]
    acls = {}
    for word, *rest in filter(None, lines):
        if word == "acl":
            name, kind, *values = rest
            match kind:
                case "method":
                    acls[name] = method in values
                case "path_beg":
                    acls[name] = any(path.startswith(value) for value in values)
                case "path_reg":
                    acls[name] = any(re.search(value, path) is not None for value in values)
                case _:
                    raise AssertionError(f"this test does not know {kind}")
        if word == "use_backend" and any(acls[name] for name in rest[2:] if name != "or"):
            return Role(rest[0])
        if word == "default_backend":
            return Role(rest[0])
    raise AssertionError("haproxy.cfg has no default_backend")


def routes(role: Role, folder: Path) -> set[tuple[str, str]]:
    """What a gateway of this role has; `{name}` stands for a value."""
    paths = create_app(create_parts(Settings(data_dir=folder, gateway_role=role.value))).openapi()["paths"]
    return {(method.upper(), re.sub(r"{.*?}", "x", path)) for path, methods in paths.items() for method in methods}


def test_every_request_is_sent_where_it_is_answered(tmp_path: Path) -> None:
    whole = routes(Role.ALL, tmp_path)
    apart = {role: routes(role, tmp_path) for role in (Role.COMMAND, Role.QUERY)}
    assert len(whole) > 50
    assert apart[Role.COMMAND] | apart[Role.QUERY] == whole
    for method, path in whole:
        assert (method, path) in apart[backend(method, path)], (method, path)
        assert misdirected(backend(method, path), method, path) is None, (method, path)
    assert {path for _, path in apart[Role.COMMAND] & apart[Role.QUERY] if path.startswith("/v1")} == set()


def test_what_is_a_command_and_what_a_query() -> None:
    for method, path, role in (
        ("POST", "/v1/orders", Role.COMMAND),
        ("GET", "/v1/orders/1/commands/2", Role.COMMAND),
        ("POST", "/v1/payments/events", Role.COMMAND),
        ("GET", "/v1/customers/42/preferences", Role.COMMAND),
        ("GET", "/v1/admin/promotions", Role.COMMAND),
        ("GET", "/v1/orders", Role.QUERY),
        ("HEAD", "/v1/orders/1", Role.QUERY),
        ("GET", "/v1/customers/42/orders", Role.QUERY),
        ("GET", "/v1/products", Role.QUERY),
        ("GET", "/v1/kpis", Role.QUERY),
        ("POST", "/dashboard/sign-in", Role.QUERY),
        ("GET", "/readyz", Role.ALL),
        ("GET", "/openapi.json", Role.ALL),
        ("POST", "/subjects/x", Role.ALL),
    ):
        assert role_of(method, path) is role, (method, path)
