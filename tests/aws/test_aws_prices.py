"""The price list's answers, believed only where they are about what was asked."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
from conftest import Wire

from provisioner.errors import ProviderError
from provisioner.model import Requirements
from provisioner.providers import aws_listed, aws_prices
from provisioner.providers.aws import AwsProvider
from provisioner.providers.aws_client import Account, Answer
from provisioner.providers.aws_prices import MACHINE, Unknown

TODAY = date(2026, 11, 25)
WANTED = {**MACHINE, "instanceType": "g6.xlarge", "regionCode": "us-east-1"}


def product(usd: Any = "0.8048000000", unit: str = "Hrs", currency: str = "USD", rates: int = 1, **about: str) -> str:
    dimensions = {f"r{n}": {"unit": unit, "pricePerUnit": {currency: usd}} for n in range(rates)}
    terms = {"OnDemand": {"t": {"priceDimensions": dimensions}}}
    return json.dumps({"product": {"attributes": {**WANTED, **about}, "productFamily": "Compute Instance"}, "terms": terms})


class List(Account):
    """A price list that holds just these, in pages of one."""

    def __init__(self, *texts: Any) -> None:
        super().__init__("us-east-1")
        self.texts, self.asked = texts, list[dict[str, Any]]()

    def ask(self, operation: str, *, service: str = "ec2", **params: Any) -> Answer:
        self.asked.append({"operation": operation, "service": service, **params})
        at = int(params.get("NextToken", "0"))
        more = {"NextToken": str(at + 1)} if at + 1 < len(self.texts) else {}
        return Answer({"PriceList": list(self.texts[at : at + 1]), **more}, "r", None)


def test_one_price_in_dollars_per_hour_is_a_price_of_today() -> None:
    found = aws_prices.machine(List(product()), "us-east-1", "g6.xlarge", TODAY)
    assert not isinstance(found, Unknown)
    assert (found.micro_usd_per_hour, found.as_of, found.source) == (804_800, "2026-11-25", "AWS Pricing API, on-demand Linux, us-east-1")


@pytest.mark.parametrize(
    "other",
    [
        {"operatingSystem": "Windows"},
        {"tenancy": "Dedicated"},
        {"preInstalledSw": "SQL Web"},
        {"capacitystatus": "UnusedCapacityReservation"},
        {"marketoption": "CapacityBlock"},
        {"regionCode": "us-west-2"},
        {"instanceType": "g6.2xlarge"},
    ],
)
def test_a_product_that_was_not_asked_for_is_no_price_even_if_the_list_sends_it(other: dict[str, str]) -> None:
    assert isinstance(aws_prices.machine(List(product("0.1", **other)), "us-east-1", "g6.xlarge", TODAY), Unknown)
    found = aws_prices.machine(List(product("0.1", **other), product()), "us-east-1", "g6.xlarge", TODAY)
    assert not isinstance(found, Unknown) and found.micro_usd_per_hour == 804_800


def test_a_listed_price_has_the_day_since_which_it_holds_or_there_is_none() -> None:
    def since(*days: str, usd: str = "0.8048000000") -> str:
        made = json.loads(product(usd))
        (term,) = made["terms"]["OnDemand"].values()
        made["terms"]["OnDemand"] = {day: term | {"effectiveDate": f"{day}T00:00:00Z"} for day in days}
        return json.dumps(made)

    def listed(*texts: Any) -> Any:
        return aws_listed.published(List(*texts), "instance", "g6.xlarge", "us-east-1")

    one = listed(since("2026-11-01"))
    assert (one.micro_usd, one.as_of) == (804_800, "2026-11-01")
    # Of several days the latest: before it the price may have been another.
    assert listed(since("2026-11-01"), since("2026-11-07")).as_of == "2026-11-07"
    assert listed(since("2026-11-03", "2026-11-05")).as_of == "2026-11-05"
    assert "2 different" in listed(since("2026-11-01"), since("2026-11-01", usd="0.9")).why
    for text in (product(), since("lately")):
        with pytest.raises(ProviderError, match="without the day"):
            listed(text)


def test_no_price_zero_and_two_prices_are_unknown() -> None:
    for texts, words in (
        ((), "none on demand"),
        ((product("0.0000000000"),), "none on demand"),
        ((product(), product("0.9")), "2 different"),
    ):
        found = aws_prices.machine(List(*texts), "us-east-1", "g6.xlarge", TODAY)
        assert isinstance(found, Unknown) and words in found.why
    # The same figure twice is one price.
    assert not isinstance(aws_prices.machine(List(product(), product()), "us-east-1", "g6.xlarge", TODAY), Unknown)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"g6"',
        "[" * 5000,
        '{"product": {"attributes": 7}}',
        product(None),
        product(-1),
        product("1e-3"),
        product("NaN"),
        product("0.8\u0660"),
        product(unit="Quantity"),
        product(currency="CNY"),
        product("\x1b[2J"),
    ],
)
def test_a_product_that_cannot_be_read_is_an_error_and_no_price(text: str) -> None:
    with pytest.raises(ProviderError, match="GetProducts") as refused:
        aws_prices.machine(List(text), "us-east-1", "g6.xlarge", TODAY)
    assert "\x1b" not in refused.value.what


def test_every_page_is_read_before_a_price_is_believed() -> None:
    account = List(product(), product("0.9"))
    assert isinstance(aws_prices.machine(account, "us-east-1", "g6.xlarge", TODAY), Unknown)
    assert len(account.asked) == 2 and account.asked[1]["NextToken"] == "1"


def test_of_several_tiers_of_traffic_the_dearest_counts() -> None:
    about = {"fromRegionCode": "eu-west-1", "regionCode": "eu-west-1", "transferType": "AWS Outbound", "toLocation": "External"}
    disk = product("0.0880000000", "GB-Mo", regionCode="eu-west-1", volumeApiName="gp3", productFamily="Storage")
    address = product("0.005", group="VPCPublicIPv4Address", regionCode="eu-west-1", usagetype="EU-PublicIPv4:InUseAddress")
    idle = product("0.9", group="VPCPublicIPv4Address", regionCode="eu-west-1", usagetype="EU-PublicIPv4:IdleAddress")
    tiers = [product(usd, "GB", **about) for usd in ("0", "0.05", "0.09", "0.07")]
    by_service = {"AmazonEC2": List(disk), "AmazonVPC": List(address, idle), "AWSDataTransfer": List(*tiers)}

    class Whole(List):
        def ask(self, operation: str, *, service: str = "ec2", **params: Any) -> Answer:
            return by_service[params["ServiceCode"]].ask(operation, service=service, **params)

    found = aws_prices.beside(Whole(), "eu-west-1", TODAY)
    assert not isinstance(found, Unknown)
    assert (found.disk.micro_usd, found.public_ipv4.micro_usd, found.egress.micro_usd) == (88_000, 5_000, 90_000)
    by_service["AmazonVPC"] = List(idle)
    assert isinstance(aws_prices.beside(Whole(), "eu-west-1", TODAY), Unknown)


@pytest.mark.parametrize(
    ("region", "asked"),
    [
        ("us-west-2", "us-east-1"),
        ("eu-west-1", "eu-central-1"),
        ("ap-northeast-1", "ap-south-1"),
        ("sa-east-1", "us-east-1"),
        ("cn-north-1", None),
        ("us-gov-west-1", None),
    ],
)
def test_the_price_list_is_asked_where_it_is_served(region: str, asked: str | None) -> None:
    assert aws_prices.served_in(region) == asked


def test_what_is_sent_is_what_botocores_own_model_allows(provider: AwsProvider, wire: Wire) -> None:
    """botocore refuses parameters that its model does not have before anything is sent; so what arrived was valid."""
    provider.survey(Requirements(gpu="L4", purchase=("on-demand", "spot")))
    sent = {request.action for request in wire.requests}
    asked = {"DescribeInstanceTypes", "DescribeInstances", "DescribeInstanceTypeOfferings", "DescribeSpotPriceHistory"}
    assert sent >= asked | {"GetProducts", "GetServiceQuota"}
    from botocore.session import get_session
    from botocore.validate import ParamValidator

    for service, operation, account in (("pricing", "GetProducts", List(product())),):
        list(account.pages(operation, 100, service=service, ServiceCode="AmazonEC2", Filters=[], FormatVersion="aws_v1"))
        shape = get_session().get_service_model(service).operation_model(operation).input_shape
        params = {key: value for key, value in account.asked[0].items() if key not in ("operation", "service")}
        assert not ParamValidator().validate(params, shape).has_errors()


def test_a_listing_that_is_denied_half_way_is_no_listing(provider: AwsProvider, wire: Wire) -> None:
    wire.fault("DescribeInstances", "403 UnauthorizedOperation")
    line = provider.survey(Requirements(types=("g6.xlarge",))).lines[0]
    assert line.quota.used is None and line.quota.allows(4) is None
