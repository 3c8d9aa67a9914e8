"""EC2, in one region or several: the five verbs of a Provider.

Three ideas. *Born right*: one RunInstances holds everything that makes a machine end by itself, and its tags, so no
later call has to succeed (aws_launch). *Asked once*: a create is sent once and only a positive refusal is called
NotCreated (aws_errors, aws_create). *Unknown is not gone*: an empty answer is an error, a region that does not answer
is a look that failed (aws_look), and NotFound means gone only for what was known long enough to be listable (`observe`).

An offer says its region and so does everything that was made; each has its own `Account`. The rehearsal is this same
file with an `endpoint`. It must not know leases beyond their id, nor wait for anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from provisioner.errors import NotPermitted, ProviderError, RefusedError
from provisioner.model import Inventory, Json, LaunchSpec, Listed, Offer, Phase, Requirements, Resource, Traits
from provisioner.providers import aws_create, aws_fleet, aws_launch, aws_look, aws_market, aws_offers, aws_schedule, aws_unfiltered
from provisioner.providers.aws_client import Account, Answer
from provisioner.providers.aws_errors import NO_LOGIN, NotAsked, login_next, not_found
from provisioner.providers.aws_images import image_named
from provisioner.providers.aws_inventory import KINDS
from provisioner.providers.aws_kind import Kind, resource
from provisioner.providers.aws_launch import LEASE
from provisioner.providers.aws_login import Login
from provisioner.providers.aws_offers import Survey

WHERE_LOGINS_ARE = "looked in the environment, ~/.aws, and the metadata of a container or an instance"
SETTLE_S, REHEARSED_SETTLE_S = 300.0, 5.0
"""How long after a lost answer a machine may still become listable. Seen on EC2: seconds; the margin is cheap."""


@dataclass(frozen=True)
class Identity:
    account: str
    arn: str


class AwsProvider:
    name = "aws"

    def __init__(self, region: str, profile: str | None = None, endpoint: str | None = None, regions: Sequence[str] = ()) -> None:
        self.region = region
        self.regions = tuple(dict.fromkeys((region, *regions)))
        self._accounts = {one: Account(one, profile, endpoint) for one in self.regions}
        self.account = self._accounts[region]
        self.traits = Traits(
            settle_s=REHEARSED_SETTLE_S if endpoint else SETTLE_S,
            second_look_s=1.0 if endpoint else 2.0,
            powers_itself_off=True,  # because every launch asks for terminate on shutdown
            simulated=endpoint is not None,
            schedules=True,
            fleets=True,
        )
        self._seen_whole: set[str | None] = set()  # leases of which every kind was listed once
        self._known = {one: aws_create.Known() for one in self.regions}
        self.account_id = ""  # as far as anything said it
        self._role = ""
        self.unasked: tuple[str, ...] = ()  # why the last offers are the package's own knowledge; empty where AWS was asked
        self.doubt = ""  # of the guard at AWS, after `check_schedule`: a word for whoever relies on it

    @property
    def anchor(self) -> str:
        """Words that end the user agent of every request from now on."""
        return self.account.anchor

    @anchor.setter
    def anchor(self, words: str) -> None:
        for account in self._accounts.values():
            account.anchor = words

    def settings(self) -> dict[str, Json]:
        account = self.account
        return {"region": self.region, "regions": list(self.regions), "profile": account.profile, "endpoint": account.endpoint}

    def account_of(self, region: str) -> Account:
        """The account in that region; in the first one for a record that does not say where."""
        if region and region not in self._accounts:
            raise ProviderError(
                f"{region} is not among the regions of this lease: {', '.join(self.regions)}",
                why="only those were asked about",
                next=f"gpulease reap --region {region}",
            )
        return self._accounts[region or self.region]

    def offers(self, need: Requirements) -> Sequence[Offer]:
        """Everything that could be rented, in the order of `aws_offers`. RefusedError: a machine would do, and cannot be had."""
        found = self.survey(need)
        if not found.lines and (fits := [out for out in found.out if out.fits]):
            reasons = list(dict.fromkeys(f"{out.type} in {out.zone or out.region}: {out.why}" for out in fits))
            raise RefusedError(
                reasons[0] if len(reasons) == 1 else f"{len(reasons)} offers would do, and none can be had: {reasons[0]}",
                why="; ".join((*reasons[1:4], *found.notes)) or "asked EC2 and its price list",
                next=next((out.next for out in fits if out.next), "") or "gpulease offers PROFILE   says what else there is, and why not",
            )
        return [line.offer for line in found.lines]

    def survey(self, need: Requirements) -> Survey:
        """What fits the need in our regions, and why the rest does not. Sends only questions."""
        accounts = [self._accounts[region] for region in self.regions if not need.regions or region in need.regions]
        found = aws_offers.survey(aws_market.look(accounts, self._pricing, need) if accounts else [], need)
        self.unasked = found.unasked
        return found

    def steps(self, spec: LaunchSpec) -> tuple[str, ...]:
        aws_launch.check(spec, self.regions)
        machine = (aws_fleet.TEMPLATE, aws_fleet.KIND) if spec.fleet else ("instance",)
        return machine if spec.group else ("security-group", *machine)

    def create(self, kind: str, spec: LaunchSpec, *, lease: str, token: str, made: Mapping[str, Resource]) -> Resource:
        aws_launch.check(spec, self.regions)
        aws_launch.check_token(token)
        account = self.account_of(spec.offer.region)
        if kind == "security-group":
            return aws_create.group(account, spec, lease, token)
        if kind == "instance":
            return aws_create.machine(account, spec, lease, token, made, self._known[account.region])
        if kind == aws_fleet.TEMPLATE:
            return aws_create.template(account, spec, lease, token, made, self._known[account.region])
        if kind == aws_fleet.KIND:
            return aws_create.fleet(account, spec, lease, token, made)
        if kind == aws_schedule.KIND:
            return aws_schedule.create(account, spec, lease, token, made, self._role)
        raise NotAsked(f"EC2 has no step called {kind!r}")

    def inventory(self, lease: str | None = None) -> Inventory:
        found = aws_look.look([self._accounts[region] for region in self.regions], lease, whole=lease not in self._seen_whole)
        if lease is not None:
            self._seen_whole.add(lease)
        return found

    def everything(self, *, within: float, sleep: Callable[[float], None]) -> Sequence[Listed]:
        return aws_unfiltered.listed([self._accounts[region] for region in self.regions], within=within, sleep=sleep)

    def observe(self, resource: Resource) -> Resource:
        """Ask by id.

        EC2 answers NotFound for seconds after a launch too. So NotFound is gone for what was seen leaving, or is not a
        machine just asked for; for a machine younger than the settle time it raises: nothing follows yet.
        """
        if resource.kind == aws_schedule.KIND:
            return aws_schedule.observe(self.account_of(resource.region), resource)
        kind, account = self._kind(resource), self.account_of(resource.region)
        try:
            by_id: dict[str, Any] = {kind.ids: [resource.id]}
            answer = account.ask(kind.list_call, **by_id)
        except ProviderError as e:
            if not not_found(e):
                raise
            return self._not_found(resource, _stamp(account), e)
        seen = _only(kind, answer, resource.id, account.region)
        return replace(seen, token=seen.token or resource.token)

    def remove(self, resource: Resource) -> Mapping[str, Json]:
        if resource.kind == aws_schedule.KIND:
            return aws_schedule.remove(self.account_of(resource.region), resource)
        kind, account = self._kind(resource), self.account_of(resource.region)
        if not resource.lease:
            # A record without a lease says nothing about whose it is; only its tag does.
            resource = self.observe(resource)
            if resource.phase is Phase.GONE:
                return {**_stamp(account), "state": resource.state}
            if not resource.lease:
                raise NotPermitted(f"{resource.kind} {resource.id} has no {LEASE} tag, so it is not ours to remove")
        try:
            one: dict[str, Any] = {kind.remove_id: [resource.id] if kind.by_list else resource.id}
            answer = account.change(kind.remove_call, **one, **(kind.removal or {}))
        except ProviderError as e:
            if not_found(e):
                return {**_stamp(account), "state": "not-found"}
            raise
        if kind.ends is not None and (failed := kind.ends(answer.data)):
            # These answer 200 and say in the body that they did not.
            error = failed[0].get("Error") or failed[0].get("CancelCapacityReservationFleetError") or {}
            if error.get("Code") == "fleetIdDoesNotExist":
                return {**answer.stamp(), "state": "not-found"}
            raise ProviderError(
                f"{kind.remove_call}: {error.get('Code', 'failed')}: {error.get('Message', 'no reason given')}",
                provider_code=str(error.get("Code", "")),
                request_id=answer.request_id,
            )
        return {**answer.stamp(), **_removal(answer.data)}

    def verify_launch(self, machine: Resource, spec: LaunchSpec) -> list[str]:
        """Read back what was asked for; the differences as sentences, none when all agree. Ask once it runs."""
        account = self.account_of(machine.region)
        return aws_create.read_back(account, machine, spec, self._known[account.region])

    def image_gib(self, image: str | None, region: str) -> int:
        """How large the image is that a launch there would boot: what a quote has to count beside what is needed."""
        account = self.account_of(region)
        return image_named(account, image, "x86_64", self._known[account.region].images).root_gib

    def check_schedule(self, regions: Sequence[str]) -> None:
        """The role, what it may do, and each region's group: a refusal that names the command which makes what is missing."""
        self._role, self.doubt = aws_schedule.look_at_role(self.account, regions)
        self.account_id = self._role.split(":")[4]
        for region in regions:
            aws_schedule.check_group(self.account_of(region))

    def verify_schedule(self, schedule: Resource) -> list[str]:
        account = self.account_of(schedule.region)
        return aws_schedule.verify(account, schedule, self._role or aws_schedule.role_of(account))

    def check_fleet(self) -> None:
        aws_fleet.check_role(self.account)

    def made_by(self, fleet: Resource) -> Resource | None:
        return aws_fleet.made_by(self.account_of(fleet.region), fleet)

    def verify_fleet(self, fleet: Resource) -> list[str]:
        return aws_fleet.verify(self.account_of(fleet.region), fleet)

    def identity(self) -> Identity:
        """Who we are to AWS, or a refusal that says how to log in."""
        try:
            answer = self.account.ask("GetCallerIdentity", service="sts")
        except ProviderError as e:
            if e.provider_code in NO_LOGIN or e.next:
                none = e.provider_code == "NoCredentialsError"
                said = "there are no AWS credentials here" if none else f"AWS does not accept these credentials: {e.what}"
                raise RefusedError(
                    said, why=f"{WHERE_LOGINS_ARE}; {e.why}" if none else e.why, next=e.next or login_next(self.account.profile)
                ) from e
            raise
        self.account_id = str(answer.data["Account"])
        return Identity(self.account_id, str(answer.data["Arn"]))

    def witness(self) -> Mapping[str, Json]:
        """GetCallerIdentity once more, for the sake of its user agent: CloudTrail keeps it, and nobody can edit that."""
        return self.account.change("GetCallerIdentity", service="sts").stamp()

    def login(self) -> Login:
        """Which credentials these are, and until when they are sure to be accepted."""
        try:
            return self.account.login()
        except ProviderError as e:
            raise RefusedError(f"there is no AWS login: {e.what}", why=e.why, next=e.next) from e

    def enabled_regions(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The regions in which this account can have anything, where a `reap` has to look, and those that it never opted in to."""
        answer = self.account.ask("DescribeRegions", AllRegions=True)
        every = {str(region["RegionName"]): str(region.get("OptInStatus", "")) for region in answer.data.get("Regions", [])}
        if not every:
            raise ProviderError("DescribeRegions showed no region", request_id=answer.request_id, next="gpulease reap --region REGION")
        off = tuple(sorted(name for name, status in every.items() if status == "not-opted-in"))
        return tuple(sorted(set(every) - set(off))), off

    def _pricing(self, region: str) -> Account:
        """Where the price list is served, which is no region of ours."""
        account = Account(region, self.account.profile, self.account.endpoint)
        account.anchor = self.anchor
        return account

    def _not_found(self, resource: Resource, stamp: Mapping[str, Json], e: ProviderError) -> Resource:
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

    def _kind(self, resource: Resource) -> Kind:
        if resource.kind not in KINDS:
            raise ProviderError(f"EC2 has no kind {resource.kind!r} that gpulease knows")
        return KINDS[resource.kind]


def _only(kind: Kind, answer: Answer, id: str, region: str) -> Resource:
    shown = [one for one in kind.items(answer.data) if one.get(kind.id_key) == id]
    if len(shown) != 1:
        # An empty list is not an answer: asked by id, EC2 says NotFound or describes it.
        raise ProviderError(f"{kind.list_call} showed {len(shown)} of {id}; expected 1", request_id=answer.request_id)
    return resource(kind, shown[0], region, answer.stamp())


def _stamp(account: Account) -> dict[str, Json]:
    return {} if account.last is None else account.last.stamp()


def _removal(data: Mapping[str, Any]) -> dict[str, Json]:
    """The states that TerminateInstances and DeleteFleets answer with; other removals answer with nothing."""
    if fleet := next(iter(data.get("SuccessfulFleetDeletions", [])), None):
        return {"state": str(fleet.get("CurrentFleetState")), "previousState": str(fleet.get("PreviousFleetState"))}
    ending = next(iter(data.get("TerminatingInstances", [])), None)
    if ending is None:
        return {}
    return {"state": str(ending.get("CurrentState", {}).get("Name")), "previousState": str(ending.get("PreviousState", {}).get("Name"))}


def _seconds_between(earlier: object, later: object) -> int | None:
    if not isinstance(earlier, str) or not isinstance(later, str):
        return None
    return int((datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds())
