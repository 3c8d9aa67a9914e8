"""Waiting times that a rehearsal may shorten, so that a drill of all guards takes a minute and not half an hour.

    GPULEASE_REHEARSAL_TIMES='{"silence_s": 20, "renew_every_s": 2}' gpulease run smoke --rehearse --yes

A variable and not an option, because a run, its watchdog and a reap must all see the same. Against a real cloud it is
never read: the times there are these defaults, and no setting changes them. A name that is not here, or a number that
makes no sense, is refused: a drill that silently drilled nothing would be worse than none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields

from provisioner.errors import UsageError

NAME = "GPULEASE_REHEARSAL_TIMES"


@dataclass(frozen=True)
class Times:
    """In seconds."""

    silence_s: int = 900  # the machine powers itself off after this long without a sign of life from here
    renew_every_s: int = 60  # how often there is one
    schedule_late_s: int = 180  # the schedule at the provider fires this long after the deadline
    fleet_late_s: int = 240  # a fleet ends, and its machine with it: a minute later, so that the proof can tell which of the two it was
    overdue_s: int = 900  # and `reap` calls a lease overdue this long after it


REAL = Times()


def of(simulated: bool, environment: Mapping[str, str] = os.environ) -> Times:
    """The times of a rehearsal, or of a real cloud."""
    text = environment.get(NAME, "") if simulated else ""
    if not text:
        return REAL
    known = [item.name for item in fields(Times)]
    try:
        given = json.loads(text)
        wrong = [name for name, value in given.items() if name not in known or type(value) is not int or not 0 < value <= 86_400]
    except (ValueError, AttributeError) as e:
        raise UsageError(f"{NAME} cannot be read: {e}", why=f"expected a JSON object with {', '.join(known)}", next=f"unset {NAME}") from e
    if wrong:
        raise UsageError(
            f"{NAME} has {wrong[0]!r}: {given[wrong[0]]!r}", why=f"whole seconds, for {', '.join(known)}", next=f"unset {NAME}"
        )
    made = Times(**given)
    if made.renew_every_s >= made.silence_s:
        # The machine would take the run itself for silent, and go in the middle of it.
        raise UsageError(
            f"{NAME}: a sign of life every {made.renew_every_s} s, and {made.silence_s} s of silence end the machine",
            why="renew_every_s has to be the smaller of the two",
            next=f"""export {NAME}='{{"silence_s": 30, "renew_every_s": 2}}'""",
        )
    return made
