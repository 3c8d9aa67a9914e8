"""Reaping on EC2's own API: what is ours and overdue goes, in every region; nothing else is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import Wire

from provisioner.errors import ProviderError
from provisioner.providers.aws import AwsProvider
from provisioner.providers.aws_inventory import MADE, OTHER
from provisioner.reap_command import reap_leases

ONE, TWO = "r-20261121t140000z-abcdefgh", "r-20261121t140000z-zzzzzzzz"
PAST = "2026-01-01T00:00:00Z"
LOOKS = {kind.list_call for kind in (*MADE, *OTHER)}
EAST, WEST = "us-east-1", "us-west-2"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("provisioner.providers.aws.REHEARSED_SETTLE_S", 0.5)


def tags(lease: str, **more: str) -> dict[str, str]:
    return {"gpulease:lease": lease, "gpulease:managed": "true", "gpulease:deadline": PAST, **more}


def put(wire: Wire, region: str, tagged: dict[str, str], count: int = 1) -> list[str]:
    from moto.ec2.models import ec2_backends

    specifications = [{"ResourceType": "instance", "Tags": [{"Key": k, "Value": v} for k, v in tagged.items()]}] if tagged else []
    image = ec2_backends["123456789012"][region].register_image(name=f"x{len(wire.requests)}", description="").id
    account = AwsProvider(region, endpoint=wire.url).account
    made = account.create(
        "RunInstances", ImageId=image, MinCount=count, MaxCount=count, InstanceType="g6.xlarge", TagSpecifications=specifications
    )
    return [one["InstanceId"] for one in made.data["Instances"]]


def running(wire: Wire, region: str) -> list[str]:
    account = AwsProvider(region, endpoint=wire.url).account
    pages = account.pages("DescribeInstances", 200, Filters=[{"Name": "instance-state-name", "Values": ["running"]}])
    return [i["InstanceId"] for page in pages for r in page.data["Reservations"] for i in r["Instances"]]


def go(wire: Wire, *regions: str, names: tuple[str, ...] = (), really: bool = True) -> tuple[int, dict[str, Any], str]:
    return reap_leases(list(names), really, list(regions), None, wire.url)


def test_what_is_overdue_goes_in_every_region_and_what_is_not_ours_stays(wire: Wire) -> None:
    put(wire, EAST, tags(ONE))
    put(wire, WEST, tags(TWO))
    stay = [
        *put(wire, EAST, {}),
        *put(wire, EAST, {"Name": f"gpulease {ONE}"}),
        *put(wire, EAST, {"gpulease:lease": ONE}),  # without the mark that it is managed
        *put(wire, EAST, {**tags(ONE), "gpulease:managed": "false"}),
        *put(wire, EAST, {"gpulease:Lease": ONE, "gpulease:Managed": "true", "gpulease:deadline": PAST}),
        *put(wire, EAST, tags("r-mine")),
        *put(wire, EAST, tags("*")),
        *put(wire, EAST, tags(ONE.upper())),
        *put(wire, EAST, tags(ONE[:-1] + "y", **{"gpulease:deadline": "2099-01-01T00:00:00Z"})),
    ]
    code, record, text = go(wire, EAST, WEST)
    assert {(f["lease"], f["verdict"]) for f in record["leases"] if f["due"]} == {(ONE, "released"), (TWO, "released")}
    assert code == 0 and record["unchecked"] == [] and record["regions"] == [EAST, WEST], text
    assert not running(wire, WEST)
    # The two that carry our lease's name and not our mark are the lease's, once the lease is let go of.
    assert set(stay) - set(running(wire, EAST)) == {stay[2], stay[3]}


def test_dry_nothing_is_sent_that_changes_anything(wire: Wire) -> None:
    (machine,) = put(wire, EAST, tags(ONE))
    wire.requests.clear()
    code, record, text = go(wire, EAST, really=False)
    assert code == 21 and record["leases"][0]["due"] and "nothing was touched" in text
    assert f"gpulease reap --go --region {EAST} --endpoint {wire.url}" in text
    assert all(request.action in LOOKS or request.action.startswith("GET ") for request in wire.requests)
    assert running(wire, EAST) == [machine]


@pytest.mark.parametrize("answer", ["403 UnauthorizedOperation", "403 AccessDenied", "drop", "503 RequestLimitExceeded"])
def test_a_region_that_does_not_answer_is_said_and_the_others_are_cleared(answer: str, wire: Wire) -> None:
    put(wire, EAST, tags(ONE))
    (there,) = put(wire, WEST, tags(TWO))
    wire.fault(f"{WEST} DescribeInstances", *[answer] * 3)
    code, record, text = go(wire, EAST, WEST)
    assert code == 20 and [one["region"] for one in record["unchecked"]] == [WEST] and f"UNCHECKED {WEST}: DescribeInstances" in text
    wire.faults.clear()
    assert not running(wire, EAST) and running(wire, WEST) == [there]


def test_a_kind_that_may_not_be_listed_is_named(wire: Wire) -> None:
    wire.fault("DescribeHosts", "403 UnauthorizedOperation")
    code, record, text = go(wire, EAST)
    assert (
        code == 0 and "UnauthorizedOperation" in record["unlistedKinds"]["dedicated-host"] and "dedicated-host could not be listed" in text
    )


def test_a_thousand_and_more_are_seen_to_the_last_page(wire: Wire) -> None:
    from moto.ec2.models import ec2_backends

    put(wire, EAST, tags(ONE))  # moto turns pages by the launch, not by the machine
    backend = ec2_backends["123456789012"][EAST]
    image = next(iter(backend.describe_images(owners=["self"]))).id
    for _ in range(1000):
        backend.run_instances(image, 1, "", [], instance_type="g6.xlarge", is_instance_type_default=False, tags={"instance": tags(ONE)})
    wire.requests.clear()
    _, record, _ = go(wire, EAST, really=False)
    assert sum(r["class"] == "instance" for r in record["leases"][0]["resources"]) == 1001
    assert len(wire.sent("DescribeInstances")) == 6


def test_every_region_of_the_account_is_asked_and_those_it_never_turned_on_are_named(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    from provisioner.providers.aws_client import Account, Answer

    ask = Account.ask

    def answered(self: Account, operation: str, **params: Any) -> Answer:
        found = ask(self, operation, **params)
        if operation == "DescribeRegions":
            assert params == {"AllRegions": True}
            names = {EAST: "opt-in-not-required", WEST: "opted-in", "me-south-1": "not-opted-in"}
            return Answer({"Regions": [{"RegionName": n, "OptInStatus": s} for n, s in names.items()]}, "req-1", None)
        return found

    monkeypatch.setattr(Account, "ask", answered)
    _, record, text = go(wire, really=False)
    assert (
        record["regions"] == [EAST, WEST]
        and record["notOptedIn"] == ["me-south-1"]
        and "not opted in, so not looked at: me-south-1" in text
    )
    assert {request.region for request in wire.requests} == {EAST, WEST}


FUTURE = "2099-01-01T00:00:00Z"


def test_what_is_in_time_is_counted_with_its_time_and_the_command_that_ends_it_now(wire: Wire) -> None:
    put(wire, EAST, tags(ONE, **{"gpulease:deadline": FUTURE}))
    put(wire, EAST, tags(TWO, **{"gpulease:deadline": "2099-01-02T00:00:00Z"}))
    again = f"gpulease reap {ONE} --go --region {EAST} --endpoint {wire.url}"
    code, _, text = go(wire, EAST)
    assert code == 0 and "2 leases are in time and left alone, until 2099-01-01 00:15 UTC at the earliest" in text and again in text
    code, _, text = go(wire, EAST, names=(ONE[-8:],), really=False)
    assert code == 21 and "nothing was touched" in text and again in text and "overdue" not in text and TWO not in text
    code, record, text = go(wire, EAST, names=(ONE[-8:],))
    assert code == 0 and record["leases"][0]["verdict"] == "released" and "in time" not in text
    code, record, text = go(wire, EAST, names=(ONE,))
    assert code == 0 and record["absent"] == [ONE] and record["leases"] == [] and f"nothing of {ONE} was seen in {EAST}" in text


def test_a_lease_of_which_nothing_is_shown_and_whose_journal_here_is_open_is_not_called_done(wire: Wire) -> None:
    from provisioner import ledger

    ledger.create({"provider": "aws", "settings": {"region": EAST}, "simulated": True}, ONE)
    assert f"  gpulease release {ONE}" in go(wire, EAST, names=(ONE,))[2]


def test_nothing_is_wider_than_eighty_columns(wire: Wire) -> None:
    from provisioner.model import Phase, Resource
    from provisioner.providers.aws_inventory import MADE
    from provisioner.reap import Found, Reaped
    from provisioner.reap_command import _reap_text

    kinds = [kind.name for kind in (*MADE, *OTHER)]
    many = tuple(Resource(kind, f"x-{n}", Phase.HERE, region=f"us-west-{n % 3}") for n, kind in enumerate(kinds))
    found = Found(ONE, FUTURE, many, "no deadline", False, "its deadline tag is not a time: name it to let go of it, " * 3)
    text = _reap_text(Reaped((found,), (EAST,), (), {}, 9), ["me-south-1"] * 20, [], named=False, go=True, took_ms=1, simulated=True)
    assert max(map(len, text.splitlines())) <= 80 and all(kind in text for kind in kinds), text


def test_without_a_region_anywhere_the_first_is_asked_which_there_are(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    from provisioner import providers

    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    connect = providers.connect
    # Without --endpoint, as a job in the cloud calls it; only the address is the wire's.
    monkeypatch.setattr(providers, "connect", lambda name, settings: connect(name, {**settings, "endpoint": wire.url}))
    code, record, _ = reap_leases([], False, [], None, None)
    assert code == 0 and {EAST, WEST} <= set(record["regions"]) and wire.sent("DescribeRegions")[0].region == EAST
    wire.fault("DescribeRegions", "401 AuthFailure")
    with pytest.raises(ProviderError) as e:
        reap_leases([], False, [], None, None)
    assert "GovCloud or China" in e.value.why and "--region us-gov-west-1" in e.value.next
    monkeypatch.setenv("AWS_DEFAULT_REGION", WEST)
    wire.fault("DescribeRegions", "401 AuthFailure")
    with pytest.raises(ProviderError) as e:
        reap_leases([], False, [], None, None)
    assert "GovCloud" not in e.value.why and wire.sent("DescribeRegions")[-1].region == WEST
