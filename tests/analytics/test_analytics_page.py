"""Every SQL block of docs/analytics.md on the real engine with all migrations applied, so that the page can't rot."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from analytics.clickhouse import connect, connect_analyst
from analytics.migrate import migrate
from runtime.settings import Settings
from runtime.stack import free_port
from tests.support.processes import clickhouse

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"^```sql\n(.*?)^```$", (ROOT / "docs" / "analytics.md").read_text(), re.DOTALL | re.MULTILINE)
PARAMETERS = {"as_of": "2026-03-02 12:00:00", "day": "2026-03-02", "order_id": "8a161dfc-ed6c-515b-bf78-0ce828212204"}
"""What a reader would give for the queries' parameters."""

_END = re.compile(r";[ ]*(?:--[^\n]*)?(?:\n|$)")
_FILE = re.compile(r"/\* (analytics/queries/\w+\.sql) \*/")
_ACCESS = re.compile(r"(CREATE (USER|SETTINGS PROFILE)|GRANT)\b")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    port, folder = free_port(), tmp_path_factory.mktemp("page")
    with clickhouse(folder, port):
        here = Settings(data_dir=folder, clickhouse_url=f"http://127.0.0.1:{port}")
        with connect(here) as client:
            migrate(client)
        yield here


def statements() -> list[str]:
    """One after the other; a comment that stands for a query's file is replaced by it."""
    found = [text.strip() for block in BLOCKS for text in _END.split(block)]
    return [_FILE.sub(lambda file: (ROOT / file[1]).read_text(), text) for text in found if text]


@pytest.mark.parametrize("text", statements(), ids=lambda text: " ".join(text.split()[:6]))
def test_it_runs(settings: Settings, text: str) -> None:
    names = re.findall(r"\{(\w+):", text)
    if _ACCESS.match(text):
        # The embedded engine keeps its users in a file: it can only say whether it understands the statement.
        with connect(settings) as client:
            assert client.query("SELECT formatQuery({text:String})", parameters={"text": text}).result_rows
            known = set(client.query("SELECT name FROM system.settings").result_columns[0])
        assert set(re.findall(r"^    (\w+)", text, re.MULTILINE)) <= known
    elif text.startswith("TRUNCATE"):
        with connect(settings) as client:
            client.command(text)
    else:
        with connect_analyst(settings) as client:
            client.query(text, parameters={name: PARAMETERS[name] for name in names})
