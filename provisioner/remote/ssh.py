"""A machine to run fixed scripts on: the `Host` protocol over one pinned connection (`link.py`).

A command is one exec request, `exec sh -c 'cd "$HOME"; <assignments>; <script>'`. The script is a constant of ours; what varies
comes as values, quoted by `shlex.quote` into shell variables, or on stdin, which is also the only way for a secret.
So no text from a profile, a model or another machine is ever parsed by a shell. Files go through the same exec, so
that a host needs no SFTP; a file appears under its name only once it is whole.

Output is capped while it arrives and nothing waits for ever: each command has a timeout, a lost connection wakes
every waiter (see `link.py`), and each turn of the waiting loop calls `sleep(0)`, which raises when the scope was
cancelled. A command that is given up on is sent SIGTERM with its process group before its channel is closed.

Must not know what the scripts do, nor which cloud the machine is from.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import paramiko
import tenacity

from provisioner.clean import clean, clean_lines
from provisioner.errors import HostError
from provisioner.model import Host, Result
from provisioner.remote.bootstrap import RENEW
from provisioner.remote.link import LOST_NEXT, Link, NotLetIn, Route, Sleep, Target, Unreachable, attempt, direct, load_key, open_link
from provisioner.remote.pieces import Capped, Lines

COMMAND_LIMIT = 64 << 10
OUTPUT_LIMIT = 16 << 20
LINE_LIMIT = 1 << 20
LINGER_S = 5.0  # how long output may stay silent after the command's own exit while something it left behind holds it open
LOGIN_GRACE_S = 60.0  # how long the right machine may refuse our key while it boots

_PUT = """umask 077
if [ -d "$path" ]; then echo "$path is a folder" >&2; exit 21; fi
mkdir -p -- "$(dirname -- "$path")" || exit 22
cat > "$path.part" && [ "$(wc -c < "$path.part")" -eq "$size" ] || {
  rm -f -- "$path.part"; echo "the file did not arrive whole" >&2; exit 23
}
chmod -- "$mode" "$path.part" && mv -f -- "$path.part" "$path"
"""
_GET = """[ -f "$path" ] || { echo "$path is not a file" >&2; exit 24; }
head -c "$limit" < "$path"
"""
_FREE_PORT = """exec python3 -c 'import socket
s = socket.socket()
s.bind(("127.0.0.1", 0))
print(s.getsockname()[1])'
"""


@contextlib.contextmanager
def connect(
    address: str,
    port: int,
    user: str,
    *,
    client_key: Path | str | paramiko.PKey,
    host_key: str,
    route: Route = direct,
    timeout: float = 20.0,
    keepalive: float = 5.0,
    sleep: Sleep = time.sleep,
) -> Iterator[SshHost]:
    """One try. HostKeyError when another machine answers, HostError when none does or it does not let us in."""
    target = Target(address, port, user, client_key, host_key, route)
    host = SshHost(
        target, open_link(target, timeout=timeout, keepalive=keepalive, sleep=sleep), timeout=timeout, keepalive=keepalive, sleep=sleep
    )
    try:
        yield host
    finally:
        host.close()


@contextlib.contextmanager
def wait_for_ssh(
    address: str,
    port: int,
    user: str,
    *,
    client_key: Path | str | paramiko.PKey,
    host_key: str,
    within: float,
    route: Route = direct,
    timeout: float = 20.0,
    keepalive: float = 5.0,
    sleep: Sleep = time.sleep,
    pause: float = 1.0,
) -> Iterator[SshHost]:
    """As `connect`, asking a booting machine again for up to `within` seconds. A wrong host key stops at once."""
    target = Target(address, port, user, client_key, host_key, route)
    host = SshHost(target, _waited(target, within, timeout, keepalive, sleep, pause), timeout=timeout, keepalive=keepalive, sleep=sleep)
    try:
        yield host
    finally:
        host.close()


class SshHost:
    """A `Host`. Safe to use from several threads: every command has a channel of its own."""

    def __init__(
        self,
        target: Target,
        link: Link,
        *,
        timeout: float = 20.0,
        keepalive: float = 5.0,
        sleep: Sleep = time.sleep,
        output_limit: int = OUTPUT_LIMIT,
        line_limit: int = LINE_LIMIT,
    ) -> None:
        self.name = target.name
        self._target, self._link, self._timeout, self._keepalive, self._sleep = target, link, timeout, keepalive, sleep
        self.output_limit, self.line_limit = output_limit, line_limit

    def run(
        self, script: str, *, values: Mapping[str, str] | None = None, stdin: bytes = b"", timeout: float = 60.0, check: bool = True
    ) -> Result:
        out = Capped(self.output_limit)
        result = self._exec(script, values, stdin, timeout, out.add)
        result = Result(result.exit, out.text(), result.stderr, result.seconds)
        if check and result.exit != 0:
            raise self._failed(script, result)
        return result

    def stream(
        self,
        script: str,
        on_line: Callable[[str], None],
        *,
        values: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout: float = 3600.0,
    ) -> Result:
        lines = Lines(on_line, self.line_limit)
        result = self._exec(script, values, stdin, timeout, lines.add)
        lines.end()
        return result

    def put(self, data: bytes, path: str, *, mode: int = 0o600) -> None:
        """Write a file (relative to the login's home), making its folders 0700; all of it, or the old one stays."""
        self.run(_PUT, values={"path": path, "mode": f"{mode:o}", "size": str(len(data))}, stdin=data, timeout=60.0 + len(data) / 50_000)

    def get(self, path: str, *, limit: int = 16 << 20) -> bytes:
        data = bytearray()
        result = self._exec(_GET, {"path": path, "limit": str(limit + 1)}, b"", 60.0 + limit / 50_000, data.extend)
        if result.exit != 0:
            raise self._failed(_GET, result)
        if len(data) > limit:
            raise HostError(
                f"{clean(path, limit=200)} on {self.name} is larger than {limit} bytes",
                why="only as much as was asked for is ever read from a machine",
                next="ask for a larger limit",
            )
        return bytes(data)

    def reconnect(self, host_key: str | None = None) -> None:
        """Make the connection again with the same pins, or with another host key, and drop the old one."""
        target = self._target if host_key is None else replace(self._target, host_key=host_key)
        link = open_link(target, timeout=self._timeout, keepalive=self._keepalive, sleep=self._sleep)
        self._link.close()
        self._target, self._link = target, link

    def close(self) -> None:
        self._link.close()

    def _exec(self, script: str, values: Mapping[str, str] | None, stdin: bytes, timeout: float, sink: Callable[[bytes], None]) -> Result:
        command = command_line(script, values or {})
        began, link = time.monotonic(), self._link
        link.check()
        err = Capped(self.output_limit)
        try:
            with _opened(link, command, timeout) as channel:
                _pump(channel, stdin, sink, err.add, began + timeout, self._sleep)
                code = channel.recv_exit_status()
        except TimeoutError as e:
            link.check()
            raise HostError(
                f"{self.name}: no end after {timeout:g} s: {_title(script)}",
                why=" | ".join(clean_lines(err.text(), last=3)) or "nothing on its stderr",
                next="give the step a longer timeout if it is only slow",
            ) from e
        except (paramiko.SSHException, EOFError, OSError) as e:
            link.check()
            raise HostError(
                f"{self.name}: could not run: {_title(script)}", why=clean(str(e) or type(e).__name__, limit=300), next=LOST_NEXT
            ) from e
        if code < 0:
            link.check()  # no exit code because the connection went, not because a signal ended it
        return Result(code, "", err.text(), time.monotonic() - began)

    def _failed(self, script: str, result: Result) -> HostError:
        said = clean_lines(result.stderr, last=10) or clean_lines(result.stdout, last=10)
        ended = f"ended with exit code {result.exit}" if result.exit >= 0 else "was ended by a signal"
        return HostError(
            f"{self.name}: a command {ended}: {_title(script)}",
            why="\n".join(said) or "it printed nothing",
            next="the lines above are the machine's own words",
        )


def command_line(script: str, values: Mapping[str, str]) -> str:
    """The one exec request. Raises HostError for a value that cannot be one; ValueError for a name that is not ours."""
    lines = []
    for name, value in values.items():
        if not re.fullmatch("[a-z_][a-z0-9_]*", name):
            raise ValueError(f"not a name for a shell variable: {name!r}")
        try:
            value.encode()
        except UnicodeEncodeError as e:
            raise _bad_value(name, "half of a surrogate pair") from e
        if "\0" in value:
            raise _bad_value(name, "a NUL byte")
        lines.append(f"{name}={shlex.quote(value)}; ")
    # A login's start-up files may have gone elsewhere (`cd /workspace` in .bashrc); what we put, read and later remove is at home.
    command = "exec sh -c " + shlex.quote('cd "$HOME" || exit 20; ' + "".join(lines) + script)
    if len(command.encode()) > COMMAND_LIMIT:
        raise HostError(
            f"a command of {len(command.encode())} bytes is too long: at most {COMMAND_LIMIT}",
            why=f"values: {', '.join(f'{name} ({len(value)})' for name, value in values.items()) or 'none'}",
            next="large data goes through a file or stdin",
        )
    return command


def free_port(host: Host) -> int:
    """A loopback port that is free on the machine now."""
    said = host.run(_FREE_PORT).stdout.strip()
    if not re.fullmatch("[0-9]{1,5}", said) or not 0 < int(said) < 65536:
        raise HostError(
            f"{host.name} did not name a free port",
            why=f"it printed {clean(said, limit=80)!r}",
            next="an image with a python3 that works (launch.image)",
        )
    return int(said)


def renew(host: Host) -> None:
    """Tell the machine that somebody is still there. Over the open connection: a new login may be refused late in its life."""
    host.run(RENEW, timeout=30.0)


def _waited(target: Target, within: float, timeout: float, keepalive: float, sleep: Sleep, pause: float) -> Link:
    key = load_key(target)
    began = time.monotonic()
    refused_since: float | None = None

    def once() -> Link:
        nonlocal refused_since
        try:
            return attempt(target, key, timeout, keepalive, sleep)
        except NotLetIn:
            refused_since = refused_since or time.monotonic()
            raise

    def enough(state: tenacity.RetryCallState) -> bool:
        refused = refused_since is not None and time.monotonic() - refused_since >= LOGIN_GRACE_S
        return refused or time.monotonic() - began >= within

    asking = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type((Unreachable, NotLetIn)),
        wait=tenacity.wait_exponential(multiplier=pause, min=pause, max=5 * pause),
        stop=enough,
        sleep=sleep,
        reraise=True,
    )
    try:
        return asking(once)
    except (Unreachable, NotLetIn) as e:
        waited = f"{time.monotonic() - began:.0f} s"
        what = (
            f"{target.name} did not answer within {waited}"
            if isinstance(e, Unreachable)
            else f"{target.name} still refuses our key after {waited}"
        )
        raise HostError(
            what,
            why=f"last: {e}",
            next="the same command again, or another zone, type or image; its console output at the provider shows how far the boot came",
        ) from e


@contextlib.contextmanager
def _opened(link: Link, command: str, timeout: float) -> Iterator[paramiko.Channel]:
    """A channel with the command running on it; given up on, the command is sent SIGTERM."""
    channel = link.transport.open_session(timeout=min(timeout, 30.0))
    # paramiko waits for the answer to an exec request without a limit of its own.
    limit = threading.Timer(min(timeout, 30.0), _shut, [channel])
    limit.daemon = True
    try:
        limit.start()
        channel.exec_command(command)
        limit.cancel()
        yield channel
    except BaseException:
        _terminate(channel)
        raise
    finally:
        limit.cancel()
        _shut(channel)


def _pump(
    channel: paramiko.Channel,
    stdin: bytes,
    out: Callable[[bytes], None],
    err: Callable[[bytes], None],
    until: float,
    sleep: Sleep,
) -> None:
    """Both directions at once, so that neither side can block the other by not reading."""
    left: memoryview | None = memoryview(stdin)
    channel.setblocking(0)
    heard = time.monotonic()
    with selectors.DefaultSelector() as ready:
        ready.register(channel, selectors.EVENT_READ)
        while True:
            sleep(0)
            finished = channel.eof_received or channel.closed  # read before draining: everything fed earlier is then seen
            exited = channel.exit_status_ready()
            moved = False
            if channel.recv_ready():
                out(channel.recv(1 << 16))
                moved = True
            if channel.recv_stderr_ready():
                err(channel.recv_stderr(1 << 16))
                moved = True
            if left is not None:
                sent = _send(channel, left)
                moved = moved or sent > 0
                left = left[max(0, sent) :]
                if not left or sent < 0 or exited:
                    with contextlib.suppress(OSError, EOFError):
                        channel.shutdown_write()
                    left = None
            now = time.monotonic()
            heard = now if moved else heard
            if not moved and exited and (finished or now - heard > LINGER_S):
                return
            if now >= until:
                raise TimeoutError
            if not moved:
                pause = min(0.1 if left is None else 0.01, until - now)
                if finished:  # the descriptor stays readable after EOF: wait for the exit code instead
                    channel.status_event.wait(pause)
                else:
                    ready.select(pause)


def _send(channel: paramiko.Channel, data: memoryview) -> int:
    """How many bytes went; 0 when the window is shut, -1 when nobody reads any more."""
    if not data:
        return 0
    try:
        return channel.send(bytes(data[: 1 << 15])) or -1
    except TimeoutError:
        return 0
    except OSError:
        return -1


def _shut(channel: paramiko.Channel) -> None:
    with contextlib.suppress(paramiko.SSHException, EOFError, OSError):  # a connection that died just now says so in other ways
        channel.close()


def _terminate(channel: paramiko.Channel) -> None:
    # Closing a channel without a terminal leaves the command running: sshd passes this signal to its process group.
    if channel.closed or channel.exit_status_ready():
        return
    message = paramiko.Message()
    message.add_byte(bytes([98]))  # SSH_MSG_CHANNEL_REQUEST, RFC 4254 6.9
    message.add_int(channel.remote_chanid)
    message.add_string("signal")
    message.add_boolean(False)
    message.add_string("TERM")
    with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
        channel.get_transport()._send_user_message(message)  # type: ignore[attr-defined]


def _title(script: str) -> str:
    return clean(next((line for line in script.splitlines() if line.strip()), ""), limit=80)


def _bad_value(name: str, what: str) -> HostError:
    return HostError(f"the value of {name} holds {what}", why="it cannot be passed to a program", next="correct it in the profile")
