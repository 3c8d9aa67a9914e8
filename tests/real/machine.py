"""A machine that somebody else rented, as far as one computer can pretend it: OpenSSH's own sshd with a home of its own.

It listens on a high loopback port with keys made for the test, as whoever runs the tests, root or not. The login's home
comes from sshd's SetEnv, while a command starts in the folder that the password file says: the two differ, as they may
on anybody's machine. No ForceCommand, because sshd then refuses the signals by which a client ends a command.

What runs here is found in /proc by what it keeps when it renames itself, as vLLM's processes do: the home in its
environment, or a folder below that home as the one it works in.
"""

from __future__ import annotations

import contextlib
import getpass
import ipaddress
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

SSHD = next((path for path in ("/usr/sbin/sshd", "/usr/local/sbin/sshd") if os.access(path, os.X_OK)), shutil.which("sshd"))
KEYGEN = shutil.which("ssh-keygen")
LISTEN = "0A"


@dataclass(frozen=True)
class Machine:
    home: Path
    port: int
    identity: Path
    host_key: str
    log: Path
    vllm: Path  # the environment that vLLM is installed in

    @property
    def words(self) -> list[str]:
        """What a user types to name it."""
        where = f"{getpass.getuser()}@127.0.0.1:{self.port}"
        return ["--provider", "static", "--host", where, "--identity", str(self.identity), "--host-key", self.host_key]

    def processes(self) -> dict[int, str]:
        """Every process that was started in a login to here, and what it calls itself."""
        found = {}
        for pid in (int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
            if f"HOME={self.home}" in _read(pid, "environ").split("\0") or _link(pid, "cwd").startswith(str(self.home)):
                found[pid] = _read(pid, "cmdline").replace("\0", " ").strip()
        return found

    def servers(self) -> dict[int, str]:
        """Those of them that are vLLM: they have its copy of torch in their memory."""
        return {pid: text for pid, text in self.processes().items() if f"{self.vllm}/" in _read(pid, "maps")}

    def left(self) -> list[str]:
        """What is still in gpulease's folder."""
        base = self.home / ".gpulease"
        return sorted(path.name for path in base.iterdir()) if base.is_dir() else []


def missing() -> str:
    """Why there can be no such machine here; nothing when there can."""
    if not sys.platform.startswith("linux"):
        return "vLLM for the CPU and /proc need Linux"
    if SSHD is None or KEYGEN is None:
        return "OpenSSH's sshd and ssh-keygen are not installed (Debian: openssh-server)"
    return ""


@contextlib.contextmanager
def machine(folder: Path, vllm: Path) -> Iterator[Machine]:
    assert SSHD is not None and KEYGEN is not None
    home = folder / "home"
    home.mkdir(parents=True)
    for name in ("host", "client"):
        subprocess.run([KEYGEN, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(folder / name)], check=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    path = f"{os.path.dirname(os.path.realpath(sys.executable))}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    config = folder / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/client.pub\nPidFile none\n"
        "AuthenticationMethods publickey\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\n"
        f"PermitRootLogin prohibit-password\nLogLevel VERBOSE\nSetEnv HOME={home} PATH={path}\n"
    )
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    log = folder / "sshd.log"
    with log.open("wb") as out:
        sshd = subprocess.Popen([SSHD, "-D", "-e", "-f", str(config)], stderr=out, stdin=subprocess.DEVNULL, start_new_session=True)
    made = Machine(home, port, folder / "client", " ".join((folder / "host.pub").read_text().split()[:2]), log, vllm)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert sshd.poll() is None, log.read_text()
            time.sleep(0.02)
        yield made
    finally:
        sshd.terminate()
        sshd.wait(10)
        for pid in made.processes():  # what a failed test left: nobody else will end it
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def listening(pids: Iterable[int]) -> set[tuple[str, int]]:
    """The addresses and ports on which any of these processes waits for connections."""
    sockets = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for fd in os.scandir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    sockets |= set(re.findall(r"^socket:\[(\d+)\]$", os.readlink(fd.path)))
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if os.path.exists(table):
            for row in Path(table).read_text().splitlines()[1:]:
                columns = row.split()
                if columns[3] == LISTEN and columns[9] in sockets:
                    found.add(_address(columns[1]))
    return found


def _address(text: str) -> tuple[str, int]:
    """As the kernel writes it: words of four bytes, each in the processor's own order."""
    packed, port = text.split(":")
    words = [bytes.fromhex(packed[at : at + 8]) for at in range(0, len(packed), 8)]
    raw = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    return str(ipaddress.ip_address(raw)), int(port, 16)


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""  # it ended, or it is another user's


def _link(pid: int, name: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/{name}")
    except OSError:
        return ""
