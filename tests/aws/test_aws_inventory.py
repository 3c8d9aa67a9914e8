"""What is ours and still there. The dangerous mistake is a list that is shorter than the truth."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from conftest import Wire

from provisioner.errors import NotPermitted, ProviderError
from provisioner.model import LaunchSpec, Phase, Resource
from provisioner.providers.aws import AwsProvider
from provisioner.providers.aws_client import Answer
from provisioner.providers.aws_inventory import INSTANCE, KINDS, MADE, OTHER
from provisioner.providers.aws_kind import resource

LEASE = "r-20261121t140000z-abcdefgh"
MOTO_LACKS = {"capacity-reservation", "capacity-reservation-fleet", "instance-connect-endpoint", "placement-group"}
LISTS = {kind.name: kind.list_call for kind in (*MADE, *OTHER)}


def rent(provider: AwsProvider, spec: LaunchSpec, lease: str = LEASE, count: int = 1) -> list[Resource]:
    group = provider.create("security-group", spec, lease=lease, token="g", made={})
    made = {"security-group": group}
    return [provider.create("instance", spec, lease=lease, token=f"t{n}", made=made) for n in range(count)]


def tagged(lease: str, type: str) -> list[dict[str, Any]]:
    tags = [{"Key": "gpulease:lease", "Value": lease}, {"Key": "gpulease:managed", "Value": "true"}]
    return [{"ResourceType": type, "Tags": tags}]


def test_everything_under_the_tag_is_found_whatever_its_kind(provider: AwsProvider, spec: LaunchSpec) -> None:
    (machine,) = rent(provider, spec)
    make = provider.account.create
    zone = "us-east-1b"
    stray = make("CreateVolume", AvailabilityZone=zone, Size=8, TagSpecifications=tagged(LEASE, "volume")).data["VolumeId"]
    make("AllocateAddress", Domain="vpc", TagSpecifications=tagged(LEASE, "elastic-ip"))
    make("CreateKeyPair", KeyName="k", KeyType="ed25519", TagSpecifications=tagged(LEASE, "key-pair"))
    make("CreateLaunchTemplate", LaunchTemplateName="lt", LaunchTemplateData={}, TagSpecifications=tagged(LEASE, "launch-template"))
    make("CreateSnapshot", VolumeId=stray, TagSpecifications=tagged(LEASE, "snapshot"))
    found = provider.inventory(LEASE)
    kinds = sorted(r.kind for r in found.resources)
    assert kinds == ["elastic-ip", "instance", "key-pair", "launch-template", "security-group", "snapshot", "volume", "volume"]
    assert all(r.lease == LEASE and r.region == "us-east-1" for r in found.resources)
    assert {r.kind for r in found.resources if r.billed} == {"instance", "volume", "elastic-ip", "snapshot"}
    assert found.resources[0].id == machine.id and found.resources[0].facts["deadline"] == spec.deadline
    assert [looked.kind for looked in found.looked_in if looked.kind != "schedule"] == list(LISTS)
    assert {looked.kind for looked in found.looked_in if not looked.checked} == MOTO_LACKS
    assert len(found.request_ids) == len(LISTS) - len(MOTO_LACKS) + 1 and str(found.provider_date).endswith("Z")


def test_all_of_it_can_be_removed_again(provider: AwsProvider, spec: LaunchSpec) -> None:
    test_everything_under_the_tag_is_found_whatever_its_kind(provider, spec)
    provider = AwsProvider("us-east-1", endpoint=provider.account.endpoint)  # whose first look is a whole one
    for one in provider.inventory(LEASE).resources:
        if not (one.kind == "volume" and one.state == "in-use"):
            provider.remove(one)
    # moto answers the removal of a key pair by id with success and keeps it; EC2 removes it.
    left = [r for r in provider.inventory(LEASE).resources if r.kind != "key-pair"]
    assert [(r.kind, r.phase, r.state) for r in left] == [("instance", Phase.GONE, "terminated")]


def test_every_lease_is_shown_when_none_is_named(provider: AwsProvider, spec: LaunchSpec) -> None:
    other = LEASE[:-1] + "z"
    rent(provider, spec)
    rent(provider, spec, other)
    provider.account.create("CreateSecurityGroup", GroupName="theirs", Description="x")
    everything = provider.inventory()
    assert {r.lease for r in everything.resources} == {LEASE, other}
    assert {r.lease for r in provider.inventory(LEASE).resources} == {LEASE}


def test_a_listing_goes_on_to_the_last_page(provider: AwsProvider, spec: LaunchSpec, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    machines = rent(provider, spec, count=7)
    small = tuple(replace(kind, page_size=3) if kind.name == "instance" else kind for kind in MADE)
    monkeypatch.setattr("provisioner.providers.aws_look.MADE", small)
    found = [r.id for r in provider.inventory(LEASE).resources if r.kind == "instance"]
    assert sorted(found) == sorted(m.id for m in machines)
    assert len(wire.sent("DescribeInstances")) == 3


def test_a_page_that_cannot_be_read_makes_the_whole_inventory_unreadable(
    provider: AwsProvider, spec: LaunchSpec, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    rent(provider, spec, count=4)
    small = tuple(replace(kind, page_size=3) if kind.name == "instance" else kind for kind in MADE)
    monkeypatch.setattr("provisioner.providers.aws_look.MADE", small)
    wire.fault("DescribeInstances", "", "500 InternalError", "500 InternalError", "500 InternalError")
    with pytest.raises(ProviderError):
        provider.inventory(LEASE)


def test_not_being_allowed_to_list_what_we_make_raises(provider: AwsProvider, wire: Wire) -> None:
    for kind in MADE:
        wire.fault(kind.list_call, "403 UnauthorizedOperation")
        with pytest.raises(NotPermitted, match=kind.list_call):
            provider.inventory(LEASE)


@pytest.mark.parametrize("answer", ["403 UnauthorizedOperation", "403 AccessDenied", "400 InvalidAction"])
def test_what_we_never_make_may_stay_unchecked_and_says_why(provider: AwsProvider, wire: Wire, answer: str) -> None:
    for kind in OTHER:
        wire.fault(kind.list_call, answer)
        looked = {one.kind: one for one in provider.inventory(LEASE).looked_in}
        assert not looked[kind.name].checked and answer.split()[1] in looked[kind.name].reason
        assert {name for name, one in looked.items() if not one.checked} == {kind.name} | MOTO_LACKS


@pytest.mark.parametrize("answer", ["503 RequestLimitExceeded", "drop"])
def test_no_answer_about_any_kind_is_never_an_empty_answer(provider: AwsProvider, wire: Wire, answer: str) -> None:
    for kind in (*MADE, *OTHER):
        wire.fault(kind.list_call, answer, answer, answer)
        with pytest.raises(ProviderError, match=kind.list_call) as e:
            provider.inventory(LEASE)
        assert not isinstance(e.value, NotPermitted)


def test_what_we_never_make_is_not_listed_again_while_what_we_make_is_there(provider: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    (machine,) = rent(provider, spec)
    assert {one.kind for one in provider.inventory(LEASE).looked_in} == {*LISTS, "schedule"}, "the first look is whole"
    wire.requests.clear()
    between = provider.inventory(LEASE)
    assert {one.kind for one in between.looked_in} == {"schedule", "fleet", "launch-template", *(kind.name for kind in MADE)}
    assert len(wire.requests) == len(MADE) + 3, "a fleet may make one more machine at any time, so it is in every look"
    assert {one.kind for one in provider.inventory(None).looked_in} == {*LISTS, "schedule"}, "so is one at everybody's"
    provider.remove(machine)
    provider.remove(next(r for r in between.resources if r.kind == "security-group"))
    assert {one.kind for one in provider.inventory(LEASE).looked_in} == {*LISTS, "schedule"}, "and any that could be called empty"


def test_kinds_that_ec2_cannot_sort_by_tag_are_sorted_here(provider: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    def host(lease: str) -> str:
        made = provider.account.create(
            "AllocateHosts",
            AvailabilityZone="us-east-1b",
            InstanceType="c5.large",
            Quantity=1,
            TagSpecifications=tagged(lease, "dedicated-host"),
        )
        return str(made.data["HostIds"][0])

    ours, theirs = host(LEASE), host(LEASE[:-1] + "z")
    provider.account.create("AllocateHosts", AvailabilityZone="us-east-1b", InstanceType="c5.large", Quantity=1)
    assert [r.id for r in provider.inventory(LEASE).resources] == [ours]
    assert {r.id for r in provider.inventory(None).resources} == {ours, theirs}
    assert wire.sent("DescribeHosts")[0].params["Filter.1.Name"] == "tag-key"
    assert not [name for name in wire.sent("DescribeFleets")[0].params if name.startswith("Filter")], "EC2 has no filter by tag for fleets"


def test_every_listing_and_removal_is_one_that_aws_has(provider: AwsProvider) -> None:
    from botocore.session import get_session
    from botocore.validate import validate_parameters

    model = get_session().get_service_model("ec2")
    for kind in (*MADE, *OTHER):
        size = {"MaxResults": kind.page_size} if kind.page_size else {}
        for lease in (LEASE, None):
            validate_parameters(kind.where(lease) | size, model.operation_model(kind.list_call).input_shape)
        validate_parameters({kind.ids: ["x"]}, model.operation_model(kind.list_call).input_shape)
        one = {kind.remove_id: ["x"] if kind.by_list else "x"}
        validate_parameters(one | dict(kind.removal or {}), model.operation_model(kind.remove_call).input_shape)
        described = model.operation_model(kind.list_call).output_shape
        assert kind.name == "instance" or kind.id_key in next(
            shape.member.members for name, shape in described.members.items() if shape.type_name == "list"
        ), kind.name


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("fleet", {"UnsuccessfulFleetDeletions": [{"Error": {"Code": "fleetNotInDeletableState", "Message": "m"}, "FleetId": "x"}]}),
        ("vpc-endpoint", {"Unsuccessful": [{"Error": {"Code": "InvalidParameter", "Message": "m"}, "ResourceId": "x"}]}),
        ("dedicated-host", {"Unsuccessful": [{"Error": {"Code": "Client.InvalidHost.Occupied", "Message": "m"}, "ResourceId": "x"}]}),
    ],
)
def test_a_removal_that_answers_yes_and_says_no_is_not_taken_for_a_yes(
    name: str, answer: dict[str, Any], provider: AwsProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider.account, "change", lambda *a, **k: Answer(answer, "req-1", None))
    with pytest.raises(ProviderError, match=KINDS[name].remove_call):
        provider.remove(Resource(name, "x", Phase.HERE, lease=LEASE, region="us-east-1"))


@pytest.mark.parametrize(
    ("name", "word", "phase"),
    [
        ("fleet", "deleted_running", Phase.HERE),
        ("fleet", "deleted", Phase.GONE),
        ("spot-fleet-request", "cancelled_running", Phase.HERE),
        ("capacity-reservation", "expired", Phase.GONE),
        ("dedicated-host", "released", Phase.GONE),
        ("nat-gateway", "deleting", Phase.LEAVING),
        ("vpc-endpoint", "Deleted", Phase.GONE),
        ("placement-group", "available", Phase.HERE),
        ("nat-gateway", "a-new-word", Phase.HERE),
    ],
)
def test_words_of_the_kinds_we_never_make(name: str, word: str, phase: Phase) -> None:
    kind = KINDS[name]
    key = {"fleet": "FleetState", "spot-fleet-request": "SpotFleetRequestState"}.get(name, "State")
    assert resource(kind, {kind.id_key: "x", key: word}, "us-east-1", {}).phase is phase


def test_words_that_a_bill_cares_about() -> None:
    assert {word: str(phase) for word, phase in INSTANCE.items()} == {
        "pending": "coming",
        "running": "here",
        "stopping": "here",
        "stopped": "here",
        "shutting-down": "leaving",
        "terminated": "gone",
    }
    odd = resource(KINDS["instance"], {"InstanceId": "i-1", "State": {"Name": "hibernating-on-mars"}}, "us-east-1", {})
    assert odd.phase is Phase.HERE and odd.billed
    assert resource(KINDS["volume"], {"VolumeId": "vol-1", "State": "error"}, "us-east-1", {}).phase is Phase.HERE


def test_a_terminated_machine_that_is_still_shown_is_gone_and_says_why(provider: AwsProvider, spec: LaunchSpec) -> None:
    (machine,) = rent(provider, spec)
    answer = provider.remove(machine)
    assert answer["state"] == "shutting-down" and answer["previousState"] == "running" and str(answer["providerDate"]).endswith("Z")
    (shown,) = [r for r in provider.inventory(LEASE).resources if r.kind == "instance"]
    assert shown.phase is Phase.GONE and shown.state == "terminated"
    assert shown.facts["stateReason"] == "Client.UserInitiatedShutdown" and "stateTransitionReason" in shown.facts


def test_a_stopped_machine_is_still_here(provider: AwsProvider, spec: LaunchSpec) -> None:
    (machine,) = rent(provider, spec)
    provider.account.change("StopInstances", InstanceIds=[machine.id])
    seen = provider.observe(machine)
    assert (seen.state, seen.phase, seen.billed) == ("stopped", Phase.HERE, True)


def test_observing_keeps_address_and_token(provider: AwsProvider, spec: LaunchSpec) -> None:
    (machine,) = rent(provider, spec)
    seen = provider.observe(machine)
    assert (seen.phase, seen.state, seen.token, seen.lease) == (Phase.HERE, "running", "t0", LEASE)
    assert seen.facts["address"] and seen.facts["privateAddress"] and seen.facts["launchTime"] == machine.facts["launchTime"]


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_not_found_is_gone_only_for_what_was_old_enough_to_be_listed(provider: AwsProvider) -> None:
    new = Resource("instance", "i-00000000000000001", Phase.COMING, "pending", lease=LEASE, facts={"launchTime": ago(2)})
    with pytest.raises(ProviderError, match="not found"):
        provider.observe(new)
    with pytest.raises(ProviderError):
        provider.observe(replace(new, facts={}))
    with pytest.raises(ProviderError):
        provider.observe(replace(new, phase=Phase.HERE))
    for known in (replace(new, facts={"launchTime": ago(60)}), replace(new, phase=Phase.LEAVING)):
        gone = provider.observe(known)
        assert (gone.phase, gone.state) == (Phase.GONE, "not-found") and gone.facts["providerDate"]


@pytest.mark.parametrize(
    ("kind", "id"),
    [
        ("volume", "vol-00000000000000001"),
        ("network-interface", "eni-00000000000000001"),
        ("security-group", "sg-00000000000000001"),
        ("elastic-ip", "eipalloc-00000000000000001"),
        ("snapshot", "snap-00000000000000001"),
    ],
)
def test_what_is_gone_of_any_kind_says_so_and_removing_it_is_success(provider: AwsProvider, kind: str, id: str) -> None:
    known = Resource(kind, id, Phase.HERE, lease=LEASE)
    assert provider.observe(known).phase is Phase.GONE
    assert provider.remove(known)["state"] == "not-found"


def test_an_empty_answer_by_id_is_an_error_not_gone(provider: AwsProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider.account, "ask", lambda *a, **k: Answer({"Reservations": []}, "req-1", None))
    with pytest.raises(ProviderError, match="showed 0 of i-1"):
        provider.observe(Resource("instance", "i-1", Phase.HERE))


def test_a_denied_observation_is_not_gone(provider: AwsProvider, wire: Wire) -> None:
    wire.fault("DescribeInstances", "403 UnauthorizedOperation")
    with pytest.raises(NotPermitted):
        provider.observe(Resource("instance", "i-1", Phase.LEAVING))


def test_what_is_in_use_refuses_to_go(provider: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    rent(provider, spec)
    disk = next(r for r in provider.inventory(LEASE).resources if r.kind == "volume")
    with pytest.raises(ProviderError, match="VolumeInUse"):
        provider.remove(disk)
    # moto lets a group go while it is in use; EC2 does not.
    group = next(r for r in provider.inventory(LEASE).resources if r.kind == "security-group")
    wire.fault("DeleteSecurityGroup", "400 DependencyViolation")
    with pytest.raises(ProviderError, match="DependencyViolation") as e:
        provider.remove(group)
    assert e.value.provider_code == "DependencyViolation"


def test_what_has_no_lease_tag_is_never_removed(provider: AwsProvider, wire: Wire) -> None:
    theirs = provider.account.create("CreateVolume", AvailabilityZone="us-east-1a", Size=1).data["VolumeId"]
    with pytest.raises(NotPermitted, match="not ours"):
        provider.remove(Resource("volume", theirs, Phase.HERE))
    assert not wire.sent("DeleteVolume")
    assert provider.observe(Resource("volume", theirs, Phase.HERE)).phase is Phase.HERE


def test_a_record_without_its_lease_is_looked_up_before_it_is_removed(provider: AwsProvider, spec: LaunchSpec) -> None:
    (machine,) = rent(provider, spec)
    assert provider.remove(replace(machine, lease=""))["state"] == "shutting-down"
    assert provider.observe(machine).phase is Phase.GONE


def test_a_machine_that_may_not_be_ended_says_what_stands_in_the_way(provider: AwsProvider, spec: LaunchSpec) -> None:
    (machine,) = rent(provider, spec)
    provider.account.change("ModifyInstanceAttribute", InstanceId=machine.id, DisableApiTermination={"Value": True})
    with pytest.raises(ProviderError, match="OperationNotPermitted") as e:
        provider.remove(machine)
    assert "termination protection" in e.value.next


def test_regions_are_those_enabled(provider: AwsProvider) -> None:
    assert {"us-east-1", "eu-west-1"} <= set(provider.enabled_regions()[0])
