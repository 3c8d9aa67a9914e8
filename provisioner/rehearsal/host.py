"""One simulated machine: `python -P -m provisioner.rehearsal.host --root DIR`, started by the simulated cloud.

It reads one JSON document on stdin (host_spec.py), boots (cloud-init's early stage, then sshd), prints one line
`{"port":N,"pid":P}` when sshd answers on 127.0.0.1:N, and lives until one of these:

    the guest powers itself off (a timer, `systemctl poweroff`, `shutdown`)   exit 0
    SIGTERM: the cloud took the machine away                                  exit 143
    stdin ends: the cloud died                                                exit 129

Whichever it is, every connection is closed and every process that ever ran on the machine is dead before it exits.
Later lines on stdin `{"faults":{…}}` change the faults, and `{"notice":{…}}` is EC2's spot notice. The main thread is the
machine's init (host_init.py).

This is no security sandbox and no container: commands run as whoever started it, with real files and real ports
of this computer. It keeps a rehearsal's files and processes together, so that they can all be removed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import select
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .host_cloudinit import BadUserData, CloudInit, UserData, parse_user_data
from .host_gpu import NvidiaSmi
from .host_imds import Metadata
from .host_init import Init, MachineOff
from .host_listen import listeners, ss
from .host_shims import Answer, Control, Shutdown, cloud_init, df, install, ssh_keygen, timedatectl
from .host_spec import BadSpec, Faults, Spec, parse_spec
from .host_ssh import Door, Sshd, load_host_key, new_host_key
from .host_systemctl import Systemctl
from .host_systemdrun import journal, systemd_run
from .host_units import Units

NVME = "opt/dlami/nvme"
POWERED_OFF, HUNG_UP, TAKEN_AWAY = 0, 129, 143
FOLDERS = ("home/ubuntu/.ssh", "root", "tmp", "etc/ssh", "etc/systemd/system", "usr/local/lib", "usr/local/bin", "var/log", "var/lib/cloud")


class Machine:
    def __init__(self, spec: Spec, root: Path) -> None:
        self.spec, self.root = spec, root
        for name in FOLDERS:
            (root / name).mkdir(parents=True, exist_ok=True)
        (root / "home/ubuntu/.ssh").chmod(0o700)
        if spec.nvme_gib:
            (root / NVME).mkdir(parents=True, exist_ok=True)
        self._log_lock = threading.Lock()
        self.control = Control(self.answer)
        self.faults = Faults(spec.faults)
        self.init = Init(root)
        self.units = Units(root, self.init, self.env, self.log)
        self.units.refused = lambda name: name == "gpulease-deadline.timer" and self.faults.on("no_timer")
        self.sshd = Sshd(root, self.init, self.env, self.log)
        self.door = Door()
        self.metadata = Metadata(spec, lambda: self.faults.on("no_metadata"))
        self.shutdown = Shutdown(self.power)
        self.sshd.refuses = self.shutdown.nologin
        self.smi = NvidiaSmi(root, spec.gpus, self.faults)
        self.systemctl = Systemctl(self.units, self.power, self.read_host_key, self.state)
        self.user_data, self.wrong = UserData(), ""
        try:
            self.user_data = parse_user_data(spec.user_data)
        except BadUserData as e:
            self.wrong = str(e)
        self.cloud = CloudInit(root, self.user_data, self.run_as_root)
        self.ending: int | None = None
        self.booting = True
        self._cut_done = self._told_requests = False
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_w, False)
        os.set_blocking(self._wake_r, False)
        install(root, self.control.path)
        (root / "home/ubuntu/.ssh/authorized_keys").write_text("".join(k + "\n" for k in self.user_data.authorized_keys))
        key = self.user_data.host_key
        self.write_host_key(new_host_key() if key is None or self.faults.on("wrong_host_key") else key)

    def env(self) -> dict[str, str]:
        root = self.root
        return {
            "PATH": f"{root}/bin:{root}/usr/local/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": f"{root}/home/ubuntu",
            "USER": "ubuntu",
            "LOGNAME": "ubuntu",
            "SHELL": "/bin/sh",
            "LANG": "C.UTF-8",
            "TMPDIR": f"{root}/tmp",
            "GPULEASE_ROOT": str(root),
            "GPULEASE_SIMULATED": "1",
        }

    def log(self, line: str) -> None:
        with self._log_lock, open(self.root / "var/log/syslog", "a") as f:
            f.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}Z {line}\n")

    def run_as_root(self, argv: list[str], out: int) -> int:
        env = self.env() | {"HOME": f"{self.root}/root", "USER": "root", "LOGNAME": "root", "INSTANCE_ID": self.spec.instance}
        return self.init.run(argv, env=env, cwd=self.root, out=out)

    def write_host_key(self, key: str) -> None:
        path = self.root / "etc/ssh/ssh_host_ed25519_key"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
            f.write(key if key.endswith("\n") else key + "\n")
        self.read_host_key()

    def read_host_key(self) -> None:
        """What a restart of sshd does. A key that cannot be read leaves the old one, and the log says so."""
        text = (self.root / "etc/ssh/ssh_host_ed25519_key").read_text()
        try:
            public = load_host_key(text)
        except Exception as e:  # paramiko raises whatever its parser met
            self.log(f"sshd: cannot read the host key: {type(e).__name__}")
            return
        self.sshd.host_key = text
        (self.root / "etc/ssh/ssh_host_ed25519_key.pub").write_text(
            f"{public.get_name()} {public.get_base64()} root@{self.spec.instance}\n"
        )

    def state(self) -> str:
        return "running" if self.cloud.finished else "starting"

    def boot(self, *, first: bool) -> None:
        if first:
            time.sleep(self.faults.number("boot_delay_s") or 0.0)
        self._fresh_run()
        self.log(f"boot: {self.spec.instance} {self.spec.type} SIMULATED")
        self.units.boot()
        self.cloud.early(first=first)
        if self.wrong:
            self.cloud.fail(self.wrong)
        self.units.reach_sysinit()
        if self.faults.on("never_boots"):
            self.log("boot: SIMULATED fault: never_boots")
            return
        self.door.open(self.sshd.accept)
        if first:
            print(json.dumps({"port": self.door.port, "pid": os.getpid()}), flush=True)
            cut = self.faults.number("drop_ssh_after_s")
            if cut is not None:
                threading.Timer(cut, self.cut_ssh).start()
        self.cloud.late(first=first)
        self.booting = False

    def _fresh_run(self) -> None:
        """What is empty after every boot."""
        shutil.rmtree(self.root / "run", ignore_errors=True)
        for name in ("run/systemd/system", "run/gpu", "run/listen", "run/cloud-init", "proc/sys/kernel/random"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        boot_id = secrets.token_hex(16)
        (self.root / "proc/sys/kernel/random/boot_id").write_text(
            "-".join((boot_id[:8], boot_id[8:12], boot_id[12:16], boot_id[16:20], boot_id[20:])) + "\n"
        )
        boards = [{"name": g.name, "memory_mib": g.memory_mib, "cc": g.compute_cap, "driver": g.driver} for g in self.smi.boards()]
        (self.root / "run/machine.json").write_text(json.dumps({"control": str(self.control.path), "gpus": boards, "type": self.spec.type}))
        self.faults.write(self.root / "run/faults.json")
        self.uptime()

    def uptime(self) -> None:
        """For guards that count from the boot: the real /proc/uptime is this computer's, not the machine's."""
        path = self.root / "proc/uptime"
        part = path.with_name("uptime.part")
        part.write_text(f"{time.monotonic() - self.units.booted:.2f} 0.00\n")
        part.replace(path)

    def answer(self, name: str, argv: list[str]) -> Answer:
        """What a shim asks."""
        match name:
            case "systemctl":
                return self.systemctl.run(argv)
            case "systemd-run":
                return systemd_run(self.units, argv)
            case "journalctl":
                return journal(self.root, argv)
            case "shutdown" | "poweroff" | "halt" | "reboot":
                return self.shutdown.run(name, argv)
            case "nvidia-smi":
                return self.smi.run(argv)
            case "ss":
                return ss(argv, lambda: listeners(self.root, self.init.members(), self.faults))
            case "df":
                free = self.faults.number("disk_free_gib")
                if self.spec.nvme_gib and argv and argv[-1].startswith(str(self.root / NVME)):
                    room = self.spec.nvme_gib - 1 if free is None else int(free)
                    return df(argv, self.spec.nvme_gib, room, ("/dev/vg.01/lv_ephemeral", f"/{NVME}"))
                return df(argv, self.spec.disk_gib, None if free is None else int(free))
            case "timedatectl":
                return timedatectl(argv)
            case "cloud-init":
                return cloud_init(argv, lambda: self.cloud.finished, self.cloud.errors)
            case "curl":
                return self.metadata.curl(argv)
            case "ssh-keygen":
                return ssh_keygen(argv)
            case "requests":  # the simulated server counts what it has answered
                self._requests(int(argv[0]) if argv else 0)
                return 0, "", ""
        return 127, "", f"SIMULATED: unknown command {name}\n"

    def _requests(self, answered: int) -> None:
        limit = self.faults.number("drop_ssh_after_requests")
        if limit is not None and not self._cut_done and answered >= limit:
            threading.Thread(target=self.cut_ssh, daemon=True).start()
        limit = self.faults.number("spot_notice_after_requests")
        if limit is not None and not self._told_requests and answered >= limit:
            self._told_requests = True
            print(json.dumps({"requests": answered}), flush=True)  # the cloud decides what follows from it

    def cut_ssh(self) -> None:
        """The network goes: connections close, nobody answers for a while."""
        self._cut_done = True
        seconds = self.faults.number("drop_ssh_for_s")
        self.log(f"network: SIMULATED fault: SSH is cut for {'ever' if seconds is None else f'{seconds:g} s'}")
        self.door.shut()
        self.sshd.cut()
        if seconds is not None:
            time.sleep(seconds)
            if self.ending is None:
                self.door.open(self.sshd.accept)

    def power(self, verb: str) -> None:
        """A guest's own power-off or reboot: the answer to whoever asked leaves first."""
        self.log(f"power: {verb}")
        timer = threading.Timer(0.05, self._reboot if verb == "reboot" else self.end, [] if verb == "reboot" else [POWERED_OFF])
        timer.daemon = True
        timer.start()

    def _reboot(self) -> None:
        self.shutdown.cancel()
        self.door.shut()
        self.sshd.cut()
        self.booting = True
        self.init.end_all(grace=0.2)
        self.init.closed = False
        self.boot(first=False)

    def end(self, code: int) -> None:
        if self.ending is None:
            self.ending = code
        with contextlib.suppress(OSError):
            os.write(self._wake_w, b"\0")

    def live(self, heard: bytes = b"") -> int:
        """The main thread: reaps, ticks, listens to the cloud. Returns the exit code when all is over."""
        signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self.end(TAKEN_AWAY))
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # what ends the cloud ends us through stdin
        threading.Thread(target=self._boot, name="boot", daemon=True).start()
        heard = self._hear(heard)
        next_tick = time.monotonic() + 1.0
        while self.ending is None:
            ready, _, _ = select.select([0, self._wake_r], [], [], max(0.0, next_tick - time.monotonic()))
            if self._wake_r in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_r, 4096)
            self.init.reap()
            if time.monotonic() >= next_tick:
                next_tick = time.monotonic() + 1.0
                self.init.tick()
                with contextlib.suppress(OSError):
                    self.uptime()
            if 0 in ready:
                data = os.read(0, 65536)
                if not data:
                    self.log("power: the cloud is gone")
                    self.end(HUNG_UP)
                heard = self._hear(heard + data)
        return self._over(self.ending if self.ending is not None else HUNG_UP)

    def _boot(self) -> None:
        try:
            self.boot(first=True)
        except MachineOff:
            pass
        except Exception:  # the thread ends here, and a machine that cannot boot must not look as if it were slow
            traceback.print_exc()
            self.end(1)

    def _hear(self, heard: bytes) -> bytes:
        *lines, rest = heard.split(b"\n")
        for line in lines:
            if line.strip():
                try:
                    doc: Any = json.loads(line)
                    if "notice" in doc:
                        self.metadata.notice(doc["notice"])
                        self.log(f"spot: SIMULATED notice: {json.dumps(doc['notice'])}")
                        continue
                    self.faults.update(doc["faults"])
                    self.log(f"faults: {json.dumps(self.faults.document(), sort_keys=True)}")
                except (ValueError, KeyError, TypeError) as e:
                    self.log(f"stdin: a line was not understood: {e}")
        return rest

    def _over(self, code: int) -> int:
        self.log(f"power: ending, exit {code}")
        self.init.closed = True
        self.door.shut()
        self.sshd.cut()
        left = self.init.end_all(grace=0.1 if code == POWERED_OFF else 0.0)
        if left:
            self.log(f"power: could not end {left}")
        self.control.close()
        return code


def read_document(fd: int) -> tuple[str, bytes]:
    """The JSON document that stdin begins with, which need not end with a newline, and what was read beyond it."""
    heard = b""
    while data := os.read(fd, 65536):
        heard += data
        with contextlib.suppress(ValueError):
            text = heard.decode()
            _, end = json.JSONDecoder().raw_decode(text.lstrip())
            end += len(text) - len(text.lstrip())
            return text[:end], text[end:].encode()
    return heard.decode("utf-8", "replace"), b""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -P -m provisioner.rehearsal.host", description="One simulated machine (see the module's text)."
    )
    parser.add_argument("--root", required=True, type=Path, help="the folder that is the machine's file system")
    options = parser.parse_args(argv)
    try:
        text, beyond = read_document(0)
        spec = parse_spec(text)
    except BadSpec as e:
        print(f"host: {e}", file=sys.stderr)
        return 2
    threading.stack_size(512 * 1024)  # many short threads, none deep
    socket.setdefaulttimeout(None)
    root = options.root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(0o700)  # a host key is in it
    return Machine(spec, root).live(beyond)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # Threads that wait for a client or a timer must not hold the exit.
    os._exit(code)
