"""What a machine is asked to be, and that it is asked once."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from conftest import Wire, forget_clients

from cost import Price
from provisioner.errors import NoCapacity, NotCreated, NotPermitted, ProviderError, RefusedError
from provisioner.model import LaunchSpec, Phase, Resource
from provisioner.providers.aws import AwsProvider
from provisioner.providers.aws_client import Account, _client
from provisioner.providers.aws_images import PARAMETERS, image_for
from provisioner.providers.aws_inventory import MADE
from provisioner.secret import Secret

LEASE = "r-20261121t140000z-abcdefgh"
TOKEN = "t" * 64


def group(provider: AwsProvider, spec: LaunchSpec, lease: str = LEASE) -> Resource:
    return provider.create("security-group", spec, lease=lease, token="g-1", made={})


def machine(provider: AwsProvider, spec: LaunchSpec, lease: str = LEASE, token: str = TOKEN) -> Resource:
    return provider.create("instance", spec, lease=lease, token=token, made={"security-group": group(provider, spec, lease)})


def tags_sent(params: dict[str, str], prefix: str) -> dict[str, str]:
    return {params[f"{prefix}.Tag.{n}.Key"]: params[f"{prefix}.Tag.{n}.Value"] for n in range(1, 9) if f"{prefix}.Tag.{n}.Key" in params}


def test_one_call_makes_a_machine_that_ends_by_itself(provider: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    made = machine(provider, spec)
    (sent,) = wire.sent("RunInstances")
    p = sent.params
    assert p["ClientToken"] == TOKEN == made.token
    assert (p["MinCount"], p["MaxCount"]) == ("1", "1")
    assert p["InstanceInitiatedShutdownBehavior"] == "terminate" and p["DisableApiTermination"] == "false"
    assert p["MetadataOptions.HttpTokens"] == "required" and p["MetadataOptions.HttpPutResponseHopLimit"] == "1"
    disk = {k.rpartition(".")[2]: v for k, v in p.items() if k.startswith("BlockDeviceMapping.1.")}
    assert disk == {"DeviceName": "/dev/sda1", "DeleteOnTermination": "true", "Encrypted": "true", "VolumeType": "gp3", "VolumeSize": "60"}
    assert p["NetworkInterface.1.AssociatePublicIpAddress"] == p["NetworkInterface.1.DeleteOnTermination"] == "true"
    assert p["NetworkInterface.1.SubnetId"].startswith("subnet-") and p["NetworkInterface.1.SecurityGroupId.1"].startswith("sg-")
    assert base64.b64decode(p["UserData"]) == spec.user_data.reveal_bytes()
    assert not any(k.startswith(("KeyName", "IamInstanceProfile", "InstanceMarketOptions")) for k in p)


def test_everything_made_has_its_tags_at_birth(provider: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    machine(provider, spec)
    wanted = {"gpulease:lease": LEASE, "gpulease:deadline": spec.deadline, "gpulease:managed": "true", "Name": f"gpulease {LEASE}"}
    p = wire.sent("RunInstances")[0].params
    assert [p[f"TagSpecification.{n}.ResourceType"] for n in (1, 2, 3)] == ["instance", "volume", "network-interface"]
    assert all(tags_sent(p, f"TagSpecification.{n}") == wanted for n in (1, 2, 3))
    g = wire.sent("CreateSecurityGroup")[0].params
    assert tags_sent(g, "TagSpecification.1") == {**wanted, "gpulease:token": "g-1"}
    assert not wire.sent("CreateTags")


def test_the_answer_is_kept_as_evidence(provider: AwsProvider, spec: LaunchSpec) -> None:
    made = machine(provider, spec)
    assert made.id.startswith("i-") and made.phase is Phase.COMING and made.state == "pending" and made.lease == LEASE
    assert made.facts["type"] == "g6.xlarge" and made.facts["zone"] == "us-east-1b" and made.facts["diskGib"] == 60
    assert str(made.facts["requestId"]).startswith("req-")
    assert str(made.facts["providerDate"]).endswith("Z") and str(made.facts["launchTime"]).endswith("Z")


def test_the_group_lets_one_address_in_and_no_more(provider: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    made = group(provider, spec)
    seen = provider.account.ask("DescribeSecurityGroups", GroupIds=[made.id]).data["SecurityGroups"][0]
    (rule,) = seen["IpPermissions"]
    assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 22, 22)
    assert [r["CidrIp"] for r in rule["IpRanges"]] == ["203.0.113.7/32"] and not rule["Ipv6Ranges"]
    assert seen["GroupName"] == f"gpulease-{LEASE}"


@pytest.mark.parametrize(
    "cidr", ["0.0.0.0/0", "203.0.113.0/24", "203.0.113.7/31", "0.0.0.0/32", "::/0", "2001:db8::1/128", "here", "", None]
)
def test_anything_but_one_ipv4_address_is_refused_before_anything_is_asked(
    provider: AwsProvider, spec: LaunchSpec, wire: Wire, cidr: str | None
) -> None:
    open_to_many = replace(spec, ingress_cidr=cidr)
    with pytest.raises(RefusedError, match="/32"):
        provider.steps(open_to_many)
    with pytest.raises(NotCreated):
        provider.create("security-group", open_to_many, lease=LEASE, token="t", made={})
    assert wire.requests == []


def test_what_cannot_be_asked_is_a_refusal_and_made_nothing(provider: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    for bad, words in [
        (replace(spec, user_data=Secret("x" * 16385)), "16385 bytes; EC2 takes 16384"),
        (replace(spec, offer=replace(spec.offer, region="eu-west-1")), "eu-west-1"),
        (replace(spec, reach="telepathy"), "telepathy"),
        (replace(spec, disk_gib=0), "0 GiB"),
        (replace(spec, deadline="tomorrow"), "RFC 3339"),
    ]:
        with pytest.raises(RefusedError, match=words) as e:
            provider.create("instance", bad, lease=LEASE, token="t", made={})
        assert isinstance(e.value, NotCreated) and e.value.code == 4
    with pytest.raises(NotCreated, match="65 characters"):
        provider.create("instance", spec, lease=LEASE, token="t" * 65, made={})
    with pytest.raises(NotCreated, match="no security group"):
        provider.create("instance", spec, lease=LEASE, token="t", made={})
    assert wire.requests == []


def test_user_data_of_exactly_the_limit_is_taken(provider: AwsProvider, spec: LaunchSpec) -> None:
    assert machine(provider, replace(spec, user_data=Secret("x" * 16384))).id


def test_a_group_the_user_has_is_used_and_never_made_or_changed(provider: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    theirs = provider.account.create("CreateSecurityGroup", GroupName="mine", Description="x").data["GroupId"]
    provider.account.change(
        "AuthorizeSecurityGroupIngress", GroupId=theirs, IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp="203.0.113.0/24"
    )
    wire.requests.clear()
    own = replace(spec, group=theirs)
    assert provider.steps(own) == ("instance",)
    provider.create("instance", own, lease=LEASE, token=TOKEN, made={})
    assert wire.sent("RunInstances")[0].params["NetworkInterface.1.SecurityGroupId.1"] == theirs
    assert not wire.sent("AuthorizeSecurityGroupIngress")


def test_a_disk_is_never_larger_than_what_was_quoted(provider: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    made = group(provider, spec)
    with pytest.raises(NotCreated, match="alone takes 15 GiB, and a disk of 14 GiB was quoted"):
        provider.create("instance", replace(spec, disk_gib=14), lease=LEASE, token=TOKEN, made={"security-group": made})
    assert not wire.sent("RunInstances")
    assert provider.image_gib(None, "us-east-1") == 15


def test_burstable_machines_cannot_bill_more_than_their_price(provider: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    machine(provider, replace(spec, offer=replace(spec.offer, type="t3.medium")))
    assert wire.sent("RunInstances")[0].params["CreditSpecification.CpuCredits"] == "standard"


def test_the_image_is_looked_up_once_and_an_id_is_launched(provider: AwsProvider, spec: LaunchSpec, wire: Wire, image: str) -> None:
    made = {"security-group": group(provider, spec)}
    machines = [provider.create("instance", spec, lease=LEASE, token=token, made=made) for token in ("1", "2")]
    assert [m.facts["imageId"] for m in machines] == [image, image]
    assert len(wire.sent("GetParameter")) == 1 and len(wire.sent("DescribeImages")) == 1


def publish(image: str) -> None:
    """The SSM parameter as AWS publishes it; moto lets nobody put one under /aws."""
    from moto.ssm.models import Parameter, ssm_backends

    backend = ssm_backends["123456789012"]["us-east-1"]
    parameter = Parameter(
        account_id="123456789012", name=PARAMETERS["x86_64"], value=image, parameter_type="String", description="", allowed_pattern=None,
        keyid=None, last_modified_date=0, version=1, data_type="text",
    )  # fmt: skip
    backend._parameters[PARAMETERS["x86_64"]].append(parameter)


def test_the_published_parameter_names_the_image_and_its_owner_is_checked(
    spec: LaunchSpec, wire: Wire, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moto.ec2.models import ec2_backends

    account = Account("us-east-1", endpoint=wire.url)
    publish(image)
    assert account.ask("GetParameter", service="ssm", Name=PARAMETERS["x86_64"]).data["Parameter"]["Value"] == image
    assert image_for(account, spec, {}).id == image
    monkeypatch.setattr(
        "provisioner.providers.aws_client._client", lambda service, region, *_: _client(service, region, None, wire.url, False)
    )
    account.endpoint = None  # the owner is checked wherever this is not a rehearsal
    assert image_for(account, spec, {}).id == image
    ec2_backends["123456789012"]["us-east-1"].amis[image].owner_id = "666666666666"
    with pytest.raises(NotCreated, match="belongs to account 666666666666"):
        image_for(account, spec, {})


def test_an_image_for_another_architecture_is_refused(provider: AwsProvider, spec: LaunchSpec, image: str) -> None:
    from moto.ec2.models import ec2_backends

    ec2_backends["123456789012"]["us-east-1"].amis[image].architecture = "arm64"
    with pytest.raises(RefusedError, match=r"is for arm64 machines and g6\.xlarge is x86_64"):
        machine(provider, replace(spec, image=image))


def test_a_look_up_that_fails_before_the_launch_made_nothing(provider: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    made = group(provider, spec)
    wire.fault("DescribeSubnets", *["drop"] * 3)
    with pytest.raises(NotCreated, match="DescribeSubnets"):
        provider.create("instance", spec, lease=LEASE, token=TOKEN, made={"security-group": made})
    assert not wire.sent("RunInstances")


def test_a_create_whose_connection_breaks_is_sent_once_and_not_called_refused(provider: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    made = group(provider, spec)
    for fault in ("drop", "lose"):
        wire.fault("RunInstances", fault, fault, fault)
        with pytest.raises(ProviderError) as e:
            provider.create("instance", spec, lease=LEASE, token=TOKEN, made={"security-group": made})
        assert not isinstance(e.value, NotCreated)
        wire.faults.clear()
    assert len(wire.sent("RunInstances")) == 2
    assert len(provider.inventory(LEASE).resources) >= 2  # what the second one made is there to be found


def test_reads_are_tried_three_times(provider: AwsProvider, wire: Wire) -> None:
    wire.fault("DescribeInstances", "drop", "drop")
    provider.inventory(LEASE)
    assert len(wire.sent("DescribeInstances")) == 3


def test_a_removal_is_sent_once(provider: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    made = machine(provider, spec)
    wire.fault("TerminateInstances", "503 RequestLimitExceeded", "503 RequestLimitExceeded")
    with pytest.raises(ProviderError, match="RequestLimitExceeded"):
        provider.remove(made)
    assert len(wire.sent("TerminateInstances")) == 1


def test_with_nobody_listening_nothing_can_have_been_made(spec: LaunchSpec) -> None:
    unreachable = AwsProvider("us-east-1", endpoint="http://127.0.0.1:9")
    with pytest.raises(NotCreated, match="EndpointConnectionError"):
        unreachable.create("security-group", spec, lease=LEASE, token="t", made={})


def test_the_anchor_of_the_moment_is_in_every_user_agent(provider: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    provider.anchor = f"run/{LEASE} jh/{'a' * 32}"
    made = machine(provider, spec)
    provider.anchor = f"run/{LEASE} jh/{'b' * 32}"
    provider.inventory(LEASE)
    provider.remove(made)
    provider.identity()
    heads = [request.agent.rpartition("jh/")[2] for request in wire.requests]
    first = min(n for n, request in enumerate(wire.requests) if request.action in [kind.list_call for kind in MADE])
    assert set(heads[:first]) == {"a" * 32} and set(heads[first:]) == {"b" * 32}
    assert all(" gpulease/" in r.agent and f"run/{LEASE}" in r.agent for r in wire.requests)
    assert {"GetParameter", "RunInstances", "GetCallerIdentity", "TerminateInstances"} <= {r.action for r in wire.requests}


def test_an_anchor_cannot_add_a_header(provider: AwsProvider, wire: Wire) -> None:
    provider.anchor = "run/x\r\nX-Evil: 1\njh/y"
    provider.identity()
    assert wire.requests[0].agent.endswith("run/x X-Evil: 1 jh/y")


def test_an_endpoint_elsewhere_is_refused() -> None:
    for endpoint in ("http://203.0.113.9:5000", "https://ec2.example.com", "ftp://127.0.0.1", "file:///etc/passwd"):
        with pytest.raises(RefusedError, match="not on this machine"):
            AwsProvider("us-east-1", endpoint=endpoint)
    with pytest.raises(RefusedError, match="not the name of an AWS region"):
        AwsProvider("us-east-1/../x")


def test_endpoints_from_the_environment_are_ignored(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
    real = AwsProvider("us-east-1")
    forget_clients()
    assert "amazonaws.com" in _client("ec2", "us-east-1", None, None, False).meta.endpoint_url
    assert not real.traits.simulated and real.traits.settle_s == 300


def test_a_group_of_that_name_is_adopted_only_when_it_is_this_leases(provider: AwsProvider, spec: LaunchSpec) -> None:
    first = group(provider, spec)
    again = provider.create("security-group", spec, lease=LEASE, token="g-2", made={})
    assert again.id == first.id and again.facts["adopted"] is True
    other = "r-20261121t140000z-zzzzzzzz"
    provider.account.create("CreateSecurityGroup", GroupName=f"gpulease-{other}", Description="not ours")
    with pytest.raises(NotCreated, match=r"InvalidGroup\.Duplicate"):
        group(provider, spec, other)


def test_once_the_group_exists_no_failure_is_called_a_refusal(provider: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    wire.fault("AuthorizeSecurityGroupIngress", "403 UnauthorizedOperation")
    with pytest.raises(NotPermitted) as e:
        group(provider, spec)
    assert not isinstance(e.value, NotCreated)
    assert [r.kind for r in provider.inventory(LEASE).resources] == ["security-group"]


def test_a_subnet_the_user_names_gets_its_group_in_the_same_network(provider: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    vpc = provider.account.create("CreateVpc", CidrBlock="10.0.0.0/16").data["Vpc"]["VpcId"]
    subnet = provider.account.create("CreateSubnet", VpcId=vpc, CidrBlock="10.0.1.0/24", AvailabilityZone="us-east-1b").data["Subnet"][
        "SubnetId"
    ]
    machine(provider, replace(spec, subnet=subnet))
    assert wire.sent("CreateSecurityGroup")[0].params["VpcId"] == vpc
    assert wire.sent("RunInstances")[0].params["NetworkInterface.1.SubnetId"] == subnet
    with pytest.raises(NoCapacity, match=f"the subnet {subnet} is in us-east-1b, and this offer is for us-east-1a"):
        group(provider, replace(spec, subnet=subnet, offer=replace(spec.offer, zone="us-east-1a")))


def seen(lines: list[str]) -> list[str]:
    """Without the tags of the interface, which moto forgets."""
    return [line for line in lines if not line.startswith("tag ") or " of eni-" not in line]


def test_a_launch_read_back_agrees_or_says_where_it_does_not(provider: AwsProvider, spec: LaunchSpec) -> None:
    from moto.ec2.models import ec2_backends

    made = machine(provider, spec)
    assert seen(provider.verify_launch(made, spec)) == []
    gid = provider.account.ask("DescribeSecurityGroups").data["SecurityGroups"]
    ours = next(g["GroupId"] for g in gid if g["GroupName"] == f"gpulease-{LEASE}")
    provider.account.change("AuthorizeSecurityGroupIngress", GroupId=ours, IpProtocol="tcp", FromPort=8000, ToPort=8000, CidrIp="0.0.0.0/0")
    ec2_backends["123456789012"]["us-east-1"].get_instance(made.id).instance_initiated_shutdown_behavior = "stop"
    provider.account.create("CreateTags", Resources=[made.id], Tags=[{"Key": "gpulease:deadline", "Value": "2026-11-21T16:00:00Z"}])
    found = seen(provider.verify_launch(made, spec))
    assert any("on shutdown is 'stop', asked for 'terminate'" in line for line in found)
    assert any("tcp 8000-8000 from 0.0.0.0/0" in line for line in found)
    assert any("tag gpulease:deadline of the instance" in line for line in found)
    assert len(found) == 3


def test_another_process_reads_a_launch_back_too(provider: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    made = machine(provider, spec)
    later = AwsProvider("us-east-1", endpoint=wire.url)
    assert seen(later.verify_launch(made, spec)) == []
    assert seen(later.verify_launch(made, replace(spec, user_data=Secret("another"))))[0].startswith("user-data is 'sha256:")


def test_a_spot_machine_is_asked_for_once_at_its_ceiling(provider: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    spot = replace(spec, offer=replace(spec.offer, spot=True, price=Price(310_005, "test", "2026-07-20")))
    machine(provider, spot)
    p = wire.sent("RunInstances")[0].params
    assert {k.removeprefix("InstanceMarketOptions."): v for k, v in p.items() if k.startswith("InstanceMarketOptions")} == {
        "MarketType": "spot",
        "SpotOptions.MaxPrice": "0.310005",
        "SpotOptions.SpotInstanceType": "one-time",
        "SpotOptions.InstanceInterruptionBehavior": "terminate",
    }
    assert tags_sent(p, "TagSpecification.4") == tags_sent(p, "TagSpecification.1")
    assert p["TagSpecification.4.ResourceType"] == "spot-instances-request"


def test_what_is_recorded_of_the_image_is_its_id_name_date_and_owner(provider: AwsProvider, spec: LaunchSpec, image: str) -> None:
    made = machine(provider, spec)
    assert made.facts["imageId"] == image and str(made.facts["imageName"]).startswith("Deep Learning Base OSS")
    assert str(made.facts["imageCreated"]).startswith("20") and made.facts["imageOwner"]


def test_an_arm_machine_boots_the_arm_image(provider: AwsProvider, spec: LaunchSpec, wire: Wire, image: str) -> None:
    with pytest.raises(RefusedError, match=r"no Deep Learning Base image"):
        machine(provider, replace(spec, offer=replace(spec.offer, type="g5g.xlarge")))
    assert wire.sent("GetParameter")[0].params == {} or "arm64" in str(wire.sent("GetParameter")[0])
    named = wire.sent("DescribeImages")[0].params
    assert named["Filter.1.Value.1"] == "Deep Learning ARM64 Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) *"


def test_a_zone_without_a_default_subnet_is_no_reason_to_ask_nowhere_else(provider: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    zone = str(spec.offer.zone or "us-east-1a")
    where = [{"Name": "availability-zone", "Values": [zone]}, {"Name": "default-for-az", "Values": ["true"]}]
    for subnet in provider.account.ask("DescribeSubnets", Filters=where).data["Subnets"]:
        provider.account.change("DeleteSubnet", SubnetId=subnet["SubnetId"])
    with pytest.raises(NoCapacity, match=f"no default subnet in {zone}"):
        machine(provider, replace(spec, offer=replace(spec.offer, zone=zone)))
    assert not wire.sent("RunInstances")
