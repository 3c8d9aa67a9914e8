"""Starting and asking a rehearsal from another process. Stdlib only: importing this costs nothing.

`start` leaves a process behind on purpose: a pretended cloud that died with the run could not show what a real one
does when the run dies. `attach` finds one again by its endpoint. `route` is what stands between an address that
EC2 gave and the port to dial; what it raises are the errors the network would give, so that code which waits for a real
machine to boot waits for a simulated one in the same way.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

from provisioner import extras
from provisioner.errors import RefusedError

_PACKAGES = Path(__file__).resolve().parents[2]
_OPENER = build_opener(ProxyHandler({}))  # loopback never goes through a proxy, whatever the environment says
_AS_THE_NETWORK = {
    403: TimeoutError(errno.ETIMEDOUT, "no security group rule lets this in, so the packets are dropped"),
    404: OSError(errno.EHOSTUNREACH, "no machine of the rehearsal has this address"),
    409: ConnectionRefusedError(errno.ECONNREFUSED, "the machine has not booted yet"),
    410: ConnectionRefusedError(errno.ECONNREFUSED, "nothing on the machine answers there"),
}


@dataclass(frozen=True)
class Rehearsal:
    endpoint: str
    pid: int  # 0: not known, and asked for when it is needed

    def route(self, address: str, port: int) -> tuple[str, int]:
        """Where to dial for an address and port of the rehearsal. OSError, as the network would, when there is no way."""
        try:
            found = self._ask("GET", f"route?{urlencode({'address': address, 'port': port})}")
        except HTTPError as e:
            with e:
                known = _AS_THE_NETWORK.get(e.code)
                raise type(known)(*known.args, address) if known else OSError(f"{address}: {e}") from e
        return str(found["host"]), int(found["port"])

    def aws(self) -> list[str]:
        """The program that stands for the user's `aws`: see `aws.py`."""
        return [sys.executable, "-P", str(Path(__file__).with_name("aws.py")), self.endpoint]

    def truth(self) -> list[dict[str, Any]]:
        """Everything that ever existed there, with its real state."""
        return list(self._ask("GET", "truth"))

    def folder(self) -> Path:
        """Where its files are, on this computer."""
        return Path(self._ask("GET", "info")["state"])

    def log(self) -> list[dict[str, Any]]:
        """Every API request it got, oldest first."""
        return list(self._ask("GET", "log"))

    def faults(self, entries: Sequence[Mapping[str, Any]] | None) -> None:
        """Arm faults (see `faults.py`), or with None disarm all. ValueError when they are not understood."""
        try:
            self._ask("POST", "faults", None if entries is None else list(entries))
        except HTTPError as e:
            with e:
                raise ValueError(e.read().decode("utf-8", "replace")) from e

    def enforce(self, policy: Mapping[str, Any] | None) -> None:
        """From now on whoever calls has exactly this IAM policy; None takes it away. ValueError when it cannot be decided."""
        try:
            self._ask("POST", "policy", policy)
        except HTTPError as e:
            with e:
                raise ValueError(e.read().decode("utf-8", "replace")) from e

    def stop(self, timeout: float = 10.0) -> None:
        """Ends it and its machines; returns when it is gone. Already gone is fine."""
        pid = self.pid
        try:
            pid = pid or int(self._ask("GET", "info")["pid"])
            self._ask("POST", "stop")
        except HTTPError:
            raise
        except (URLError, ConnectionError, HTTPException):
            pass  # it is gone, or going
        deadline = time.monotonic() + timeout
        while _exists(pid):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the rehearsal (process {pid}) did not end within {timeout:g} s")
            time.sleep(0.02)

    def _ask(self, method: str, what: str, document: object = None) -> Any:
        body = json.dumps(document).encode() if method == "POST" else None
        request = Request(f"{self.endpoint}/_rehearsal/{what}", data=body, method=method, headers={"Content-Type": "application/json"})
        with _OPENER.open(request, timeout=30) as answer:
            return json.load(answer)


def start(
    state: Path,
    *,
    idle_exit: float = 60.0,
    faults: Sequence[Mapping[str, Any]] = (),
    port: int = 0,
    host_command: str = "",
    timeout: float = 20.0,
) -> Rehearsal:
    """A new process in its own session, listening. `state` keeps its folder, its log and its machines' files."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    command = [sys.executable, "-P", "-m", "provisioner.rehearsal.serve", "--state", str(state), "--port", str(port)]
    command += ["--idle-exit", str(idle_exit)]
    if faults:
        command += ["--faults", json.dumps(list(faults))]
    if host_command:
        command += ["--host-command", host_command]
    # A checkout that is not installed must find itself too: -P keeps the current folder off the path.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(_PACKAGES), os.environ.get("PYTHONPATH", "")]))}
    with (state / "serve.log").open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment, start_new_session=True
        )
    try:
        line = _first_line(process, timeout)
    except BaseException:  # a signal: nobody would know of the process
        process.kill()
        process.wait()
        raise
    try:
        ready = json.loads(line)
        return Rehearsal(str(ready["endpoint"]), int(ready["pid"]))
    except (ValueError, KeyError, TypeError):
        process.kill()
        process.wait()
        said = (state / "serve.log").read_text("utf-8", "replace").strip().splitlines()[-3:]
        raise RefusedError(
            f"the rehearsal did not start within {timeout:g} s" if process.returncode == -9 else "the rehearsal did not start",
            why=" / ".join(said) or f"its process ended with status {process.returncode}",
            next=extras.install("rehearsal"),
        ) from None


def attach(endpoint: str) -> Rehearsal:
    """One that another process started, by the endpoint that it noted. Nothing is asked yet."""
    return Rehearsal(endpoint.rstrip("/"), 0)


def _first_line(process: subprocess.Popen[bytes], timeout: float) -> bytes:
    assert process.stdout is not None
    lines: list[bytes] = []
    reader = threading.Thread(target=lambda: lines.append(process.stdout.readline()), daemon=True)  # type: ignore[union-attr]
    reader.start()
    reader.join(timeout)
    if reader.is_alive():
        process.kill()  # ends the reader too
        reader.join()
    process.stdout.close()
    return lines[0] if lines else b""


def _exists(pid: int) -> bool:
    if not pid:
        return False
    try:
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return False
    except ChildProcessError:
        pass  # not our child: started by another process, or reaped already
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
