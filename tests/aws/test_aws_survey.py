"""From answers to offers, without a wire: the order, what is out and why, ceilings, quotas, and that unknown is never ok."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest

import cost
from cost import Beside, Price, UnitPrice
from provisioner.errors import ProviderError
from provisioner.model import Requirements
from provisioner.providers import aws_prices, aws_quotas, aws_spot, aws_types
from provisioner.providers.aws_offers import Place, Survey, survey
from provisioner.providers.aws_prices import Unknown
from provisioner.providers.aws_quotas import Quota
from provisioner.providers.aws_spot import History
from provisioner.providers.aws_types import Type

TODAY = date(2026, 11, 25)
L4 = Type("g6.xlarge", "NVIDIA L4", 1, 4, "amd64", 23034, 22888, True)
BIG = Type("g6.4xlarge", "NVIDIA L4", 1, 16, "amd64", 23034, 22888, True)
ONE = UnitPrice(1, "unit", "a list", "2026-11-25")


def price(micro: int) -> Price:
    return Price(micro, "a list", "2026-11-25")


def place(region: str = "us-east-1", **how: Any) -> Place:
    made = Place(
        region=region,
        types={"g6.xlarge": L4, "g6.4xlarge": BIG},
        zones={"g6.xlarge": (f"{region}a", f"{region}b"), "g6.4xlarge": (f"{region}a",)},
        prices={"g6.xlarge": price(800_000), "g6.4xlarge": price(1_300_000)},
        beside=Beside(ONE, ONE, ONE),
        spot={("g6.xlarge", f"{region}a"): History(300_000, 200_000, 400_000), ("g6.xlarge", f"{region}b"): History(250_000, 1, 2)},
        quotas={
            (False, "L-DB2E81BA"): Quota("L-DB2E81BA", region, False, 16, 0),
            (True, "L-3819A6DF"): Quota("L-3819A6DF", region, True, 16, 0),
        },
        today=TODAY,
    )
    return replace(made, **how)


def found(survey: Survey) -> list[tuple[str, str | None, bool]]:
    return [(line.offer.type, line.offer.zone, line.offer.spot) for line in survey.lines]


def why(survey: Survey, kind: str) -> list[str]:
    return [out.why for out in survey.out if out.kind == kind]


def test_the_way_to_buy_that_is_preferred_comes_first_and_then_the_cheapest() -> None:
    both = survey([place()], Requirements(gpu="L4", purchase=("spot", "on-demand")))
    assert found(both)[:3] == [("g6.xlarge", "us-east-1b", True), ("g6.xlarge", "us-east-1a", True), ("g6.xlarge", "us-east-1a", False)]
    other = survey([place()], Requirements(gpu="L4", purchase=("on-demand", "spot")))
    assert [spot for _, _, spot in found(other)] == [False, False, False, True, True]
    assert found(survey([place()], Requirements(gpu="L4"))) == found(other)[:3]


def test_regions_at_one_price_keep_the_order_they_were_given_in() -> None:
    zones = [zone for _, zone, _ in found(survey([place("us-west-2"), place("us-east-1")], Requirements(types=("g6.xlarge",))))]
    assert zones == ["us-west-2a", "us-west-2b", "us-east-1a", "us-east-1b"]


def test_a_spot_offer_costs_at_most_the_ceiling_and_shows_the_market() -> None:
    (first, *_) = survey([place()], Requirements(gpu="L4", purchase=("spot",))).lines
    assert first.offer.price.micro_usd_per_hour == 800_000 and "on-demand price" in first.offer.price.source
    assert first.offer.market == Price(250_000, "EC2 spot price history", "2026-11-25") and first.expected == 250_000
    need = Requirements(gpu="L4", purchase=("spot",), spot_max_micro_usd=280_000)
    (only,) = survey([place()], need).lines
    assert only.offer.price.micro_usd_per_hour == 280_000 and only.offer.zone == "us-east-1b"
    assert "the spot market asks $0.30/h, above the ceiling of $0.28/h" in why(survey([place()], need), "spot")


def test_a_market_exactly_at_the_ceiling_is_in() -> None:
    need = Requirements(types=("g6.xlarge",), purchase=("spot",), spot_max_micro_usd=250_000)
    assert found(survey([place()], need)) == [("g6.xlarge", "us-east-1b", True)]


def test_without_a_list_price_a_spot_request_has_no_ceiling_unless_the_profile_says_one() -> None:
    unknown = place(prices={"g6.xlarge": Unknown("no price is known for g6.xlarge")}, zones={"g6.xlarge": ("us-east-1a",)})
    need = Requirements(types=("g6.xlarge",), purchase=("spot",))
    assert found(survey([unknown], need)) == [] and "has no ceiling" in why(survey([unknown], need), "price")[0]
    assert found(survey([unknown], replace(need, spot_max_micro_usd=500_000))) == [("g6.xlarge", "us-east-1a", True)]


def test_a_market_that_could_not_be_asked_is_unknown_and_counts_as_the_ceiling() -> None:
    lines = survey([place(spot=None)], Requirements(types=("g6.xlarge",), purchase=("spot",))).lines
    assert {line.offer.market for line in lines} == {None} and {line.expected for line in lines} == {800_000}
    # Asked, and nothing there: that is no market.
    assert "no spot market" in why(survey([place(spot={})], Requirements(types=("g6.xlarge",), purchase=("spot",))), "spot")[0]


@pytest.mark.parametrize(
    ("limit", "used", "allows", "text"),
    [
        (8, 4, True, "ok: 4 of 8 used"),
        (8, 5, False, "too small: 5 of 8 used"),
        (4, 0, True, "ok: 0 of 4 used"),
        (3, None, False, "too small: ? of 3 used"),
        (4, None, None, "unknown: limit 4"),
        (None, 0, None, "unknown"),
        (None, None, None, "unknown"),
        (0, 0, False, "too small: 0 of 0 used"),
    ],
)
def test_a_quota_allows_only_what_both_figures_say(limit: int | None, used: int | None, allows: bool | None, text: str) -> None:
    quota = Quota("L-DB2E81BA", "us-east-1", False, limit, used)
    assert quota.allows(4) is allows and quota.text(4) == text


def test_a_quota_that_is_too_small_puts_the_offer_out_with_the_numbers_and_the_way_to_ask_for_more() -> None:
    small = place(quotas={(False, "L-DB2E81BA"): Quota("L-DB2E81BA", "us-east-1", False, 8, 4)})
    seen = survey([small], Requirements(gpu="L4"))
    assert found(seen) == [("g6.xlarge", "us-east-1a", False), ("g6.xlarge", "us-east-1b", False)]
    (out,) = [out for out in seen.out if out.kind == "quota"]
    assert "takes 16 vCPUs on demand; the quota L-DB2E81BA in us-east-1 is 8, 4 in use" in out.why
    assert "--quota-code L-DB2E81BA --desired-value 20 --region us-east-1" in out.next and out.next.isascii()


def test_an_unknown_quota_is_an_offer_that_is_not_called_ok() -> None:
    (line, *_) = survey([place(quotas={})], Requirements(types=("g6.xlarge",))).lines
    assert line.quota.allows(4) is None and line.quota.text(4) == "unknown"


def test_each_region_is_priced_by_itself_or_is_out() -> None:
    there = place("eu-west-1", beside=Unknown("no prices are known for the region 'eu-west-1'"))
    seen = survey([place(), there], Requirements(gpu="L4"))
    assert {line.offer.region for line in seen.lines} == {"us-east-1"} and "eu-west-1" in why(seen, "price")[0]
    nothing = survey([place("eu-west-1", prices={})], Requirements(gpu="L4"))
    assert found(nothing) == [] and len(why(nothing, "price")) == 3


def test_no_zone_and_no_such_type_are_two_reasons() -> None:
    seen = survey([place(zones={})], Requirements(types=("g6.xlarge", "g9.large")))
    assert sorted(why(seen, "zone")) == ["no zone of us-east-1 has it", "us-east-1 has no such type"]


def test_a_type_that_is_not_sold_that_way_is_out() -> None:
    block = replace(L4, ways=("capacity-block",))
    assert "does not sell it on demand" in why(survey([place(types={"g6.xlarge": block})], Requirements(gpu="L4")), "zone")[0]


def described(name: str, gpu: Mapping[str, Any] | None, vcpus: Any = 4, arch: str = "x86_64") -> dict[str, Any]:
    info = {} if gpu is None else {"GpuInfo": {"Gpus": [gpu]}}
    return {"InstanceType": name, "VCpuInfo": {"DefaultVCpus": vcpus}, "ProcessorInfo": {"SupportedArchitectures": [arch]}, **info}


def gpu(name: str, count: int, mib: int, maker: str = "NVIDIA") -> dict[str, Any]:
    return {"Name": name, "Manufacturer": maker, "Count": count, "MemoryInfo": {"SizeInMiB": mib}}


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize(("mib", "part"), [(2861, Fraction(1, 8)), (5722, Fraction(1, 4)), (11444, Fraction(1, 2))])
def test_a_part_of_an_l4_is_known_by_its_memory_whatever_ec2_counts(count: int, mib: int, part: Fraction) -> None:
    (type,) = aws_types.described({"InstanceTypes": [described("g6f.large", gpu("L4", count, mib))]}).values()
    assert type.part == part and type.gpus == 0
    for need in (Requirements(), Requirements(types=("g6f.large",)), Requirements(gpus=0, types=("g6f.large",))):
        out = aws_types.misfit(type, need)
        assert out is not None and (need.gpus == 0 or (out.kind, out.near) == ("part", True))


def test_a_type_that_only_ec2_knows_shows_ec2s_memory_and_meets_no_need_for_memory() -> None:
    (type,) = aws_types.described({"InstanceTypes": [described("g9.large", gpu("L9", 1, 65536))]}).values()
    assert (type.gpu, type.vram_mib, type.ec2_mib, type.verified) == ("NVIDIA L9", None, 65536, False)
    assert aws_types.misfit(type, Requirements(gpu="L9")) is None
    out = aws_types.misfit(type, Requirements(gpu="L9", vram_mib=1024))
    assert out is not None and out.why == "EC2 says 65536 MiB per GPU, but what its driver shows is not known; 1024 MiB needed"


def test_what_ec2_says_of_a_known_type_stands_and_the_drivers_figure_is_the_catalogs() -> None:
    (type,) = aws_types.described({"InstanceTypes": [described("g6.xlarge", gpu("L4", 2, 22888), vcpus=6)]}).values()
    assert (type.gpus, type.vcpus, type.vram_mib, type.verified) == (2, 6, 23034, True)


def test_strange_descriptions_are_left_out_or_made_harmless() -> None:
    strange = [
        {},
        described("g6.xl\x1b[2J", gpu("L4", 1, 22888)),
        described("g6.x", gpu("L4", 1, 22888), vcpus="four"),
        described("g4ad.xlarge", gpu("Radeon Pro V520", 1, 8192, "AMD")),
        described("g8.large", gpu("\x1b[31mEvil\nGPU", 1, 99)),
        described("g8.small", {"Manufacturer": "NVIDIA"}),
    ]
    types = aws_types.described({"InstanceTypes": strange})
    assert sorted(types) == ["g4ad.xlarge", "g8.large", "g8.small"]
    assert types["g4ad.xlarge"].gpu == "" and types["g8.large"].gpu == "NVIDIA Evil GPU" and types["g8.small"].gpus == 0


def test_every_code_belongs_to_its_families_and_none_to_those_nobody_knows() -> None:
    assert aws_quotas.code_of("g6.xlarge", False) == aws_quotas.code_of("gr6.4xlarge", False) == "L-DB2E81BA"
    assert aws_quotas.code_of("g4dn.xlarge", True) == "L-3819A6DF" and aws_quotas.code_of("p4d.24xlarge", True) == "L-7212CCBC"
    assert aws_quotas.code_of("p5.48xlarge", False) == aws_quotas.code_of("p6-b200.48xlarge", False) == "L-417A185B"
    assert aws_quotas.code_of("p5.48xlarge", True) is None and aws_quotas.code_of("trn1.2xlarge", False) is None
    for row in aws_types.catalog()["types"]:
        assert aws_quotas.code_of(row["type"], False) == row["quotaCode"], row["type"]


def entry(usd: Any, hours: int, zone: str = "us-east-1a") -> dict[str, Any]:
    at = datetime(2026, 11, 25, tzinfo=UTC) - timedelta(hours=hours)
    return {"InstanceType": "g6.xlarge", "AvailabilityZone": zone, "SpotPrice": usd, "Timestamp": at}


def test_the_newest_entry_is_the_price_now_in_whatever_order_they_come() -> None:
    seen = aws_spot.by_place([entry("0.5", 30), entry("0.300000", 1), entry("0.2", 60), entry("0.9", 2, "us-east-1b")])
    assert seen["g6.xlarge", "us-east-1a"] == History(300_000, 200_000, 500_000)
    assert seen["g6.xlarge", "us-east-1b"] == History(900_000, 900_000, 900_000)
    assert aws_spot.by_place([]) == {}


@pytest.mark.parametrize("usd", ["", "0", "0.000", "-1", "1e9", "NaN", "١", None, 0.3, "0.3; rm", "9" * 30])
def test_a_spot_price_that_cannot_be_read_is_no_price(usd: Any) -> None:
    with pytest.raises(ProviderError, match="cannot be read"):
        aws_spot.by_place([entry("0.3", 1), entry(usd, 5)])


def test_money_is_read_exactly_and_rounded_up() -> None:
    assert aws_prices.micro_usd("0.8048000000") == 804_800
    assert aws_prices.micro_usd("0.0000001") == 1 and aws_prices.micro_usd("0.1000001") == 100_001
    assert aws_prices.micro_usd("0.1") == 100_000 and aws_prices.micro_usd("21.957642") == 21_957_642
    assert aws_prices.micro_usd("0.0000000000") == 0 and aws_prices.micro_usd(0.1) is None


def test_what_is_asked_for_beside_the_machine_is_what_is_quoted() -> None:
    there = Beside(*(UnitPrice(n, "u", "asked", "2026-11-25") for n in (95_000, 6_000, 120_000)))
    quote = cost.quote(price(1_000_000), region="eu-west-1", disk_gib=672, beside=there)
    assert {line.name: line.micro_usd_per_hour for line in quote.lines} == {
        "instance": 1_000_000, "disk": 95_000, "public-ipv4": 6_000, "egress": 0
    }  # fmt: skip
    with pytest.raises(cost.UnknownPrice, match="eu-west-1"):
        cost.quote(price(1_000_000), region="eu-west-1", disk_gib=672)
