"""EC2 on demand, in one region: the five verbs of a Provider.

Three ideas. *Born right*: one RunInstances holds everything that makes a machine end by itself, and its tags, so no
later call has to succeed (aws_launch). *Asked once*: a create is sent once and only a positive refusal is called
NotCreated (aws_errors); whatever must be looked up for it (image, subnet) is looked up first, and when that fails
nothing was asked for. *Unknown is not gone*: an empty answer is an error, and NotFound means gone only for what was
known long enough to be listable (see `observe`).

The rehearsal is this same file with an `endpoint`. It must not know leases beyond their id, nor wait for anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from provisioner.errors import NotCreated, NotPermitted, ProviderError, RefusedError
from provisioner.model import Inventory, Json, LaunchSpec, Looked, Offer, Phase, Requirements, Resource, Traits
from provisioner.providers import aws_launch, aws_offers
from provisioner.providers.aws_client import Account, Answer
from provisioner.providers.aws_errors import DENIED, NO_LOGIN, NotAsked, login_next, not_found
from provisioner.providers.aws_images import image_for
from provisioner.providers.aws_inventory import KINDS, MADE, OTHER, Kind, resource
from provisioner.providers.aws_launch import LEASE, MANAGED, TOKEN
from provisioner.providers.aws_login import Login

SETTLE_S, REHEARSED_SETTLE_S = 300.0, 10.0
"""How long after a lost answer a machine may still become listable. Seen on EC2: seconds; the margin is cheap."""


@dataclass(frozen=True)
class Identity:
    account: str
    arn: str


class AwsProvider:
    name = "aws"

    def __init__(self, region: str, profile: str | None = None, endpoint: str | None = None) -> None:
        self.account = Account(region, profile, endpoint)
        self.region = region
        self.traits = Traits(
            settle_s=REHEARSED_SETTLE_S if endpoint else SETTLE_S,
            second_look_s=1.0 if endpoint else 2.0,
            powers_itself_off=True,  # because every launch asks for terminate on shutdown
            simulated=endpoint is not None,
        )
        self._images: dict[str, aws_launch.Image] = {}

    @property
    def anchor(self) -> str:
        """Words that end the user agent of every request from now on."""
        return self.account.anchor

    @anchor.setter
    def anchor(self, words: str) -> None:
        self.account.anchor = words

    def settings(self) -> dict[str, Json]:
        return {"region": self.region, "profile": self.account.profile, "endpoint": self.account.endpoint}

    def offers(self, need: Requirements) -> Sequence[Offer]:
        """Cheapest first at the catalog's prices; with the zones that have the type, where EC2 can be asked."""
        rows = aws_offers.fitting(need, self.region)
        if not rows:
            return []
        try:
            zones = self._zones([row["type"] for row in rows])
        except ProviderError:
            # Only the zones stay unnamed; a launch still finds out for itself. Offers are shown without an account too.
            zones = None
        return aws_offers.offers(rows, self.region, zones)

    def steps(self, spec: LaunchSpec) -> tuple[str, ...]:
        aws_launch.check(spec, self.region)
        return ("instance",) if spec.group else ("security-group", "instance")

    def create(self, kind: str, spec: LaunchSpec, *, lease: str, token: str, made: Mapping[str, Resource]) -> Resource:
        aws_launch.check(spec, self.region)
        aws_launch.check_token(token)
        if kind == "security-group":
            return self._create_group(spec, lease, token)
        if kind == "instance":
            return self._create_instance(spec, lease, token, made)
        raise NotAsked(f"EC2 has no step called {kind!r}")

    def inventory(self, lease: str | None = None) -> Inventory:
        where = {"Name": f"tag:{LEASE}", "Values": [lease]} if lease is not None else {"Name": f"tag:{MANAGED}", "Values": ["true"]}
        found: dict[tuple[str, str], Resource] = {}
        looked: list[Looked] = []
        requests: list[str] = []
        date: str | None = None
        for kind in (*MADE, *OTHER):
            try:
                for answer in self.account.pages(kind.list_call, kind.page_size, Filters=[where], **(kind.more or {})):
                    requests.append(answer.request_id)
                    date = answer.date or date
                    for described in kind.items(answer.data):
                        one = resource(kind, described, self.region, answer.stamp())
                        found[one.kind, one.id] = one
            except ProviderError as e:
                # What we make must be listable; what we never make may stay unchecked, and says so.
                if kind in MADE or not self._cannot_list(e):
                    raise
                looked.append(Looked(kind.name, self.region, checked=False, reason=e.what))
            else:
                looked.append(Looked(kind.name, self.region))
        return Inventory(tuple(found.values()), tuple(looked), tuple(requests), date)

    def observe(self, resource: Resource) -> Resource:
        """Ask by id.

        EC2 answers NotFound for seconds after a launch too. So NotFound is gone for what was seen leaving, or is not a
        machine just asked for; for a machine younger than the settle time it raises: nothing follows yet.
        """
        kind = self._kind(resource)
        try:
            by_id: dict[str, Any] = {kind.ids: [resource.id]}
            answer = self.account.ask(kind.list_call, **by_id)
        except ProviderError as e:
            if not not_found(e):
                raise
            return self._not_found(resource, e)
        seen = self._only(kind, answer, resource.id)
        return replace(seen, token=seen.token or resource.token)

    def remove(self, resource: Resource) -> Mapping[str, Json]:
        kind = self._kind(resource)
        if not resource.lease:
            # A record without a lease says nothing about whose it is; only its tag does.
            resource = self.observe(resource)
            if resource.phase is Phase.GONE:
                return {**self._stamp(), "state": resource.state}
            if not resource.lease:
                raise NotPermitted(f"{resource.kind} {resource.id} has no {LEASE} tag, so it is not ours to remove")
        try:
            answer = self.account.change(kind.remove_call, **{kind.remove_id: [resource.id] if kind.by_list else resource.id})
        except ProviderError as e:
            if not_found(e):
                return {**self._stamp(), "state": "not-found"}
            raise
        return {**answer.stamp(), **_removal(answer.data)}

    def verify_launch(self, machine: Resource, spec: LaunchSpec) -> list[str]:
        """Read back what was asked for; the differences as sentences, none when all agree. Ask once it runs."""
        found = self.account.ask("DescribeInstances", InstanceIds=[machine.id])
        instances = KINDS["instance"].items(found.data)
        if len(instances) != 1:
            raise ProviderError(f"DescribeInstances shows {len(instances)} instances under {machine.id}; expected 1")
        instance = instances[0]
        attached = {"Name": "attachment.instance-id", "Values": [machine.id]}
        volumes = [v for page in self.account.pages("DescribeVolumes", 200, Filters=[attached]) for v in page.data.get("Volumes", [])]
        groups = [g["GroupId"] for i in instance.get("NetworkInterfaces", []) for g in i.get("Groups", [])]
        group = None
        if groups:
            group = self.account.ask("DescribeSecurityGroups", GroupIds=[spec.group or groups[0]]).data["SecurityGroups"][0]
        attributes = {name: self._attribute(machine.id, name) for name in ("instanceInitiatedShutdownBehavior", "disableApiTermination")}
        lease = machine.lease or str(next((t["Value"] for t in instance.get("Tags", []) if t["Key"] == LEASE), ""))
        return aws_launch.differences(spec, lease, instance, volumes, group, attributes)

    def identity(self) -> Identity:
        """Who we are to AWS, or a refusal that says how to log in."""
        try:
            answer = self.account.ask("GetCallerIdentity", service="sts")
        except ProviderError as e:
            if e.provider_code in NO_LOGIN or e.next:
                raise RefusedError(
                    f"AWS does not accept these credentials: {e.what}", why=e.why, next=e.next or login_next(self.account.profile)
                ) from e
            raise
        return Identity(str(answer.data["Account"]), str(answer.data["Arn"]))

    def login(self) -> Login:
        """Which credentials these are, and until when they are sure to be accepted."""
        try:
            return self.account.login()
        except ProviderError as e:
            raise RefusedError(f"there is no AWS login: {e.what}", why=e.why, next=e.next) from e

    def regions(self) -> tuple[str, ...]:
        """Every region enabled for the account: where a `reap` has to look."""
        answer = self.account.ask("DescribeRegions")
        return tuple(sorted(str(region["RegionName"]) for region in answer.data.get("Regions", [])))

    def _create_instance(self, spec: LaunchSpec, lease: str, token: str, made: Mapping[str, Resource]) -> Resource:
        group = spec.group or (made["security-group"].id if "security-group" in made else None)
        if group is None:
            raise NotAsked("no security group was made for this lease, and the profile names none")
        try:
            image = image_for(self.account, spec, self._images)
            subnet = spec.subnet or self._subnet(spec.offer.zone)
        except NotCreated:
            raise
        except ProviderError as e:
            raise _nothing_asked(e) from e
        parameters = aws_launch.run_parameters(spec, lease, token, image, subnet=subnet, group=group)
        answer = self.account.create("RunInstances", **parameters)
        instances = answer.data.get("Instances", [])
        if len(instances) != 1:
            raise ProviderError(f"RunInstances answered with {len(instances)} instances; asked for 1", request_id=answer.request_id)
        one = resource(KINDS["instance"], instances[0], self.region, answer.stamp())
        return replace(one, lease=lease, token=token, facts={**one.facts, "diskGib": aws_launch.disk_gib(spec, image)})

    def _create_group(self, spec: LaunchSpec, lease: str, token: str) -> Resource:
        name, rule = f"gpulease-{lease}", aws_launch.ingress(spec.ingress_cidr)
        try:
            place = {"VpcId": self._vpc_of(spec.subnet)} if spec.subnet else {}
        except ProviderError as e:
            raise _nothing_asked(e) from e
        tags = aws_launch.tags(lease, spec.deadline, **{TOKEN: token})
        try:
            answer = self.account.create(
                "CreateSecurityGroup",
                GroupName=name,
                Description=f"gpulease {lease}",
                TagSpecifications=[{"ResourceType": "security-group", "Tags": tags}],
                **place,
            )
            made = Resource(
                "security-group", str(answer.data["GroupId"]), Phase.HERE, "exists", token, False, self.region, lease, answer.stamp()
            )
        except ProviderError as e:
            if e.provider_code != "InvalidGroup.Duplicate":
                raise
            made = self._adopt(name, lease, token, e)
        # From here on the group exists: whatever fails now is not a refusal to create.
        try:
            self.account.change("AuthorizeSecurityGroupIngress", GroupId=made.id, IpPermissions=[rule])
        except ProviderError as e:
            if e.provider_code != "InvalidPermission.Duplicate":
                raise
        return made

    def _adopt(self, name: str, lease: str, token: str, refused: ProviderError) -> Resource:
        """The group of that name, when its tag says that it is this lease's; else the refusal stands."""
        kind = KINDS["security-group"]
        answer = self.account.ask(kind.list_call, Filters=[{"Name": "group-name", "Values": [name]}])
        for described in kind.items(answer.data):
            one = resource(kind, described, self.region, answer.stamp())
            if one.lease == lease:
                return replace(one, token=token, facts={**one.facts, "adopted": True})
        raise refused

    def _not_found(self, resource: Resource, e: ProviderError) -> Resource:
        stamp = self._stamp()
        if resource.kind == "instance" and resource.phase not in (Phase.LEAVING, Phase.GONE):
            born = resource.facts.get("launchTime") or resource.facts.get("providerDate")
            age = _seconds_between(born, stamp.get("providerDate"))
            if (resource.phase is Phase.COMING and age is None) or (age is not None and age < self.traits.settle_s):
                raise ProviderError(
                    f"{resource.id} is not found, {'at an unknown age' if age is None else f'{age} s after its launch'}",
                    why=f"EC2 may not show a new machine for a while; after {int(self.traits.settle_s)} s it counts as gone",
                    provider_code=e.provider_code,
                    request_id=e.request_id,
                )
        return replace(resource, phase=Phase.GONE, state="not-found", facts={**resource.facts, **stamp})

    def _only(self, kind: Kind, answer: Answer, id: str) -> Resource:
        shown = [one for one in kind.items(answer.data) if one.get(kind.id_key) == id]
        if len(shown) != 1:
            # An empty list is not an answer: asked by id, EC2 says NotFound or describes it.
            raise ProviderError(f"{kind.list_call} showed {len(shown)} of {id}; expected 1", request_id=answer.request_id)
        return resource(kind, shown[0], self.region, answer.stamp())

    def _cannot_list(self, e: ProviderError) -> bool:
        unknown = e.provider_code in ("InvalidAction", "UnsupportedOperation", "NotImplemented")
        # The embedded endpoint answers what it does not know with a page that is not XML.
        return unknown or e.provider_code in DENIED or (self.traits.simulated and e.provider_code in ("ResponseParserError", "501", "500"))

    def _kind(self, resource: Resource) -> Kind:
        if resource.kind not in KINDS:
            raise ProviderError(f"EC2 has no kind {resource.kind!r} that gpulease knows")
        return KINDS[resource.kind]

    def _zones(self, types: Sequence[str]) -> dict[str, list[str]]:
        zones: dict[str, list[str]] = {}
        wanted = {"Name": "instance-type", "Values": list(types)}
        for answer in self.account.pages("DescribeInstanceTypeOfferings", None, LocationType="availability-zone", Filters=[wanted]):
            for offering in answer.data.get("InstanceTypeOfferings", []):
                zones.setdefault(offering["InstanceType"], []).append(offering["Location"])
        return zones

    def _subnet(self, zone: str | None) -> str:
        """The default subnet of the zone: an interface with a public address has to name one."""
        wanted = [{"Name": "default-for-az", "Values": ["true"]}]
        if zone is not None:
            wanted.append({"Name": "availability-zone", "Values": [zone]})
        subnets = [s for page in self.account.pages("DescribeSubnets", 200, Filters=wanted) for s in page.data.get("Subnets", [])]
        if not subnets:
            raise NotAsked(
                f"there is no default subnet in {zone or self.region}",
                next="name one in the profile, or make one: aws ec2 create-default-subnet --availability-zone ZONE",
            )
        return str(min(subnets, key=lambda subnet: str(subnet["AvailabilityZone"]))["SubnetId"])

    def _vpc_of(self, subnet: str) -> str:
        answer = self.account.ask("DescribeSubnets", SubnetIds=[subnet])
        return str(answer.data["Subnets"][0]["VpcId"])

    def _attribute(self, id: str, name: str) -> Any:
        answer = self.account.ask("DescribeInstanceAttribute", InstanceId=id, Attribute=name)
        return answer.data.get(name[0].upper() + name[1:], {}).get("Value")

    def _stamp(self) -> dict[str, Json]:
        return {} if self.account.last is None else self.account.last.stamp()


def _nothing_asked(e: ProviderError) -> NotCreated:
    """A look-up before a create failed, so the create was never sent."""
    return NotCreated(
        e.what,
        why="the look-up before the launch failed; nothing was asked for",
        next=e.next,
        provider_code=e.provider_code,
        request_id=e.request_id,
    )


def _removal(data: Mapping[str, Any]) -> dict[str, Json]:
    """The states that TerminateInstances answers with; other removals answer with nothing."""
    ending = next(iter(data.get("TerminatingInstances", [])), None)
    if ending is None:
        return {}
    return {"state": str(ending.get("CurrentState", {}).get("Name")), "previousState": str(ending.get("PreviousState", {}).get("Name"))}


def _seconds_between(earlier: object, later: object) -> int | None:
    if not isinstance(earlier, str) or not isinstance(later, str):
        return None
    return int((datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds())
