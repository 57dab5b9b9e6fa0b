"""A proxy before ClickHouse that can do what networks do to an insert: it is applied, and the answer is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
from lz4 import frame as lz4

HOPS = {"connection", "transfer-encoding", "content-length", "keep-alive", "host"}


class Forgetful(ThreadingHTTPServer):
    """`to_forget`: so many answers to inserts are still to be lost; forgotten: so many have been."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.client = httpx.Client(base_url=target, timeout=60)
        self.lock = threading.Lock()
        self.to_forget = self.forgotten = 0

    def forgets(self, insert: bool) -> bool:
        with self.lock:
            if not insert or not self.to_forget:
                return False
            self.to_forget -= 1
            self.forgotten += 1
            return True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Forgetful)
        body = self._body()
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOPS}
        answer = server.client.send(
            server.client.build_request(self.command, self.path, headers=headers, content=body), stream=True
        )
        content = b"".join(answer.iter_raw())
        answer.close()
        said = lz4.decompress(body) if self.headers.get("Content-Encoding") == "lz4" else body
        if server.forgets(said.lstrip().startswith(b"INSERT")):
            assert answer.status_code == 200, content
            self.close_connection = True
            self.connection.close()
            return
        self.send_response(answer.status_code)
        for name, value in answer.headers.items():
            if name.lower() not in HOPS:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def forgetful(target: str) -> Iterator[Forgetful]:
    with Forgetful(target) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
            server.client.close()
