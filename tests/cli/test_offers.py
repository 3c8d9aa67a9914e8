"""`gpulease offers`: the table, the record and the exit code, with and without anybody to ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner.rehearsal import client
from tests.cli.conftest import Cli


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[client.Rehearsal]:
    started = client.start(tmp_path_factory.mktemp("cloud"), idle_exit=900)
    yield started
    started.stop()


@pytest.fixture
def asked(cloud: client.Rehearsal) -> Iterator[tuple[str, ...]]:
    yield ("--rehearse", "--endpoint", cloud.endpoint)
    cloud.faults(None)


def test_without_an_account_the_snapshot_is_shown_and_said_so_first(cli: Cli) -> None:
    said = cli("offers", "--gpu", "L4", "--vram", "20")
    assert said.code == 0 and said.err == ""
    head, _, rest = said.out.partition("\ntype ")
    words = " ".join(head.split())
    assert "AWS was not asked" in words and "SNAPSHOT of 2026-07-20" in words and "no region is named anywhere" in words
    assert "g6.xlarge" in rest.splitlines()[1] and "unknown" in rest.splitlines()[1] and " ok " not in rest
    assert "g6f.large" in rest and "1/8 of a GPU" in rest


def test_the_record_holds_every_offer_with_whole_amounts(cli: Cli, asked: tuple[str, ...]) -> None:
    said = cli("offers", "--gpu", "L4", "--vram", "20", "--spot", "--json", *asked)
    answer = said.answer
    assert said.code == 0 and answer["schema"] == "gpulease/offers/1" and answer["simulated"] and answer["asked"]
    assert answer["need"]["vramMib"] == 20480 and answer["need"]["purchase"] == ["on-demand", "spot"]
    paid = [offer["expectedMicroUsdPerHour"] for offer in answer["offers"]]
    assert paid == sorted(paid) and "." not in said.out.split('"offers"')[1].split('"expectedMicroUsdPerHour": ')[1].split(",")[0]
    spot = next(offer for offer in answer["offers"] if offer["purchase"] == "spot")
    assert spot["lowestMicroUsdPerHour"] <= spot["marketMicroUsdPerHour"] <= spot["highestMicroUsdPerHour"] < spot["mostMicroUsdPerHour"]
    assert spot["quota"]["allows"] is True and spot["zone"].startswith("us-east-1")
    assert {out["kind"] for out in answer["out"]} == {"part"}


@pytest.mark.parametrize("columns", [80, 100, 140])
def test_nothing_is_wider_than_the_terminal(cli: Cli, asked: tuple[str, ...], columns: int) -> None:
    cli.env["COLUMNS"] = str(columns)
    said = cli("offers", "--vram", "20", "--spot", *asked)
    assert said.code == 0 and max(map(len, said.out.splitlines())) <= columns and said.out.startswith("SIMULATED")


def test_a_profile_is_offered_in_the_order_in_which_a_run_tries(cli: Cli, asked: tuple[str, ...], tmp_path: Path) -> None:
    text = Path("profiles/smoke.yaml").read_text("utf-8").replace("types: [g6.xlarge]", "purchase: [on-demand, spot]")
    mine = tmp_path / "mine.yaml"
    mine.write_text(text, "utf-8")
    ways = [offer["purchase"] for offer in cli("offers", str(mine), "--json", *asked).answer["offers"]]
    assert ways == sorted(ways) and set(ways) == {"on-demand", "spot"}


def test_a_quota_that_is_too_small_ends_with_the_numbers_and_the_command(cli: Cli, cloud: client.Rehearsal, asked: tuple[str, ...]) -> None:
    cloud.faults([{"limits": {"L-DB2E81BA": 2}}])
    said = cli("offers", "--type", "g6.xlarge", *asked)
    words = " ".join(said.out.split())
    assert said.code == 4 and "nothing fits" in words
    assert "takes 4 vCPUs on demand; the quota L-DB2E81BA in us-east-1 is 2" in words and "request-service-quota-increase" in words


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--vram", "lots"), 2, "--vram is 'lots'"),
        (("--vram", "-1"), 2, "--vram"),
        (("--endpoint", "http://127.0.0.1:1"), 2, "--endpoint needs --rehearse"),
        (("--rehearse", "--aws-profile", "x"), 2, "--aws-profile has no meaning"),
        (("--region", "mars"), 4, "'mars' is not the name of an AWS region"),
        (("nosuchprofile",), 2, "nosuchprofile"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_its_name(cli: Cli, words: tuple[str, ...], code: int, says: str) -> None:
    said = cli("offers", *words)
    assert said.code == code and says in said.err, said


def test_a_gpu_that_nobody_has_gets_the_nearest_name(cli: Cli) -> None:
    said = cli("offers", "--gpu", "L44", "--region", "us-east-1")
    assert said.code == 4 and "nearest: L4" in said.out


def test_another_region_without_an_account_has_no_price_and_says_so(cli: Cli) -> None:
    said = cli("offers", "--gpu", "L4", "--region", "eu-west-1")
    assert said.code == 4 and "eu-west-1" in said.out and "no prices are known" in " ".join(said.out.split())


def test_many_zones_above_the_ceiling_are_one_reason_with_the_lowest(cli: Cli, asked: tuple[str, ...], tmp_path: Path) -> None:
    text = Path("profiles/smoke.yaml").read_text("utf-8").replace("types: [g6.xlarge]", 'purchase: [spot]\n  spot_max_usd_per_hour: "0.01"')
    mine = tmp_path / "mine.yaml"
    mine.write_text(text, "utf-8")
    said = cli("offers", str(mine), *asked)
    words = " ".join(said.out.split())
    assert said.code == 4 and "nothing fits" in words and words.count("the spot market asks") == 1
    assert "above the ceiling of $0.01/h (the lowest of" in words and "next: a higher needs.spot_max_usd_per_hour" in words
