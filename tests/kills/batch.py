"""Several hundred real processes, killed by real signals: `python -m tests.kills.batch ENDPOINTS FOLDER SEED [N…]`.

This process imports everything, lives one whole lease to warm it up, and then forks a session of its own for each run. It
does to them what their order says, collects them and their watchdogs (it is the subreaper), and writes one line of JSON per run
to FOLDER/ended.jsonl. It judges nothing: who looks afterwards does, with a client that is not ours. With numbers, only those
orders of the seed are run: to see one again.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pty
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from provisioner import rehearsed
from provisioner.ledger import LeaseFolder, alive
from provisioner.model import Requirements
from provisioner.providers.aws import AwsProvider
from tests.kills import victim
from tests.kills.orders import Order, orders

AT_ONCE = 20
LONGEST_S = 400.0
REGION = "us-east-1"
KIB = 320
MEMORY = 96 << 20


@dataclass
class Run:
    """One that is under way."""

    order: Order
    pid: int
    report: Path
    state: Path
    began: float
    master: int = -1
    cgroup: Path | None = None
    done: list[str] = field(default_factory=list)  # what was done to it
    status: int | None = None
    reached: float = 0.0  # when the line was there from which its trouble is counted

    def said(self, word: str) -> str:
        with contextlib.suppress(OSError):
            for line in self.report.read_text().splitlines():
                if line.startswith(word + " "):
                    return line.partition(" ")[2]
        return ""

    def lines(self) -> int:
        """Of its journal."""
        with contextlib.suppress(OSError):
            return (Path(self.said("lease")) / "journal.jsonl").read_bytes().count(b"\n")
        return 0

    @property
    def dog(self) -> int:
        return int(self.said("dog") or 0)


class Batch:
    """The runs, over several clouds in turn: one would be what all wait for."""

    def __init__(self, endpoints: list[str], folder: Path, seed: int) -> None:
        self.folder = folder
        self.providers = [AwsProvider(REGION, endpoint=endpoint) for endpoint in endpoints]
        for provider in self.providers:
            rehearsed.prepare(provider, [REGION])
            provider.check_schedule([REGION])
        self.offer = self.providers[0].offers(Requirements(gpu="L4", gpus=1))[0]
        through, self.line = proxy(endpoints[0], seed)
        self.proxied = AwsProvider(REGION, endpoint=through)
        self.proxied.check_schedule([REGION])
        os.environ["XDG_STATE_HOME"] = str(folder / "warm")
        for provider in self.providers:
            victim.live(Order(-1, "", 0.0, hold_s=0.0, started=True, scheduled=True), provider, self.offer, lambda line: None)
        victim.wire()
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: watchdogs whose owner died are ours to collect
        self.gone: dict[int, int] = {}  # with what status each of them ended

    def run(self, todo: list[Order]) -> None:
        todo, under_way = todo[::-1], list[Run]()
        with (self.folder / "ended.jsonl").open("a") as out:
            while todo or under_way:
                while todo and len(under_way) < AT_ONCE:
                    under_way.append(self.start(todo.pop()))
                self.collect(under_way)
                for run in list(under_way):
                    self.trouble(run)
                    if self.over(run):
                        under_way.remove(run)
                        out.write(json.dumps(self.record(run)) + "\n")
                        out.flush()
                time.sleep(0.01)

    def start(self, order: Order) -> Run:
        report, state = self.folder / f"{order.number}.said", self.folder / "state"
        if order.how == "disk full" and order.number % 2 and self.small_disk(self.folder / f"disk{order.number}"):
            state = self.folder / f"disk{order.number}"
        master, slave = pty.openpty() if order.how == "terminal closed" else (-1, -1)
        pid = os.fork()
        if pid:
            if slave >= 0:
                os.close(slave)
            return Run(order, pid, report, state, time.monotonic(), master)
        try:
            os.setsid()
            os.environ["XDG_STATE_HOME"] = str(state)
            if slave >= 0:
                victim.terminal(slave)
                os.close(master)
            if order.how == "out of memory":
                limit_memory(order.number)
            cloud = self.proxied if order.how == "endpoint cut" else self.providers[order.number % len(self.providers)]
            victim.ended(victim.live(order, cloud, self.offer, victim.report(report)))
        except BaseException:
            import traceback

            traceback.print_exc()
            victim.ended(70)
        raise AssertionError

    def small_disk(self, at: Path) -> bool:
        at.mkdir(mode=0o700)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={KIB}k,mode=0700", "gpulease-kills", str(at)], capture_output=True)
        return mounted.returncode == 0

    def trouble(self, run: Run) -> None:
        """Do to it what its order says, when it is time."""
        order = run.order
        if not run.reached and run.lines() > order.line:
            run.reached = time.monotonic()
        age = time.monotonic() - run.reached if run.reached else -1.0
        if order.point or (run.done and order.how != "stopped and continued") or age < order.after_s:
            return
        match order.how:
            case "the run":
                self.kill(run, run.pid, "SIGKILL")
            case "its process group":
                self.kill(run, -run.pid, "SIGKILL")
            case "its watchdog" if run.dog:
                self.kill(run, run.dog, "SIGKILL")
            case "both" if run.dog:
                self.kill(run, run.dog, "SIGKILL")
                self.kill(run, run.pid, "SIGKILL")
            case "stopped":
                self.kill(run, run.pid, "SIGSTOP")
            case "stopped and continued" if not run.done:
                self.kill(run, run.pid, "SIGSTOP")
            case "stopped and continued" if len(run.done) == 1 and age > order.after_s + 0.7:
                self.kill(run, run.pid, "SIGCONT")
            case "terminal closed":
                os.close(run.master)
                run.done.append("hangup")
            case "disk full" if run.state.name.startswith("disk"):
                fill(run.state / "full")
                run.done.append("full")
            case "SIGINT, SIGTERM or SIGHUP":
                self.kill(run, run.pid, ("SIGINT", "SIGTERM", "SIGHUP")[order.number % 3])
            case "out of memory" | "disk full":
                run.done.append(order.how)  # it does this to itself
            case "endpoint cut":
                os.write(self.line, b"\n")
                run.done.append("cut")

    def kill(self, run: Run, pid: int, name: str) -> None:
        try:
            if abs(pid) in self.gone:
                raise ProcessLookupError
            os.kill(pid, signal.Signals[name])
            run.done.append(name)
        except ProcessLookupError:
            run.done.append(f"{name} came too late")

    def collect(self, under_way: list[Run]) -> None:
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                self.gone[found[0]] = found[1]
                for run in under_way:
                    if run.pid == found[0]:
                        run.status = found[1]

    def over(self, run: Run) -> bool:
        """Both are dead; or this takes so long that who looks afterwards must see it."""
        if time.monotonic() - run.began > LONGEST_S:
            run.done.append(f"not over after {LONGEST_S:.0f} s")
            for pid in (run.pid, run.dog):
                if pid and pid not in self.gone:
                    os.kill(pid, signal.SIGKILL)  # nobody else will, and the test that looks at it fails
            return True
        if run.status is None:
            return False
        return not run.dog or run.dog in self.gone

    def record(self, run: Run) -> dict[str, Any]:
        lease = run.said("lease")
        with contextlib.suppress(OSError):
            (run.state / "full").unlink()
        held = bool(lease) and alive(LeaseFolder(Path(lease)))
        took = int((time.monotonic() - run.began) * 1000)
        ends = {"status": run.status, "dog": self.gone.get(run.dog)}
        return {**asdict(run.order), "lease": lease, "done": run.done, **ends, "alive": held, "took_ms": took}


def fill(path: Path) -> None:
    """No room is left beside it."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 1024)


def limit_memory(number: int) -> None:
    """A control group of its own, in which the kernel kills whoever takes more than there is."""
    for top, limit, value in (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", MEMORY),
        (Path("/sys/fs/cgroup"), "memory.max", MEMORY),
    ):
        group = top / f"gpulease-kills-{os.getppid()}-{number}"
        with contextlib.suppress(OSError):
            group.mkdir()
            (group / limit).write_text(str(value))
            (group / "cgroup.procs").write_text(str(os.getpid()))
            return
    raise OSError("no control group for memory can be made here: root and cgroups are needed")


def proxy(endpoint: str, seed: int) -> tuple[str, int]:
    """A line to the endpoint, and what cuts it for a moment when it is written to."""
    words = [sys.executable, "-m", "tests.kills.line", endpoint, str(seed), str(os.getpid())]
    line = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert line.stdin is not None and line.stdout is not None
    return line.stdout.readline().strip(), os.dup(line.stdin.fileno())


def main() -> None:
    endpoints, folder, seed, *only = sys.argv[1:]
    chosen = [order for order in orders(int(seed)) if not only or str(order.number) in only]
    Batch(endpoints.split(","), Path(folder), int(seed)).run(chosen)


if __name__ == "__main__":
    main()
