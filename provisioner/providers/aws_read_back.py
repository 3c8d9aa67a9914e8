"""Whether AWS made a machine as it was asked to: each parameter of the launch against what is described of it. Pure.

An account policy, a default of the account or a bug of ours can make a machine that outlives its lease, lets others
in, or is not the one that was priced; asked for is not the same as made. `differences` goes through the launch call's
own parameters, so that nothing can be asked for and forgotten here. What is not shown counts as different.

User-data is compared by its SHA-256: it holds a private key, which must not stand in a sentence.
This file must not call anything.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from provisioner.secret import Secret

Described = Mapping[str, Any]
Expect = Callable[[str, object, object], None]


@dataclass(frozen=True)
class Shown:
    """What AWS describes of one machine and of everything that was born with it."""

    instance: Described
    volumes: Sequence[Described] = ()
    interfaces: Sequence[Described] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)  # of the instance, by the name it is asked for
    group: Described | None = None
    spot_request: Described | None = None


def differences(
    asked: Mapping[str, Any], shown: Shown, *, zone: str | None = None, rules: Sequence[Mapping[str, Any]] | None = None
) -> list[str]:
    """One sentence for each difference; empty when all agree. `rules` are the lease's own group's, None for a user's group."""
    found: list[str] = []

    def expect(what: str, seen: object, wanted: object) -> None:
        if seen != wanted:
            found.append(f"{what} is {seen!r}, asked for {wanted!r}")

    _machine(expect, asked, shown, zone)
    _disks(expect, found, asked, shown)
    _interfaces(expect, found, asked, shown)
    _purchase(expect, asked, shown)
    if rules is not None:
        expect("ingress", ingress_text(shown.group or {}), ingress_text({"IpPermissions": rules}))
    return found


def _machine(expect: Expect, asked: Mapping[str, Any], shown: Shown, zone: str | None) -> None:
    instance, attributes = shown.instance, shown.attributes
    expect("type", instance.get("InstanceType"), asked["InstanceType"])
    expect("image", instance.get("ImageId"), asked["ImageId"])
    if "ClientToken" in asked:  # a fleet gives its machine one of its own
        expect("client token", instance.get("ClientToken"), asked["ClientToken"])
    if zone is not None:
        expect("zone", instance.get("Placement", {}).get("AvailabilityZone"), zone)
    expect("on shutdown", attributes.get("instanceInitiatedShutdownBehavior"), asked["InstanceInitiatedShutdownBehavior"])
    expect("termination protection", attributes.get("disableApiTermination"), asked["DisableApiTermination"])
    expect("user-data", user_data_digest(attributes.get("userData")), _digest(asked.get("UserData", Secret("")).reveal_bytes()))
    metadata, wanted = instance.get("MetadataOptions", {}), asked["MetadataOptions"]
    expect("instance metadata endpoint", metadata.get("HttpEndpoint"), wanted["HttpEndpoint"])
    expect("instance metadata tokens", metadata.get("HttpTokens"), wanted["HttpTokens"])
    expect("instance metadata hop limit", metadata.get("HttpPutResponseHopLimit"), wanted["HttpPutResponseHopLimit"])
    expect("instance profile", instance.get("IamInstanceProfile"), asked.get("IamInstanceProfile"))
    expect("key pair", instance.get("KeyName"), asked.get("KeyName"))
    _tags(expect, "the instance", instance, _asked_tags(asked, "instance"))


def _disks(expect: Expect, found: list[str], asked: Mapping[str, Any], shown: Shown) -> None:
    mappings = shown.instance.get("BlockDeviceMappings", [])
    if not mappings:
        found.append("no disk is shown yet")
    for mapping in mappings:
        expect(f"disk {mapping.get('DeviceName')} dies with the instance", mapping.get("Ebs", {}).get("DeleteOnTermination"), True)
    attached = sorted(str(mapping.get("Ebs", {}).get("VolumeId")) for mapping in mappings)
    expect("disks attached", sorted(str(volume.get("VolumeId")) for volume in shown.volumes), attached)
    root = {mapping.get("Ebs", {}).get("VolumeId"): mapping.get("DeviceName") for mapping in mappings}
    wanted = {disk["DeviceName"]: disk["Ebs"] for disk in asked["BlockDeviceMappings"]}
    for volume in shown.volumes:
        name = volume.get("VolumeId")
        expect(f"encryption of {name}", volume.get("Encrypted"), True)
        _tags(expect, str(name), volume, _asked_tags(asked, "volume"))
        if ebs := wanted.get(root.get(name)):
            expect(f"size of {name} in GiB", volume.get("Size"), ebs["VolumeSize"])
            expect(f"kind of {name}", volume.get("VolumeType"), ebs["VolumeType"])


def _interfaces(expect: Expect, found: list[str], asked: Mapping[str, Any], shown: Shown) -> None:
    interfaces, (wanted,) = shown.instance.get("NetworkInterfaces", []), asked["NetworkInterfaces"]
    if not interfaces:
        found.append("no network interface is shown yet")
    for interface in interfaces:
        name = interface.get("NetworkInterfaceId")
        expect(f"interface {name} dies with the instance", interface.get("Attachment", {}).get("DeleteOnTermination"), True)
        expect(f"groups of interface {name}", [g.get("GroupId") for g in interface.get("Groups", [])], wanted["Groups"])
        expect(f"subnet of interface {name}", interface.get("SubnetId"), wanted["SubnetId"])
    described = sorted(str(interface.get("NetworkInterfaceId")) for interface in shown.interfaces)
    expect("interfaces attached", described, sorted(str(interface.get("NetworkInterfaceId")) for interface in interfaces))
    for interface in shown.interfaces:
        tagged = {"Tags": interface.get("TagSet") or interface.get("Tags") or []}
        _tags(expect, str(interface.get("NetworkInterfaceId")), tagged, _asked_tags(asked, "network-interface"))
    expect("a public address", bool(shown.instance.get("PublicIpAddress")), wanted["AssociatePublicIpAddress"])


def _purchase(expect: Expect, asked: Mapping[str, Any], shown: Shown) -> None:
    market = asked.get("InstanceMarketOptions")
    expect("bought as", shown.instance.get("InstanceLifecycle"), market["MarketType"] if market else None)
    if not market:
        return
    wanted, request = market["SpotOptions"], shown.spot_request or {}
    expect("kind of the spot request", request.get("Type"), wanted["SpotInstanceType"])
    expect("what an interruption does", request.get("InstanceInterruptionBehavior"), wanted["InstanceInterruptionBehavior"])
    expect("ceiling of the spot request", _decimal(request.get("SpotPrice")), _decimal(wanted["MaxPrice"]))
    _tags(expect, "the spot request", request, _asked_tags(asked, "spot-instances-request"))


def ingress_text(group: Described) -> list[str]:
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


def user_data_digest(shown: object) -> str:
    """The digest of user-data as AWS shows it, which is base64."""
    if shown is None or shown == "":
        return _digest(b"")
    try:
        return _digest(base64.b64decode(str(shown), validate=True))
    except (binascii.Error, ValueError):
        return "not base64"


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest() if data else "none"


def _tags(expect: Expect, what: str, described: Described, wanted: Mapping[str, str]) -> None:
    shown = {str(tag.get("Key")): tag.get("Value") for tag in described.get("Tags", [])}
    for key, value in wanted.items():
        expect(f"tag {key} of {what}", shown.get(key), value)


def _asked_tags(asked: Mapping[str, Any], kind: str) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for one in asked["TagSpecifications"] if one["ResourceType"] == kind for tag in one["Tags"]}


def _decimal(text: object) -> Decimal | None:
    try:
        return Decimal(str(text))
    except InvalidOperation:
        return None
