"""The read-only user: what it may not do and see, how its queries are bounded, and that they are in nobody's way."""

# ruff: noqa: S608 - the statements are the tests' own

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error

from runtime.clickhouse_engine import ANALYST_SECONDS
from tests.support.embedded import PASSWORD, connect, engine

ANALYST_PASSWORD = "curious"
SECRET = "bob@example.org"
SETUP = (
    "CREATE DATABASE oms",
    "CREATE DATABASE personal",
    "CREATE DATABASE elsewhere",
    "CREATE TABLE elsewhere.things (a Int8) ENGINE = MergeTree ORDER BY a",
    "CREATE TABLE personal.addresses (email String) ENGINE = MergeTree ORDER BY email",
    f"INSERT INTO personal.addresses VALUES ('{SECRET}')",
    "CREATE TABLE personal.by_key (k String, v String) ENGINE = Join(ANY, LEFT, k)",
    f"INSERT INTO personal.by_key VALUES ('k', '{SECRET}')",
    "CREATE DICTIONARY personal.names (k String, v String) PRIMARY KEY k"
    " SOURCE(CLICKHOUSE(TABLE 'by_key' DB 'personal')) LAYOUT(COMPLEX_KEY_HASHED()) LIFETIME(0)",
    "CREATE TABLE oms.orders (id String, version UInt64) ENGINE = ReplacingMergeTree(version) ORDER BY id",
    "INSERT INTO oms.orders VALUES ('o1', 1)",
    "CREATE VIEW oms.leak AS SELECT * FROM personal.addresses",
)
HEAVY = "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1"

UNKNOWN_FUNCTION, LIMIT, TOO_MANY, READONLY, MEMORY, DENIED, CONSTRAINT = 46, 396, 202, 164, 241, 497, 452


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("clickhouse")
    with engine(folder, PASSWORD, OMS_CLICKHOUSE_ANALYST_PASSWORD=ANALYST_PASSWORD) as (port, _):
        setup = connect(port)
        for statement in SETUP:
            setup.command(statement)
        yield port


@pytest.fixture
def client(port: int) -> Iterator[Client]:
    with connect(port) as client:
        yield client


@pytest.fixture
def http(port: int) -> Iterator[httpx.Client]:
    """As the analyst."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=("analyst", ANALYST_PASSWORD), timeout=40) as http:
        yield http


def code(answer: httpx.Response) -> int:
    """ClickHouse's number of the error, 0 when there was none."""
    return int(answer.headers.get("X-ClickHouse-Exception-Code", 0))


def ask(http: httpx.Client, text: str, **params: str) -> httpx.Response:
    return http.post("/", params={"wait_end_of_query": "1", **params}, content=text)


# What it may


def test_who_is_the_analyst(port: int, http: httpx.Client) -> None:
    for password, status in ((ANALYST_PASSWORD, 200), ("", 403), ("wrong", 403), (PASSWORD, 403)):
        answer = httpx.post(f"http://127.0.0.1:{port}/", auth=("analyst", password), content="SELECT 1")
        assert answer.status_code == status
    assert http.get("/", params={"query": "SELECT 1"}).text == "1\n"


def test_what_an_analyst_may(port: int) -> None:
    client = connect(port, "analyst", ANALYST_PASSWORD, database="oms")
    query = "SELECT id, version FROM orders FINAL WHERE id = {i:String}"
    assert client.query(query, parameters={"i": "o1"}).result_rows == [("o1", 1)]
    assert client.query("SELECT 'file(', ';' -- a comment").result_rows == [("file(", ";")]
    assert {"oms", "system"} <= set(client.query("SHOW DATABASES").result_columns[0])
    assert client.query("DESCRIBE TABLE orders").result_rows[0][0] == "id"
    assert client.query("EXPLAIN SELECT * FROM orders").result_rows
    assert client.query_df("SELECT * FROM orders").shape == (1, 2)


# What it may not


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("INSERT INTO oms.orders (id) VALUES ('x')", READONLY),
        ("INSERT INTO oms.orders FORMAT TSV\nx\t1\n", READONLY),
        ("INSERT INTO oms.orders SELECT * FROM oms.orders", READONLY),
        ("INSERT INTO FUNCTION file('x', 'CSV', 'a String') VALUES ('x')", READONLY),
        ("CREATE TABLE oms.mine (a Int8) ENGINE = Memory", READONLY),
        ("CREATE TEMPORARY TABLE mine (a Int8)", READONLY),
        ("CREATE FUNCTION f AS x -> file(x)", READONLY),
        ("CREATE USER mallory", READONLY),
        ("GRANT ALL ON *.* TO default", READONLY),
        ("ALTER TABLE oms.orders DELETE WHERE 1", READONLY),
        ("DELETE FROM oms.orders WHERE 1", READONLY),
        ("DROP TABLE oms.orders", READONLY),
        ("DETACH TABLE oms.orders", READONLY),
        ("ATTACH TABLE oms.mine (a Int8) ENGINE = File(CSV)", READONLY),
        ("RENAME TABLE oms.orders TO oms.gone", READONLY),
        ("TRUNCATE TABLE oms.orders", READONLY),
        ("OPTIMIZE TABLE oms.orders", READONLY),
        ("CHECK TABLE oms.orders", READONLY),
        ("SYSTEM FLUSH LOGS", READONLY),
        ("SYSTEM STOP MERGES", READONLY),
        ("SYSTEM SHUTDOWN", READONLY),
        ("KILL QUERY WHERE 1", READONLY),
        ("SET max_threads = 1", READONLY),
        ("SET readonly = 0", READONLY),
        ("SET ROLE writer", READONLY),
        ("SET /* */ ROLE ALL", READONLY),
        ("EXECUTE AS default SELECT 1", READONLY),
        ("USE personal", READONLY),
        ("BACKUP DATABASE oms TO File('x')", READONLY),
        ("SELECT 1 PARALLEL WITH SET ROLE writer", READONLY),
        ("SELECT 1; SET ROLE writer; SELECT * FROM personal.addresses", 62),
        ("SELECT 1 INTO OUTFILE 'leak'", 36),
        ("SELECT 1 INTO/**/OUTFILE 'leak'", 36),
        ("SELECT 1 FORMAT dataframe", 73),
        ("SELECT 1 FORMAT `ArrowTable`", 73),
    ],
)
def test_it_changes_nothing(http: httpx.Client, text: str, expected: int) -> None:
    answer = ask(http, text)
    assert code(answer) == expected, answer.text


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM personal.addresses",
        "SELECT * FROM personal.addresses FORMAT Null",
        "SELECT count() FROM personal.addresses",
        "SELECT 1 FROM personal.addresses",
        "SELECT id FROM oms.orders WHERE id IN (SELECT email FROM personal.addresses)",
        "SELECT id FROM oms.orders WHERE id IN personal.addresses",
        "SELECT 'b' IN (personal.addresses)",
        "SELECT exists(SELECT 1 FROM personal.addresses WHERE email LIKE 'b%')",
        "SELECT (SELECT any(email) FROM personal.addresses)",
        "WITH p AS (SELECT * FROM personal.addresses) SELECT * FROM p",
        "SELECT number FROM numbers((SELECT count() FROM personal.addresses))",
        "SELECT * FROM oms.orders CROSS JOIN personal.addresses",
        "SELECT 1 UNION ALL SELECT length(email) FROM personal.addresses",
        "FROM personal.addresses SELECT *",
        "SELECT * FROM view(SELECT * FROM personal.addresses)",
        "SELECT * FROM merge('oms', '.*')",
        "SELECT * FROM mergeTreeIndex(personal, addresses)",
        "SELECT * FROM loop(personal.addresses) LIMIT 1",
        "SELECT * FROM dictionary('personal.names')",
        "SELECT * FROM oms.leak",
        "SELECT dictGet('personal.names', 'v', 'k')",
        "SELECT joinGet('personal.by_key', 'v', 'k')",
        "SELECT hasColumnInTable('personal', 'addresses', 'email')",
        "EXPLAIN SELECT * FROM personal.addresses",
        "EXPLAIN ESTIMATE SELECT * FROM personal.addresses",
        "DESCRIBE personal.addresses",
        "SHOW CREATE TABLE personal.addresses",
        "EXISTS personal.addresses",
        "SELECT * FROM elsewhere.things",
    ],
)
def test_it_reads_oms_and_nothing_else(http: httpx.Client, text: str) -> None:
    answer = ask(http, text)
    assert code(answer) == DENIED, answer.text


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM merge('personal', '.*')",
        "SELECT * FROM viewIfPermitted(SELECT email FROM personal.addresses ELSE null('email String'))",
        "SHOW TABLES FROM personal",
        "SHOW COLUMNS FROM addresses FROM personal",
        "SELECT name FROM system.databases WHERE name = 'personal'",
        "SELECT name FROM system.tables WHERE database = 'personal'",
        "SELECT name FROM system.columns WHERE database = 'personal'",
        "SELECT name FROM system.parts WHERE database = 'personal'",
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'personal'",
    ],
)
def test_of_what_it_may_not_read_it_sees_nothing(http: httpx.Client, text: str) -> None:
    answer = ask(http, text)
    assert code(answer) in (0, 636), answer.text  # 636: no table of the kind
    assert code(answer) or answer.text == ""


def test_parameters_and_the_database_open_no_door(http: httpx.Client) -> None:
    named = {"param_d": "personal", "param_t": "addresses"}
    assert code(ask(http, "SELECT * FROM {d:Identifier}.{t:Identifier}", **named)) == DENIED
    assert code(ask(http, "SELECT * FROM addresses", database="personal")) == DENIED
    assert code(ask(http, "SELECT 1", database="elsewhere")) == DENIED
    assert code(ask(http, "SELECT * FROM personal.addresses", role="writer")) == DENIED


def test_no_system_table_tells_what_others_do(port: int, http: httpx.Client, client: Client) -> None:
    """Not what is running, what failed, nor what was changed; looked for in every table that there is."""
    with pytest.raises(Error):
        client.query(f"SELECT throwIf(1, '{SECRET}')")
    client.command(f"DELETE FROM personal.addresses WHERE email = 'not {SECRET}'")
    tables = client.query(
        "SELECT name FROM system.tables WHERE database = 'system'"
        " AND name NOT IN ('numbers', 'numbers_mt', 'zeros', 'zeros_mt', 'primes', 'unicode', 'licenses')"
    ).result_columns[0]
    assert client.query("SELECT count() FROM system.errors").first_row[0] > 0
    with running(port, client, f"SELECT count(), '{SECRET}' FROM numbers(1000000000000) WHERE sipHash64(number) = 1"):
        for table in tables:
            answer = ask(http, f"SELECT * FROM system.{table}")
            assert SECRET not in answer.text, table
            assert code(answer) in (0, DENIED, 107, 139), answer.text  # 107, 139: what it tells of is not there
        seen = client.query(f"SELECT count() FROM system.processes WHERE query LIKE '%{SECRET}%'").first_row[0]
        assert seen >= 1, "nothing was there to be seen"


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret.txt"
    path.write_text(f"{SECRET}\n")
    return path


@pytest.mark.parametrize(
    "text",
    [
        "SELECT file('{path}')",
        "SELECT `file` ('{path}')",
        "SELECT \"fi\\x6ce\"('{path}')",
        "SELECT * APPLY(file) FROM (SELECT '{path}' AS p)",
        "SELECT COLUMNS('p') APPLY file FROM (SELECT '{path}' AS p)",
        "SELECT * APPLY(x -> file(x)) FROM (SELECT '{path}' AS p)",
        "SELECT arrayMap(file, ['{path}'])",
        "SELECT arrayMap(`file`, ['{path}'])",
        "WITH x -> file(x) AS f SELECT f('{path}')",
        "SELECT * FROM eval('SELECT file(''{path}'')')",
        "SELECT * FROM (SELECT * FROM eval('SELECT 1') SETTINGS allow_experimental_eval_table_function = 1)",
        "SELECT * FROM values('x String', file('{path}'))",
        "SELECT * FROM format(LineAsString, file('{path}'))",
        "SELECT * FROM file('{path}', 'LineAsString')",
        "SELECT * FROM `{path}`",
        "DESCRIBE file('{path}')",
        "SELECT * FROM filesystem('{path}')",
        "SELECT * FROM sqlite('{path}', 'y')",
        "SELECT * FROM executable('cat {path}', 'TSV', 'a String')",
        "SELECT * FROM icebergLocal('{path}')",
        "SELECT * FROM deltaLakeLocal('{path}')",
        "SELECT * FROM python(sql)",
        "SELECT * FROM arrowstream(sql)",
    ],
)
def test_it_reads_no_file_and_nothing_of_the_process(http: httpx.Client, secret_file: Path, text: str) -> None:
    before = set(secret_file.parent.iterdir())
    answer = ask(http, text.format(path=secret_file))
    assert code(answer) == DENIED, answer.text
    assert SECRET not in answer.text
    assert set(secret_file.parent.iterdir()) == before


@pytest.mark.parametrize(
    "source",
    [
        "url('http://{address}/x', 'CSV', 'a String')",
        "s3('http://{address}/bucket/x.csv', 'CSV', 'a String')",
        "gcs('http://{address}/bucket/x.csv', 'CSV', 'a String')",
        "iceberg('http://{address}/bucket/x')",
        "deltaLake('http://{address}/bucket/x')",
        "hudi('http://{address}/bucket/x')",
        "paimon('http://{address}/bucket/x')",
        "azureBlobStorage('http://{address}/account', 'c', 'x', 'a', 'Zm9v', 'CSV', 'auto', 'a String')",
        "hdfs('hdfs://{address}/x', 'CSV', 'a String')",
        "remote('{address}', oms.orders)",
        "remote('{address}', personal.addresses)",
        "mysql('{address}', 'a', 'b', 'c', 'd')",
        "postgresql('{address}', 'a', 'b', 'c', 'd')",
        "mongodb('{address}', 'a', 'b', 'c', 'd', 'x String')",
        "redis('{address}', 'k', 'k String, v String')",
        "jdbc('http://{address}', 'b', 'c')",
        "odbc('DSN={address}', 'b', 'c')",
        "ytsaurus('http://{address}', 'b', 'c', 'x String')",
        "arrowFlight('{address}', 'x')",
        "bigquery('p', 'd', 't', access_token = 'x')",
    ],
)
def test_it_calls_nobody(http: httpx.Client, source: str) -> None:
    """Refused before a connection is made."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        for text in ("SELECT * FROM {}", "DESCRIBE {}", "EXPLAIN QUERY TREE SELECT * FROM {}"):
            answer = ask(http, text.format(source.format(address=address)))
            assert code(answer) == DENIED, answer.text
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()


# Its bounds

BOUNDS = {
    "max_execution_time": "30",
    "max_memory_usage": "1000000000",
    "max_temporary_data_on_disk_size_for_query": "1000000000",
    "max_result_rows": "1000000",
    "max_result_bytes": "1000000000",
    "max_threads": "1",
    "readonly": "1",
}


@pytest.mark.parametrize(("name", "bound"), BOUNDS.items())
def test_a_bound_cannot_be_raised(http: httpx.Client, name: str, bound: str) -> None:
    """By the URL, by SET, or by a SETTINGS clause wherever it stands; 0 would mean none."""
    look = f"SELECT toString(getSetting('{name}'))"
    assert ask(http, look).text == f"{bound}\n"
    for value in ("0", str(int(bound) + 1)):
        assert code(ask(http, "SELECT 1", **{name: value})) in (READONLY, CONSTRAINT), value
        assert code(ask(http, f"SET {name} = {value}")) == READONLY
        assert code(ask(http, f"SELECT 1 SETTINGS {name} = {value}")) == READONLY
        if name.startswith("max_result"):
            continue  # what a subquery finds is no result: below
        for nested in (
            f"SELECT * FROM ({look} SETTINGS {name} = {value})",
            f"SELECT ({look} SETTINGS {name} = {value})",
            f"WITH x AS ({look} SETTINGS {name} = {value}) SELECT * FROM x",
            f"SELECT * FROM view({look} SETTINGS {name} = {value})",
            f"{look} UNION ALL ({look} SETTINGS {name} = {value})",
        ):
            answer = ask(http, nested)
            assert code(answer) == READONLY or set(answer.text.split()) == {bound}, answer.text
    assert code(ask(http, f"{look} SETTINGS {name} = DEFAULT")) == READONLY
    assert ask(http, f"{look} SETTINGS profile = 'default'").text == f"{bound}\n"
    assert ask(http, look, profile="default").text == f"{bound}\n"
    assert ask(http, look, readonly="1").text == f"{bound}\n"


def test_what_an_analyst_may_set(http: httpx.Client) -> None:
    """A narrower bound, and how a result looks; what tools set with every query among it."""
    assert code(ask(http, "SELECT number FROM numbers(11)", max_result_rows="10")) == LIMIT
    broken_off = ask(http, "SELECT number FROM numbers(1000000)", max_result_rows="10", result_overflow_mode="break")
    assert 10 <= broken_off.text.count("\n") < 1_000_000
    assert ask(http, "SELECT 1", async_insert="0").text == "1\n"
    assert ask(http, "SELECT toTimezone(toDateTime(0), 'UTC')", session_timezone="Asia/Tokyo").status_code == 200
    others = {"output_format_schema": "x", "format_schema": "x", "max_block_size": "7", "use_query_cache": "1"}
    for name, value in others.items():
        assert code(ask(http, "SELECT 1", **{name: value})) == READONLY, name
    assert ask(http, "SELECT getSetting('log_comment')", log_comment="x").text.startswith("analyst ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT groupArray(repeat('x', 100)) FROM numbers(100000000)", MEMORY),
        ("SELECT arrayMap(x -> repeat('y', 1000), range(10000000))", MEMORY),
        ("SELECT repeat('x', 1000000) FROM numbers(100000) FORMAT JSON", MEMORY),
        ("SELECT number FROM numbers(1100000)", LIMIT),
        ("SELECT * FROM (SELECT number FROM numbers(1100000) SETTINGS max_result_rows = 0)", LIMIT),
        ("SELECT number FROM numbers(600000) UNION ALL SELECT number FROM numbers(600000)", LIMIT),
    ],
)
def test_a_query_that_wants_too_much_is_refused(http: httpx.Client, text: str, expected: int) -> None:
    assert code(ask(http, text)) == expected


def test_a_query_ends_in_time(http: httpx.Client) -> None:
    for text in (HEAVY, f"SELECT ({HEAVY})"):
        answer = ask(http, text, max_execution_time="1")
        assert code(answer) == 159, answer.text


def test_a_statement_is_not_endless(http: httpx.Client) -> None:
    assert code(ask(http, "SELECT 1 " + " " * (1 << 21))) == 62
    form = {"query": (None, "SELECT 1"), "param_x": (None, "x" * (1 << 21))}
    assert code(http.post("/", files=form)) == 62
    answer = http.post("/", content=b"anything", headers={"Content-Encoding": "zstd"})
    assert code(answer) == READONLY, "a few bytes could unpack to gigabytes"


def test_two_run_at_a_time_some_wait_and_more_are_refused(port: int, client: Client) -> None:
    async def crowd() -> list[int]:
        limits = httpx.Limits(max_connections=None)
        url, auth = f"http://127.0.0.1:{port}/", ("analyst", ANALYST_PASSWORD)
        async with httpx.AsyncClient(limits=limits, auth=auth, timeout=40) as http:
            waiting = [asyncio.create_task(http.post(url, content=HEAVY)) for _ in range(40)]
            refused: list[int] = []
            while len(refused) < 6:
                done, _ = await asyncio.wait(waiting, timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
                refused = [task.result().status_code for task in done]
            await asyncio.to_thread(until_running, client, 2)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            # Who leaves gives the place back, as soon as it is noticed.
            for _ in range(200):
                answer = await http.post(url, content="SELECT 1")
                if answer.status_code != 429:
                    break
                await asyncio.sleep(0.05)
            assert answer.text == "1\n"
        return refused

    assert asyncio.run(crowd()) == [429] * 6


# And everyone else


def test_two_heavy_queries_of_analysts_stand_in_nobodys_way(port: int, http: httpx.Client, client: Client) -> None:
    """Nor do two analysts who do not fetch their results."""
    product = "SELECT sum(cityHash64(n.number, m.number)) FROM numbers(1000000) AS n, numbers(1000000) AS m"
    with leaving(port, HEAVY), leaving(port, product):
        until_running(client, 2)
        for _ in range(20):
            assert httpx.get(f"http://127.0.0.1:{port}/ping").status_code == 200
            found = client.query("SELECT version FROM oms.orders FINAL WHERE id = 'o1'")
            assert found.result_rows == [(1,)]
        assert analysts_running(client) == 2
    until_running(client, 0)
    endless = "SELECT number, repeat('x', 500) FROM numbers(1000000)"
    with leaving(port, endless), leaving(port, endless):
        until_running(client, 2)
        assert client.query("SELECT version FROM oms.orders FINAL WHERE id = 'o1'").result_rows == [(1,)]
    assert ask(http, "SELECT 1").text == "1\n"


def test_who_leaves_before_the_query_has_begun_gives_the_place_back(port: int, http: httpx.Client) -> None:
    for milliseconds in range(30):
        with leaving(port, HEAVY):
            time.sleep(milliseconds / 1000)
    began = time.monotonic()
    assert ask(http, "SELECT 1").text == "1\n"
    assert time.monotonic() - began < ANALYST_SECONDS / 2


def test_an_analyst_who_leaves_ends_no_query_of_others(port: int, client: Client) -> None:
    """Not even under the name of one that is running."""
    with ThreadPoolExecutor(1) as pool:
        query = "SELECT count() FROM (SELECT sleepEachRow(0.5) FROM numbers(4)) SETTINGS max_block_size = 1"
        mine = pool.submit(client.query, query, settings={"query_id": "mine"})
        with leaving(port, HEAVY, query_id="mine"), connect(port) as other:
            until_running(other, 1)
        with connect(port) as other:
            until_running(other, 0)
        assert mine.result().result_rows == [(4,)]


@contextmanager
def running(port: int, client: Client, query: str) -> Iterator[None]:
    """The query runs as default meanwhile."""
    with ThreadPoolExecutor(1) as pool, connect(port) as other:
        asked = pool.submit(other.query, query)
        try:
            yield
        finally:
            client.command("KILL QUERY WHERE query LIKE '%numbers(1000000000000)%' AND query NOT LIKE 'KILL%'")
            assert isinstance(asked.exception(), Error)


@contextmanager
def leaving(port: int, query: str, query_id: str = "") -> Iterator[None]:
    """An analyst who asks, reads nothing, and then closes the connection."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        head = f"POST /?user=analyst&password={ANALYST_PASSWORD}&query_id={query_id} HTTP/1.1\r\nHost: x\r\n"
        connection.sendall(f"{head}Content-Length: {len(query)}\r\n\r\n{query}".encode())
        yield


def analysts_running(client: Client) -> int:
    query = "SELECT count() FROM system.processes WHERE startsWith(Settings['log_comment'], 'analyst ')"
    found: int = client.query(query).first_row[0]
    return found


def until_running(client: Client, number: int) -> None:
    deadline = time.monotonic() + 15
    while (found := analysts_running(client)) != number:
        assert time.monotonic() < deadline, f"{found} queries of analysts run, and not {number}"
        time.sleep(0.05)
