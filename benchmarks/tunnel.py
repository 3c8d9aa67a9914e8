"""What the tunnel adds: time to first token and gaps between tokens, direct and through `remote/tunnel.py`.

    python benchmarks/tunnel.py [--requests 200] [--streams 1,16,64] [--bare]

Starts a small streaming server (first event after 20 ms, 8 events 10 ms apart) and a real OpenSSH sshd on loopback,
and asks by a plain socket, with one connection per request and with one connection kept. Each event carries the
server's clock, so a figure is lateness on one machine: when the client had the event minus when the server wrote it.
"start" is the whole way from the send of the request to the first event, less the server's 20 ms. Server, tunnel and
client are three processes, as they are in a run. `--bare` shows the same through an sshtunnel without the three measures
of `remote/tunnel.py`. Numbers only: nothing here decides a test.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import platform
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import paramiko
import sshtunnel

from provisioner.remote import tunnel
from tests.remote.sse import streaming
from tests.remote.sshd import SSHD, Sshd, openssh

FIRST_NS, EVENTS = 20_000_000, 8
CONTEXT = multiprocessing.get_context("spawn")
Sample = tuple[int, list[int], list[int]]  # start, lateness of each event, gaps between events


def ask(sock: socket.socket) -> Sample:
    sent = time.monotonic_ns()
    sock.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    data, late, arrived, done = b"", [], [], 0
    while b"0\r\n\r\n" not in data[-16:]:
        piece = sock.recv(1 << 16)
        now = time.monotonic_ns()
        if not piece:
            raise ConnectionError("cut")
        data += piece
        events = data.split(b"data: ")[1:]
        for event in events[done:]:
            if b"\n\n" in event:
                late.append(now - int(event.split(b"\n")[0].split()[1]))
                arrived.append(now)
                done += 1
    return arrived[0] - sent - FIRST_NS, late, [b - a for a, b in itertools.pairwise(arrived)]


def measure(port: int, requests: int, streams: int, keep: bool) -> list[Sample]:
    samples: list[Sample] = []

    def work(count: int) -> None:
        sock = None
        for _ in range(count):
            sock = sock if sock and keep else socket.create_connection(("127.0.0.1", port), 30)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            samples.append(ask(sock))
            if not keep:
                sock.close()

    threads = [threading.Thread(target=work, args=(max(2, requests // streams),)) for _ in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return samples


def measured(port: int, requests: int, streams: int, keep: bool) -> list[Sample]:
    """As `measure`, in a process of its own, after a few requests that do not count."""
    here, there = CONTEXT.Pipe()
    asker = CONTEXT.Process(target=_ask, args=(there, port, requests, streams, keep))
    asker.start()
    there.close()
    try:
        samples: list[Sample] = here.recv()
        return samples
    finally:
        asker.join()


def _ask(there: Connection, port: int, requests: int, streams: int, keep: bool) -> None:
    measure(port, 4 * streams, streams, keep)
    there.send(measure(port, requests, streams, keep))


@contextlib.contextmanager
def served() -> Iterator[int]:
    here, there = CONTEXT.Pipe()
    server = CONTEXT.Process(target=_serve, args=(there,), daemon=True)
    server.start()
    try:
        yield here.recv()
    finally:
        server.terminate()


def _serve(there: Connection) -> None:
    with streaming(first_s=FIRST_NS / 1e9, gap_s=0.01, events=EVENTS) as port:
        there.send(port)
        threading.Event().wait()


def rank(values: list[int], q: float) -> float:
    values = sorted(values)
    return values[min(len(values) - 1, round(q * (len(values) - 1)))] / 1e6


def row(name: str, samples: list[Sample]) -> str:
    start = [s[0] for s in samples]
    late = [x for s in samples for x in s[1]]
    gaps = [abs(x - 10_000_000) for s in samples for x in s[2]]
    figures = (rank(start, 0.5), rank(start, 0.99), rank(late, 0.5), rank(late, 0.99), rank(gaps, 0.5), rank(gaps, 0.99))
    return f"{name:<62}" + "".join(f"{x:>10.2f}" for x in figures) + f"{len(samples):>9}"


def bare(sshd: Sshd, remote_port: int) -> tuple[int, Callable[[], None]]:
    forwarder = sshtunnel.SSHTunnelForwarder(
        ("127.0.0.1", sshd.port),
        ssh_username=sshd.user,
        ssh_pkey=paramiko.PKey.from_path(sshd.client.private),
        allow_agent=False,
        host_pkey_directories=[],
        ssh_config_file=None,
        local_bind_address=("127.0.0.1", 0),
        remote_bind_address=("127.0.0.1", remote_port),
    )
    forwarder.start()
    return forwarder.local_bind_port, lambda: forwarder.stop(force=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--streams", default="1,16")
    parser.add_argument("--bare", action="store_true")
    options = parser.parse_args()
    if SSHD is None:
        raise SystemExit("no sshd on this machine: apt-get install openssh-server")
    print(f"Python {platform.python_version()}, paramiko {paramiko.__version__}, sshtunnel {sshtunnel.__version__}; milliseconds")
    print(f"{'way':<62}{'start p50':>10}{'p99':>10}{'late p50':>10}{'p99':>10}{'gap± p50':>10}{'p99':>10}{'requests':>9}")
    with (
        tempfile.TemporaryDirectory() as folder,
        served() as port,
        openssh(Path(folder)) as sshd,
        tunnel.open(*sshd.args, **sshd.keys, remote_port=port) as tunnelled,
    ):
        ways: list[tuple[str, int]] = [("direct", port), ("tunnel", tunnelled.local_port)]
        stop: Callable[[], None] = lambda: None  # noqa: E731
        if options.bare:
            bare_port, stop = bare(sshd, port)
            ways.append(("sshtunnel as it comes", bare_port))
        try:
            for streams in map(int, options.streams.split(",")):
                for keep in (False, True):
                    for name, to in ways:
                        how = "one connection kept" if keep else "a connection per request"
                        print(row(f"{name}, {streams} streams, {how}", measured(to, options.requests, streams, keep)), flush=True)
        finally:
            stop()


if __name__ == "__main__":
    main()
