"""EC2 wants a spot machine back: the notice on the machine, the wait, and the end with its reason on machine and request.

The plan's `spot` knob says when. An interruption is used up by machines, in the order in which they fall due, so that the
machine that a tool rents instead is left alone. First the request says `marked-for-termination` and the machine's metadata
service has the notice; `notice_s` later the machine is shutting down with `Server.SpotInstanceTermination` and the request is
closed. A machine that ended otherwise meanwhile ends as it did: the notice was only a notice.

Everything happens under the cloud's one lock, on its clock.
"""

from __future__ import annotations

import math
import threading
import time

from provisioner.rehearsal import engine, machines
from provisioner.rehearsal.faults import Plan
from provisioner.rehearsal.knobs import Interruption
from provisioner.rehearsal.lifecycle import Lifecycle
from provisioner.rehearsal.machines import Machine
from provisioner.rehearsal.truth import Truth
from provisioner.rehearsal.wire import Call, Refusal, Reply, ec2_answer

_ENDS = {  # reason -> the request's last status
    "price": ("instance-terminated-by-price", "Your Spot instance was terminated because the Spot price rose above your maximum price."),
    "no-capacity": (
        "instance-terminated-no-capacity",
        "Your Spot instance was terminated because there is no Spot capacity available now.",
    ),
}


class Spots:
    def __init__(self, lock: threading.RLock, plan: Plan, lifecycle: Lifecycle, truth: Truth) -> None:
        self._lock, self._plan, self._lifecycle, self._truth = lock, plan, lifecycle, truth
        self._of: Interruption | None = None  # what `_taken` counts the machines of
        self._taken: set[str] = set()

    def changed(self) -> None:
        """The plan may say something else now: machines that run already are meant too."""
        with self._lock:
            for machine in _running():
                self.running(machine)

    def running(self, machine: Machine) -> None:
        """It runs now; its interruption falls due in a while, if one is armed. Under the lock."""
        armed = self._plan.world.spot
        if armed is not None and armed.interrupt_after_s is not None and machine.spot_request is not None:
            self._lifecycle.later(armed.interrupt_after_s, lambda: self._due(machine.id, armed))

    def busy(self, instance: str) -> None:
        """Its server has answered as many requests as the plan waits for."""
        armed = self._plan.world.spot
        if armed is not None and armed.interrupt_after_requests is not None:
            self._due(instance, armed)

    def _due(self, instance: str, armed: Interruption) -> None:
        with self._lock:
            machine = next((one for one in _running() if one.id == instance), None)
            if machine is None or machine.spot_request is None or not self._may(machine, armed):
                return
            self._taken.add(instance)
            machine.spot_request.mark("marked-for-termination", "Your Spot Instance is marked for termination.")
            at = math.ceil(time.time() + armed.notice_s)
            notice = {"action": "terminate", "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))}
            self._lifecycle.hosts.tell(instance, {"notice": notice})
            self._lifecycle.later(armed.notice_s, lambda: self._take(instance, armed))

    def _may(self, machine: Machine, armed: Interruption) -> bool:
        from fnmatch import fnmatchcase

        now = self._plan.world.spot
        if now is not armed:
            return False
        if self._of is not armed:
            self._of, self._taken = armed, set()
        left = armed.times is None or len(self._taken) < armed.times
        return left and machine.id not in self._taken and fnmatchcase(machine.instance_type, armed.type)

    def _take(self, instance: str, armed: Interruption) -> None:
        with self._lock:
            machine = next((one for one in _running() if one.id == instance), None)
            if machine is None or machine.spot_request is None:
                return
            self._truth.asked("instance", instance, by="spot")
            machine.spot_request.end_as = _ENDS[armed.reason]
            when = time.strftime("%Y-%m-%d %H:%M:%S GMT", time.gmtime(time.time()))
            self._lifecycle.end(
                machine, "terminated", "Server.SpotInstanceTermination", "Spot instance termination", f"Service initiated ({when})"
            )
            self._truth.look(machine.region_name, machine.ec2_backend)

    def cancel(self, call: Call, backend: object) -> Reply:
        """CancelSpotInstanceRequests: the request ends, a machine that it has got does not."""
        ids, known = call.many("SpotInstanceRequestId"), backend.spot_instance_requests  # type: ignore[attr-defined]
        if not ids:
            raise Refusal("MissingParameter", "The request must contain the parameter SpotInstanceRequestId")
        if unknown := [id for id in ids if id not in known]:
            raise Refusal("InvalidSpotInstanceRequestID.NotFound", f"The spot instance request ID '{unknown[0]}' does not exist")
        items = []
        for id in ids:
            known[id].cancel()
            items.append(f"<item><spotInstanceRequestId>{id}</spotInstanceRequestId><state>{known[id].state}</state></item>")
        return ec2_answer(call, f"<spotInstanceRequestSet>{''.join(items)}</spotInstanceRequestSet>")


def _running() -> list[Machine]:
    everything = (machine for region in engine.regions() for machine in machines.machines(engine.backend(region)))
    return [machine for machine in everything if machine.state == "running"]
