"""EC2 Fleet of type `request`, with an end that EC2 itself enforces: `ValidUntil` and `TerminateInstancesWithExpiration`.

A fleet is asked for in one call and fills itself a moment later from a launch template, so its caller gets an id and no
machine; what the machine is called and tagged with comes from the template alone. Each override is tried in its order; what
EC2 said to each that failed is in the fleet's history, as for every fleet that is not `instant`. At `ValidUntil` its machines are
terminated if that was asked for, by EC2, whoever else is alive: that is what makes it a guard.

AWS's pages say that a fleet of this type does not make up for what it lost; the knob `fleets_persist` makes it do so, and try again
what it could not have, because a client that lets go must not rely on a promise about spot machines alone.

Templates are moto's; only their parameters are kept here, as they came, because a launch template's data are
RunInstances' own parameters under a prefix. `instant` and `maintain` are refused: nothing here relies on them.
Everything happens under the cloud's one lock.
"""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import escape

from provisioner.rehearsal import engine
from provisioner.rehearsal.faults import Plan
from provisioner.rehearsal.lifecycle import Lifecycle
from provisioner.rehearsal.machines import Machine
from provisioner.rehearsal.truth import Truth
from provisioner.rehearsal.wire import Call, Refusal, Reply, ec2_answer, numbered_groups, stamp

_DATA = "LaunchTemplateData."
_CONFIG = "LaunchTemplateSpecification."
_AGAIN_S = 0.2
_OVER = {"SubnetId": "SubnetId", "InstanceType": "InstanceType", "AvailabilityZone": "Placement.AvailabilityZone", "ImageId": "ImageId"}
Launch = Callable[[Call, Any], tuple[Reply, list[Machine]]]


@dataclass
class Fleet:
    id: str
    region: str
    asked: Mapping[str, str]
    until: float | None  # unix time
    ends_machines: bool
    target: int
    spot: bool
    token: str
    made: float = field(default_factory=time.time)
    state: str = "submitted"
    machines: list[Machine] = field(default_factory=list)
    errors: list[tuple[str, str]] = field(default_factory=list)

    def alive(self) -> list[Machine]:
        return [machine for machine in self.machines if machine.state not in ("shutting-down", "terminated")]


class Fleets:
    def __init__(self, lock: threading.RLock, plan: Plan, lifecycle: Lifecycle, truth: Truth, launch: Launch) -> None:
        self._lock, self._plan, self._lifecycle, self._truth, self._launch = lock, plan, lifecycle, truth, launch
        self._templates: dict[tuple[str, int], dict[str, str]] = {}  # id and version -> parameters of RunInstances
        self._tokens: dict[tuple[str, str], Fleet] = {}

    def create_template(self, call: Call, backend: Any) -> Reply:
        """CreateLaunchTemplate and CreateLaunchTemplateVersion."""
        reply = engine.ask(call)
        found = re.search(rb"<launchTemplateId>(lt-\w+)</launchTemplateId>", reply.body)
        if reply.status == 200 and found:
            template = backend.launch_templates[found[1].decode()]
            data = {key.removeprefix(_DATA): value for key, value in call.params.items() if key.startswith(_DATA)}
            self._templates[(template.id, template.latest_version_number)] = data
        return reply

    def describe_templates(self, call: Call, backend: Any) -> Reply:
        """moto shows none for an id that is not there; EC2 refuses."""
        if unknown := [id for id in call.many("LaunchTemplateId") if id not in backend.launch_templates]:
            raise Refusal(
                "InvalidLaunchTemplateId.NotFound", f"The specified launch template, with template ID {unknown[0]}, does not exist."
            )
        return engine.ask(call)

    def from_template(self, params: Mapping[str, str], prefix: str, backend: Any) -> tuple[Any, int, dict[str, str]]:
        """The template that `prefix` names, its version, and its parameters. Refusal when there is none."""
        id, name = params.get(f"{prefix}LaunchTemplateId", ""), params.get(f"{prefix}LaunchTemplateName", "")
        everything = backend.launch_templates.values()
        template = next((one for one in everything if id == one.id or (not id and name and one.name == name)), None)
        if template is None and id:
            raise Refusal("InvalidLaunchTemplateId.NotFound", f"The specified launch template, with template ID {id}, does not exist.")
        if template is None:
            raise Refusal(
                "InvalidLaunchTemplateName.NotFoundException",
                f"The specified launch template, with template name {name}, does not exist.",
            )
        text = params.get(f"{prefix}Version", "$Default").lower()
        latest, default = template.latest_version_number, template.default_version_number
        number = {"$latest": latest, "$default": default}.get(text) or (int(text) if text.isdigit() else 0)
        if (template.id, number) not in self._templates:
            raise Refusal("InvalidLaunchTemplateId.VersionNotFound", f"Could not find the specified version {text} for {template.id}.")
        return template, number, self._templates[(template.id, number)]

    def create(self, call: Call, backend: Any) -> Reply:
        params, token = call.params, call.params.get("ClientToken", "")
        same = {key: value for key, value in params.items() if key not in ("ClientToken", "Version", "DryRun")}
        known = self._tokens.get((call.region, token)) if token else None
        if known is not None and known.asked != same:
            raise Refusal("IdempotentParameterMismatch", "the same client token was used before with other parameters")
        fleet = known or self._new(call, same, backend)
        if known is None:
            backend.fleets[fleet.id] = fleet
            tags = {tag["Key"]: tag.get("Value", "") for _, tag in numbered_groups(params, "TagSpecification.1.Tag")}
            if tags:
                backend.create_tags([fleet.id], tags)
            self._lifecycle.later(self._plan.timing.fleet_s, lambda: self._fill(fleet, backend))
            if fleet.until is not None:
                self._lifecycle.later(max(0.0, fleet.until - time.time()), lambda: self._expire(fleet, backend))
            if token:
                self._tokens[(call.region, token)] = fleet
        return ec2_answer(call, f"<fleetId>{fleet.id}</fleetId><errorSet/><fleetInstanceSet/>")

    def _new(self, call: Call, asked: Mapping[str, str], backend: Any) -> Fleet:
        if not self._plan.world.fleet_role:
            raise Refusal(
                "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
                "The provided credentials do not have permission to create the service-linked role for EC2 Fleet.",
                403,
            )
        kind = asked.get("Type", "maintain")
        if kind != "request":
            raise Refusal("UnsupportedOperation", f"the rehearsal makes fleets of type request only, not {kind}")
        for number, specification in numbered_groups(asked, "TagSpecification"):
            if specification.get("ResourceType") != "fleet" or number != 1:
                raise Refusal(
                    "InvalidParameterValue", "a fleet of type request takes tags for the fleet only; a machine's are its template's"
                )
        target, least = asked.get("TargetCapacitySpecification.TotalTargetCapacity", ""), 1
        if not target.isdigit() or int(target) < least:
            raise Refusal("InvalidParameterValue", f"TotalTargetCapacity is {target!r}, and must be a whole number of 1 or more")
        configs = numbered_groups(asked, "LaunchTemplateConfigs")
        if not configs:
            raise Refusal("MissingParameter", "The request must contain the parameter LaunchTemplateConfigs")
        for _, config in configs:
            _, _, data = self.from_template(config, _CONFIG, backend)
            if any(key.startswith("InstanceMarketOptions.") for key in data):
                raise Refusal("InvalidParameterCombination", "a launch template for a fleet must have no InstanceMarketOptions")
        until = _instant(asked.get("ValidUntil", ""))
        if until is not None and until <= time.time():
            raise Refusal("InvalidFleetConfiguration", "ValidUntil must be in the future")
        spot = asked.get("TargetCapacitySpecification.DefaultTargetCapacityType") == "spot"
        until = None if until is None else until + self._plan.timing.fleet_late_s
        ends = asked.get("TerminateInstancesWithExpiration", "false").lower() == "true"
        return Fleet(f"fleet-{uuid.uuid4()}", call.region, dict(asked), until, ends, int(target), spot, call.params.get("ClientToken", ""))

    def _fill(self, fleet: Fleet, backend: Any) -> None:
        with self._lock:
            if fleet.state not in ("submitted", "active"):
                return
            first, fleet.state = fleet.state == "submitted", "active"
            if first or (self._plan.world.fleets_persist and len(fleet.alive()) < fleet.target):
                self._fill_up(fleet, backend)
            self._lifecycle.later(_AGAIN_S, lambda: self._fill(fleet, backend))

    def _fill_up(self, fleet: Fleet, backend: Any) -> None:
        for _, config in numbered_groups(fleet.asked, "LaunchTemplateConfigs"):
            try:
                template, version, data = self.from_template(config, _CONFIG, backend)
            except Refusal as no:  # the template was deleted since
                fleet.errors.append((no.code, no.message))
                continue
            for override in [one for _, one in numbered_groups(config, "Overrides")] or [{}]:
                if len(fleet.alive()) < fleet.target:
                    self._try(fleet, backend, self._request(fleet, template.id, version, data, override))
        self._truth.look(fleet.region, backend)

    def _request(self, fleet: Fleet, template: str, version: int, data: Mapping[str, str], override: Mapping[str, str]) -> dict[str, str]:
        count = str(fleet.target - len(fleet.alive()))
        params = {"Action": "RunInstances", "Version": "2016-11-15", **data, "MinCount": "1", "MaxCount": count}
        params |= {there: override[here] for here, there in _OVER.items() if here in override}
        if "SubnetId" in override and any(key.startswith("NetworkInterface.") for key in params):
            params["NetworkInterface.1.SubnetId"] = params.pop("SubnetId")
        params["ClientToken"] = f"{fleet.id}-{uuid.uuid4()}"[:64]
        if fleet.spot:
            market = "InstanceMarketOptions."
            params |= {f"{market}MarketType": "spot", f"{market}SpotOptions.SpotInstanceType": "one-time"}
            if price := override.get("MaxPrice", ""):
                params[f"{market}SpotOptions.MaxPrice"] = price
        return params

    def _try(self, fleet: Fleet, backend: Any, params: dict[str, str]) -> None:
        try:
            _, new = self._launch(Call("ec2", fleet.region, "RunInstances", params, "ec2", b""), backend)
        except Refusal as no:
            if (no.code, no.message) not in fleet.errors:
                fleet.errors.append((no.code, no.message))
            return
        for machine in new:
            # EC2 puts its own beside the template's.
            backend.create_tags([machine.id], {"aws:ec2:fleet-id": fleet.id})
        fleet.machines += new

    def _expire(self, fleet: Fleet, backend: Any) -> None:
        left = (fleet.until or 0.0) - time.time()
        if left > 0:  # the clock that counts is not the one that names the time
            self._lifecycle.later(left, lambda: self._expire(fleet, backend))
            return
        with self._lock:
            if fleet.state in ("submitted", "active"):
                self._end(fleet, fleet.ends_machines, backend, by="fleet")

    def _end(self, fleet: Fleet, terminate: bool, backend: Any, by: str) -> None:
        alive = fleet.alive()
        if alive:
            fleet.state = "deleted_terminating" if terminate else "deleted_running"
        else:
            fleet.state = "deleted"
        # The time is handed over: gmtime's own is read off another clock, which is a few milliseconds behind and so a second early.
        when = time.strftime("%Y-%m-%d %H:%M:%S GMT", time.gmtime(time.time()))
        for machine in alive if terminate else []:
            self._truth.asked("instance", machine.id, by=by)
            self._lifecycle.end(
                machine, "terminated", "Client.UserInitiatedShutdown", "User initiated shutdown", f"User initiated ({when})"
            )
        self._truth.look(fleet.region, backend)
        if alive and terminate:
            self._gone(fleet, backend)

    def _gone(self, fleet: Fleet, backend: Any) -> None:
        def look() -> None:
            with self._lock:
                if all(machine.gone for machine in fleet.machines):
                    fleet.state = "deleted"
                    self._truth.look(fleet.region, backend)
                    return
            self._lifecycle.later(0.1, look)

        self._lifecycle.later(self._plan.timing.stopping_s, look)

    def delete(self, call: Call, backend: Any) -> Reply:
        ids, text = call.many("FleetId"), call.params.get("TerminateInstances", "").lower()
        if not ids or text not in ("true", "false"):
            raise Refusal("MissingParameter", "The request must contain the parameters FleetId and TerminateInstances")
        done, failed = [], []
        for id in dict.fromkeys(ids):
            fleet = backend.fleets.get(id)
            if fleet is None:
                error = f"<error><code>fleetIdDoesNotExist</code><message>The fleet ID '{escape(id)}' does not exist</message></error>"
                failed.append(f"<item>{error}<fleetId>{escape(id)}</fleetId></item>")
                continue
            before = fleet.state
            if before in ("submitted", "active", "deleted_running"):
                self._truth.asked("fleet", id)
                self._end(fleet, text == "true", backend, by="api")
            states = f"<currentFleetState>{fleet.state}</currentFleetState><previousFleetState>{before}</previousFleetState>"
            done.append(f"<item>{states}<fleetId>{id}</fleetId></item>")
        return ec2_answer(
            call,
            f"<successfulFleetDeletionSet>{''.join(done)}</successfulFleetDeletionSet>"
            f"<unsuccessfulFleetDeletionSet>{''.join(failed)}</unsuccessfulFleetDeletionSet>",
        )

    def describe(self, call: Call, backend: Any) -> Reply:
        ids, filters = call.many("FleetId"), call.filters()
        if unknown := [id for id in ids if id not in backend.fleets]:
            raise Refusal("InvalidFleetId.NotFound", f"The fleet ID '{unknown[0]}' does not exist")
        shown = [fleet for fleet in backend.fleets.values() if (not ids or fleet.id in ids) and _fits(fleet, filters)]
        return ec2_answer(call, f"<fleetSet>{''.join(_shown(fleet, backend) for fleet in shown)}</fleetSet>")

    def describe_history(self, call: Call, backend: Any) -> Reply:
        """Only what went wrong, with EC2's own code in the description; which sub-type EC2 gives it is not known."""
        id = call.params.get("FleetId", "")
        if id not in backend.fleets:
            raise Refusal("InvalidFleetId.NotFound", f"The fleet ID '{id}' does not exist")
        if "StartTime" not in call.params:
            raise Refusal("MissingParameter", "The request must contain the parameter StartTime")
        items = "".join(
            f"<item><eventInformation><eventSubType>launchSpecTemporarilyBlacklisted</eventSubType>"
            f"<eventDescription>{escape(f'{code}: {text}')}</eventDescription></eventInformation>"
            f"<eventType>service-error</eventType><timestamp>{stamp(backend.fleets[id].made)}</timestamp></item>"
            for code, text in backend.fleets[id].errors
        )
        return ec2_answer(call, f"<fleetId>{id}</fleetId><historyRecordSet>{items}</historyRecordSet>")

    def describe_instances(self, call: Call, backend: Any) -> Reply:
        id = call.params.get("FleetId", "")
        if id not in backend.fleets:
            raise Refusal("InvalidFleetId.NotFound", f"The fleet ID '{id}' does not exist")
        items = []
        for machine in backend.fleets[id].alive():
            spot = f"<spotInstanceRequestId>{machine.spot_request.id}</spotInstanceRequestId>" if machine.spot_request else ""
            items.append(
                f"<item><instanceId>{machine.id}</instanceId><instanceType>{machine.instance_type}</instanceType>{spot}"
                f"<instanceHealth>healthy</instanceHealth></item>"
            )
        return ec2_answer(call, f"<activeInstanceSet>{''.join(items)}</activeInstanceSet><fleetId>{id}</fleetId>")


def _fits(fleet: Fleet, filters: Mapping[str, list[str]]) -> bool:
    facts = {"fleet-state": fleet.state, "type": "request", "activity-status": _activity(fleet)}
    facts |= {"replace-unhealthy-instances": "false", "excess-capacity-termination-policy": "termination"}
    return all(facts.get(name, "") in values for name, values in filters.items())


def _activity(fleet: Fleet) -> str:
    if fleet.state.startswith("deleted"):
        return "pending_termination" if fleet.alive() else "fulfilled"
    return "error" if fleet.errors and not fleet.machines else "fulfilled" if fleet.machines else "pending_fulfillment"


def _shown(fleet: Fleet, backend: Any) -> str:
    tags = backend.tags.get(fleet.id, {})
    tag_set = "".join(f"<item><key>{escape(key)}</key><value>{escape(value)}</value></item>" for key, value in tags.items())
    kind = "spot" if fleet.spot else "on-demand"
    filled = len(fleet.alive())
    return (
        f"<item><fleetId>{fleet.id}</fleetId><fleetState>{fleet.state}</fleetState><createTime>{stamp(fleet.made)}</createTime>"
        f"<activityStatus>{_activity(fleet)}</activityStatus><type>request</type>"
        f"<clientToken>{escape(fleet.token)}</clientToken>"
        f"<excessCapacityTerminationPolicy>termination</excessCapacityTerminationPolicy>"
        f"<fulfilledCapacity>{filled}.0</fulfilledCapacity>"
        f"<fulfilledOnDemandCapacity>{0 if fleet.spot else filled}.0</fulfilledOnDemandCapacity>"
        f"<targetCapacitySpecification><totalTargetCapacity>{fleet.target}</totalTargetCapacity>"
        f"<defaultTargetCapacityType>{kind}</defaultTargetCapacityType></targetCapacitySpecification>"
        f"<terminateInstancesWithExpiration>{str(fleet.ends_machines).lower()}</terminateInstancesWithExpiration>"
        f"<replaceUnhealthyInstances>false</replaceUnhealthyInstances>"
        f"{f'<validUntil>{stamp(fleet.until)}</validUntil>' if fleet.until is not None else ''}"
        f"<launchTemplateConfigs>{_configs(fleet)}</launchTemplateConfigs>"
        f"<errorSet/><tagSet>{tag_set}</tagSet></item>"
    )


def _configs(fleet: Fleet) -> str:
    items = []
    for _, config in numbered_groups(fleet.asked, "LaunchTemplateConfigs"):
        fields = {"LaunchTemplateId": "launchTemplateId", "LaunchTemplateName": "launchTemplateName", "Version": "version"}
        named = "".join(
            f"<{there}>{escape(config[_CONFIG + here])}</{there}>" for here, there in fields.items() if _CONFIG + here in config
        )
        items.append(f"<item><launchTemplateSpecification>{named}</launchTemplateSpecification></item>")
    return "".join(items)


def _instant(text: str) -> float | None:
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Refusal("InvalidParameterValue", f"Invalid value '{text}' for ValidUntil.") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
