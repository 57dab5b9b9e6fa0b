"""What the registry's paths answer, and filling one outside."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import fastavro
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient

from runtime import registry
from runtime.errors import UserError
from runtime.topology import load
from schemas.avro import store

CREATE = "order.commands-oms.order.commands.CreateOrder"


def test_subjects_are_every_topic_with_every_record_of_its_family() -> None:
    subjects = registry.subjects()
    assert CREATE in subjects
    assert "order.internal-oms.order.commands.CreateOrder" in subjects
    assert "order.events-oms.order.events.OrderCreated" in subjects
    assert subjects == sorted(set(subjects))
    speaking = [topic.speaks for topic in load().topics.values()]
    assert len(subjects) == sum(speaking.count(family) for family, _ in store.newest())


def test_each_subject_has_versions_and_each_version_the_id_that_is_written() -> None:
    for subject in registry.subjects():
        numbers = registry.versions(subject)
        assert numbers is not None
        assert numbers == list(range(1, len(numbers) + 1))
        latest = registry.version(subject, "latest")
        assert latest is not None
        assert latest == registry.version(subject, numbers[-1]) == registry.version(subject, str(numbers[-1]))
        assert latest["subject"] == subject
        assert store.schema_id(json.loads(latest["schema"])) == latest["id"]
        parsed: Any = fastavro.parse_schema(json.loads(latest["schema"]))
        assert parsed["name"] == subject.partition("-")[2]
        by_id = registry.schema_by_id(latest["id"])
        assert by_id is not None
        assert by_id["schema"] == latest["schema"]
        assert {"subject": subject, "version": numbers[-1]} in (registry.uses_of_id(latest["id"]) or [])
        assert registry.lookup(subject, latest["schema"]) == latest


@pytest.mark.parametrize(
    "subject",
    ["", "order.commands", "nothing-oms.order.commands.CreateOrder", "order.events-oms.order.commands.CreateOrder"],
)
def test_what_is_not_there_is_none(subject: str) -> None:
    assert registry.versions(subject) is None
    assert registry.version(subject, "latest") is None
    assert registry.lookup(subject, '"string"') is None


@pytest.mark.parametrize("number", [0, 99, "99", "first", "-2"])
def test_no_such_version(number: int | str) -> None:
    assert registry.version(CREATE, number) is None
    assert registry.schema_by_id(1) is None
    assert registry.uses_of_id(1) is None
    assert registry.lookup(CREATE, '"string"') is None


class Outside(ThreadingHTTPServer):
    """The part of Confluent's protocol that filling uses: ids are its own counter's, except in IMPORT mode."""

    def __init__(self, importing: bool = True) -> None:
        self.importing = importing
        self.modes: dict[str, str] = {}
        self.configs: dict[str, str] = {}
        self.schemas: dict[tuple[str, int], tuple[int, str]] = {}
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, method: str, path: list[str], body: Any) -> tuple[int, Any]:
        match method, path:
            case "PUT", ["mode", subject]:
                if body["mode"] == "IMPORT" and not self.importing:
                    return 422, {"error_code": 42205, "message": "Mode can't be changed"}
                self.modes[subject] = body["mode"]
                return 200, body
            case "PUT", ["config", subject]:
                self.configs[subject] = body["compatibility"]
                return 200, body
            case "GET", ["subjects", subject, "versions", number]:
                if (subject, int(number)) not in self.schemas:
                    return 404, {"error_code": 40402, "message": "Version not found."}
                schema_id, schema = self.schemas[subject, int(number)]
                return 200, {"subject": subject, "version": int(number), "id": schema_id, "schema": schema}
            case "POST", ["subjects", subject, "versions"]:
                if ("id" in body) != (self.modes.get(subject) == "IMPORT"):
                    return 422, {"error_code": 42205, "message": f"Subject {subject} is not in import mode"}
                schema_id = body.get("id", len(self.schemas) + 1)
                self.schemas[subject, body.get("version", 1)] = (schema_id, body["schema"])
                return 200, {"id": schema_id}
            case "GET", ["schemas", "ids", number]:
                for schema_id, schema in self.schemas.values():
                    if schema_id == int(number):
                        return 200, {"schema": schema}
        return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}


class _Handler(BaseHTTPRequestHandler):
    server: Outside

    def _do(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        status, answer = self.server.answer(self.command, path, json.loads(body or b"null"))
        raw = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    do_GET = do_PUT = do_POST = _do

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def outside(importing: bool = True) -> Iterator[Outside]:
    server = Outside(importing)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_filling_keeps_our_ids_and_leaves_no_subject_open() -> None:
    with outside() as server:
        assert registry.fill(server.url) == registry.subjects()
        expected = {
            (subject, number): found["id"]
            for subject in registry.subjects()
            for number in registry.versions(subject) or []
            if (found := registry.version(subject, number))
        }
        assert {where: schema_id for where, (schema_id, _) in server.schemas.items()} == expected
        assert set(server.modes.values()) == {"READWRITE"}
        assert set(server.configs.values()) == {"FULL_TRANSITIVE"}
        assert registry.fill(server.url) == [], "the second time all is there"
        ours = registry.version(CREATE, 1)
        assert ours is not None
        client = SchemaRegistryClient({"url": server.url})
        assert json.loads(client.get_schema(ours["id"]).schema_str) == json.loads(ours["schema"])


def test_a_registry_with_something_else_under_our_name_is_left_alone() -> None:
    with outside() as server:
        server.schemas[CREATE, 1] = (7, '"string"')
        with pytest.raises(UserError, match=r"Version 1 of order\.commands-.*CreateOrder is another schema .* \(id 7"):
            registry.fill(server.url)
        assert server.schemas[CREATE, 1] == (7, '"string"')
        assert "IMPORT" not in server.modes.values()


def test_a_registry_that_keeps_no_ids_is_refused() -> None:
    with outside(importing=False) as server, pytest.raises(UserError, match=r"refused PUT /mode/.*: 422 .*Mode can't"):
        registry.fill(server.url)


def test_no_registry_is_a_sentence() -> None:
    with pytest.raises(UserError, match=r"The schema registry at http://127\.0\.0\.1:9 can't be reached"):
        registry.fill("http://127.0.0.1:9")
