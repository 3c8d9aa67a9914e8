"""How wrong is the load client's own clock, and how many requests can it make? Run: python benchmarks/client.py

A server in a process of its own streams answers on loopback and writes down, on the same monotonic clock, when each
request had come in and when each chunk was handed to the kernel. Three tables follow: how late the client stamps the
first chunk and every chunk (its first-token error is that plus the server's own delay in picking the request up); the
highest request rate against an instant server; and what a kept connection would change: nothing, so none is kept.

Numbers depend on the machine and on what else it does. No test reads them.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing as mp
import socket
import statistics
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

CLIENT = Path(__file__).resolve().parent.parent / "provisioner" / "evals" / "client.py"
TTFT_S, ITL_S, TOKENS = 0.05, 0.01, 64
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
now = time.monotonic_ns


def chunk(document: dict[str, Any] | None) -> bytes:
    event = b"data: " + (b"[DONE]" if document is None else json.dumps(document).encode()) + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(event), event)


WORD = chunk({"choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}]})
ROLE = chunk({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})
LAST = chunk({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}) + chunk(None) + b"0\r\n\r\n"


class Timed(asyncio.Protocol):
    """Streams TOKENS chunks on schedule; `truth[prompt] = [came in, sent, sent, ...]`."""

    truth: dict[str, list[int]]

    def connection_made(self, transport: Any) -> None:
        self.transport, self.data = transport, b""

    def data_received(self, data: bytes) -> None:
        at = now()
        self.data += data
        head, found, body = self.data.partition(b"\r\n\r\n")
        if found and len(body) >= int(head.lower().partition(b"content-length:")[2].split()[0]):
            self.data = b""
            self.loop = asyncio.get_running_loop()
            self.stamps = [at]
            self.truth[json.loads(body)["messages"][0]["content"]] = self.stamps
            self.close = b"onnection: close" in head
            self.transport.write(HEAD + ROLE)
            self.due = self.loop.time() + TTFT_S
            self.loop.call_at(self.due, self.word)

    def word(self) -> None:
        self.stamps.append(now())
        self.transport.write(WORD)
        if len(self.stamps) <= TOKENS:
            self.due += ITL_S
            self.loop.call_at(self.due, self.word)
        else:
            self.transport.write(LAST)
            if self.close:
                self.transport.close()


def timed_server(pipe: Connection) -> None:
    async def serve() -> None:
        Timed.truth = {}
        server = await asyncio.get_running_loop().create_server(Timed, "127.0.0.1", 0, backlog=1024)
        pipe.send(server.sockets[0].getsockname()[1])
        while not pipe.poll():
            await asyncio.sleep(0.05)
        pipe.send(Timed.truth)

    asyncio.run(serve())


def instant_server(pipe: Connection) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    pipe.send(listener.getsockname()[1])
    whole = HEAD + WORD + LAST
    while True:
        conn, _ = listener.accept()
        conn.recv(65536)
        conn.send(whole)
        conn.close()


def run(port: int, requests: int, concurrency: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    cases = [{"id": f"{i}", "messages": [{"role": "user", "content": f"{concurrency}/{i}"}]} for i in range(requests)]
    doc = {"url": f"http://127.0.0.1:{port}/v1", "model": "m", "concurrency": concurrency, "cases": cases}
    done = subprocess.run([sys.executable, str(CLIENT)], input=json.dumps(doc).encode(), stdout=subprocess.PIPE, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [line for line in lines if "case" in line], lines[-1]["footer"]


def ms(values: list[int]) -> str:
    values = sorted(values)
    return "  ".join(f"{values[min(len(values) - 1, len(values) * p // 100)] / 1e6:7.3f}" for p in (50, 90, 99))


def accuracy() -> None:
    ours, theirs = mp.Pipe()
    server = mp.Process(target=timed_server, args=(theirs,), daemon=True)
    server.start()
    port, runs = ours.recv(), {}
    for width in (1, 16, 64, 256):
        runs[width] = run(port, max(20, width * 4), width)
    ours.send("done")
    truth = ours.recv()
    print(f"{TTFT_S * 1000:.0f} ms to the first token, {ITL_S * 1000:.0f} ms between, {TOKENS} tokens; each cell: ms at p50, p90, p99")
    print(
        "stamp lag = the client's stamp minus the server's stamp before it wrote; pick-up = from send to the server's own stamp of arrival"
    )
    print("streams   first chunk: stamp lag      all chunks: stamp lag       pick-up by the server       connect                   errors")
    for width, (samples, footer) in runs.items():
        first, lag, pick = [], [], []
        for sample in samples:
            came, *sent = truth[f"{width}/{sample['case']}"]
            if sample["error"] is None:
                first.append(sample["first_ns"] - sent[0])
                pick.append(came - sample["sent_ns"])
                lag += [c[0] - s for c, s in zip(sample["chunks"], sent, strict=True)]
        connect = [s["connect_ns"] for s in samples]
        print(f"{width:7}   {ms(first)}   {ms(lag)}   {ms(pick)}   {ms(connect)}   {footer['errors']}")


def rate() -> None:
    ours, theirs = mp.Pipe()
    mp.Process(target=instant_server, args=(theirs,), daemon=True).start()
    port = ours.recv()
    print("\ninstant server, a new connection per request")
    for width in (1, 16, 64):
        samples, footer = run(port, 8000, width)
        span = max(s["done_ns"] for s in samples) - min(s["sent_ns"] for s in samples)
        print(f"{width:7} streams   {len(samples) * 1e9 / span:8.0f} requests/s   {footer['errors']} errors")


def kept(requests: int = 100) -> None:
    """First-token time on a new connection (opened before the clock starts) and on a kept one, in turn."""
    ours, theirs = mp.Pipe()
    mp.Process(target=timed_server, args=(theirs,), daemon=True).start()
    address = ("127.0.0.1", ours.recv())
    figures: dict[str, list[int]] = {"new": [], "kept": []}
    connected: list[int] = []
    old = socket.create_connection(address)
    for n in range(2 * requests):
        which = ("new", "kept")[n % 2]
        began = now()
        conn = socket.create_connection(address) if which == "new" else old
        connected += [now() - began] if which == "new" else []
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        body = json.dumps({"messages": [{"content": f"{n}"}]}).encode()
        sent = now()
        conn.sendall(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        data = b""
        while b" word" not in data:
            data += conn.recv(65536)
        figures[which].append(now() - sent)
        while not data.endswith(b"\r\n0\r\n\r\n"):
            data += conn.recv(65536)
        if which == "new":
            conn.close()
    new, same = (statistics.median(figures[w]) / 1e6 for w in ("new", "kept"))
    connect = statistics.median(connected) / 1e6
    print(f"\nfirst token, median of {requests}: new connection {new:.3f} ms, kept {same:.3f} ms; connect {connect:.3f} ms")


if __name__ == "__main__":
    accuracy()
    rate()
    ITL_S = 0.0005
    kept()
