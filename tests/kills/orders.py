"""Who is killed, how and when: several hundred short runs from one seed, the same ones for the same seed.

*At random*: a moment somewhere in the life of a run, which takes about two seconds when nothing happens to it: up to a quarter
of a second after some line of its journal was there. *At a named
point*: the process kills itself with SIGKILL between two of its own steps, which no clock could hit: before, in the middle of or
after the n-th line of its journal; before a request that changes something, once the request is on the wire, or when its
answer is there. The guard at AWS is armed in every fourth run. One watchdog in eight is started as a user's is; the
others are forked from a process that has imported everything, which spares half a second of processor each.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

LINES = 14
"""So many lines a run's journal has when it begins to let go, with the schedule; what comes later is hit at random."""
LIFE = 25
"""And so many at its end."""
OPERATIONS = (
    "CreateSecurityGroup",
    "AuthorizeSecurityGroupIngress",
    "RunInstances",
    "CreateSchedule",
    "TerminateInstances",
    "DeleteSecurityGroup",
    "DeleteSchedule",
)
POINTS = tuple(f"line {n} {when}" for n in range(LINES) for when in ("before", "half", "after")) + tuple(
    f"{operation} {when}" for operation in OPERATIONS for when in ("before", "sent", "answered")
)
DOG_POINTS = (*(f"TerminateInstances {when}" for when in ("before", "sent", "answered")), "line 0 before", "line 1 after")
AT_RANDOM = {
    "the run": 60,
    "its process group": 30,
    "its watchdog": 15,
    "both": 30,
    "stopped": 20,
    "stopped and continued": 12,
    "out of memory": 12,
    "terminal closed": 15,
    "disk full": 20,
    "endpoint cut": 30,
    "SIGINT, SIGTERM or SIGHUP": 15,
}
ORPHANS = frozenset({"both", "both, at a named point"})
"""Nobody here is left to let go of these, by their order: they wait for reap."""


@dataclass(frozen=True)
class Order:
    """One run and what becomes of it."""

    number: int
    how: str
    after_s: float  # when the trouble comes, from the start or from a line of its journal
    point: str = ""  # or where
    dog_point: str = ""  # where its watchdog ends, which took over
    line: int = -1  # a moment is drawn over the lines of a life, so that it is as likely to be late on a machine that is busy
    hold_s: float = 0.3
    overdue_s: float = 300.0
    scheduled: bool = False
    started: bool = False  # its watchdog is a process of its own from the start

    def __str__(self) -> str:
        where = f"{self.how} {self.point}" if self.point else f"{self.how} {self.after_s:.2f} s after line {self.line}"
        return f"{where}, its watchdog {self.dog_point}" if self.dog_point else where


def orders(seed: int) -> list[Order]:
    """The whole list, in the order in which they are started."""
    chance = random.Random(seed)
    made = list(_made(chance))
    chance.shuffle(made)
    return [
        replace(
            one,
            number=n,
            hold_s=chance.uniform(0.0, 0.6),
            scheduled=bool(one.point) or n % 4 == 0,
            started=not one.dog_point and one.how != "stopped" and n % 8 == 0,
        )
        for n, one in enumerate(made)
    ]


def _made(chance: random.Random) -> Iterator[Order]:
    for point in POINTS:
        yield Order(0, "the run, at a named point", 0.0, point, scheduled=True)
    asking = [point for point in POINTS if point.startswith(("line", "RunInstances", "CreateSchedule"))]
    for _ in range(24):
        # Its watchdog takes over where the run died, and dies in its turn.
        yield Order(0, "both, at a named point", 0.0, chance.choice(asking), chance.choice(DOG_POINTS), scheduled=True)
    for how, count in AT_RANDOM.items():
        for _ in range(count):
            itself = how in ("out of memory", "disk full")  # it counts from its start
            line = -1 if itself else chance.randrange(LIFE)
            after = chance.uniform(0.0, 1.8 if itself else 0.25)
            yield Order(0, how, after, line=line, overdue_s=8.0 if how == "stopped" else 300.0)
