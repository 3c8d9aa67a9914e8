"""What goes wrong, and when: a plan of faults that requests are matched against, one after the other.

A fault names an action (`RunInstances`, `Describe*`, `*`), a kind and how often. The kind says what the client sees,
`effect` says whether the call was carried out before that, which is the difference that costs money:

    error    AWS refuses or breaks, with `code` and `status`           (no effect unless "effect": true)
    reset    the connection is reset, nothing was done
    lost     it was done, and the answer is lost
    hang     nothing was done; no answer for `seconds`, then a reset   (with "effect": true it was done)
    slow     the right answer, `seconds` late
    garbled  it was done, and the answer is cut off in the middle

Other entries are not about requests: `{"host": {...}}` is handed to every machine, those there and those to come,
and the rest (`{"timing": {...}}`, `{"limits": {...}}` …) say how this cloud is: `knobs.py`. No wall clock and no sockets here:
`endpoint.py` acts them out.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from typing import Any

from provisioner.rehearsal import host_spec
from provisioner.rehearsal.knobs import KNOBS, Timing, World

KINDS = ("error", "reset", "lost", "hang", "slow", "garbled")
KNOWN = {  # code -> (status, message); {zone} and {type} are filled in from the call
    "InsufficientInstanceCapacity": (500, "There is not enough {type} capacity in {zone} now; another zone or type may have some."),
    "RequestLimitExceeded": (503, "Request limit exceeded."),
    "InternalError": (500, "An internal error has occurred."),
    "ServiceUnavailable": (503, "The service is unavailable. Please try again shortly."),
    "Unavailable": (503, "The service is temporarily unavailable."),
    "VcpuLimitExceeded": (400, "More vCPU capacity was requested than the current vCPU limit of 0 allows for this instance family."),
    "MaxSpotInstanceCountExceeded": (400, "Max spot instance count exceeded"),
    "UnauthorizedOperation": (403, "You are not authorized to perform this operation."),
    "AccessDenied": (403, "You are not authorized to perform this operation."),
    "AccessDeniedException": (400, "You are not authorized to perform this operation."),
    "ExpiredToken": (403, "The security token included in the request is expired"),
    "ExpiredTokenException": (400, "The security token included in the request is expired"),
    "RequestExpired": (400, "Request has expired."),
    "AuthFailure": (401, "AWS was not able to validate the provided access credentials"),
    "OptInRequired": (401, "You are not subscribed to this service."),
    "ThrottlingException": (400, "Rate exceeded"),
}


@dataclass(frozen=True)
class Fault:
    action: str
    kind: str
    code: str = ""
    status: int = 0
    message: str = ""
    times: int | None = 1  # None: for ever
    after: int = 0  # let so many matching calls pass first
    zone: str = ""  # only calls for this zone
    region: str = ""
    effect: bool = False  # carry the call out before failing
    seconds: float = 600.0

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Fault:
        known = {item.name for item in fields(cls)}
        if unknown := sorted(set(entry) - known):
            raise ValueError(f"a fault has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
        if not entry.get("action") or entry.get("kind") not in KINDS:
            raise ValueError(f"a fault needs an action and a kind out of {', '.join(KINDS)}: {dict(entry)}")
        fault = cls(**entry)
        if fault.kind == "error":
            code = fault.code or "InternalError"
            status, message = KNOWN.get(code, (400, code))
            fault = replace(fault, code=code, status=fault.status or status, message=fault.message or message)
        return replace(fault, effect=fault.effect or fault.kind in ("lost", "garbled", "slow"))


@dataclass
class _Armed:
    fault: Fault
    left: int | None
    skip: int


@dataclass
class Plan:
    """The faults that are armed. Safe to use from every request at once."""

    world: World = field(default_factory=World)
    _armed: list[_Armed] = field(default_factory=list)
    _host: dict[str, Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def timing(self) -> Timing:
        return self.world.timing

    def add(self, entries: object) -> int:
        """Arm them all, or none and ValueError."""
        if isinstance(entries, Mapping):
            entries = [entries]
        if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
            raise ValueError("faults are a JSON list of objects")
        faults = [Fault.read(entry) for entry in entries if not ({"host"} | KNOBS) & set(entry)]
        with self._lock:
            world = self.world
            for entry in entries:
                if ({"host"} | KNOBS) & set(entry):
                    world = world.changed(entry)
                host_spec.Faults({k: v for k, v in entry.get("host", {}).items() if v is not None})  # refused here, not on the machine
            self.world = world
            self._armed += [_Armed(fault, fault.times, fault.after) for fault in faults]
            for entry in entries:
                self._host.update(entry.get("host", {}))
        return len(entries)

    def clear(self) -> dict[str, None]:
        """Disarm all but the timing; returns the host faults to take back."""
        with self._lock:
            taken_back = dict.fromkeys([*self._host, *_counted(self.world)])
            self.world = World(timing=self.world.timing)
            self._armed.clear()
            self._host.clear()
        return taken_back

    def host(self) -> dict[str, Any]:
        with self._lock:
            return self._host | _counted(self.world)

    def match(self, action: str, region: str, zone: str = "") -> Fault | None:
        """The first armed fault that is about this call, used up by one."""
        with self._lock:
            for armed in self._about(action, region):
                if armed.fault.zone and armed.fault.zone != zone:
                    continue
                if armed.skip:
                    armed.skip -= 1
                    continue
                if armed.left is not None:
                    armed.left -= 1
                return armed.fault
        return None

    def closed_zones(self, action: str, region: str) -> set[str]:
        """Zones for which this action would fail now; a launch that names no zone goes elsewhere."""
        with self._lock:
            return {armed.fault.zone for armed in self._about(action, region) if armed.fault.zone and not armed.skip}

    def _about(self, action: str, region: str) -> Iterable[_Armed]:
        for armed in self._armed:
            fault = armed.fault
            if armed.left != 0 and fnmatchcase(action, fault.action) and fault.region in ("", region):
                yield armed


def _counted(world: World) -> dict[str, Any]:
    """What a machine must count for the cloud."""
    limit = world.spot.interrupt_after_requests if world.spot else None
    return {} if limit is None else {"spot_notice_after_requests": limit}
