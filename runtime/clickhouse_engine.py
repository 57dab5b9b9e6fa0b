"""The ClickHouse engine in this process (chDB): its configuration, its two users, and one connection per statement.

A chDB connection is a session of the one engine: cheap (0.2 ms), and statements on different connections run side by
side. A fresh one per statement means that no setting, role or database leaks from one request into the next.
"""

import fcntl
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from chdb.state.sqlitelike import Connection

from runtime import clickhouse_sql as sql
from runtime.clickhouse_sql import ClickHouseError, InlineInsert
from runtime.errors import UserError

User = Literal["default", "analyst"]

# chDB has one user, so our two are roles of it; every statement of an analyst runs under its role alone, which may read
# `oms` and what the engine tells of itself. The row policies keep what others are running, which may name customers,
# out of the analyst's sight. The profile says how far an analyst may lower a bound (0 would mean none).
_PRIVATE_SYSTEM_TABLES = ("processes", "errors", "asynchronous_inserts", "query_cache", "stack_trace")
_USERS_XML = """\
<clickhouse>
  <profiles><default/><analyst><constraints>{constraints}</constraints></analyst></profiles>
  <quotas><default/></quotas>
  <roles>
    <writer><grants><query>GRANT ALL ON *.* WITH GRANT OPTION</query></grants></writer>
    <analyst><grants>
      <query>GRANT SHOW DATABASES ON default.*</query>
      <query>GRANT SHOW, SELECT ON oms.*</query>
      <query>GRANT SHOW, SELECT ON system.*</query>
      <query>GRANT SHOW, SELECT ON information_schema.*</query>
      <query>GRANT SHOW, SELECT ON INFORMATION_SCHEMA.*</query>
    </grants></analyst>
  </roles>
  <users><default>
    <password/>
    <networks><ip>::/0</ip></networks>
    <profile>default</profile>
    <quota>default</quota>
    <grants><query>GRANT writer, analyst</query></grants>
    <databases><system>{policies}</system></databases>
  </default></users>
</clickhouse>
"""
_CONSTRAINT = "<{name}><min>1</min><max>{limit}</max></{name}>"
_POLICY = "<{table}><filter>has(currentRoles(), 'writer')</filter></{table}>"
_CONFIG_XML = """\
<clickhouse>
  <users_config>{users}</users_config>
  <timezone>UTC</timezone>
  <mark_cache_size>134217728</mark_cache_size>
  <max_server_memory_usage_to_ram_ratio>0.5</max_server_memory_usage_to_ram_ratio>
</clickhouse>
"""
ANALYST_SECONDS = 30
"""How long an analyst's query may run, and its result may take to be fetched."""
ANALYST_LIMITS = {
    "max_execution_time": str(ANALYST_SECONDS),
    "max_memory_usage": "1000000000",
    "max_temporary_data_on_disk_size_for_query": "1000000000",
    "max_result_rows": "1000000",
    "max_result_bytes": "1000000000",
    "result_overflow_mode": "throw",
    "max_threads": "1",
    # Where the process may not (without CAP_SYS_NICE) the engine does without.
    "os_threads_nice_value_query": "19",
}
_ANALYST_MAY_LOWER = ("max_execution_time", "max_result_rows")
# What changes how a result looks or is read, and nothing that it costs.
_ANALYST_MAY_SET = frozenset(
    {
        *_ANALYST_MAY_LOWER,
        "async_insert",  # the JDBC driver says it with every query
        "date_time_output_format",
        "final",
        "format_csv_delimiter",
        "join_use_nulls",
        "output_format_json_quote_64bit_integers",
        "result_overflow_mode",
        "session_timezone",
    }
)

_SETTING_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
# A block of these is the same bytes alone as in the middle of a stream; others have a header or a footer.
_STREAMED_FORMATS = frozenset({"Native", "RowBinary", "TabSeparated", "TSV", "CSV", "JSONEachRow"})
_BUFFERED_BYTES = 1 << 20
# To chDB's Python wrapper these mean objects of this process.
_PYTHON_FORMATS = frozenset({"arrowtable", "dataframe", "datastore"})


class EmbeddedClickHouseError(UserError):
    """The engine can't be started; the message is one sentence for a person."""


@dataclass(frozen=True)
class Query:
    """A statement and the session it runs in. Parameter values are in TSV's escapes, as HTTP carries them."""

    sql: str
    user: User = "default"
    query_id: str = ""
    database: str | None = None
    format: str = "TabSeparated"
    settings: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    read_only: bool = False


class Rest:
    """The chunks of a result that are still to come. To be closed, which ends the query if it is still running."""

    def __init__(self, stream: Iterator[Any], cleanup: ExitStack) -> None:
        self._stream = stream
        self._cleanup = cleanup

    def __iter__(self) -> "Rest":
        return self

    def __next__(self) -> bytes:
        try:
            chunk: bytes = next(self._stream).bytes()
        except RuntimeError as error:
            raise ClickHouseError.from_engine(str(error)) from error
        return chunk

    def close(self) -> None:
        self._cleanup.close()


@dataclass
class Answer:
    """The result's bytes; when it is too large to buffer, `rest` yields the remaining ones and must be closed."""

    body: bytes
    format: str | None
    summary: dict[str, str]
    rest: Rest | None = None


class Engine:
    """The open engine. Thread-safe; every method blocks until the statement is done."""

    def __init__(self, data_dir: Path) -> None:
        """Open `data_dir/clickhouse`, made if need be.

        Raises:
            EmbeddedClickHouseError: another process has it open.
        """
        data_dir = data_dir.absolute()
        data_dir.mkdir(parents=True, exist_ok=True)
        self._lock = (data_dir / "clickhouse.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise EmbeddedClickHouseError(f"Another process has the ClickHouse data in {data_dir} open.") from error
        self._path = str(data_dir / "clickhouse")
        # The engine lives as long as one connection is open.
        self._keeper = Connection(f"{self._path}?config-file={_write_config(data_dir)}")
        described = self._keeper.query("SELECT version(), timezone()", "TSV").bytes().decode().split()
        self.version, self.timezone = described

    def cancel_all(self) -> None:
        """Cancel every running statement."""
        self._keeper.query("KILL QUERY WHERE query_id != queryID()")

    def close(self) -> None:
        """Shut the engine down; no statement may be running."""
        self._keeper.close()
        self._lock.close()

    def run(self, query: Query, *, stream: bool = False) -> Answer:
        """Run one statement to its end, or, if `stream`, until its result outgrows a buffer of 1 MiB.

        Raises:
            ClickHouseError: the engine's error, or a refusal in its words.
        """
        with ExitStack() as cleanup:
            connection = cleanup.enter_context(closing(self._connect(query)))
            text = _permitted(connection, query)
            result_format = sql.trailing_format(text) or query.format
            if result_format.lower() in _PYTHON_FORMATS:
                raise ClickHouseError.of(sql.UNKNOWN_FORMAT, f"Unknown format {result_format}.")
            try:
                if stream and result_format in _STREAMED_FORMATS and sql.is_select(text):
                    return _stream(connection, text, result_format, query, cleanup)
                result = connection.query(text, result_format, params=dict(query.parameters))
            except RuntimeError as error:
                raise ClickHouseError.from_engine(str(error)) from error
            return Answer(result.bytes(), result_format if sql.is_read(text) else None, _summary(result))

    def insert(self, query: Query, insert: InlineInsert, data: Iterable[bytes]) -> Answer:
        """Run an INSERT, fed with `data` in its format, in constant memory.

        It returns once the rows are written. An exception out of `data` cancels it; blocks of a million rows that
        were complete by then stay, as on a server.

        Raises:
            ClickHouseError: the engine's error, or a refusal in its words.
        """
        if query.user == "analyst":
            raise ClickHouseError.of(sql.READONLY, "analyst: Cannot execute query in readonly mode.")
        with closing(self._connect(query)) as connection:
            try:
                for name, value in query.parameters.items():
                    connection.query(f"SET param_{name} = {sql.quote_string(value)}")
                inserter = connection.send_insert(insert.head, insert.format)
            except RuntimeError as error:
                raise ClickHouseError.from_engine(str(error)) from error
            with inserter:
                for chunk in data:
                    _append(inserter, chunk)
                try:
                    done = inserter.finish()
                except RuntimeError as error:
                    raise ClickHouseError.from_engine(str(error)) from error
        written = {"written_rows": str(done.rows_written), "written_bytes": str(done.bytes_written)}
        read = {"read_rows": str(done.rows_written), "read_bytes": str(done.bytes_written)}
        return Answer(b"", None, {**read, **written, "elapsed_ns": str(int(done.elapsed * 1e9))})

    def kill(self, query: Query) -> None:
        """Cancel a running statement; nothing happens if there is none."""
        with closing(Connection(self._path)) as connection:
            connection.query(f"KILL QUERY WHERE Settings['log_comment'] = {sql.quote_string(_label(query))}")

    def _connect(self, query: Query) -> Connection:
        """A connection with the query's user, settings and database.

        Raises:
            ClickHouseError: no such setting or database, or one that the user may not have.
        """
        connection = Connection(self._path)
        try:
            connection.query("; ".join(_session(query)))
        except RuntimeError as error:
            connection.close()
            raise ClickHouseError.from_engine(str(error)) from error
        return connection


def _session(query: Query) -> list[str]:
    """What a connection is told before the query's own statement.

    Raises:
        ClickHouseError: a setting that can't be one.
    """
    settings = {**query.settings, "log_comment": _label(query)}
    database = [f"USE {sql.quote_name(query.database)}"] if query.database else []
    if query.user == "analyst":
        free = {name: settings.pop(name) for name in [*settings] if name in _ANALYST_MAY_SET or name == "log_comment"}
        bounded = ["SET ROLE analyst", "SET profile = 'analyst'", _set(ANALYST_LIMITS)]
        # From `readonly` on the engine refuses whatever else is asked for.
        return [*bounded, *database, _set(free), "SET readonly = 1", *([_set(settings)] if settings else [])]
    readonly = settings.pop("readonly", "2" if query.read_only else None)
    return [*database, _set(settings), *([_set({"readonly": readonly})] if readonly is not None else [])]


def _label(query: Query) -> str:
    """What a running statement is found by. No analyst can make it that of somebody else's."""
    return f"{query.user} {query.query_id}"


def _permitted(connection: Connection, query: Query) -> str:
    """The statement to run: for an analyst the one that was checked, as the engine's parser printed it.

    Raises:
        ClickHouseError: several statements, a refused one, or a syntax error.
    """
    if query.user == "default" and not sql.needs_parsing(query.sql):
        return query.sql
    try:
        printed = connection.query(
            "SELECT formatQuerySingleLine({q:String})", "TSVRaw", params={"q": sql.escape_parameter(query.sql)}
        )
    except RuntimeError as error:
        raise ClickHouseError.from_engine(str(error)) from error
    canonical: str = printed.bytes().decode()
    if query.user == "default":
        sql.refuse_files(canonical)
        return query.sql
    sql.refuse_unless_read(canonical)
    return canonical


def _stream(connection: Connection, text: str, result_format: str, query: Query, cleanup: ExitStack) -> Answer:
    """The beginning of a result; `cleanup` closes the connection and moves into the answer if there is more."""
    stream = connection.send_query(text, result_format, params=dict(query.parameters))
    cleanup.callback(stream.close)
    body, rows, elapsed = bytearray(), 0, 0.0
    chunks = iter(stream)
    for chunk in chunks:
        body += chunk.bytes()
        rows += chunk.rows_read()
        elapsed = chunk.elapsed()
        if len(body) >= _BUFFERED_BYTES:
            return Answer(bytes(body), result_format, {}, rest=Rest(chunks, cleanup.pop_all()))
    summary = {"result_rows": str(rows), "result_bytes": str(len(body)), "elapsed_ns": str(int(elapsed * 1e9))}
    return Answer(bytes(body), result_format, summary)


def _append(inserter: Any, chunk: bytes) -> None:
    try:
        inserter.append(chunk)
    except RuntimeError as error:
        raise ClickHouseError.from_engine(str(error)) from error


def _summary(result: Any) -> dict[str, str]:
    return {
        "read_rows": str(result.storage_rows_read()),
        "read_bytes": str(result.storage_bytes_read()),
        "written_rows": str(result.rows_written()),
        "written_bytes": str(result.bytes_written()),
        "result_rows": str(result.rows_read()),
        "result_bytes": str(result.size()),
        "elapsed_ns": str(int(result.elapsed() * 1e9)),
    }


def _set(settings: Mapping[str, str]) -> str:
    for name in settings:
        if not _SETTING_NAME.fullmatch(name):
            raise ClickHouseError.of(sql.UNKNOWN_SETTING, f"Unknown setting {sql.quote_string(name)}.")
    return "SET " + ", ".join(f"{name} = {sql.quote_string(value)}" for name, value in settings.items())


def _write_config(data_dir: Path) -> Path:
    folder = data_dir / "clickhouse-config"
    folder.mkdir(exist_ok=True)
    users, config = folder / "users.xml", folder / "config.xml"
    policies = "".join(_POLICY.format(table=table) for table in _PRIVATE_SYSTEM_TABLES)
    constraints = "".join(_CONSTRAINT.format(name=name, limit=ANALYST_LIMITS[name]) for name in _ANALYST_MAY_LOWER)
    users.write_text(_USERS_XML.format(policies=policies, constraints=constraints))
    config.write_text(_CONFIG_XML.format(users=users))
    os.chmod(folder, 0o700)
    return config
