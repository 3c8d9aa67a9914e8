"""The creates of a lease on EC2, each sent once, in one region: a security group, and the machine, or the fleet that makes it.

Whatever must be looked up for a create (image, subnet, network) is looked up first; when that fails, nothing was asked
for, and that is what is said. Once something exists, no failure after it is called a refusal.

This file must not know which region is chosen, nor why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from provisioner.errors import NotCreated, ProviderError
from provisioner.model import LaunchSpec, Phase, Resource
from provisioner.providers import aws_fleet, aws_launch, aws_network, aws_read_back
from provisioner.providers.aws_client import Account, instant
from provisioner.providers.aws_errors import NotAsked
from provisioner.providers.aws_images import image_for
from provisioner.providers.aws_inventory import KINDS
from provisioner.providers.aws_kind import resource, tag
from provisioner.providers.aws_launch import LEASE, TOKEN, Image

READ_BACK = ("instanceInitiatedShutdownBehavior", "disableApiTermination", "userData")


@dataclass
class Known:
    """What one region has told us, and what was asked for there, for as long as this process lives."""

    images: dict[str, Image] = field(default_factory=dict)
    asked: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)  # instance id -> the parameters it was launched with


def machine(account: Account, spec: LaunchSpec, lease: str, token: str, made: Mapping[str, Resource], known: Known) -> Resource:
    """One RunInstances."""
    image, parameters = _looked_up(account, spec, lease, token, made, known)
    answer = account.create("RunInstances", **parameters)
    instances = answer.data.get("Instances", [])
    if len(instances) != 1:
        raise ProviderError(f"RunInstances answered with {len(instances)} instances; asked for 1", request_id=answer.request_id)
    one = resource(KINDS["instance"], instances[0], account.region, answer.stamp())
    known.asked[one.id] = parameters
    return replace(one, lease=lease, token=token, facts={**one.facts, **image.record(), "diskGib": aws_launch.disk_gib(spec, image)})


def template(account: Account, spec: LaunchSpec, lease: str, token: str, made: Mapping[str, Resource], known: Known) -> Resource:
    """The same machine as a launch template, for one fleet."""
    image, parameters = _looked_up(account, spec, lease, token, made, known)
    machine = aws_fleet.machine_of(parameters)
    answer = account.create("CreateLaunchTemplate", **aws_fleet.template_parameters(spec, lease, token, machine))
    id = str(answer.data["LaunchTemplate"]["LaunchTemplateId"])
    facts = {**answer.stamp(), **image.record(), "diskGib": aws_launch.disk_gib(spec, image)}
    return Resource(aws_fleet.TEMPLATE, id, Phase.HERE, "exists", token, False, account.region, lease, facts)


def fleet(account: Account, spec: LaunchSpec, lease: str, token: str, made: Mapping[str, Resource]) -> Resource:
    """One CreateFleet. It answers with an id and no machine."""
    if aws_fleet.TEMPLATE not in made:
        raise NotAsked("there is no launch template that a fleet could use")
    template, ends = made[aws_fleet.TEMPLATE], aws_fleet.ends_at(spec.deadline, account)
    answer = account.create("CreateFleet", **aws_fleet.fleet_parameters(spec, lease, token, template.id, ends))
    # For this type EC2 makes nothing in the call; an error that it answers with all the same is no refusal: the fleet is there.
    told = {name: value for name, value in template.facts.items() if name.startswith("image") or name == "diskGib"}
    facts = {**told, **answer.stamp(), "type": "request", "deadline": spec.deadline, "firesAt": instant(ends), "template": template.id}
    return Resource(aws_fleet.KIND, str(answer.data["FleetId"]), Phase.COMING, "asked for", token, True, account.region, lease, facts)


def _looked_up(
    account: Account, spec: LaunchSpec, lease: str, token: str, made: Mapping[str, Resource], known: Known
) -> tuple[Image, dict[str, Any]]:
    """What must be known before a machine can be asked for. When that fails, nothing was asked for."""
    group = spec.group or (made["security-group"].id if "security-group" in made else None)
    if group is None:
        raise NotAsked("no security group was made for this lease, and the profile names none")
    try:
        aws_network.check_group(account, spec)
        image = image_for(account, spec, known.images)
        return image, _parameters(account, spec, lease, token, group, known)
    except NotCreated:
        raise
    except ProviderError as e:
        raise _nothing_asked(e) from e


def group(account: Account, spec: LaunchSpec, lease: str, token: str) -> Resource:
    """A group of the lease's own, with its one rule; the one of that name where its tag says that it is this lease's."""
    name = f"gpulease-{lease}"
    try:
        rules = aws_network.rules(account, spec)
        place = {"VpcId": aws_network.place(account, spec).vpc} if spec.subnet else {}
    except NotCreated:
        raise
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
        if rules:
            account.change("AuthorizeSecurityGroupIngress", GroupId=made.id, IpPermissions=rules)
    except ProviderError as e:
        if e.provider_code != "InvalidPermission.Duplicate":
            raise
    return made


def read_back(account: Account, machine: Resource, spec: LaunchSpec, known: Known) -> list[str]:
    """What AWS describes of a machine that was launched, against what was asked for."""
    shown = _shown(account, machine.id, spec)
    if (asked := known.asked.get(machine.id)) is None:
        # Another process launched it: the same parameters are worked out again.
        lease = machine.lease or tag(shown.instance, LEASE)
        group = spec.group or (
            str(shown.group["GroupId"]) if shown.group and tag(shown.group, LEASE) == lease else "a group of the lease's own"
        )
        asked = _parameters(account, spec, lease, machine.token or str(shown.instance.get("ClientToken")), group, known)
    if spec.fleet:
        asked = aws_fleet.machine_of(asked)
    rules = None if spec.group else aws_network.rules(account, spec)
    wrong = aws_read_back.differences(asked, shown, zone=spec.offer.zone, rules=rules)
    return wrong + _theirs(account, spec, shown)


def _parameters(account: Account, spec: LaunchSpec, lease: str, token: str, group: str, known: Known) -> dict[str, Any]:
    image = image_for(account, spec, known.images)
    subnet = aws_network.place(account, spec).subnet
    return aws_launch.run_parameters(spec, lease, token, image, subnet=subnet, group=group)


def _shown(account: Account, id: str, spec: LaunchSpec) -> aws_read_back.Shown:
    found = account.ask("DescribeInstances", InstanceIds=[id])
    instances = KINDS["instance"].items(found.data)
    if len(instances) != 1:
        raise ProviderError(f"DescribeInstances shows {len(instances)} instances under {id}; expected 1")
    instance = instances[0]

    def attached(kind: str) -> list[Any]:
        here = {"Name": "attachment.instance-id", "Values": [id]}
        how = KINDS[kind]
        return [one for page in account.pages(how.list_call, 200, Filters=[here]) for one in how.items(page.data)]

    groups = [g["GroupId"] for i in instance.get("NetworkInterfaces", []) for g in i.get("Groups", [])]
    group = account.ask("DescribeSecurityGroups", GroupIds=[spec.group or groups[0]]).data["SecurityGroups"][0] if groups else None
    request = None
    if wanted := instance.get("SpotInstanceRequestId"):
        requests = account.ask("DescribeSpotInstanceRequests", SpotInstanceRequestIds=[wanted]).data
        request = next(iter(requests.get("SpotInstanceRequests", [])), None)
    attributes = {name: _attribute(account, id, name) for name in READ_BACK}
    return aws_read_back.Shown(instance, attached("volume"), attached("network-interface"), attributes, group, request)


def _theirs(account: Account, spec: LaunchSpec, shown: aws_read_back.Shown) -> list[str]:
    """A group of the user's may have been changed since it was looked at."""
    if spec.group is None or shown.group is None:
        return []
    allowed = aws_network.endpoint_groups(account, spec) if spec.reach == "endpoint" else []
    why = aws_network.unfit(shown.group, spec, allowed)
    return [f"the security group {spec.group} {why}"] if why else []


def _adopt(account: Account, name: str, lease: str, token: str, refused: ProviderError) -> Resource:
    """The group of that name, when its tag says that it is this lease's; else the refusal stands."""
    kind = KINDS["security-group"]
    answer = account.ask(kind.list_call, Filters=[{"Name": "group-name", "Values": [name]}])
    for described in kind.items(answer.data):
        one = resource(kind, described, account.region, answer.stamp())
        if one.lease == lease:
            return replace(one, token=token, facts={**one.facts, "adopted": True})
    raise refused


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
