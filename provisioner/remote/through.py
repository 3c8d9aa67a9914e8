"""A way to a machine that no address may reach: the user's own `aws` program as the connection.

An EC2 Instance Connect endpoint or Session Manager carries bytes to port 22 from inside the machine's network. Both are
spoken by the AWS CLI (version 2; for Session Manager with its plugin), which has the user's login; so the route is that
program, its stdin and stdout are the socket, and SSH with its pinned host key runs through it as over any other wire:
whoever carries the bytes cannot read or change them.

A machine is named `i-….region` here, because it has no address. What the program says on its stderr is kept for the
error; a refusal of the login is final, anything else may pass while a machine boots.
Must not know about SSH, nor what the machine is for.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence

from provisioner.clean import clean_lines
from provisioner.errors import RefusedError
from provisioner.secret import environment

REACHES = ("endpoint", "ssm")
LONGEST_S = {"endpoint": 3600}  # after which AWS ends a connection; for a session AWS names no such time unless the account sets one
PLUGIN = "session-manager-plugin"
FINAL = re.compile(
    r"AccessDenied|UnauthorizedOperation|not authorized|Unable to locate credentials|ExpiredToken|config profile .* could not be found"
    r"|SessionManagerPlugin is not found|Invalid choice|invalid choice"
)
GRACE_S = 2.0


def route(reach: str, profile: str | None, program: Sequence[str] = ("aws",)) -> Callable[[str, int], socket.socket]:
    """The route for SSH's two connections, each a program of its own: `aws`, or what stands for it in a rehearsal."""

    def open_program(address: str, port: int) -> socket.socket:
        return Program(argv(reach, address, port, profile, program))

    return open_program


def name(instance: str, region: str) -> str:
    """What stands for the address of a machine that has none."""
    return f"{instance}.{region}"


def argv(reach: str, address: str, port: int, profile: str | None, program: Sequence[str] = ("aws",)) -> list[str]:
    """The program and its arguments; none of them is a secret."""
    instance, _, region = address.partition(".")
    if not re.fullmatch(r"i-[0-9a-f]{8,17}", instance) or not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d{1,2}", region):
        raise RefusedError(f"{address!r} does not name a machine that can be reached by {reach}", why="expected i-….region")
    if reach == "endpoint":
        verb = ["ec2-instance-connect", "open-tunnel", "--instance-id", instance, "--remote-port", str(port)]
    else:
        document = ["--document-name", "AWS-StartSSHSession", "--parameters", f"portNumber={port}"]
        verb = ["ssm", "start-session", "--target", instance, *document]
    return [*program, *verb, "--region", region, *(["--profile", profile] if profile else [])]


def check(reach: str) -> None:
    """Refuse, before anything is rented, what could not be reached for want of a program here."""
    if shutil.which("aws") is None:
        raise RefusedError(
            f"launch.reach is {reach}, and there is no aws program on this machine",
            why="the AWS CLI carries the connection; looked on the PATH",
            next="install the AWS CLI, version 2; or let one address in: launch.reach: address",
        )
    try:
        said = subprocess.run(
            ["aws", "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as e:
        raise RefusedError("the aws program here does not answer", why=f"aws --version: {e}", next="aws --version") from e
    if not (found := re.search(r"aws-cli/(\d+)\.", said)) or int(found[1]) < 2:
        raise RefusedError(
            f"launch.reach is {reach}, and the aws program here is not version 2",
            why=f"it says {' '.join(clean_lines(said, last=1)) or 'nothing'}",
            next="install the AWS CLI, version 2",
        )
    if reach == "ssm" and shutil.which(PLUGIN) is None:
        raise RefusedError(
            f"launch.reach is ssm, and there is no {PLUGIN} on this machine",
            why="the AWS CLI starts it to carry the connection; looked on the PATH",
            next="install the Session Manager plugin, or use launch.reach: endpoint",
        )


class Program(socket.socket):
    """Our end of a program's stdin and stdout. Closing it ends the program, and everything that it started."""

    def __init__(self, words: list[str]) -> None:
        ours, theirs = socket.socketpair()
        self.words = shlex.join(words)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  open for as long as the program runs
        try:
            # A session of its own: Ctrl-C is ours to handle, and last words are still to be fetched through it.
            end = theirs.fileno()
            self._process = subprocess.Popen(words, stdin=end, stdout=end, stderr=self._log, start_new_session=True, env=environment())
        except BaseException:
            ours.close()
            self._log.close()
            raise
        finally:
            theirs.close()
        super().__init__(fileno=ours.detach())

    def said(self) -> str:
        """The last lines of its stderr."""
        with contextlib.suppress(OSError, ValueError):
            size = os.fstat(self._log.fileno()).st_size
            return " | ".join(clean_lines(os.pread(self._log.fileno(), 4096, max(0, size - 4096)).decode("utf-8", "replace"), last=3))
        return ""

    def refused(self) -> bool:
        """Has it ended, and for a reason that asking again will not change?"""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5)
        return self._process.poll() not in (None, 0) and FINAL.search(self.said()) is not None

    def close(self) -> None:
        super().close()
        if self._process.poll() is None:
            _signal(self._process, signal.SIGTERM)
            threading.Thread(target=_end, args=(self._process,), daemon=True, name="gpulease-through-end").start()


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
