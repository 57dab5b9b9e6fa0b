"""Analysts' own tools on the embedded ClickHouse: curl, clickhouse-connect (both clients) and the JDBC driver."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from tests.support.embedded import PASSWORD, connect, engine
from tests.support.jdbc import Jdbc, JdbcError, jdbc

SETUP = (
    "CREATE DATABASE oms",
    "CREATE DATABASE personal",
    "CREATE TABLE personal.addresses (email String) ENGINE = MergeTree ORDER BY email",
    "INSERT INTO personal.addresses VALUES ('bob@example.org')",
    """
    CREATE TABLE oms.typed
    (
        id      String,
        version UInt64,
        at      DateTime64(6, 'UTC'),
        day     Date,
        note    Nullable(String),
        skus    Array(String),
        status  LowCardinality(String),
        total   Int64,
        rate    Decimal(9, 4),
        ratio   Nullable(Float64),
        paid    Bool,
        facts   Map(String, String),
        key     UUID
    )
    ENGINE = ReplacingMergeTree(version) ORDER BY id
    """,
    """
    INSERT INTO oms.typed VALUES
    ('o1', 18446744073709551615, '2026-01-02 03:04:05.678901', '2026-01-02', NULL, ['a', 'it''s'], 'PAID',
     -9007199254740993, 12.34, 0.5, true, {'k': 'ü'}, 'c0ffee00-0000-4000-8000-000000000001'),
    ('o2', 1, '1970-01-01 00:00:00', '1970-01-01', 'x', [], 'DRAFT', 0, 0, NULL, false, {},
     '00000000-0000-0000-0000-000000000000')
    """,
    "CREATE TABLE oms.many (n UInt64, text String) ENGINE = MergeTree ORDER BY n",
    "INSERT INTO oms.many SELECT number, concat('text ', toString(number)) FROM numbers(300000)",
)
MANY = 300_000
READONLY, DENIED = 164, 497


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with engine(tmp_path_factory.mktemp("tools"), PASSWORD) as (port, _):
        setup = connect(port)
        for statement in SETUP:
            setup.command(statement)
        yield port


# curl


class Curl:
    """The binary, as a user of the engine."""

    def __init__(self, port: int, credentials: str) -> None:
        self._address = f"http://127.0.0.1:{port}/"
        self._credentials = credentials

    def __call__(self, *arguments: str, url: str = "", stdin: bytes = b"") -> bytes:
        """What it prints.

        Raises:
            subprocess.CalledProcessError: the HTTP status says so; `output` has the body.
        """
        command = ["curl", "-sS", "--fail-with-body", "--max-time", "30", "-u", self._credentials, *arguments]
        done = subprocess.run([*command, self._address + url], input=stdin, capture_output=True, check=True, timeout=40)
        return done.stdout


@pytest.fixture(params=["analyst:", f"default:{PASSWORD}"], ids=["analyst", "default"])
def curl(port: int, request: pytest.FixtureRequest) -> Curl:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed here")
    return Curl(port, request.param)


def test_curl_asks_in_the_url_in_the_body_and_with_parameters(curl: Curl) -> None:
    assert curl(url="ping") == b"Ok.\n"
    assert curl("-G", "--data-urlencode", "query=SELECT status FROM oms.typed ORDER BY id") == b"PAID\nDRAFT\n"
    assert curl("--data-binary", "SELECT total FROM oms.typed WHERE id = {id:String}", url="?param_id=o1") == (
        b"-9007199254740993\n"
    )
    assert (
        curl("--data-binary", "@-", url="?database=oms", stdin=b"SELECT count()\nFROM typed FINAL -- both\n") == b"2\n"
    )


def test_curl_gets_every_format(curl: Curl) -> None:
    query = "SELECT id, skus, total FROM oms.typed ORDER BY id FORMAT "
    rows = list(csv.DictReader(io.StringIO(curl("-d", query + "CSVWithNames").decode())))
    assert [row["id"] for row in rows] == ["o1", "o2"]
    found = json.loads(curl("-d", query + "JSON", url="?output_format_json_quote_64bit_integers=1"))
    assert found["data"][0] == {"id": "o1", "skus": ["a", "it's"], "total": "-9007199254740993"}
    assert curl("-d", query + "Parquet").startswith(b"PAR1")
    assert curl("-d", query + "Markdown").startswith(b"| id | skus | total |")


def test_curl_gets_a_large_result_whole(curl: Curl) -> None:
    """Several MB, plain and compressed: all of it in one frame, because curl reads no second one."""
    query = ("-d", "SELECT n, text FROM oms.many ORDER BY n")
    plain = curl(*query)
    assert plain.count(b"\n") == MANY
    assert curl("--compressed", *query, url="?enable_http_compression=1") == plain


def test_curl_hears_of_errors(curl: Curl) -> None:
    with pytest.raises(subprocess.CalledProcessError) as raised:
        curl("-d", "SELECT nothing FROM oms.typed")
    assert raised.value.output.startswith(b"Code: 47. DB::Exception: ")


def test_curl_writes_as_default_only(port: int) -> None:
    insert = ("--data-binary", "@-")
    with pytest.raises(subprocess.CalledProcessError) as raised:
        Curl(port, "analyst:")(*insert, url="?query=INSERT%20INTO%20oms.many%20FORMAT%20CSV", stdin=b'1,"x"\n')
    assert raised.value.output.startswith(b"Code: 164. ")
    default = Curl(port, f"default:{PASSWORD}")
    default("-d", "CREATE TABLE oms.from_curl (n UInt64, text String) ENGINE = MergeTree ORDER BY n")
    default(*insert, url="?query=INSERT%20INTO%20oms.from_curl%20FORMAT%20CSV", stdin=b'1,"x"\n2,"y"\n')
    assert default("-d", "SELECT sum(n) FROM oms.from_curl") == b"3\n"


# clickhouse-connect

O1 = (
    "o1",
    18446744073709551615,
    datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    date(2026, 1, 2),
    None,
    ["a", "it's"],
    "PAID",
    -9007199254740993,
    Decimal("12.34"),
    0.5,
    True,
    {"k": "ü"},
    UUID("c0ffee00-0000-4000-8000-000000000001"),
)


@pytest.fixture(scope="module")
def analyst(port: int) -> Iterator[Client]:
    with connect(port, "analyst", "", database="oms") as client:
        yield client


def test_the_sync_client_gets_values_of_all_types(analyst: Client) -> None:
    query = "SELECT * FROM typed FINAL WHERE id = {id:String} AND at < {to:DateTime64(6)}"
    found = analyst.query(query, parameters={"id": "o1", "to": datetime(2026, 1, 3, tzinfo=UTC)})
    assert [as_utc(row) for row in found.result_rows] == [O1]
    assert found.column_names[:3] == ("id", "version", "at")


def test_the_sync_client_streams(analyst: Client) -> None:
    with analyst.query_rows_stream("SELECT n FROM many ORDER BY n") as rows:
        assert sum(n for (n,) in rows) == sum(range(MANY))
    with analyst.raw_stream("SELECT n FROM many", fmt="CSV") as raw:
        assert raw.read().count(b"\n") == MANY


@pytest.mark.parametrize(
    ("format", "begins"),
    [("CSV", b'"o1",'), ("JSONEachRow", b'{"id":"o1",'), ("Parquet", b"PAR1"), ("TabSeparatedWithNames", b"id\t")],
)
def test_the_sync_client_gets_raw_formats(analyst: Client, format: str, begins: bytes) -> None:
    assert analyst.raw_query("SELECT * FROM typed ORDER BY id", fmt=format).startswith(begins)


def test_the_sync_client_may_not_write(analyst: Client) -> None:
    with pytest.raises(DatabaseError) as raised:
        analyst.insert("many", [[1, "x"]], column_names=["n", "text"])
    assert raised.value.code == READONLY
    with pytest.raises(DatabaseError) as raised:
        analyst.command("DROP TABLE many")
    assert raised.value.code == READONLY


@pytest.mark.parametrize("user", ["analyst", "default"])
def test_the_async_client(port: int, user: str) -> None:
    async def use() -> None:
        async with async_client(port, user) as client:
            counts = [
                client.query("SELECT count() FROM many WHERE n < {n:UInt64}", parameters={"n": n}) for n in range(9)
            ]
            assert [found.result_rows[0][0] for found in await asyncio.gather(*counts)] == list(range(9))
            found = await client.query("SELECT * FROM typed WHERE id = 'o1'")
            assert [as_utc(row) for row in found.result_rows] == [O1]
            async with await client.query_rows_stream("SELECT n FROM many") as rows:
                assert sum([n async for (n,) in rows]) == sum(range(MANY))
            assert (await client.raw_query("SELECT id FROM typed ORDER BY id", fmt="CSV")) == b'"o1"\n"o2"\n'
            with pytest.raises(DatabaseError, match="UNKNOWN_IDENTIFIER"):
                await client.query("SELECT nothing FROM typed")
            if user == "analyst":
                with pytest.raises(DatabaseError, match="READONLY"):
                    await client.insert("many", [[1, "x"]], column_names=["n", "text"])

    asyncio.run(use())


@asynccontextmanager
async def async_client(port: int, user: str) -> Any:
    client = await clickhouse_connect.get_async_client(
        host="127.0.0.1", port=port, username=user, password=PASSWORD, database="oms", autogenerate_session_id=False
    )
    try:
        yield client
    finally:
        await client.close()


def as_utc(row: Any) -> tuple[Any, ...]:
    """Times with their zone, whether the client gives it or not."""
    return tuple(value.replace(tzinfo=value.tzinfo or UTC) if isinstance(value, datetime) else value for value in row)


# JDBC


@pytest.fixture(scope="module")
def java(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jdbc]:
    with jdbc(tmp_path_factory.mktemp("jdbc") / "stderr") as java:
        yield java


@pytest.fixture
def as_analyst(java: Jdbc, port: int) -> Jdbc:
    """Connected as DBeaver would, with no option in the URL."""
    about = java.ask(connect=f"jdbc:clickhouse://127.0.0.1:{port}/oms", user="analyst", password="")
    assert about["product"] == "ClickHouse"
    return java


def test_jdbc_lists_what_there_is(as_analyst: Jdbc) -> None:
    schemas = as_analyst.ask(schemas=True)
    names = {row[schemas["names"].index("TABLE_SCHEM")][1] for row in schemas["rows"]}
    assert "oms" in names
    assert "personal" not in names
    tables = as_analyst.ask(tables="oms")
    assert {"many", "typed"} <= {row[tables["names"].index("TABLE_NAME")][1] for row in tables["rows"]}
    columns = as_analyst.ask(columns=["oms", "typed"])
    at = [columns["names"].index(name) for name in ("COLUMN_NAME", "TYPE_NAME")]
    described = [[row[index][1] for index in at] for row in columns["rows"]]
    assert described[2] == ["at", "DateTime64(6, 'UTC')"]
    assert as_analyst.ask(tables="personal")["rows"] == []


def test_jdbc_gets_values_of_all_types(as_analyst: Jdbc) -> None:
    found = as_analyst.ask(query="SELECT * FROM typed FINAL ORDER BY id")
    first, second = (dict(zip(found["names"], row, strict=True)) for row in found["rows"])
    assert first["id"] == ["java.lang.String", "o1"]
    assert first["version"] == ["java.math.BigInteger", "18446744073709551615"]
    assert first["at"] == ["java.sql.Timestamp", "2026-01-02 03:04:05.678901"]
    assert first["day"] == ["java.sql.Date", "2026-01-02"]
    assert first["note"] is None
    assert first["skus"] == ["array", "[a, it's]"]
    assert first["status"] == ["java.lang.String", "PAID"]
    assert first["total"] == ["java.lang.Long", "-9007199254740993"]
    assert first["rate"] == ["java.math.BigDecimal", "12.3400"]
    assert first["ratio"] == ["java.lang.Double", "0.5"]
    assert first["paid"] == ["java.lang.Boolean", "true"]
    assert first["facts"][1] == "{k=ü}"
    assert first["key"] == ["java.util.UUID", "c0ffee00-0000-4000-8000-000000000001"]
    assert second["ratio"] is None
    assert second["skus"] == ["array", "[]"]


def test_jdbc_prepares_statements(as_analyst: Jdbc) -> None:
    assert as_analyst.rows("SELECT total FROM typed WHERE id = ? AND version > ?", "o1", 5) == [["-9007199254740993"]]
    odd = 'it\'s \\ "x" ? \n\t{y:String} ü'
    assert as_analyst.rows("SELECT ?", odd) == [[odd]]


def test_jdbc_reads_a_large_result(as_analyst: Jdbc) -> None:
    """In several of ClickHouse's own compressed blocks, each with its checksum."""
    rows = as_analyst.rows("SELECT n, repeat(text, 100) FROM many WHERE n < 5000 ORDER BY n")
    assert rows == [[str(n), f"text {n}" * 100] for n in range(5000)]


def test_jdbc_bounds_a_query_further(as_analyst: Jdbc) -> None:
    """What DBeaver does with every query: it wants the first 200 rows, within some seconds."""
    assert len(as_analyst.rows("SELECT n FROM many", max_rows=200, seconds=5)) == 200


def test_jdbc_hears_of_errors(as_analyst: Jdbc) -> None:
    for query, code in (("SELECT nothing FROM typed", 47), ("SELECT * FROM personal.addresses", DENIED)):
        with pytest.raises(JdbcError) as raised:
            as_analyst.rows(query)
        assert raised.value.code == code, raised.value
    assert as_analyst.rows("SELECT 1") == [["1"]]


@pytest.mark.parametrize("statement", ["INSERT INTO many VALUES (1, 'x')", "CREATE TABLE x (a Int8) ENGINE = Memory"])
def test_jdbc_may_not_write(as_analyst: Jdbc, statement: str) -> None:
    with pytest.raises(JdbcError) as raised:
        as_analyst.ask(update=statement)
    assert raised.value.code == READONLY


def test_jdbc_as_default(java: Jdbc, port: int) -> None:
    java.ask(connect=f"jdbc:clickhouse://127.0.0.1:{port}", user="default", password=PASSWORD)
    java.ask(update="CREATE TABLE oms.from_java (n UInt64, text String) ENGINE = MergeTree ORDER BY n")
    java.ask(update="INSERT INTO oms.from_java VALUES (1, 'x'), (2, 'y')")
    assert java.rows("SELECT sum(n) FROM oms.from_java") == [["3"]]


def test_jdbc_with_a_wrong_password(java: Jdbc, port: int) -> None:
    with pytest.raises(JdbcError, match="Authentication failed"):
        java.ask(connect=f"jdbc:clickhouse://127.0.0.1:{port}", user="default", password="wrong")
