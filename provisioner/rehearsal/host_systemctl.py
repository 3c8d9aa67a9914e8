"""The words of `systemctl`, `systemd-run` and `journalctl`: what they print, and the exit code each answer has.

A facts parser is tested against this text, so it is systemd 255's own (Ubuntu 24.04): properties come in systemd's
order whatever order was asked for, instants are written `Sat 2026-11-21 14:02:10 UTC`, "inactive" is exit 3 and an
unknown unit 4. A verb or option outside the subset is refused with systemctl's words, never ignored.

Each function takes an argv and returns (exit, stdout, stderr). Must not start processes itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from .host_service import Unit, UnitError
from .host_units import Units
from .unit_text import columns, show_instant, show_span

Answer = tuple[int, str, str]
KINDS = (".service", ".timer", ".target", ".socket", ".mount", ".path", ".slice", ".scope")
BUILT_IN = {"ssh.service", "sshd.service"}
NO_INSTALL = (
    "The unit files have no installation config (WantedBy=, RequiredBy=, UpheldBy=,\nAlso=, or Alias= settings in the [Install] section).\n"
)
VERSION = "systemd 255 (255.4-1ubuntu8 SIMULATED by gpulease)\n"


class Systemctl:
    def __init__(self, units: Units, power: Callable[[str], None], sshd: Callable[[], None], state: Callable[[], str]) -> None:
        """`power` is told "poweroff" or "reboot"; `sshd` reads the host key again; `state` is the boot's."""
        self._units, self._power, self._sshd, self._state = units, power, sshd, state

    def run(self, argv: Sequence[str]) -> Answer:
        words: list[str] = []
        options: dict[str, str] = {}
        properties: list[str] = []
        rest = list(argv)
        while rest:
            word = rest.pop(0)
            if word in ("-p", "--property") or (word.startswith(("--property=", "-p")) and not word.startswith("--p=")):
                value = (
                    word.partition("=")[2] if "=" in word else word[2:] if len(word) > 2 and word[1] == "p" else rest.pop(0) if rest else ""
                )
                properties += [p for p in value.split(",") if p]
            elif word in ("-n", "--lines", "-o", "--output", "-t", "--type", "--timestamp", "-s", "--signal") and rest:
                options[word] = rest.pop(0)
            elif word.startswith("-") and word != "-":
                name, _, value = word.partition("=")
                if name not in OPTIONS:
                    return 1, "", f"systemctl: unrecognized option '{word}'\n"
                options[name] = value or "yes"
            else:
                words.append(word)
        if "--version" in options:
            return 0, VERSION, ""
        verb, names = (words[0], [full_name(w) for w in words[1:]]) if words else ("list-units", [])
        block = "--no-block" not in options
        try:
            match verb:
                case "daemon-reload" | "daemon-reexec":
                    self._units.reload()
                    return 0, "", ""
                case "start" | "restart" | "reload" | "reload-or-restart" | "try-restart" | "stop":
                    return self._change(verb, names, block)
                case "enable" | "disable":
                    return self._enable(verb, names, "--now" in options, block)
                case "is-active":
                    states = [self._active(n) for n in names]
                    good = any(s == "active" for s in states)
                    lines = "" if _quiet(options) else "".join(s + "\n" for s in states)
                    return 0 if good else 4 if states and not any(self._unit(n) or n in BUILT_IN for n in names) else 3, lines, ""
                case "is-failed":
                    states = [self._active(n) for n in names]
                    return 0 if "failed" in states else 1, "" if _quiet(options) else "".join(s + "\n" for s in states), ""
                case "is-enabled":
                    states = [self._enabled(n) for n in names]
                    good = bool(states) and all(s in ("enabled", "static", "enabled-runtime", "alias") for s in states)
                    return (
                        0 if good else 4 if "not-found" in states else 1,
                        "" if _quiet(options) else "".join(s + "\n" for s in states),
                        "",
                    )
                case "is-system-running":
                    state = self._state()
                    return 0 if state == "running" else 1, state + "\n", ""
                case "show":
                    return self._show(names, properties, "--value" in options, options.get("--timestamp", ""))
                case "list-timers":
                    return self._list_timers("--all" in options or "-a" in options, "--no-legend" not in options)
                case "list-units":
                    return self._list_units("--no-legend" not in options)
                case "cat":
                    return self._cat(names)
                case "status":
                    return self._status(names)
                case "reset-failed":
                    self._units.reset_failed(names)
                    return 0, "", ""
                case "poweroff" | "reboot":
                    self._power(verb)
                    return 0, "", ""
                case "halt":
                    return 0, "", "SIMULATED: halt stops the system but does not power off an EC2 instance; it stays running and billed.\n"
                case _:
                    return 1, "", f"Unknown command verb {verb}.\n"
        except UnitError as e:
            return 5 if "not found" in str(e) or "not loaded" in str(e) else 1, "", f"{e}\n"

    def _unit(self, name: str) -> Unit | None:
        return self._units.find(name)

    def _change(self, verb: str, names: list[str], block: bool) -> Answer:
        for name in names:
            if name in BUILT_IN:
                if verb in ("restart", "reload", "reload-or-restart"):
                    self._sshd()
                continue
            if verb == "reload":
                raise UnitError(f"Failed to reload {name}: Job type reload is not applicable for unit {name}.")
            if verb == "try-restart" and self._active(name) != "active":
                continue
            if verb != "start":
                self._units.stop(name, block=block or verb != "stop")
            if verb != "stop":
                self._units.start(name, block=block)
        return 0, "", ""

    def _enable(self, verb: str, names: list[str], now: bool, block: bool) -> Answer:
        said = ""
        base = self._units.root / "etc/systemd/system"
        for name in names:
            unit = self._unit(name)
            if unit is None or unit.path is None:
                return 1, "", said + f"Failed to {verb} unit: Unit file {name} does not exist.\n"
            if self._units.refused(name):
                return 1, "", said + f"Failed to {verb} unit: Access denied (SIMULATED fault: no_timer)\n"
            targets = [t for line in unit.file.all("Install", "WantedBy") for t in line.split()]
            for target in targets:
                link = base / f"{target}.wants" / name
                shown = f"/etc/systemd/system/{target}.wants/{name}"
                if verb == "enable" and not link.is_symlink():
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(unit.path)
                    said += f"Created symlink {shown} \u2192 /etc/systemd/system/{name}.\n"
                elif verb == "disable" and link.is_symlink():
                    link.unlink()
                    said += f'Removed "{shown}".\n'
            if not targets and verb == "enable":
                said += NO_INSTALL
        self._units.reload()
        if now:
            code, _, err = self._change("start" if verb == "enable" else "stop", names, block)
            return code, "", said + err
        return 0, "", said

    def _active(self, name: str) -> str:
        if name in BUILT_IN:
            return "active"
        unit = self._unit(name)
        return unit.active if unit else "inactive"

    def _enabled(self, name: str) -> str:
        if name in BUILT_IN:
            return "enabled"
        unit = self._unit(name)
        if unit is None:
            return "not-found"
        if unit.transient:
            return "transient"
        if not unit.file.sections.get("Install"):
            return "static"
        return "enabled" if name in self._units.wanted() else "disabled"

    def _show(self, names: list[str], asked: list[str], bare: bool, stamps: str) -> Answer:
        blocks: list[str] = []
        for name in names:
            unit = self._unit(name)
            facts = self._facts(name, unit, stamps)
            wanted = [(k, v) for k, v in facts.items() if not asked or k in asked]
            blocks.append("".join((v if bare else f"{k}={v}") + "\n" for k, v in wanted))
        return 0, "\n".join(blocks), ""

    def _facts(self, name: str, unit: Unit | None, stamps: str) -> dict[str, str]:
        def instant(at: float | None) -> str:
            if stamps == "unix":
                return f"@{int(at)}" if at else ""
            if stamps in ("us", "us+utc") and at:
                return show_instant(at).replace(" UTC", f".{int(at % 1 * 1e6):06d} UTC")
            return show_instant(at)

        facts: dict[str, str] = {}
        if unit is not None and unit.kind == "timer":
            mono = None if unit.next_mono is None else unit.next_mono - self._units.booted
            spans = [
                f"{{ {k}={v} ; next_elapse={show_span(mono) or 'n/a'} }}"
                for k, v in unit.file.sections.get("Timer", ())
                if k.endswith("Sec")
            ]
            facts |= {
                "Unit": unit.triggers,
                "TimersMonotonic": " ".join(s for s in spans if "AccuracySec" not in s and "RandomizedDelaySec" not in s),
            }
            calendar = [
                f"{{ OnCalendar={v} ; next_elapse={show_instant(unit.next_wall) or 'n/a'} }}" for v in unit.file.all("Timer", "OnCalendar")
            ]
            facts |= {
                "TimersCalendar": " ".join(calendar),
                "NextElapseUSecRealtime": instant(unit.next_wall),
                "NextElapseUSecMonotonic": show_span(mono) or ("infinity" if unit.active == "active" else "0"),
                "LastTriggerUSec": instant(unit.last_trigger),
                "Result": unit.result,
                "AccuracyUSec": show_span(unit.file.span("Timer", "AccuracySec", 60.0)),
                "Persistent": "yes" if unit.file.yes("Timer", "Persistent") else "no",
            }
        elif unit is not None and unit.kind == "service":
            facts |= {
                "Type": unit.file.last("Service", "Type", "simple"),
                "Restart": unit.file.last("Service", "Restart", "no"),
                "MainPID": str(unit.main.pid if unit.main and unit.active != "inactive" else 0),
                "Result": unit.result,
                "NRestarts": str(unit.restarts),
                "ExecMainPID": str(unit.exec_pid),
                "ExecMainCode": str(unit.exec_code),
                "ExecMainStatus": str(unit.exec_status),
                "ExecStart": " ; ".join(unit.file.all("Service", "ExecStart")),
                "KillMode": unit.file.last("Service", "KillMode", "control-group"),
            }
        elif name in BUILT_IN:
            facts |= {"Type": "notify", "MainPID": "1", "Result": "success"}
        built_in = name in BUILT_IN
        facts |= {
            "Id": name,
            "Description": (unit.file.last("Unit", "Description") if unit else "") or name,
            "LoadState": "loaded" if unit or built_in else "not-found",
            "ActiveState": self._active(name),
            "SubState": "running" if built_in else unit.sub if unit else "dead",
            "FragmentPath": str(unit.path) if unit and unit.path else "",
            "UnitFileState": "" if not unit and not built_in else self._enabled(name),
            "ActiveEnterTimestamp": instant(unit.entered_active if unit else None),
            "InvocationID": unit.invocation if unit else "",
            "Transient": "yes" if unit and unit.transient else "no",
        }
        return facts

    def _list_timers(self, every: bool, legend: bool) -> Answer:
        self._units_on_disk()
        rows: list[list[str]] = []
        now, mono = time.time(), time.monotonic()
        shown = sorted(
            (u for u in self._units.loaded.values() if u.kind == "timer" and (every or u.active == "active")), key=lambda u: u.name
        )
        for unit in shown:
            at = min((x for x in (unit.next_wall, unit.next_mono and now + unit.next_mono - mono) if x), default=None)
            left = show_span(int(max(0.0, at - now))) if at else "-"
            passed = f"{show_span(int(now - unit.last_trigger))} ago" if unit.last_trigger else "-"
            rows.append([show_instant(at) or "-", left, show_instant(unit.last_trigger) or "-", passed, unit.name, unit.triggers])
        head = [["NEXT", "LEFT", "LAST", "PASSED", "UNIT", "ACTIVATES"]] if legend else []
        return 0, columns(head + rows) + (f"\n{len(rows)} timers listed.\n" if legend else ""), ""

    def _units_on_disk(self) -> None:
        for folder in ("etc/systemd/system", "run/systemd/system"):
            for path in (self._units.root / folder).glob("*.*"):
                if path.is_file() and path.name.endswith((".timer", ".service")):
                    self._unit(path.name)

    def _list_units(self, legend: bool) -> Answer:
        units = [u for u in self._units.loaded.values() if u.active != "inactive"]
        rows = [
            [u.name, "loaded", u.active, u.sub, u.file.last("Unit", "Description") or u.name] for u in sorted(units, key=lambda u: u.name)
        ]
        return 0, columns(([["UNIT", "LOAD", "ACTIVE", "SUB", "DESCRIPTION"]] if legend else []) + rows), ""

    def _cat(self, names: list[str]) -> Answer:
        out: list[str] = []
        for name in names:
            unit = self._unit(name)
            if unit is None or unit.path is None:
                return 1, "", f"No files found for {name}.\n"
            shown = str(unit.path).removeprefix(str(self._units.root))
            out.append(f"# {shown}\n{unit.path.read_text(errors='replace')}")
        return 0, "\n".join(out), ""

    def _status(self, names: list[str]) -> Answer:
        for name in names:
            unit = self._unit(name)
            if unit is None and name not in BUILT_IN:
                return 4, "", f"Unit {name} could not be found.\n"
            facts = self._facts(name, unit, "")
            out = f"* {name} - {facts['Description']}\n     Loaded: loaded ({facts['FragmentPath']}; {facts['UnitFileState']})\n"
            out += f"     Active: {facts['ActiveState']} ({facts['SubState']})\n"
            return 0 if facts["ActiveState"] == "active" else 3, out, ""
        return 0, f"* {self._state()}\n", ""


def full_name(name: str) -> str:
    return name if name.endswith(KINDS) else name + ".service"


def _quiet(options: dict[str, str]) -> bool:
    return "-q" in options or "--quiet" in options


OPTIONS = (
    {"--now", "--no-block", "--value", "--all", "-a", "--no-legend", "--no-pager", "--quiet", "-q", "--plain", "--full", "-l", "--system"}
    | {"--force", "-f", "-ff", "--type", "--state", "--failed", "--timestamp", "--version", "--output", "--lines", "--no-ask-password"}
    | {"--no-wall", "--job-mode", "--no-reload", "--signal", "--kill-whom"}
)
