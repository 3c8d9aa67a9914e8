"""What one machine is asked to be. Pure: a specification in, the parameters of calls out.

Everything that keeps a machine from outliving its lease is in the launch call itself, because a second call may
never be sent: terminate on shutdown, a disk and an interface that die with the machine, tags at birth on all three.
There is no key pair (the key is in user-data), no instance profile (nothing on the machine can call AWS), IMDSv2
with one hop, and an encrypted disk.

A spot machine is asked for once, with a ceiling, and an interruption ends it. What was asked for is compared with what
AWS describes in aws_read_back: it is not the same as made.
Limits and names: RunInstances in the EC2 API reference. This file must not call anything.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from provisioner.model import Json, LaunchSpec
from provisioner.providers.aws_errors import NotAsked

LEASE, DEADLINE, MANAGED, TOKEN = "gpulease:lease", "gpulease:deadline", "gpulease:managed", "gpulease:token"
USER_DATA_LIMIT = 16 * 1024
TOKEN_LIMIT = 64
REACHES = ("address", "endpoint", "ssm")


@dataclass(frozen=True)
class Image:
    id: str
    root_device: str
    root_gib: int
    name: str = ""
    architecture: str = ""
    created: str = ""  # as AWS writes it
    owner: str = ""

    def record(self) -> dict[str, Json]:
        """What the journal keeps of it, beside its id."""
        return {"imageName": self.name, "imageCreated": self.created, "imageOwner": self.owner}


def check(spec: LaunchSpec, regions: Sequence[str]) -> None:
    """Refuse, before anything is asked for, what must never be asked for."""
    if spec.offer.region not in regions:
        raise NotAsked(f"the offer is for {spec.offer.region}, and this is {', '.join(regions)}")
    if spec.offer.spot and spec.offer.price.micro_usd_per_hour < 1:
        raise NotAsked(f"a spot request at {spec.offer.price.micro_usd_per_hour} micro-dollars an hour", next="a ceiling is above zero")
    if spec.reach not in REACHES:
        raise NotAsked(f"SSH cannot reach a machine by {spec.reach!r}", next=f"one of {', '.join(REACHES)}")
    if len(spec.user_data) > USER_DATA_LIMIT:
        raise NotAsked(f"the user-data is {len(spec.user_data)} bytes; EC2 takes {USER_DATA_LIMIT}")
    if not 1 <= spec.disk_gib <= 16_384:
        raise NotAsked(f"a disk of {spec.disk_gib} GiB; gp3 takes 1 to 16384")
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", spec.deadline):
        raise NotAsked(f"the deadline {spec.deadline!r} is not an RFC 3339 time with a Z")
    if spec.reach == "address" and (spec.group is None or spec.ingress_cidr is not None):
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
    born = ["instance", "volume", "network-interface"] + (["spot-instances-request"] if spec.offer.spot else [])
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
                "AssociatePublicIpAddress": spec.reach == "address",
                "DeleteOnTermination": True,
                "Groups": [group],
            }
        ],
        "TagSpecifications": [{"ResourceType": kind, "Tags": owned} for kind in born],
    }
    if spec.offer.spot:
        parameters["InstanceMarketOptions"] = {
            "MarketType": "spot",
            "SpotOptions": {
                "SpotInstanceType": "one-time",  # a persistent request launches again after every end
                "InstanceInterruptionBehavior": "terminate",
                "MaxPrice": dollars(spec.offer.price.micro_usd_per_hour),
            },
        }
    if spec.user_data:
        parameters["UserData"] = spec.user_data
    if spec.offer.type.startswith("t3"):
        # The default, "unlimited", bills surplus CPU on top of the price that was quoted.
        parameters["CreditSpecification"] = {"CpuCredits": "standard"}
    return parameters


def dollars(micro: int) -> str:
    """Micro-dollars as the exact decimal text that a spot request takes."""
    return f"{micro // 1_000_000}.{micro % 1_000_000:06d}"


def disk_gib(spec: LaunchSpec, image: Image) -> int:
    """The root disk that was quoted. EC2 refuses one smaller than the image's snapshot, and a larger one was not priced."""
    if spec.disk_gib < image.root_gib:
        raise NotAsked(
            f"image {image.id} alone takes {image.root_gib} GiB, and a disk of {spec.disk_gib} GiB was quoted",
            why="the image could not be looked up when the price was quoted",
            next="gpulease plan PROFILE shows whether it can be now",
        )
    return spec.disk_gib
