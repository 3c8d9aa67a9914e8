"""A price that was made up before the launch, against lists that its maker did not write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cost import UnitPrice
from provisioner.evidence import verify
from provisioner.evidence.listprice import FACTOR, Lists
from provisioner.evidence.outcome import Report
from tests.evidence import test_forgeries_by_tier as tiers
from tests.evidence.amazon import PINNED
from tests.evidence.bundles import copy, write
from tests.evidence.tape import Tape

LISTED = {"instance": 804_800, "disk": 80_000, "public-ipv4": 5_000}


def shipped(component: str, type: str, region: str) -> UnitPrice | None:
    known = component == "disk" or type == "g6.xlarge"
    return UnitPrice(LISTED[component], component, "snapshot", "2026-10-01") if known else None


def amazon(since: str = "2026-11-01", **prices: Any) -> Callable[[str, str, str], UnitPrice | str]:
    def asked(component: str, type: str, region: str) -> UnitPrice | str:
        assert region == "us-east-1" and type == ("g6.xlarge" if component == "instance" else "")
        said = prices.get(component.replace("-", "_"), LISTED[component])
        return UnitPrice(said, component, "AWS", since) if isinstance(said, int) else str(said)

    return asked


def quoted(price: int, as_of: str = "2026-11-18") -> Tape:
    """A run that was reckoned at that price from its first line on."""
    lines = [
        {"name": "instance", "microUsdPerHour": price, "source": "AWS Pricing API, on-demand Linux, us-east-1", "asOf": as_of},
        {"name": "public-ipv4", "microUsdPerHour": 5_000, "source": "AWS Pricing API", "asOf": as_of},
    ]
    return Tape().genesis(quote={"lines": lines}).guards().launch().run().release().quiet().verdict().end(files={})


def codes(report: Report) -> list[str]:
    return [p.code for p in (*report.problems, *report.warnings) if p.code in ("E402", "W401", "W402", "W403")]


def test_a_price_made_up_before_the_launch_passes_until_aws_is_asked(tmp_path: Path) -> None:
    cheap = write(tmp_path / "b", quoted(404_800))
    assert verify.verify(cheap).exit == 0 and not codes(verify.verify(cheap))
    found = verify.verify(cheap, lists=Lists(shipped, amazon()))
    assert found.exit == 1 and codes(found) == ["E402"]
    assert found.problems[0].message == (
        "cost: price 0.4048 USD/h for g6.xlarge in us-east-1 is not AWS's public price on 2026-11-18 (0.8048 USD/h)."
    )
    assert next(layer for layer in found.layers if layer.name == "cost").state == "failed"
    assert verify.verify(write(tmp_path / "true", quoted(804_800)), lists=Lists(shipped, amazon())).exit == 0


@pytest.mark.parametrize("price", [804_799, 804_801, 1, 8_048_000])
def test_a_millionth_of_a_dollar_is_a_difference(price: int, tmp_path: Path) -> None:
    assert codes(verify.verify(write(tmp_path / "b", quoted(price)), lists=Lists(shipped, amazon()))) == ["E402"]


def test_a_list_that_is_younger_than_the_price_contradicts_nothing(tmp_path: Path) -> None:
    found = verify.verify(write(tmp_path / "b", quoted(404_800)), lists=Lists(shipped, amazon(since="2026-11-19")))
    assert found.exit == 0 and codes(found) == ["W403"]
    assert "AWS's list says 0.8048 USD/h, and has since 2026-11-19" in found.text()
    dated_back = verify.verify(write(tmp_path / "c", quoted(404_800, "2026-10-30")), lists=Lists(shipped, amazon()))
    assert dated_back.exit == 0 and codes(dated_back) == ["W403"]
    # A price that is said to be of a day after the run is one of the run's day; so is one that is of no day.
    for as_of in ("2027-01-01", "lately"):
        assert codes(verify.verify(write(tmp_path / as_of, quoted(404_800, as_of)), lists=Lists(shipped, amazon()))) == ["E402"]


def test_what_shipped_was_a_price_of_its_day(tmp_path: Path) -> None:
    honest = write(tmp_path / "b", quoted(804_800, "2026-10-01"))
    found = verify.verify(honest, lists=Lists(shipped, amazon(since="2026-09-01", instance=704_800)))
    assert found.exit == 0 and codes(found) == ["W403"]
    lines = [{"name": "disk", "microUsdPerHour": 7143, "source": "snapshot", "asOf": "2026-10-01"}]
    for sixty, said in ((7143, ["W403"]), (7144, ["E402"])):
        tape = Tape().genesis(quote={"lines": [lines[0] | {"microUsdPerHour": sixty}]}).guards().launch().end("failed", {})
        found = verify.verify(write(tmp_path / str(sixty), tape), lists=Lists(shipped, amazon(since="2026-09-01", disk=90_000)))
        assert codes(found) == said


def test_disk_and_address_are_held_against_the_list_too(tmp_path: Path) -> None:
    folder = copy("normal", tmp_path / "b")
    assert codes(verify.verify(folder, lists=Lists(shipped, amazon()))) == []
    for line in ("public_ipv4", "disk"):
        found = verify.verify(folder, lists=Lists(shipped, amazon(**{line: 4_000})))
        assert codes(found) == ["E402"], (line, found.text())


def test_a_list_without_an_answer_is_said_and_is_no_price(tmp_path: Path) -> None:
    found = verify.verify(write(tmp_path / "b", quoted(404_800)), lists=Lists(shipped, amazon(instance="it is down")))
    assert found.exit == 0 and codes(found) == ["W401"] and "held against no list: it is down" in found.text()


def test_offline_only_what_is_far_off_or_unknown_is_worth_a_word_and_nothing_is_an_error(tmp_path: Path) -> None:
    offline = Lists(shipped)
    for price, said in ((804_800 // FACTOR, []), (804_800 * FACTOR, []), (804_800 // FACTOR - 1, ["W402"]), (1_609_601, ["W402"])):
        found = verify.verify(write(tmp_path / str(price), quoted(price)), lists=offline)
        assert (found.exit, codes(found)) == (0, said), price
    unknown = verify.verify(write(tmp_path / "u", quoted(804_800)), lists=Lists(lambda component, type, region: None))
    assert unknown.exit == 0 and codes(unknown) == ["W401"]


@pytest.mark.parametrize("story", ["rehearsal", "static", "never_launched"])
def test_what_is_simulated_or_somebody_elses_or_was_never_rented_is_never_compared(story: str, tmp_path: Path) -> None:
    def never(component: str, type: str, region: str) -> UnitPrice | str:
        raise AssertionError(f"AWS was asked about {component} {type} in {region}")

    found = verify.verify(copy(story, tmp_path / "b"), lists=Lists(shipped, never))
    assert found.exit == 0 and set(codes(found)) <= {"W401"}
    assert ("held against no list: it is SIMULATED" in found.text()) is (story == "rehearsal")


def test_a_spot_machine_has_no_list_price(tmp_path: Path) -> None:
    tape = quoted(404_800)
    spot = Tape().genesis(quote=tape.entries[0]["body"]["quote"]).guards().launch(spot=True).run().release().quiet().verdict().end(files={})
    found = verify.verify(write(tmp_path / "b", spot), lists=Lists(shipped, amazon()))
    assert found.exit == 0 and codes(found) == []


def test_the_row_of_the_forgeries_that_no_tier_stops_is_stopped_by_asking(tmp_path: Path) -> None:
    """As in the table of docs/proof.md, with AWS's own material beside it."""
    folder = write(tmp_path / "b", tiers.retold(tiers.LIVE["a price made up before the launch"], dict(tiers.true().aws)))
    assert verify.verify(folder, "identified", certificates=[PINNED]).exit == 0
    found = verify.verify(folder, "identified", certificates=[PINNED], lists=Lists(shipped, amazon()))
    assert found.exit == 1 and set(codes(found)) == {"E402"}
