"""Real machines for the tests: each a process of its own, reached over real SSH on loopback."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import paramiko
import pytest
import yaml

from provisioner.rehearsal.host_ssh import new_host_key

REPO = Path(__file__).resolve().parents[2]
L4 = {"name": "NVIDIA L4", "memory_mib": 23034, "driver": "580.126.09", "uuid": "GPU-1", "compute_cap": "8.9", "ecc": "Enabled"}


def key_of(private: str) -> paramiko.PKey:
    return paramiko.Ed25519Key.from_private_key(io.StringIO(private))


CLIENT, HOST = new_host_key(), new_host_key()
CLIENT_KEY, HOST_KEY = key_of(CLIENT), key_of(HOST)


def user_data(*bootcmd: Any, **more: Any) -> bytes:
    config = {
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": HOST, "ed25519_public": f"ssh-ed25519 {HOST_KEY.get_base64()}"},
        "ssh_authorized_keys": [f"ssh-ed25519 {CLIENT_KEY.get_base64()} a client"],
        "disable_root": True,
        "ssh_pwauth": False,
        "bootcmd": list(bootcmd),
        **more,
    }
    return b"#cloud-config\n" + yaml.safe_dump(config).encode()


class Box:
    def __init__(self, root: Path, data: bytes, faults: Mapping[str, Any], gpus: list[dict[str, Any]]) -> None:
        self.root = root.resolve()
        document = {
            "instance": "i-0123456789abcdef0",
            "type": "g6.xlarge",
            "user_data_b64": base64.b64encode(data).decode(),
            "gpus": gpus,
            "faults": dict(faults),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "provisioner.rehearsal.host", "--root", str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(REPO)},
            start_new_session=True,
        )
        self.say(document)
        self.clients: list[paramiko.SSHClient] = []
        self._port: int | None = None

    def say(self, document: object) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(document).encode() + b"\n")
        self.process.stdin.flush()

    @property
    def port(self) -> int:
        if self._port is None:
            assert self.process.stdout
            self._port = int(json.loads(self.process.stdout.readline())["port"])
        return self._port

    def connect(self, key: paramiko.PKey = CLIENT_KEY, user: str = "ubuntu") -> paramiko.SSHClient:
        client = paramiko.SSHClient()
        client.get_host_keys().add(f"[127.0.0.1]:{self.port}", "ssh-ed25519", HOST_KEY)
        client.connect("127.0.0.1", self.port, username=user, pkey=key, allow_agent=False, look_for_keys=False, timeout=30)
        client.get_transport().sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # type: ignore[union-attr]
        self.clients.append(client)
        return client

    @property
    def client(self) -> paramiko.SSHClient:
        return next((c for c in self.clients if c.get_transport() and c.get_transport().is_active()), None) or self.connect()  # type: ignore[union-attr]

    def run(self, command: str, stdin: bytes = b"") -> tuple[int, str, str]:
        given, out, err = self.client.exec_command(command, timeout=60)
        given.write(stdin)
        given.channel.shutdown_write()
        return out.channel.recv_exit_status(), out.read().decode(), err.read().decode()

    def out(self, command: str) -> str:
        code, out, err = self.run(command)
        assert code == 0, (command, code, out, err)
        return out.strip()

    def log(self) -> str:
        return (self.root / "var/log/syslog").read_text()

    def wait(self, seconds: float = 60.0) -> int:
        return self.process.wait(seconds)

    def close(self) -> None:
        for client in self.clients:
            client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL if self._port is None else signal.SIGTERM)
            self.process.wait(30)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                with suppress(BrokenPipeError):
                    pipe.close()


def until(check: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (seen := check()):
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.01)
    return seen


def answers(box: Box) -> bool:
    """Does its SSH let us in now?"""
    try:
        box.connect()
    except (OSError, EOFError, paramiko.SSHException):
        return False
    return True


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(") ")[2][:1] not in ("Z", "X")
    except FileNotFoundError:
        if os.path.isdir("/proc/self"):
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def http(
    address: tuple[str, int] | Any, method: str, path: str, body: Any = None, key: str | None = None
) -> tuple[int, dict[str, str], bytes]:
    """One raw HTTP/1.1 exchange, over a socket or an SSH channel; chunked answers are put together."""
    sock = socket.create_connection(address, timeout=30) if isinstance(address, tuple) else address
    data = b"" if body is None else json.dumps(body).encode()
    head = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(data)}"]
    head += [f"Authorization: Bearer {key}"] if key else []
    sock.sendall("\r\n".join([*head, "", ""]).encode() + data)
    heard = b""
    while piece := sock.recv(65536):
        heard += piece
    sock.close()
    top, _, rest = heard.partition(b"\r\n\r\n")
    first, *lines = top.decode().split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        whole = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            whole, rest = whole + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        rest = whole
    return int(first.split()[1]), headers, rest


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Box]]:
    boxes: list[Box] = []

    def begin(data: bytes | None = None, faults: Mapping[str, Any] | None = None, gpus: list[dict[str, Any]] | None = None) -> Box:
        boxes.append(
            Box(tmp_path / f"machine {len(boxes)}", user_data() if data is None else data, faults or {}, [L4] if gpus is None else gpus)
        )
        return boxes[-1]

    yield begin
    for box in boxes:
        box.close()


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """One machine for all the tests of a file that leave it as it was."""
    made = Box(tmp_path_factory.mktemp("machine"), user_data(), {}, [L4])
    yield made
    made.close()
