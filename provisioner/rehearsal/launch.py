"""RunInstances as EC2 means it: refusals first, one machine per token, and everything born with its tags.

moto accepts any image, type, zone and group, makes a second machine for a repeated token, forgets the interface's tags
and lets it outlive the machine. So the request is checked, completed with what EC2 would have chosen itself (zone,
default subnet, root disk) and only then given to moto; afterwards the new objects get what moto left out.

A token is remembered per region, or per zone when the request names a zone or a subnet, as EC2's page on idempotency
says: the same token in another zone launches a second machine. Known tokens are looked up before anything is
checked; whether AWS does so too is not documented.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from provisioner.rehearsal import admission, engine, machines
from provisioner.rehearsal.faults import Plan
from provisioner.rehearsal.machines import IMAGE_GIB, Image, Machine, SpotRequest
from provisioner.rehearsal.wire import Call, Refusal, Reply, numbered_groups

_TAGGABLE = ("instance", "volume", "network-interface", "spot-instances-request", "elastic-gpu")
_PENDING = b"<instanceState><code>0</code><name>pending</name></instanceState>"


@dataclass(frozen=True)
class _Remembered:
    params: Mapping[str, str]
    body: bytes
    content_type: str
    request_id: str
    machines: tuple[Machine, ...]


class Launches:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._tokens: dict[tuple[str, str, str], _Remembered] = {}

    def run(self, call: Call, backend: Any) -> tuple[Reply, list[Machine]]:
        """The answer, and the machines that are new."""
        asked_zone = zone_of(call.params, backend)
        token = call.params.get("ClientToken", "")
        same = {key: value for key, value in call.params.items() if key not in ("ClientToken", "Version", "DryRun")}
        known = self._tokens.get((call.region, asked_zone, token)) if token else None
        if known is not None:
            return self._again(call, known, same), []
        image = _check(call.params, backend)
        wish = admission.wish(call.params, _whole(call.params, "MinCount"), _whole(call.params, "MaxCount"))
        zone, count = admission.place(wish, self._zones(call, backend, asked_zone), call.region, backend, self._plan.world)
        params = _complete(call.params, backend, image, zone, count)
        before = {machine.id for machine in machines.machines(backend)}
        reply = engine.ask(call, params)
        new = [machine for machine in machines.machines(backend) if machine.id not in before]
        for machine in new:
            _furnish(machine, params, image)
        if reply.status == 200 and new:
            # The XML was made before the machines were furnished; a description of the same reservation says it all.
            reply = _retold(call, reply, new)
            if token:
                self._tokens[(call.region, asked_zone, token)] = _Remembered(
                    same, reply.body, reply.content_type, call.request_id, tuple(new)
                )
        return reply, new

    def _again(self, call: Call, known: _Remembered, params: Mapping[str, str]) -> Reply:
        if params != known.params:
            raise Refusal("IdempotentParameterMismatch", "the same client token was used before with other parameters")
        if any(machine.gone for machine in known.machines):
            raise Refusal("IdempotentInstanceTerminated", "the client token belongs to an instance that is terminated; use another one")
        body = known.body.replace(known.request_id.encode(), call.request_id.encode())
        for machine in known.machines:
            state = f"<instanceState><code>{machine.state_code}</code><name>{machine.state}</name></instanceState>"
            body = body.replace(_PENDING, state.encode(), 1) if machine.state != "pending" else body
        return Reply(200, known.content_type, body)

    def _zones(self, call: Call, backend: Any, asked: str) -> list[str]:
        type = call.params["InstanceType"]
        offered = [offer["Location"] for offer in _offerings(backend, type)]
        if not offered:
            raise Refusal("Unsupported", f"the instance type {type} is not offered in {call.region}")
        if asked and asked not in offered:
            raise Refusal("Unsupported", f"the instance type {type} is not offered in {asked}; it is in {', '.join(sorted(offered))}")
        closed = self._plan.closed_zones("RunInstances", call.region)
        choices = [asked] if asked else [zone for zone in sorted(offered) if zone not in closed]
        if not choices:
            raise Refusal("InsufficientInstanceCapacity", f"there is not enough {type} capacity in {call.region} now", 500)
        return choices


def zone_of(params: Mapping[str, str], backend: Any) -> str:
    """The zone the request insists on, by name or by subnet; "" when it leaves that to EC2."""
    subnet_id = params.get("SubnetId") or next((value for key, value in params.items() if key.endswith(".SubnetId")), "")
    if subnet_id:
        subnet = next((subnet for zone in backend.subnets.values() for subnet in zone.values() if subnet.id == subnet_id), None)
        if subnet is None:
            raise Refusal("InvalidSubnetID.NotFound", f"The subnet ID '{subnet_id}' does not exist")
        return str(subnet.availability_zone)
    zone = params.get("Placement.AvailabilityZone", "")
    if zone and backend.get_zone_by_name(zone) is None:
        raise Refusal("InvalidParameterValue", f"Invalid availability zone: [{zone}]")
    return zone


def _offerings(backend: Any, type: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = backend.describe_instance_type_offerings("availability-zone", {"instance-type": [type]})
    return found


def _check(params: Mapping[str, str], backend: Any) -> Image:
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    image_id, type = params.get("ImageId", ""), params.get("InstanceType", "")
    if not image_id:
        raise Refusal("MissingParameter", "The request must contain the parameter ImageId")
    if not re.fullmatch(r"ami-([0-9a-f]{8}|[0-9a-f]{17})", image_id):
        raise Refusal("InvalidAMIID.Malformed", f'Invalid id: "{image_id}"')
    image = backend.amis.get(image_id)
    if not isinstance(image, Image):
        raise Refusal("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist")
    if type not in INSTANCE_TYPES:
        raise Refusal("InvalidParameterValue", f"Invalid value '{type}' for InstanceType.")
    architectures = INSTANCE_TYPES[type]["ProcessorInfo"]["SupportedArchitectures"]
    if image.architecture not in architectures:
        raise Refusal("InvalidParameterValue", f"{type} is {', '.join(architectures)} and the image {image_id} is {image.architecture}")
    if not 0 < _whole(params, "MinCount") <= _whole(params, "MaxCount"):
        raise Refusal("InvalidParameterValue", "MinCount and MaxCount must be 1 or more, and MaxCount no less than MinCount")
    if (key := params.get("KeyName")) and key not in backend.key_pairs:
        raise Refusal("InvalidKeyPair.NotFound", f"The key pair '{key}' does not exist")
    if len(token := params.get("ClientToken", "")) > 64 or not token.isascii():
        raise Refusal("InvalidParameterValue", "a client token has at most 64 ASCII characters")
    for key, group in params.items():
        # moto would quietly make the missing group under the given id.
        if re.fullmatch(r"(NetworkInterface\.\d+\.)?SecurityGroupId\.\d+", key) and backend.get_security_group_from_id(group) is None:
            raise Refusal("InvalidGroup.NotFound", f"The security group '{group}' does not exist")
    for number, specification in numbered_groups(params, "TagSpecification"):
        kind = specification.get("ResourceType", "")
        if kind not in _TAGGABLE:
            raise Refusal("InvalidParameterValue", f"'{kind}' is not a valid taggable resource type for this operation.")
        if any(tag.startswith("aws:") for tag in _tags(params, number)):
            raise Refusal("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
    _check_user_data(params.get("UserData", ""))
    return image


def _check_user_data(text: str) -> None:
    try:
        size = len(base64.b64decode(text, validate=True))
    except binascii.Error:
        raise Refusal("InvalidParameterValue", "Invalid BASE64 encoding of user data.") from None
    if size > 16384:
        raise Refusal("InvalidParameterValue", f"User data is limited to 16384 bytes; this is {size}")


def _complete(params: Mapping[str, str], backend: Any, image: Image, zone: str, count: int) -> dict[str, str]:
    """The request with EC2's own choices written out."""
    full = {**params, "Placement.AvailabilityZone": zone, "MinCount": str(count), "MaxCount": str(count)}
    full.setdefault("ClientToken", "")
    subnet = next((subnet for subnet in backend.get_default_subnets().values() if subnet.availability_zone == zone), None)
    interfaces = numbered_groups(params, "NetworkInterface")
    if not interfaces and "SubnetId" not in params and subnet is not None:
        full["SubnetId"] = subnet.id
    for number, interface in interfaces:
        if "NetworkInterfaceId" not in interface and "SubnetId" not in interface and subnet is not None:
            full[f"NetworkInterface.{number}.SubnetId"] = subnet.id
            full.setdefault(f"NetworkInterface.{number}.AssociatePublicIpAddress", "true")
    disks = numbered_groups(params, "BlockDeviceMapping")
    root = next((number for number, disk in disks if disk.get("DeviceName") == image.root_device_name), None)
    if root is None:
        root = max((number for number, _ in disks), default=0) + 1
        full[f"BlockDeviceMapping.{root}.DeviceName"] = image.root_device_name
    ebs = f"BlockDeviceMapping.{root}.Ebs"
    for field, value in (("VolumeSize", str(IMAGE_GIB)), ("VolumeType", "gp3"), ("DeleteOnTermination", "true")):
        full.setdefault(f"{ebs}.{field}", value)
    if _whole(full, f"{ebs}.VolumeSize") < IMAGE_GIB:
        size, snapshot = full[f"{ebs}.VolumeSize"], image.ebs_snapshot.id
        raise Refusal(
            "InvalidBlockDeviceMapping", f"Volume of size {size}GB is smaller than snapshot '{snapshot}', expect size >= {IMAGE_GIB}GB"
        )
    return full


def _furnish(machine: Machine, params: Mapping[str, str], image: Image) -> None:
    """What moto leaves out of a new machine and of what is born with it."""
    backend = machine.ec2_backend
    given = {_whole(nic, "DeviceIndex", 0): nic for _, nic in numbered_groups(params, "NetworkInterface")}
    for index, nic in machine.nics.items():
        mine = "NetworkInterfaceId" in given.get(index, {})
        nic.delete_on_termination = given.get(index, {}).get("DeleteOnTermination", "false" if mine else "true").lower() == "true"
        nic.add_tags(_tags_of(params, "network-interface"))
    if not machine.security_groups and machine.nics:
        machine.security_groups = list(machine.nics[0]._group_set)
    if "MetadataOptions.HttpTokens" not in params:  # the image asks for it: its ImdsSupport is v2.0
        machine.metadata_options.http_tokens = "required"
    sizes = {disk.get("DeviceName"): disk for _, disk in numbered_groups(params, "BlockDeviceMapping")}
    for name, mapping in machine.get_block_device_mapping:
        volume = backend.volumes[mapping.volume_id]
        volume.attachment.delete_on_termination = mapping.delete_on_termination
        if volume.volume_type == "gp3":
            volume.iops = _whole(sizes.get(name, {}), "Ebs.Iops", 3000)
            volume.throughput = _whole(sizes.get(name, {}), "Ebs.Throughput", 125)
        if name == image.root_device_name:
            volume.snapshot_id = image.ebs_snapshot.id
    if params.get("InstanceMarketOptions.MarketType") == "spot":
        persistent = params.get("InstanceMarketOptions.SpotOptions.SpotInstanceType") == "persistent"
        price = params.get("InstanceMarketOptions.SpotOptions.MaxPrice", "")
        machine.spot_request = SpotRequest(machine, persistent, price, _tags_of(params, "spot-instances-request"))
        machine.spot_instance_request_id = machine.spot_request.id
        backend.spot_instance_requests[machine.spot_request.id] = machine.spot_request


def _retold(call: Call, reply: Reply, new: list[Machine]) -> Reply:
    """moto's RunInstances answer, with the reservation as DescribeInstances tells it now."""
    asked = {f"InstanceId.{number}": machine.id for number, machine in enumerate(new, 1)}
    told = engine.ask(call_as(call, "DescribeInstances"), {"Action": "DescribeInstances", "Version": "2016-11-15", **asked})
    item = re.search(rb"<reservationSet><item>(.*)</item></reservationSet>", told.body, re.DOTALL)
    whole = re.search(rb"(<RunInstancesResponse[^>]*>).*(<requestId>.*?</requestId>)", reply.body, re.DOTALL)
    if item is None or whole is None:
        return reply
    head = b'<?xml version="1.0" encoding="UTF-8"?>\n'
    return Reply(200, reply.content_type, head + whole[1] + whole[2] + item[1] + b"</RunInstancesResponse>")


def call_as(call: Call, action: str) -> Call:
    return Call(call.service, call.region, action, {}, call.protocol, b"", request_id=call.request_id)


def _tags_of(params: Mapping[str, str], kind: str) -> dict[str, str]:
    tags: dict[str, str] = {}
    for number, specification in numbered_groups(params, "TagSpecification"):
        if specification.get("ResourceType") == kind:
            tags.update(_tags(params, number))
    return tags


def _tags(params: Mapping[str, str], number: int) -> dict[str, str]:
    prefix = f"TagSpecification.{number}.Tag"
    return {tag.get("Key", ""): tag.get("Value", "") for _, tag in numbered_groups(params, prefix)}


def _whole(params: Mapping[str, str], key: str, default: int | None = None) -> int:
    text = params.get(key)
    if text is None and default is not None:
        return default
    if text is None or not text.isdigit():
        raise Refusal("InvalidParameterValue", f"{key} is {text!r}, and must be a whole number")
    return int(text)
