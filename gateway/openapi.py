"""What FastAPI can't know for the documentation: tokens and headers, which routes read by themselves."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from gateway.webhooks import HEADER, PATHS

_COMMANDS = ("post", "put", "patch", "delete")


def _header(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": {"type": "string"}}


_CORRELATION = _header("X-Correlation-ID", "goes all the way: into logs, events and the answer")
_OF_WEBHOOKS = [_header(HEADER, 't=SECONDS,v1=HEX: HMAC-SHA256 over t + "." + body with the shared secret')]
_OF_COMMANDS = [
    _header("Idempotency-Key", "the same key, the same answer"),
    _header("If-Match", 'the version the order must be at, as its ETag: "3"'),
    _header("Prefer", "respond-async (answer 202 at once), or wait=N (up to N seconds, 30 at most, for the payment)"),
]


def install(app: FastAPI) -> None:
    """Complete the application's OpenAPI document."""
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generated()
            schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
            schemes["token"] = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
            for path, operations in document["paths"].items():
                for method, operation in operations.items():
                    headers = [_CORRELATION]
                    if path in PATHS:
                        headers += _OF_WEBHOOKS
                    elif path.startswith("/v1/"):
                        operation["security"] = [{"token": []}]
                        headers += _OF_COMMANDS if method in _COMMANDS else []
                    operation["parameters"] = [*operation.get("parameters", []), *headers]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
