"""`ss -ltn` as a simulated machine answers it: sshd on port 22 everywhere, and what the machine's own processes listen on.

On Linux the listeners are read from /proc: the sockets held by processes of this machine, whatever they say of
themselves. A simulated server also writes ROOT/run/listen/<port> ("ADDRESS PORT PID NAME"), and that file wins for
its port: asked for 0.0.0.0 it binds loopback all the same, so that a rehearsal never opens a port of somebody's
laptop, but it must be *seen* as open, because that is what the check on a rented machine would find.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .host_spec import Faults
from .unit_text import columns

LISTEN = "0A"


@dataclass(frozen=True, order=True)
class Listener:
    port: int
    address: str
    pid: int
    name: str
    fd: int = 3


def listeners(root: Path, members: set[int], faults: Faults) -> list[Listener]:
    found: dict[int, Listener] = {}
    if sys.platform == "linux":
        for listener in _from_proc(members):
            found[listener.port] = listener
    folder = root / "run/listen"
    for path in folder.iterdir() if folder.is_dir() else ():
        try:
            address, port, pid, name = path.read_text().split(maxsplit=3)
            os.kill(int(pid), 0)
            found[int(port)] = Listener(int(port), address, int(pid), name.strip())
        except (OSError, ValueError):
            continue
    if faults.on("bind_all"):
        found = {port: Listener(port, "0.0.0.0", entry.pid, entry.name, entry.fd) for port, entry in found.items()}
    return sorted(found.values())


def ss(argv: Sequence[str], entries: Callable[[], list[Listener]]) -> tuple[int, str, str]:
    letters, header = "", True
    for word in argv:
        if word in ("--no-header", "-H"):
            header = False
        elif word.startswith("--"):
            long = {"--listening": "l", "--tcp": "t", "--numeric": "n", "--processes": "p", "--udp": "u", "--all": "a"}
            if word not in long:
                return 255, "", f"ss: unrecognized option '{word}'\n"
            letters += long[word]
        elif word.startswith("-"):
            letters += word[1:]
        else:
            return 255, "", f"SIMULATED: ss takes no filter here: {word!r}\n"
    if "H" in letters:
        header = False
    if "l" not in letters or ("u" in letters and "t" not in letters):
        return 0, "", ""
    shown = [("127.0.0.53%lo:53", 'users:(("systemd-resolve",pid=402,fd=15))'), ("0.0.0.0:22", 'users:(("sshd",pid=811,fd=3))')]
    for entry in entries():
        address = f"[{entry.address}]" if ":" in entry.address else entry.address
        shown.append((f"{address}:{entry.port}", f'users:(("{entry.name}",pid={entry.pid},fd={entry.fd}))'))
    shown.append(("[::]:22", 'users:(("sshd",pid=811,fd=4))'))
    rows = [["State", "Recv-Q", "Send-Q", "Local Address:Port", "Peer Address:Port", "Process"]] if header else []
    for local, who in shown:
        peer = "[::]:*" if local.startswith("[") else "0.0.0.0:*"
        rows.append(["LISTEN", "0", "2048" if ":22" not in local else "128", local, peer, who if "p" in letters else ""])
    return 0, columns(rows), ""


def _from_proc(members: set[int]) -> list[Listener]:
    sockets: dict[str, tuple[str, int]] = {}
    for table, family in (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6)):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if words[3] == LISTEN:
                address, _, number = words[1].partition(":")
                sockets[words[9]] = (_address(address, family), int(number, 16))
    found: list[Listener] = []
    for pid in members - {os.getpid()}:
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            for fd in os.listdir(f"/proc/{pid}/fd"):
                target = os.readlink(f"/proc/{pid}/fd/{fd}")
                if target.startswith("socket:[") and target[8:-1] in sockets:
                    address, port = sockets[target[8:-1]]
                    found.append(Listener(port, address, pid, name, int(fd)))
        except OSError:
            continue
    return found


def _address(text: str, family: socket.AddressFamily) -> str:
    words = [struct.pack("=I", int(text[i : i + 8], 16)) for i in range(0, len(text), 8)]
    return socket.inet_ntop(family, b"".join(words))
