"""The client as a child of ours: every line handed over, and gone whatever happens to us."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any

import pytest

from provisioner.errors import RunError
from provisioner.evals import cases, local
from provisioner.evals.samples import Samples
from tests.evals.loopback import SSE, Request, event, says, serving


class Cancelled(Exception):
    pass


def test_a_shipped_set_runs_through_the_whole_path() -> None:
    smoke = cases.load("smoke")
    got = Samples("tunnel")
    with serving(says("no ", "idea")) as server:
        local.run_client(local.document(smoke, url=server.url, model="m", vantage="tunnel", concurrency=8), on_line=got.feed)
    assert got.whole and {s.case for s in got.samples} == {case.id for case in smoke.cases}
    asked = str([request.body for request in server.requests])
    assert "'checks'" not in asked and "'gold'" not in asked and "tolerance" not in asked


def test_a_cancelled_wait_stops_the_client_and_keeps_its_samples() -> None:
    hanging = threading.Event()

    def hang(conn: socket.socket, request: Request) -> None:
        conn.sendall(SSE + b"\r\n" + event({"content": "part"}))
        hanging.set()
        conn.recv(1)

    def sleep(seconds: float) -> None:
        time.sleep(seconds)
        if hanging.is_set():
            raise Cancelled

    got = Samples("tunnel")
    document = local.document(cases.load("smoke"), url="", model="m", vantage="tunnel", timeout_s=60)
    with serving(hang) as server, pytest.raises(Cancelled):
        local.run_client({**document, "url": server.url}, on_line=got.feed, sleep=sleep)
    assert [s.error for s in got.samples] == ["stopped: SIGTERM"] and got.footer is not None


def test_a_client_that_will_not_go_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "GRACE_S", 0.2)
    pids: list[int] = []

    def on_line(line: str) -> None:
        pids.append(int(line))

    def sleep(seconds: float) -> None:
        if pids:
            raise Cancelled
        time.sleep(seconds)

    stubborn = "import os,signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(os.getpid(), flush=True); time.sleep(3600)"
    with pytest.raises(Cancelled):
        local.run_client({}, on_line=on_line, sleep=sleep, argv=["python3", "-c", stubborn])
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_a_client_that_fails_says_why() -> None:
    unlucky = "import sys; sys.stderr.write('no luck'); sys.exit(7)"
    with pytest.raises(RunError, match="exit code 7; needs 0") as failed:
        local.run_client({}, on_line=lambda line: None, argv=["python3", "-c", unlucky])
    assert failed.value.why == "no luck"


def test_a_callback_that_fails_leaves_no_client_behind() -> None:
    def refuse(line: str) -> Any:
        raise KeyError("not mine")

    with serving(says("ok")) as server, pytest.raises(KeyError):
        local.run_client(local.document(cases.load("smoke"), url=server.url, model="m", vantage="tunnel"), on_line=refuse)


def test_no_secret_and_no_answer_is_in_the_environment_or_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    said: list[str] = []
    local.run_client({}, on_line=said.append, argv=["python3", "-c", "import os; print(sorted(os.environ))"])
    assert "HF_TOKEN" not in said[0]
