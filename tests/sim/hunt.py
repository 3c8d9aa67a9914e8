"""Look for any history that goes wrong, the likeliest first: how a mutant of the product is hunted down."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from tests.sim.checks import findings
from tests.sim.install import simulated
from tests.sim.play import play
from tests.sim.scenarios import exhaustive, scenarios
from tests.sim.script import AWS, CORE, FLEETS, FOR_EVER, Cut, DiskFault, Script, draw

MOST = 800


def hunt(most: int = MOST) -> tuple[int, str] | None:
    """After how many histories the first went wrong, and how; None when none of so many did."""
    for number, script in enumerate(islice(_likely(), most), 1):
        with simulated():
            found = [one for one in findings(play(script)) if not one.startswith("bug:")]  # what the simulator lacks kills nobody
        if found:
            return number, found[0]
    return None


def _likely() -> Iterator[Script]:
    for level in (CORE, FLEETS, AWS):
        yield from scenarios(level)
    for script in (*scenarios(CORE), *scenarios(AWS)):
        yield replace(script, own_group=True, waived=("schedule",))
    for nth in range(14):
        yield Script(disk=(DiskFault(0, "write", nth, errno.ENOSPC, FOR_EVER),))
        yield Script(disk=(DiskFault(0, "fdatasync", nth, errno.EIO),))
        yield Script(cuts=(Cut(0, 60, "kill"),), disk=(DiskFault(1, "write", nth, errno.ENOSPC, FOR_EVER, 0.5),), after=("release",))
    crashes = [*islice(exhaustive(CORE, 1), 0, None, 37)]
    for number in range(MOST):
        yield draw(number, CORE)
        if number < len(crashes):
            yield crashes[number]
        if number % 4 == 0:
            yield draw(number, FLEETS)
        if number % 12 == 0:
            yield draw(number, AWS)
