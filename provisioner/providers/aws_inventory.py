"""What EC2 shows under our tags, kind by kind, and what its words mean for a bill.

Two lists. `MADE` is what we create or what is born with it: it must be listable to the last page, or the whole
inventory raises, because a partial list would be read as "nothing left". `OTHER` is what else can bill or be left
lying about under our tags: a person tagged it, an earlier version made it, or it is made only where the profile asks for it (a
fleet). Where these credentials may not list it, or the endpoint does not know it, it is reported as not checked, with the
reason; a lease that made one is then not called released.

What is not here has no tags of its own (restores of a snapshot, the recycle bin), is not EC2's, or is never made per lease.

A provider's word that we have never seen counts as *here*: a machine is only gone when AWS says `terminated`.
This file must not send anything; it turns descriptions into Resources.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from provisioner.model import Phase
from provisioner.providers.aws_kind import FLEET_ID, Described, Kind, at, plain, tag, time
from provisioner.providers.aws_launch import TOKEN

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
FLEET = {
    "submitted": Phase.COMING,
    "active": Phase.HERE,
    "deleted": Phase.GONE,
    "failed": Phase.GONE,
    "deleted_running": Phase.HERE,  # its machines run on
    "deleted_terminating": Phase.LEAVING,
}
SPOT_FLEET = {
    "submitted": Phase.COMING,
    "cancelled": Phase.GONE,
    "failed": Phase.GONE,
    "cancelled_running": Phase.HERE,
    "cancelled_terminating": Phase.LEAVING,
}
RESERVATION = {word: Phase.GONE for word in ("expired", "cancelled", "failed", "payment-failed", "unsupported")} | {
    "cancelling": Phase.LEAVING
}
HOST = {"released": Phase.GONE, "released-permanent-failure": Phase.GONE}
IMAGE = {"pending": Phase.COMING, "deregistered": Phase.GONE}
GATEWAY = {"pending": Phase.COMING, "failed": Phase.GONE, "deleting": Phase.LEAVING, "deleted": Phase.GONE}
ENDPOINT = {"pending": Phase.COMING, "deleting": Phase.LEAVING, "deleted": Phase.GONE, "rejected": Phase.GONE, "failed": Phase.GONE}
CONNECT = {"create-in-progress": Phase.COMING, "delete-in-progress": Phase.LEAVING, "delete-complete": Phase.GONE}
GROUP = {"pending": Phase.COMING, "deleting": Phase.LEAVING, "deleted": Phase.GONE}


def _instance(d: Described) -> dict[str, Any]:
    state = str(d.get("State", {}).get("Name", ""))
    facts = {
        "type": d.get("InstanceType"),
        "imageId": d.get("ImageId"),
        "address": d.get("PublicIpAddress"),
        "privateAddress": d.get("PrivateIpAddress"),
        "launchTime": time(d.get("LaunchTime")),
        "stateReason": (d.get("StateReason") or {}).get("Code"),
        "stateTransitionReason": d.get("StateTransitionReason"),
        "zone": d.get("Placement", {}).get("AvailabilityZone"),
        "fleet": tag(d, FLEET_ID) or None,
    }
    # A fleet's machine has a token that EC2 made up; which request it came of, the fleet says: aws_look.
    token = None if facts["fleet"] else d.get("ClientToken")
    return {"phase": INSTANCE.get(state, Phase.HERE), "state": state, "billed": True, "facts": facts, "token": token}


def _fleet(d: Described) -> dict[str, Any]:
    state = str(d.get("FleetState", ""))
    facts = {"type": d.get("Type"), "activity": d.get("ActivityStatus"), "validUntil": time(d.get("ValidUntil"))}
    facts["endsMachines"] = d.get("TerminateInstancesWithExpiration")
    return {"phase": FLEET.get(state, Phase.HERE), "state": state, "billed": True, "facts": facts, "token": d.get("ClientToken")}


def _volume(d: Described) -> dict[str, Any]:
    state = str(d.get("State", ""))
    facts = {
        "sizeGib": d.get("Size"),
        "volumeType": d.get("VolumeType"),
        "encrypted": d.get("Encrypted"),
        "createTime": time(d.get("CreateTime")),
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
    facts = {"sizeGib": d.get("VolumeSize"), "createTime": time(d.get("StartTime"))}
    return {"phase": SNAPSHOT.get(state, Phase.HERE), "state": state, "billed": True, "facts": facts}


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
    Kind("volume", "DescribeVolumes", at("Volumes"), "VolumeId", "VolumeIds", "DeleteVolume", "VolumeId", _volume),
    Kind(
        "network-interface",
        "DescribeNetworkInterfaces",
        at("NetworkInterfaces"),
        "NetworkInterfaceId",
        "NetworkInterfaceIds",
        "DeleteNetworkInterface",
        "NetworkInterfaceId",
        _interface,
    ),
    Kind("security-group", "DescribeSecurityGroups", at("SecurityGroups"), "GroupId", "GroupIds", "DeleteSecurityGroup", "GroupId", _group),
)
OTHER = (
    Kind(
        "fleet",
        "DescribeFleets",
        at("Fleets"),
        "FleetId",
        "FleetIds",
        "DeleteFleets",
        "FleetIds",
        _fleet,
        by_list=True,
        filters="",
        removal={"TerminateInstances": True},
        ends=at("UnsuccessfulFleetDeletions"),
    ),
    Kind(
        "launch-template",
        "DescribeLaunchTemplates",
        at("LaunchTemplates"),
        "LaunchTemplateId",
        "LaunchTemplateIds",
        "DeleteLaunchTemplate",
        "LaunchTemplateId",
        _litter("LaunchTemplateName"),
    ),
    Kind(
        "elastic-ip",
        "DescribeAddresses",
        at("Addresses"),
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
        at("SpotInstanceRequests"),
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
        at("KeyPairs"),
        "KeyPairId",
        "KeyPairIds",
        "DeleteKeyPair",
        "KeyPairId",
        _litter("KeyName"),
        page_size=None,
    ),
    Kind(
        "snapshot",
        "DescribeSnapshots",
        at("Snapshots"),
        "SnapshotId",
        "SnapshotIds",
        "DeleteSnapshot",
        "SnapshotId",
        _snapshot,
        more={"OwnerIds": ["self"]},
    ),
    Kind(
        "image",
        "DescribeImages",
        at("Images"),
        "ImageId",
        "ImageIds",
        "DeregisterImage",
        "ImageId",
        plain(IMAGE, billed=False, facts={"name": "Name"}),  # its snapshots bill, and are listed as snapshots
        more={"Owners": ["self"]},
    ),
    Kind(
        "spot-fleet-request",
        "DescribeSpotFleetRequests",
        at("SpotFleetRequestConfigs"),
        "SpotFleetRequestId",
        "SpotFleetRequestIds",
        "CancelSpotFleetRequests",
        "SpotFleetRequestIds",
        plain(SPOT_FLEET, billed=True, state="SpotFleetRequestState"),
        by_list=True,
        filters="",
        removal={"TerminateInstances": True},
        ends=at("UnsuccessfulFleetRequests"),
    ),
    Kind(
        "capacity-reservation",
        "DescribeCapacityReservations",
        at("CapacityReservations"),
        "CapacityReservationId",
        "CapacityReservationIds",
        "CancelCapacityReservation",
        "CapacityReservationId",
        plain(RESERVATION, billed=True, facts={"type": "InstanceType"}),
    ),
    Kind(
        "capacity-reservation-fleet",
        "DescribeCapacityReservationFleets",
        at("CapacityReservationFleets"),
        "CapacityReservationFleetId",
        "CapacityReservationFleetIds",
        "CancelCapacityReservationFleets",
        "CapacityReservationFleetIds",
        plain(RESERVATION, billed=True),
        page_size=100,
        by_list=True,
        filters="",
        ends=at("FailedFleetCancellations"),
    ),
    Kind(
        "dedicated-host",
        "DescribeHosts",
        at("Hosts"),
        "HostId",
        "HostIds",
        "ReleaseHosts",
        "HostIds",
        plain(HOST, billed=True),
        by_list=True,
        filters="Filter",
        by_key=True,
        ends=at("Unsuccessful"),
    ),
    Kind(
        "nat-gateway",
        "DescribeNatGateways",
        at("NatGateways"),
        "NatGatewayId",
        "NatGatewayIds",
        "DeleteNatGateway",
        "NatGatewayId",
        plain(GATEWAY, billed=True),
        filters="Filter",
    ),
    Kind(
        "vpc-endpoint",
        "DescribeVpcEndpoints",
        at("VpcEndpoints"),
        "VpcEndpointId",
        "VpcEndpointIds",
        "DeleteVpcEndpoints",
        "VpcEndpointIds",
        plain(ENDPOINT, billed=True, facts={"service": "ServiceName"}),
        by_list=True,
        ends=at("Unsuccessful"),
    ),
    Kind(
        "instance-connect-endpoint",
        "DescribeInstanceConnectEndpoints",
        at("InstanceConnectEndpoints"),
        "InstanceConnectEndpointId",
        "InstanceConnectEndpointIds",
        "DeleteInstanceConnectEndpoint",
        "InstanceConnectEndpointId",
        plain(CONNECT, billed=False),
        page_size=50,
    ),
    Kind(
        "placement-group",
        "DescribePlacementGroups",
        at("PlacementGroups"),
        "GroupName",  # it is removed by its name, not by its id
        "GroupNames",
        "DeletePlacementGroup",
        "GroupName",
        plain(GROUP, billed=False),
        page_size=None,
    ),
)
KINDS = {kind.name: kind for kind in (*MADE, *OTHER)}
LAUNCHERS = tuple(KINDS[name] for name in ("fleet", "launch-template"))
"""Of the others, those that a launch may be asked through: they are in every look, because a fleet may make one more machine."""
