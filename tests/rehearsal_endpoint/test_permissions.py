"""The printed policies, enforced: they let a whole life through, stop everything else, and hold no action that nothing uses."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from provisioner import corroborate
from provisioner.errors import GpuleaseError, ProviderError, RefusedError
from provisioner.model import Inventory, LaunchSpec, Phase, Requirements, Resource
from provisioner.providers import aws_actions, aws_bill, aws_trail
from provisioner.providers.aws import AwsProvider
from provisioner.providers.aws_actions import ACTIONS, AUDITOR, INIT, REAPER, ROLE, RUNNER
from provisioner.providers.aws_client import Account
from provisioner.providers.aws_init import Site
from provisioner.providers.aws_inventory import OTHER
from provisioner.providers.aws_policy import document
from provisioner.rehearsal.client import Rehearsal
from provisioner.remote import through
from provisioner.remote.through import REACHES
from provisioner.secret import Secret
from tests.rehearsal_endpoint.conftest import QUICK, STANDIN, Cloud, code_of, wait_for

REGION, ACCOUNT = "us-east-1", "123456789012"
NEED = Requirements(gpu="L4", purchase=("on-demand", "spot"))
NOT_MADE_HERE = tuple(kind.name for kind in OTHER if kind.name not in ("elastic-ip", "key-pair", "launch-template", "snapshot"))
"""Kinds that a person may have tagged and this rehearsal cannot make: their removal is sent for a stranger's, which must be denied."""

_numbers = itertools.count(1)


class Place:
    """A prepared account, and what a life needs in it."""

    def __init__(self, rehearsal: Rehearsal, tmp: Any) -> None:
        self.rehearsal, self.cloud = rehearsal, Cloud(rehearsal, tmp)
        site = Site([Account(REGION, None, rehearsal.endpoint)])
        site.make(site.look(), lambda text: None)

    def enforce(self, name: str | None, without: str = "", **limits: Any) -> None:
        limits = {"fleet": name == RUNNER, **limits}
        self.rehearsal.enforce(None if name is None else less(document(name, account=ACCOUNT, **limits), without))

    def provider(self) -> AwsProvider:
        return AwsProvider(REGION, endpoint=self.rehearsal.endpoint)

    def strays(self, lease: str) -> None:
        """One of every kind that a person may have tagged as the lease's."""
        ec2 = self.cloud.ec2

        def tagged(kind: str) -> list[dict[str, Any]]:
            pairs = {"gpulease:lease": lease, "gpulease:managed": "true", "gpulease:deadline": "2026-01-01T00:00:00Z"}
            return [{"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in pairs.items()]}]

        subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
        disk = ec2.create_volume(AvailabilityZone=f"{REGION}a", Size=8, TagSpecifications=tagged("volume"))["VolumeId"]
        ec2.create_network_interface(SubnetId=subnet, TagSpecifications=tagged("network-interface"))
        ec2.allocate_address(Domain="vpc", TagSpecifications=tagged("elastic-ip"))
        ec2.create_key_pair(KeyName=f"k{next(_numbers)}", KeyType="ed25519", TagSpecifications=tagged("key-pair"))
        name = f"lt{next(_numbers)}"
        ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData={}, TagSpecifications=tagged("launch-template"))
        ec2.create_snapshot(VolumeId=disk, TagSpecifications=tagged("snapshot"))

    def used(self, since: int) -> set[str]:
        """What our own code sent since then, and what AWS asked for beside that."""
        agents = ("gpulease/", "rehearsed-aws")  # we, and the program that carries our connection
        ours = [entry for entry in self.rehearsal.log()[since:] if any(agent in entry["userAgent"] for agent in agents)]
        beside = {action for entry in ours for action in entry.get("permissions", ())}
        return beside | {f"{entry['service']}:{entry['action']}" for entry in ours}


def denied_removals(provider: AwsProvider) -> None:
    for kind in NOT_MADE_HERE:
        with pytest.raises(ProviderError, match="not authorized to perform"):
            provider.remove(Resource(kind, f"x-{next(_numbers)}", Phase.HERE, region=REGION, lease="r-20260101t000000z-00000000"))


def less(policy: dict[str, Any], action: str) -> dict[str, Any]:
    def kept(actions: Any) -> list[str]:
        return [one for one in ([actions] if isinstance(actions, str) else actions) if one != action]

    made = [{**statement, "Action": kept(statement["Action"])} for statement in policy["Statement"]]
    return {**policy, "Statement": [statement for statement in made if statement["Action"]]}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    from provisioner.rehearsal import client

    state = tmp_path_factory.mktemp("cloud")
    made = client.start(state, host_command=STANDIN, idle_exit=900, faults=[{"timing": QUICK}])
    yield Place(made, state)
    made.stop()


@pytest.fixture(autouse=True)
def nobody_is_limited(place: Place) -> Iterator[None]:
    yield
    place.enforce(None)


class Stopped(Exception):
    def __init__(self, step: str, e: GpuleaseError) -> None:
        super().__init__(f"{step}: {e.what}")
        self.step, self.error = step, e


def life(provider: AwsProvider, lease: str, strays: Callable[[], None] = lambda: None, *, fleet: bool = False) -> Inventory:
    """Every call of a run, step by step, as the engine makes them; the last look. `Stopped` names the step."""

    def step(name: str, do: Callable[[], Any]) -> Any:
        try:
            return do()
        except GpuleaseError as e:
            raise Stopped(name, e) from e

    step("login", provider.identity)
    offer = step("offers", lambda: provider.offers(NEED))[0]
    spec = LaunchSpec(
        replace(offer, spot=False, zone=f"{REGION}a"), 60, "2027-01-01T00:00:00Z", Secret("{}"), ingress_cidr="203.0.113.7/32"
    )
    spec = replace(spec, fleet=fleet)
    step("guard is ready", lambda: provider.check_schedule([REGION]))
    made: dict[str, Resource] = {}
    if fleet:
        step("fleet is ready", provider.check_fleet)
    for number, kind in enumerate((*provider.steps(spec), "schedule"), 1):
        token = f"{lease[-8:]}-{number}-{secrets.token_hex(16)}"
        made[kind] = step(kind, lambda kind=kind, token=token: provider.create(kind, spec, lease=lease, token=token, made=made))
        if kind == "fleet":
            made["instance"] = step("fleet's machine", lambda: wait_for(lambda: provider.made_by(made["fleet"])))
            assert step("fleet is read back", lambda: provider.verify_fleet(made["fleet"])) == []
    assert step("guard is read back", lambda: provider.verify_schedule(made["schedule"])) == []

    def runs() -> Any:
        return seen if (seen := provider.observe(made["instance"])).phase is Phase.HERE else None

    machine = step("start", lambda: wait_for(runs))
    assert step("launch is read back", lambda: provider.verify_launch(machine, spec)) == []
    strays()
    return let_go(provider, lease, step, ("schedule", "fleet", "launch-template") if fleet else ("schedule",))


def let_go(
    provider: AwsProvider, lease: str, step: Callable[[str, Callable[[], Any]], Any], must: tuple[str, ...] = ("schedule",)
) -> Inventory:
    def ours() -> Inventory:
        found: Inventory = step("look", lambda: provider.inventory(lease))
        for looked in found.looked_in:
            if looked.kind in must and not looked.checked:  # we made one, so a look without it is none: lease._look
                raise Stopped("look", ProviderError(f"{looked.kind} could not be listed: {looked.reason}"))
        return found

    def left() -> bool:
        everything = [one for one in ours().resources if one.phase is not Phase.GONE]
        for one in [r for r in everything if r.billed] or everything:
            if one.phase is not Phase.LEAVING:
                in_use = one.kind in ("volume", "network-interface", "security-group") and any(r.kind == "instance" for r in everything)
                with contextlib.suppress(Stopped, ProviderError) if in_use else contextlib.nullcontext():
                    step(f"remove {one.kind}", lambda one=one: provider.remove(one))
                    if one.kind == "schedule":  # as the engine asks by name for what the list lacks
                        assert step("look by name", lambda one=one: provider.observe(one)).phase is Phase.GONE
        return all(one.kind == "key-pair" for one in everything)  # moto answers its removal by id with success, and keeps it

    wait_for(left)
    return ours()


def lease_id() -> str:
    return f"r-20260101t000000z-{''.join(secrets.choice('0123456789abcdefghjkmnpqrstvwxyz') for _ in range(8))}"


@contextlib.contextmanager
def unreachable(place: Place, reach: str) -> Iterator[Resource]:
    """A machine that no address may reach, in an account with an endpoint and with managed nodes."""
    place.rehearsal.faults([{"connect_endpoints": {REGION: "create-complete"}, "session_manager": True}])
    provider, lease = place.provider(), lease_id()
    offer = replace(provider.offers(NEED)[0], spot=False, zone=f"{REGION}a")
    spec = LaunchSpec(offer, 60, "2027-01-01T00:00:00Z", Secret("{}"), reach=reach)
    made: dict[str, Resource] = {}
    try:
        for number, kind in enumerate(provider.steps(spec), 1):
            made[kind] = provider.create(kind, spec, lease=lease, token=f"way-{number}-{secrets.token_hex(8)}", made=made)
        wait_for(lambda: provider.observe(made["instance"]).phase is Phase.HERE)
        yield made["instance"]
    finally:
        place.rehearsal.faults([{"connect_endpoints": {REGION: None}, "session_manager": False}])
        let_go(provider, lease, lambda name, do: do())


def refused(place: Place, reach: str, machine: Resource, *, port: int = 22) -> str:
    """What AWS says to the program that would carry the connection; "" when it lets it. The machines here have no SSH."""
    words = through.argv(reach, through.name(machine.id, REGION), port, None, place.rehearsal.aws())
    said = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60).stderr
    found = re.search("An error occurred .*|There are no available instance connect endpoints", said)
    return found[0] if found else ""


@pytest.mark.parametrize(
    ("reach", "action"),
    [
        ("endpoint", "ec2-instance-connect:OpenTunnel"),
        ("endpoint", "ec2:DescribeInstances"),
        ("endpoint", "ec2:DescribeInstanceConnectEndpoints"),
        ("ssm", "ssm:StartSession"),
    ],
)
def test_each_right_of_the_way_in_that_is_missing_is_named(reach: str, action: str, place: Place) -> None:
    with unreachable(place, reach) as machine:
        place.enforce(RUNNER, without=action)
        said = refused(place, reach, machine)
        assert f"not authorized to perform: {action}" in said and through.FINAL.search(said), "and it is not asked again"
        place.enforce(RUNNER)
        assert refused(place, reach, machine) == ""
        place.enforce(None)


def test_the_way_in_is_to_port_22_and_to_machines_of_ours_only(place: Place) -> None:
    with unreachable(place, "endpoint") as machine, unreachable(place, "ssm") as managed:
        place.enforce(RUNNER)
        assert "not authorized" in refused(place, "endpoint", machine, port=8000)
        place.enforce(None)
        place.cloud.ec2.delete_tags(Resources=[managed.id], Tags=[{"Key": "gpulease:managed"}])
        place.enforce(RUNNER)
        assert "not authorized" in refused(place, "ssm", managed), "somebody else's machine"
        place.enforce(None)
        place.cloud.ec2.create_tags(Resources=[managed.id], Tags=[{"Key": "gpulease:managed", "Value": "true"}])
        place.rehearsal.faults([{"connect_endpoints": {REGION: "create-failed"}, "session_manager": False}])
        assert "There are no available" in refused(place, "endpoint", machine)
        assert "TargetNotConnected" in refused(place, "ssm", managed)


def test_the_runners_policy_is_what_a_life_uses_no_more_and_no_less(place: Place) -> None:
    place.enforce(RUNNER, regions=[REGION], types=["g6.*"])
    before, lease, provider = len(place.rehearsal.log()), lease_id(), place.provider()

    def strays() -> None:
        place.enforce(None)
        place.strays(lease)
        place.enforce(RUNNER, regions=[REGION], types=["g6.*"])

    last = life(provider, lease, strays)
    assert all(looked.checked for looked in last.looked_in), [looked for looked in last.looked_in if not looked.checked]
    assert not [r for r in life(provider, lease_id(), fleet=True).resources if r.phase is not Phase.GONE]
    for reach in REACHES:
        with unreachable(place, reach) as machine:
            assert refused(place, reach, machine) == ""
    assert not any(entry.get("error") == "UnauthorizedOperation" for entry in place.rehearsal.log()[before:])
    denied_removals(provider)
    assert place.used(before) == set(aws_actions.of(RUNNER))


@pytest.mark.parametrize("action", [a for a in ACTIONS if RUNNER in a.policies], ids=lambda action: action.name)
def test_each_action_that_is_missing_stops_a_named_step_or_is_optional(action: aws_actions.Action, place: Place) -> None:
    lease, name = lease_id(), action.name.split(":")[1]
    stray = name in ("DeleteVolume", "DeleteNetworkInterface")

    def strays() -> None:
        if stray:
            place.enforce(None)
            place.strays(lease)
            place.enforce(RUNNER, without=action.name)

    place.enforce(RUNNER, without=action.name)
    try:
        last = life(place.provider(), lease, strays)
    except Stopped as stopped:
        assert not action.without, f"it is called optional, and stopped {stopped}"
        assert action.name in stopped.error.what
        assert stopped.error.next.endswith("gpulease iam policy runner") or stopped.step == "look", stopped.error.next
    else:
        assert action.without, "it is called needed, and everything went on without it"
        if name.startswith("Describe") and "not looked at" in action.without:
            [said] = [looked for looked in last.looked_in if not looked.checked]
            assert action.name in said.reason
    finally:
        place.enforce(None)
        let_go(place.provider(), lease, lambda name, do: do())


TRAIL = aws_trail.Trail("gpulease-rehearsal", "gpulease-rehearsal-trail", "")


def records(place: Place) -> list[str]:
    """Everything that a proof is given afterwards, asked as the commands do; what was refused."""
    account, now = Account(REGION, None, place.rehearsal.endpoint), datetime.now(UTC)
    bills, denied = Account("us-east-1", None, place.rehearsal.endpoint), list[str]()
    span = (now - timedelta(hours=1), now)
    for ask in (
        lambda: list(aws_trail.events(account, *span, lambda s: None)),
        lambda: aws_trail.trail(account),
        lambda: account.ask("GetCallerIdentity", service="sts"),
        lambda: aws_trail.files(account, TRAIL, ACCOUNT, *span),
        lambda: aws_trail.public_keys(account, *span),
        lambda: aws_bill.billed(bills, ["i-0aa"], *span),
    ):
        try:
            ask()
        except ProviderError as e:
            denied.append(e.what)
    return denied


def test_the_auditors_policy_is_what_asking_afterwards_uses_no_more_and_no_less(place: Place) -> None:
    place.enforce(AUDITOR, regions=[REGION], buckets=[TRAIL.bucket])
    before = len(place.rehearsal.log())
    assert records(place) == []
    assert place.used(before) == set(aws_actions.of(AUDITOR))
    with pytest.raises(ProviderError, match="not authorized"):
        place.provider().account.ask("DescribeInstances")


def test_an_auditor_reads_only_the_bucket_that_was_named_and_else_the_proof_does_without(place: Place) -> None:
    account, span = Account(REGION, None, place.rehearsal.endpoint), (datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC))
    for buckets in ([], ["another-trail"]):
        place.enforce(AUDITOR, buckets=buckets)
        (denied,), told = records(place), list[str]()
        assert "s3:ListBucket" in denied or "AccessDenied" in denied
        assert corroborate._files([account], *span, told.append) == ({}, [])
        assert "could not be had" in told[0] and "gpulease iam policy auditor --bucket NAME" in told[0]


@pytest.mark.parametrize("fleet", [True, False])
def test_the_two_lists_without_a_filter_need_no_right_that_a_look_has_not(fleet: bool, place: Place) -> None:
    place.enforce(RUNNER, fleet=fleet, regions=[REGION])
    seen = place.provider().everything(within=30.0, sleep=time.sleep)
    assert not [(one.kind, one.unchecked) for one in seen if one.unchecked]
    place.enforce(RUNNER, without="ec2:DescribeVolumes", fleet=fleet)
    refused = [one for one in place.provider().everything(within=30.0, sleep=time.sleep) if one.unchecked]
    assert [(one.kind, one.unchecked, one.resources) for one in refused] == [("volume", "AWS answered UnauthorizedOperation", ())]


@pytest.mark.parametrize("action", [a.name for a in ACTIONS if AUDITOR in a.policies and not a.name.startswith("sts:")])
def test_each_question_that_an_auditor_may_not_ask_is_named(action: str, place: Place) -> None:
    place.enforce(AUDITOR, without=action, buckets=[TRAIL.bucket])
    denied = records(place)
    assert denied and all(action in what or "AccessDenied" in what for what in denied), denied


FLEETS = ("CreateLaunchTemplate", "CreateFleet", "DescribeFleetInstances", "DescribeFleetHistory")
FLEETS_ENDS = ("DescribeFleets", "DescribeLaunchTemplates", "DeleteFleets", "DeleteLaunchTemplate")


@pytest.mark.parametrize("name", (*FLEETS, *FLEETS_ENDS))
def test_each_action_of_fleets_that_is_missing_stops_a_life_through_one(name: str, place: Place) -> None:
    lease, action = lease_id(), f"ec2:{name}"
    place.rehearsal.faults([{"timing": {"fleet_s": 0.5}}])
    place.enforce(RUNNER, without=action)
    try:
        with pytest.raises(Stopped, match=action) as stopped:
            life(place.provider(), lease, fleet=True)
        assert name not in FLEETS or stopped.value.error.next.endswith("gpulease iam policy runner --fleet")
    finally:
        place.enforce(None)
        place.rehearsal.faults([{"timing": QUICK}])
        let_go(place.provider(), lease, lambda name, do: do())


def test_a_fleet_without_the_tag_or_of_somebody_elses_template_is_denied(place: Place) -> None:
    ec2, tags = place.cloud.ec2, [{"Key": "gpulease:managed", "Value": "true"}]
    theirs = ec2.create_launch_template(LaunchTemplateName=f"lt{next(_numbers)}", LaunchTemplateData={})["LaunchTemplate"]
    place.enforce(RUNNER)
    denied = "UnauthorizedOperation"
    assert code_of(ec2.create_launch_template, LaunchTemplateName="lt-x", LaunchTemplateData={}) == denied, "untagged"
    tagged = [{"ResourceType": "launch-template", "Tags": tags}]
    name = f"lt{next(_numbers)}"
    ours = ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData={}, TagSpecifications=tagged)["LaunchTemplate"]

    def fleet(template: str, **more: Any) -> dict[str, Any]:
        configs = [{"LaunchTemplateSpecification": {"LaunchTemplateId": template, "Version": "1"}}]
        return {"Type": "request", "LaunchTemplateConfigs": configs, "TargetCapacitySpecification": {"TotalTargetCapacity": 1}, **more}

    born = {"TagSpecifications": [{"ResourceType": "fleet", "Tags": tags}]}
    assert code_of(ec2.create_fleet, **fleet(ours["LaunchTemplateId"])) == denied, "a fleet without the tag"
    assert code_of(ec2.create_fleet, **fleet(theirs["LaunchTemplateId"], **born)) == denied, "a template that is not ours"
    place.enforce(None)
    stranger = ec2.create_fleet(**fleet(theirs["LaunchTemplateId"]))["FleetId"]
    place.enforce(RUNNER)
    assert code_of(ec2.delete_fleets, FleetIds=[stranger], TerminateInstances=True) == denied, "a fleet that is not ours"
    place.enforce(None)
    ec2.delete_fleets(FleetIds=[stranger], TerminateInstances=True)
    for one in (ours, theirs):
        ec2.delete_launch_template(LaunchTemplateId=one["LaunchTemplateId"])


def test_the_reapers_policy_lets_go_of_everything_and_rents_nothing(place: Place) -> None:
    lease, provider = lease_id(), place.provider()
    spec = LaunchSpec(provider.offers(NEED)[0], 60, "2027-01-01T00:00:00Z", Secret("{}"), ingress_cidr="203.0.113.7/32")
    spec = replace(spec, offer=replace(spec.offer, spot=False, zone=f"{REGION}a"))
    provider.check_schedule([REGION])
    made: dict[str, Resource] = {}
    for number, kind in enumerate((*provider.steps(spec), "schedule"), 1):
        made[kind] = provider.create(kind, spec, lease=lease, token=f"x-{number}-{secrets.token_hex(8)}", made=made)
    place.strays(lease)
    place.enforce(REAPER, regions=[REGION])
    before, reaper = len(place.rehearsal.log()), place.provider()
    reaper.identity()
    reaper.enabled_regions()
    let_go(reaper, lease, lambda name, do: do())
    denied_removals(reaper)
    assert place.used(before) == set(aws_actions.of(REAPER))
    with pytest.raises(ProviderError, match="ec2:CreateSecurityGroup"):
        reaper.create("security-group", spec, lease=lease_id(), token="x-1-y", made={})


def test_the_policy_for_init_makes_corrects_and_removes_and_nothing_else(place: Place) -> None:
    account = Account("us-west-2", None, place.rehearsal.endpoint)
    place.enforce(INIT)
    before = len(place.rehearsal.log())
    site = Site([account])
    site.make(site.look(), lambda text: None)
    iam, sqs = place.cloud.service("iam"), place.cloud.service("sqs", "us-west-2")
    place.enforce(None)
    iam.put_role_policy(RoleName="gpulease-scheduler", PolicyName="gpulease-scheduler", PolicyDocument=json.dumps(document(REAPER)))
    trust = iam.get_role(RoleName="gpulease-scheduler")["Role"]["AssumeRolePolicyDocument"]
    iam.update_assume_role_policy(
        RoleName="gpulease-scheduler",
        PolicyDocument=json.dumps(trust).replace(ACCOUNT, "210987654321"),
    )
    url = sqs.get_queue_url(QueueName="gpulease-schedules")["QueueUrl"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"MessageRetentionPeriod": "60"})
    place.enforce(INIT)
    assert {str(p) for p in site.look() if p.state == "differs"} == {
        "role gpulease-scheduler",
        "role policy gpulease-scheduler",
        "queue gpulease-schedules in us-west-2",
    }
    site.make(site.look(), lambda text: None)
    assert {piece.state for piece in site.look()} == {"there"}
    both = Site([account, Account(REGION, None, place.rehearsal.endpoint)])
    told: list[str] = []
    site.remove(site.look(), told.append)
    assert told[0].startswith("kept    role") and REGION in told[0]
    both.remove(both.look(), told.append)
    assert {piece.state for piece in both.look()} == {"missing"}
    both = Site([Account(REGION, None, place.rehearsal.endpoint)])
    both.make(both.look(), lambda text: None)
    assert place.used(before) == set(aws_actions.of(INIT))


def test_what_is_not_ours_is_out_of_reach(place: Place) -> None:
    stranger = place.cloud.launch()
    place.enforce(RUNNER, regions=[REGION], types=["g6.xlarge"])
    ec2, tags = place.cloud.ec2, [{"Key": "gpulease:managed", "Value": "true"}]
    tagged = [{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume", "network-interface")]
    launch = place.cloud.params()
    denied = "UnauthorizedOperation"
    assert code_of(ec2.terminate_instances, InstanceIds=[stranger]) == denied
    assert code_of(ec2.run_instances, **launch) == denied, "untagged"
    assert code_of(ec2.run_instances, **{**launch, "TagSpecifications": tagged[:2]}) == denied, "an interface without the tag"
    assert code_of(ec2.run_instances, **{**launch, "TagSpecifications": tagged, "InstanceType": "p5.48xlarge"}) == denied, "another type"
    west = place.cloud.service("ec2", "us-west-2")
    assert code_of(west.describe_instances) == denied, "another region"
    assert code_of(west.create_security_group, GroupName="g", Description="d") == denied
    assert code_of(ec2.create_tags, Resources=[stranger], Tags=tags) == denied, "tagging what is somebody else's, to end it then"
    ours = ec2.run_instances(**{**launch, "TagSpecifications": tagged})["Instances"][0]["InstanceId"]
    ec2.terminate_instances(InstanceIds=[ours])


def test_a_denied_launch_says_which_action_and_carries_the_encoded_message(place: Place) -> None:
    from botocore.exceptions import ClientError

    place.enforce(RUNNER, types=["g6.xlarge"])
    with pytest.raises(ClientError) as refused:
        place.cloud.launch()
    words = str(refused.value)
    assert "not authorized to perform: ec2:RunInstances on resource: arn:aws:ec2:us-east-1:123456789012:instance/*" in words
    assert "Encoded authorization failure message: " in words


def test_the_role_of_the_schedule_may_be_given_to_the_scheduler_only(place: Place) -> None:
    place.enforce(RUNNER)
    iam, scheduler = place.cloud.service("iam"), place.cloud.service("scheduler")
    assert code_of(iam.put_role_policy, RoleName="gpulease-scheduler", PolicyName="x", PolicyDocument="{}") == "AccessDenied"
    assert code_of(scheduler.delete_schedule_group, Name="gpulease") == "AccessDeniedException"
    assert code_of(scheduler.get_schedule, GroupName="default", Name="theirs") == "AccessDeniedException"


def test_a_policy_that_cannot_be_decided_is_refused(place: Place) -> None:
    for statement in (
        {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"DateLessThan": {"aws:CurrentTime": "2027"}}},
        {"Effect": "Allow", "Resource": "*"},
        {"Effect": "Perhaps", "Action": "*", "Resource": "*"},
    ):
        with pytest.raises(ValueError, match="MalformedPolicyDocument"):
            place.rehearsal.enforce({"Version": "2012-10-17", "Statement": [statement]})


def test_a_missing_group_or_role_refuses_before_anything_is_rented(place: Place) -> None:
    with pytest.raises(RefusedError) as no:
        AwsProvider("eu-west-1", endpoint=place.rehearsal.endpoint).check_schedule(["eu-west-1"])
    assert f"gpulease init aws --region eu-west-1 --endpoint {place.rehearsal.endpoint}" in no.value.next
    assert "waive: [schedule]" in no.value.next


def test_a_role_that_may_end_more_than_ours_is_no_guard(place: Place) -> None:
    iam, name = place.cloud.service("iam"), "gpulease-scheduler"
    said = iam.get_role_policy(RoleName=name, PolicyName=name)["PolicyDocument"]
    wide = json.loads(json.dumps(said))
    del wide["Statement"][0]["Condition"]
    iam.put_role_policy(RoleName=name, PolicyName=name, PolicyDocument=json.dumps(wide))
    try:
        with pytest.raises(RefusedError, match="policy of the role"):
            place.provider().check_schedule([REGION])
    finally:
        iam.put_role_policy(RoleName=name, PolicyName=name, PolicyDocument=json.dumps(said))


def test_the_roles_policy_is_the_one_that_is_printed() -> None:
    from provisioner.providers.aws_schedule import permissions

    assert document(ROLE, account=ACCOUNT) == permissions(ACCOUNT)
    assert {a for s in permissions(ACCOUNT)["Statement"] for a in [s["Action"]]} == set(aws_actions.of(ROLE))
