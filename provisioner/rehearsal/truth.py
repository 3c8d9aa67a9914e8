"""Ground truth: every resource that ever existed here, with its real state. What claims are checked against.

After each thing that may have changed something, `look` walks moto's live objects of a region and writes down what
is new, what changed and what is no longer there. Entries are never removed. Default groups, the image and its
snapshot belong to the cloud and not to anybody's run, so they are left out.

It reads objects and takes no decisions; listing delays and faults do not touch it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from provisioner.rehearsal import engine
from provisioner.rehearsal.wire import stamp

_LEASE_TAG = "gpulease:lease"


@dataclass
class _Entry:
    kind: str
    id: str
    region: str
    state: str
    lease: str
    born: float
    asked: float | None = None
    by: str = ""  # who asked for its end: "api", "guest" or "schedule"
    gone: float | None = None
    detail: dict[str, Any] | None = None
    told: bool = False  # noted by who holds it; not one of moto's objects


class Truth:
    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._lock = threading.Lock()
        self.last_end = 0.0  # when a machine last ended, monotonic

    def look(self, region: str, backend: Any) -> None:
        now = time.time()
        with self._lock:
            seen = set()
            for kind, id, state, detail in _live(backend):
                seen.add((kind, id))
                entry = self._entries.get((kind, id))
                if entry is None:
                    entry = self._entries[(kind, id)] = _Entry(kind, id, region, state, "", now)
                entry.state, entry.detail = state, detail
                entry.lease = backend.tags.get(id, {}).get(_LEASE_TAG, entry.lease)
                if state in ("terminated", "closed", "cancelled", "deleted") and entry.gone is None:
                    entry.gone = now
                    self.last_end = time.monotonic()
            for key, entry in self._entries.items():
                if entry.region == region and key not in seen and entry.gone is None and not entry.told:
                    entry.gone, entry.state = now, "gone"

    def note(
        self, kind: str, id: str, region: str, lease: str, state: str, detail: dict[str, Any] | None = None, *, gone: bool = False
    ) -> None:
        """For what is no object of moto's EC2: a schedule says itself what has become of it."""
        with self._lock:
            entry = self._entries.setdefault((kind, id), _Entry(kind, id, region, state, lease, time.time(), told=True))
            if entry.gone is not None and not gone:
                entry.gone = None  # made anew under the same name
            entry.state, entry.detail = state, detail or entry.detail
            if gone:
                entry.gone = time.time()

    def asked(self, kind: str, id: str, by: str = "api") -> None:
        """Its end was asked for, now; the first time counts."""
        with self._lock:
            entry = self._entries.get((kind, id))
            if entry is not None and entry.asked is None:
                entry.asked, entry.by = time.time(), by

    def tell(self) -> list[dict[str, Any]]:
        with self._lock:
            return [
                {
                    "class": entry.kind,
                    "id": entry.id,
                    "region": entry.region,
                    "lease": entry.lease,
                    "state": entry.state,
                    "born": stamp(entry.born),
                    "asked": stamp(entry.asked),
                    "by": entry.by,
                    "gone": stamp(entry.gone),
                    **(entry.detail or {}),
                }
                for entry in self._entries.values()
            ]

    def alive(self) -> bool:
        """Is there a machine that is not terminated?"""
        with self._lock:
            return any(entry.kind == "instance" and entry.gone is None for entry in self._entries.values())


def _live(backend: Any) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    for reservation in backend.reservations.values():
        for machine in reservation.instances:
            detail = {"type": machine.instance_type, "zone": machine.placement.zone, "token": machine.client_token}
            yield "instance", machine.id, machine.state, detail
    for volume in backend.volumes.values():
        yield "volume", volume.id, volume.status, {"gib": volume.size}
    for interface in backend.enis.values():
        yield "network-interface", interface.id, interface.status, {}
    for groups in backend.groups.values():
        for group in groups.values():
            if not group.is_default:
                yield "security-group", group.id, "here", {"name": group.name}
    for request in backend.spot_instance_requests.values():
        yield "spot-instance-request", request.id, request.state, {"type": request.type}
    for address in backend.addresses:
        yield "address", address.allocation_id or address.public_ip, "in-use" if address.association_id else "here", {}
    for key in backend.key_pairs.values():
        yield "key-pair", key.id, "here", {"name": key.key_name}
    for template in backend.launch_templates.values():
        yield "launch-template", template.id, "here", {"name": template.name}
    for fleet in backend.fleets.values():
        yield "fleet", fleet.id, fleet.state, {"target": fleet.target}
    for snapshot in backend.snapshots.values():
        if snapshot.owner_id == engine.ACCOUNT:
            yield "snapshot", snapshot.id, snapshot.status, {}
