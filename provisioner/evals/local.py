"""The document the load client reads, and the client as a process of this machine (the tunnel's vantage).

The client is started from its own file, without a shell, in its own session: Ctrl-C reaches us, and we tell it. It
gets SIGTERM and a few seconds when the run is cancelled, so that the samples so far are handed over; then SIGKILL. If
we are killed instead, its stdout breaks and it ends by itself within a tenth of a second. It must not know where the
lines go.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from provisioner.errors import RunError
from provisioner.evals.cases import EvalSet

CLIENT = Path(__file__).with_name("client.py")
GRACE_S = 5.0


def source() -> bytes:
    """The client's bytes, to be put on a machine."""
    return CLIENT.read_bytes()


def document(
    evals: EvalSet,
    *,
    url: str,
    model: str,
    vantage: str,
    key_file: str | None = None,
    concurrency: int = 1,
    rate_per_s: str | None = None,
    warmup: int = 0,
    timeout_s: int = 60,
    max_tokens: int = 128,
    temperature: str = "0",
    seed: int = 0,
    repeat: int = 1,
    limits: Mapping[str, int] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What the client reads on stdin. It holds the questions, never the checks or the gold, and no secret."""
    return {
        "url": url,
        "model": model,
        "key_file": key_file,
        "vantage": vantage,
        "concurrency": concurrency,
        "rate_per_s": rate_per_s,
        "warmup": warmup,
        "timeout_s": timeout_s,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "seed": seed,
        "repeat": repeat,
        "limits": dict(limits or {}),
        "extra": dict(extra or {}),
        "cases": [case.asked() for case in evals.cases],
    }


def run_client(
    doc: Mapping[str, Any],
    *,
    on_line: Callable[[str], object],
    sleep: Callable[[float], None] = time.sleep,
    argv: Sequence[str] | None = None,
) -> None:
    """Run the client here to its end, handing over each line as it comes, in this thread.

    `sleep` is the run's `scope.sleep`: what it raises ends the client, after the lines it still had to give. Raises
    RunError when the client fails; requests that fail are samples, not failures of the client.
    """
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    with subprocess.Popen(
        list(argv or [sys.executable, "-P", str(CLIENT)]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "SYSTEMROOT") if name in os.environ},
        start_new_session=True,
    ) as client:
        assert client.stdin is not None and client.stdout is not None and client.stderr is not None
        said = bytearray()
        threads = [
            threading.Thread(target=_write, args=(client.stdin, json.dumps(doc).encode()), daemon=True),
            threading.Thread(target=_read, args=(client.stdout, lines), daemon=True),
            threading.Thread(target=_keep, args=(client.stderr, said), daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            while _hand_over(lines, on_line):
                sleep(0.02)
        except BaseException:  # Cancelled, too: what was measured until then is still to be read
            client.send_signal(signal.SIGTERM)
            end = time.monotonic() + GRACE_S
            while _hand_over(lines, on_line) and time.monotonic() < end:
                time.sleep(0.02)  # for GRACE_S at most: the run's own wait is over
            raise
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                client.wait(GRACE_S)
            client.kill()
            client.wait()
            for thread in threads:
                thread.join(GRACE_S)
        if client.returncode != 0:
            why = bytes(said[-2000:]).decode("utf-8", "replace").strip()
            raise RunError(f"the load client ended with exit code {client.returncode}; needs 0", why=why or "it said nothing on stderr")


def _hand_over(lines: queue.SimpleQueue[bytes | None], on_line: Callable[[str], object]) -> bool:
    """Give what has come; False after the last line."""
    while True:
        try:
            line = lines.get_nowait()
        except queue.Empty:
            return True
        if line is None:
            return False
        on_line(line.decode("utf-8", "replace").rstrip("\n"))


def _write(pipe: IO[bytes], data: bytes) -> None:
    with contextlib.suppress(OSError), pipe:  # a client that died says so by its exit code
        pipe.write(data)


def _read(pipe: IO[bytes], lines: queue.SimpleQueue[bytes | None]) -> None:
    for line in pipe:
        lines.put(line)
    lines.put(None)


def _keep(pipe: IO[bytes], said: bytearray) -> None:
    while part := pipe.read1(65536):  # type: ignore[attr-defined]
        said += part
        del said[:-65536]
