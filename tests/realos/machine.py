"""A machine that boots: systemd, cloud-init and OpenSSH of a real distribution in a container with a network of its own.

Its disk is an overlay over the tree of tools/real-os.sh, so that a boot costs seconds and a reboot keeps what was written.
Its user data is what a test hands over, byte for byte; what an image would bring along (no locales, a host name that
resolves) stands in the vendor data, which cloud-init keeps apart.

Everything lives in namespaces and control groups of its own that end with the tests, however these end. The console
is a file; a reboot is what the loop in `_LIFE` makes of the container's exit code for one. The clock is this computer's,
wall clock and uptime: a container has none of its own, so a wrong clock is shown by a deadline that lies elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from provisioner.remote import bootstrap
from provisioner.remote.keys import KeyPair, client_pair, host_pair
from provisioner.remote.ssh import SshHost, wait_for_ssh

LEASE = "r-20261121t140210z-0123abcd"
USER = "debian"  # Debian's own cloud.cfg names it
PROGRAMS = ("systemd-nspawn", "unshare", "setpriv", "nsenter", "ip", "nft", "mount")
CLEAN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

_LIFE = """
for at in /sys/fs/cgroup/unified /sys/fs/cgroup/systemd /sys/fs/cgroup; do
  [ -e "$at/cgroup.procs" ] && mkdir "$at/$3" && echo $$ > "$at/$3/cgroup.procs"
done
ip link set lo up
: > "$1/started"
read -r go < "$1/go" || exit 90
mount --make-rprivate / && mkdir -p "$1/upper" "$1/work" "$1/root" || exit 91
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/root" || exit 92
while :; do
  systemd-nspawn -q -D "$1/root" -M "$3" -b --register=no --keep-unit --network-namespace-path=/proc/self/ns/net \
    --console=read-only --resolv-conf=off --timezone=off --link-journal=no --capability=CAP_NET_ADMIN
  code=$?
  echo "== ended with $code"
  [ $code = 133 ] || exit $code
  while [ -e "$1/hold" ]; do sleep 0.1; done
done
"""

# Whatever ends the tests ends the machine too: it must not live on to its deadline on this computer.
_DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "unshare", "-m", "-n", "-p", "-f", "--kill-child", "--mount-proc")

VENDOR = "#cloud-config\nlocale: false\nmanage_etc_hosts: true\n"


@dataclass(frozen=True)
class End:
    """How a machine ended: the exit code of its container, when (seconds since 1970), and all that its console showed."""

    code: int
    at: float
    console: str

    @property
    def fired(self) -> list[str]:
        """What the power-off script said, once for each time that it began."""
        return re.findall(r"gpulease: power off: (.*)$", self.console, re.M)


class Machine:
    def __init__(self, folder: Path, tree: Path) -> None:
        folder.mkdir(parents=True)
        self.folder, self.tree, self.name = folder, tree, f"gl-{secrets.token_hex(6)}"
        self.client: KeyPair = client_pair(folder / "keys")
        self.host: KeyPair = host_pair(folder / "keys")
        self.address, self.deadline, self.told = "", 0, b""
        self._life: subprocess.Popen[bytes] | None = None
        self._end: End | None = None

    def write(self, path: str, text: str | bytes, mode: int = 0o644) -> None:
        """Put a file on its disk before it boots."""
        there = self.folder / "upper" / path.lstrip("/")
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(text.encode() if isinstance(text, str) else text)
        there.chmod(mode)

    def unit(self, name: str, text: str, wanted_by: str) -> None:
        self.write(f"/etc/systemd/system/{name}", text)
        wants = self.folder / "upper/etc/systemd/system" / f"{wanted_by}.wants"
        wants.mkdir(parents=True, exist_ok=True)
        (wants / name).symlink_to(f"/etc/systemd/system/{name}")

    def without(self, *timers: str) -> None:
        """Its guards but for these: they are written, started and read back like the others, and due in another year."""
        for timer in timers:
            when = "OnCalendar=\nOnCalendar=2099-01-01" if timer == bootstrap.DEADLINE else "OnActiveSec=\nOnActiveSec=99d"
            self.write(f"/etc/systemd/system/{timer}.d/late.conf", f"[Timer]\n{when}\n")

    def born(self, deadline_in: float, *, network: bool = True, **more: int) -> None:
        """Boot with what the product tells a machine whose deadline is so many seconds away."""
        self.deadline = int(time.time() + deadline_in)
        self.boot(
            bootstrap.user_data(
                lease=LEASE,
                deadline_epoch=self.deadline,
                client_public=self.client.public,
                host_private=self.host.private_text(),
                host_public=self.host.public,
                **more,
            ).reveal_bytes(),
            network,
        )

    def boot(self, user_data: bytes, network: bool = True) -> None:
        seed, self.told = "/var/lib/cloud/seed/nocloud", user_data
        self.write(f"{seed}/user-data", user_data)
        self.write(f"{seed}/vendor-data", VENDOR)
        self.write(f"{seed}/meta-data", f"instance-id: i-{self.folder.name}\nlocal-hostname: {self.folder.name}\n")
        os.mkfifo(self.folder / "go")
        with (self.folder / "console").open("wb") as console:
            self._life = subprocess.Popen(
                [*_DIES_WITH_US, "sh", "-c", _LIFE, "life", str(self.folder), str(self.tree), self.name],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        while not (self.folder / "started").exists():
            assert self._life.poll() is None, self.console
            time.sleep(0.01)
        ours = self._plug_in(self._life.pid)
        self.write(
            f"{seed}/network-config",
            f"version: 1\nconfig:\n- type: physical\n  name: eth0\n  subnets:\n  - type: static\n    address: {self.address}/30\n"
            f"    gateway: {ours}\n",
        )
        if not network:
            self.cut()
        (self.folder / "go").write_text("go\n")

    def ssh(self, within: float = 60.0, host_key: str = "") -> AbstractContextManager[SshHost]:
        """As the product logs in: our key, and the host key that the user data carries (or this one) and nothing else."""
        return wait_for_ssh(
            self.address,
            22,
            USER,
            client_key=self.client.private,
            host_key=host_key or self.host.public,
            within=within,
            timeout=10.0,
            pause=0.2,
        )

    def cut(self) -> None:
        """Nothing in and nothing out any more, not even on its own loopback."""
        self._inside(
            "nft",
            "add table inet cut; add chain inet cut in { type filter hook input priority 0; policy drop; };"
            " add chain inet cut out { type filter hook output priority 0; policy drop; }",
        )

    def end(self, within: float) -> End:
        """Wait until it has powered itself off."""
        assert self._life is not None
        if self._end is None:
            code = self._life.wait(within)
            # The console's last write is the moment: whoever waits may come later.
            self._end = End(code, (self.folder / "console").stat().st_mtime, self.console)
        return self._end

    @property
    def up(self) -> bool:
        return self._life is not None and self._life.poll() is None

    @property
    def console(self) -> str:
        return CLEAN.sub("", (self.folder / "console").read_bytes().decode("utf-8", "replace")).replace("\r", "")

    def close(self) -> None:
        if self._life is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._life.pid, signal.SIGKILL)  # nspawn's guest goes with it
            self._life.wait(20)
            for left in (Path("/run/systemd/nspawn/propagate"), *(Path("/sys/fs/cgroup") / at for at in ("", "systemd", "unified"))):
                for folder, _, _ in os.walk(left / self.name, topdown=False):
                    with contextlib.suppress(OSError):
                        os.rmdir(folder)
        shutil.rmtree(self.folder / "upper", ignore_errors=True)

    def _plug_in(self, pid: int) -> str:
        """A cable between this computer and the machine. The range is the one that is kept for tests of networks."""
        for at in range(1 << 12):
            base = (198 << 24) + (18 << 16) + 4 * at
            ours, theirs = (".".join(str((base + n) >> shift & 255) for shift in (24, 16, 8, 0)) for n in (1, 2))
            name = f"glease{at}"
            if subprocess.run(
                ["ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(pid)], capture_output=True
            ).returncode:
                continue  # another machine has it
            subprocess.run(["ip", "address", "add", f"{ours}/30", "dev", name], check=True)
            subprocess.run(["ip", "link", "set", name, "up"], check=True)
            self.address = theirs
            return ours
        raise AssertionError("no cable to be had")

    def _inside(self, *words: str) -> None:
        assert self._life is not None
        subprocess.run(["nsenter", "-n", "-t", str(self._life.pid), *words], check=True)


def reboot(host: SshHost, script: str = "true") -> None:
    host.run(f"{script} && sudo systemctl --no-block reboot")


def wait_for_reboot(guest: Machine, times: int) -> None:
    """Wait until it has gone down so often; the next login is to the next boot."""
    until = time.monotonic() + 60
    while guest.console.count("== ended with 133") < times:
        assert guest.up and time.monotonic() < until, guest.console
        time.sleep(0.1)


@contextlib.contextmanager
def machine(folder: Path, tree: Path) -> Iterator[Machine]:
    made = Machine(folder, tree)
    try:
        yield made
    finally:
        made.close()


def impossible(folder: Path) -> str:
    """Why no machine can boot on this computer, whatever is installed; nothing when one can."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "only root on Linux may boot a container with a network and mounts of its own"
    for name in ("lower", "upper", "work", "root"):
        (folder / name).mkdir()
    script = (
        "ip link add glease0 type veth peer name eth0 && "
        'mount -t overlay overlay -o "lowerdir=$1/lower,upperdir=$1/upper,workdir=$1/work" "$1/root"'
    )
    tried = subprocess.run(["unshare", "-m", "-n", "sh", "-c", script, "try", str(folder)], capture_output=True, text=True)
    return f"no network or mounts of its own here: {tried.stderr.strip()}" if tried.returncode else ""


def missing() -> str:
    """What is not installed."""
    lacking = [name for name in (*PROGRAMS, "mmdebstrap") if not shutil.which(name)]
    return f"not installed: {', '.join(lacking)} (Debian: systemd-container mmdebstrap nftables iproute2)" if lacking else ""
