"""One SSH connection: dialled, its host key pinned, logged in with one key, and kept under watch. Everything that
speaks SSH here (`ssh.py`, `tunnel.py`) stands on it.

The pin comes first: only the pinned key's own algorithms are offered, and the key is compared before the service
request that opens authentication, so a wrong machine gets a key exchange and nothing else. A wrong key is final, also
while a machine boots: on images with cloud-init the SSH server starts after the host key was put in place, so another
key means another machine (a recycled address, or somebody in between), and asking it again cannot make it ours.

A connection can be dead for hours while paramiko's `is_active` stays true. So a probe that wants an answer goes out
every few seconds, and a judge in another thread (the asking one may be stuck in a full socket) counts the ticks in
which nothing at all came in. Ticks, not seconds: a laptop that slept is not a lost machine.

No agent, no ~/.ssh, no config file, no password. Must not know what runs over the connection.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko
from paramiko.packet import Packetizer

from provisioner.clean import clean
from provisioner.errors import HostError, HostKeyError
from provisioner.remote import keys

Route = Callable[[str, int], "tuple[str, int] | socket.socket"]
"""From an address and a port to where to dial; or to a socket that is open already (`through.py`)."""

Sleep = Callable[[float], None]

TICKS = 5  # judgements per probe interval
SILENT_TICKS = 8  # with the default 5 s: at most 5 + 8 + 1 s from the last sign of life to "connection lost"
LOST_NEXT = "the same command again; if it is lost there too, another region, zone or type. gpulease report   shows how far it came"


def direct(address: str, port: int) -> tuple[str, int]:
    """The route to a real cloud: dial what it says."""
    return address, port


class Unreachable(Exception):
    """Nobody there yet, or not an SSH server yet. Never leaves this folder."""


class NotLetIn(Exception):
    """The right machine does not accept our key (yet). Never leaves this folder."""


@dataclass(frozen=True)
class Target:
    """Which machine, as whom, and how to tell that it is the one."""

    address: str
    port: int
    user: str
    client_key: Path | str | paramiko.PKey = field(repr=False)
    host_key: str
    route: Route = direct

    @property
    def name(self) -> str:
        return f"{self.user}@{self.address}" + ("" if self.port == 22 else f":{self.port}")


class Link:
    """An open, proven connection. `lost` says why it ended, once it has without being asked to."""

    def __init__(self, transport: PinnedTransport, target: Target, keepalive: float) -> None:
        self.transport, self.target, self.lost = transport, target, ""
        self._interval, self._asked = keepalive, False
        self._closed = threading.Event()
        for work in (self._ask, self._judge):
            threading.Thread(target=work, daemon=True, name=f"gpulease-{work.__name__.strip('_')}").start()

    def check(self) -> None:
        """Raise HostError when the connection is gone."""
        if self.lost or not self.transport.is_active():
            why = self.lost or ("it was closed here" if self._closed.is_set() else "the other side closed it")
            carrier: Any = self.transport.sock
            if hasattr(carrier, "said") and (said := carrier.said()):  # a program (through.py)
                why = f"{why}: {said}"
            raise HostError(f"connection lost to {self.target.name}", why=why, next=LOST_NEXT)

    def close(self) -> None:
        self._closed.set()
        self.transport.close()

    def _ask(self) -> None:
        while self.transport.is_active() and not self._closed.is_set():
            self._asked = True
            try:
                # Any answer will do: sshd refuses this request by name, and a refusal is a sign of life.
                self.transport.global_request("keepalive@openssh.com", wait=True)
            except (paramiko.SSHException, EOFError, OSError):
                return  # the judge, or whoever is waiting on a channel, reports it
            self._asked = False
            self._closed.wait(self._interval)

    def _judge(self) -> None:
        silent, before = 0, -1
        while not self._closed.wait(self._interval / TICKS) and self.transport.is_active():
            heard = self.transport.ear.heard
            silent = silent + 1 if self._asked and heard == before else 0
            before = heard
            if silent >= SILENT_TICKS:
                self.lost = f"no answer to a keepalive for {silent * self._interval / TICKS:.1f} s"
                self.transport.close()  # wakes every thread that waits on this connection


def open_link(target: Target, *, timeout: float = 20.0, keepalive: float = 5.0, sleep: Sleep = time.sleep) -> Link:
    """Dial, pin, log in. HostKeyError for a wrong machine, HostError for anything else."""
    try:
        return attempt(target, load_key(target), timeout, keepalive, sleep)
    except Unreachable as e:
        raise HostError(
            f"cannot reach {target.name}",
            why=str(e),
            next="the same command again; on a machine of your own: does it run, and is its SSH port open to this address?",
        ) from e
    except NotLetIn as e:
        raise HostError(
            f"{target.name} does not let us in",
            why=str(e),
            next="the same command again; on a machine of your own: are the user name and the key those that it lets in?",
        ) from e


def attempt(target: Target, key: paramiko.PKey, timeout: float, keepalive: float, sleep: Sleep) -> Link:
    """One try; `Unreachable` and `NotLetIn` may pass while a machine boots."""
    pinned = keys.public_line(target.host_key)
    transport = _dial(target, timeout, sleep)
    try:
        transport.wanted = _algorithms(keys.key_type(pinned))
        _exchange(transport, timeout, sleep, target)
        seen = transport.get_remote_server_key().asbytes()
        if seen != keys.blob(pinned):
            raise _wrong_machine(target, f"{keys.fingerprint_of(seen)}")
        _log_in(transport, target, key, timeout, sleep)
    except BaseException:
        transport.close()
        raise
    return Link(transport, target, keepalive)


def scan(address: str, port: int, *, route: Route = direct, timeout: float = 10.0, sleep: Sleep = time.sleep) -> str:
    """The public host key that a machine shows, for a person to compare. Proves nothing; sends no credentials."""
    target = Target(address, port, "", "", "", route)
    try:
        transport = _dial(target, timeout, sleep)
        try:
            _exchange(transport, timeout, sleep, None)
            key = transport.get_remote_server_key()
            return f"{key.get_name()} {key.get_base64()}"
        finally:
            transport.close()
    except Unreachable as e:
        raise HostError(f"cannot read the host key of {address}:{port}", why=str(e), next=f"ssh-keyscan -p {port} {address}") from e


def load_key(target: Target) -> paramiko.PKey:
    """The one client key that will be offered."""
    if isinstance(target.client_key, paramiko.PKey):
        return target.client_key
    path = Path(target.client_key).expanduser()
    try:
        return paramiko.PKey.from_path(path)
    except (OSError, ValueError, TypeError, paramiko.SSHException, paramiko.pkey.UnknownKeyType) as e:
        raise HostError(
            f"cannot use the client key {path}",
            why=clean(str(e), limit=200) or type(e).__name__,
            next="give the path of an OpenSSH private key without a passphrase (ssh-keygen -t ed25519 -N '' -f PATH makes one)",
        ) from e


class _Ear(Packetizer):
    """Counts what comes in, so that any packet is a sign of life and not only the answer to a probe."""

    heard = 0

    def read_message(self) -> Any:
        message = super().read_message()
        self.heard += 1
        return message


class PinnedTransport(paramiko.Transport):
    """A transport that offers no host key algorithm but those of the pinned key."""

    wanted: tuple[str, ...] = ()

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, packetizer_class=_Ear)
        # paramiko logs what the other side says, with tracebacks, to stderr; our errors say it, cleaned.
        self.set_log_channel(_mute("gpulease.ssh"))

    @property
    def ear(self) -> _Ear:
        return self.packetizer  # type: ignore[return-value]

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        return self.wanted or tuple(super().preferred_keys)


def _mute(name: str) -> str:
    logger = logging.getLogger(name)
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return name


def _dial(target: Target, timeout: float, sleep: Sleep) -> PinnedTransport:
    try:
        where = target.route(target.address, target.port)
        sock = where if isinstance(where, socket.socket) else _connected(where, timeout, sleep)
    except OSError as e:
        raise Unreachable(f"port {target.port}: {e.strerror or e}") from e
    # Without this, and without a session on the connection, a measured token delay is mostly SSH's (p99 45 ms, not 2).
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport = PinnedTransport(sock)
    transport.banner_timeout = transport.handshake_timeout = timeout
    return transport


def _connected(where: tuple[str, int], timeout: float, sleep: Sleep) -> socket.socket:
    """As `socket.create_connection`, in short waits: a machine that boots drops what it is sent, and a signal must not wait for that."""
    trouble: OSError = OSError(errno.EHOSTUNREACH, "the name has no address")
    until = time.monotonic() + timeout
    for family, kind, protocol, _, address in socket.getaddrinfo(*where, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            code = sock.connect_ex(address)
            while code == errno.EINPROGRESS:
                sleep(0)  # a scope that was cancelled raises here
                if select.select([], [sock], [], 0.1)[1]:
                    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                elif time.monotonic() >= until:
                    code = errno.ETIMEDOUT
            if code == 0:
                sock.setblocking(True)
                return sock
            trouble = OSError(code, os.strerror(code))
        except BaseException:
            sock.close()
            raise
        sock.close()
    raise trouble


def _exchange(transport: PinnedTransport, timeout: float, sleep: Sleep, target: Target | None) -> None:
    done = threading.Event()
    transport.start_client(event=done)
    _await(transport, done, timeout, sleep)
    failure = transport.get_exception()
    if isinstance(failure, paramiko.ssh_exception.IncompatiblePeer) and target is not None and "host key" in str(failure):
        raise _wrong_machine(target, _other_key(target, timeout, sleep))
    if failure is not None or not transport.is_active() or not transport.initial_kex_done:
        said = clean(str(failure or ""), limit=200)
        carrier: Any = transport.sock
        if hasattr(carrier, "refused"):  # a program (through.py)
            said = carrier.said() or said
            if carrier.refused():
                raise HostError("the program that carries the connection was refused", why=said, next=f"by hand: {carrier.words}")
        raise Unreachable(f"no SSH key exchange within {timeout:g} s" + (f": {said}" if said else ""))


def _log_in(transport: PinnedTransport, target: Target, key: paramiko.PKey, timeout: float, sleep: Sleep) -> None:
    done = threading.Event()
    transport.auth_publickey(target.user, key, event=done)
    _await(transport, done, timeout, sleep)
    if transport.is_authenticated():
        return
    failure = transport.get_exception()
    offered = f"offered {keys.fingerprint_of(key.asbytes())} for user {target.user}"
    if isinstance(failure, paramiko.AuthenticationException):
        raise NotLetIn(f"{offered}: {clean(str(failure), limit=200)}")
    if not transport.is_active():
        # sshd drops a login that PAM refuses (a machine that is booting or about to power off) without a word.
        raise NotLetIn(f"{offered}: the connection was dropped")
    raise NotLetIn(f"{offered}: " + ("it was not accepted" if done.is_set() else f"no answer within {timeout:g} s"))


def _await(transport: PinnedTransport, done: threading.Event, timeout: float, sleep: Sleep) -> None:
    until = time.monotonic() + timeout
    while not done.wait(0.05) and transport.is_active() and time.monotonic() < until:
        sleep(0)  # a scope that was cancelled raises here


def _wrong_machine(target: Target, other: str) -> HostKeyError:
    return HostKeyError(
        f"the machine at {target.address} port {target.port} is not the one we prepared: nothing was sent to it",
        why=f"it shows host key {other}; pinned is {keys.fingerprint(target.host_key)} ({keys.key_type(target.host_key)})",
        next="the same command again, twice at most; for a machine of your own: --host-key, if its key was changed on purpose",
    )


def _other_key(target: Target, timeout: float, sleep: Sleep) -> str:
    # A server without a key of the pinned type never shows one: ask again, without credentials, only to name it.
    try:
        seen = scan(target.address, target.port, route=target.route, timeout=min(timeout, 5.0), sleep=sleep)
    except HostError:
        return "of another type"
    return f"{keys.fingerprint(seen)} ({keys.key_type(seen)})"


def _algorithms(kind: str) -> tuple[str, ...]:
    return ("rsa-sha2-512", "rsa-sha2-256") if kind == "ssh-rsa" else (kind,)
