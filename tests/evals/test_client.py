"""The load client as a process, against real servers on loopback: good, slow, broken and hostile ones."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from provisioner.errors import RunError
from provisioner.evals import local, samples
from provisioner.evals.samples import Samples
from tests.evals.loopback import SSE, Behaviour, Request, answer, event, reset, says, sends, serving, stream


def doc(url: str, requests: int = 1, **more: Any) -> dict[str, Any]:
    cases = [{"id": f"c{i}", "messages": [{"role": "user", "content": f"question {i}"}]} for i in range(requests)]
    return {"url": url, "model": "m", "vantage": "tunnel", "cases": cases, "timeout_s": 60, **more}


def run(document: dict[str, Any]) -> Samples:
    got = Samples("tunnel")
    local.run_client(document, on_line=got.feed)
    assert got.junk == 0, got.first_junk
    assert got.header is not None and got.footer is not None
    return got


def start(document: dict[str, Any], **more: Any) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-P", str(local.CLIENT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **more)
    assert process.stdin is not None
    process.stdin.write(json.dumps(document).encode())
    process.stdin.close()
    return process


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "never happened"
        time.sleep(0.01)


def test_every_request_becomes_one_sample_with_its_text_and_counts() -> None:
    with serving(lambda conn, request: conn.sendall(stream(answer("echo ", request.prompt)))) as server:
        got = run(doc(server.url, 5, concurrency=2, warmup=1, repeat=2))
    assert [s.n for s in sorted(got.samples, key=lambda s: s.n)] == list(range(11)) and got.whole
    assert sum(s.warmup for s in got.samples) == 1
    assert all(s.text == f"echo question {s.case[1:]}" and s.tokens_out == 2 and s.finish == "stop" for s in got.samples)
    assert all(s.intended_ns == s.sent_ns and s.connect_ns > 0 for s in got.samples)


def test_the_request_is_a_streaming_one_with_the_settings_asked_for(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sk-secret\n")
    key.chmod(0o600)
    with serving(says("ok")) as server:
        cases = [{"id": "a", "messages": [{"role": "user", "content": "\u4f60\u597d"}], "max_tokens": 5}]
        extra = {"chat_template_kwargs": {"enable_thinking": False}, "stream": False}
        run(doc(server.url) | {"cases": cases, "key_file": str(key), "temperature": "0.5", "seed": 7, "extra": extra})
    (request,) = server.requests
    assert request.head.startswith("POST /v1/chat/completions HTTP/1.1\r\n") and "\r\nAuthorization: Bearer sk-secret" in request.head
    wanted = {"model": "m", "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 5, "temperature": 0.5, "seed": 7}
    assert request.body == {**wanted, "messages": cases[0]["messages"], "chat_template_kwargs": {"enable_thinking": False}}


def test_a_key_that_others_may_read_is_refused_and_never_shown(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sk-secret")
    key.chmod(0o644)
    with serving(says("ok")) as server, pytest.raises(RunError) as refused:
        run(doc(server.url, key_file=str(key)))
    assert "mode 600" in refused.value.why and "sk-secret" not in refused.value.why and not server.requests


@pytest.mark.parametrize(
    "change", [{"url": "https://x/v1"}, {"url": "http://u:p@x/v1"}, {"cases": []}, {"cases": [{}]}, {"rate_per_s": "0"}]
)
def test_a_document_that_makes_no_sense_is_exit_code_2(change: dict[str, Any]) -> None:
    with pytest.raises(RunError, match="exit code 2"):
        run({**doc("http://127.0.0.1:9/v1"), **change})


def test_sixty_four_streams_at_once_are_kept_apart() -> None:
    together = threading.Barrier(64)

    def slow(conn: socket.socket, request: Request) -> None:
        conn.sendall(SSE + b"\r\n")
        together.wait(30)  # proves that all 64 are open at the same time
        for word in request.prompt.split():
            conn.sendall(event({"content": word + " "}))
        conn.sendall(event({}, "stop") + b"data: [DONE]\n\n")

    with serving(slow) as server:
        got = run(doc(server.url, 64, concurrency=64, timeout_s=60))
    assert {s.text for s in got.samples} == {f"question {i} " for i in range(64)}
    assert all(s.error is None and s.tokens_out is None for s in got.samples)


def test_open_loop_sends_when_due_and_counts_from_there() -> None:
    with serving(says("ok")) as server:
        one, two = (run(doc(server.url, 20, rate_per_s="400", seed=3, limits={"inflight": 4})) for _ in range(2))
    gaps = [[b.intended_ns - a.intended_ns for a, b in pairwise(s)] for s in (by_n(one), by_n(two))]
    assert gaps[0] == gaps[1]  # the same seed is the same process
    assert all(s.sent_ns >= s.intended_ns for s in one.samples) and one.header and one.header["mode"] == "open"


def by_n(got: Samples) -> list[samples.Sample]:
    return sorted(got.samples, key=lambda s: s.n)


def hang(conn: socket.socket, request: Request) -> None:
    conn.recv(1)


def endless(piece: bytes) -> Behaviour:
    def behave(conn: socket.socket, request: Request) -> None:
        conn.sendall(SSE + b"\r\n")
        while True:
            conn.sendall(piece)

    return behave


def broken_off(conn: socket.socket, request: Request) -> None:
    conn.sendall(SSE + b"\r\n" + event({"content": "so far"}))
    time.sleep(0.05)
    reset(conn)


HOSTILE: dict[str, tuple[Behaviour, str]] = {
    "says nothing": (hang, "timeout: no whole answer in 0.5 s"),
    "closes at once": (lambda conn, request: None, "empty: closed without a single byte"),
    "resets at once": (lambda conn, request: reset(conn), "reset: Connection reset by peer before the first byte"),
    "resets in the middle": (broken_off, "reset: Connection reset by peer after"),
    "answers without streaming": (
        sends(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"),
        "not-sse: application/json: {}",
    ),
    "is a login page": (sends(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html><body>Sign in"), "html: a web page"),
    "is overloaded": (sends(b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\n\r\ntry later"), "http-503: try later"),
    "sends random bytes": (lambda conn, request: conn.sendall(os.urandom(1) + b"\x00" * 5000), "bad-http"),
    "stops in the middle": (sends(SSE + b"Content-Length: 9999\r\n\r\n" + event({"content": "a"})), "truncated: closed after"),
    "never stops talking": (endless(event({"content": "word "}) * 50), "too-long: more than"),
    "never ends its line": (endless(b"data: " + b"x" * 100_000), "too-long: a line of more than"),
    "sends a gigabyte of spaces": (
        sends(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1073741824\r\n\r\n" + b" " * 1_000_000),
        "empty",
    ),
    "pings for ever": (endless(b": ping\n\n" * 10_000), "too-long: more than 8388608 bytes"),
    "nests": (sends(stream(b"data: " + b'{"a":' * 50_000 + b"\n\n")), "bad-json"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_server_that(name: str) -> None:
    behave, expected = HOSTILE[name]
    with serving(behave) as server:
        got = run(doc(server.url, timeout_s=0.5 if name == "says nothing" else 60))
    (one,) = got.samples
    assert one.error is not None and one.error.startswith(expected), one.error
    assert got.footer and (got.footer["sent"], got.footer["errors"]) == (1, 1) and got.whole
    assert name != "resets in the middle" or one.text == "so far"


def test_a_port_where_nobody_listens_is_a_sample_with_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    got = run(doc(f"http://127.0.0.1:{port}/v1", 3))
    assert [s.code for s in got.samples] == ["connect-refused"] * 3


def test_a_connection_that_is_never_accepted_is_a_timeout() -> None:
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):  # fill the queue of connections, so that the next one waits
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        got = run(doc(f"http://127.0.0.1:{full.getsockname()[1]}/v1", timeout_s=0.3))
    assert got.samples[0].error in ("timeout: not connected in 0.3 s", "timeout: no whole answer in 0.3 s")


def test_sixteen_hostile_streams_stay_within_a_small_memory() -> None:
    def little() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (600 << 20, 600 << 20))

    with serving(endless(b"data: " + b"[[]," * 60_000 + b"\n\n" + b"x" * 500_000)) as server:
        process = start(doc(server.url, 16, concurrency=16), preexec_fn=little)
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
        assert process.wait(30) == 0 and len(lines) == 18
    assert all(json.loads(line)["error"] for line in lines[1:-1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_keeps_the_samples_so_far(number: signal.Signals) -> None:
    parts_sent = threading.Barrier(3)

    def some_hang(conn: socket.socket, request: Request) -> None:
        number = int(request.prompt.split()[1])
        if 2 <= number < 8:
            if number == 2:
                parts_sent.wait(30)
            conn.sendall(stream(answer("whole")))
        else:
            conn.sendall(SSE + b"\r\n" + event({"content": "part"}))
            if number < 2:
                parts_sent.wait(30)
            hang(conn, request)

    with serving(some_hang) as server:
        process = start(doc(server.url, 50, concurrency=3, timeout_s=60))
        until(lambda: len(server.requests) == 9)  # six whole answers later, both parts have long been read
        process.send_signal(number)
        assert process.stdout is not None
        lines = process.stdout.read().decode().splitlines()
        assert process.wait(30) == 0
    got = Samples("tunnel")
    for line in lines:
        got.feed(line)
    told = [(s.text, s.error) for s in by_n(got)]
    assert told[:8] == [("part", f"stopped: {number.name}")] * 2 + [("whole", None)] * 6 and told[8][1] == f"stopped: {number.name}"
    assert got.footer and (got.footer["planned"], got.footer["sent"], got.footer["stopped"]) == (50, 9, number.name) and not got.whole


@pytest.mark.parametrize("pair", [os.pipe, lambda: tuple(s.detach() for s in socket.socketpair())], ids=["pipe", "socket"])
def test_the_client_ends_when_nobody_reads_it_any_more(pair: Callable[[], tuple[int, int]]) -> None:
    with serving(hang) as server:
        ours, theirs = pair()
        process = subprocess.Popen([sys.executable, str(local.CLIENT)], stdin=subprocess.PIPE, stdout=theirs, stderr=subprocess.DEVNULL)
        os.close(theirs)
        assert process.stdin is not None
        process.stdin.write(json.dumps(doc(server.url, 5, timeout_s=60)).encode())
        process.stdin.close()
        until(lambda: len(server.requests) == 1)
        os.close(ours)
        assert process.wait(30) == 1


def test_the_end_of_stdin_on_a_shared_socket_is_not_the_end_of_the_reader() -> None:
    """sshd gives a command one socket for stdin and stdout: its stdin ends long before anybody stops reading."""
    ours, theirs = socket.socketpair()
    with serving(says("ok")) as server, ours:
        process = subprocess.Popen([sys.executable, str(local.CLIENT)], stdin=theirs.fileno(), stdout=theirs.fileno())
        theirs.close()
        ours.sendall(json.dumps(doc(server.url, 3)).encode())
        ours.shutdown(socket.SHUT_WR)
        heard = b"".join(iter(lambda: ours.recv(65536), b""))
        assert process.wait(30) == 0 and len(heard.splitlines()) == 5


def test_a_slow_reader_does_not_stop_the_clock() -> None:
    with serving(says("word " * 4000)) as server:
        process = start(doc(server.url, 40, concurrency=1))
        until(lambda: len(server.requests) == 40)  # 800 KB are answered before one byte of stdout is read
        assert process.stdout is not None
        assert len(process.stdout.read().splitlines()) == 42 and process.wait(30) == 0
