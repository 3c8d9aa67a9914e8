"""The layers, one row each: what is broken, what else is switched off, who must end the machine, and from when on it is late.

A row is data, so that a new guard is a new row and nothing else. `stop` names timers that root on the machine stops, as
a model's own code could; `waive` keeps guards from being armed at all; `kill` is who gets SIGKILL; `freeze` stops every
process of the machine, as a kernel that hangs would. What a row does not switch off is the one layer it is about.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

TIMER, TWIN, LEASE = "gpulease-deadline.timer", "gpulease-deadline-twin.timer", "gpulease-lease.timer"
ALL_TIMERS = (TIMER, TWIN, LEASE)
RUN, WATCHDOG = "run", "watchdog"
AT_ONCE, SILENCE, DEADLINE, SCHEDULE, FLEET, CALLED = "at once", "silence", "deadline", "schedule", "fleet", "called"


@dataclass(frozen=True)
class Layer:
    name: str  # as in --only, and in drills.json
    failure: str  # whole without the rows before it: any of them may be shown alone
    by: str  # who ends it, as the cloud sees it: "api", "guest", "schedule" or "fleet"
    due: str  # from when on it is late
    causes: tuple[str, ...]  # what the proof may call it
    kill: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    waive: tuple[str, ...] = ()
    fleet: bool = False  # is the machine asked for through a fleet?
    freeze: bool = False
    at: str = "verify"  # the stage that must be over first, or "launch": while the machine is being asked for
    faults: tuple[dict[str, Any], ...] = field(default=())
    live: bool = True  # can it be done on a real account?
    needs_schedule: bool = False


LAYERS = (
    Layer(
        "guest-timer",
        "run and watchdog killed, silence not noticed",
        "guest",
        DEADLINE,
        ("guard-guest",),
        kill=(WATCHDOG, RUN),
        stop=(LEASE, TWIN),
        waive=("schedule",),
    ),
    Layer(
        "guest-twin",
        "run and watchdog killed, silence not noticed, the machine's clock wrong",
        "guest",
        DEADLINE,
        ("guard-guest",),
        kill=(WATCHDOG, RUN),
        stop=(LEASE, TIMER),
        waive=("schedule",),
    ),
    Layer(
        "schedule",
        "run and watchdog killed, the machine frozen with all its timers",
        "schedule",
        SCHEDULE,
        ("guard-schedule", "external"),
        kill=(WATCHDOG, RUN),
        stop=ALL_TIMERS,
        freeze=True,
        needs_schedule=True,
    ),
    Layer(
        "fleet",
        "run and watchdog killed, the machine frozen, and no schedule was made",
        "fleet",
        FLEET,
        ("guard-fleet", "external"),
        kill=(WATCHDOG, RUN),
        stop=ALL_TIMERS,
        waive=("schedule",),
        fleet=True,
        freeze=True,
    ),
    Layer(
        "reap",
        "run, watchdog, timers and schedule gone, and this computer too",
        "api",
        CALLED,
        ("external", "recovery"),
        kill=(WATCHDOG, RUN),
        stop=ALL_TIMERS,
        waive=("schedule",),
        freeze=True,
    ),
    Layer(
        "guest-lease",
        "run and watchdog killed, nobody speaks to the machine",
        "guest",
        SILENCE,
        ("guard-guest",),
        kill=(WATCHDOG, RUN),
        stop=(TIMER, TWIN),
        waive=("schedule",),
    ),
    Layer("watchdog", "run killed (-9)", "api", AT_ONCE, ("recovery",), kill=(RUN,), stop=ALL_TIMERS, waive=("schedule",)),
    Layer(
        "watchdog-launch",
        "run killed (-9) between the launch and its answer",
        "api",
        AT_ONCE,
        ("recovery",),
        kill=(RUN,),
        waive=("schedule",),
        at="launch",
        faults=({"action": "RunInstances", "kind": "slow", "seconds": 3.0},),
        live=False,
    ),
    Layer(
        "way-out",
        "Ctrl-C",
        "api",
        AT_ONCE,
        ("client",),
        stop=ALL_TIMERS,
        waive=("watchdog", "schedule"),
    ),
    Layer(
        "way-out-lost",
        "the launch's answer is lost",
        "api",
        AT_ONCE,
        ("client",),
        waive=("watchdog", "schedule"),
        at="end",
        faults=({"action": "RunInstances", "kind": "lost"},),
        live=False,
    ),
    Layer("way-out-end", "no failure: a run that ends", "api", AT_ONCE, ("client",), waive=("watchdog", "schedule"), at="end", live=False),
)
"""Those that wait longest come first."""

NAMES = tuple(layer.name for layer in LAYERS)
