"""A real HTTP server on loopback, one thread per connection, that does exactly what a test tells it to do.

`Server(behave)` calls `behave(conn, request)` for each connection, with the request parsed enough to be asserted on.
Whatever the behaviour sends is sent byte for byte; when it returns, the connection is closed.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.listening import Listening

Behaviour = Callable[[socket.socket, "Request"], None]


@dataclass
class Request:
    head: str
    body: dict[str, Any]

    @property
    def prompt(self) -> str:
        return str(self.body["messages"][-1]["content"])


class Server:
    def __init__(self, behave: Behaviour) -> None:
        self.behave, self.requests, self.open = behave, list[Request](), set[socket.socket]()
        self.listener = Listening(self.take)
        self.url = f"http://127.0.0.1:{self.listener.port}/v1"

    def take(self, conn: socket.socket) -> None:
        self.open.add(conn)
        threading.Thread(target=self.serve, args=(conn,), daemon=True).start()

    def serve(self, conn: socket.socket) -> None:
        with contextlib.suppress(OSError), conn:
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            data = b""
            while b"\r\n\r\n" not in data:
                part = conn.recv(65536)
                if not part:
                    return
                data += part
            head, _, rest = data.partition(b"\r\n\r\n")
            length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
            while len(rest) < length:
                rest += conn.recv(65536)
            request = Request(head.decode(), json.loads(rest))
            self.requests.append(request)
            self.behave(conn, request)
        self.open.discard(conn)

    def close(self) -> None:
        self.listener.close()
        for conn in list(self.open):
            with contextlib.suppress(OSError):
                conn.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def serving(behave: Behaviour) -> Iterator[Server]:
    server = Server(behave)
    try:
        yield server
    finally:
        server.close()


def event(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return b"data: " + json.dumps({"id": "x", "object": "chat.completion.chunk", "choices": choices, **more}).encode() + b"\n\n"


def answer(*words: str, finish: str = "stop") -> bytes:
    """A whole event stream: role, one event per word, finish, usage, [DONE]."""
    usage = {"prompt_tokens": 7, "completion_tokens": len(words)}
    parts = [event({"role": "assistant", "content": ""}), *[event({"content": word}) for word in words]]
    return b"".join([*parts, event({}, finish), event(usage=usage), b"data: [DONE]\n\n"])


SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"


def chunked(body: bytes, size: int = 1 << 20, extension: bytes = b"") -> bytes:
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x%s\r\n%s\r\n" % (len(p), extension, p) for p in parts) + b"0\r\n\r\n"


def stream(body: bytes) -> bytes:
    return SSE + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body)


def says(*words: str) -> Behaviour:
    """The behaviour of a good server."""
    return lambda conn, request: conn.sendall(stream(answer(*words)))


def sends(raw: bytes) -> Behaviour:
    return lambda conn, request: conn.sendall(raw)


def reset(conn: socket.socket) -> None:
    """Close so that the other side sees a reset, not an end."""
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    conn.close()
