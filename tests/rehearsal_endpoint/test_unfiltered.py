"""What is there besides: listed before and after through the provider, against a cloud in which somebody else works too."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provisioner import baseline
from provisioner.journal import Journal
from provisioner.ledger import LeaseFolder
from provisioner.model import Listed
from provisioner.providers import aws_unfiltered
from provisioner.providers.aws import AwsProvider
from provisioner.scope import SystemClock

from .conftest import Cloud

LEASE = "r-20261121t140210z-7f3a9k2m"


@pytest.fixture
def lease(tmp_path: Path) -> Iterator[tuple[LeaseFolder, Journal]]:
    folder = LeaseFolder(tmp_path / LEASE)
    folder.path.mkdir(mode=0o700)
    with Journal(folder.journal, SystemClock()) as journal:
        journal.append("genesis", {"lease": LEASE, "provider": "aws"})
        yield folder, journal


@pytest.fixture
def provider(cloud: Cloud) -> AwsProvider:
    return AwsProvider("us-east-1", endpoint=cloud.rehearsal.endpoint)


def volume(cloud: Cloud, **tags: str) -> str:
    said = [{"ResourceType": "volume", "Tags": [{"Key": f"gpulease:{key}", "Value": value} for key, value in tags.items()]}]
    return str(cloud.ec2.create_volume(AvailabilityZone="us-east-1a", Size=1, **({"TagSpecifications": said} if tags else {}))["VolumeId"])


def row(journal: Journal, kind: str, name: str) -> dict[str, Any]:
    last = next(e["body"] for e in reversed(journal.entries) if e["kind"] == kind)
    return next(dict(one) for one in last["classes"] if one["class"] == name)


def of(listed: tuple[Listed, ...], kind: str) -> Listed:
    return next(one for one in listed if one.kind == kind)


def test_what_is_new_is_counted_less_what_is_this_runs_or_another_leases(
    cloud: Cloud, provider: AwsProvider, lease: tuple[LeaseFolder, Journal]
) -> None:
    folder, journal = lease
    old = volume(cloud)
    baseline.take(folder, provider, journal, time.sleep)
    theirs, ours = volume(cloud), volume(cloud, lease=LEASE, managed="true")
    volume(cloud, lease="r-20261121t140210z-zzzzzzzz", managed="true")
    baseline.look_again(folder, provider, journal, time.sleep)
    assert {"checked": True, "ours": 1, "newUnexplained": 1}.items() <= row(journal, "unfiltered", "volume").items()
    assert row(journal, "unfiltered", "security-group")["newUnexplained"] == 0
    assert "1 volume in us-east-1" in baseline.words(journal.entries)
    # Other people's ids are the user's to see, and nobody's to publish.
    assert [one["id"] for one in json.loads((folder.path / baseline.FOUND).read_text())["new"]] == [theirs]
    assert not any(id.encode() in folder.journal.read_bytes() for id in (old, theirs, ours))
    assert (folder.path / baseline.FILE).stat().st_mode & 0o777 == 0o600
    baseline.look_again(folder, provider, journal, time.sleep)
    assert sum(e["kind"] == "unfiltered" for e in journal.entries) == 1, "a later look would find what has nothing to do with this run"


def test_every_kind_that_a_look_lists_is_listed_here_and_schedules_of_every_group(cloud: Cloud, provider: AwsProvider) -> None:
    seen = provider.everything(within=30.0, sleep=time.sleep)
    assert {one.kind for one in seen} == {one.kind for one in provider.inventory(LEASE).looked_in}
    assert not [one for one in seen if one.unchecked]


def test_what_may_not_be_listed_is_not_looked_at_and_never_nothing(
    cloud: Cloud, provider: AwsProvider, lease: tuple[LeaseFolder, Journal]
) -> None:
    folder, journal = lease
    cloud.rehearsal.faults([{"action": "DescribeVolumes", "kind": "error", "code": "UnauthorizedOperation"}])
    baseline.take(folder, provider, journal, time.sleep)
    assert not row(journal, "baseline", "volume")["checked"]
    volume(cloud)
    cloud.rehearsal.faults([{"action": "DescribeSnapshots", "kind": "error", "code": "UnauthorizedOperation"}])
    baseline.look_again(folder, provider, journal, time.sleep)
    for kind, words in (("volume", "before the launch: "), ("snapshot", "AWS answered UnauthorizedOperation")):
        seen = row(journal, "unfiltered", kind)
        assert not seen["checked"] and "newUnexplained" not in seen and words in seen["reason"], seen
    whole = {"class": "instance", "regions": ["us-east-1"], "checked": True, "ours": 0, "newUnexplained": 0}
    assert row(journal, "unfiltered", "instance") == whole


def test_a_line_of_the_journal_has_room_for_every_region(cloud: Cloud, lease: tuple[LeaseFolder, Journal]) -> None:
    folder, journal = lease
    places = [f"{part}-{side}-{n}" for part in ("us", "eu", "ap", "sa") for side in ("east", "west", "southeast") for n in (1, 2)]
    many = AwsProvider(places[0], endpoint=cloud.rehearsal.endpoint, regions=places)
    baseline.take(folder, many, journal, time.sleep)
    baseline.look_again(folder, many, journal, time.sleep)
    assert {region for one in journal.entries[-1]["body"]["classes"] for region in one["regions"]} == {*places}


def test_too_many_are_not_looked_at(cloud: Cloud, provider: AwsProvider) -> None:
    for _ in range(3):
        volume(cloud)
    seen = aws_unfiltered.listed([provider.account], within=30.0, sleep=time.sleep, most=2)
    assert of(seen, "volume") == Listed("volume", "us-east-1", unchecked="too many: more than 2")


def test_nobody_waits_for_an_answer_that_does_not_come(cloud: Cloud, provider: AwsProvider) -> None:
    provider.everything(within=30.0, sleep=time.sleep)  # the clients are made
    cloud.rehearsal.faults([{"action": "DescribeVolumes", "kind": "hang", "seconds": 20.0}])
    asked: list[float] = []

    def nap(seconds: float) -> None:
        asked.append(seconds)
        time.sleep(seconds)

    seen = aws_unfiltered.listed([provider.account], within=1.0, sleep=nap)
    assert of(seen, "volume").unchecked == "no answer within 1 s"
    assert sum(asked) < 5, "the answer takes twenty"


def test_a_first_list_that_is_another_file_now_is_none(cloud: Cloud, provider: AwsProvider, lease: tuple[LeaseFolder, Journal]) -> None:
    folder, journal = lease
    baseline.take(folder, provider, journal, time.sleep)
    (folder.path / baseline.FILE).write_bytes((folder.path / baseline.FILE).read_bytes().replace(b'"classes"', b'"classes" '))
    with pytest.raises(ValueError, match="is not the file"):
        baseline.look_again(folder, provider, journal, time.sleep)
    assert not baseline.words(journal.entries)
