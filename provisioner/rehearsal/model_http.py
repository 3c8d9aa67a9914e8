"""HTTP/1.1 for the simulated server: one asyncio.Protocol, one request at a time per connection, keep-alive.

Only what an OpenAI client needs: Content-Length and chunked bodies in, whole or chunked answers out, TCP_NODELAY,
limits on what is taken. Every answer carries X-Simulated. Must not know what a model is. Stdlib only.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Protocol

HEADERS = "server: uvicorn\r\nx-simulated: gpulease-rehearsal\r\n"
REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Too Large",
    503: "Service Unavailable",
}
BODY_LIMIT = 16 << 20
CONNECTIONS = 900  # select() takes descriptors below 1024


class Served(Protocol):
    open: int

    def handle(self, reply: Reply, method: str, path: str, headers: dict[str, str], body: bytes) -> None: ...


class Reply:
    """An answer being written to one connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.ended = False
        self.chunked = False

    def whole(self, status: int, body: bytes, kind: str = "application/json") -> None:
        head = f"HTTP/1.1 {status} {REASONS.get(status, 'Error')}\r\n{HEADERS}content-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
        self.connection.write(head.encode() + body)
        self.end()

    def json(self, status: int, body: object) -> None:
        self.whole(status, json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())

    def error(self, status: int, message: str, kind: str = "BadRequestError", param: str | None = None) -> None:
        self.json(status, {"error": {"message": message, "type": kind, "param": param, "code": status}})

    def begin(self, kind: str = "text/event-stream; charset=utf-8") -> None:
        self.chunked = True
        self.connection.write(f"HTTP/1.1 200 OK\r\n{HEADERS}content-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode())

    def events(self, *data: str) -> None:
        """Each event is a chunk of its own; all of them leave in one write."""
        frames = [f"data: {d}\n\n".encode() for d in data]
        self.connection.write(b"".join(b"%x\r\n%s\r\n" % (len(f), f) for f in frames))

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            if self.chunked:
                self.connection.write(b"0\r\n\r\n")
            self.connection.next()


class Connection(asyncio.Protocol):
    def __init__(self, server: Served) -> None:
        self._server = server
        self._buffer = bytearray()
        self._busy = False
        self._close = False
        self.transport: asyncio.Transport | None = None
        self.gone: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._server.open += 1
        if self._server.open > CONNECTIONS:
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.open -= 1
        self.transport = None
        if self.gone is not None:
            self.gone()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._busy:
            self._take()

    def write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def next(self) -> None:
        self._busy, self.gone = False, None
        if self._close and self.transport is not None:
            self.transport.close()
        elif self._buffer:
            asyncio.get_running_loop().call_soon(self._take)

    def _take(self) -> None:
        if self._busy or self.transport is None:
            return
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > 65536:
                self.transport.close()
            return
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        words = first.split(" ")
        start = end + 4
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body, start = _dechunk(self._buffer, start)
            if body is None:
                return
        else:
            length = int(headers.get("content-length", "0")) if headers.get("content-length", "0").isdigit() else 0
            if length > BODY_LIMIT:
                self._busy = self._close = True
                Reply(self).error(413, f"The body is {length} bytes; {BODY_LIMIT} are taken")
                return
            if len(self._buffer) < start + length:
                if headers.get("expect", "").lower() == "100-continue" and len(self._buffer) == start:
                    self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            body, start = bytes(self._buffer[start : start + length]), start + length
        del self._buffer[:start]
        self._busy = True
        self._close = headers.get("connection", "").lower() == "close" or words[-1] == "HTTP/1.0"
        if len(words) != 3:
            self._close = True
            Reply(self).error(400, "Invalid HTTP request received.")
            return
        self._server.handle(Reply(self), words[0], words[1].partition("?")[0], headers, body)


def _dechunk(buffer: bytearray, at: int) -> tuple[bytes | None, int]:
    out = b""
    while True:
        line = buffer.find(b"\r\n", at)
        if line < 0:
            return None, at
        size = int(bytes(buffer[at:line]).split(b";")[0] or b"0", 16)
        if len(buffer) < line + 2 + size + 2:
            return None, at
        out += buffer[line + 2 : line + 2 + size]
        at = line + 2 + size + 2
        if size == 0:
            return out, at
