"""The part of cloud-init that a simulated machine needs: keys, `bootcmd`, `write_files`, `runcmd`, and its log.

The order is cloud-init's, because guards depend on it: keys and host key first, `bootcmd` before sshd answers and
again on every boot, `write_files` and `runcmd` on the first boot only, then the file boot-finished. A bootcmd that
fails does not stop the boot; it makes `cloud-init status` say error, exit 1. A list entry is quoted, a string is a
line of sh, and all of them are one script whose failures in the middle are not fatal, as cloud-init does it.

Keys of the user-data that are not simulated are named in the log. Must not know about SSH or systemd.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

SIMULATED_KEYS = frozenset(
    {"ssh_keys", "ssh_authorized_keys", "bootcmd", "write_files", "runcmd", "ssh_deletekeys", "disable_root", "ssh_pwauth"}
)
LIMIT = 16 * 1024


class BadUserData(ValueError):
    """cloud-init would ignore this user-data: the machine boots without keys and without guards."""


@dataclass(frozen=True)
class UserData:
    host_key: str | None = None
    authorized_keys: tuple[str, ...] = ()
    bootcmd: tuple[Any, ...] = ()
    runcmd: tuple[Any, ...] = ()
    write_files: tuple[Mapping[str, Any], ...] = ()
    ignored: tuple[str, ...] = ()


def parse_user_data(data: bytes) -> UserData:
    if not data:
        return UserData()
    if len(data) > LIMIT:
        raise BadUserData(f"user-data is {len(data)} bytes; EC2 takes {LIMIT}")
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError) as e:
            raise BadUserData(f"user-data looks like gzip and is not: {e}") from None
    text = data.decode("utf-8", "replace")
    if not text.startswith("#cloud-config"):
        raise BadUserData(f"Unhandled non-multipart (text/x-not-multipart) userdata: {text[:24]!r}")
    try:
        doc = yaml.safe_load(text) or {}
    except yaml.YAMLError as e:
        raise BadUserData(f"Failed loading yaml blob: {e}") from None
    if not isinstance(doc, dict):
        raise BadUserData("the #cloud-config is not a mapping")
    keys = doc.get("ssh_keys")
    private = keys.get("ed25519_private") if isinstance(keys, dict) else None
    return UserData(
        host_key=str(private) if private else None,
        authorized_keys=tuple(str(k) for k in _listed(doc, "ssh_authorized_keys")),
        bootcmd=tuple(_listed(doc, "bootcmd")),
        runcmd=tuple(_listed(doc, "runcmd")),
        write_files=tuple(f for f in _listed(doc, "write_files") if isinstance(f, dict)),
        ignored=tuple(sorted(str(k) for k in doc if k not in SIMULATED_KEYS)),
    )


def _listed(doc: Mapping[str, Any], key: str) -> list[Any]:
    value = doc.get(key) or []
    if not isinstance(value, list):
        raise BadUserData(f"{key} is a {type(value).__name__}; cloud-init wants a list")
    return value


def shellify(commands: tuple[Any, ...]) -> str:
    lines = ["#!/bin/sh"]
    for entry in commands:
        if isinstance(entry, list):
            lines.append(" ".join(shlex.quote(str(word)) for word in entry))
        elif isinstance(entry, str):
            lines.append(entry)
        else:
            raise BadUserData(f"Unable to shellify type '{type(entry).__name__}': {str(entry)[:60]!r}")
    return "\n".join(lines) + "\n"


class CloudInit:
    """`run` starts a script and waits for its end: (argv, where its output goes) -> exit code."""

    def __init__(self, root: Path, data: UserData, run: Callable[[list[str], int], int]) -> None:
        self._root, self._data, self._run = root, data, run
        self.errors: list[str] = []
        self.finished = False

    def early(self, *, first: bool) -> None:
        """Everything that is over before sshd answers."""
        self.finished = False
        self.errors = []
        self._say(f"Cloud-init v. 25.2 (SIMULATED by gpulease) running 'init' at {datetime.now(UTC):%a, %d %b %Y %H:%M:%S +0000}.")
        if self._data.ignored:
            self._say(f"SIMULATED: ignored keys: {', '.join(self._data.ignored)}")
        self._commands("bootcmd", self._data.bootcmd)
        if first:
            for entry in self._data.write_files:
                try:
                    self._write(entry)
                except (OSError, ValueError, binascii.Error) as e:
                    self._fail(f"write_files: {entry.get('path')!r}: {e}")

    def late(self, *, first: bool) -> None:
        """What runs while sshd already answers."""
        if first:
            self._commands("runcmd", self._data.runcmd)
        folder = self._root / "var/lib/cloud"
        for place in ("instance", "data"):
            (folder / place).mkdir(parents=True, exist_ok=True)
        result = {"v1": {"datasource": "DataSourceEc2Local (SIMULATED)", "errors": self.errors}}
        (folder / "data/result.json").write_text(json.dumps(result, indent=1))
        self._say(
            f"Cloud-init v. 25.2 finished at {datetime.now(UTC):%a, %d %b %Y %H:%M:%S +0000}. Datasource DataSourceEc2Local (SIMULATED)"
        )
        self.finished = True
        (folder / "instance/boot-finished").touch()

    def fail(self, why: str) -> None:
        self._fail(why)

    def _commands(self, name: str, commands: tuple[Any, ...]) -> None:
        if not commands:
            return
        script = self._root / f"var/lib/cloud/{name}.sh"
        script.parent.mkdir(parents=True, exist_ok=True)
        try:
            script.write_text(shellify(commands))
        except BadUserData as e:
            self._fail(f"Failed to shellify {name}: {e}")
            return
        script.chmod(0o700)
        log = os.open(self._log(), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        try:
            code = self._run(["/bin/sh", str(script)], log)
        finally:
            os.close(log)
        if code != 0:
            self._fail(f"Failed to run {name}: exit code {code}")

    def _write(self, entry: Mapping[str, Any]) -> None:
        given = str(entry.get("path") or "")
        if not given.startswith("/"):
            raise ValueError("the path is not absolute")
        path = Path(given) if given.startswith(str(self._root) + "/") else self._root / given.lstrip("/")
        content = entry.get("content", "")
        data = content if isinstance(content, bytes) else str(content).encode()
        encoding = str(entry.get("encoding") or "").lower()
        if "b64" in encoding or "base64" in encoding:
            data = base64.b64decode(data)
        if encoding.startswith("gz"):
            data = gzip.decompress(data)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab" if entry.get("append") else "wb") as f:
            f.write(data)
        path.chmod(int(str(entry.get("permissions") or "0644"), 8))

    def _log(self) -> Path:
        path = self._root / "var/log/cloud-init-output.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _say(self, line: str) -> None:
        with open(self._log(), "a") as f:
            f.write(line + "\n")

    def _fail(self, why: str) -> None:
        self.errors.append(why)
        self._say(f"[WARNING]: {why}")
