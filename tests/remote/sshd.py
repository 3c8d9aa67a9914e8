"""SSH servers to test against: a small one in this process that can be told to misbehave and records what it was
sent, and a real OpenSSH one on a high port. Both run commands as the user who runs the tests."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko
from paramiko.packet import Packetizer

from provisioner.remote.keys import KeyPair, make_pair
from tests.listening import Listening

SSHD = next((p for p in ("/usr/sbin/sshd", "/usr/local/sbin/sshd") if os.path.exists(p)), shutil.which("sshd"))


CHANNEL_SUCCESS = 99


@dataclass
class Sshd:
    """Where a server listens, what opens it, and where its commands start."""

    port: int
    host_key: str
    client: KeyPair
    home: Path
    user: str = field(default_factory=getpass.getuser)
    seen: list[int] = field(default_factory=list)  # SSH message numbers received, in order (in-process server only)
    deaf: bool = False  # leave keepalives unanswered (in-process server only)
    running: list[subprocess.Popen[bytes]] = field(default_factory=list, repr=False)
    signals: int = 0  # commands that the client asked to have ended (in-process server only)
    log: Path | None = None
    transports: list[paramiko.Transport] = field(default_factory=list, repr=False)
    pid: int = 0  # of OpenSSH's server

    @property
    def auth_messages(self) -> int:
        """How many there were, once every client that has gone was read to its last byte."""
        for transport in self.transports:
            transport.join(0.5)
        return sum(kind == 5 or 50 <= kind <= 79 for kind in self.seen)

    @property
    def args(self) -> tuple[str, int, str]:
        return "127.0.0.1", self.port, self.user

    @property
    def keys(self) -> dict[str, Any]:
        return {"client_key": self.client.private, "host_key": self.host_key}


@contextlib.contextmanager
def in_process(folder: Path, *, key: paramiko.PKey | None = None, client: KeyPair | None = None, lets_in: bool = True) -> Iterator[Sshd]:
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    client = client or make_pair(folder, "client")
    key = key or paramiko.PKey.from_path(make_pair(folder, "host").private)
    transports: list[paramiko.Transport] = []

    class Recorder(Packetizer):
        def __init__(self, sock: Any) -> None:
            super().__init__(sock)
            self._granted: list[int] = []  # the client's numbers of the channels whose requests were
            self._changed = threading.Condition()

        def await_grant(self, channel: int) -> None:
            with self._changed:
                self._changed.wait_for(lambda: channel in self._granted, timeout=60)
                self._granted.remove(channel)

        def send_message(self, data: Any) -> None:
            super().send_message(data)
            raw = data.asbytes()
            if raw[0] == CHANNEL_SUCCESS:
                with self._changed:
                    self._granted.append(int.from_bytes(raw[1:5], "big"))
                    self._changed.notify_all()

        def read_message(self) -> Any:
            kind, message = super().read_message()
            while kind == 80 and sshd.deaf:
                kind, message = super().read_message()
            sshd.seen.append(kind)
            if kind == 98 and b"signal" in message.asbytes():
                sshd.signals += 1
            return kind, message

    def serve(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport = paramiko.Transport(sock, packetizer_class=Recorder)
        transport.set_log_channel("tests.sshd")
        transport.add_server_key(key)
        transports.append(transport)
        with contextlib.suppress(paramiko.SSHException, EOFError):
            transport.start_server(event=threading.Event(), server=_Server(sshd, lets_in))

    listener = Listening(serve)
    sshd = Sshd(listener.port, f"{key.get_name()} {key.get_base64()}", client, home, transports=transports)
    try:
        yield sshd
    finally:
        listener.close()
        for transport in transports:
            transport.close()
        for process in sshd.running:
            if process.returncode is None:  # what a test gave up on
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


class _Server(paramiko.ServerInterface):
    def __init__(self, sshd: Sshd, lets_in: bool) -> None:
        self.sshd, self.lets_in = sshd, lets_in

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        ours = f"{key.get_name()} {key.get_base64()}" == self.sshd.client.public
        return paramiko.AUTH_SUCCESSFUL if ours and self.lets_in else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=_execute, args=(channel, command, self.sshd), daemon=True).start()
        return True

    def check_channel_direct_tcpip_request(self, chanid: int, origin: Any, destination: Any) -> int:
        try:
            sock = socket.create_connection(destination, 5)
        except OSError:
            return paramiko.OPEN_FAILED_CONNECT_FAILED
        threading.Thread(target=_forward, args=(self, chanid, sock), daemon=True).start()
        return paramiko.OPEN_SUCCEEDED

    transport: Any = None


def _execute(channel: paramiko.Channel, command: bytes, sshd: Sshd) -> None:
    # As sshd: the request is granted before the command is run. One that is quicker than that would be a channel closed unasked.
    channel.get_transport().packetizer.await_grant(channel.remote_chanid)
    home = sshd.home
    env = {**os.environ, "HOME": str(home), "PATH": f"{home}/bin:{os.environ['PATH']}"}
    process = subprocess.Popen(
        ["sh", "-c", command],
        cwd=home,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    sshd.running.append(process)

    def take() -> None:
        with contextlib.suppress(OSError, EOFError):
            while data := channel.recv(1 << 15):
                process.stdin.write(data)
                process.stdin.flush()
        with contextlib.suppress(OSError):
            process.stdin.close()

    def give(pipe: Any, send: Any) -> None:
        with contextlib.suppress(OSError, EOFError):
            while data := pipe.read1(1 << 15):
                send(data)

    threading.Thread(target=take, daemon=True).start()
    givers = [
        threading.Thread(target=give, args=(process.stdout, channel.sendall), daemon=True),
        threading.Thread(target=give, args=(process.stderr, channel.sendall_stderr), daemon=True),
    ]
    for giver in givers:
        giver.start()
    for giver in givers:
        giver.join()
    code = process.wait()
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        if code >= 0:
            channel.send_exit_status(code)
        channel.close()


def _forward(server: _Server, chanid: int, sock: socket.socket) -> None:
    for _ in range(200):  # the channel is registered only after the request was granted
        for thread in threading.enumerate():
            if isinstance(thread, paramiko.Transport) and thread.server_object is server:
                channel = thread._channels.get(chanid)
                if channel is not None and channel.active:
                    _copy(channel, sock)
                    return
        time.sleep(0.01)
    sock.close()


def _copy(channel: paramiko.Channel, sock: socket.socket) -> None:
    def down() -> None:
        with contextlib.suppress(OSError, EOFError):
            while data := sock.recv(1 << 15):
                channel.sendall(data)
            channel.close()

    threading.Thread(target=down, daemon=True).start()
    with contextlib.suppress(OSError, EOFError):
        while data := channel.recv(1 << 15):
            sock.sendall(data)
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


@contextlib.contextmanager
def openssh(folder: Path, *, host_type: str = "ed25519", extra: str = "", host: Path | None = None) -> Iterator[Sshd]:
    """A real sshd without root's help, in debug-free foreground, with a configuration of its own."""
    assert SSHD is not None
    folder.mkdir(parents=True, exist_ok=True)
    client = make_pair(folder, "client")
    host = host or folder / "host"
    host.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", host_type, "-N", "", "-f", str(host)], check=True)
    (folder / "authorized").write_text(client.public + "\n")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = folder / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {host}\nAuthorizedKeysFile {folder}/authorized\nPidFile none\n"
        f"StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nLogLevel VERBOSE\n"
        f"PermitRootLogin yes\nAllowTcpForwarding yes\nMaxStartups 100\n{extra}"
    )
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    log = folder / "sshd.log"
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(config)], stderr=log.open("wb"))
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.02)
        public = host.with_name(f"{host.name}.pub").read_text()
        yield Sshd(port, " ".join(public.split()[:2]), client, Path.home(), log=log, pid=process.pid)
    finally:
        process.terminate()
        process.wait(60)


class Cable:
    """A TCP relay that can be cut in silence: both ends stay open, nothing passes any more."""

    def __init__(self, port: int) -> None:
        self.cut = threading.Event()
        self._to = port
        self._listener = Listening(self._take)
        self.port = self._listener.port

    def route(self, address: str, port: int) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def close(self) -> None:
        self._listener.close()

    def _take(self, near: socket.socket) -> None:
        with contextlib.suppress(OSError):
            far = socket.create_connection(("127.0.0.1", self._to))
            for a, b in ((near, far), (far, near)):
                a.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._relay, args=(a, b), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 15):
                if self.cut.is_set():
                    threading.Event().wait()  # hold the sockets open, for ever and in silence
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
