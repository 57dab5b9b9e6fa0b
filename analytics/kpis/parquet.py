"""A KPI's rows as Parquet."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .asked import Asked
from .exports import money, names
from .reading import Row
from .sidecars import Kpi

_TYPES = {
    "text": pa.string(),
    "count": pa.int64(),
    "ratio": pa.float64(),
    "seconds": pa.float64(),
    "points": pa.float64(),
    "number": pa.float64(),
    "money": pa.decimal128(38, 4),  # no currency has more digits
}


class Parquet:
    """Columns as in the CSV; `at` is a time with its zone, money a decimal number."""

    def __init__(self, kpi: Kpi, what: Asked) -> None:
        self._money = money(kpi)
        self._grain = what.grain
        types = {"at": pa.timestamp("s", what.tz), **{name: _TYPES[unit] for name, unit in kpi.columns.items()}}
        self._schema = pa.schema([(name, types.get(name, pa.string())) for name in names(kpi, what)])
        self._written = _Written()
        self._writer = pq.ParquetWriter(pa.PythonFile(self._written, "w"), self._schema)

    def block(self, rows: Sequence[Row]) -> bytes:
        if rows:
            self._writer.write_table(pa.Table.from_pylist([self._typed(row) for row in rows], self._schema))
        return self._written.take()

    def end(self) -> bytes:
        self._writer.close()
        return self._written.take()

    def _typed(self, row: Row) -> dict[str, Any]:
        amounts = {name: Decimal(row[name]["amount"]) for name in self._money}
        at = {"at": datetime.fromisoformat(row["at"])} if self._grain else {}
        return {**row, **amounts, **at}


class _Written(io.RawIOBase):
    """A file of which what was written is taken away again and again."""

    def __init__(self) -> None:
        self._parts = bytearray()
        self._taken = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts += data
        return len(data)

    def tell(self) -> int:
        return self._taken + len(self._parts)

    def take(self) -> bytes:
        part = bytes(self._parts)
        self._taken += len(part)
        self._parts.clear()
        return part
