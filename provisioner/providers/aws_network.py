"""Where a machine is put and who may reach its port 22: subnets, a group that the user has, Instance Connect endpoints.

A group of the user's own is used as it is, and read first. It must let SSH in from where we come from, and is refused
where it lets in the whole internet: that is never needed, and a key is the only thing that then stands between the
machine and everybody. Whoever wants it wider than one address and narrower than all (an office, a VPN) decides so
themselves. What is in a prefix list is not looked into: it counts as letting us in.

Only reads; this file must not create or change anything.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from provisioner.model import LaunchSpec
from provisioner.providers.aws_client import Account
from provisioner.providers.aws_errors import NotAsked, NotHere
from provisioner.providers.aws_launch import ingress

Described = Mapping[str, Any]
SSH = 22


@dataclass(frozen=True)
class Place:
    subnet: str
    vpc: str
    zone: str


def place(account: Account, spec: LaunchSpec) -> Place:
    """The subnet that the profile names, else the default one of the offer's zone: an interface has to name one."""
    if spec.subnet:
        theirs = _place(account.ask("DescribeSubnets", SubnetIds=[spec.subnet]).data["Subnets"][0])
        if spec.offer.zone not in (None, theirs.zone):
            raise NotHere(f"the subnet {spec.subnet} is in {theirs.zone}, and this offer is for {spec.offer.zone}")
        return theirs
    wanted = [{"Name": "default-for-az", "Values": ["true"]}]
    if spec.offer.zone is not None:
        wanted.append({"Name": "availability-zone", "Values": [spec.offer.zone]})
    subnets = [s for page in account.pages("DescribeSubnets", 200, Filters=wanted) for s in page.data.get("Subnets", [])]
    if not subnets:
        raise NotHere(
            f"there is no default subnet in {spec.offer.zone or account.region}",
            next="name one under launch.subnet, or make one: aws ec2 create-default-subnet --availability-zone ZONE",
        )
    return _place(min(subnets, key=lambda subnet: str(subnet["AvailabilityZone"])))


def rules(account: Account, spec: LaunchSpec) -> list[dict[str, Any]]:
    """What a lease's own group lets in: one address, or the endpoint's group, or nobody. Never more than one rule."""
    match spec.reach:
        case "address":
            return [ingress(spec.ingress_cidr)]
        case "endpoint":
            pairs = [{"GroupId": group, "Description": "gpulease: Instance Connect endpoint"} for group in endpoint_groups(account, spec)]
            return [{"IpProtocol": "tcp", "FromPort": SSH, "ToPort": SSH, "UserIdGroupPairs": pairs}]
        case _:  # Session Manager comes from inside the machine
            return []


def endpoint_groups(account: Account, spec: LaunchSpec) -> list[str]:
    """The security groups of the Instance Connect endpoint in the machine's network. NotAsked when there is none."""
    vpc = place(account, spec).vpc
    wanted = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": "state", "Values": ["create-complete"]}]
    pages = account.pages("DescribeInstanceConnectEndpoints", 50, Filters=wanted)
    found = [endpoint for page in pages for endpoint in page.data.get("InstanceConnectEndpoints", [])]
    groups = sorted({str(group) for endpoint in found for group in endpoint.get("SecurityGroupIds", [])})
    if not groups:
        raise NotAsked(
            f"there is no Instance Connect endpoint in {vpc}" if not found else f"the Instance Connect endpoint in {vpc} has no group",
            why="a run without ingress goes in through one, and makes none itself",
            next="aws ec2 create-instance-connect-endpoint --subnet-id SUBNET, or launch.subnet in a network that has one",
        )
    return groups


def check_group(account: Account, spec: LaunchSpec) -> None:
    """Refuse a group of the user's that would not let us in, or lets everybody in."""
    if spec.group is None:
        return
    group = account.ask("DescribeSecurityGroups", GroupIds=[spec.group]).data["SecurityGroups"][0]
    allowed = endpoint_groups(account, spec) if spec.reach == "endpoint" else []
    if why := unfit(group, spec, allowed):
        raise NotAsked(
            f"the security group {spec.group} {why}",
            why="; ".join(_words(rule) for rule in group.get("IpPermissions", [])) or "it has no rule for traffic that comes in",
            next="correct the group, or leave launch.security_group out: one with a single rule is then made for the run",
        )


def unfit(group: Described, spec: LaunchSpec, endpoint_groups: Sequence[str] = ()) -> str:
    """Why SSH cannot be had through this group, or could be had by everybody; "" when neither is so. Pure."""
    opening = [rule for rule in group.get("IpPermissions", []) if _opens(rule)]
    networks = [network for rule in opening for network in _networks(rule)]
    if wide := [str(network) for network in networks if network.prefixlen < (8 if network.version == 4 else 16)]:
        return f"lets the whole internet at port {SSH} ({', '.join(wide)})"
    if spec.reach == "ssm":
        return ""
    if spec.reach == "endpoint":
        pairs = {str(pair.get("GroupId")) for rule in opening for pair in rule.get("UserIdGroupPairs", [])}
        return "" if pairs & set(endpoint_groups) else f"does not let the endpoint's group {', '.join(endpoint_groups)} at port {SSH}"
    if spec.ingress_cidr is not None:
        ours = ipaddress.IPv4Network(spec.ingress_cidr)
        if any(isinstance(network, ipaddress.IPv4Network) and ours.subnet_of(network) for network in networks):
            return ""
    if any(rule.get("PrefixListIds") for rule in opening):
        return ""
    return f"does not let {spec.ingress_cidr or 'this machine'} at port {SSH}"


def _opens(rule: Described) -> bool:
    if rule.get("IpProtocol") == "-1":
        return True
    return rule.get("IpProtocol") in ("tcp", "6") and rule.get("FromPort", 0) <= SSH <= rule.get("ToPort", 65535)


def _networks(rule: Described) -> Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    for peer in rule.get("IpRanges", []):
        yield ipaddress.IPv4Network(peer["CidrIp"], strict=False)
    for peer in rule.get("Ipv6Ranges", []):
        yield ipaddress.IPv6Network(peer["CidrIpv6"], strict=False)


def _words(rule: Described) -> str:
    peers = [str(network) for network in _networks(rule)]
    peers += [str(pair.get("GroupId")) for pair in rule.get("UserIdGroupPairs", [])]
    peers += [str(prefix.get("PrefixListId")) for prefix in rule.get("PrefixListIds", [])]
    ports = "everything" if rule.get("IpProtocol") == "-1" else f"{rule.get('IpProtocol')} {rule.get('FromPort')}-{rule.get('ToPort')}"
    return f"{ports} from {', '.join(peers) or 'nobody'}"


def _place(subnet: Described) -> Place:
    return Place(str(subnet["SubnetId"]), str(subnet.get("VpcId", "")), str(subnet.get("AvailabilityZone", "")))
