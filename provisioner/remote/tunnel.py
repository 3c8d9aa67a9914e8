"""The way from here to the inference server: the only file that knows how the tunnel is made.

It is `sshtunnel`, caged. Left alone it connects to any host key, offers every key it finds, reads the user's SSH
configuration and listens on all interfaces; here the connection is made by `link.py`, which pins the key and offers
one, and the listener is bound to 127.0.0.1. The same facts are given to sshtunnel as well, so that the cage holds
should it ever connect by itself.

Three lines make a time to first token measured through it worth reporting (without them p99 is 45 ms and more): no
Nagle on the SSH socket, none on the local sockets, and one idle session on the connection, because sshd keeps its own
Nagle on until a connection carries a session. Latency is still never measured through the tunnel alone.

A tunnel is alive when an HTTP request through it is answered: flags say so long after the other end is gone.
Must not know which server is behind it, nor which cloud.
"""

from __future__ import annotations

import contextlib
import logging
import re
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import sshtunnel

from provisioner.errors import HostError
from provisioner.remote import keys
from provisioner.remote.link import LOST_NEXT, Link, Route, Sleep, Target, direct, load_key, open_link

BACKLOG = 512  # sshtunnel's listener takes 5; a burst of streams would wait a second for its next SYN, or be reset
CLOSE_S = 5.0


class Tunnel:
    """An open tunnel to one port on the machine's loopback."""

    def __init__(self, forwarder: _Caged, link: Link, session: paramiko.Channel) -> None:
        self._forwarder, self._link, self._session = forwarder, link, session
        self.local_port: int = forwarder.listeners[0].server_address[1]
        self.url = f"http://127.0.0.1:{self.local_port}"

    def status(self, path: str, *, timeout: float = 5.0, sleep: Sleep = time.sleep) -> int | None:
        """The HTTP status that GET `path` gets through the tunnel, or None when no answer comes in time."""
        if not re.fullmatch(r"/[!-~]*", path):
            raise ValueError(f"not a path: {path!r}")
        until = time.monotonic() + timeout
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.local_port}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        line = b""
        try:
            with socket.create_connection(("127.0.0.1", self.local_port), timeout) as sock:
                sock.sendall(request.encode("ascii"))
                while b"\n" not in line and len(line) < 256:
                    # One limit for the whole answer: a server that sends a byte now and then is not alive.
                    while not select.select([sock], [], [], 0.1)[0]:
                        sleep(0)  # a scope that was cancelled raises here
                        if time.monotonic() >= until:
                            return None
                    piece = sock.recv(256)
                    if not piece:
                        break
                    line += piece
        except OSError:
            return None
        match = re.match(rb"HTTP/1\.[01] ([1-5][0-9]{2})[ \r\n]", line)
        return int(match[1]) if match else None

    def alive(self, probe: str = "/health", *, timeout: float = 5.0, sleep: Sleep = time.sleep) -> bool:
        """Whether the health endpoint answers with success through the tunnel, now."""
        status = self.status(probe, timeout=timeout, sleep=sleep)
        return status is not None and 200 <= status < 300

    def close(self) -> None:
        """Stop listening and drop the connection. Bounded, whatever state the other end is in; safe to repeat."""
        for listener in self._forwarder.listeners:
            with contextlib.suppress(OSError):
                listener.socket.shutdown(socket.SHUT_RDWR)  # nobody new from here on, also if the thread below is stuck
        self._link.close()
        # sshtunnel's own stop waits for its server threads without a limit.
        stopping = threading.Thread(target=self._forwarder.stop, kwargs={"force": True}, daemon=True, name="gpulease-tunnel-stop")
        listeners = list(self._forwarder.listeners)
        stopping.start()
        stopping.join(CLOSE_S)
        for listener in listeners:
            with contextlib.suppress(OSError):
                listener.socket.close()


@contextlib.contextmanager
def open(
    address: str,
    port: int,
    user: str,
    *,
    client_key: Path | str | paramiko.PKey,
    host_key: str,
    remote_port: int,
    route: Route = direct,
    timeout: float = 20.0,
    keepalive: float = 5.0,
    sleep: Sleep = time.sleep,
) -> Iterator[Tunnel]:
    """Listen on a free loopback port here and forward it to 127.0.0.1:`remote_port` on the machine."""
    target = Target(address, port, user, client_key, host_key, route)
    link = open_link(target, timeout=timeout, keepalive=keepalive, sleep=sleep)
    try:
        tunnel = _forward(target, link, remote_port, keepalive, timeout)
    except BaseException:
        link.close()
        raise
    try:
        yield tunnel
    finally:
        tunnel.close()


def _forward(target: Target, link: Link, remote_port: int, keepalive: float, timeout: float) -> Tunnel:
    try:
        session = link.transport.open_session(timeout=timeout)
        session.exec_command("exec cat")
        forwarder = _Caged(target, link, remote_port, keepalive)
        forwarder.start()
    except (sshtunnel.BaseSSHTunnelForwarderError, paramiko.SSHException, EOFError, OSError) as e:
        link.check()
        raise HostError(f"no tunnel to {target.name}", why=str(e) or type(e).__name__, next=LOST_NEXT) from e
    for listener in forwarder.listeners:
        # Accepted sockets inherit the option: without it the last hop waits for the client's delayed ACK.
        listener.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.socket.listen(BACKLOG)
    tunnel = Tunnel(forwarder, link, session)
    bound = forwarder.listeners[0].socket.getsockname()[0]
    if bound != "127.0.0.1":
        tunnel.close()
        raise HostError(
            "the tunnel would listen for other machines", why=f"bound to {bound}; needs 127.0.0.1", next="report this: it cannot happen"
        )
    return tunnel


class _Caged(sshtunnel.SSHTunnelForwarder):  # type: ignore[misc]
    """The forwarder on a connection that is already open and proven."""

    daemon_transport = True
    daemon_forward_servers = True

    def __init__(self, target: Target, link: Link, remote_port: int, keepalive: float) -> None:
        self._link = link
        super().__init__(
            (target.address, target.port),
            ssh_username=target.user,
            ssh_host_key=paramiko.PKey.from_type_string(keys.key_type(target.host_key), keys.blob(target.host_key)),
            ssh_pkey=load_key(target),
            ssh_config_file=None,
            allow_agent=False,
            host_pkey_directories=[],
            compression=False,
            set_keepalive=keepalive,
            local_bind_address=("127.0.0.1", 0),
            remote_bind_address=("127.0.0.1", remote_port),
            mute_exceptions=False,
            logger=_silent(),
        )

    @property
    def listeners(self) -> list[Any]:
        return list(self._server_list)

    def _connect_to_gateway(self) -> None:
        # The one thing of its own that is replaced: it would report a wrong host key as "could not establish session".
        self._transport = self._link.transport


def _silent() -> logging.Logger:
    # It logs at ERROR, to stderr, with text from the other side; and it makes a logger of its own if given none.
    logger = logging.getLogger("gpulease.tunnel")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger
