"""How bodies are compressed on ClickHouse's HTTP interface: by HTTP's encodings, and in ClickHouse's own blocks.

A result is one frame from its first chunk to its last, because many clients read no further than the first frame.
"""

import struct
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from backports import zstd
from clickhouse_cityhash.cityhash import CityHash128  # type: ignore[import-untyped]
from lz4 import block as lz4_block  # type: ignore[import-untyped]
from lz4 import frame as lz4_frame

BLOCKS = "blocks"
"""What `compress=1` in the URL asks for; the JDBC driver's default. It has no name in HTTP."""

_BLOCK_BYTES = 1 << 20
_BLOCK_HEADER = struct.Struct("<BII")
_LZ4_METHOD = 0x82


class Compressor(Protocol):
    """Compresses one body, chunk by chunk."""

    def compress(self, data: bytes) -> bytes:
        """What can be sent after `data`, perhaps nothing yet."""
        ...

    def flush(self) -> bytes:
        """The end of the body."""
        ...


class _Lz4Frame:
    def __init__(self) -> None:
        self._compressor = lz4_frame.LZ4FrameCompressor(block_linked=False)
        self._head: bytes = self._compressor.begin()

    def compress(self, data: bytes) -> bytes:
        head, self._head = self._head, b""
        return head + bytes(self._compressor.compress(data))

    def flush(self) -> bytes:
        head, self._head = self._head, b""
        return head + bytes(self._compressor.flush())


class _Blocks:
    """Each block: a checksum of the rest of it, the method, its size without the checksum, its size unpacked, data."""

    def compress(self, data: bytes) -> bytes:
        return b"".join(_block(data[start : start + _BLOCK_BYTES]) for start in range(0, len(data), _BLOCK_BYTES))

    def flush(self) -> bytes:
        return b""


def _block(data: bytes) -> bytes:
    packed: bytes = lz4_block.compress(data, store_size=False)
    block = _BLOCK_HEADER.pack(_LZ4_METHOD, _BLOCK_HEADER.size + len(packed), len(data)) + packed
    # ClickHouse writes the 128 bits as two numbers, the one that this library returns as the higher first.
    high, low = divmod(CityHash128(block), 1 << 64)
    return struct.pack("<QQ", high, low) + block


HTTP_ENCODINGS = frozenset({"lz4", "zstd", "gzip"})
"""What a result is compressed with when the client accepts it."""

COMPRESSORS: dict[str, Callable[[], Compressor]] = {
    "lz4": _Lz4Frame,
    "zstd": partial(zstd.ZstdCompressor, level=1),
    "gzip": partial(zlib.compressobj, level=1, wbits=31),
    BLOCKS: _Blocks,
}
DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "lz4": lz4_frame.LZ4FrameDecompressor,
    "zstd": zstd.ZstdDecompressor,
    "gzip": partial(zlib.decompressobj, wbits=31),
    "deflate": zlib.decompressobj,
}
DECOMPRESS_ERRORS = (RuntimeError, zlib.error, zstd.ZstdError)
