"""The machines themselves: one host process per instance, started, watched and taken away.

A host gets one JSON line on stdin and the pipe stays open for as long as the cloud exists: when this process dies,
however it dies, the pipe closes and every host ends itself. It says `{"port": N}` once its sshd answers, and `{"requests": N}`
when its server has answered as many as it was told to wait for. Exit 0 means that
the guest powered itself off, anything else that it crashed. Each host leads its own session, and taking one away means
SIGTERM, then SIGKILL for its whole group and for whatever still carries its root folder in its environment (a server
that was started with setsid is in no group of ours).

It knows processes, not EC2. `ended` is called from a thread of its own, and only for ends nobody asked for.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

_DRIVER = "570.133.20"
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "USER", "LOGNAME")


@dataclass
class _Host:
    process: subprocess.Popen[bytes]
    root: Path
    port: int | None = None
    asked: bool = False  # we are taking it away
    exit: int | None = None


class Hosts:
    def __init__(self, state: Path, command: Sequence[str], ended: Callable[[str, int], None], up: Callable[[str], None]) -> None:
        self._state, self._command, self._ended, self._up = state, list(command), ended, up
        self.busy: Callable[[str], None] = lambda _: None  # told when a host says {"requests": N}
        self._hosts: dict[str, _Host] = {}
        self._lock = threading.Lock()
        self._closed = False

    def start(
        self, instance: str, type: str, user_data_b64: str, disk_gib: int, faults: Mapping[str, Any], metadata: Mapping[str, str]
    ) -> None:
        root = self._state / "hosts" / instance
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        document = {
            "instance": instance,
            "type": type,
            "user_data_b64": user_data_b64,
            "gpus": gpus(instance, type),
            "faults": dict(faults),
            "disk_gib": disk_gib,
            "nvme_gib": nvme_gib(type),
            "metadata": dict(metadata),
        }
        # Nothing of the caller's environment belongs on a rented machine: no AWS keys, no tokens.
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment.update({name: value for name, value in os.environ.items() if name.startswith("GPULEASE_HOST_")})
        with self._lock, root.with_suffix(".log").open("ab") as log:
            if self._closed:
                return
            process = subprocess.Popen(
                [*self._command, "--root", str(root)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                cwd=root,
                start_new_session=True,
            )
            host = self._hosts[instance] = _Host(process, root)
            _tell(host, document)
        threading.Thread(target=self._watch, args=(instance, host), name=f"host {instance}", daemon=True).start()

    def change_faults(self, faults: Mapping[str, Any]) -> None:
        """For every machine that is there now."""
        with self._lock:
            for host in self._hosts.values():
                if host.exit is None and not host.asked:
                    _tell(host, {"faults": dict(faults)})

    def tell(self, instance: str, document: Mapping[str, Any]) -> None:
        """A line for one machine; nothing when it is not there any more."""
        with self._lock:
            host = self._hosts.get(instance)
            if host is not None and host.exit is None and not host.asked:
                _tell(host, document)

    def port(self, instance: str) -> int | None:
        """Where its sshd answers; None while it does not."""
        with self._lock:
            host = self._hosts.get(instance)
            return host.port if host and host.exit is None and not host.asked else None

    def describe(self, instance: str) -> dict[str, Any] | None:
        with self._lock:
            host = self._hosts.get(instance)
            return {"pid": host.process.pid, "port": host.port, "exit": host.exit} if host else None

    def ask(self, instance: str) -> None:
        self._signal(instance, signal.SIGTERM)

    def kill(self, instance: str) -> None:
        self._signal(instance, signal.SIGKILL)

    def kill_all(self, grace: float) -> None:
        """Everything, and no more starts. Returns when the last one is dead."""
        with self._lock:
            self._closed = True
            names = list(self._hosts)
        for name in names:
            self.ask(name)
        end = time.monotonic() + grace
        for name in names:
            with suppress(subprocess.TimeoutExpired):
                self._hosts[name].process.wait(max(0.0, end - time.monotonic()))
            self.kill(name)
        for name in names:
            self._hosts[name].process.wait()

    def _signal(self, instance: str, number: signal.Signals) -> None:
        with self._lock:
            host = self._hosts.get(instance)
            if host is None:
                return
            host.asked = True
        if number is signal.SIGKILL:
            _kill_tree(host)
        elif host.exit is None:
            _to_group(host.process.pid, number)

    def _watch(self, instance: str, host: _Host) -> None:
        process = host.process
        assert process.stdin is not None and process.stdout is not None
        line = process.stdout.readline()
        try:
            host.port = int(json.loads(line)["port"])
        except (ValueError, KeyError, TypeError):
            host.port = None  # it never came up; it is not ours to guess a port
        else:
            self._up(instance)
            threading.Thread(target=self._listen, args=(instance, process), name=f"said by {instance}", daemon=True).start()
        # Not until stdout ends: what the guest started may hold it open long after the machine is off.
        _await_end(process.pid)
        _kill_tree(host)  # a machine that is off runs nothing; before reaping, while its group's number is still its own
        code = host.exit = process.wait()
        if host.port is None:
            process.stdout.close()  # else whoever listens to it closes it
        with suppress(BrokenPipeError):  # what could not be written to the dead host is nobody's loss
            process.stdin.close()
        if not host.asked:
            self._ended(instance, code)

    def _listen(self, instance: str, process: subprocess.Popen[bytes]) -> None:
        """What it says later. Ends with its stdout, which what the guest started may hold open after the machine is off."""
        assert process.stdout is not None
        with process.stdout as said:
            for line in said:
                with suppress(ValueError):
                    if isinstance(document := json.loads(line), dict) and "requests" in document:
                        self.busy(instance)


def nvme_gib(type: str) -> int:
    """The local disk of this type, which the image mounts at /opt/dlami/nvme; 0 for a type without one."""
    table = json.loads((files("provisioner.rehearsal") / "gpus.json").read_text())
    return next((row.get("nvme_gb", {}).get(type, 0) for row in table if type in row["types"]), 0) * 10**9 // 2**30


def gpus(instance: str, type: str) -> list[dict[str, Any]]:
    """What nvidia-smi would list on this type; empty for a type without GPUs."""
    table = json.loads((files("provisioner.rehearsal") / "gpus.json").read_text())
    row = next((row for row in table if type in row["types"]), None)
    if row is None:
        return []
    return [
        {
            "name": row["name"],
            "memory_mib": row["memory_mib"],
            "driver": _DRIVER,
            "uuid": f"GPU-{uuid.uuid5(uuid.NAMESPACE_URL, f'{instance}/{index}')}",
            "compute_cap": row["compute_cap"],
            "ecc": "Enabled",
        }
        for index in range(row["types"][type])
    ]


def _tell(host: _Host, document: Mapping[str, Any]) -> None:
    """One line, far smaller than a pipe holds, and the pipe stays open: see the first paragraph."""
    assert host.process.stdin is not None
    with suppress(BrokenPipeError):  # it died at once; its exit status will say so
        host.process.stdin.write(json.dumps(document).encode() + b"\n")
        host.process.stdin.flush()


def _await_end(pid: int) -> None:
    """Until it has ended, without reaping it where the system can do that (macOS learnt it late)."""
    if hasattr(os, "waitid"):
        with suppress(ChildProcessError):  # `kill_all` reaped it first
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def _to_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # gone, which is what we want (macOS says EPERM for a group of zombies)
        os.killpg(pid, number)


def _kill_tree(host: _Host) -> None:
    _to_group(host.process.pid, signal.SIGKILL)
    mark = os.fsencode(str(host.root))
    for entry in _processes():
        try:
            if int(entry.name) != os.getpid() and mark in (entry / "environ").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)
        except (OSError, ValueError):
            continue  # not ours to read, or gone meanwhile


def _processes() -> list[Path]:
    proc = Path("/proc")
    return [entry for entry in proc.iterdir() if entry.name.isdigit()] if (proc / "self/environ").exists() else []
