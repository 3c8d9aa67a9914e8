"""The SSH server of a simulated machine: paramiko's server mode, one thread per connection, real processes behind it.

It does as OpenSSH does where a client can tell the difference: only public keys and only for `ubuntu`; the exit
status is sent when the command ends, but the channel stays open while a background child holds its output; a
channel that is closed takes the pipes away and not the process (there is no terminal to hang up); a command killed
by a signal is reported as a signal. TCP_NODELAY is on from the start, where sshd waits for a session: a rehearsal
must not teach figures that depend on it.

`Door` is the port: shut, it refuses connections and keeps the number, as a machine that reboots does.
Must not know about units, faults or cloud-init.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED,
    OPEN_FAILED_CONNECT_FAILED,
    OPEN_SUCCEEDED,
    cMSG_CHANNEL_REQUEST,
    cMSG_CHANNEL_SUCCESS,
)

from .host_init import Init, MachineOff, Proc
from .host_sftp import FolderSFTP

USER = "ubuntu"
BANNER = "SSH-2.0-gpulease_rehearsal_SIMULATED"
CHUNK = 65536
SIGNALS = {1: "HUP", 2: "INT", 3: "QUIT", 4: "ILL", 6: "ABRT", 8: "FPE", 9: "KILL", 11: "SEGV", 13: "PIPE", 14: "ALRM", 15: "TERM"}
KEY_TYPES = ("ssh-", "ecdsa-", "sk-")


def new_host_key() -> str:
    """A random ed25519 key in OpenSSH's format."""
    return (
        Ed25519PrivateKey.generate()
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
        .decode("ascii")
    )


def load_host_key(text: str) -> paramiko.PKey:
    return paramiko.Ed25519Key.from_private_key(io.StringIO(text))


def authorized(text: str) -> set[str]:
    """The base64 blobs of an authorized_keys file; options before a key are skipped."""
    blobs: set[str] = set()
    for line in text.splitlines():
        words = line.split()
        if line.startswith("#"):
            continue
        for at, word in enumerate(words[:-1]):
            if word.startswith(KEY_TYPES):
                blobs.add(words[at + 1])
                break
    return blobs


class Door:
    """The listening socket. Shut, the port stays ours and refuses connections."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self._sock: socket.socket | None = None
        self._shut = True
        self._hold()

    def _hold(self) -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", self.port))
        self.port = sock.getsockname()[1]
        self._sock = sock

    def open(self, accept: Callable[[socket.socket], None]) -> None:
        sock = self._sock
        if sock is None or not self._shut:
            return
        self._shut = False
        sock.listen(64)
        threading.Thread(target=self._accept, args=(sock, accept), name="accept", daemon=True).start()

    def _accept(self, sock: socket.socket, accept: Callable[[socket.socket], None]) -> None:
        sock.settimeout(0.5)  # outside Linux closing the socket does not wake accept
        while sock is self._sock and not self._shut:
            try:
                client, _ = sock.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            client.settimeout(None)
            accept(client)

    def shut(self) -> None:
        sock = self._sock
        if self._shut or sock is None:
            return
        self._shut = True
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()
        self._hold()


class Link(paramiko.Transport):
    """A connection that knows when it has answered a channel's request: what the command does must come after that."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.answered: dict[int, threading.Event] = {}

    def _send_user_message(self, message: paramiko.Message) -> None:
        super()._send_user_message(message)  # type: ignore[misc]
        raw = message.asbytes()
        if raw[:1] == cMSG_CHANNEL_SUCCESS and (event := self.answered.get(int.from_bytes(raw[1:5], "big"))):
            event.set()

    def send_exit_signal(self, channel: paramiko.Channel, name: str) -> None:
        message = paramiko.Message()
        message.add_byte(cMSG_CHANNEL_REQUEST)
        message.add_int(channel.remote_chanid)
        message.add_string("exit-signal")
        message.add_boolean(False)
        message.add_string(name)
        message.add_boolean(False)
        message.add_string("")
        message.add_string("")
        self._send_user_message(message)


class Sshd:
    def __init__(self, root: Path, init: Init, env: Callable[[], dict[str, str]], log: Callable[[str], None]) -> None:
        self.root, self.init, self.env, self.log = root, init, env, log
        self.host_key = new_host_key()
        self.refuses: Callable[[], str] = lambda: ""  # why no login is possible now
        self._lock = threading.Lock()
        self._connections: set[paramiko.Transport] = set()
        logging.getLogger("paramiko").addHandler(logging.NullHandler())
        logging.getLogger("paramiko").propagate = False

    def accept(self, client: socket.socket) -> None:
        threading.Thread(target=self._connection, args=(client,), name="ssh", daemon=True).start()

    def cut(self) -> None:
        """Close every connection, as the network or a power-off does: no goodbye."""
        with self._lock:
            gone, self._connections = self._connections, set()
        for transport in gone:
            with contextlib.suppress(OSError):
                transport.sock.shutdown(socket.SHUT_RDWR)
            transport.close()

    def allowed(self) -> set[str]:
        try:
            return authorized((self.root / "home/ubuntu/.ssh/authorized_keys").read_text())
        except OSError:
            return set()

    def _connection(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session = Session(self)
        transport = Link(client)
        try:
            transport.local_version = BANNER
            transport.add_server_key(load_host_key(self.host_key))
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, FolderSFTP, self.root)
            with self._lock:
                self._connections.add(transport)
            ready = threading.Event()
            transport.start_server(ready, session)
            held: list[paramiko.Channel] = []
            while transport.is_active():
                channel = transport.accept(5.0)
                if channel is None:
                    continue
                relay = session.relays.pop(channel.get_id(), None)
                if relay is not None:
                    _relay(relay, channel)
                else:
                    # paramiko refers to channels weakly: one that nobody holds is closed before its request arrives.
                    held = [c for c in held if not c.closed] + [channel]
        except (paramiko.SSHException, EOFError, OSError) as e:
            self.log(f"sshd: connection ended: {e}")
        finally:
            with self._lock:
                self._connections.discard(transport)
            transport.close()
            session.left()


class Session(paramiko.ServerInterface):
    """What one connection may do."""

    def __init__(self, sshd: Sshd) -> None:
        self._sshd = sshd
        self.relays: dict[int, socket.socket] = {}

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        why = self._sshd.refuses()
        if why:
            self._sshd.log(f"sshd: login refused: {why}")
            return AUTH_FAILED
        if username == USER and key.get_base64() in self._sshd.allowed():
            return AUTH_SUCCESSFUL
        self._sshd.log(f"sshd: Failed publickey for {username[:32]!r}")
        return AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED if kind == "session" else OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_direct_tcpip_request(self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]) -> int:
        host, port = destination
        if host not in ("127.0.0.1", "localhost", "::1"):
            return OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
        try:
            sock = socket.create_connection(("127.0.0.1", port), timeout=5.0)
        except OSError:
            return OPEN_FAILED_CONNECT_FAILED
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.relays[chanid] = sock
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        return self._start(channel, ["/bin/sh", "-c", os.fsdecode(command)])

    def check_channel_shell_request(self, channel: paramiko.Channel) -> bool:
        return self._start(channel, ["/bin/sh"])

    def _start(self, channel: paramiko.Channel, argv: list[str]) -> bool:
        answered = threading.Event()
        if isinstance(channel.transport, Link):
            channel.transport.answered[channel.remote_chanid] = answered
        threading.Thread(target=self._exec, args=(channel, argv, answered), name="exec", daemon=True).start()
        return True

    def left(self) -> None:
        for sock in self.relays.values():
            sock.close()

    def _exec(self, channel: paramiko.Channel, argv: list[str], answered: threading.Event) -> None:
        sshd = self._sshd
        answered.wait(0.2)  # a client need not ask for an answer
        if isinstance(channel.transport, Link):
            channel.transport.answered.pop(channel.remote_chanid, None)
        try:
            env = sshd.env() | {"SSH_CONNECTION": "127.0.0.1 0 127.0.0.1 22"}
            pipe = subprocess.PIPE
            proc = sshd.init.spawn(argv, env=env, cwd=sshd.root / "home/ubuntu", stdin=pipe, stdout=pipe, stderr=pipe)
        except (OSError, MachineOff, ValueError) as e:  # ValueError: a NUL in the command
            sshd.log(f"sshd: exec failed: {e}")
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                channel.send_exit_status(255)
                channel.close()
            return
        assert proc.stdin and proc.stdout and proc.stderr
        threading.Thread(target=_feed, args=(channel, proc.stdin.fileno(), proc), name="stdin", daemon=True).start()
        errors = threading.Thread(target=_drain, args=(proc.stderr, channel.sendall_stderr), name="stderr", daemon=True)
        output = threading.Thread(target=_drain, args=(proc.stdout, channel.sendall), name="stdout", daemon=True)
        errors.start()
        output.start()
        proc.ended.wait()
        output.join(0.05)
        errors.join(0.05)
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            _tell_end(channel, proc)
        # As sshd: a child in the background that holds the output keeps the channel open.
        output.join()
        errors.join()
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            channel.shutdown_write()
            channel.close()


def _feed(channel: paramiko.Channel, fd: int, proc: Proc) -> None:
    """Channel to stdin. Ends at the client's EOF or when nobody reads."""
    try:
        while data := channel.recv(CHUNK):
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
    except OSError:
        pass
    finally:
        if proc.stdin is not None:
            with contextlib.suppress(OSError):
                proc.stdin.close()


def _drain(pipe: IO[bytes], send: Callable[[bytes], object]) -> None:
    """A pipe to the channel. When the client is gone the pipe is closed, so that a command that writes sees SIGPIPE."""
    with pipe, contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        while data := os.read(pipe.fileno(), CHUNK):
            send(data)


def _tell_end(channel: paramiko.Channel, proc: Proc) -> None:
    status = proc.status if proc.status is not None else 255
    if status >= 0:
        channel.send_exit_status(status)
    elif isinstance(channel.transport, Link):
        channel.transport.send_exit_signal(channel, SIGNALS.get(-status, f"{-status}@rehearsal"))


def _relay(sock: socket.socket, channel: paramiko.Channel) -> None:
    """Two threads, one for each direction; each passes the end of its direction on, the last one closes both."""
    left = threading.Semaphore(1)

    def down() -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            while data := sock.recv(CHUNK):
                channel.sendall(data)
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            channel.shutdown_write()
        finish()

    def up() -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            while data := channel.recv(CHUNK):
                sock.sendall(data)
        with contextlib.suppress(OSError):
            # A channel that is closed, not only half-closed, takes the server's side with it: nobody will read.
            sock.shutdown(socket.SHUT_RDWR if channel.closed else socket.SHUT_WR)
        finish()

    def finish() -> None:
        if not left.acquire(blocking=False):
            channel.close()
            sock.close()

    for act in (down, up):
        threading.Thread(target=act, name="relay", daemon=True).start()
