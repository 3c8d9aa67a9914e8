"""What EC2 shows under our tags, kind by kind, and what its words mean for a bill.

Two lists. `MADE` is what we create or what is born with it: it must be listable to the last page, or the whole
inventory raises, because a partial list would be read as "nothing left". `OTHER` is what we never make but a person
may have tagged, or an earlier version made: where these credentials may not list it, or the endpoint does not know
it, it is reported as not checked, with the reason.

A provider's word that we have never seen counts as *here*: a machine is only gone when AWS says `terminated`.
This file must not send anything; it turns descriptions into Resources.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from provisioner.model import Json, Phase, Resource
from provisioner.providers.aws_client import instant
from provisioner.providers.aws_launch import DEADLINE, LEASE, TOKEN

Described = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """How one kind of resource is listed, asked for by id, and asked to go."""

    name: str
    list_call: str
    items: Callable[[Described], list[Described]]
    id_key: str
    ids: str  # the parameter that lists by id
    remove_call: str
    remove_id: str
    read: Callable[[Described], dict[str, Any]]  # phase, state, billed, facts, token
    page_size: int | None = 200
    by_list: bool = False  # the removal takes a list of ids
    more: Mapping[str, Any] | None = None


INSTANCE = {
    "pending": Phase.COMING,
    "running": Phase.HERE,
    "stopping": Phase.HERE,
    "stopped": Phase.HERE,  # its disk is billed
    "shutting-down": Phase.LEAVING,  # no instance charge from this state on
    "terminated": Phase.GONE,
}
VOLUME = {"creating": Phase.COMING, "available": Phase.HERE, "in-use": Phase.HERE, "deleting": Phase.LEAVING, "deleted": Phase.GONE}
SPOT = {"closed": Phase.GONE, "cancelled": Phase.GONE, "failed": Phase.GONE}
SNAPSHOT = {"pending": Phase.COMING}


def _instance(d: Described) -> dict[str, Any]:
    state = str(d.get("State", {}).get("Name", ""))
    facts = {
        "type": d.get("InstanceType"),
        "imageId": d.get("ImageId"),
        "address": d.get("PublicIpAddress"),
        "privateAddress": d.get("PrivateIpAddress"),
        "launchTime": _time(d.get("LaunchTime")),
        "stateReason": (d.get("StateReason") or {}).get("Code"),
        "stateTransitionReason": d.get("StateTransitionReason"),
        "zone": d.get("Placement", {}).get("AvailabilityZone"),
    }
    return {"phase": INSTANCE.get(state, Phase.HERE), "state": state, "billed": True, "facts": facts, "token": d.get("ClientToken")}


def _volume(d: Described) -> dict[str, Any]:
    state = str(d.get("State", ""))
    facts = {
        "sizeGib": d.get("Size"),
        "volumeType": d.get("VolumeType"),
        "encrypted": d.get("Encrypted"),
        "createTime": _time(d.get("CreateTime")),
        "instance": next((a.get("InstanceId") for a in d.get("Attachments", [])), None),
    }
    return {"phase": VOLUME.get(state, Phase.HERE), "state": state, "billed": True, "facts": facts}


def _interface(d: Described) -> dict[str, Any]:
    facts = {"instance": (d.get("Attachment") or {}).get("InstanceId"), "privateAddress": d.get("PrivateIpAddress")}
    return {"phase": Phase.HERE, "state": str(d.get("Status", "")), "billed": False, "facts": facts}


def _group(d: Described) -> dict[str, Any]:
    facts = {"name": d.get("GroupName"), "vpc": d.get("VpcId")}
    return {"phase": Phase.HERE, "state": "exists", "billed": False, "facts": facts, "token": tag(d, TOKEN) or None}


def _address(d: Described) -> dict[str, Any]:
    state = "associated" if d.get("AssociationId") else "allocated"
    return {"phase": Phase.HERE, "state": state, "billed": True, "facts": {"address": d.get("PublicIp"), "instance": d.get("InstanceId")}}


def _spot(d: Described) -> dict[str, Any]:
    state = str(d.get("State", ""))
    return {"phase": SPOT.get(state, Phase.HERE), "state": state, "billed": False, "facts": {"instance": d.get("InstanceId")}}


def _litter(name: str) -> Callable[[Described], dict[str, Any]]:
    return lambda d: {"phase": Phase.HERE, "state": "exists", "billed": False, "facts": {"name": d.get(name)}}


def _snapshot(d: Described) -> dict[str, Any]:
    state = str(d.get("State", ""))
    facts = {"sizeGib": d.get("VolumeSize"), "createTime": _time(d.get("StartTime"))}
    return {"phase": SNAPSHOT.get(state, Phase.HERE), "state": state, "billed": True, "facts": facts}


def _at(key: str) -> Callable[[Described], list[Described]]:
    return lambda data: list(data.get(key, []))


def _in_reservations(data: Described) -> list[Described]:
    return [instance for reservation in data.get("Reservations", []) for instance in reservation.get("Instances", [])]


MADE = (
    Kind(
        "instance",
        "DescribeInstances",
        _in_reservations,
        "InstanceId",
        "InstanceIds",
        "TerminateInstances",
        "InstanceIds",
        _instance,
        by_list=True,
    ),
    Kind("volume", "DescribeVolumes", _at("Volumes"), "VolumeId", "VolumeIds", "DeleteVolume", "VolumeId", _volume),
    Kind(
        "network-interface",
        "DescribeNetworkInterfaces",
        _at("NetworkInterfaces"),
        "NetworkInterfaceId",
        "NetworkInterfaceIds",
        "DeleteNetworkInterface",
        "NetworkInterfaceId",
        _interface,
    ),
    Kind(
        "security-group", "DescribeSecurityGroups", _at("SecurityGroups"), "GroupId", "GroupIds", "DeleteSecurityGroup", "GroupId", _group
    ),
)
OTHER = (
    Kind(
        "elastic-ip",
        "DescribeAddresses",
        _at("Addresses"),
        "AllocationId",
        "AllocationIds",
        "ReleaseAddress",
        "AllocationId",
        _address,
        page_size=None,
    ),
    Kind(
        "spot-request",
        "DescribeSpotInstanceRequests",
        _at("SpotInstanceRequests"),
        "SpotInstanceRequestId",
        "SpotInstanceRequestIds",
        "CancelSpotInstanceRequests",
        "SpotInstanceRequestIds",
        _spot,
        by_list=True,
    ),
    Kind(
        "key-pair",
        "DescribeKeyPairs",
        _at("KeyPairs"),
        "KeyPairId",
        "KeyPairIds",
        "DeleteKeyPair",
        "KeyPairId",
        _litter("KeyName"),
        page_size=None,
    ),
    Kind(
        "launch-template",
        "DescribeLaunchTemplates",
        _at("LaunchTemplates"),
        "LaunchTemplateId",
        "LaunchTemplateIds",
        "DeleteLaunchTemplate",
        "LaunchTemplateId",
        _litter("LaunchTemplateName"),
    ),
    Kind(
        "snapshot",
        "DescribeSnapshots",
        _at("Snapshots"),
        "SnapshotId",
        "SnapshotIds",
        "DeleteSnapshot",
        "SnapshotId",
        _snapshot,
        more={"OwnerIds": ["self"]},
    ),
)
KINDS = {kind.name: kind for kind in (*MADE, *OTHER)}


def resource(kind: Kind, described: Described, region: str, stamp: Mapping[str, Json]) -> Resource:
    """One description as a Resource, with what AWS said about it kept as facts."""
    read = kind.read(described)
    facts = {**read["facts"], "deadline": tag(described, DEADLINE), **stamp}
    return Resource(
        kind=kind.name,
        id=str(described[kind.id_key]),
        phase=read["phase"],
        state=read["state"],
        token=read.get("token") or None,
        billed=read["billed"],
        region=region,
        lease=tag(described, LEASE),
        facts={name: value for name, value in facts.items() if value not in (None, "")},
    )


def tag(described: Described, key: str) -> str:
    # DescribeNetworkInterfaces alone calls its tags TagSet.
    tags = described.get("Tags") or described.get("TagSet") or []
    return next((str(t.get("Value", "")) for t in tags if t.get("Key") == key), "")


def _time(moment: object) -> str | None:
    return instant(moment) if isinstance(moment, datetime) else None
