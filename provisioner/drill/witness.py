"""What became of a drill's machine, by the word of somebody who is not gpulease.

In a rehearsal that is the cloud's own record of everything that ever existed (`/_rehearsal/truth`), which no listing
delay and no fault touches, and what the machine's own log says of the timer that fired. On a real account there is
nobody above EC2: its StateReason and the time in StateTransitionReason, asked by instance id.
"""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from provisioner.errors import ProviderError
from provisioner.journal import instant

GONE = frozenset({"terminated", "closed", "cancelled", "gone", "deleted"})


@dataclass(frozen=True)
class End:
    """Its end was asked for at `at` (seconds since 1970), by "api", "guest", "schedule" or "fleet"; `timer` as the machine's log says."""

    at: float
    by: str
    timer: str = ""


class Witness(Protocol):
    def machines(self, lease: str) -> list[str]:
        """Every machine that was ever made for it."""

    def end(self, machine: str) -> End | None:
        """None while nobody ended it."""

    def left(self, lease: str) -> list[str]:
        """What of the lease still exists."""

    def freeze(self, machine: str) -> None:
        """Stop everything that runs on it, if that can be done from outside."""


class Truth:
    """Of a rehearsal's cloud, whose files are in `folder`."""

    def __init__(self, cloud: Any, folder: Path) -> None:
        self._cloud, self._folder = cloud, folder

    def machines(self, lease: str) -> list[str]:
        return [str(thing["id"]) for thing in self._cloud.truth() if thing["class"] == "instance" and thing["lease"] == lease]

    def end(self, machine: str) -> End | None:
        for thing in self._cloud.truth():
            if thing["id"] == machine and thing["asked"]:
                return End(instant(thing["asked"]), str(thing["by"]).partition(" ")[0], self._timer(machine))
        return None

    def left(self, lease: str) -> list[str]:
        return [f"{t['class']} {t['id']}" for t in self._cloud.truth() if t["lease"] == lease and t["state"] not in GONE]

    def freeze(self, machine: str) -> None:
        for thing in self._cloud.truth():
            if thing["id"] == machine and thing.get("host"):
                # Its whole group: the pretended machine's init, its timers and whatever it started.
                with suppress(ProcessLookupError):
                    os.killpg(int(thing["host"]["pid"]), signal.SIGSTOP)

    def _timer(self, machine: str) -> str:
        """The last of our timers that this machine's log says fired."""
        log = self._folder / "hosts" / machine / "var" / "log" / "syslog"
        with suppress(OSError):
            fired = re.findall(r"systemd: (gpulease-[a-z-]+\.timer) fired", log.read_text("utf-8", "replace"))
            return str(fired[-1]) if fired else ""
        return ""


class Ec2:
    """On a real account, or a rehearsal that is asked as one."""

    def __init__(self, provider: Any) -> None:
        self._provider, self._account = provider, provider.account_of(provider.region)

    def machines(self, lease: str) -> list[str]:
        return [r.id for r in self._provider.inventory(lease).resources if r.kind == "instance"]

    def end(self, machine: str) -> End | None:
        try:
            answer = self._account.ask("DescribeInstances", InstanceIds=[machine])
        except ProviderError:
            return None  # no answer says nothing; it is asked again until the layer is too late
        instance = answer.data["Reservations"][0]["Instances"][0]
        if instance["State"]["Name"] not in ("shutting-down", "terminated", "stopping", "stopped"):
            return None
        reason, moved = str(instance.get("StateReason", {}).get("Code", "")), str(instance.get("StateTransitionReason", ""))
        at = re.search(r"\((\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d) (?:GMT|UTC)\)", moved)
        when = f"{at[1]}T{at[2]}Z" if at else str(answer.date)
        return End(instant(when), "guest" if "InstanceInitiated" in reason else "api")

    def left(self, lease: str) -> list[str]:
        from provisioner.model import Phase

        return [f"{r.kind} {r.id}" for r in self._provider.inventory(lease).resources if r.phase is not Phase.GONE]

    def freeze(self, machine: str) -> None:
        """Nobody can from outside; its timers were stopped by root on the machine itself."""
