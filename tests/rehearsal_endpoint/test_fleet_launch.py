"""A machine through a fleet, against the rehearsal: what it is asked to be, who says which it is, and why there is none."""

from __future__ import annotations

import base64
import contextlib
import itertools
from dataclasses import replace
from typing import Any

import pytest

from provisioner.errors import NoCapacity, NotCreated, NotPermitted, ProviderError, RefusedError
from provisioner.model import LaunchSpec, Phase, Requirements, Resource
from provisioner.providers.aws import AwsProvider
from provisioner.secret import Secret
from tests.rehearsal_endpoint.conftest import QUICK, Cloud, wait_for

LEASE, DEADLINE = "r-20261121t140000z-abcdefgh", "2030-01-01T00:00:00Z"
_numbers = itertools.count(3)


@pytest.fixture(autouse=True)
def _quick(cloud: Cloud) -> None:
    cloud.rehearsal.faults(None)
    cloud.rehearsal.faults([{"timing": {**QUICK, "fleet_s": 0.1}}])


@pytest.fixture
def provider(cloud: Cloud) -> AwsProvider:
    return AwsProvider("us-east-1", endpoint=cloud.rehearsal.endpoint)


def wanted(provider: AwsProvider, spot: bool = False, type: str = "g6.xlarge") -> LaunchSpec:
    need = Requirements(gpu="L4", types=(type,), purchase=("spot",) if spot else ("on-demand",))
    offer = next(offer for offer in provider.offers(need) if offer.zone == "us-east-1a")
    return LaunchSpec(offer, 60, DEADLINE, Secret("#cloud-config\n{}\n"), ingress_cidr="203.0.113.7/32", fleet=True)


def ask(provider: AwsProvider, spec: LaunchSpec, lease: str = LEASE) -> dict[str, Resource]:
    made: dict[str, Resource] = {}
    for kind in provider.steps(spec):
        made[kind] = provider.create(kind, spec, lease=lease, token=f"abcdefgh-{next(_numbers)}-{'0' * 32}", made=made)
    return made


def let_go(provider: AwsProvider, lease: str = LEASE) -> None:
    def left() -> bool:
        found = [one for one in provider.inventory(lease).resources if one.phase is not Phase.GONE]
        for one in [r for r in found if r.billed] or found:
            with contextlib.suppress(ProviderError):  # what is in use is asked again
                if one.phase is not Phase.LEAVING:
                    provider.remove(one)
        return bool(found)

    wait_for(lambda: not left())


@pytest.mark.parametrize("spot", [False, True])
def test_its_machine_is_what_a_launch_would_have_made_and_answers_the_fleets_token(provider: AwsProvider, cloud: Cloud, spot: bool) -> None:
    spec = wanted(provider, spot)
    assert provider.steps(spec) == ("security-group", "launch-template", "fleet")
    made = ask(provider, spec)
    fleet = made["fleet"]
    machine = wait_for(lambda: provider.made_by(fleet))
    assert (machine.token, machine.facts["fleet"], machine.lease) == (fleet.token, fleet.id, LEASE)
    wait_for(lambda: provider.observe(machine).phase is Phase.HERE)
    assert provider.verify_launch(machine, spec) == [] and provider.verify_fleet(fleet) == []
    assert AwsProvider("us-east-1", endpoint=cloud.rehearsal.endpoint).verify_launch(machine, spec) == [], "and by another process"
    seen = {(one.kind, one.id): one for one in provider.inventory(LEASE).resources}
    assert seen["instance", machine.id].token == fleet.token == seen["fleet", fleet.id].token
    assert provider.observe(machine).token == fleet.token
    assert provider.remove(fleet)["previousState"] == "active"
    wait_for(lambda: provider.observe(machine).phase is Phase.GONE)
    let_go(provider)


def test_the_template_holds_all_that_keeps_a_machine_from_outliving_its_lease(provider: AwsProvider, cloud: Cloud) -> None:
    made = ask(provider, wanted(provider))
    asked = [entry["params"] for entry in cloud.rehearsal.log() if entry["action"] == "CreateLaunchTemplate"][-1]
    data = {key.removeprefix("LaunchTemplateData."): value for key, value in asked.items() if key.startswith("LaunchTemplateData.")}
    assert base64.b64decode(data["UserData"]) == b"#cloud-config\n{}\n"
    assert data["InstanceInitiatedShutdownBehavior"] == "terminate" and data["MetadataOptions.HttpTokens"] == "required"
    kinds = [value for key, value in data.items() if key.endswith(".ResourceType")]
    assert kinds == ["instance", "volume"], "the fleet's own role may not tag an interface"
    assert not any(key.startswith(("ClientToken", "MinCount", "MaxCount", "InstanceMarketOptions")) for key in data)
    fleet = [entry["params"] for entry in cloud.rehearsal.log() if entry["action"] == "CreateFleet"][-1]
    assert (fleet["Type"], fleet["TerminateInstancesWithExpiration"], fleet["ValidUntil"]) == ("request", "true", "2030-01-01T00:04:00Z")
    assert fleet["ClientToken"] == made["fleet"].token and fleet["TargetCapacitySpecification.TotalTargetCapacity"] == "1"
    for params in (asked, fleet):
        keys = {value for key, value in params.items() if key.startswith("TagSpecification.1.Tag.") and key.endswith(".Key")}
        assert {"gpulease:lease", "gpulease:managed", "gpulease:deadline"} <= keys
    let_go(provider)


def test_none_for_want_of_room_is_told_apart_from_none_for_another_reason(provider: AwsProvider, cloud: Cloud) -> None:
    spec = wanted(provider)
    cloud.rehearsal.faults([{"capacity": {"us-east-1a": {"g6.xlarge": 0}}}])
    fleet = ask(provider, spec)["fleet"]
    with pytest.raises(NoCapacity, match="InsufficientInstanceCapacity") as none:
        wait_for(lambda: provider.made_by(fleet))
    assert none.value.provider_code == "InsufficientInstanceCapacity"
    cloud.rehearsal.faults([{"limits": {"us-east-1": {"L-DB2E81BA": 0}}}])
    fleet = ask(provider, spec)["fleet"]
    with pytest.raises(NotCreated, match="VcpuLimitExceeded") as no:
        wait_for(lambda: provider.made_by(fleet))
    assert not isinstance(no.value, NoCapacity), "a quota is the same for every offer"
    cloud.rehearsal.faults([{"limits": {"us-east-1": {"L-DB2E81BA": 8192}}, "capacity": {"us-east-1a": {"g6.xlarge": None}}}])
    let_go(provider)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"TerminateInstancesWithExpiration": False}, "TerminateInstancesWithExpiration is False, asked for True"),
        ({"ValidUntil": None}, "ValidUntil is None, asked for '2030-01-01T00:04:00Z'"),
        ({"Type": "maintain"}, "Type is 'maintain'"),
        ({"FleetState": "deleted_running"}, "FleetState is 'deleted_running'"),
        ({"TargetCapacitySpecification": {"TotalTargetCapacity": 2}}, "TotalTargetCapacity is 2"),
    ],
)
def test_a_fleet_that_is_no_guard_is_told_so_by_each_of_its_fields(change: dict[str, Any], words: str) -> None:
    from datetime import UTC, datetime

    from provisioner.providers.aws_fleet import differences

    ends = datetime(2030, 1, 1, 0, 4, tzinfo=UTC)
    asked = {"ValidUntil": ends, "TerminateInstancesWithExpiration": True, "Type": "request", "FleetState": "active"}
    shown = {**asked, "TargetCapacitySpecification": {"TotalTargetCapacity": 1}}
    assert differences(shown, ends) == []
    assert [text for text in differences({**shown, **change}, ends) if text.startswith(words)]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("launchSpecTemporarilyBlacklisted: InsufficientInstanceCapacity: not enough g6.xlarge", "InsufficientInstanceCapacity"),
        ("launchSpecUnusable: InsufficientInstanceCapacity and UnauthorizedOperation", "UnauthorizedOperation"),
        ("error: InvalidAMIID.NotFound: the image", "InvalidAMIID.NotFound"),
        ("spotInstanceCountLimitExceeded: ", "MaxSpotInstanceCountExceeded"),
        ("launchSpecTemporarilyBlacklisted: several attempts have failed; capacity may be insufficient", ""),
        ("information: NotInsufficientInstanceCapacityAtAll", ""),
        ("", ""),
    ],
)
def test_only_a_code_of_ec2s_own_is_believed(text: str, code: str) -> None:
    from provisioner.providers.aws_fleet import code_in

    assert code_in(text) == code


def test_a_lost_answer_is_found_by_tag_and_token(provider: AwsProvider, cloud: Cloud) -> None:
    spec, lease, made = wanted(provider), LEASE[:-1] + "k", {}
    token = f"abcdefgk-9-{'1' * 32}"
    for kind in provider.steps(spec)[:-1]:
        made[kind] = provider.create(kind, spec, lease=lease, token=f"abcdefgk-{next(_numbers)}-{'0' * 32}", made=made)
    cloud.rehearsal.faults([{"action": "CreateFleet", "kind": "lost"}])
    with pytest.raises(ProviderError):
        provider.create("fleet", spec, lease=lease, token=token, made=made)
    shown = wait_for(lambda: {r.kind: r.token for r in provider.inventory(lease).resources if r.kind == "instance"})
    assert shown == {"instance": token}
    assert {r.token for r in provider.inventory(lease).resources if r.kind == "fleet"} == {token}
    let_go(provider, lease)


def test_without_its_role_a_fleet_is_refused_and_so_is_its_create(provider: AwsProvider, cloud: Cloud) -> None:
    provider.check_fleet()
    spec = wanted(provider)
    cloud.rehearsal.faults([{"fleet_role": False}])
    with pytest.raises(RefusedError, match="no role AWSServiceRoleForEC2Fleet") as no:
        provider.check_fleet()
    assert "aws iam create-service-linked-role --aws-service-name ec2fleet.amazonaws.com" in no.value.next
    with pytest.raises(NotCreated, match="ServiceLinkedRoleCreationNotPermitted"):
        ask(provider, spec)
    cloud.rehearsal.faults([{"fleet_role": True}])
    let_go(provider)


def test_a_fleet_without_a_template_is_not_asked_for(provider: AwsProvider) -> None:
    with pytest.raises(NotCreated, match="no launch template"):
        provider.create("fleet", replace(wanted(provider)), lease=LEASE, token="t-1-x", made={})


def test_what_its_own_role_may_not_launch_is_not_permitted_and_was_not_made(provider: AwsProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    from provisioner.providers import aws_fleet
    from provisioner.providers.aws_client import Answer

    said = {"HistoryRecords": [{"EventInformation": {"EventSubType": "iamFleetRoleInvalid", "EventDescription": "may not launch"}}]}
    monkeypatch.setattr(provider.account, "ask", lambda *a, **k: Answer({}, "r", None))
    monkeypatch.setattr(provider.account, "pages", lambda *a, **k: [Answer(said, "r", None)])
    with pytest.raises(NotPermitted) as no:
        aws_fleet.made_by(provider.account, Resource("fleet", "fleet-1", Phase.HERE, facts={}))
    assert isinstance(no.value, NotCreated)
