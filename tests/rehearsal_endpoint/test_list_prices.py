"""Prices of a proof against a price list that is asked over the wire: the rehearsal's, which stands in for AWS's."""

from __future__ import annotations

from pathlib import Path

import pytest

import cost
from cost import UnitPrice
from provisioner import list_prices
from provisioner.commands import verify_proof
from provisioner.evidence import verify
from provisioner.evidence.listprice import Lists
from provisioner.model import Requirements
from provisioner.providers.aws import AwsProvider
from provisioner.providers.aws_prices import newest
from tests.evidence.bundles import copy, write
from tests.evidence.tape import Tape

from .conftest import Cloud


def lists(cloud: Cloud) -> Lists:
    return list_prices.lists(True, endpoint=cloud.rehearsal.endpoint)


def asked(lists: Lists, component: str, type: str, region: str) -> UnitPrice | str:
    assert lists.asked is not None
    return lists.asked(component, type, region)


def test_a_price_comes_with_the_day_since_which_it_is_on_the_list(cloud: Cloud) -> None:
    found = asked(lists(cloud), "instance", "g6.xlarge", "us-east-1")
    assert found == UnitPrice(804_800, "instance", "AWS Pricing API", newest())
    assert asked(lists(cloud), "disk", "", "us-east-1") == UnitPrice(80_000, "disk", "AWS Pricing API", newest())
    for component, type, region, price in (
        ("instance", "g6.xlarge", "eu-west-1", 804_800),
        ("instance", "x9.none", "us-east-1", None),
        ("disk", "", "us-east-1", 80_000),
        ("disk", "", "mars-north-1", None),
    ):
        known = list_prices.shipped(component, type, region)
        assert (known and known.micro_usd) == price


@pytest.mark.parametrize("region", ["us-east-1", "us-west-2"])
def test_what_a_run_was_quoted_is_what_the_list_says_to_the_last_digit(region: str, cloud: Cloud, tmp_path: Path) -> None:
    offer = AwsProvider(region, endpoint=cloud.rehearsal.endpoint).offers(Requirements(gpu="L4", types=("g6.xlarge",)))[0]
    lines = cost.quote(offer.price, region=region, disk_gib=73, beside=offer.beside).rates()["lines"]
    for n, codes in ((None, set()), (0, {"E402"}), (1, {"E402"}), (2, {"E402"})):
        told = [line | {"asOf": "2027-01-01", "microUsdPerHour": line["microUsdPerHour"] - (at == n)} for at, line in enumerate(lines)]
        tape = Tape().genesis(quote={"lines": told}).guards().launch(diskGib=73, region=region)
        report = verify.verify(write(tmp_path / str(n), tape.end("failed", {})), lists=lists(cloud))
        assert {p.code for p in report.problems} == codes, report.text()
        assert not [w for w in report.warnings if w.code.startswith("W40")]


def test_a_list_that_may_not_be_asked_or_has_no_such_thing_says_why(cloud: Cloud, tmp_path: Path) -> None:
    here = lists(cloud)
    assert asked(here, "instance", "x9.none", "us-east-1") == "AWS's price list has none for it in us-east-1"
    assert asked(here, "instance", "g6.xlarge", "cn-north-1") == "the prices of cn-north-1 are not in the list that can be asked"
    cloud.rehearsal.faults([{"action": "GetProducts", "kind": "error", "code": "AccessDeniedException", "times": None}])
    refused = lists(cloud)
    assert str(asked(refused, "instance", "g6.xlarge", "us-east-1")).startswith("AWS's price list could not be asked: ")
    report = verify.verify(copy("normal", tmp_path / "b"), lists=refused)
    assert report.exit == 0 and [w.code for w in report.warnings if w.code.startswith("W40")] == ["W401"] * 3
    cloud.rehearsal.faults([])


def test_the_command_asks_nobody_offline_and_nobody_about_a_simulated_run(tmp_path: Path) -> None:
    for story, online, said in (("rehearsal", True, {"W401"}), ("rehearsal", False, set()), ("normal", False, set())):
        code, record, _ = verify_proof(copy(story, tmp_path / f"{story}{online}"), "client", online=online)
        assert code == 0 and {w["code"] for w in record["warnings"] if w["code"].startswith("W40")} == said
