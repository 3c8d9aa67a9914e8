"""What one machine is asked to be, and whether AWS made it so. Pure: parameters in, dictionaries and texts out.

Everything that keeps a machine from outliving its lease is in the launch call itself, because a second call may
never be sent: terminate on shutdown, a disk and an interface that die with the machine, tags at birth on all three.
There is no key pair (the key is in user-data), no instance profile (nothing on the machine can call AWS), IMDSv2
with one hop, and an encrypted disk.

`differences` reads the same list back from what AWS describes: asked for is not the same as made.
Limits and names: RunInstances in the EC2 API reference. This file must not call anything.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from provisioner.model import LaunchSpec
from provisioner.providers.aws_errors import NotAsked

LEASE, DEADLINE, MANAGED, TOKEN = "gpulease:lease", "gpulease:deadline", "gpulease:managed", "gpulease:token"
USER_DATA_LIMIT = 16 * 1024
TOKEN_LIMIT = 64


@dataclass(frozen=True)
class Image:
    id: str
    root_device: str
    root_gib: int
    name: str = ""
    architecture: str = ""


def check(spec: LaunchSpec, regions: Sequence[str]) -> None:
    """Refuse, before anything is asked for, what must never be asked for."""
    if spec.offer.region not in regions:
        raise NotAsked(f"the offer is for {spec.offer.region}, and this is {', '.join(regions)}")
    if spec.offer.spot:
        raise NotAsked(
            "this provider rents on-demand machines only; the offer is for spot", next="set needs.purchase to [on-demand] in the profile"
        )
    if spec.reach != "address":
        raise NotAsked(f"launch.reach is {spec.reach}, and only address is there yet", next="leave launch.reach out of the profile")
    if len(spec.user_data) > USER_DATA_LIMIT:
        raise NotAsked(f"the user-data is {len(spec.user_data)} bytes; EC2 takes {USER_DATA_LIMIT}")
    if not 1 <= spec.disk_gib <= 16_384:
        raise NotAsked(f"a disk of {spec.disk_gib} GiB; gp3 takes 1 to 16384")
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", spec.deadline):
        raise NotAsked(f"the deadline {spec.deadline!r} is not an RFC 3339 time with a Z")
    if spec.group is None:
        ingress(spec.ingress_cidr)


def ingress(cidr: str | None) -> dict[str, Any]:
    """The one rule of a lease's security group: SSH from one IPv4 address."""
    try:
        network = ipaddress.IPv4Network(cidr or "", strict=True)
    except ValueError as e:
        raise NotAsked(f"{cidr!r} is not an IPv4 address with /32", next="pass your own address, like 203.0.113.7/32") from e
    if network.prefixlen != 32 or network.network_address.is_unspecified:
        raise NotAsked(
            f"{cidr} would open SSH to {network.num_addresses} addresses; only one (/32) is allowed",
            next="pass your own address, like 203.0.113.7/32",
        )
    return {
        "IpProtocol": "tcp",
        "FromPort": 22,
        "ToPort": 22,
        "IpRanges": [{"CidrIp": str(network), "Description": "gpulease: the machine that rents"}],
    }


def check_token(token: str) -> str:
    if not (0 < len(token) <= TOKEN_LIMIT and re.fullmatch(r"[!-~]+", token)):
        raise NotAsked(f"the client token has {len(token)} characters; EC2 takes 1 to {TOKEN_LIMIT} of ASCII")
    return token


def tags(lease: str, deadline: str, **more: str) -> list[dict[str, str]]:
    """What everything of a lease is born with, so that any later `reap` finds it and knows when it is overdue."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", lease):
        raise NotAsked(f"{lease!r} is not a lease id")
    named = {LEASE: lease, DEADLINE: deadline, MANAGED: "true", "Name": f"gpulease {lease}", **more}
    return [{"Key": key, "Value": value} for key, value in named.items()]


def run_parameters(spec: LaunchSpec, lease: str, token: str, image: Image, *, subnet: str, group: str) -> dict[str, Any]:
    """RunInstances for exactly one machine."""
    owned = tags(lease, spec.deadline)
    parameters: dict[str, Any] = {
        "ClientToken": check_token(token),
        "MinCount": 1,
        "MaxCount": 1,
        "ImageId": image.id,
        "InstanceType": spec.offer.type,
        "InstanceInitiatedShutdownBehavior": "terminate",
        "DisableApiTermination": False,
        "MetadataOptions": {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        "BlockDeviceMappings": [
            {
                "DeviceName": image.root_device,
                "Ebs": {"DeleteOnTermination": True, "Encrypted": True, "VolumeType": "gp3", "VolumeSize": disk_gib(spec, image)},
            }
        ],
        "NetworkInterfaces": [
            {
                "DeviceIndex": 0,
                "SubnetId": subnet,
                "AssociatePublicIpAddress": True,
                "DeleteOnTermination": True,
                "Groups": [group],
            }
        ],
        "TagSpecifications": [{"ResourceType": kind, "Tags": owned} for kind in ("instance", "volume", "network-interface")],
    }
    if spec.user_data:
        parameters["UserData"] = spec.user_data
    if spec.offer.type.startswith("t3"):
        # The default, "unlimited", bills surplus CPU on top of the price that was quoted.
        parameters["CreditSpecification"] = {"CpuCredits": "standard"}
    return parameters


def disk_gib(spec: LaunchSpec, image: Image) -> int:
    """EC2 refuses a root disk smaller than the image's snapshot."""
    return max(spec.disk_gib, image.root_gib)


def differences(
    spec: LaunchSpec,
    lease: str,
    instance: Mapping[str, Any],
    volumes: Sequence[Mapping[str, Any]],
    group: Mapping[str, Any] | None,
    attributes: Mapping[str, Any],
) -> list[str]:
    """What AWS describes against what was asked for; empty when they agree. Absent counts as different."""
    found: list[str] = []

    def expect(what: str, seen: object, wanted: object) -> None:
        if seen != wanted:
            found.append(f"{what} is {seen!r}, asked for {wanted!r}")

    expect("type", instance.get("InstanceType"), spec.offer.type)
    expect("on shutdown", attributes.get("instanceInitiatedShutdownBehavior"), "terminate")
    expect("termination protection", attributes.get("disableApiTermination"), False)
    metadata = instance.get("MetadataOptions", {})
    expect("instance metadata tokens", metadata.get("HttpTokens"), "required")
    expect("instance metadata hop limit", metadata.get("HttpPutResponseHopLimit"), 1)
    expect("instance profile", instance.get("IamInstanceProfile"), None)
    expect("key pair", instance.get("KeyName"), None)
    expect("lease tag of the instance", _tag(instance, LEASE), lease)
    expect("deadline tag of the instance", _tag(instance, DEADLINE), spec.deadline)
    mappings = instance.get("BlockDeviceMappings", [])
    if not mappings:
        found.append("no disk is shown yet")
    for mapping in mappings:
        expect(f"disk {mapping.get('DeviceName')} dies with the instance", mapping.get("Ebs", {}).get("DeleteOnTermination"), True)
    expect(
        "disks attached",
        sorted(str(volume.get("VolumeId")) for volume in volumes),
        sorted(str(mapping.get("Ebs", {}).get("VolumeId")) for mapping in mappings),
    )
    for volume in volumes:
        expect(f"encryption of {volume.get('VolumeId')}", volume.get("Encrypted"), True)
        expect(f"lease tag of {volume.get('VolumeId')}", _tag(volume, LEASE), lease)
    interfaces = instance.get("NetworkInterfaces", [])
    if not interfaces:
        found.append("no network interface is shown yet")
    for interface in interfaces:
        name = interface.get("NetworkInterfaceId")
        expect(f"interface {name} dies with the instance", interface.get("Attachment", {}).get("DeleteOnTermination"), True)
        if group is not None:
            expect(f"groups of interface {name}", [g.get("GroupId") for g in interface.get("Groups", [])], [group.get("GroupId")])
    if group is not None and spec.group is None:
        expect("ingress", _rules(group), _rules({"IpPermissions": [ingress(spec.ingress_cidr)]}))
    return found


def _tag(described: Mapping[str, Any], key: str) -> str | None:
    return next((str(tag.get("Value")) for tag in described.get("Tags", []) if tag.get("Key") == key), None)


def _rules(group: Mapping[str, Any]) -> list[str]:
    """Ingress as one comparable text per peer; a peer of any other kind than an IPv4 range shows too."""
    rules: list[str] = []
    for rule in group.get("IpPermissions", []):
        ports = f"{rule.get('IpProtocol')} {rule.get('FromPort')}-{rule.get('ToPort')}"
        peers = [peer.get("CidrIp") for peer in rule.get("IpRanges", [])]
        peers += [peer.get("CidrIpv6") for peer in rule.get("Ipv6Ranges", [])]
        peers += [peer.get("PrefixListId") for peer in rule.get("PrefixListIds", [])]
        peers += [peer.get("GroupId") for peer in rule.get("UserIdGroupPairs", [])]
        rules += [f"{ports} from {peer}" for peer in peers or ["nobody"]]
    return sorted(rules)
