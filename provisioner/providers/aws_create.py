"""The creates of a lease on EC2, each sent once, in one region: a security group, and the machine.

Whatever must be looked up for a create (image, subnet, network) is looked up first; when that fails, nothing was asked
for, and that is what is said. Once something exists, no failure after it is called a refusal.

This file must not know which region is chosen, nor why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from provisioner.errors import NotCreated, ProviderError
from provisioner.model import LaunchSpec, Phase, Resource
from provisioner.providers import aws_launch
from provisioner.providers.aws_client import Account
from provisioner.providers.aws_errors import NotAsked, NotHere
from provisioner.providers.aws_images import image_for
from provisioner.providers.aws_inventory import KINDS, resource
from provisioner.providers.aws_launch import LEASE, TOKEN, Image


def machine(account: Account, spec: LaunchSpec, lease: str, token: str, made: Mapping[str, Resource], images: dict[str, Image]) -> Resource:
    """One RunInstances. `images` keeps what was resolved in this region."""
    group = spec.group or (made["security-group"].id if "security-group" in made else None)
    if group is None:
        raise NotAsked("no security group was made for this lease, and the profile names none")
    try:
        image = image_for(account, spec, images)
        subnet = spec.subnet or _subnet(account, spec.offer.zone)
    except NotCreated:
        raise
    except ProviderError as e:
        raise _nothing_asked(e) from e
    parameters = aws_launch.run_parameters(spec, lease, token, image, subnet=subnet, group=group)
    answer = account.create("RunInstances", **parameters)
    instances = answer.data.get("Instances", [])
    if len(instances) != 1:
        raise ProviderError(f"RunInstances answered with {len(instances)} instances; asked for 1", request_id=answer.request_id)
    one = resource(KINDS["instance"], instances[0], account.region, answer.stamp())
    return replace(one, lease=lease, token=token, facts={**one.facts, "diskGib": aws_launch.disk_gib(spec, image)})


def group(account: Account, spec: LaunchSpec, lease: str, token: str) -> Resource:
    """A group of the lease's own, with its one rule; the one of that name where its tag says that it is this lease's."""
    name, rule = f"gpulease-{lease}", aws_launch.ingress(spec.ingress_cidr)
    try:
        place = {"VpcId": _vpc_of(account, spec.subnet)} if spec.subnet else {}
    except ProviderError as e:
        raise _nothing_asked(e) from e
    tags = aws_launch.tags(lease, spec.deadline, **{TOKEN: token})
    try:
        answer = account.create(
            "CreateSecurityGroup",
            GroupName=name,
            Description=f"gpulease {lease}",
            TagSpecifications=[{"ResourceType": "security-group", "Tags": tags}],
            **place,
        )
        id = str(answer.data["GroupId"])
        made = Resource("security-group", id, Phase.HERE, "exists", token, False, account.region, lease, answer.stamp())
    except ProviderError as e:
        if e.provider_code != "InvalidGroup.Duplicate":
            raise
        made = _adopt(account, name, lease, token, e)
    # From here on the group exists: whatever fails now is not a refusal to create.
    try:
        account.change("AuthorizeSecurityGroupIngress", GroupId=made.id, IpPermissions=[rule])
    except ProviderError as e:
        if e.provider_code != "InvalidPermission.Duplicate":
            raise
    return made


def read_back(account: Account, machine: Resource, spec: LaunchSpec) -> list[str]:
    """What AWS describes of a machine that was launched, against what was asked for."""
    found = account.ask("DescribeInstances", InstanceIds=[machine.id])
    instances = KINDS["instance"].items(found.data)
    if len(instances) != 1:
        raise ProviderError(f"DescribeInstances shows {len(instances)} instances under {machine.id}; expected 1")
    instance = instances[0]
    attached = {"Name": "attachment.instance-id", "Values": [machine.id]}
    volumes = [v for page in account.pages("DescribeVolumes", 200, Filters=[attached]) for v in page.data.get("Volumes", [])]
    groups = [g["GroupId"] for i in instance.get("NetworkInterfaces", []) for g in i.get("Groups", [])]
    group = None
    if groups:
        group = account.ask("DescribeSecurityGroups", GroupIds=[spec.group or groups[0]]).data["SecurityGroups"][0]
    attributes = {name: _attribute(account, machine.id, name) for name in ("instanceInitiatedShutdownBehavior", "disableApiTermination")}
    lease = machine.lease or str(next((t["Value"] for t in instance.get("Tags", []) if t["Key"] == LEASE), ""))
    return aws_launch.differences(spec, lease, instance, volumes, group, attributes)


def _adopt(account: Account, name: str, lease: str, token: str, refused: ProviderError) -> Resource:
    """The group of that name, when its tag says that it is this lease's; else the refusal stands."""
    kind = KINDS["security-group"]
    answer = account.ask(kind.list_call, Filters=[{"Name": "group-name", "Values": [name]}])
    for described in kind.items(answer.data):
        one = resource(kind, described, account.region, answer.stamp())
        if one.lease == lease:
            return replace(one, token=token, facts={**one.facts, "adopted": True})
    raise refused


def _subnet(account: Account, zone: str | None) -> str:
    """The default subnet of the zone: an interface with a public address has to name one."""
    wanted = [{"Name": "default-for-az", "Values": ["true"]}]
    if zone is not None:
        wanted.append({"Name": "availability-zone", "Values": [zone]})
    subnets = [s for page in account.pages("DescribeSubnets", 200, Filters=wanted) for s in page.data.get("Subnets", [])]
    if not subnets:
        raise NotHere(
            f"there is no default subnet in {zone or account.region}",
            next="name one in the profile, or make one: aws ec2 create-default-subnet --availability-zone ZONE",
        )
    return str(min(subnets, key=lambda subnet: str(subnet["AvailabilityZone"]))["SubnetId"])


def _vpc_of(account: Account, subnet: str) -> str:
    answer = account.ask("DescribeSubnets", SubnetIds=[subnet])
    return str(answer.data["Subnets"][0]["VpcId"])


def _attribute(account: Account, id: str, name: str) -> Any:
    answer = account.ask("DescribeInstanceAttribute", InstanceId=id, Attribute=name)
    return answer.data.get(name[0].upper() + name[1:], {}).get("Value")


def _nothing_asked(e: ProviderError) -> NotCreated:
    """A look-up before a create failed, so the create was never sent."""
    return NotCreated(
        e.what,
        why="the look-up before the launch failed; nothing was asked for",
        next=e.next,
        provider_code=e.provider_code,
        request_id=e.request_id,
    )
