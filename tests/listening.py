"""A socket that listens, and the thread that waits for whoever calls."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable


class Listening:
    """On a free port of 127.0.0.1; each connection is handed to `take`, which must not wait, until it is closed.

    The thread is over before the socket is closed. One that is only about to wait for the next caller would wait at the number
    that was closed, which the next socket of this process has by then, and take a connection that is meant for that one.
    """

    def __init__(self, take: Callable[[socket.socket], None], *, backlog: int = 512) -> None:
        self._take, self._over = take, False
        self._sock = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self.port: int = self._sock.getsockname()[1]
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Nobody is let in any more. To be called again does nothing."""
        self._over = True
        if self._thread.is_alive():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=60):
                self._thread.join()
        self._sock.close()

    def _wait(self) -> None:
        while True:
            sock, _ = self._sock.accept()
            if self._over:
                sock.close()
                return
            self._take(sock)
