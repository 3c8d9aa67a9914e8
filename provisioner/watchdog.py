"""Wait until the owner of a lease is gone, then let go of whatever it left.

Started before the first create, detached from its owner's terminal and process group. It needs no protocol with the
owner: it waits for the lock on the journal, which the kernel frees the moment the owner dies, however it dies. An
owner that lives but no longer acts (Ctrl-Z, a hung call) is killed once the lease is overdue, which frees the lock
too; the owner is our parent, so its pid cannot have become somebody else's. One that its journal shows letting go is
given the time that takes: a machine may need many minutes to go, and the owner's exit code is what its user waits for.

When the owner ends well the lock comes free, the journal says `released`, and this ends without a word. It does not
survive the machine it runs on; the guards on the rented machine and at the provider are for that.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

from provisioner.errors import RefusedError
from provisioner.journal import Broken, Busy, read
from provisioner.lease import LINGER_S, costing, holdings
from provisioner.lease import PATIENCE_S as LONGEST_RELEASE_S
from provisioner.ledger import LeaseFolder, adopt, alive, standing
from provisioner.model import Verdict
from provisioner.scope import Scope
from provisioner.secret import environment

PATIENCE_S = 6 * 3600.0
POLL_S = 0.5
AGAIN_S = 30.0
LETTING_GO_S = LONGEST_RELEASE_S + 60.0
READY = b"watching\n"

_started: dict[int, subprocess.Popen[bytes]] = {}


def start(folder: LeaseFolder, overdue: float) -> int:
    """Start one for the calling process and return its pid, once it has said that it watches.

    Raises RefusedError if it does not: nothing may be created under a guard that is not there.
    """
    log = os.open(folder.path / "watchdog.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        dog = subprocess.Popen(
            # -P: a folder called `provisioner` in the user's working directory must not be what guards the lease.
            [sys.executable, "-P", "-m", "provisioner.watchdog", str(folder.path), str(overdue), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env=environment(),
        )
    finally:
        os.close(log)
    assert dog.stdout is not None
    with dog.stdout as said:
        ready, _, _ = select.select([said], [], [], 20.0)
        if not ready or said.readline() != READY:
            dog.kill()
            dog.wait()
            raise RefusedError("the watchdog did not start", why=f"see {folder.path / 'watchdog.log'}", next="gpulease doctor")
    _started[dog.pid] = dog
    return dog.pid


def ended(pid: int) -> int | None:
    """How one that this process started ended: its exit code, or minus its signal. None while it watches."""
    return _started[pid].poll()


def main(folder: LeaseFolder, overdue: float, owner: int) -> Verdict | None:
    """Returns the verdict it came to; None when the owner needed no help."""
    late = Scope(overdue)  # by two clocks: one set back must not keep an owner that hangs
    while True:
        try:
            _wait_for_the_lock(folder, late, owner)
            before = standing(folder)
            if before.held.verdict is Verdict.RELEASED and not before.broken:
                return None
            if not before.entries and not folder.has_card:
                return None  # a folder that no lease was ever made in
            from provisioner.closing import let_go

            return let_go(folder, adopt(folder, "watchdog"), patience=PATIENCE_S)
        except Busy:
            continue  # somebody else took it between our question and our turn: watch them instead
        except Exception:
            # A disk that fails, a file that somebody changed, a login that has run out: all of that may be put right, and
            # giving up costs money. This process has nobody to tell but its log.
            if time.time() > overdue + PATIENCE_S:
                raise
            traceback.print_exc()
            time.sleep(AGAIN_S)


def _wait_for_the_lock(folder: LeaseFolder, late: Scope, owner: int) -> None:
    while alive(folder):
        left = late.left() or 0.0
        if left <= 0 and os.getppid() == owner and left <= -_time_to_let_go(folder):
            os.kill(owner, signal.SIGKILL)
        time.sleep(POLL_S)  # no scope here: nothing but SIGKILL is meant to end this process


def _time_to_let_go(folder: LeaseFolder) -> float:
    """How long after it is overdue an owner may live on: not at all, unless it is letting go; longer where nothing bills any more."""
    try:
        entries = read(folder.journal).entries
    except (Broken, OSError):
        return 0.0
    # A spot machine that was let go of so that the next could be asked for is no letting go of the lease.
    asked = max((place for place, e in enumerate(entries) if e["kind"] == "intent" and e["body"]["op"] == "create"), default=0)
    if not any(e["kind"] == "failure" or (e["kind"] == "intent" and e["body"]["op"] == "remove") for e in entries[asked:]):
        return 0.0
    held = holdings(entries)
    bills = held.intents or costing(held.resources.values())
    return LETTING_GO_S if bills else LETTING_GO_S + LINGER_S


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):  # a logout or a shutdown is when it is needed most
        signal.signal(number, signal.SIG_IGN)
    os.write(1, READY)
    os.close(1)
    os.open(os.devnull, os.O_WRONLY)
    main(LeaseFolder(Path(sys.argv[1])), float(sys.argv[2]), int(sys.argv[3]))
