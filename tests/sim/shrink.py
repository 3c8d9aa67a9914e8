"""A failing history made as short as it can be while it still fails in the same way, and printed as a test to keep."""

from __future__ import annotations

from collections.abc import Sequence

from tests.sim.checks import findings
from tests.sim.play import play
from tests.sim.script import Script, without

MOST_TRIES = 400


def kinds(found: Sequence[str]) -> set[str]:
    return {one.split(":")[0] for one in found}


def shrink(script: Script, kind: str) -> Script:
    """Leave things out for as long as it still fails like that. Call it inside `install.simulated()`."""
    tries, again = 0, True
    while again and tries < MOST_TRIES:
        again = False
        for smaller in without(script):
            tries += 1
            if kind in kinds(findings(play(smaller))):
                script, again = smaller, True
                break
    return script


def report(script: Script, found: Sequence[str]) -> str:
    """What went wrong, and the shortest script that does it: a line for KEPT in tests/sim/test_sim.py."""
    kind = found[0].split(":")[0]
    short = shrink(script, kind)
    lines = [f"{script.level} seed {script.seed}:", *(f"  {one}" for one in found), "shortest script that does the same:", f"  {short!r}"]
    return "\n".join([*lines, *(f"  {one}" for one in findings(play(short)))])
