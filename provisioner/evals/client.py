"""The load client: one file, standard library only, Python 3.8 or newer. It is sent to rented machines as it is.

It reads one JSON document on stdin, sends the cases to an OpenAI-compatible server and writes one JSON line per
request on stdout, in the order in which they end. It never computes a statistic: every number in a report is a
function of these lines.

Three ideas. (1) The time is taken in `data_received` before anything else, and what arrived in one turn of the event
loop is parsed only in the next, so the reading of one stream never delays the stamp of another. (2) The answer is
hostile: head, line, bytes, text, events, tokens and wall time are all bounded, and whatever comes is a sample with an
error of the form "code: words", never a crash. (3) Every request has its own connection, opened before its clock
starts and timed apart: measured, a kept connection changes a first-token time by less than the client's own error
(see `benchmarks/client.py`), and a new one cannot inherit another request's fault.

It must not know about leases, scores or the machine it runs on. No import of ours, no syntax newer than 3.8.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import queue
import random
import resource
import select
import signal
import socket
import stat
import sys
import threading
import time
from typing import Any
from urllib.parse import urlsplit

VERSION = "1"
LIMITS = {
    "bytes": 8 << 20,  # of one answer, head included
    "head": 64 << 10,
    "line": 1 << 20,  # of the event stream
    "events": 65536,
    "tokens": 65536,
    "text": 256 << 10,  # characters
    "body": 4096,  # kept of an answer that is not an event stream, for its error message
    "inflight": 256,  # open loop only; a request that waits for its turn is still counted from its intended time
}
LEAD_NS = 50_000_000  # open loop: the connection is opened this long before the request is due
SPIN_NS = 2_000_000  # epoll waits whole milliseconds; the last two are spent asking the clock
LINGER_S = 1.0  # how long a server may take to close after its last event, before we do
now = time.monotonic_ns


class Bad(Exception):
    """The answer is not what was asked for; the text is the sample's error, "code: words"."""


def words(raw: Any, limit: int = 160) -> str:
    """Hostile text as at most `limit` printable characters of one line."""
    text = raw.decode("utf-8", "replace") if isinstance(raw, (bytes, bytearray)) else str(raw)
    text = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * limit]).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def whole(digits: str) -> int:
    """An integer of JSON; one too long to mean anything here is -1, which is read as absent (parsing it takes seconds)."""
    return int(digits) if len(digits) < 20 else -1


decode = json.JSONDecoder(parse_int=whole).decode


class Answer:
    """One HTTP answer, parsed as it arrives: `feed` bytes, `close` at the end. It ends by itself: see `over`.

    The same bytes give the same result however they were cut. `step` holds a plain function, not a bound method:
    the garbage collector is off during a run, so nothing here may refer to itself.
    """

    def __init__(self, limits: dict[str, int]) -> None:
        self.limits = limits
        self.step: Any = Answer._status
        self.buf = bytearray()  # not yet framed
        self.at = self.seen = self.heads = self.left = self.events = 0
        self.headers: dict[bytes, bytes] = {}
        self.streaming = self.skip_lf = False
        self.body = bytearray()  # of what is not an event stream
        self.tail = bytearray()  # the event stream's unfinished line
        self.data: list[bytes] = []  # the unfinished event's data lines
        # What becomes of it:
        self.over = self.generated = False
        self.error: str | None = None
        self.status: int | None = None
        self.finish: str | None = None
        self.tokens_in: int | None = None
        self.tokens_out: int | None = None
        self.text: list[str] = []
        self.chars = 0
        self.chunks: list[list[int]] = []

    def feed(self, at: int, data: bytes) -> None:
        if self.over:
            return
        self.at = at
        cut = self.seen + len(data) > self.limits["bytes"]
        if cut:
            data = data[: self.limits["bytes"] - self.seen]
        self.seen += len(data)
        self.buf += data
        try:
            while not self.over and self.step(self):
                pass
            if cut and not self.over:
                raise Bad(f"too-long: more than {self.limits['bytes']} bytes")
        except Bad as bad:
            self.end(str(bad))

    def close(self, at: int, fault: str = "") -> None:
        """The connection is gone: closed by the server, or broken by `fault`."""
        if self.over:
            return
        self.at = at
        try:
            if not self.seen:
                raise Bad(f"reset: {fault} before the first byte" if fault else "empty: closed without a single byte")
            if self.step is Answer._rest and not fault:
                self._ended()
            elif self.status is not None and self.status != 200:
                raise self._not_ok()
            else:
                raise Bad(
                    f"reset: {fault} after {self.seen} bytes" if fault else f"truncated: closed after {self.seen} bytes, inside the answer"
                )
        except Bad as bad:
            self.end(str(bad))

    def end(self, error: str | None) -> None:
        if not self.over:
            self.error, self.over = error, True

    # Each step below takes from `buf` what it can and says whether the next step may try.

    def _line(self, limit: int) -> bytes | None:
        end = self.buf.find(b"\n", 0, limit + 1)
        if end < 0:
            if len(self.buf) > limit:
                raise Bad(f"bad-http: a line of more than {limit} bytes")
            return None
        line = bytes(self.buf[:end])
        del self.buf[: end + 1]
        return line[:-1] if line.endswith(b"\r") else line

    def _head_line(self) -> bytes | None:
        """A line of the head or the trailer; together they are bounded."""
        end = self.buf.find(b"\n")
        if self.heads + (len(self.buf) if end < 0 else end) > self.limits["head"]:
            raise Bad(f"bad-http: a head of more than {self.limits['head']} bytes")
        self.heads += end + 1  # find says -1 when there is none
        return self._line(self.limits["head"])

    def _status(self) -> bool:
        if not b"HTTP/1.".startswith(bytes(self.buf[:7])):
            raise Bad("bad-http: the answer does not start with HTTP/1.")
        line = self._head_line()
        if line is None:
            return False
        parts = line.split(None, 2)
        if len(parts) < 2 or len(parts[1]) != 3 or not parts[1].isdigit() or parts[0] not in (b"HTTP/1.0", b"HTTP/1.1"):
            raise Bad(f"bad-http: status line {words(line, 60)}")
        self.status, self.headers = int(parts[1]), {}
        self.step = Answer._header
        return True

    def _header(self) -> bool:
        line = self._head_line()
        if line is None:
            return False
        if line:
            name, colon, value = line.partition(b":")
            if not colon or not name or name != name.strip():
                raise Bad(f"bad-http: header line {words(line, 60)}")
            key, value = name.lower(), value.strip()
            if key == b"content-length" and self.headers.get(key, value) != value:
                raise Bad("bad-http: two lengths for one answer")
            self.headers[key] = value
            return True
        if self.status is not None and 100 <= self.status < 200 and self.status != 101:
            self.step = Answer._status  # an interim answer: the real one follows
            return True
        return self._framing()

    def _framing(self) -> bool:
        head = self.headers
        mime = head.get(b"content-type", b"").partition(b";")[0].strip().lower()
        self.streaming = self.status == 200 and mime == b"text/event-stream"
        if self.streaming and head.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Bad(f"not-sse: compressed as {words(head[b'content-encoding'], 40)}, which was not asked for")
        coding, length = head.get(b"transfer-encoding", b"").lower(), head.get(b"content-length")
        if coding:
            if coding != b"chunked":
                raise Bad(f"bad-http: transfer-encoding {words(coding, 40)}")
            self.step = Answer._size
        elif self.status in (101, 204, 304):
            raise self._not_ok()
        elif length is not None:
            if not length.isdigit() or len(length) > 15:
                raise Bad(f"bad-http: content-length {words(length, 40)}")
            self.left = int(length)
            self.step = Answer._sized
        else:
            self.step = Answer._rest
        return True

    def _size(self) -> bool:
        line = self._line(4096)
        if line is None:
            return False
        size = line.partition(b";")[0].strip()
        if not size or len(size) > 15 or size.strip(b"0123456789abcdefABCDEF"):
            raise Bad(f"bad-http: chunk size {words(line, 40)}")
        self.left = int(size, 16)
        self.step = Answer._chunk if self.left else Answer._trailer
        return True

    def _chunk(self) -> bool:
        if self._some():
            return False
        self.step = Answer._chunk_end
        return True

    def _chunk_end(self) -> bool:
        line = self._line(64)
        if line is None:
            return False
        if line:
            raise Bad("bad-http: a chunk longer than it said")
        self.step = Answer._size
        return True

    def _trailer(self) -> bool:
        line = self._head_line()
        if line is None:
            return False
        if not line:
            self._ended()
        return True

    def _sized(self) -> bool:
        if not self._some():
            self._ended()
        return False

    def _rest(self) -> bool:
        self.left = len(self.buf)
        self._some()
        return False

    def _some(self) -> int:
        """Hand on what has come of the `left` bytes; how many are still to come."""
        part = bytes(self.buf[: self.left])
        del self.buf[: len(part)]
        self.left -= len(part)
        if self.streaming:
            self._stream(part)
        else:
            self.body += part[: self.limits["body"] - len(self.body)]
            if len(self.body) >= self.limits["body"]:
                raise self._not_ok()
        return self.left if not self.over else 1

    def _stream(self, part: bytes) -> None:
        """Server-sent events: lines end in LF, CRLF or CR, a blank line ends an event, a colon starts a comment."""
        if self.skip_lf and part:
            self.skip_lf = False
            if part[:1] == b"\n":
                part = part[1:]
        if b"\r" in part:
            self.skip_lf = part.endswith(b"\r")
            part = part.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"\n" in part:
            first, *rest = part.split(b"\n")
            self._field(bytes(self.tail) + first)
            for line in rest[:-1]:
                if self.over:
                    return
                self._field(line)
            self.tail = bytearray(rest[-1])
        else:
            self.tail += part
        if len(self.tail) > self.limits["line"] and not self.over:
            raise Bad(f"too-long: a line of more than {self.limits['line']} bytes")

    def _field(self, line: bytes) -> None:
        if len(line) > self.limits["line"]:
            raise Bad(f"too-long: a line of more than {self.limits['line']} bytes")
        if not line:
            if self.data:
                payload, self.data = b"\n".join(self.data), []
                self._event(payload)
        elif line == b"data" or line.startswith(b"data:"):
            value = line[5:]
            self.data.append(value[1:] if value.startswith(b" ") else value)
            if len(self.data) > 4096:
                raise Bad("too-long: an event of more than 4096 lines")

    def _event(self, payload: bytes) -> None:
        if not payload.strip():
            return
        self.events += 1
        if self.events > self.limits["events"]:
            raise Bad(f"too-long: more than {self.limits['events']} events")
        if payload == b"[DONE]":
            self._complete()
            return
        try:
            document = decode(payload.decode("utf-8"))
        except (ValueError, RecursionError):
            raise Bad(f"bad-json: event {self.events} is {words(payload, 60)}") from None
        if not isinstance(document, dict):
            raise Bad(f"bad-json: event {self.events} is not an object")
        if document.get("error"):
            raise Bad(f"server-error: {words(message(document))}")
        usage = document.get("usage")
        if isinstance(usage, dict):
            self.tokens_in, self.tokens_out = count(usage.get("prompt_tokens")), count(usage.get("completion_tokens"))
        choices = document.get("choices")
        if isinstance(choices, list) and choices and isinstance(choices[0], dict):
            self._choice(choices[0])

    def _choice(self, choice: dict[str, Any]) -> None:
        delta = choice.get("delta")
        if isinstance(delta, dict):
            # A model's reasoning is generated text, so it is timed; it is not the answer, so it is not scored.
            said, thought = delta.get("content"), delta.get("reasoning_content") or delta.get("reasoning")
            chars = (len(said) if isinstance(said, str) else 0) + (len(thought) if isinstance(thought, str) else 0)
            if chars:
                self.chunks.append([self.at, chars])
                self.chars += chars
                if isinstance(said, str):
                    self.text.append(said)
                if self.chars > self.limits["text"]:
                    raise Bad(f"too-long: more than {self.limits['text']} characters")
                if len(self.chunks) > self.limits["tokens"]:
                    raise Bad(f"too-long: more than {self.limits['tokens']} tokens")
        if isinstance(choice.get("finish_reason"), str):
            self.finish = words(choice["finish_reason"], 32)

    def _ended(self) -> None:
        """The body is whole."""
        if not self.streaming:
            raise self._not_ok()
        if self.tail:
            self._field(bytes(self.tail))
        if not self.over:
            self._field(b"")  # servers that leave out the last blank line
        if not self.over:
            if self.finish is None:
                raise Bad("truncated: the stream ended without a finish reason" if self.events else "empty: a stream without events")
            self._complete()

    def _complete(self) -> None:
        if self.tokens_out is not None and self.tokens_out > self.limits["tokens"]:
            raise Bad(f"too-long: the server counts {self.tokens_out} tokens; at most {self.limits['tokens']}")
        if not self.chunks:
            raise Bad("empty: the answer ended without any content")
        self.end(None)

    def _not_ok(self) -> Bad:
        mime, body = self.headers.get(b"content-type", b"").lower(), bytes(self.body)
        if self.status != 200:
            try:
                said = message(decode(body.decode("utf-8")))
            except (ValueError, RecursionError):
                said = body
            return Bad(f"http-{self.status}: {words(said) or 'no message'}")
        if b"html" in mime or body.lstrip()[:14].lower().startswith((b"<!doctype", b"<html")):
            return Bad(f"html: a web page: {words(body, 60)}")
        if not body.strip():
            return Bad("empty: status 200 and no body")
        return Bad(f"not-sse: {words(mime, 40) or 'no content type'}: {words(body, 60)}")


def message(document: Any) -> Any:
    """The human words in an error document of any of the usual shapes."""
    inner = document.get("error", document) if isinstance(document, dict) else document
    return inner.get("message", inner) if isinstance(inner, dict) else inner


def count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40 else None


def whole_text(parts: list[str]) -> str:
    """The text, with halves of surrogate pairs joined or replaced: no lone surrogate leaves this program."""
    text = "".join(parts)
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class Link(asyncio.Protocol):
    """One connection, one request. Everything that happens to it goes through `Run.arrived`, in order."""

    def __init__(self, run: Run) -> None:
        self.run, self.answer = run, Answer(run.limits)
        self.transport: Any = None
        self.sent_ns: int | None = None
        self.waiter: Any = run.loop.create_future()
        self.linger: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(high=0)  # so that resume_writing means: the last byte is with the kernel

    def send(self, request: bytes) -> None:
        self.sent_ns = now()
        self.transport.write(request)

    def resume_writing(self) -> None:
        if not self.answer.seen:
            self.sent_ns = now()

    def data_received(self, data: bytes) -> None:
        self.run.arrived(now(), self, data, "")

    def eof_received(self) -> None:
        self.run.arrived(now(), self, b"", "")

    def connection_lost(self, exc: Exception | None) -> None:
        self.run.arrived(now(), self, b"", words(exc.strerror if isinstance(exc, OSError) and exc.strerror else exc) if exc else "")
        self.transport = None
        if self.linger is not None:
            self.linger.cancel()

    def parse(self, at: int, data: bytes, fault: str) -> None:
        if data:
            self.answer.feed(at, data)
        else:
            self.answer.close(at, fault)
        if self.answer.over:
            self.wake()

    def give_up(self, error: str) -> None:
        if not self.answer.over:
            self.answer.at = now()
            self.answer.end(error)
            self.wake()

    def wake(self) -> None:
        if not self.waiter.done():
            self.waiter.set_result(None)

    def drop(self) -> None:
        """A whole answer leaves the closing to the server for a moment: a client that hangs up first looks like a fault there."""
        if self.transport is not None:
            if self.answer.error is None and self.run.stopped is None:
                self.linger = self.run.loop.call_later(LINGER_S, self.transport.abort)
            else:
                self.transport.abort()


class Out:
    """Lines to stdout from a thread of its own: a slow reader must not stop the clock. Full or broken means stop."""

    def __init__(self, broken: Any) -> None:
        self.lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.broken, self.waiting, self.failed = broken, 0, False
        self.thread = threading.Thread(target=self.write, daemon=True)
        self.thread.start()

    def put(self, document: dict[str, Any]) -> None:
        line = json.dumps(document, separators=(",", ":")).encode() + b"\n"
        self.waiting += len(line)
        if self.waiting > 256 << 20 and not self.failed:
            self.failed = True
            self.broken()
        self.lines.put(line)

    def write(self) -> None:
        while True:
            line = self.lines.get()
            if line is None:
                return
            view = memoryview(line)
            while view:
                try:
                    view = view[os.write(1, view) :]
                except OSError:
                    self.failed = True
                    self.broken()
                    return
            self.waiting -= len(line)

    def finish(self) -> bool:
        self.lines.put(None)
        self.thread.join(30)
        return not self.failed and not self.thread.is_alive()


class Run:
    def __init__(self, doc: dict[str, Any], key: str) -> None:
        self.doc, self.loop = doc, asyncio.get_running_loop()
        self.limits = dict(LIMITS, **{k: int(v) for k, v in (doc.get("limits") or {}).items() if k in LIMITS})
        self.timeout = float(doc.get("timeout_s") or 60)
        self.rate = float(doc["rate_per_s"]) if doc.get("rate_per_s") is not None else None
        self.width, self.warmup = max(1, int(doc.get("concurrency") or 1)), max(0, int(doc.get("warmup") or 0))
        cases = doc["cases"]
        if not cases:
            raise ValueError("no cases")
        if self.rate is not None and not 0 < self.rate < 1e6:
            raise ValueError("rate_per_s must be above 0")
        self.address = self.resolve(doc["url"])
        requests = [self.request(case, key) for case in cases]
        order = [i % len(cases) for i in range(self.warmup)] + list(range(len(cases))) * max(1, int(doc.get("repeat") or 1))
        self.jobs = [(n, str(cases[i]["id"]), requests[i], n < self.warmup) for n, i in enumerate(order)]
        self.stopped: str | None = None
        self.live: set[Link] = set()
        self.pending: list[tuple[int, Link, bytes, str]] = []
        self.sent = self.done = self.errors = self.late_max_ns = 0
        self.out = Out(lambda: self.loop.call_soon_threadsafe(self.stop, "stdout is closed"))

    def resolve(self, url: str) -> tuple[Any, ...]:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or parts.username or any(c in url for c in " \r\n\t?#"):
            raise ValueError(f"url must look like http://127.0.0.1:8000/v1, not {words(url, 80)}")
        self.host, self.path = parts.netloc, parts.path.rstrip("/") + "/chat/completions"
        family, _, _, _, address = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)[0]
        self.family = family
        return address

    def request(self, case: dict[str, Any], key: str) -> bytes:
        body = dict(self.doc.get("extra") or {})
        body.update(model=self.doc["model"], messages=case["messages"], stream=True, stream_options={"include_usage": True})
        body["max_tokens"] = min(int(case.get("max_tokens") or self.doc.get("max_tokens") or 128), self.limits["tokens"])
        body["temperature"] = float(self.doc.get("temperature") or 0)
        if self.doc.get("seed") is not None:
            body["seed"] = int(self.doc["seed"])
        payload = json.dumps(body, separators=(",", ":")).encode()
        head = f"POST {self.path} HTTP/1.1\r\nHost: {self.host}\r\nContent-Type: application/json\r\nAccept: text/event-stream\r\n"
        head += f"User-Agent: gpulease-client/{VERSION}\r\nConnection: close\r\nContent-Length: {len(payload)}\r\n"
        if key:
            head += f"Authorization: Bearer {key}\r\n"
        return head.encode("ascii") + b"\r\n" + payload

    def arrived(self, at: int, link: Link, data: bytes, fault: str) -> None:
        """Called with the time already taken. The parsing waits for the next turn of the loop: others are stamped first."""
        if not self.pending:
            self.loop.call_soon(self.parse)
        self.pending.append((at, link, data, fault))

    def parse(self) -> None:
        pending, self.pending = self.pending, []
        for at, link, data, fault in pending:
            link.parse(at, data, fault)

    def stop(self, reason: str) -> None:
        if self.stopped is None:
            self.stopped = reason
            for link in list(self.live):
                link.give_up(f"stopped: {reason}")

    async def until(self, at: int) -> None:
        """Wait for an instant of the clock, or for a stop."""
        while self.stopped is None:
            left = at - SPIN_NS - now()
            if left <= 0:
                break
            await asyncio.sleep(min(left / 1e9, 0.2))
        while self.stopped is None and now() < at:
            await asyncio.sleep(0)

    async def one(self, job: tuple[int, str, bytes, bool], due: int | None) -> None:
        n, case, request, warmup = job
        link, began = Link(self), now()
        task: Any = asyncio.current_task()
        timer = self.loop.call_later(self.timeout, task.cancel)
        self.live.add(link)
        try:
            sock = socket.socket(self.family, socket.SOCK_STREAM)
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                await self.loop.sock_connect(sock, self.address)
                await self.loop.create_connection(lambda: link, sock=sock)
            except BaseException:  # a cancelled task too: an open socket would count against the limit of the machine
                sock.close()
                raise
        except asyncio.CancelledError:
            link.give_up(f"timeout: not connected in {self.timeout:g} s")
        except OSError as fault:
            code = "connect-refused" if isinstance(fault, ConnectionRefusedError) else "connect-failed"
            link.give_up(f"{code}: {words(fault.strerror or fault)}")
        timer.cancel()
        connect_ns = now() - began
        if due is not None and not link.answer.over:
            await self.until(due)
        if not link.answer.over and self.stopped is None:
            link.send(request)
            timer = self.loop.call_later(self.timeout, link.give_up, f"timeout: no whole answer in {self.timeout:g} s")
            await link.waiter
            timer.cancel()
        self.live.discard(link)
        link.drop()
        if link.sent_ns is None and self.stopped is not None:
            return  # it was never sent
        self.sent += 1
        answer = link.answer
        sent_ns = answer.at if link.sent_ns is None else link.sent_ns
        self.done += answer.error is None
        self.errors += answer.error is not None
        self.out.put(
            {
                "case": case,
                "n": n,
                "vantage": self.doc.get("vantage") or "host",
                "warmup": warmup,
                "intended_ns": sent_ns if due is None else due,
                "connect_ns": connect_ns,
                "sent_ns": sent_ns,
                "first_ns": answer.chunks[0][0] if answer.chunks else None,
                "chunks": answer.chunks,
                "done_ns": answer.at,
                "status": answer.status,
                "finish": answer.finish,
                "text": whole_text(answer.text),
                "tokens_in": answer.tokens_in,
                "tokens_out": answer.tokens_out,
                "error": answer.error,
            }
        )

    async def closed(self, jobs: list[tuple[int, str, bytes, bool]]) -> None:
        """`concurrency` workers, each with one request under way at a time."""
        rest = iter(jobs)

        async def worker() -> None:
            for job in rest:
                if self.stopped is not None:
                    return
                await self.one(job, None)

        await asyncio.gather(*[worker() for _ in range(min(self.width, len(jobs)))])

    async def open(self, jobs: list[tuple[int, str, bytes, bool]], rate: float) -> None:
        """Requests fall due at the instants of a seeded Poisson process, whatever became of those before."""
        chance, free = random.Random(int(self.doc.get("seed") or 0)), asyncio.Semaphore(max(1, self.limits["inflight"]))
        due, tasks = now() + LEAD_NS, []

        async def single(job: tuple[int, str, bytes, bool], due: int) -> None:
            try:
                await self.one(job, due)
            finally:
                free.release()

        for job in jobs:
            due += int(chance.expovariate(rate) * 1e9)
            await self.until(due - LEAD_NS)
            await free.acquire()
            if self.stopped is not None:
                break
            tasks.append(self.loop.create_task(single(job, due)))
        await asyncio.gather(*tasks)

    async def watch(self) -> None:
        """Twenty times a second: is stdout still read, and how late does this very loop run?"""
        poll = select.poll()
        poll.register(1, 0)  # no events asked for: only "broken" is told, also when stdin and stdout are one socket
        while True:
            due = now() + 50_000_000
            await asyncio.sleep(0.05)
            self.late_max_ns = max(self.late_max_ns, now() - due)
            if poll.poll(0):
                self.out.failed = True
                self.stop("stdout is closed")

    def stamp(self) -> dict[str, int]:
        return {"wall_ns": time.time_ns(), "mono_ns": now()}

    async def run(self) -> bool:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self.loop.add_signal_handler(number, self.stop, signal.Signals(number).name)
        watch = self.loop.create_task(self.watch())
        header = {
            "client": VERSION,
            "python": sys.version.split()[0],
            "clock_resolution_ns": int(time.get_clock_info("monotonic").resolution * 1e9),
            "vantage": self.doc.get("vantage") or "host",
            "mode": "closed" if self.rate is None else "open",
            "concurrency": self.width,
            "rate_per_s": None if self.rate is None else str(self.doc["rate_per_s"]),
            "warmup": self.warmup,
            "planned": len(self.jobs),
            "seed": self.doc.get("seed"),
            "timeout_s": str(self.doc.get("timeout_s") or 60),
            "limits": self.limits,
        }
        self.out.put({"header": dict(header, **self.stamp())})
        await self.closed(self.jobs[: self.warmup])
        if self.rate is None:
            await self.closed(self.jobs[self.warmup :])
        else:
            await self.open(self.jobs[self.warmup :], self.rate)
        watch.cancel()
        footer = {"planned": len(self.jobs), "sent": self.sent, "done": self.done, "errors": self.errors, "stopped": self.stopped}
        self.out.put({"footer": dict(footer, late_max_ns=self.late_max_ns, **self.stamp())})
        return self.out.finish()


def read_key(path: str | None) -> str:
    if not path:
        return ""
    with open(path, encoding="ascii") as file:
        if os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ValueError("the key file may be read by others; it must be mode 600")
        key = file.read(4096).strip()
    if not key.isprintable() or " " in key:
        raise ValueError("the key file does not hold a key")
    return key


async def work(doc: dict[str, Any], key: str) -> bool:
    run = Run(doc, key)
    gc.collect()
    gc.freeze()
    gc.disable()
    return await run.run()


def main() -> int:
    try:
        raw = sys.stdin.buffer.read((64 << 20) + 1)
        if len(raw) > 64 << 20:
            raise ValueError("the document on stdin is larger than 64 MiB")
        doc = json.loads(raw)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard if 0 < hard < 8192 else 8192), hard))
        return 0 if asyncio.run(work(doc, read_key(doc.get("key_file")))) else 1
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as fault:
        os.write(2, f"client: {type(fault).__name__}: {words(fault, 300)}\n".encode())
        return 2


if __name__ == "__main__":
    code = main()
    os._exit(code)  # nothing is left to do, and a writer stuck on a full pipe must not keep us
