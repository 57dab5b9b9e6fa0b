"""The committed schemas on a schema registry's own paths, read-only, so that stock deserializers need nothing but this
gateway's address. Public, as a registry is inside a company's network: schemas are a published contract."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.call import reply
from gateway.problems import Problem
from runtime import registry

router = APIRouter(tags=["schema registry"])


@router.get("/subjects")
async def subjects() -> Response:
    return reply(registry.subjects())


@router.get("/subjects/{subject}/versions")
async def versions(subject: str) -> Response:
    return _found(registry.versions(subject), 40401, "Subject")


@router.get("/subjects/{subject}/versions/{version}")
async def version(subject: str, version: str) -> Response:
    return _found(registry.version(subject, version), 40402, "Version")


@router.post("/subjects/{subject}")
async def lookup(subject: str, request: Request) -> Response:
    """Which version of the subject a schema is."""
    try:
        found = registry.lookup(subject, (await request.json())["schema"])
    except (ValueError, KeyError, TypeError):
        raise Problem(
            "invalid-schema",
            HTTPStatus.UNPROCESSABLE_ENTITY,
            'The body is {"schema": "…"}, the schema being JSON.',
            field="schema",
            extra={"error_code": 42201, "message": "Invalid schema"},
        ) from None
    return _found(found, 40403, "Schema")


@router.get("/schemas/ids/{schema_id}")
async def schema_by_id(schema_id: int) -> Response:
    return _found(registry.schema_by_id(schema_id), 40403, "Schema")


@router.get("/schemas/ids/{schema_id}/versions")
async def uses_of_id(schema_id: int) -> Response:
    return _found(registry.uses_of_id(schema_id), 40403, "Schema")


@router.get("/schemas/types")
async def types() -> Response:
    return reply(registry.TYPES)


@router.get("/config")
async def config() -> Response:
    return reply(registry.CONFIG)


@router.get("/mode")
async def mode() -> Response:
    return reply(registry.MODE)


def _found(document: Any, error_code: int, what: str) -> Response:
    if document is None:
        # With what a registry's clients look for, besides our own members.
        extra = {"error_code": error_code, "message": f"{what} not found"}
        raise Problem("not-found", HTTPStatus.NOT_FOUND, f"{what} not found.", extra=extra)
    return reply(document)
