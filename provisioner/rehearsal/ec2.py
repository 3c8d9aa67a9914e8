"""EC2 as far as gpulease relies on it: what moto would answer too kindly, too early or not at all.

Each rule here is one that a teardown tool trips over on the real thing: ids that do not exist yet, a group that cannot
go while an interface uses it, a machine that is only shutting down, a listing that is behind, a filter nobody knows.
Everything else goes to moto as it is. One lock is held for the whole of a call, so a call sees one state of the cloud.

What is legal to filter by is in `filters.json`; a legal filter that moto lacks is refused as unsupported, never ignored:
a filter that matches everything would show a tool the machines of strangers as its own.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from provisioner.rehearsal import engine, machines, spot_history
from provisioner.rehearsal.connect import ConnectEndpoints
from provisioner.rehearsal.faults import Plan
from provisioner.rehearsal.fleets import Fleets
from provisioner.rehearsal.launch import Launches, zone_of
from provisioner.rehearsal.lifecycle import Lifecycle
from provisioner.rehearsal.listings import NONE_OF, Filters, Pages, none, owned
from provisioner.rehearsal.machines import STATES, Machine
from provisioner.rehearsal.spot import Spots
from provisioner.rehearsal.truth import Truth
from provisioner.rehearsal.wire import Call, Refusal, Reply, ec2_answer

_REMOVES = {  # action -> (kind in the truth, the parameters that name it)
    "TerminateInstances": ("instance", ("InstanceId.",)),
    "DeleteSecurityGroup": ("security-group", ("GroupId",)),
    "DeleteVolume": ("volume", ("VolumeId",)),
    "DeleteNetworkInterface": ("network-interface", ("NetworkInterfaceId",)),
    "ReleaseAddress": ("address", ("AllocationId",)),
    "CancelSpotInstanceRequests": ("spot-instance-request", ("SpotInstanceRequestId.",)),
    "DeleteKeyPair": ("key-pair", ("KeyPairId",)),
    "DeleteLaunchTemplate": ("launch-template", ("LaunchTemplateId",)),
    "DeleteSnapshot": ("snapshot", ("SnapshotId",)),
}


class Ec2:
    def __init__(self, lock: threading.RLock, plan: Plan, lifecycle: Lifecycle, truth: Truth, spots: Spots) -> None:
        self._lock, self._plan, self._lifecycle, self._truth = lock, plan, lifecycle, truth
        self._launches = Launches(plan)
        self._fleets = Fleets(lock, plan, lifecycle, truth, self._launch)
        self._hidden: dict[str, float] = {}  # id -> when it becomes listed, monotonic
        self._filters, self._pages = Filters(), Pages()
        self._lists: dict[str, Callable[[Call, Any], Reply]] = dict.fromkeys(NONE_OF, none) | {
            "DescribeSnapshots": owned,
            "DescribeFleets": self._fleets.describe,
            "DescribeLaunchTemplates": self._fleets.describe_templates,
            "DescribeFleetInstances": self._fleets.describe_instances,
            "DescribeFleetHistory": self._fleets.describe_history,
            "DescribeInstanceConnectEndpoints": ConnectEndpoints(plan).describe,
        }
        self._ours: dict[str, Callable[[Call, Any], Reply]] = {
            "RunInstances": self._run,
            "TerminateInstances": self._terminate,
            "StopInstances": self._stop,
            "StartInstances": self._start,
            "DeleteSecurityGroup": self._delete_group,
            "DeleteNetworkInterface": self._delete_interface,
            "ReleaseAddress": self._release_address,
            "CancelSpotInstanceRequests": spots.cancel,
            "CreateLaunchTemplate": self._fleets.create_template,
            "CreateLaunchTemplateVersion": self._fleets.create_template,
            "CreateFleet": self._fleets.create,
            "DeleteFleets": self._fleets.delete,
        }

    def zone(self, call: Call) -> str:
        """The zone a launch insists on; "" for every other call."""
        if call.action != "RunInstances":
            return ""
        with self._lock:
            return zone_of(call.params, machines.region_backend(call.region))

    def answer(self, call: Call) -> Reply:
        with self._lock:
            backend = machines.region_backend(call.region)
            if call.action in self._ours and call.params.get("DryRun", "").lower() == "true":
                raise Refusal("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
            _check_ids(call)
            if not call.mutates:
                self._filters.check(call)
                if call.action == "DescribeSpotPriceHistory":  # which turns its own pages
                    return spot_history.answer(call, self._plan.world.market, _sold(backend))
                with self._listed(backend):
                    return self._pages.cut(call, self._plan.world.page_size, lambda one: self._list(one, backend))
            try:
                reply = self._ours.get(call.action, self._pass_on)(call, backend)
                if reply.status == 200:
                    self._note_removal(call)
                return reply
            finally:
                self._truth.look(call.region, backend)

    def _list(self, call: Call, backend: Any) -> Reply:
        ours = self._lists.get(call.action)
        return ours(call, backend) if ours else engine.ask(call)

    def _pass_on(self, call: Call, backend: Any) -> Reply:
        return engine.ask(call)

    def _run(self, call: Call, backend: Any) -> Reply:
        if any(key.startswith("LaunchTemplate.") for key in call.params):
            _, _, data = self._fleets.from_template(call.params, "LaunchTemplate.", backend)
            own = {key: value for key, value in call.params.items() if not key.startswith("LaunchTemplate.")}
            call = call.with_params(data | own)
        return self._launch(call, backend)[0]

    def _launch(self, call: Call, backend: Any) -> tuple[Reply, list[Machine]]:
        reply, new = self._launches.run(call, backend)
        listed = time.monotonic() + self._plan.timing.listing_s
        for machine in new:
            self._lifecycle.begin(machine)
            if self._plan.timing.listing_s > 0:
                born = [machine.id, *(nic.id for nic in machine.nics.values())]
                born += [mapping.volume_id for _, mapping in machine.get_block_device_mapping]
                self._hidden.update({id: listed for id in born})
        return reply, new

    def _terminate(self, call: Call, backend: Any) -> Reply:
        found = self._named(call, backend)
        for machine in found:
            if machine.disable_api_termination:
                raise Refusal("OperationNotPermitted", f"The instance '{machine.id}' may not be terminated: disableApiTermination is set")
        reply = self._change(call, found, lambda machine: self._end(machine, "terminated"))
        for machine in found if call.params.get("Force", "").lower() == "true" else []:
            self._lifecycle.loosen(machine)
        return reply

    def _stop(self, call: Call, backend: Any) -> Reply:
        found = self._named(call, backend)
        for machine in found:
            if machine.spot_request and machine.spot_request.type == "one-time":
                raise Refusal("UnsupportedOperation", f"You can't stop the Spot Instance '{machine.id}' because its request is one-time")
            if machine.state not in ("pending", "running", "stopping", "stopped"):
                raise Refusal("IncorrectInstanceState", f"The instance '{machine.id}' is not in a state from which it can be stopped")
        return self._change(call, found, lambda machine: self._end(machine, "stopped"))

    def _start(self, call: Call, backend: Any) -> Reply:
        found = self._named(call, backend)
        for machine in found:
            if machine.state not in ("pending", "running", "stopped"):
                raise Refusal("IncorrectInstanceState", f"The instance '{machine.id}' is not in a state from which it can be started")

        def start(machine: Machine) -> None:
            if machine.state == "stopped":
                machine.explain("", "", "")
                self._lifecycle.begin(machine)

        return self._change(call, found, start)

    def _end(self, machine: Machine, to: str) -> None:
        when = time.strftime("%Y-%m-%d %H:%M:%S GMT", time.gmtime(time.time()))
        self._lifecycle.end(machine, to, "Client.UserInitiatedShutdown", "User initiated shutdown", f"User initiated ({when})")

    def _change(self, call: Call, found: list[Machine], do: Callable[[Machine], None]) -> Reply:
        items = []
        for machine in found:
            previous = machine.state
            do(machine)
            items.append(
                f"<item><instanceId>{machine.id}</instanceId>"
                f"<currentState><code>{STATES[machine.state]}</code><name>{machine.state}</name></currentState>"
                f"<previousState><code>{STATES[previous]}</code><name>{previous}</name></previousState></item>"
            )
        return ec2_answer(call, f"<instancesSet>{''.join(items)}</instancesSet>")

    def _named(self, call: Call, backend: Any) -> list[Machine]:
        ids = call.many("InstanceId")
        if not ids:
            raise Refusal("MissingParameter", "The request must contain the parameter InstanceId")
        by_id = {machine.id: machine for machine in machines.machines(backend)}
        if unknown := [id for id in ids if id not in by_id]:
            ids_are = "ID" if len(unknown) == 1 else "IDs"
            verb = "does" if len(unknown) == 1 else "do"
            raise Refusal("InvalidInstanceID.NotFound", f"The instance {ids_are} '{', '.join(unknown)}' {verb} not exist")
        return [by_id[id] for id in dict.fromkeys(ids)]

    def _delete_group(self, call: Call, backend: Any) -> Reply:
        name = call.params.get("GroupId") or call.params.get("GroupName", "")
        group = backend.get_security_group_by_name_or_id(name)
        if group is not None:
            if group.is_default:
                raise Refusal("CannotDelete", f'the specified group: "{group.id}" name: "{group.name}" cannot be deleted by a user')
            if _is_used(group, backend):
                raise Refusal("DependencyViolation", f"resource {group.id} has a dependent object")
        return engine.ask(call)

    def _delete_interface(self, call: Call, backend: Any) -> Reply:
        interface = backend.enis.get(call.params.get("NetworkInterfaceId", ""))
        if interface is not None and interface.instance is not None:
            raise Refusal("InvalidParameterValue", f"Network interface '{interface.id}' is currently in use.")
        return engine.ask(call)

    def _release_address(self, call: Call, backend: Any) -> Reply:
        wanted = call.params.get("AllocationId", "")
        address = next((one for one in backend.addresses if one.allocation_id == wanted), None)
        if address is not None and address.association_id:
            raise Refusal("InvalidIPAddress.InUse", f"Address {address.public_ip} is in use.")
        reply = engine.ask(call)
        if address is not None and reply.status == 200:
            machines.ADDRESSES.give_back(address.public_ip)
        return reply

    def _note_removal(self, call: Call) -> None:
        kind, names = _REMOVES.get(call.action, ("", ()))
        for key, value in call.params.items():
            if any(key == name or (name.endswith(".") and key.startswith(name)) for name in names):
                self._truth.asked(kind, value, call.by)

    @contextmanager
    def _listed(self, backend: Any) -> Iterator[None]:
        """Without what is too young to be listed, and with states that are behind. Under the lock, so nobody sees the gap."""
        now = time.monotonic()
        since = now - self._plan.timing.stale_s
        late = [machine for machine in machines.machines(backend) if machine.changed[0] > since] if since < now else []
        states = [machine._state for machine in late]
        self._hidden = {id: at for id, at in self._hidden.items() if at > now}
        hidden = self._hidden
        shelves = [backend.reservations, backend.volumes, backend.enis]
        whole = [dict(shelf) for shelf in shelves] if hidden else []
        try:
            for machine in late:
                machine._state = machine.changed[1]
            for shelf, was in zip(shelves, whole, strict=False):
                for key, thing in was.items():
                    ids = [machine.id for machine in thing.instances] if shelf is backend.reservations else [thing.id]
                    if any(id in hidden for id in ids):
                        del shelf[key]
            yield
        finally:
            for machine, state in zip(late, states, strict=True):
                machine._state = state
            for shelf, was in zip(shelves, whole, strict=False):
                shelf.clear()
                shelf.update(was)


def _check_ids(call: Call) -> None:
    for id in call.many("InstanceId") + [call.params[key] for key in ("InstanceId",) if key in call.params]:
        if not re.fullmatch(r"i-([0-9a-f]{8}|[0-9a-f]{17})", id):
            raise Refusal("InvalidInstanceID.Malformed", f'Invalid id: "{id}"')


def _sold(backend: Any) -> list[tuple[str, str]]:
    """Every type and zone of the region."""
    return [(one["InstanceType"], one["Location"]) for one in backend.describe_instance_type_offerings("availability-zone")]


def _is_used(group: Any, backend: Any) -> bool:
    if any(group in interface.group_set for interface in backend.enis.values()):
        return True
    others = (other for groups in backend.groups.values() for other in groups.values() if other is not group)
    return any(
        (rule.source_group or {}).get("GroupId") == group.id for other in others for rule in (*other.ingress_rules, *other.egress_rules)
    )
