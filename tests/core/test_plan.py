"""Which offers a plan asks for: in whose order, within which budget, until when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from cost import Price
from provisioner import plan, profile
from provisioner.errors import ProviderError, RefusedError
from provisioner.model import Offer, Requirements
from provisioner.providers.sim import SimProvider
from provisioner.render import plan_text

LISTED = Price(800_000, "a list", "2026-11-01")


def offer(zone: str, micro: int = 800_000, *, spot: bool = False, market: int | None = None, region: str = "us-east-1") -> Offer:
    asks = None if market is None else replace(LISTED, micro_usd_per_hour=market)
    price = replace(LISTED, micro_usd_per_hour=micro)
    return Offer("aws", region, "g6.xlarge", "NVIDIA L4", 1, 23034, 4, price, zone=zone, spot=spot, market=asks)


class Shelf(SimProvider):
    """A cloud that offers what it is told to."""

    def __init__(self, *offers: Offer) -> None:
        super().__init__()
        self.shelf = offers

    def offers(self, need: Requirements) -> Sequence[Offer]:
        return self.shelf


def made(*offers: Offer, budget: int = 1_000_000, minutes: int = 30) -> plan.Plan:
    return plan.make(profile.load("smoke"), Shelf(*offers), budget_micro_usd=budget, max_seconds=minutes * 60)


def test_the_order_of_the_offers_is_the_order_in_which_they_are_asked_for() -> None:
    found = made(offer("us-east-1b"), offer("us-east-1a"))
    assert [one.zone for one in found.offers] == ["us-east-1b", "us-east-1a"] and not found.left_out
    assert "else     g6.xlarge in us-east-1a" in plan_text(found)


def test_a_dearer_offer_comes_in_only_where_the_budget_covers_it_until_the_deadline() -> None:
    dear, dearest = offer("us-east-1b", 1_000_000), offer("us-east-1c", 4_000_000)
    found = made(offer("us-east-1a"), dear, dearest)
    assert [one.zone for one in found.offers] == ["us-east-1a", "us-east-1b"]
    assert found.at_most_micro_usd == found.quotes[1].at_most(found.max_seconds) <= 1_000_000
    assert "us-east-1c" in found.left_out[0] and "too dear" in plan_text(found)


def test_the_first_that_can_be_afforded_sets_the_deadline() -> None:
    found = made(offer("us-east-1a", 40_000_000), offer("us-east-1b"), minutes=60)
    assert [one.zone for one in found.offers] == ["us-east-1b"] and "us-east-1a" in found.left_out[0]
    assert found.at_most_micro_usd <= 1_000_000


def test_where_none_can_be_afforded_the_first_says_why() -> None:
    with pytest.raises(RefusedError, match="too small"):
        made(offer("us-east-1a"), offer("us-east-1b"), budget=10_000)


def test_an_offer_without_a_known_price_is_left_out_and_named() -> None:
    found = made(offer("us-east-1a"), offer("xx-nowhere-1a", region="xx-nowhere-1"))
    assert [one.zone for one in found.offers] == ["us-east-1a"] and "xx-nowhere-1a" in found.left_out[0]


def test_a_spot_machine_is_expected_at_the_market_and_bounded_by_its_ceiling() -> None:
    spot = made(offer("us-east-1a", spot=True, market=250_000))
    listed = made(offer("us-east-1a"))
    assert spot.at_most_micro_usd == listed.at_most_micro_usd
    assert spot.expected_micro_usd < listed.expected_micro_usd
    (line,) = [line for line in spot.quote.lines if line.name == "instance"]
    assert (line.micro_usd_per_hour, line.micro_usd_per_hour_usual, line.micro_usd_per_hour_low) == (800_000, 250_000, 0)


def test_a_market_above_the_ceiling_has_no_quote() -> None:
    with pytest.raises(RefusedError, match="ceiling"):
        made(offer("us-east-1a", spot=True, market=900_000))


class Sized(Shelf):
    """A cloud that can say how large its image is, or cannot."""

    image: int | Exception = 45

    def image_gib(self, image: str | None, region: str) -> int:
        if isinstance(self.image, Exception):
            raise self.image
        return self.image


def test_the_disk_that_is_quoted_is_the_disk_that_is_asked_for() -> None:
    cloud = Sized(offer("us-east-1a"))
    smoke = profile.load("smoke")
    need = smoke.requirements.disk_gib
    for image, disk in (
        (45, plan.volume_gib(need, 45)),
        (200, plan.volume_gib(need, 200)),
        (ProviderError("no login"), plan.volume_gib(need)),
    ):
        cloud.image = image
        found = plan.make(smoke, cloud)
        assert found.disk_gib == disk and found.quote == plan.quote_of(found.offer, disk)


def test_an_image_that_the_profile_names_and_that_is_not_there_is_refused_before_anything_is_rented() -> None:
    cloud = Sized(offer("us-east-1a"))
    cloud.image = RefusedError("image ami-01234567 is not shown in us-east-1")
    smoke = profile.load("smoke")
    assert plan.make(smoke, cloud).image_gib == plan.IMAGE_GIB
    with pytest.raises(RefusedError, match="is not shown"):
        plan.make(replace(smoke, launch=smoke.launch.model_copy(update={"image": "ami-01234567"})), cloud)


def test_a_market_that_could_not_be_asked_is_taken_to_ask_the_ceiling_and_still_has_no_lower_bound() -> None:
    (line,) = [line for line in made(offer("us-east-1a", spot=True)).quote.lines if line.name == "instance"]
    assert (line.micro_usd_per_hour, line.micro_usd_per_hour_usual, line.micro_usd_per_hour_low) == (800_000, 800_000, 0)


def test_a_release_that_is_not_the_known_one_is_doubted_before_it_is_paid_for() -> None:
    known = profile.load("smoke")
    old = replace(known, runtime=known.runtime.model_copy(update={"version": "0.1.0"}))
    build = replace(known, runtime=known.runtime.model_copy(update={"version": f"{known.runtime.version}+cpu"}))
    assert plan.unknown_release(known) == plan.unknown_release(build) == ""
    assert "0.1.0" in plan.unknown_release(old) and f"vllm {known.runtime.version} is known" in plan.unknown_release(old)
