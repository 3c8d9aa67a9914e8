"""AWS, as a client of botocore's sees it: the one seam at which the simulation replaces something of `providers/aws*`.

`Client` stands where `aws_client._client` puts botocore's, and answers with the dictionaries and exceptions that
botocore would. What it is asked and what it answers is held against botocore's own service models by a test, so that
it cannot drift into a dialect of its own.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from functools import lru_cache
from typing import Any

from tests.sim import process as P
from tests.sim.faults import botocore_error
from tests.sim.wire import Ec2Error, Network, request
from tests.sim.world import CARD, DISK, GROUP, MACHINE, REQUEST, SCHEDULE, Thing, World

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/gpulease/gpulease-scheduler"
IMAGE = "ami-0simulated"
BEGAN = datetime.fromtimestamp(P.EPOCH, UTC)
Params = dict[str, Any]
Data = dict[str, Any]

LISTS = {
    "DescribeAddresses": ("Addresses", "elastic-ip"),
    "DescribeSnapshots": ("Snapshots", "snapshot"),
    "DescribeKeyPairs": ("KeyPairs", ""),
    "DescribeLaunchTemplates": ("LaunchTemplates", ""),
    "DescribeFleets": ("Fleets", ""),
    "DescribeSpotFleetRequests": ("SpotFleetRequestConfigs", ""),
    "DescribeCapacityReservations": ("CapacityReservations", ""),
    "DescribeCapacityReservationFleets": ("CapacityReservationFleets", ""),
    "DescribeHosts": ("Hosts", ""),
    "DescribeNatGateways": ("NatGateways", ""),
    "DescribeVpcEndpoints": ("VpcEndpoints", ""),
    "DescribeInstanceConnectEndpoints": ("InstanceConnectEndpoints", ""),
    "DescribePlacementGroups": ("PlacementGroups", ""),
    "DescribeVolumes": ("Volumes", DISK),
    "DescribeNetworkInterfaces": ("NetworkInterfaces", CARD),
    "DescribeSecurityGroups": ("SecurityGroups", GROUP),
    "DescribeSpotInstanceRequests": ("SpotInstanceRequests", REQUEST),
}
REMOVES = {
    "DeleteVolume": ("VolumeId", "InvalidVolume.NotFound", "VolumeInUse"),
    "DeleteNetworkInterface": ("NetworkInterfaceId", "InvalidNetworkInterfaceID.NotFound", "InvalidNetworkInterface.InUse"),
    "DeleteSecurityGroup": ("GroupId", "InvalidGroup.NotFound", "DependencyViolation"),
    "ReleaseAddress": ("AllocationId", "InvalidAllocationID.NotFound", "InvalidIPAddress.InUse"),
    "DeleteSnapshot": ("SnapshotId", "InvalidSnapshot.NotFound", "InvalidSnapshot.InUse"),
}
NOT_FOUND = {
    "DescribeVolumes": "InvalidVolume.NotFound",
    "DescribeNetworkInterfaces": "InvalidNetworkInterfaceID.NotFound",
    "DescribeSecurityGroups": "InvalidGroup.NotFound",
    "DescribeAddresses": "InvalidAllocationID.NotFound",
    "DescribeSnapshots": "InvalidSnapshot.NotFound",
    "DescribeSpotInstanceRequests": "InvalidSpotInstanceRequestID.NotFound",
}
IDS = re.compile(r"(Instance|Volume|NetworkInterface|Group|Allocation|Snapshot|SpotInstanceRequest)Ids")


class Client:
    """One service in one region."""

    def __init__(self, network: Callable[[], Network], service: str, region: str) -> None:
        self._network, self._service, self._region = network, service, region

    def __getattr__(self, name: str) -> Callable[..., Data]:
        operation = OPERATIONS[name]

        def call(**params: Any) -> Data:
            return self._ask(operation, params)

        self.__dict__[name] = call
        return call

    def _ask(self, operation: str, params: Params) -> Data:
        network = self._network()
        world = network.world
        try:
            data, fault = request(network, operation, lambda: answer(world, self._region, operation, params))
        except Ec2Error as e:
            from botocore.exceptions import ClientError

            error = {"Error": {"Code": e.code, "Message": e.message}, "ResponseMetadata": meta(world, e.status)}
            raise ClientError(error, operation) from None
        if fault is not None:
            data = _spoilt(fault, operation, params, data, world)
        if network.validate is not None:
            network.validate(self._service, operation, params, data)
        data["ResponseMetadata"] = meta(world)
        return dict(data)


def _spoilt(fault: Any, operation: str, params: Params, data: Any, world: World) -> Data:
    if fault.botocore == "same-page":
        return {**data, "NextToken": "the-same"}
    if fault.botocore == "empty":
        if not any(IDS.fullmatch(key) for key in params):
            return dict(data)  # an empty list is only a lie where an id was named
        return {key: [] for key in data}
    raise botocore_error(fault, operation, meta(world))


def meta(world: World, status: int = 200) -> Data:
    world.count += 1
    id = f"req-{world.count}"
    return {"RequestId": id, "HTTPStatusCode": status, "HTTPHeaders": {"date": http_date(int(P.EPOCH + world.t)), "x-amzn-requestid": id}}


@lru_cache(4096)
def http_date(at: int) -> str:
    return formatdate(at, usegmt=True)


def answer(world: World, region: str, operation: str, params: Params) -> Data:
    found: Data
    if operation in HANDLERS:
        found = HANDLERS[operation](world, region, params)
    elif operation in REMOVES:
        found = _remove(world, operation, params)
    else:
        found = _list(world, region, operation, params)
    return found


# -- asking -----------------------------------------------------------------------------------------------------------


def _list(world: World, region: str, operation: str, params: Params) -> Data:
    key, kind = LISTS[operation]
    if not kind:
        return {key: []}
    ids = next((params[name] for name in params if IDS.fullmatch(name)), None)
    if ids is not None:
        found = []
        for id in ids:
            thing = world.things.get(id)
            if thing is None or thing.kind != kind or thing.region != region or not world.shows(thing):
                raise Ec2Error(NOT_FOUND[operation])
            found.append(thing)
        return {key: [SHAPES[kind](world, thing) for thing in found]}
    found = [t for t in world.things.values() if t.kind == kind and t.region == region and _matches(t, params) and world.shows(t)]
    return _page(world, key, [SHAPES[kind](world, thing) for thing in found], params)


def _instances(world: World, region: str, params: Params) -> Data:
    if (ids := params.get("InstanceIds")) is not None:
        found = [world.things.get(id) for id in ids]
        if any(t is None or t.kind != MACHINE or t.region != region or not world.shows(t) for t in found):
            raise Ec2Error("InvalidInstanceID.NotFound")
        return {"Reservations": [{"Instances": [_instance(world, t) for t in found if t is not None]}]}
    shown = [t for t in world.things.values() if t.kind == MACHINE and t.region == region and _matches(t, params) and world.shows(t)]
    return _page(world, "Reservations", [{"Instances": [_instance(world, t)]} for t in shown], params)


def _page(world: World, key: str, items: list[Data], params: Params) -> Data:
    if not world.weather.page:
        return {key: items}
    token = str(params.get("NextToken") or "")
    at = int(token) if token.isdigit() else 0
    rest = {"NextToken": str(at + world.weather.page)} if len(items) > at + world.weather.page else {}
    return {key: items[at : at + world.weather.page], **rest}


def _matches(thing: Thing, params: Params) -> bool:
    for wanted in params.get("Filters", ()):
        name, values = wanted["Name"], wanted["Values"]
        if name.startswith("tag:"):
            if not any(tag["Key"] == name[4:] and tag["Value"] in values for tag in thing.tags):
                return False
        elif name == "group-name":
            if thing.facts.get("GroupName") not in values:
                return False
        elif name == "attachment.instance-id":
            if thing.of is None or thing.of.id not in values:
                return False
        else:
            raise NotImplementedError(name)
    return True


def _when(t: float) -> datetime:
    return BEGAN + timedelta(seconds=int(t))


def state_of(world: World, thing: Thing) -> tuple[int, str]:
    if not thing.there(world.t):
        return 48, "terminated"
    if thing.asked_at is not None:
        return 32, "shutting-down"
    if thing.facts.get("stopped"):
        return 80, "stopped"
    return (0, "pending") if world.t < thing.born + world.weather.boot_s else (16, "running")


def _instance(world: World, t: Thing) -> Data:
    code, state = state_of(world, t)
    asked = t.facts.get("asked", {})
    shown: Data = {
        "InstanceId": t.id,
        "InstanceType": asked.get("InstanceType", "t3.micro"),
        "ImageId": asked.get("ImageId", IMAGE),
        "ClientToken": t.token,
        "State": {"Code": code, "Name": state},
        "Placement": {"AvailabilityZone": t.facts.get("zone", f"{t.region}a")},
        "LaunchTime": _when(t.born),
        "Tags": t.tags,
    }
    if t.reason:
        shown["StateReason"] = {"Code": t.reason, "Message": t.reason}
    if state in ("pending", "running", "stopped"):
        disk, card = t.facts.get(DISK), t.facts.get(CARD)
        (interface,) = asked.get("NetworkInterfaces") or [{"Groups": [], "SubnetId": "subnet-0"}]
        shown |= {
            "MetadataOptions": {**asked.get("MetadataOptions", {}), "State": "applied"},
            "PrivateIpAddress": "10.0.0.9",
            "BlockDeviceMappings": [
                {"DeviceName": "/dev/sda1", "Ebs": {"VolumeId": disk.id, "DeleteOnTermination": disk.dies_with, "Status": "attached"}}
            ]
            if disk
            else [],
            "NetworkInterfaces": [
                {
                    "NetworkInterfaceId": card.id,
                    "Attachment": {"DeleteOnTermination": card.dies_with, "Status": "attached"},
                    "Groups": [{"GroupId": g} for g in interface["Groups"]],
                    "SubnetId": interface["SubnetId"],
                }
            ]
            if card
            else [],
        }
        if state == "running":
            shown["PublicIpAddress"] = "203.0.113.9"
    if t.facts.get("spot"):
        shown |= {"InstanceLifecycle": "spot", "SpotInstanceRequestId": t.facts[REQUEST].id}
    return shown


def _volume(world: World, t: Thing) -> Data:
    leaving = t.asked_at is not None
    attached = t.of is not None and t.of.there(world.t)
    where = [{"InstanceId": t.of.id, "State": "attached", "DeleteOnTermination": t.dies_with}] if attached and t.of else []
    state = "deleting" if leaving and not attached else "in-use" if attached else "available"
    ebs = t.of.facts.get("asked", {}).get("BlockDeviceMappings", [{}])[0].get("Ebs", {}) if t.of else {}
    return {
        "VolumeId": t.id,
        "State": state,
        "Size": ebs.get("VolumeSize", 8),
        "VolumeType": ebs.get("VolumeType", "gp3"),
        "Encrypted": bool(ebs.get("Encrypted", True)),
        "CreateTime": _when(t.born),
        "Attachments": where,
        "Tags": t.tags,
    }


def _card(world: World, t: Thing) -> Data:
    attached = t.of is not None and t.of.there(world.t)
    more = {"Attachment": {"InstanceId": t.of.id, "Status": "attached"}} if attached and t.of else {}
    return {"NetworkInterfaceId": t.id, "Status": "in-use" if attached else "available", "TagSet": t.tags, **more}


def _group(world: World, t: Thing) -> Data:
    rules = t.facts.get("rules", [])
    return {"GroupId": t.id, "GroupName": t.facts["GroupName"], "VpcId": "vpc-0", "IpPermissions": rules, "Tags": t.tags}


def _spot(world: World, t: Thing) -> Data:
    assert t.of is not None
    options = t.of.facts["asked"]["InstanceMarketOptions"]["SpotOptions"]
    return {
        "SpotInstanceRequestId": t.id,
        "State": "active" if t.of.there(world.t) and t.of.asked_at is None else "closed",
        "Type": options["SpotInstanceType"],
        "InstanceInterruptionBehavior": options["InstanceInterruptionBehavior"],
        "SpotPrice": options["MaxPrice"],
        "InstanceId": t.of.id,
        "Tags": t.tags,
    }


def _address(world: World, t: Thing) -> Data:
    return {"AllocationId": t.id, "PublicIp": "198.51.100.7", "Tags": t.tags}


def _snapshot(world: World, t: Thing) -> Data:
    return {"SnapshotId": t.id, "State": "completed", "VolumeSize": 8, "StartTime": _when(t.born), "Tags": t.tags}


SHAPES: dict[str, Callable[[World, Thing], Data]] = {
    DISK: _volume,
    CARD: _card,
    GROUP: _group,
    REQUEST: _spot,
    "elastic-ip": _address,
    "snapshot": _snapshot,
}


def _attribute(world: World, region: str, params: Params) -> Data:
    thing = world.things.get(params["InstanceId"])
    if thing is None or not world.shows(thing):
        raise Ec2Error("InvalidInstanceID.NotFound")
    asked, name = thing.facts["asked"], params["Attribute"]
    match name:
        case "instanceInitiatedShutdownBehavior":
            value: Any = "stop" if world.weather.odd == "stop" else asked["InstanceInitiatedShutdownBehavior"]
        case "disableApiTermination":
            value = asked["DisableApiTermination"]
        case _:
            value = base64.b64encode(asked["UserData"].encode()).decode()
    return {"InstanceId": thing.id, name[0].upper() + name[1:]: {"Value": value}}


def _images(world: World, region: str, params: Params) -> Data:
    if params.get("Owners") == ["self"]:
        return {"Images": []}
    disk = {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 50, "SnapshotId": "snap-0"}}
    shown = {"ImageId": IMAGE, "RootDeviceName": "/dev/sda1", "BlockDeviceMappings": [disk], "State": "available", "Architecture": "x86_64"}
    return {"Images": [{**shown, "Name": "Deep Learning Base", "OwnerId": "898082745236", "ImageOwnerAlias": "amazon"}]}


def _subnets(world: World, region: str, params: Params) -> Data:
    zones = [value for f in params.get("Filters", ()) if f["Name"] == "availability-zone" for value in f["Values"]] or [f"{region}a"]
    return {"Subnets": [{"SubnetId": f"subnet-{zone}", "VpcId": "vpc-0", "AvailabilityZone": zone} for zone in zones]}


def _role(world: World, region: str, params: Params) -> Data:
    from provisioner.providers import aws_schedule

    said = {"Path": "/gpulease/", "RoleName": "gpulease-scheduler", "RoleId": "AROASIMULATED0000", "CreateDate": BEGAN, "Arn": ROLE}
    return {"Role": {**said, "AssumeRolePolicyDocument": aws_schedule.trust(ACCOUNT)}}


def _role_policy(world: World, region: str, params: Params) -> Data:
    from provisioner.providers import aws_schedule

    return {"RoleName": params["RoleName"], "PolicyName": params["PolicyName"], "PolicyDocument": aws_schedule.permissions(ACCOUNT)}


# -- changing ---------------------------------------------------------------------------------------------------------


def _run_instances(world: World, region: str, params: Params) -> Data:
    token = params["ClientToken"]
    zone = params["NetworkInterfaces"][0]["SubnetId"].removeprefix("subnet-")
    if (before := world.tokens.get((zone, token))) is not None:
        if before.facts["asked"] != params:
            raise Ec2Error("IdempotentParameterMismatch")
        return {"Instances": [_instance(world, before)]}
    room = world.weather.capacity[world.machines_asked : world.machines_asked + 1] or ("",)
    world.machines_asked += 1
    if room[0] == "full":
        raise Ec2Error("InsufficientInstanceCapacity", 500)
    tags = next((one["Tags"] for one in params.get("TagSpecifications", ()) if one["ResourceType"] == "instance"), [])
    machine = world.launch(
        region,
        _lease(tags),
        token,
        tags,
        asked=params,
        zone=zone,
        spot="InstanceMarketOptions" in params,
        DeleteOnTermination=params["BlockDeviceMappings"][0]["Ebs"]["DeleteOnTermination"],
        **deadline_of(world, params.get("UserData", "")),
    )
    world.tokens[zone, token] = machine
    if room[0] == "given-up":
        world.later(3.0, lambda: world.end(machine, "Server.InsufficientInstanceCapacity"))
    return {"Instances": [_instance(world, machine)]}


def deadline_of(world: World, user_data: str) -> Data:
    """When the machine's own timers end it: at the deadline, or after its longest run by the clock that nobody sets."""
    found = re.search(r"deadline (\d+) longest (\d+)", user_data)
    if found is None:
        return {}
    return {"deadline_t": min(int(found[1]) - P.EPOCH, world.t + int(found[2])), "timer": int(found[1])}


def _lease(tags: list[dict[str, str]]) -> str:
    return next((tag["Value"] for tag in tags if tag["Key"] == "gpulease:lease"), "")


def _create_group(world: World, region: str, params: Params) -> Data:
    name = params["GroupName"]
    if any(t.kind == GROUP and t.region == region and t.facts["GroupName"] == name and t.there(world.t) for t in world.things.values()):
        raise Ec2Error("InvalidGroup.Duplicate")
    tags = params["TagSpecifications"][0]["Tags"]
    token = next((tag["Value"] for tag in tags if tag["Key"] == "gpulease:token"), "")
    return {"GroupId": world.make(GROUP, region, _lease(tags), token, tags, GroupName=name, rules=[]).id}


def _authorize(world: World, region: str, params: Params) -> Data:
    group = world.things.get(params["GroupId"])
    if group is None or not group.there(world.t):
        raise Ec2Error("InvalidGroup.NotFound")
    if group.facts["rules"]:
        raise Ec2Error("InvalidPermission.Duplicate")
    group.facts["rules"] = params["IpPermissions"]
    group.touched += 1
    return {"Return": True}


def _terminate(world: World, region: str, params: Params) -> Data:
    found = []
    for id in params["InstanceIds"]:
        thing = world.things.get(id)
        if thing is None or thing.region != region or world.t < thing.shown_at or not (thing.there(world.t) or world.shows(thing)):
            raise Ec2Error("InvalidInstanceID.NotFound")
        found.append(thing)
    ended = []
    for thing in found:
        code, state = state_of(world, thing)
        world.end(thing, "Client.UserInitiatedShutdown")
        after, word = state_of(world, thing)
        ended.append(
            {"InstanceId": thing.id, "CurrentState": {"Code": after, "Name": word}, "PreviousState": {"Code": code, "Name": state}}
        )
    return {"TerminatingInstances": ended}


def _remove(world: World, operation: str, params: Params) -> Data:
    key, missing, in_use = REMOVES[operation]
    thing = world.things.get(params[key])
    if thing is None or world.t < thing.shown_at or not thing.there(world.t):
        raise Ec2Error(missing)
    if world.in_use(thing):
        raise Ec2Error(in_use)
    world.end(thing)
    return {}


def _cancel_spot(world: World, region: str, params: Params) -> Data:
    for id in params["SpotInstanceRequestIds"]:
        if (thing := world.things.get(id)) is not None:
            world.end(thing)
    return {
        "CancelledSpotInstanceRequests": [{"SpotInstanceRequestId": id, "State": "cancelled"} for id in params["SpotInstanceRequestIds"]]
    }


# -- the scheduler ----------------------------------------------------------------------------------------------------


def _create_schedule(world: World, region: str, params: Params) -> Data:
    name = params["Name"]
    if name in world.things and world.things[name].there(world.t):
        raise Ec2Error("ConflictException", 409)
    tags = [{"Key": "gpulease:lease", "Value": "-".join(name.split("-")[:3])}]
    schedule = world.make(SCHEDULE, region, tags[0]["Value"], params["ClientToken"], tags, Name=name, asked=params)
    at = datetime.fromisoformat(params["ScheduleExpression"][3:-1]).replace(tzinfo=UTC)
    (instance,) = json.loads(params["Target"]["Input"])["InstanceIds"]
    world.arm_schedule(schedule, at.timestamp() - P.EPOCH, instance)
    return {"ScheduleArn": f"arn:aws:scheduler:{region}:{ACCOUNT}:schedule/gpulease/{name}"}


def _get_schedule(world: World, region: str, params: Params) -> Data:
    thing = world.things.get(params["Name"])
    if thing is None or thing.kind != SCHEDULE or thing.region != region or not world.shows(thing):
        raise Ec2Error("ResourceNotFoundException", 404)
    return {key: value for key, value in thing.facts["asked"].items() if key != "ClientToken"}


def _schedules(world: World, region: str, params: Params) -> Data:
    prefix = params.get("NamePrefix", "")
    shown = [t for t in world.things.values() if t.kind == SCHEDULE and t.region == region and t.id.startswith(prefix) and world.shows(t)]
    return _page(world, "Schedules", [{"Name": t.id, "GroupName": "gpulease", "State": "ENABLED"} for t in shown], params)


def _delete_schedule(world: World, region: str, params: Params) -> Data:
    thing = world.things.get(params["Name"])
    if thing is None or world.t < thing.shown_at or not thing.there(world.t):
        raise Ec2Error("ResourceNotFoundException", 404)
    world.end(thing)
    return {}


HANDLERS: dict[str, Callable[[World, str, Params], Data]] = {
    "DescribeInstances": _instances,
    "DescribeInstanceAttribute": _attribute,
    "DescribeImages": _images,
    "DescribeSubnets": _subnets,
    "GetParameter": lambda world, region, params: {"Parameter": {"Name": params["Name"], "Value": IMAGE}},
    "GetRole": _role,
    "GetRolePolicy": _role_policy,
    "GetScheduleGroup": lambda world, region, params: {"Name": params["Name"], "State": "ACTIVE"},
    "GetCallerIdentity": lambda world, region, params: {"Account": ACCOUNT, "UserId": "AIDASIM", "Arn": f"arn:aws:iam::{ACCOUNT}:user/sim"},
    "RunInstances": _run_instances,
    "CreateSecurityGroup": _create_group,
    "AuthorizeSecurityGroupIngress": _authorize,
    "TerminateInstances": _terminate,
    "CancelSpotInstanceRequests": _cancel_spot,
    "CreateSchedule": _create_schedule,
    "GetSchedule": _get_schedule,
    "ListSchedules": _schedules,
    "DeleteSchedule": _delete_schedule,
}


def _snake(name: str) -> str:
    from botocore import xform_name

    return str(xform_name(name))


OPERATIONS = {_snake(name): name for name in (*HANDLERS, *LISTS, *REMOVES)}
