"""One run as its process lives it: the production ledger, journal, lease, watchdog and AWS provider, against the rehearsal's endpoint.

It is forked from a process that has imported everything. It leaves out what a run does on its machine (SSH, server, eval), and
its looks leave out the kinds that gpulease never makes: what is killed here is the holding and the letting go. What the driver
must know is written to a file: the lease's folder, and the watchdog's pid.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from provisioner import closing, guards, ledger, watchdog
from provisioner.errors import GpuleaseError
from provisioner.journal import Journal, rfc3339
from provisioner.lease import hold
from provisioner.ledger import LeaseFolder
from provisioner.model import LaunchSpec, Offer, Outcome
from provisioner.providers import aws_look
from provisioner.providers.aws import AwsProvider
from provisioner.providers.aws_client import Account
from provisioner.scope import Cancelled, Scope, SystemClock, cry, signals
from provisioner.secret import Secret
from tests.kills.orders import Order

PATIENCE_S, LETTING_GO_S = 60.0, 10.0


class Points:
    """Where this process kills itself. The names are those of orders.POINTS."""

    def __init__(self) -> None:
        self.at, self.lines, self.operation = "", 0, ""

    def reach(self, name: str) -> None:
        if name == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


POINTS = Points()


def wire() -> None:
    """Once, in the process that all are forked from: make the points reachable. With none named, nothing changes."""
    import urllib3.connection

    # A run that is stopped while it lets go is left alone for 16 minutes, and longer where nothing bills.
    watchdog.LETTING_GO_S, watchdog.LINGER_S = LETTING_GO_S, 0.0
    aws_look.OTHER = ()  # type: ignore[assignment]
    write, call, receive = Journal._write, Account._call, urllib3.connection.HTTPConnection.getresponse

    def written(self: Journal, line: bytes) -> None:
        number, POINTS.lines = POINTS.lines, POINTS.lines + 1
        POINTS.reach(f"line {number} before")
        if POINTS.at == f"line {number} half":
            os.write(self._fd, line[: len(line) // 2])
            POINTS.reach(POINTS.at)
        write(self, line)
        POINTS.reach(f"line {number} after")

    def called(self: Account, service: str, operation: str, params: dict[str, Any], *, changes: bool, creating: bool) -> Any:
        POINTS.operation = operation
        POINTS.reach(f"{operation} before")
        answer = call(self, service, operation, params, changes=changes, creating=creating)
        POINTS.reach(f"{operation} answered")
        return answer

    def received(self: Any) -> Any:
        POINTS.reach(f"{POINTS.operation} sent")
        return receive(self)

    for owner, name, new in (
        (Journal, "_write", written),
        (Account, "_call", called),
        (urllib3.connection.HTTPConnection, "getresponse", received),
    ):
        setattr(owner, name, new)


def live(order: Order, provider: AwsProvider, offer: Offer, say: Callable[[str], None]) -> int:
    """The run. Returns its exit code."""
    scope, clock = Scope(), SystemClock()
    deadline = rfc3339(float(int(time.time()) + 600))
    spec = LaunchSpec(offer, 60, deadline, Secret("{}"), ingress_cidr="127.0.0.1/32")
    card = {"provider": "aws", "settings": provider.settings(), "deadline": deadline, "simulated": True}
    folder = ledger.create(card)
    say(f"lease {folder.path}")
    error: BaseException | None = None
    with signals(scope, cry), Journal(folder.journal, clock) as journal:
        genesis = {"lease": folder.id, "provider": "aws", "settings": provider.settings(), "simulated": True, "deadline": deadline}
        POINTS.at = order.point
        journal.append("genesis", genesis)
        start = watchdog.start if order.started else forked
        dog = start(folder, time.time() + order.overdue_s, *([] if order.started else [order.dog_point]))  # type: ignore[arg-type]
        say(f"dog {dog}")
        journal.append("guard", {"guard": "watchdog", "state": "armed", "detail": f"pid {dog}"})
        trouble(order, folder)
        try:
            with hold(folder.id, provider, journal, clock, patience=PATIENCE_S) as lease:
                for kind in provider.steps(spec):
                    scope.sleep(0)
                    lease.create(kind, spec)
                if order.scheduled:
                    guards.arm_schedule(lease, spec, (), scope.sleep)
                scope.sleep(order.hold_s)
        except (Cancelled, GpuleaseError, OSError) as e:
            error = e
        verdict = lease.verdict
        assert verdict is not None
        code = closing.exit_code(verdict, error, journal)
        closing.conclude(folder, journal, Outcome.COMPLETED if error is None else Outcome.INTERRUPTED, code)
    return int(code)


def forked(folder: LeaseFolder, overdue: float, point: str = "") -> int:
    """`watchdog.start` without a new interpreter: the same loop in a session of its own, with the same signals, and none of our files."""
    owner = os.getpid()
    if pid := os.fork():
        return pid
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        os.closerange(0, 256)  # the journal's lock is one of these: kept, it would never come free
        log = os.open(folder.path / "watchdog.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for fd in (0, 1, 2):
            os.dup2(log, fd)
        POINTS.at, POINTS.lines = point, 0
        watchdog.main(folder, overdue, owner)
    finally:
        os._exit(0)


def trouble(order: Order, folder: LeaseFolder) -> None:
    """What a process does to itself; the rest is done to it by the driver."""
    match order.how:
        case "out of memory":
            threading.Timer(order.after_s, eat).start()
        case "disk full" if not os.path.ismount(ledger.root().parent):
            # As a quota: no file of this process or its watchdog grows any more.
            size = folder.journal.stat().st_size + int(order.after_s * 3000)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def eat() -> None:
    """Memory, until the kernel has had enough."""
    kept = []
    while True:
        kept.append(b"x" * (4 << 20))


def terminal(slave: int) -> None:
    """Make it this session's controlling terminal, with all three standard files on it."""
    import fcntl
    import termios

    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in (0, 1, 2):
        os.dup2(slave, fd)


def ended(code: int) -> None:
    """Out, without the cleanup of the process that this was forked from."""
    sys.stdout.flush()
    os._exit(code)


def report(path: Path) -> Callable[[str], None]:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    return lambda line: os.write(fd, (line + "\n").encode()) and None
