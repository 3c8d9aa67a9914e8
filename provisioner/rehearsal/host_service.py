"""Running one systemd service: its environment, its commands in order, its end and everything it left behind.

A service's processes are found as systemd finds them, not by trusting it: where systemd has a control group, the
rehearsal has INVOCATION_ID in the environment of every descendant (on Linux; elsewhere the process group), and
with KillMode=control-group, the default, what the service forked dies with it. That rule is why a model server
is run as a unit at all: a leaked engine process keeps the GPU's memory.

Paths are the machine's: `/usr/local/lib/x` is looked up under the root first, then by its name among the shims,
then really. Must not know about timers or about who asked.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .host_init import Init, MachineOff, Proc
from .unit_text import BadUnit, UnitFile, parse_command, parse_env_file, parse_environment

CLEAN_SIGNALS = (-signal.SIGTERM, -signal.SIGHUP, -signal.SIGINT, -signal.SIGPIPE)

Context = tuple[dict[str, str], Path, int, int]
"""Environment, working directory, where stdout and stderr go."""


class UnitError(Exception):
    """A request that systemd refuses; the text is for stderr."""


@dataclass
class Unit:
    name: str
    file: UnitFile
    path: Path | None = None
    transient: bool = False
    collect: bool = False
    active: str = "inactive"
    sub: str = "dead"
    result: str = "success"
    main: Proc | None = None
    exec_pid: int = 0
    exec_code: int = 0
    exec_status: int = 0
    restarts: int = 0
    invocation: str = ""
    stopping: bool = False
    timed_out: bool = False
    kill_at: float | None = None  # RuntimeMaxSec=
    left_inactive: float | None = None  # monotonic
    entered_active: float | None = None  # wall
    entered_inactive: float | None = None  # monotonic
    last_trigger: float | None = None  # wall
    stamp: float | None = None  # wall; the base of OnCalendar=
    started: float = 0.0  # monotonic: when a timer was activated
    next_wall: float | None = None
    next_mono: float | None = None
    settled: threading.Event = field(default_factory=threading.Event)  # set when the start job has ended
    over: threading.Event = field(default_factory=threading.Event)  # set when a run has ended

    @property
    def kind(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def triggers(self) -> str:
        return self.file.last("Timer", "Unit") or self.name.removesuffix(".timer") + ".service"


class Services:
    """`wake` guards the units' state; `ended` is told, with it held, when a run of a service is over."""

    def __init__(
        self,
        root: Path,
        init: Init,
        env: Callable[[], dict[str, str]],
        log: Callable[[str], None],
        wake: threading.Condition,
        ended: Callable[[Unit, str], None],
    ) -> None:
        self.root, self._init, self._env, self._log, self._wake, self._ended = root, init, env, log, wake, ended

    def start(self, unit: Unit) -> None:
        if not unit.file.all("Service", "ExecStart"):
            raise UnitError(f"Failed to start {unit.name}: Unit {unit.name} has a bad unit file setting.")
        unit.active, unit.sub, unit.result, unit.stopping, unit.timed_out, unit.restarts = "activating", "start", "success", False, False, 0
        unit.left_inactive = time.monotonic()
        unit.settled.clear()
        unit.over.clear()
        threading.Thread(target=self._serve, args=(unit,), name=unit.name, daemon=True).start()

    def _serve(self, unit: Unit) -> None:
        quick: list[float] = []
        while True:
            result = self._once(unit)
            with self._wake:
                policy = unit.file.last("Service", "Restart", "no")
                again = policy == "always" or (result != "success" and policy in ("on-failure", "on-abnormal", "on-abort"))
                quick = [t for t in quick if t > time.monotonic() - 10] + [time.monotonic()]
                if unit.stopping or not again or self._init.closed or unit.file.last("Service", "Type") == "oneshot":
                    break
                if len(quick) >= 5:
                    result = "start-limit-hit"
                    break
                unit.active, unit.sub, unit.main = "activating", "auto-restart", None
                unit.restarts += 1
            until = time.monotonic() + unit.file.span("Service", "RestartSec", 0.1)
            while time.monotonic() < until and not unit.stopping and not self._init.closed:
                time.sleep(0.02)
            if unit.stopping:
                break
        with self._wake:
            if not unit.over.is_set():
                self._ended(unit, result)

    def _once(self, unit: Unit) -> str:
        """One run of the service, from ExecStartPre= to the end of its last process; how it ended."""
        file, unit.invocation = unit.file, uuid.uuid4().hex
        try:
            context = self._context(unit)
        except (OSError, BadUnit) as e:
            self._log(f"systemd: {unit.name}: {e}")
            unit.exec_code, unit.exec_status = 1, 209
            return "exit-code"
        try:
            result = "success"
            for line in file.all("Service", "ExecStartPre"):
                result = self._command(unit, line, context)
                if result != "success":
                    return result
            kind = file.last("Service", "Type", "simple")
            if kind != "oneshot":
                unit.kill_at = time.monotonic() + file.span("Service", "RuntimeMaxSec", float("inf"))
            for line in file.all("Service", "ExecStart"):
                result = self._command(unit, line, context, main=True, oneshot=kind == "oneshot")
                if result != "success":
                    break
            return result
        finally:
            unit.kill_at = None
            for fd in {*context[2:]}:
                os.close(fd)
            if file.last("Service", "KillMode", "control-group") in ("control-group", "mixed"):
                self._end_group(unit)

    def _command(self, unit: Unit, line: str, context: Context, *, main: bool = False, oneshot: bool = True) -> str:
        env, cwd, out, err = context
        argv, ignore = parse_command(line, env, unit.name)
        try:
            proc = self._init.spawn([str(self.executable(argv[0])), *argv[1:]], env=env, cwd=cwd, stdout=out, stderr=err)
        except MachineOff:
            return "success"
        except OSError as e:
            self._log(f"systemd: {unit.name}: Failed at step EXEC spawning {argv[0]}: {e.strerror}")
            unit.exec_code, unit.exec_status = 1, 203
            return "success" if ignore else "exit-code"
        with self._wake:
            unit.main = proc
            if main:
                unit.exec_pid = proc.pid
            if main and not oneshot and unit.active == "activating":
                unit.active, unit.sub, unit.entered_active = "active", "running", time.time()
                unit.settled.set()
            if unit.kill_at is not None:
                self._wake.notify_all()
        proc.ended.wait()
        status = proc.status or 0
        with self._wake:
            unit.main = None
            unit.exec_code, unit.exec_status = (1, status) if status >= 0 else (2, -status)
            if unit.timed_out:
                return "timeout"
            if status == 0 or ignore or unit.stopping or (not oneshot and status in CLEAN_SIGNALS):
                return "success"
            return "exit-code" if status > 0 else "signal"

    def _context(self, unit: Unit) -> Context:
        file, env = unit.file, self._env()
        env["INVOCATION_ID"] = unit.invocation
        if not file.last("Service", "User"):  # else the login user: there are no others
            env.update({"HOME": str(self.root / "root"), "USER": "root", "LOGNAME": "root"})
        env.update(parse_environment(file.all("Service", "Environment")))
        for name in file.all("Service", "EnvironmentFile"):
            path = self.path(name.lstrip("-"))
            if path.exists() or not name.startswith("-"):
                env.update(parse_env_file(path.read_text(errors="replace")))
        cwd = self.path(file.last("Service", "WorkingDirectory", "/").lstrip("-"))
        out = self._open(file.last("Service", "StandardOutput", "journal"), unit)
        target = file.last("Service", "StandardError", "inherit")
        return env, cwd, out, out if target == "inherit" else self._open(target, unit)

    def _open(self, target: str, unit: Unit) -> int:
        how, _, name = target.partition(":")
        if how in ("append", "file", "truncate"):
            flags = os.O_WRONLY | os.O_CREAT | {"append": os.O_APPEND, "file": 0, "truncate": os.O_TRUNC}[how]
            return os.open(self.path(name), flags, 0o644)
        if how == "null":
            return os.open(os.devnull, os.O_WRONLY)
        folder = self.root / "var/log/journal"
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder / unit.name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)

    def path(self, name: str) -> Path:
        """An absolute path of the machine as a path of ours: inside the root unless it is there already."""
        return Path(name) if name.startswith(str(self.root)) else self.root / name.lstrip("/")

    def executable(self, name: str) -> Path:
        """Under the root first, then among the shims, then really."""
        if not name.startswith("/"):
            return Path(shutil.which(name, path=self._env()["PATH"]) or name)
        for path in (self.path(name), self.root / "bin" / Path(name).name):
            if path.exists():
                return path
        return Path(name)

    def terminate(self, unit: Unit) -> None:
        proc = unit.main
        patience = min(unit.file.span("Service", "TimeoutStopSec", 90.0), 90.0)
        if proc is not None:
            whole = unit.file.last("Service", "KillMode", "control-group") == "control-group"
            found = self._init.members(f"INVOCATION_ID={unit.invocation}") if whole else set()
            if whole and not found:  # no /proc here: its group is what can be seen
                self._init.signal_group(proc.pid, signal.SIGTERM)
            for pid in found | {proc.pid}:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGTERM)
            if not proc.ended.wait(patience):
                unit.timed_out = True
                self._end_group(unit)

    def _end_group(self, unit: Unit) -> None:
        mark = f"INVOCATION_ID={unit.invocation}"
        for pid in {unit.exec_pid, unit.main.pid if unit.main else 0} - {0}:
            self._init.signal_group(pid, signal.SIGKILL)
        for pid in self._init.members(mark) - {os.getpid()}:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
