"""One drill: a real `gpulease run` of its own, broken as its row says, and what the cloud says became of the machine.

Everything here is done from outside, as a user could: the command line is started as a process and killed by its number,
timers are stopped by root on the machine over the lease's own key, the end is asked of a witness, and the proof is judged
by `gpulease verify` as anybody would. However a drill ends, what it rented is let go of before it returns.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from provisioner.drill import layers
from provisioner.drill.layers import Layer
from provisioner.drill.witness import End, Witness
from provisioner.errors import Exit, GpuleaseError, RunError
from provisioner.journal import Broken, instant, read
from provisioner.lease import LINGER_S, PATIENCE_S
from provisioner.ledger import LeaseFolder
from provisioner.names import OPENINGS, opened
from provisioner.times import Times

Sleep = Callable[[float], None]
Tell = Callable[[str, str], None]

LONGEST_RELEASE_S = PATIENCE_S + LINGER_S + 300.0
GPULEASE = (sys.executable, "-P", "-m", "provisioner")


@dataclass(frozen=True)
class Ground:
    """Where a drill happens: how a run is started there, what its state folder is, who tells the truth."""

    run: tuple[str, ...]  # `run` and its options
    reap: tuple[str, ...]
    profile: Callable[[Layer], str]
    environment: Mapping[str, str]
    state: Path
    witness: Witness
    route: Callable[[str, int], tuple[str, int]] | None
    times: Times
    set_up_s: float  # at most, until the machine is up and its guards are read back
    late_s: float  # a layer that is later than this has failed
    poll_s: float = 0.5  # between two questions to the witness


@dataclass
class Row:
    """One line of the table."""

    layer: Layer
    lease: str = ""
    machine: str = ""
    ended_by: str = ""  # "" when nobody did
    late_s: int | None = None
    at: float | None = None
    proof: dict[str, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.wrong

    def record(self) -> dict[str, Any]:
        return {
            "layer": self.layer.name,
            "failure": self.layer.failure,
            "lease": self.lease or None,
            "machine": self.machine or None,
            "endedBy": self.ended_by or None,
            "secondsLate": self.late_s,
            "proof": self.proof or None,
            "good": self.good,
            "wrong": self.wrong,
        }


def drill(layer: Layer, ground: Ground, sleep: Sleep, tell: Tell, busy: contextlib.AbstractContextManager[Any]) -> Row:
    """Break it, wait for the layer, judge. Errors become the row's `wrong`; only a signal passes."""
    row = Row(layer)
    run = _Run(ground, sleep)
    judged = False
    try:
        with busy:
            run.start(ground.profile(layer))
            broken_at = _break(layer, run, ground, row, tell)
        _await_end(layer, run, ground, row, tell, broken_at)
        _prove(run, ground, row)
        judged = row.good
    except GpuleaseError as e:
        row.wrong.append(e.what + (f" ({e.why})" if e.why else ""))
    finally:
        # Also where a signal or a bug ends it: whoever would let go of the machine was killed for the drill.
        run.close(row, over=judged)
    return row


class _Run:
    """The process, and what its journal says. Only ever told to end by number."""

    def __init__(self, ground: Ground, sleep: Sleep) -> None:
        self.ground, self.sleep = ground, sleep
        self.process: subprocess.Popen[str] | None = None
        self.environment = {**os.environ, **ground.environment, "XDG_STATE_HOME": str(ground.state)}

    def start(self, profile: str) -> None:
        words = [*GPULEASE, self.ground.run[0], profile, *self.ground.run[1:]]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True}
        log = (self.ground.state / "run.log").open("w")
        self.process = subprocess.Popen(words, stderr=log, env=self.environment, start_new_session=True, **quiet)  # type: ignore[call-overload]
        log.close()

    def gpulease(self, *words: str, state: Path | None = None, within: float = 900.0) -> subprocess.CompletedProcess[str]:
        environment = self.environment | ({"XDG_STATE_HOME": str(state)} if state else {})
        return subprocess.run(
            [*GPULEASE, *words], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=within, check=False
        )

    @property
    def folder(self) -> LeaseFolder | None:
        runs = self.ground.state / "gpulease" / "runs"
        found = sorted(path for path in runs.glob("r-*") if "." not in path.name)
        return LeaseFolder(found[-1]) if found else None

    def entries(self, kind: str) -> list[dict[str, Any]]:
        with contextlib.suppress(OSError, Broken):
            if self.folder:
                return [dict(e["body"], at=e["at"]["wall"]) for e in read(self.folder.journal).entries if e["kind"] == kind]
        return []

    def until(self, done: Callable[[], bool], what: str, within: float) -> None:
        """RunError when it does not come to that, or the run ends before."""
        end = time.monotonic() + within
        while not done():
            if self.process is not None and self.process.poll() is not None and not done():
                raise RunError(f"the run ended before {what}", why=self.last_words())
            if time.monotonic() > end:
                raise RunError(f"no {what} within {within:.0f} s", why=self.last_words())
            self.sleep(0.1)

    def last_words(self) -> str:
        """The error that it ended with, else the end of its story."""
        if self.process is not None and self.process.poll() is not None and self.process.stdout is not None:
            with contextlib.suppress(ValueError, LookupError, TypeError):
                said = json.loads(self.process.stdout.read())
                error = said if "what" in said else said["error"]
                return f"{error['what']}; {error['why']}"
        lines = (self.ground.state / "run.log").read_text("utf-8", "replace").strip().splitlines()
        return " / ".join(lines[-3:])

    def stage(self, name: str, state: str = "done") -> bool:
        return any(e["stage"] == name and e["state"] == state for e in self.entries("stage"))

    def pid_of_watchdog(self) -> int:
        details = [str(e.get("detail", "")) for e in self.entries("guard") if e["guard"] == "watchdog" and e["state"] == "armed"]
        return int(details[-1].removeprefix("pid ")) if details else 0

    def kill(self, who: str) -> None:
        assert self.process is not None
        pid = self.process.pid if who == layers.RUN else self.pid_of_watchdog()
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if who == layers.RUN:
            self.process.wait()

    def close(self, row: Row, *, over: bool) -> None:
        """Let go of whatever is left, without asking how we got here; `over` when that was seen already."""
        folder = self.folder
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(self.ground.late_s + 900)
        if self.process is not None and self.process.stdout is not None:
            self.process.stdout.close()
        if folder is not None and not over:
            with contextlib.suppress(subprocess.TimeoutExpired):  # the witness says below what is still there
                self.gpulease("release", folder.id, "--json", within=LONGEST_RELEASE_S)
        with contextlib.suppress(GpuleaseError, OSError):
            if folder is not None and (left := self.ground.witness.left(folder.id)):
                row.wrong.append(f"still there: {', '.join(left)}; XDG_STATE_HOME={self.ground.state} gpulease release {folder.id}")


def _break(layer: Layer, run: _Run, ground: Ground, row: Row, tell: Tell) -> float:
    """Bring the run to where it is to break, switch the other layers off, and break it. Returns when that was."""
    assert run.process is not None
    if layer.at == "end":
        return time.time()
    if layer.at == "launch":
        run.until(lambda: any(e["op"] == "create" and e["class"] == "instance" for e in run.entries("intent")), "launch", ground.set_up_s)
        run.until(lambda: bool(run.folder and ground.witness.machines(run.folder.id)), "machine at the cloud", ground.set_up_s)
    else:
        run.until(lambda: run.stage("verify"), "machine with its guards read back", ground.set_up_s)
    assert run.folder is not None
    row.lease, row.machine = run.folder.id, ground.witness.machines(run.folder.id)[0]
    if layer.stop:
        _as_root(run, ground, "systemctl stop " + " ".join(layer.stop))
    if layer.freeze:
        ground.witness.freeze(row.machine)
    at = time.time()
    if layers.WATCHDOG in layer.kill:
        os.kill(run.process.pid, signal.SIGSTOP)  # a run that lives puts another watchdog in the place of one that ended
    for who in layer.kill:
        run.kill(who)
    if not layer.kill:
        run.process.send_signal(signal.SIGINT)
    off = f"; off: {', '.join([*layer.waive, *(name.partition('.')[0] for name in layer.stop)])}" if layer.waive or layer.stop else ""
    tell(layer.name, f"{row.machine} up; {layer.failure}{off}")
    return at


def _as_root(run: _Run, ground: Ground, command: str) -> None:
    """On the machine, over the lease's own key and pinned host key, as a model's code with root could."""
    from provisioner.remote import ssh
    from provisioner.remote.link import direct

    assert run.folder is not None
    observed = [e for kind in ("done", "observe") for e in run.entries(kind) if e.get("class") == "instance"]
    address = next((str(e["facts"]["address"]) for e in reversed(observed) if e.get("facts", {}).get("address")), "")
    address = opened(run.folder.path / OPENINGS, address)
    access, keys = run.folder.card().get("access", {}), run.folder.path / "keys"
    host_key = (keys / "host_ed25519.pub").read_text().strip()
    reach: dict[str, Any] = {"client_key": keys / "client_ed25519", "host_key": host_key, "route": ground.route or direct}
    with ssh.wait_for_ssh(
        address, int(access.get("port", 22)), str(access.get("user", "ubuntu")), within=60.0, sleep=run.sleep, **reach
    ) as host:
        host.run(f"sudo {command}", timeout=30.0)


def _await_end(layer: Layer, run: _Run, ground: Ground, row: Row, tell: Tell, broken_at: float) -> None:
    """Wait for the cloud to say that it ended, and by whom; then how late that was."""
    assert run.process is not None
    if layer.at == "end" or not layer.kill:
        until = time.monotonic() + ground.set_up_s + ground.late_s
        while run.process.poll() is None and time.monotonic() < until:
            run.sleep(ground.poll_s)
    if run.folder is None:
        raise RunError("the run left no lease", why=run.last_words())
    row.lease = run.folder.id
    due = _due(layer, run, ground, broken_at)
    if layer.due == layers.CALLED:
        due = _call_the_reaper(run, ground, row, due)
    row.machine = row.machine or next(iter(ground.witness.machines(row.lease)), "")
    while (ended := ground.witness.end(row.machine)) is None and time.time() < due + ground.late_s:
        run.sleep(ground.poll_s)
    if ended is None:
        row.wrong.append(f"nobody ended {row.machine}, {ground.late_s:.0f} s after its time")
        return
    row.at, row.late_s = ended.at, max(0, round(ended.at - due))
    row.ended_by = _who(layer, ended)
    if row.ended_by != layer.name:
        row.wrong.append(f"ended by {row.ended_by}, not by {layer.name}")
    tell(layer.name, f"{row.machine} ended by {row.ended_by}, {row.late_s} s late")


def _due(layer: Layer, run: _Run, ground: Ground, broken_at: float) -> float:
    deadline = instant(run.entries("genesis")[0]["deadline"])
    match layer.due:
        case layers.SILENCE:
            return broken_at + ground.times.silence_s
        case layers.DEADLINE:
            return deadline
        case layers.SCHEDULE:
            return deadline + ground.times.schedule_late_s
        case layers.FLEET:
            return deadline + ground.times.fleet_late_s
        case layers.CALLED:
            return deadline + ground.times.overdue_s
    return _asked_to_go(run, broken_at)


def _asked_to_go(run: _Run, broken_at: float) -> float:
    """A run that ends by itself begins to let go when its last stage is over."""
    stages = [instant(e["at"]) for e in run.entries("stage")]
    return max([broken_at, *stages]) if run.process is not None and run.process.returncode is not None else broken_at


def _call_the_reaper(run: _Run, ground: Ground, row: Row, due: float) -> float:
    """From a state folder that knows nothing, as another computer would. Returns when it was called."""
    while time.time() <= due + 1:
        if (ended := ground.witness.end(row.machine)) is not None:
            raise RunError(f"something ended {row.machine} ({ended.by}) although everything but reap was gone")
        run.sleep(ground.poll_s)
    called = time.time()
    other = ground.state / "another-computer"
    other.mkdir(mode=0o700)
    done = run.gpulease(*(word.format(lease=row.lease) for word in ground.reap), state=other)
    # Released speaks of what the tags show; unproven where a look failed. Either way the witness has the last word.
    if done.returncode not in (Exit.OK, Exit.UNPROVEN):
        row.wrong.append(f"reap ended with {done.returncode}: {done.stderr.strip()[-200:]}")
    return called


def _who(layer: Layer, ended: End) -> str:
    """Which layer that was. Two that the cloud cannot tell apart are told apart by what was switched off."""
    timers = {layers.TIMER: "guest-timer", layers.TWIN: "guest-twin", layers.LEASE: "guest-lease"}
    if ended.by == "guest":
        return timers.get(ended.timer, layer.name if layer.by == "guest" else "a timer of the machine")
    if ended.by == layer.by or (ended.by == "api" and layer.due in (layers.SCHEDULE, layers.FLEET)):
        return layer.name  # of those that use the API nobody else was alive
    return {"api": "a client"}.get(ended.by, ended.by)


def _prove(run: _Run, ground: Ground, row: Row) -> None:
    """Somebody comes back, asks for the proof, and holds it against what the cloud says."""
    folder = run.folder
    assert folder is not None
    if layers.WATCHDOG not in row.layer.kill and row.layer.kill:
        evidence = folder.evidence / "statement.dsse.json"
        end = time.monotonic() + ground.late_s + 60
        while not evidence.is_file() and time.monotonic() < end:
            run.sleep(0.2)
    elif row.layer.kill:
        run.gpulease("release", folder.id, "--json")
    judged = run.gpulease("verify", str(folder.evidence), "--json")
    statement = _statement(folder)
    instance: dict[str, Any] = next((i for i in statement.get("instances", []) if i.get("id") == row.machine), {})
    row.proof = {"verdict": statement.get("verdict"), "stopCause": instance.get("stopCause"), "verify": judged.returncode}
    left = ground.witness.left(row.lease)
    for is_wrong, words in (
        (judged.returncode != 0, f"the proof does not hold: verify ends with {judged.returncode}"),
        (statement.get("verdict") == "released" and bool(left), f"the proof says released, and there is {', '.join(left)}"),
        (statement.get("verdict") != "released" and not left, f"nothing is left, and the proof says {statement.get('verdict')}"),
        (instance.get("stopCause") not in row.layer.causes, f"the proof says it was ended by {instance.get('stopCause')}"),
        (row.at is not None and not _spans(instance, row.at), "the proof's times do not hold the moment at which it ended"),
    ):
        if is_wrong:
            row.wrong.append(words)


def _statement(folder: LeaseFolder) -> dict[str, Any]:
    import base64

    try:
        envelope = json.loads((folder.evidence / "statement.dsse.json").read_bytes())
        predicate: dict[str, Any] = json.loads(base64.b64decode(envelope["payload"]))["predicate"]
    except (OSError, ValueError, LookupError, TypeError) as e:
        raise RunError(f"there is no proof: {e}", why=str(folder.evidence)) from e
    return predicate


def _spans(instance: Mapping[str, Any], at: float) -> bool:
    """Was it seen running before, and gone only after?"""
    gone = instance.get("terminatedFirstSeenAt")
    before = instance.get("requestedAt")
    return not gone or not before or instant(before) - 1 <= at <= instant(gone) + 1
