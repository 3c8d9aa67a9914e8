"""`systemd-run` and `journalctl`: units made on the spot, and what they printed.

`systemd-run` is how a server is started so that it has a control group and can be stopped whole, and how a second,
clock-independent deadline is armed. Its options are systemd 255's; those that make no sense without a kernel behind
them (`--slice`, `--nice`) are accepted and ignored, those that would need a terminal (`--pipe`, `--pty`,
`--scope`) are refused.

Each function takes an argv and returns (exit, stdout, stderr).
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from .host_service import Unit, UnitError
from .host_systemctl import VERSION, Answer, full_name
from .host_units import Units
from .unit_text import UnitFile

UNIT_KEYS = frozenset({"Description", "DefaultDependencies", "After", "Before", "Wants", "Requires", "CollectMode", "StartLimitBurst"})
SHORT = {
    "-u": "--unit",
    "-p": "--property",
    "-E": "--setenv",
    "-G": "--collect",
    "-q": "--quiet",
    "-r": "--remain-after-exit",
    "-d": "--same-dir",
}
ON = {
    "--on-active": "OnActiveSec",
    "--on-boot": "OnBootSec",
    "--on-startup": "OnStartupSec",
    "--on-unit-active": "OnUnitActiveSec",
    "--on-unit-inactive": "OnUnitInactiveSec",
    "--on-calendar": "OnCalendar",
}
RUN_FLAGS = frozenset({"--collect", "--quiet", "--remain-after-exit", "--no-block", "--wait", "--system", "--no-ask-password"})
RUN_VALUES = frozenset(
    {"--unit", "--property", "--timer-property", "--setenv", "--working-directory", "--service-type", "--description"}
) | {
    "--uid",
    "--gid",
    "--nice",
    "--slice",
    *ON,
}


def systemd_run(units: Units, argv: Sequence[str]) -> Answer:
    service, timer = UnitFile({"Unit": [], "Service": []}), UnitFile({"Unit": [], "Timer": []})
    rest, name, said = list(argv), "", ""
    unit: Unit | None = None
    flags: set[str] = set()
    if rest[:1] == ["--version"]:
        return 0, VERSION, ""
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        option, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        option = SHORT.get(option, option)
        if option in RUN_FLAGS:
            flags.add(option)
            continue
        if option not in RUN_VALUES:
            return 1, "", f"systemd-run: unrecognized option '{word}'\n"
        value = value if equals else rest.pop(0) if rest else ""
        if option == "--unit":
            name = value
        elif option in ON:
            timer.add("Timer", ON[option], value)
        elif option in ("--property", "--timer-property"):
            key, equals, setting = value.partition("=")
            if not equals or not re.fullmatch(r"[A-Z][A-Za-z]+", key):
                return 1, "", f"Unknown assignment: {value}\n"
            if option == "--timer-property":
                timer.add("Timer", key, setting)
            else:
                service.add("Unit" if key in UNIT_KEYS else "Service", key, setting)
        elif option == "--setenv":
            service.add("Service", "Environment", shlex.quote(value))
        elif option == "--uid":
            service.add("Service", "User", value)
        elif option == "--working-directory":
            service.add("Service", "WorkingDirectory", value)
        elif option == "--service-type":
            service.add("Service", "Type", value)
        elif option == "--description":
            service.add("Unit", "Description", value)
    if "--remain-after-exit" in flags:
        service.add("Service", "RemainAfterExit", "yes")
    stem = (name or f"run-u{int(time.monotonic() * 1000) % 100000}").removesuffix(".service").removesuffix(".timer")
    timed = bool(timer.sections["Timer"])
    try:
        if rest:
            target = units.services.executable(rest[0])
            if not target.exists():
                return 1, "", f"Failed to find executable {rest[0]}: No such file or directory\n"
            command = " ".join(shlex.quote(w.replace("%", "%%").replace("$", "$$")) for w in [str(target), *rest[1:]])
            service.add("Service", "ExecStart", command)
            unit = units.add_transient(f"{stem}.service", service, collect="--collect" in flags)
        elif not timed or units.find(f"{stem}.service") is None:
            return 1, "", "Command line to execute required.\n"
        what = f"{stem}.timer" if timed else f"{stem}.service"
        if timed:
            units.add_transient(what, timer, collect=True)
            said = f"Running timer as unit: {what}\n" + (f"Will run service as unit: {stem}.service\n" if rest else "")
        else:
            said = f"Running as unit: {what}\n"
        units.start(what, block="--no-block" not in flags)
    except UnitError as e:
        return 1, "", str(e) + "\n"
    code = 0
    if "--wait" in flags and unit is not None and not timed:
        unit.over.wait()
        code = unit.exec_status if unit.exec_code == 1 else 255 if unit.exec_code else 0
    return code, "", "" if "--quiet" in flags else said


def journal(root: Path, argv: Sequence[str]) -> Answer:
    rest, unit, lines = list(argv), "", 0
    while rest:
        word = rest.pop(0)
        if word in ("-u", "--unit") and rest:
            unit = rest.pop(0)
        elif word.startswith("--unit="):
            unit = word[7:]
        elif word in ("-n", "--lines") and rest:
            lines = int(rest.pop(0)) if rest[0].isdigit() else 10
        elif word.startswith(("-n", "--lines=")):
            lines = int(re.sub(r"\D", "", word) or 10)
        elif word in ("-o", "--since", "--until", "-p", "--output", "-t") and rest:
            rest.pop(0)
    path = root / ("var/log/journal/" + full_name(unit) if unit else "var/log/syslog")
    if "/" in unit or not path.is_file():
        return 0, "-- No entries --\n", ""
    text = path.read_text(errors="replace").splitlines(keepends=True)
    return 0, "".join(text[-lines:] if lines else text), ""
