"""The commands of a simulated machine: small scripts in ROOT/bin, first on PATH, and what the machine answers to them.

Most of them ask this process over a Unix socket (`shims/ask.py`), because it knows: units, boards, listeners,
whether the boot is over. The socket has a short path of its own, since a root may be deeper than a socket's name
may be long. Commands that would change the user's computer (apt-get, docker, mount …) are named here too, and do
nothing or are refused: a rehearsal must be safe to try.

Must not know how a machine is powered off, only whom to tell.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from .host_ssh import load_host_key, new_host_key
from .unit_text import show_instant

Answer = tuple[int, str, str]
ASK = (
    "systemctl",
    "systemd-run",
    "journalctl",
    "shutdown",
    "poweroff",
    "halt",
    "reboot",
    "timedatectl",
    "nvidia-smi",
    "ss",
    "df",
    "cloud-init",
    "ssh-keygen",
)
COPIED = {
    "sudo": ("sudo", "runuser"),
    "chown": ("chown", "chgrp"),
    "install": ("install",),
    "python3": ("python3",),
    "pip": ("pip", "pip3", "uv"),
    "curl": ("curl",),
}
REFUSED = ("docker", "podman", "useradd", "mount", "umount", "iptables", "nft", "ufw")
IDLE = ("apt-get", "apt", "snap", "sysctl", "modprobe", "nvidia-persistenced", "swapoff", "hostnamectl", "loginctl")
SHIMS = Path(__file__).parent / "shims"
GIB = 1 << 30
PREFIX = "gpulease-host-"


def install(root: Path, control: Path) -> None:
    """Write ROOT/bin. Scripts of sh, because a path may be longer than a `#!` line may be."""
    folder = root / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    python = os.path.realpath(sys.executable)
    asking = [python, "-I", "-S", str(SHIMS / "ask.py"), str(control)]
    fill = {"@BIN@": str(folder), "@PYTHON@": shlex.quote(python), "@ASK@": shlex.join(asking)}

    def write(name: str, text: str) -> None:
        path = folder / name
        path.write_text(text)
        path.chmod(0o755)

    for name in ASK:
        write(name, f'#!/bin/sh\nexec {shlex.join([*asking, name])} "$@"\n')
    copies = COPIED | {"refuse": REFUSED, "nothing": IDLE}
    for script, names in copies.items():
        text = (SHIMS / script).read_text()
        for mark, value in fill.items():
            text = text.replace(mark, value)
        for name in names:
            write(name, text)
    library = root / "lib"
    library.mkdir(exist_ok=True)
    for name in ("vllm", "sglang"):
        # Its own file, so that the process list shows `python3 …/lib/vllm serve MODEL` as on a real machine.
        lines = [f"sys.path.append({str(SHIMS.parents[2])!r})", "from provisioner.rehearsal.model_server import main", f"main({name!r})"]
        (library / name).write_text("\n".join(["import sys", *lines]) + "\n")
        write(name, f'#!/bin/sh\nexec {shlex.join([python, "-I", "-S", str(library / name)])} "$@"\n')


class Control:
    """The Unix socket that the shims ask. One thread per question: some answers wait."""

    def __init__(self, answer: Callable[[str, list[str]], Answer]) -> None:
        self._answer = answer
        # Not in TMPDIR: on macOS that is already half as long as a socket's name may be.
        _forget_dead(Path("/tmp"))
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))
        self.path = self.folder / "s"
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.bind(str(self.path))
        self._sock.listen(64)
        threading.Thread(target=self._serve, name="control", daemon=True).start()

    def close(self) -> None:
        self._sock.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._sock.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(link,), daemon=True).start()

    def _one(self, link: socket.socket) -> None:
        with link, contextlib.suppress(OSError):
            asked = b""
            while data := link.recv(65536):
                asked += data
            words = [os.fsdecode(w) for w in asked.split(b"\0")]
            if len(words) < 2:
                return
            name, _cwd, *argv = words
            code, out, err = self._answer(name, argv)
            first = out.encode(errors="surrogateescape")
            link.sendall(b"%d %d\n" % (code, len(first)) + first + err.encode(errors="surrogateescape"))


def _forget_dead(where: Path) -> None:
    """Sockets of machines that were killed before they could clean up: ours, older than a minute, and nobody answers."""
    for folder in where.glob(PREFIX + "*"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            seen = folder.stat()
            if seen.st_uid == os.getuid() and time.time() - seen.st_mtime > 60 and link.connect_ex(str(folder / "s")) == errno.ECONNREFUSED:
                shutil.rmtree(folder, ignore_errors=True)


class Shutdown:
    """A shutdown that was announced: `shutdown +N`. In its last five minutes nobody may log in (pam_nologin)."""

    def __init__(self, power: Callable[[str], None]) -> None:
        self._power = power
        self._timer: threading.Timer | None = None
        self._at = 0.0

    def run(self, name: str, argv: Sequence[str]) -> Answer:
        if name == "halt" and "-p" not in argv and "--poweroff" not in argv:
            return 0, "", "SIMULATED: halt stops the system but does not power off an EC2 instance; it stays running and billed.\n"
        if name != "shutdown":
            self._power("reboot" if name == "reboot" or "--reboot" in argv else "poweroff")
            return 0, "", ""
        letters = {c for word in argv if word.startswith("-") and not word.startswith("--") for c in word[1:]}
        if "c" in letters:
            self.cancel()
            return 0, "", ""
        verb = "reboot" if "r" in letters or "--reboot" in argv else "poweroff"
        when = next((word for word in argv if not word.startswith("-")), "+1")
        if when == "now" or when == "+0":
            self._power(verb)
            return 0, "", ""
        try:
            if ":" in when:
                hour, minute = (int(x) for x in when.split(":"))
                seconds = (hour * 3600 + minute * 60 - time.time() % 86400) % 86400
            else:
                seconds = int(when.lstrip("+")) * 60.0
        except ValueError:
            return 1, "", f"Failed to parse time specification: {when}\n"
        self.cancel()
        self._at = time.time() + seconds
        self._timer = threading.Timer(seconds, self._power, [verb])
        self._timer.daemon = True
        self._timer.start()
        word = "Reboot" if verb == "reboot" else "Shutdown"
        return 0, "", f"{word} scheduled for {show_instant(self._at)}, use 'shutdown -c' to cancel.\n"

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._at = None, 0.0

    def nologin(self) -> str:
        return "System is going down" if self._at and self._at - time.time() < 300 else ""


def df(argv: Sequence[str], total_gib: int, free_gib: int | None, volume: tuple[str, str] = ("/dev/root", "/")) -> Answer:
    """One volume: a file system of the machine's disk size with an image's worth of it used."""
    size = total_gib * GIB
    free = (max(0, total_gib - 28) if free_gib is None else free_gib) * GIB
    block, posix, human, output = 1024, False, False, ""
    for word in argv:
        if word.startswith("--output="):
            output = word[9:]
        elif word.startswith(("-B", "--block-size=")):
            unit = word[2:] if word.startswith("-B") else word.partition("=")[2]
            block = {"1": 1, "K": 1024, "1K": 1024, "M": 1 << 20, "1M": 1 << 20, "G": GIB, "1G": GIB}.get(unit, 1024)
        elif word.startswith("-") and not word.startswith("--"):
            posix, human = posix or "P" in word, human or "h" in word or "H" in word
            block = {"m": 1 << 20, "b": 1}.get(word[-1], block)
        elif word == "--human-readable":
            human = True
    suffix = "" if block in (1, 1024) else {1 << 20: "M", GIB: "G"}[block]

    def show(count: int) -> str:
        return f"{round(count / GIB)}G" if human else f"{-(-count // block)}{'' if posix else suffix}"

    used = size - free
    title = (
        "Size"
        if human
        else "1024-blocks"
        if posix and block == 1024
        else {1: "1B-blocks", 1024: "1K-blocks"}.get(block, f"1{suffix}-blocks")
    )
    cells = {
        "source": volume[0],
        "fstype": "ext4",
        "size": show(size),
        "used": show(used),
        "avail": show(free),
        "pcent": f"{used * 100 // size}%",
    }
    cells["target"] = volume[1]
    heads = {"source": "Filesystem", "fstype": "Type", "size": title, "used": "Used", "target": "Mounted on"}
    heads |= {"avail": "Avail" if human or output else "Available", "pcent": "Capacity" if posix else "Use%"}
    fields = output.split(",") if output else ["source", "size", "used", "avail", "pcent", "target"]
    if any(f not in cells for f in fields):
        return 1, "", f"df: option --output: field '{next(f for f in fields if f not in cells)}' unknown\n"
    # As df does: one line for each path asked about, though all of them are on the one volume.
    line = " ".join(cells[f] for f in fields) + "\n"
    return 0, f"{' '.join(heads[f] for f in fields)}\n" + line * max(1, sum(not word.startswith("-") for word in argv)), ""


def ssh_keygen(argv: Sequence[str]) -> Answer:
    """A new ed25519 key without a passphrase, which is all that a machine is asked for: not every computer has OpenSSH."""
    given = dict(pairwise(argv))
    path = Path(given.get("-f", ""))
    if given.get("-t") != "ed25519" or given.get("-N") != "" or not path.is_absolute():
        return 1, "", "SIMULATED: ssh-keygen makes ed25519 keys without a passphrase, at an absolute path, and does nothing else\n"
    if path.exists():
        return 1, f"{path} already exists.\nOverwrite (y/n)? ", ""
    text = new_host_key()
    public = load_host_key(text)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
        f.write(text)
    words = [public.get_name(), public.get_base64(), given.get("-C", "")]
    path.with_name(path.name + ".pub").write_text(" ".join(words).strip() + "\n")
    return 0, "", ""


def timedatectl(argv: Sequence[str]) -> Answer:
    facts = {
        "Timezone": "Etc/UTC",
        "LocalRTC": "no",
        "CanNTP": "yes",
        "NTP": "yes",
        "NTPSynchronized": "yes",
        "TimeUSec": show_instant(time.time()),
    }
    words = list(argv)
    asked = [w.partition("=")[2] for w in words if w.startswith("--property=")]
    asked += [words[i + 1] for i, w in enumerate(words[:-1]) if w in ("-p", "--property")]
    names = [n for a in asked for n in a.split(",")]
    if "show" in words:
        shown = [(k, v) for k, v in facts.items() if not names or k in names]
        return 0, "".join((v if "--value" in words else f"{k}={v}") + "\n" for k, v in shown), ""
    out = f"           Universal time: {facts['TimeUSec']}\n                Time zone: Etc/UTC (UTC, +0000)\n"
    return 0, out + "System clock synchronized: yes\n              NTP service: active\n", ""


def cloud_init(argv: Sequence[str], finished: Callable[[], bool], errors: Sequence[str]) -> Answer:
    if "--version" in argv or "-v" in argv:
        return 0, "/usr/bin/cloud-init 25.2 (SIMULATED)\n", ""
    if "status" not in argv:
        return 1, "", f"SIMULATED: cloud-init {' '.join(argv)[:60]} is not simulated\n"
    while "--wait" in argv and not finished():
        time.sleep(0.02)
    status = "error" if errors else "done" if finished() else "running"
    detail = "".join(f"\t- {e}\n" for e in errors) if "--long" in argv else ""
    return (1 if errors else 0), f"status: {status}\n{'errors:' + chr(10) + detail if detail else ''}", ""
