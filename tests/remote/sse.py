"""A small streaming server like an inference server's: /health answers 200, anything else streams numbered events."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    first_s = 0.0
    gap_s = 0.0
    events = 5

    def do_GET(self) -> None:
        if self.path == "/health":
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200 if self.path != "/broken" else 503)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        time.sleep(self.first_s)
        for n in range(self.events):
            if n:
                time.sleep(self.gap_s)
            # The server's clock rides along: on one machine, lateness is a plain difference.
            event = f"data: {n} {time.monotonic_ns()}\n\n".encode()
            self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def streaming(*, first_s: float = 0.0, gap_s: float = 0.0, events: int = 5) -> Iterator[int]:
    handler = type("Handler", (_Handler,), {"first_s": first_s, "gap_s": gap_s, "events": events})
    server = _Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
