"""A Host that is this machine: scripts really run, by /bin/sh, in a folder of their own.

It keeps the contract of `model.Host` with no network in between, so that what is tested is the scripts. HOME, PATH
and GPULEASE_ROOT point into the folder; `tool` puts a small program first on PATH, `hide` takes one away.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from provisioner.errors import HostError
from provisioner.model import Result


class LocalHost:
    name = "ubuntu@localhost"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home, self.bin, self.root = folder / "home", folder / "bin", folder / "root"
        for path in (self.home, self.bin, self.root):
            path.mkdir(parents=True)
        self.path = f"{self.bin}:/usr/local/bin:/usr/bin:/bin"
        self.scripts: list[str] = []
        # No test may become root, whatever the machine it runs on allows; and ss shows this folder's world only.
        self.tool("sudo", "exit 1")
        self.tool("ss", "exit 0")

    def tool(self, name: str, script: str) -> Path:
        path = self.bin / name
        path.write_text(script if script.startswith("#!") else f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def hide(self, name: str) -> None:
        farm = self.folder / "tools"
        farm.mkdir(exist_ok=True)
        for folder in ("/usr/bin", "/bin"):
            for file in Path(folder).iterdir():
                if file.name != name and not (farm / file.name).is_symlink():
                    (farm / file.name).symlink_to(file)
        (self.bin / name).unlink(missing_ok=True)
        self.path = f"{self.bin}:{farm}"

    def run(
        self, script: str, *, values: Mapping[str, str] | None = None, stdin: bytes = b"", timeout: float = 60.0, check: bool = True
    ) -> Result:
        self.scripts.append(script)
        assigned = "".join(f"{name}={shlex.quote(value)}; " for name, value in (values or {}).items())
        env = {
            "HOME": str(self.home),
            "PATH": self.path,
            "GPULEASE_ROOT": str(self.root),
            "LANG": "C.UTF-8",
            "USER": os.environ.get("USER", "root"),
        }
        begun = time.monotonic()
        try:
            done = subprocess.run(
                ["/bin/sh", "-c", assigned + script], input=stdin, capture_output=True, timeout=timeout, env=env, cwd=self.home, check=False
            )
        except subprocess.TimeoutExpired:
            raise HostError(f"no answer from {self.name} after {timeout:g} s") from None
        out, err = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
        if check and done.returncode:
            raise HostError(f"a script on {self.name} ended with {done.returncode}", why=err[-500:])
        return Result(done.returncode, out, err, time.monotonic() - begun)

    def stream(
        self,
        script: str,
        on_line: Callable[[str], None],
        *,
        values: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout: float = 3600.0,
    ) -> Result:
        result = self.run(script, values=values, stdin=stdin, timeout=timeout)
        for line in result.stdout.splitlines():
            on_line(line)
        return Result(result.exit, "", result.stderr, result.seconds)

    def put(self, data: bytes, path: str, *, mode: int = 0o600) -> None:
        target = self.home / path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.write_bytes(data)
        target.chmod(mode)

    def get(self, path: str, *, limit: int = 16 << 20) -> bytes:
        with (self.home / path).open("rb") as file:
            return file.read(limit)
