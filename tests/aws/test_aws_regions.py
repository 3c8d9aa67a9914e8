"""One provider over several regions: what was made says where it is, and a region that does not answer is never empty."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import AMAZON, IMAGE_NAME, Wire

from provisioner.errors import ProviderError
from provisioner.model import LaunchSpec, Phase, Resource
from provisioner.providers import connect
from provisioner.providers.aws import AwsProvider
from provisioner.providers.aws_errors import NotAsked

LEASE = "r-20261121t140000z-abcdefgh"


@pytest.fixture
def both(wire: Wire) -> AwsProvider:
    from moto.ec2.models import ec2_backends

    made = ec2_backends["123456789012"]["us-west-2"].register_image(name=IMAGE_NAME, description="")
    made.owner_id, made.root_device_name, made.state = AMAZON, "/dev/sda1", "available"
    return AwsProvider("us-east-1", endpoint=wire.url, regions=("us-west-2",))


def west(spec: LaunchSpec) -> LaunchSpec:
    return replace(spec, offer=replace(spec.offer, region="us-west-2", zone="us-west-2b"))


def rent(provider: AwsProvider, spec: LaunchSpec, lease: str = LEASE) -> Resource:
    group = provider.create("security-group", spec, lease=lease, token=f"g-{spec.offer.region}", made={})
    return provider.create("instance", spec, lease=lease, token=f"t-{spec.offer.region}", made={"security-group": group})


def test_what_is_made_is_made_where_the_offer_is(both: AwsProvider, spec: LaunchSpec) -> None:
    machine = rent(both, west(spec))
    assert machine.region == "us-west-2" and machine.facts["zone"] == "us-west-2b"
    assert {r.region for r in both.inventory(LEASE).resources} == {"us-west-2"}
    assert not AwsProvider("us-east-1", endpoint=both.account.endpoint).inventory(LEASE).resources


def test_an_offer_of_another_region_is_never_asked_for(both: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    there = replace(spec, offer=replace(spec.offer, region="eu-west-1", zone=None))
    with pytest.raises(NotAsked, match="eu-west-1"):
        both.create("security-group", there, lease=LEASE, token="g", made={})
    assert not wire.sent("CreateSecurityGroup")


def test_one_look_shows_every_region_and_names_each(both: AwsProvider, spec: LaunchSpec) -> None:
    rent(both, spec)
    rent(both, west(spec))
    found = both.inventory(LEASE)
    assert {r.region for r in found.resources if r.kind == "instance"} == {"us-east-1", "us-west-2"}
    looked = [(one.kind, one.region) for one in found.looked_in]
    assert len(set(looked)) == len(looked) and {region for _, region in looked} == {"us-east-1", "us-west-2"}
    assert all(r.lease == LEASE for r in found.resources)


def test_a_thing_is_asked_about_and_removed_where_it_is(both: AwsProvider, spec: LaunchSpec) -> None:
    machine = rent(both, west(spec))
    assert both.observe(machine).state == "running" and not [
        line for line in both.verify_launch(machine, west(spec)) if " of eni-" not in line
    ]  # moto forgets those tags
    both.remove(machine)
    assert both.observe(machine).phase is Phase.GONE
    with pytest.raises(ProviderError, match="eu-west-1 is not among"):
        both.observe(replace(machine, region="eu-west-1"))


def test_a_record_without_a_region_is_of_the_first_one(both: AwsProvider, spec: LaunchSpec) -> None:
    machine = rent(both, spec)
    assert both.observe(replace(machine, region="")).region == "us-east-1"


@pytest.mark.parametrize("answer", ["403 UnauthorizedOperation", "503 RequestLimitExceeded", "drop"])
def test_one_region_that_does_not_answer_makes_the_whole_look_fail_and_is_named(both: AwsProvider, wire: Wire, answer: str) -> None:
    wire.fault("us-west-2 DescribeInstances", *[answer] * 3)
    with pytest.raises(ProviderError, match="us-west-2: DescribeInstances"):
        both.inventory(LEASE)


def test_the_anchor_goes_to_every_region(both: AwsProvider, wire: Wire) -> None:
    both.anchor = "run/r jh/abc"
    both.inventory(LEASE)
    assert all("jh/abc" in request.agent for request in wire.requests)


def test_settings_of_an_earlier_version_still_reach_the_one_region(wire: Wire) -> None:
    old = {"region": "us-west-2", "profile": None, "endpoint": wire.url}
    provider = connect("aws", old)
    assert provider.settings() == {**old, "regions": ["us-west-2"]}
    again = connect("aws", provider.settings())
    assert again.settings() == provider.settings()


def test_offers_of_a_region_without_prices_do_not_hide_those_of_another(both: AwsProvider) -> None:
    from provisioner.model import Requirements

    assert {offer.region for offer in both.offers(Requirements(gpu="L4"))} == {"us-east-1"}
