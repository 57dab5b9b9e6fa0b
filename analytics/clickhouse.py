"""ClickHouse clients, made here so that all agree on the address, the settings and the user.

`oms.` and `personal.` are written out in every statement, because a client must be able to connect before the
databases are there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error, OperationalError

from runtime.errors import UserError
from runtime.settings import Settings

ANALYST = "analyst"
"""The user of analysts: reads `oms`, nothing else."""

_OUR_FORMAT = re.compile(r"\s*FORMAT (Native|CSVWithNames|JSONEachRow)(?=\.)")

_SETTINGS = {"async_insert": 0}
"""An insert is answered when its rows are in the table, not when they are in a buffer."""


def connect(settings: Settings, /, **options: Any) -> Client:
    """A client of the views' ClickHouse. `options`: clickhouse_connect's, over ours.

    Raises:
        clickhouse_connect.driver.exceptions.Error: it does not answer, or not to this user.
    """
    return clickhouse_connect.get_client(**_arguments(settings, options))


def connect_analyst(settings: Settings) -> Client:
    """A client that can only read, and not the personal data.

    Raises:
        clickhouse_connect.driver.exceptions.Error: it does not answer, or not to this user.
    """
    password = settings.clickhouse_analyst_password.get_secret_value()
    # Who may only read may not change settings either.
    return connect(settings, username=ANALYST, password=password, settings={}, database=settings.clickhouse_database)


async def connect_async(settings: Settings, /, **options: Any) -> AsyncClient:
    """The same for the event loop."""
    return await clickhouse_connect.get_async_client(**_arguments(settings, options))


def _arguments(settings: Settings, options: dict[str, Any]) -> dict[str, Any]:
    url = urlsplit(settings.clickhouse_url)
    secure = url.scheme == "https"
    return {
        "host": url.hostname,
        "port": url.port or (8443 if secure else 8123),
        "secure": secure,
        "username": settings.clickhouse_user,
        "password": settings.clickhouse_password.get_secret_value(),
        "autogenerate_session_id": False,  # a session takes one query at a time, and a retry would meet its own ghost
        "connect_timeout": 5,
        "send_receive_timeout": 60,
        "settings": _SETTINGS,
        **options,
    }


@contextmanager
def opened(settings: Settings, connecting: Callable[[Settings], Client]) -> Iterator[Client]:
    """A client for the time of a command; what goes wrong is a sentence for a person.

    Raises:
        UserError: ClickHouse does not answer, or refuses a statement; the text is its own.
    """
    try:
        client = connecting(settings)
        try:
            yield client
        finally:
            client.close()
    except OperationalError as error:
        raise UserError(
            f"ClickHouse does not answer at {settings.clickhouse_url}: start the stack with `oms up`."
        ) from error
    except Error as error:
        raise UserError(_sentence(str(error))) from error


def _sentence(text: str) -> str:
    """ClickHouse's own words, without the client's before them and the parser's list of what else could be."""
    own = _OUR_FORMAT.sub("", text)
    _, _, own = own.partition("DB::Exception: ")
    own = re.sub(r"Expected one of:.*(?=\([A-Z_]+\) \(version)", "", own or text, flags=re.DOTALL)
    return " ".join(re.sub(r"\(version .*", "", own, flags=re.DOTALL).split())
