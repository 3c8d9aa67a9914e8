"""A small systemd: units read from files, services run as process groups, timers that fire.

It exists because the guards that stop a machine are systemd timers, and a guard that was never seen firing is a
hope. So the rules that decide whether a guard fires are systemd's own: a past OnCalendar= fires after a reboot
only with Persistent= and a stamp; OnUnitActiveSec= counts from the unit's last start; a service's leftovers die
with it (KillMode=control-group, found by INVOCATION_ID); and until the boot has passed sysinit.target a unit
with default dependencies cannot start, so that a *blocking* `systemctl start` in cloud-init's bootcmd would wait
for ever on a real Ubuntu machine (cloud-init.service is Before=sysinit.target). Here it fails, and says so.

One lock for all state, one thread that fires timers, one thread per running service. No dependencies between
units, no sockets, no paths, no repeating calendars. The words of `systemctl` are in host_systemctl.py.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

from .host_init import Init
from .host_service import Services, Unit, UnitError
from .unit_text import BadUnit, UnitFile, parse_calendar, parse_span, parse_unit

INF = float("inf")
SPANS = ("OnActiveSec", "OnBootSec", "OnStartupSec", "OnUnitActiveSec", "OnUnitInactiveSec")


class Units:
    def __init__(self, root: Path, init: Init, env: Callable[[], dict[str, str]], log: Callable[[str], None]) -> None:
        self.root, self._init, self._env, self._log = root, init, env, log
        self.lock = threading.RLock()
        self._wake = threading.Condition(self.lock)
        self.loaded: dict[str, Unit] = {}
        self.booted = time.monotonic()
        self.early = True
        self._queued: list[str] = []
        self.refused: Callable[[str], bool] = lambda name: False  # fault: units that cannot be armed
        self.services = Services(root, init, env, log, self._wake, self._ended)
        threading.Thread(target=self._fire_for_ever, name="timers", daemon=True).start()

    def boot(self) -> None:
        with self.lock:
            self.loaded.clear()
            self._queued.clear()
            self.booted, self.early = time.monotonic(), True
        for name in self.wanted():
            with contextlib.suppress(UnitError):
                self.start(name, block=False)

    def reach_sysinit(self) -> None:
        """cloud-init's early stage is over: what was queued starts now."""
        with self.lock:
            self.early = False
            queued, self._queued = self._queued, []
        for name in queued:
            try:
                self.start(name, block=False)
            except UnitError as e:
                self._log(f"systemd: {e}")

    def wanted(self) -> list[str]:
        return sorted({link.name for link in (self.root / "etc/systemd/system").glob("*.wants/*")})

    def find(self, name: str) -> Unit | None:
        """The unit, read afresh from its file unless it runs; None when there is no such file."""
        with self.lock:
            unit = self.loaded.get(name)
            if unit is not None and (unit.transient or unit.active not in ("inactive", "failed")):
                return unit
            path = self.file_of(name)
            if path is None:
                self.loaded.pop(name, None)
                return None
            try:
                file = parse_unit(path.read_text(errors="replace"))
            except (BadUnit, OSError) as e:
                raise UnitError(f"Failed to load unit {name}: {e}") from None
            if unit is None:
                unit = self.loaded[name] = Unit(name, file, path)
            unit.file, unit.path = file, path
            return unit

    def file_of(self, name: str) -> Path | None:
        if "/" in name:
            return None
        for folder in ("etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system", "lib/systemd/system"):
            path = self.root / folder / name
            if path.is_file():
                return path
        return None

    def reload(self) -> None:
        with self.lock:
            for unit in list(self.loaded.values()):
                path = None if unit.transient else self.file_of(unit.name)
                if path is not None:
                    try:
                        unit.file, unit.path = parse_unit(path.read_text(errors="replace")), path
                    except (BadUnit, OSError) as e:
                        self._log(f"systemd: {unit.name}: {e}")
                if unit.kind == "timer" and unit.sub == "waiting":
                    self._elapse(unit, initial=False)
            self._wake.notify_all()

    def add_transient(self, name: str, file: UnitFile, *, collect: bool) -> Unit:
        with self.lock:
            if name in self.loaded or self.file_of(name) is not None:
                raise UnitError(f"Unit {name} was already loaded or has a fragment file.")
            folder = self.root / "run/systemd/transient"
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / name
            path.write_text("# This is a transient unit file, created programmatically via the systemd API. Do not edit.\n" + file.text())
            unit = self.loaded[name] = Unit(name, file, path, transient=True, collect=collect)
            return unit

    def start(self, name: str, *, block: bool = True) -> None:
        with self.lock:
            unit = self.find(name)
            if unit is None:
                raise UnitError(f"Failed to start {name}: Unit {name} not found.")
            if self.refused(name):
                raise UnitError(f"Failed to start {name}: Connection timed out (SIMULATED fault: no_timer)")
            if self.early and unit.file.yes("Unit", "DefaultDependencies", True):
                if block:
                    raise UnitError(
                        f"Failed to start {name}: it is ordered after sysinit.target, and cloud-init's bootcmd runs before that: on a real "
                        "machine this command waits for ever, and the boot with it. Use --no-block, or DefaultDependencies=no. (SIMULATED)"
                    )
                self._queued.append(name)
                return
            if unit.active in ("active", "activating"):
                if block and unit.active == "activating":
                    pass
                else:
                    return
            elif unit.kind == "timer":
                self._start_timer(unit)
                return
            elif unit.kind == "service":
                self.services.start(unit)
            else:
                unit.active, unit.sub = "active", "active"
                return
        if block:
            unit.settled.wait()
            if unit.active == "failed" or unit.result not in ("success",):
                raise UnitError(
                    f"Job for {name} failed because the control process exited with error code.\n"
                    f'See "systemctl status {name}" and "journalctl -xeu {name}" for details.'
                )

    def stop(self, name: str, *, block: bool = True) -> None:
        with self.lock:
            unit = self.loaded.get(name)
            if unit is None:
                if self.find(name) is None:
                    raise UnitError(f"Failed to stop {name}: Unit {name} not loaded.")
                return
            self._queued = [q for q in self._queued if q != name]
            if unit.kind != "service":
                unit.active, unit.sub, unit.next_wall, unit.next_mono = "inactive", "dead", None, None
                self._wake.notify_all()
                self._forget(unit)
                return
            if unit.active in ("inactive", "failed"):
                return
            unit.stopping = True
            if unit.main is None:  # RemainAfterExit=, or between two runs
                self._ended(unit, "success")
            else:
                unit.active, unit.sub = "deactivating", "stop-sigterm"
                threading.Thread(target=self.services.terminate, args=(unit,), daemon=True).start()
        if block:
            unit.over.wait(unit.file.span("Service", "TimeoutStopSec", 90.0) + 10.0)

    def reset_failed(self, names: list[str]) -> None:
        with self.lock:
            for unit in [u for u in self.loaded.values() if not names or u.name in names]:
                if unit.active == "failed":
                    unit.active, unit.sub, unit.result = "inactive", "dead", "success"
                    self._forget(unit)

    def _ended(self, unit: Unit, result: str) -> None:
        unit.result, unit.main, unit.entered_inactive = result, None, time.monotonic()
        if result == "success" and unit.file.yes("Service", "RemainAfterExit") and not unit.stopping:
            unit.active, unit.sub, unit.entered_active = "active", "exited", time.time()
        elif result == "success":
            unit.active, unit.sub = "inactive", "dead"
        else:
            unit.active, unit.sub = "failed", "failed"
        unit.settled.set()
        unit.over.set()
        self._log(f"systemd: {unit.name}: {unit.sub}, {result} (status {unit.exec_status})")
        self._forget(unit)
        for timer in self.loaded.values():
            if timer.kind == "timer" and timer.active == "active" and timer.triggers == unit.name:
                self._elapse(timer, initial=False)
        self._wake.notify_all()

    def _forget(self, unit: Unit) -> None:
        if unit.transient and (unit.active == "inactive" or (unit.collect and unit.active == "failed")):
            self.loaded.pop(unit.name, None)
            if unit.path is not None:
                unit.path.unlink(missing_ok=True)

    def _start_timer(self, unit: Unit) -> None:
        instants, spans = unit.file.all("Timer", "OnCalendar"), [text for key in SPANS for text in unit.file.all("Timer", key)]
        refusal = f"Failed to start {unit.name}: Unit {unit.name} has a bad unit file setting."
        if not instants and not spans:
            raise UnitError(f"{refusal} (Timer unit lacks value setting. Refusing.)")
        try:
            for text in instants:
                parse_calendar(text)
            for text in spans:
                parse_span(text)
        except BadUnit as e:
            raise UnitError(f"{refusal} ({e})") from None
        unit.started, unit.stamp, unit.result = time.monotonic(), time.time(), "success"
        if unit.file.yes("Timer", "Persistent"):
            stamp = self._stamp_file(unit)
            if stamp.exists():
                unit.stamp = unit.last_trigger = min(stamp.stat().st_mtime, time.time())
            else:
                stamp.parent.mkdir(parents=True, exist_ok=True)
                stamp.touch()
        unit.active, unit.entered_active = "active", time.time()
        self._elapse(unit, initial=True)
        self._wake.notify_all()

    def _stamp_file(self, unit: Unit) -> Path:
        return self.root / "var/lib/systemd/timers" / f"stamp-{unit.name}"

    def _elapse(self, unit: Unit, *, initial: bool) -> None:
        """Work out when the timer fires next, by systemd's rules."""
        target, now = self.loaded.get(unit.triggers), time.monotonic()
        instants = [parse_calendar(text) for text in unit.file.all("Timer", "OnCalendar")]
        unit.next_wall = min((at for at in instants if at > (unit.stamp or 0.0)), default=None)
        bases: list[tuple[str, float | None, bool]] = [
            ("OnActiveSec", unit.started, False),
            ("OnBootSec", self.booted, False),
            ("OnStartupSec", self.booted, False),
            ("OnUnitActiveSec", target.left_inactive if target else None, True),
            ("OnUnitInactiveSec", target.entered_inactive if target else None, True),
        ]
        due: list[float] = []
        for key, base, repeats in bases:
            for text in unit.file.all("Timer", key):
                at = (base or 0.0) + parse_span(text)
                if base is not None and (repeats or initial or at > now):  # a one-time trigger that has passed is spent
                    due.append(at)
        unit.next_mono = min(due, default=None)
        running = target is not None and target.active in ("active", "activating", "deactivating")
        unit.sub = "running" if running and not initial else "waiting" if unit.next_wall or unit.next_mono else "elapsed"

    def _fire_for_ever(self) -> None:
        while True:
            with self._wake:
                now, wall = time.monotonic(), time.time()
                timers = [u for u in self.loaded.values() if u.kind == "timer" and u.active == "active" and u.sub == "waiting"]
                due = [u for u in timers if (u.next_mono or INF) <= now or (u.next_wall or INF) <= wall]
                late = [u for u in self.loaded.values() if u.kill_at is not None and u.kill_at <= now]
                if not due and not late:
                    waits = [u.next_mono - now for u in timers if u.next_mono is not None]
                    waits += [u.next_wall - wall for u in timers if u.next_wall is not None]
                    waits += [u.kill_at - now for u in self.loaded.values() if u.kill_at is not None]
                    # At most a second: the wall clock may be set, and a laptop may sleep.
                    self._wake.wait(max(0.001, min([1.0, *waits])))
                    continue
                for unit in late:
                    unit.kill_at, unit.timed_out = None, True
                    threading.Thread(target=self.services.terminate, args=(unit,), daemon=True).start()
                for unit in due:
                    self._fire(unit)

    def _fire(self, unit: Unit) -> None:
        unit.last_trigger = unit.stamp = time.time()
        if unit.file.yes("Timer", "Persistent"):
            self._stamp_file(unit).touch()
        unit.sub = "running"
        self._log(f"systemd: {unit.name} fired: {unit.triggers}")
        try:
            self.start(unit.triggers, block=False)
        except UnitError as e:
            self._log(f"systemd: {unit.name}: {e}")
            unit.active, unit.sub, unit.result = "failed", "failed", "resources"
            return
        target = self.loaded.get(unit.triggers)
        if target is None or target.active not in ("active", "activating", "deactivating"):
            self._elapse(unit, initial=False)
