"""The first process of a simulated machine: it starts every other one, reaps them, and can end them all.

A rehearsal is worth something only if "terminated" means that nothing of the machine runs on. So every command is
started here, as its own session, and three ways lead back to it: its process group; on Linux the mark
GPULEASE_ROOT=<root> in its environment; and, also on Linux, its descent from this process, which makes itself the
adopter of orphans, so that a double fork (`nohup x &`) or `env -i` does not get away. Elsewhere the process table
is read once a second, and every new group below one of ours is remembered.

The main thread calls `reap` on SIGCHLD, as a real init does: a dead server must not look alive to `kill -0`.
A process id is never signalled because it was ours once, only because it is ours in the table just read.
Must not know about SSH or systemd.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

PR_SET_CHILD_SUBREAPER = 36
LINUX = sys.platform == "linux"


class MachineOff(RuntimeError):
    """The machine is going down: nothing new is started."""


@dataclass
class Proc:
    """One process we started. `status` is its exit code, or minus the number of the signal that ended it."""

    pid: int
    stdin: IO[bytes] | None = None
    stdout: IO[bytes] | None = None
    stderr: IO[bytes] | None = None
    status: int | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    on_exit: Callable[[Proc], None] | None = None


class Init:
    def __init__(self, root: Path, *, linux: bool = LINUX) -> None:
        self._root = root
        self._linux = linux
        self._mark = b"GPULEASE_ROOT=" + os.fsencode(root)
        self._lock = threading.Lock()
        self._procs: dict[int, Proc] = {}
        self._groups: set[int] = set()
        self.closed = False
        if linux:
            ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path | str,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
        stderr: int = subprocess.DEVNULL,
        on_exit: Callable[[Proc], None] | None = None,
    ) -> Proc:
        """Start `argv` as the leader of its own session. OSError when it cannot be executed."""
        # The lock keeps `reap` away until the child is in the table: it waits for any child.
        with self._lock:
            if self.closed:
                raise MachineOff("the machine is going down")
            child = subprocess.Popen(
                list(argv), env=dict(env), cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True, bufsize=0
            )
            child.returncode = 0  # `reap` waits for it, so subprocess must not
            proc = Proc(child.pid, child.stdin, child.stdout, child.stderr, on_exit=on_exit)
            self._procs[child.pid] = proc
            self._groups.add(child.pid)
        return proc

    def run(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path | str, out: int) -> int:
        """Start `argv`, wait for its end, and say how it ended."""
        proc = self.spawn(argv, env=env, cwd=cwd, stdout=out, stderr=out)
        proc.ended.wait()
        return proc.status if proc.status is not None else -1

    def reap(self) -> None:
        ended: list[Proc] = []
        with self._lock:
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    break
                if pid == 0:
                    break
                proc = self._procs.pop(pid, None)  # None: an orphan that we adopted
                if proc is not None:
                    proc.status = os.waitstatus_to_exitcode(status)
                    ended.append(proc)
        for proc in ended:
            proc.ended.set()
            if proc.on_exit is not None:
                proc.on_exit(proc)

    def tick(self) -> None:
        """Once a second: forget groups that are empty, so that a number used again by a stranger is not ours."""
        table = {} if self._linux else _table_ps()
        with self._lock:
            if not self._linux:
                ours = _below(os.getpid(), table)
                self._groups |= {group for pid, (_, group) in table.items() if pid in ours}
                self._groups.discard(os.getpgrp())
            for group in list(self._groups):
                try:
                    os.killpg(group, 0)
                except ProcessLookupError:
                    self._groups.discard(group)
                except PermissionError:
                    self._groups.discard(group)

    def members(self, mark: str = "") -> set[int]:
        """The living processes of this machine; with `mark` ("INVOCATION_ID=…") only those that carry it."""
        if self._linux:
            return _members_proc(os.fsencode(mark) if mark else self._mark, descend=not mark)
        table = _table_ps()
        below = _below(os.getpid(), table)
        if mark:  # without /proc only descent can be seen; a service's own group is signalled by whoever asks
            return set()
        return below | {pid for pid, (_, group) in table.items() if group in self._groups}

    def signal_group(self, group: int, number: int) -> None:
        """Signal a group that we started and whose leader or members still live."""
        if group in self._groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)

    def end_all(self, *, grace: float = 0.0) -> list[int]:
        """End every process of the machine; returns those that could not be ended (none, unless they are not ours to kill)."""
        self.closed = True
        with self._lock:
            pass  # a start that was under way is in the table now
        if grace:
            self._signal_all(signal.SIGTERM)
            until = time.monotonic() + grace
            while self._living() and time.monotonic() < until:
                time.sleep(0.01)
        until = time.monotonic() + 3.0
        while self._signal_all(signal.SIGKILL) and time.monotonic() < until:
            time.sleep(0.005)
        return sorted(self._living())

    def _signal_all(self, number: int) -> int:
        living = self._living()
        for pid in living:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        return len(living)

    def _living(self) -> set[int]:
        self.reap()
        return self.members() - {os.getpid(), os.getppid()}


def sweep(root: Path) -> int:
    """For a parent whose host died without cleaning up (SIGKILL): end what still carries its mark. Linux only."""
    if not LINUX:
        return 0
    ended = 0
    for pid in _members_proc(b"GPULEASE_ROOT=" + os.fsencode(root), descend=False) - {os.getpid(), os.getppid()}:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
            ended += 1
    return ended


def _members_proc(mark: bytes, *, descend: bool) -> set[int]:
    found: set[int] = set()
    table: dict[int, tuple[int, int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as f:
                state, parent, group = f.read().rpartition(b") ")[2].split(maxsplit=3)[:3]
            if state in (b"Z", b"X"):
                continue
            table[int(entry)] = (int(parent), int(group))
            with open(f"/proc/{entry}/environ", "rb") as f:
                if mark in f.read().split(b"\0"):
                    found.add(int(entry))
        except (OSError, ValueError):
            continue
    return found | _below(os.getpid(), table) if descend else found


def _table_ps() -> dict[int, tuple[int, int]]:
    """pid -> (parent, group), by ps: the same on every Unix. `reap` waits for the ps, as for any child."""
    pipe_r, pipe_w = os.pipe()
    pid = os.posix_spawn(
        "/bin/ps",
        ["ps", "-A", "-o", "pid=,ppid=,pgid=,stat="],
        {"PATH": "/usr/bin:/bin"},
        file_actions=[(os.POSIX_SPAWN_DUP2, pipe_w, 1), (os.POSIX_SPAWN_CLOSE, pipe_r)],
    )
    os.close(pipe_w)
    with open(pipe_r, "rb") as out:
        lines = out.read().decode("ascii", "replace").splitlines()
    table: dict[int, tuple[int, int]] = {}
    for line in lines:
        words = line.split()
        if len(words) >= 4 and not words[3].startswith("Z") and int(words[0]) != pid:
            table[int(words[0])] = (int(words[1]), int(words[2]))
    return table


def _below(top: int, table: Mapping[int, tuple[int, int]]) -> set[int]:
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in table.items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    todo = list(children.get(top, ()))
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo += children.get(pid, ())
    return found
