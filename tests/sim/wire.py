"""How a request travels: sent, takes effect, answered; and what befalls it on the way.

Both providers of the simulation ask through `request`. It is where a process can die with a request in flight, where
the faults of the script strike, and where a partition is. The cloud it asks is the one of the process that runs now.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.sim import process as P
from tests.sim.faults import AFTER, BEFORE, CLASSES, LATE, TIMES, Class
from tests.sim.world import World

CHANGES = ("Run", "Create", "Authorize", "Terminate", "Delete", "Cancel", "Release", "Deregister")


class Ec2Error(Exception):
    """AWS's own answer that it did not do it."""

    def __init__(self, code: str, status: int = 400, message: str = "") -> None:
        super().__init__(code)
        self.code, self.status, self.message = code, status, message or code


@dataclass
class Strike:
    """A fault of the script, on its way."""

    site: str  # an operation, or "*"
    skip: int
    times: int
    what: Class
    often: str = field(init=False)

    def __post_init__(self) -> None:
        self.often = TIMES.get(self.times, str(self.times))


class Network:
    """What lies between every process of a history and the cloud."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.strikes: list[Strike] = []
        self.cut_off_until = 0.0
        self.sent: list[tuple[str, float, str]] | None = None  # (operation, when, by whom), where somebody wants to know
        self.validate: Callable[[str, str, dict[str, Any], Any], None] | None = None

    def strike(self, operation: str) -> Class | None:
        for one in self.strikes:
            if one.times > 0 and one.site in (operation, "*"):
                if one.skip > 0:
                    one.skip -= 1
                    continue
                one.times -= 1
                P.COVERED[operation, one.what.name, one.often] += 1
                return one.what
        return None


NO_ROUTE = CLASSES["no-route"]


def request(network: Network, operation: str, effect: Callable[[], Any]) -> tuple[Any, Class | None]:
    """The answer, or what went wrong instead. Ec2Error is an answer too, and is raised."""
    process, world = P.now(), network.world
    changes = operation.startswith(CHANGES)
    process.flight = effect if changes else None
    process.step(f"{operation}.send")
    process.flight = None
    if world.t < network.cut_off_until:
        world.go_on(1.0)
        P.COVERED[operation, "partition", "for a time"] += 1
        return None, NO_ROUTE
    fault = network.strike(operation) if network.strikes else None
    world.go_on(0.12)
    if network.sent is not None and changes:
        network.sent.append((operation, world.t, process.name))
    if fault is not None:
        if fault.effect is LATE:
            world.later(world.weather.effect_s, quiet(effect))
        if fault.effect is not AFTER:
            world.go_on(0.0 if fault.effect is BEFORE else 20.0)
            return None, fault
    world.answers += 1
    answer = effect()
    process.step(f"{operation}.effect")
    return answer, fault


def quiet(effect: Callable[[], Any]) -> Callable[[], None]:
    """Something that happens when nobody waits for its answer any more."""

    def happen() -> None:
        with contextlib.suppress(Ec2Error):
            effect()

    return happen
