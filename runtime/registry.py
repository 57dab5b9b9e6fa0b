"""The committed schemas as a Confluent schema registry would show them; and `fill`, which gives them, with the same
ids, to a registry outside:

    python -m runtime.registry http://schema-registry:8081

Subjects are by topic and record name. Everything is read-only and JSON-able; None means that there is no such thing.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import cache
from typing import Any
from urllib.parse import quote

import httpx

import schemas  # noqa: F401  (registers every family)
from runtime.errors import UserError
from runtime.settings import settings
from runtime.topology import Topology, load
from schemas.avro import store
from schemas.avro.store import Committed

TYPES = ["AVRO"]
"""GET /schemas/types"""

CONFIG = {"compatibilityLevel": "FULL_TRANSITIVE"}
"""GET /config; a test holds the committed schemas to it."""

MODE = {"mode": "READONLY"}
"""GET /mode"""


@cache
def _default() -> Topology:
    return load(settings().topology)


@cache
def _committed() -> dict[tuple[str, str], list[Committed]]:
    """(family, full name) → its versions, oldest first."""
    found: dict[tuple[str, str], list[Committed]] = {}
    for committed in sorted(store.by_id().values(), key=lambda committed: committed.version):
        found.setdefault((committed.family, committed.fullname), []).append(committed)
    return found


def _versions(subject: str, topology: Topology) -> list[Committed]:
    topic, _, fullname = subject.partition("-")
    if topic not in topology.topics:
        return []
    return _committed().get((topology.topics[topic].speaks, fullname), [])


def subjects(topology: Topology | None = None) -> list[str]:
    """GET /subjects: what each topic may hold."""
    return sorted(
        committed[0].subject(topic.name)
        for topic in (topology or _default()).topics.values()
        for (family, _), committed in _committed().items()
        if family == topic.speaks
    )


def versions(subject: str, topology: Topology | None = None) -> list[int] | None:
    """GET /subjects/{subject}/versions"""
    return [committed.version for committed in _versions(subject, topology or _default())] or None


def version(subject: str, number: int | str, topology: Topology | None = None) -> dict[str, Any] | None:
    """GET /subjects/{subject}/versions/{number}; a number, or `latest` (-1 is the same)."""
    found = _versions(subject, topology or _default())
    if found and str(number) in ("latest", "-1"):
        return _described(subject, found[-1])
    for committed in found:
        if str(committed.version) == str(number):
            return _described(subject, committed)
    return None


def _described(subject: str, committed: Committed) -> dict[str, Any]:
    return {
        "subject": subject,
        "version": committed.version,
        "id": committed.id,
        "schemaType": "AVRO",
        "schema": _text(committed),
    }


def _text(committed: Committed) -> str:
    return json.dumps(committed.schema, separators=(",", ":"))


def schema_by_id(schema_id: int) -> dict[str, Any] | None:
    """GET /schemas/ids/{schema_id}"""
    committed = store.by_id().get(schema_id)
    return None if committed is None else {"schemaType": "AVRO", "schema": _text(committed)}


def uses_of_id(schema_id: int, topology: Topology | None = None) -> list[dict[str, Any]] | None:
    """GET /schemas/ids/{schema_id}/versions: where it may be met."""
    committed = store.by_id().get(schema_id)
    if committed is None:
        return None
    return [
        {"subject": committed.subject(topic.name), "version": committed.version}
        for topic in (topology or _default()).topics.values()
        if topic.speaks == committed.family
    ]


def lookup(subject: str, schema: str, topology: Topology | None = None) -> dict[str, Any] | None:
    """POST /subjects/{subject} {"schema": …}: the version that this schema is, for serializers that register nothing.

    ValueError when it is no JSON.
    """
    wanted = store.schema_id(json.loads(schema))
    for committed in _versions(subject, topology or _default()):
        if committed.id == wanted:
            return _described(subject, committed)
    return None


def fill(registry_url: str, topology: Topology | None = None) -> list[str]:
    """Register every version under every subject of an outside registry with the ids that we write (rule 8); returns
    the subjects that were filled, none when all was there.

    A subject is in IMPORT mode only while it is being filled. Safe to repeat.

    Raises:
        UserError: the registry can't be reached or refuses, or something else has one of our ids or versions there.
    """
    topology = topology or _default()
    try:
        with httpx.Client(base_url=registry_url, timeout=10) as client:
            return [subject for subject in subjects(topology) if _fill_subject(client, subject, topology)]
    except httpx.HTTPStatusError as error:
        raise UserError(
            f"The schema registry at {registry_url} refused {error.request.method} {error.request.url.path}: "
            f"{error.response.status_code} {error.response.text.strip()[:300]}."
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UserError(f"The schema registry at {registry_url} can't be reached: {error}.") from error


def _fill_subject(client: httpx.Client, subject: str, topology: Topology) -> bool:
    """Whether there was anything to do."""
    missing = [committed for committed in _versions(subject, topology) if not _there(client, subject, committed)]
    if not missing:
        return False
    place = quote(subject, safe="")
    client.put(f"/mode/{place}", params={"force": "true"}, json={"mode": "IMPORT"}).raise_for_status()
    try:
        for committed in missing:
            body = {"schema": _text(committed), "id": committed.id, "version": committed.version}
            answer = client.post(f"/subjects/{place}/versions", json=body).raise_for_status().json()
            if answer["id"] != committed.id:
                raise UserError(
                    f"The schema registry gave {committed.fullname} the id {answer['id']} instead of {committed.id}: "
                    "it must let a subject into IMPORT mode, which keeps ids."
                )
    finally:
        client.put(f"/mode/{place}", json={"mode": "READWRITE"}).raise_for_status()
    client.put(f"/config/{place}", json={"compatibility": CONFIG["compatibilityLevel"]}).raise_for_status()
    return True


def _there(client: httpx.Client, subject: str, committed: Committed) -> bool:
    answer = client.get(f"/subjects/{quote(subject, safe='')}/versions/{committed.version}")
    if answer.status_code == httpx.codes.NOT_FOUND:
        return False
    found = answer.raise_for_status().json()
    if found["id"] != committed.id or json.loads(found["schema"]) != committed.schema:
        raise UserError(
            f"Version {committed.version} of {subject} is another schema in that registry (id {found['id']}, ours is "
            f"{committed.id}): delete that subject there, or use another registry."
        )
    return True


def main() -> int:
    """Fill the registry at the URL that is given."""
    parser = argparse.ArgumentParser(prog="python -m runtime.registry", description="Fill a schema registry.")
    parser.add_argument("url")
    arguments = parser.parse_args()
    try:
        filled = fill(arguments.url)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(filled)} subjects filled" if filled else "every schema is there")
    return 0


if __name__ == "__main__":
    sys.exit(main())
