"""Embedded ClickHouse: the real engine (chDB) in one process that speaks ClickHouse's own HTTP interface.

chDB allows one process per data folder. This is that process; sinks, query API, analysts' tools and tests reach it
the way they reach a server. Everything it keeps is under `data_dir/clickhouse`.

    python -m runtime.embedded_clickhouse --data-dir .oms --port 8123
"""

import argparse
import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType

import uvicorn

from runtime.clickhouse_engine import EmbeddedClickHouseError, Engine
from runtime.clickhouse_http import HttpInterface
from runtime.settings import Settings

# Pooled connections of the clients outlive any pause between two of their requests.
_KEEP_ALIVE_SECONDS = 600
_SHUTDOWN_SECONDS = 3


def serve(data_dir: Path, host: str, port: int, password: str, analyst_password: str = "") -> None:
    """Serve `data_dir/clickhouse` on `host:port` until SIGTERM or SIGINT; blocks. For the main thread of a process.

    The passwords are those of the users `default` and `analyst`, the read-only one, who has any if it is empty.

    Raises:
        EmbeddedClickHouseError: the port is taken, or another process has the data open.
    """
    try:
        listener = socket.create_server((host, port), backlog=1024)
    except OSError as error:
        raise EmbeddedClickHouseError(f"Port {port} on {host} is in use.") from error
    with listener:
        engine = Engine(data_dir)
        interface = HttpInterface(engine, password, analyst_password)
        config = uvicorn.Config(
            interface,
            lifespan="off",
            interface="asgi3",
            access_log=False,
            server_header=False,
            log_level="warning",
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
        # Uvicorn raises the signal again once it has stopped; the engine is yet to be closed then.
        signal.signal(signal.SIGTERM, _ignore)
        signal.signal(signal.SIGINT, _ignore)
        try:
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            engine.cancel_all()
            interface.close()
            engine.close()


def _ignore(_signal: int, _frame: FrameType | None) -> None:
    pass


def main() -> int:
    """Serve; an expected failure is one line on stderr and exit code 1.

    The passwords are `OMS_CLICKHOUSE_PASSWORD` and `OMS_CLICKHOUSE_ANALYST_PASSWORD`.
    """
    parser = argparse.ArgumentParser(prog="python -m runtime.embedded_clickhouse")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    settings = Settings()
    passwords = (
        settings.clickhouse_password.get_secret_value(),
        settings.clickhouse_analyst_password.get_secret_value(),
    )
    try:
        serve(arguments.data_dir, arguments.host, arguments.port, *passwords)
    except EmbeddedClickHouseError as error:
        print(error, file=sys.stderr)
        return 1
    # The data is closed. Unloading the engine's 550 MB library takes another 1.2 s, for nothing.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
