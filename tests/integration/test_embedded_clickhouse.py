"""The embedded ClickHouse over its HTTP interface: clients, users, concurrency, and what survives a kill."""

# ruff: noqa: S608 - the tables' names are the tests' own

from __future__ import annotations

import asyncio
import gzip
import json
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import clickhouse_connect
import httpx
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, Error

from runtime import clickhouse_sql as sql
from runtime.clickhouse_sql import ClickHouseError
from tests.support.embedded import PASSWORD, connect, engine, running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clickhouse")


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[int]:
    with engine(folder, PASSWORD) as (port, _):
        setup = connect(port)
        for statement in (
            "CREATE DATABASE oms",
            "CREATE TABLE oms.orders (id String, version UInt64, tags Array(String), note Nullable(String))"
            " ENGINE = ReplacingMergeTree(version) ORDER BY id",
            "INSERT INTO oms.orders VALUES ('o1', 1, ['a'], NULL)",
        ):
            setup.command(statement)
        yield port


@pytest.fixture
def client(port: int) -> Client:
    return connect(port)


@pytest.fixture
def http(port: int) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=("default", PASSWORD), timeout=30) as http:
        yield http


@pytest.fixture
def table(client: Client, request: pytest.FixtureRequest) -> str:
    """An empty table of the test's own."""
    name = "oms." + re.sub(r"\W", "_", request.node.name)
    client.command(f"CREATE TABLE {name} (n Int64, text String) ENGINE = MergeTree ORDER BY n")
    return name


# The protocol, as curl sees it


def test_ping_needs_no_password(port: int) -> None:
    answer = httpx.get(f"http://127.0.0.1:{port}/ping")
    assert (answer.status_code, answer.text) == (200, "Ok.\n")
    assert httpx.get(f"http://127.0.0.1:{port}/elsewhere").status_code == 404


def test_a_query_in_the_url_in_the_body_or_in_both(http: httpx.Client) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\.\d+\n", http.get("/", params={"query": "SELECT version()"}).text)
    assert http.post("/", content="SELECT 1 + 1").text == "2\n"
    assert http.post("/", params={"query": "SELECT 1 +"}, content="2").text == "3\n"
    assert http.get("/").text == "Ok.\n"


def test_formats_parameters_settings_and_database_come_from_the_url(http: httpx.Client) -> None:
    params = {
        "param_id": "o1",
        "database": "oms",
        "default_format": "JSON",
        "output_format_json_quote_64bit_integers": "1",
    }
    answer = http.post("/", params=params, content="SELECT version FROM orders FINAL WHERE id = {id:String}")
    assert answer.json()["data"] == [{"version": "1"}]
    assert answer.headers["X-ClickHouse-Format"] == "JSON"
    assert answer.headers["X-ClickHouse-Timezone"]
    by_header = {"X-ClickHouse-Format": "CSV", "X-ClickHouse-Database": "oms"}
    assert http.post("/", content="SELECT id FROM orders", headers=by_header).text == '"o1"\n'


def test_the_answer_names_the_query_and_sums_it_up(http: httpx.Client) -> None:
    params = {"query_id": "mine", "wait_end_of_query": "1", "query": "SELECT number FROM numbers(10)"}
    answer = http.post("/", params=params)
    assert answer.headers["X-ClickHouse-Query-Id"] == "mine"
    odd = http.post("/", params={"query_id": "two\r\nlines"}, content="SELECT 1")
    assert (odd.text, odd.headers["X-ClickHouse-Query-Id"]) == ("1\n", "two??lines")
    assert json.loads(answer.headers["X-ClickHouse-Summary"])["read_rows"] == "10"


@pytest.mark.parametrize(
    ("text", "code", "status"),
    [
        ("SELECT * FROM nowhere", 60, 404),
        ("SELEKT 1", 62, 400),
        ("SELECT 1; SELECT 2", 62, 400),
        ("SELECT 1 INTO OUTFILE 'leak'", 36, 400),
        ("INSERT INTO oms.orders FROM INFILE 'in' FORMAT CSV", 36, 400),
        ("INSERT INTO oms.orders FORMAT CSV\nbroken", 27, 400),
        ("INSERT INTO oms.nowhere VALUES (1)", 60, 404),
        ("", 62, 400),
        (b"SELECT '\xff'", 62, 400),
        ("SELECT 1 FORMAT dataframe", 73, 500),
    ],
)
def test_errors_are_clickhouses(http: httpx.Client, text: str | bytes, code: int, status: int) -> None:
    answer = http.post("/", content=text)
    assert answer.headers["X-ClickHouse-Exception-Code"] == str(code)
    assert answer.status_code == status
    assert re.match(rf"Code: {code}\. DB::Exception: .*\([A-Z_]+\) \(version [\d.]+\)\n$", answer.text, re.DOTALL)


def test_an_unknown_setting_or_database_is_refused(http: httpx.Client) -> None:
    assert http.get("/", params={"query": "SELECT 1", "nonsense": 1}).headers["X-ClickHouse-Exception-Code"] == "115"
    assert http.get("/", params={"query": "SELECT 1", "x y": 1}).headers["X-ClickHouse-Exception-Code"] == "115"
    assert http.get("/", params={"query": "SELECT 1", "database": "no"}).headers["X-ClickHouse-Exception-Code"] == "81"
    assert http.get("/", params={"query": "SELECT 1", "decompress": 1}).headers["X-ClickHouse-Exception-Code"] == "48"


def test_get_changes_nothing(http: httpx.Client, table: str) -> None:
    for statement in (f"INSERT INTO {table} VALUES (1, '')", f"DROP TABLE {table}"):
        assert http.get("/", params={"query": statement}).headers["X-ClickHouse-Exception-Code"] == "164"
    assert http.post("/", content=f"SELECT count() FROM {table}").text == "0\n"


def test_settings_do_not_outlive_their_request(http: httpx.Client) -> None:
    http.post("/", params={"max_threads": 1}, content="SET max_block_size = 7")
    found = http.post("/", content="SELECT getSetting('max_block_size') = 7, getSetting('max_threads') = 1").text
    assert found.startswith(("false", "0"))


@pytest.mark.parametrize(
    ("query", "data"),
    [
        ("", "INSERT INTO {t} VALUES (1, 'a;b'), (2, 'it''s (2)');"),
        ("", 'INSERT INTO {t} (text, n) FORMAT JSONEachRow {{"n": 1, "text": "x"}} {{"n": 2}}'),
        ("", "INSERT INTO {t} /* FORMAT CSV */ SETTINGS async_insert = 0 FORMAT TSV\n1\tx\n2\ty\n"),
        ("INSERT INTO {t} FORMAT CSV", '1,"a\n1"\n2,b\n'),
        ("INSERT INTO {t} (n) VALUES", "(1), (1 + 1)"),
        ("INSERT INTO {t} (n)\n", "VALUES (1), (2)"),
        ("", "INSERT INTO {t} SELECT number + 1, '' FROM numbers(2)"),
    ],
)
def test_inserts_in_all_their_forms(http: httpx.Client, table: str, query: str, data: str) -> None:
    params = {"query": query.format(t=table)} if query else {}
    answer = http.post("/", params=params, content=data.format(t=table))
    assert answer.status_code == 200, answer.text
    assert json.loads(answer.headers["X-ClickHouse-Summary"])["written_rows"] == "2"
    assert http.post("/", content=f"SELECT n FROM {table} ORDER BY n").text == "1\n2\n"


def test_an_insert_that_fails_halfway_leaves_nothing(http: httpx.Client, table: str) -> None:
    rows = "".join(f"{n}\tx\n" for n in range(50_000)) + "broken\n"
    assert http.post("/", content=f"INSERT INTO {table} FORMAT TSV\n{rows}").status_code == 400
    cut = gzip.compress(f"INSERT INTO {table} FORMAT TSV\n{rows}".encode())[:-10]
    answer = http.post("/", content=cut, headers={"Content-Encoding": "gzip"})
    assert answer.headers["X-ClickHouse-Exception-Code"] == "271"
    assert http.post("/", content=f"SELECT count() FROM {table}").text == "0\n"


@pytest.mark.parametrize("encoding", ["gzip", "lz4", "zstd"])
def test_answers_are_compressed_when_asked_for(http: httpx.Client, encoding: str) -> None:
    query = {"query": "SELECT number FROM numbers(5000)", "enable_http_compression": "1"}
    with http.stream("GET", "/", params=query, headers={"Accept-Encoding": f"br, {encoding}"}) as answer:
        assert answer.headers["Content-Encoding"] == encoding
        assert len(b"".join(answer.iter_raw())) < 20_000


# clickhouse-connect


@pytest.mark.parametrize("compress", ["lz4", "zstd", "gzip", False])
def test_the_sync_client(port: int, table: str, compress: str | bool) -> None:
    client = connect(port, compress=compress, autogenerate_session_id=True)
    written = client.insert(table, [[n, f"text {n}"] for n in range(20_000)], column_names=["n", "text"])
    assert written.written_rows == 20_000
    assert client.raw_insert(table, ["n"], b"-1\n", fmt="CSV").written_rows == 1
    found = client.query(f"SELECT max(n), any(text) FROM {table} WHERE n = {{n:Int64}}", parameters={"n": 19_999})
    assert found.result_rows == [(19_999, "text 19999")]
    with client.query_row_block_stream(f"SELECT * FROM {table}, numbers(50) AS k") as blocks:
        assert sum(len(block) for block in blocks) == 20_001 * 50
    assert client.query(f"SELECT n FROM {table} LIMIT 0").column_names == ("n",)
    assert client.query_df(f"SELECT n FROM {table} WHERE n < 10").shape == (11, 1)
    assert client.command("SELECT 5") == 5


@pytest.mark.parametrize("size", [1, 5000])
def test_values_arrive_as_they_were_sent(client: Client, size: int) -> None:
    """However odd they are, and however long: long ones travel in a form."""
    odd = "tab\t newline\n quote' double\" back\\slash \\t \\N ünï {x:String} ; FORMAT TSV" * size
    assert client.query("SELECT {v:String}", parameters={"v": odd}).result_rows == [(odd,)]
    values = [odd, "", "'"]
    assert client.query("SELECT {v:Array(String)}", parameters={"v": values}).result_rows == [(values,)]


def test_the_async_client(port: int, table: str) -> None:
    async def use() -> list[Any]:
        client = await clickhouse_connect.get_async_client(
            host="127.0.0.1", port=port, username="default", password=PASSWORD, autogenerate_session_id=False
        )
        written = await client.insert(table, [[n, ""] for n in range(1000)], column_names=["n", "text"])
        assert written.written_rows == 1000
        counts = [client.query(f"SELECT count() FROM {table} WHERE n < {n}") for n in range(20)]
        found = [answer.result_rows[0][0] for answer in await asyncio.gather(*counts)]
        await client.close()
        return found

    assert asyncio.run(use()) == list(range(20))


def test_errors_reach_the_client(client: Client, table: str) -> None:
    with pytest.raises(DatabaseError) as raised:
        client.query("SELECT throwIf(1, 'no')")
    assert raised.value.code == 395
    with (
        pytest.raises(DatabaseError),
        client.query_row_block_stream(
            "SELECT throwIf(number = 5000000) FROM numbers(10000000) SETTINGS max_block_size = 10000"
        ) as blocks,
    ):
        for _ in blocks:
            pass
    assert client.query(f"SELECT count() FROM {table}").result_rows == [(0,)]


# Users


@pytest.mark.parametrize(
    ("headers", "params", "status"),
    [
        ({}, {}, 403),
        ({"X-ClickHouse-User": "default", "X-ClickHouse-Key": PASSWORD}, {}, 200),
        ({"X-ClickHouse-User": "default", "X-ClickHouse-Key": "wrong"}, {}, 403),
        ({"X-ClickHouse-User": "mallory"}, {}, 403),
        ({"Authorization": "Basic not-base64"}, {}, 403),
        ({}, {"user": "default", "password": PASSWORD}, 200),
        ({}, {"user": "analyst"}, 200),
        ({"X-ClickHouse-User": "analyst", "X-ClickHouse-Key": "any"}, {}, 200),
    ],
)
def test_who_gets_in(port: int, headers: dict[str, str], params: dict[str, str], status: int) -> None:
    answer = httpx.post(f"http://127.0.0.1:{port}/", params=params, headers=headers, content="SELECT 1")
    assert answer.status_code == status
    assert (answer.headers.get("X-ClickHouse-Exception-Code") == "516") == (status == 403)


# Many at once


def test_a_read_is_cancelled_when_its_client_leaves(port: int, client: Client) -> None:
    body = b"SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1"
    with socket.create_connection(("127.0.0.1", port)) as leaving:
        head = f"POST /?user=default&password={PASSWORD.replace(' ', '%20')} HTTP/1.1\r\nHost: x\r\n"
        leaving.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        _until(lambda: _running(client) == 1, "the query runs")
    _until(lambda: _running(client) == 0, "the query is cancelled")


def test_reads_run_beside_inserts_and_see_what_was_acknowledged(port: int, table: str) -> None:
    """Four writers, four readers: an insert is there as a whole or not at all, and nothing disappears."""
    writers, batches, rows = 4, 15, 500
    acknowledged = [0] * writers
    done = threading.Event()

    def write(writer: int) -> None:
        client = connect(port)
        for batch in range(batches):
            data = [[batch, f"w{writer}"]] * rows
            client.insert(table, data, column_names=["n", "text"])
            acknowledged[writer] += rows

    def read() -> int:
        client = connect(port)
        looks, last = 0, 0
        while not done.is_set():
            before = sum(acknowledged)
            counts = [row[0] for row in client.query(f"SELECT count() FROM {table} GROUP BY text, n").result_rows]
            assert set(counts) <= {rows}
            found = sum(counts)
            assert found >= max(before, last)
            looks, last = looks + 1, found
        return looks

    with ThreadPoolExecutor(2 * writers) as pool:
        readers = [pool.submit(read) for _ in range(writers)]
        for one in [pool.submit(write, writer) for writer in range(writers)]:
            one.result()
        done.set()
        assert all(reader.result() > 1 for reader in readers)
    assert connect(port).query(f"SELECT count() FROM {table}").result_rows == [(writers * batches * rows,)]


# Its life


def test_nothing_acknowledged_is_lost_by_a_kill(tmp_path: Path) -> None:
    """`kill -9` in the middle of inserts: every acknowledged one is there after the restart, each as a whole."""
    rows, acknowledged = 1000, list[int]()
    with engine(tmp_path) as (port, process):
        client = connect(port, password="")
        client.command("CREATE TABLE kept (batch Int64, n Int64) ENGINE = MergeTree ORDER BY batch")
        killer = threading.Timer(0.7, process.kill)
        killer.start()
        with pytest.raises(Error):
            _insert_for_ever(client, rows, acknowledged)
        killer.join()
        process.wait()
    assert acknowledged
    with engine(tmp_path) as (port, process):
        found = connect(port, password="").query("SELECT batch, count() FROM kept GROUP BY batch").result_rows
        batches = {batch for batch, _ in found}
        assert set(acknowledged) <= batches <= {*acknowledged, len(acknowledged)}
        assert {count for _, count in found} == {rows}
        _assert_second_is_refused(tmp_path)
        _assert_sigterm_ends_it(port, process)


def _insert_for_ever(client: Client, rows: int, acknowledged: list[int]) -> None:
    for batch in count():
        client.insert("kept", [[batch, n] for n in range(rows)], column_names=["batch", "n"])
        acknowledged.append(batch)


def _assert_second_is_refused(folder: Path) -> None:
    arguments = ("runtime.embedded_clickhouse", "--data-dir", str(folder), "--port", "0")
    with running(*arguments, log=folder / "second") as second:
        assert second.wait(30) == 1
    assert (folder / "second").read_text() == f"Another process has the ClickHouse data in {folder} open.\n"


def _assert_sigterm_ends_it(port: int, process: subprocess.Popen[bytes]) -> None:
    """Even while a query runs that would take hours."""
    body = "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1"

    def ask() -> None:
        with pytest.raises(httpx.HTTPError):
            httpx.post(f"http://127.0.0.1:{port}/", content=body, timeout=60).raise_for_status()

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        client = connect(port, password="")
        _until(lambda: _running(client) == 1, "the query runs")
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        asking.result()


def test_a_taken_port_is_one_sentence(tmp_path: Path, port: int) -> None:
    arguments = ("runtime.embedded_clickhouse", "--data-dir", str(tmp_path), "--port", str(port))
    with running(*arguments, log=tmp_path / "out") as process:
        assert process.wait(30) == 1
    assert (tmp_path / "out").read_text() == f"Port {port} on 127.0.0.1 is in use.\n"


def _running(client: Client) -> int:
    """How many of the queries that would take hours are under way."""
    query = "SELECT count() FROM system.processes WHERE startsWith(query, 'SELECT count() FROM numbers(1000000000000)')"
    found: int = client.query(query).result_rows[0][0]
    return found


def _until(look: Any, what: str) -> None:
    deadline = time.monotonic() + 15
    while not look():
        assert time.monotonic() < deadline, f"not within 15 s: {what}"
        time.sleep(0.05)


# Where an INSERT's data begins


@pytest.mark.parametrize(
    ("text", "head", "data_format", "data"),
    [
        ("INSERT INTO t VALUES (1)", "INSERT INTO t ", "Values", " (1)"),
        ("insert into t(a,b) values(1,2)", "insert into t(a,b) ", "Values", "(1,2)"),
        ("INSERT INTO t FORMAT TSV\n1\n", "INSERT INTO t ", "TSV", "1\n"),
        ("INSERT INTO t FORMAT TSV \r\n\n1", "INSERT INTO t ", "TSV", "\n1"),
        ("INSERT INTO t (`values`, format) FORMAT CSV\nx", "INSERT INTO t (`values`, format) ", "CSV", "x"),
        ("INSERT INTO values FORMAT CSV\nx", "INSERT INTO values ", "CSV", "x"),
        ("INSERT INTO `a b`.`FORMAT` VALUES", "INSERT INTO `a b`.`FORMAT` ", "Values", ""),
        (
            "-- FORMAT\nINSERT /* VALUES */ INTO t FORMAT Native\n\x01",
            "-- FORMAT\nINSERT /* VALUES */ INTO t ",
            "Native",
            "\x01",
        ),
        (
            "INSERT INTO TABLE FUNCTION file('SELECT') FORMAT CSV\n1",
            "INSERT INTO TABLE FUNCTION file('SELECT') ",
            "CSV",
            "1",
        ),
    ],
)
def test_inserts_are_split(text: str, head: str, data_format: str, data: str) -> None:
    found = sql.split_insert(text.encode())
    assert found is not None
    assert (found.head, found.format, text.encode()[found.data_offset :]) == (head, data_format, data.encode())


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1 FORMAT CSV",
        "INSERT INTO t SELECT * FROM x FORMAT CSV",
        "INSERT INTO t (a) WITH x AS (SELECT 1) SELECT * FROM x",
        "(SELECT 'INSERT INTO t VALUES (1)')",
        "INSERT INTO t",
        "EXPLAIN INSERT INTO t VALUES (1)",
        "",
    ],
)
def test_other_statements_are_not_split(text: str) -> None:
    assert sql.split_insert(text.encode()) is None


def test_errors_keep_the_engines_words() -> None:
    error = ClickHouseError.from_engine("Streaming query failed: Code: 60. DB::Exception: No. (UNKNOWN_TABLE)")
    assert (error.code, str(error)) == (60, "Code: 60. DB::Exception: No. (UNKNOWN_TABLE)")
    assert ClickHouseError.from_engine("out of luck").code == 1001
