"""What EC2 costs per hour: AWS's own price list where it can be asked, else the dated snapshot in the package.

One rule: *a price is never guessed*. The Pricing API's answer is believed only when it is about exactly what was asked
(Linux, shared tenancy, no software, on demand, in that region), in dollars per hour, and one figure; anything else is
`Unknown`, with the reason. The snapshot stands in only where the API did not answer; where it answered that there is
no such price, that stands. The snapshot is of one region, is shown with its age, and after a year is no price any more.

What is billed beside the machine (disk, address, traffic) comes the same way; of several tiers the dearest counts.
The Pricing API is served in three regions and knows the prices of all. Money becomes whole micro-dollars, rounded up.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

import cost
from cost import Beside, Price, UnitPrice, UnknownPrice
from provisioner.clean import clean
from provisioner.errors import ProviderError
from provisioner.providers.aws_client import Account
from provisioner.providers.aws_types import catalog, row_of

API, REHEARSED = "AWS Pricing API", "the rehearsal's price list, SIMULATED"
SERVED_IN = ("us-east-1", "eu-central-1", "ap-south-1")
MACHINE = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
    "marketoption": "OnDemand",
}
"""What else the price list holds under the same type: Windows, dedicated hosts, databases, unused reservations, blocks."""

DISK, ADDRESS, IN_USE = {"productFamily": "Storage", "volumeApiName": "gp3"}, {"group": "VPCPublicIPv4Address"}, "InUseAddress"

_NUMBER = re.compile(r"\d{1,9}(\.\d{1,12})?")


@dataclass(frozen=True)
class Unknown:
    """There is no price, and this is why."""

    why: str


def served_in(region: str) -> str | None:
    """Where to ask for the prices of a region; None for partitions whose prices are not in this list."""
    if region.startswith(("cn-", "us-gov-", "us-iso")):
        return None
    near = {"eu": "eu-central-1", "ap": "ap-south-1"}
    return near.get(region.split("-")[0], SERVED_IN[0])


def machine(account: Account, region: str, type: str, today: date) -> Price | Unknown:
    """The list price of one type. Raises ProviderError where the API does not answer."""
    wanted = {**MACHINE, "instanceType": type, "regionCode": region}
    found = {rate for rate in _rates(account, "AmazonEC2", wanted, "Hrs") if rate > 0}
    if not found:
        return Unknown(f"no price is known for {type} in {region}: AWS's price list has none on demand")
    if len(found) > 1:
        return Unknown(f"no price is known for {type} in {region}: AWS's price list has {len(found)} different ones")
    return Price(found.pop(), f"{_source(account)}, on-demand Linux, {region}", today.isoformat())


def beside(account: Account, region: str, today: date) -> Beside | Unknown:
    """What disk, address and traffic cost. Raises ProviderError where the API does not answer."""
    try:
        return Beside(
            _dearest(account, region, today, "AmazonEC2", "gp3 GiB-month", "GB-Mo", DISK),
            _dearest(account, region, today, "AmazonVPC", "address-hour", "Hrs", ADDRESS, IN_USE),
            _dearest(
                account,
                region,
                today,
                "AWSDataTransfer",
                "GiB sent to the internet, the dearest tier",
                "GB",
                {"transferType": "AWS Outbound", "toLocation": "External"},
                place="fromRegionCode",
            ),
        )
    except UnknownPrice as e:
        return Unknown(str(e))


def listed(account: Account, component: str, type: str, region: str) -> Iterator[tuple[str, list[int]]]:
    """Each product that is an "instance" of that type, a "disk" or a "public-ipv4" there: as the list has it, and its rates."""
    service, wanted, per, usage = {
        "instance": ("AmazonEC2", {**MACHINE, "instanceType": type}, "Hrs", ""),
        "disk": ("AmazonEC2", DISK, "GB-Mo", ""),
        "public-ipv4": ("AmazonVPC", ADDRESS, "Hrs", IN_USE),
    }[component]
    wanted = {**wanted, "regionCode": region}
    for text in _products(account, service, wanted):
        yield text, rates(text, wanted, per, usage)


def snapshot(region: str, type: str, today: date) -> Price | Unknown:
    """What the catalog in the package says, unless it is too old to say anything."""
    row = row_of(type)
    if region != catalog()["region"]:
        return Unknown(f"no price is known for {type} in {region}: the snapshot is of {catalog()['region']} only")
    if row is None or row["microUsdPerHour"] is None or not row["priceAsOf"]:
        return Unknown(f"no price is known for {type} in {region}: the snapshot of {newest()} does not list it")
    return _fresh(Price(row["microUsdPerHour"], catalog()["priceSource"], row["priceAsOf"]), type, today)


def snapshot_beside(region: str, today: date) -> Beside | Unknown:
    try:
        found = cost.beside(region)
    except UnknownPrice as e:
        return Unknown(str(e))
    if cost.is_too_old(found.oldest, today):
        return Unknown(f"the price of disk, address or traffic in {region} is of {found.oldest}: {_too_old(found.oldest, today)}")
    return found


def is_snapshot(price: Price) -> bool:
    """Was it read off the file in the package?"""
    return price.source.endswith(str(catalog()["priceSource"]))


def newest() -> str:
    """The day of the newest price in the catalog."""
    return max(str(row["priceAsOf"]) for row in catalog()["types"] if row["priceAsOf"])


def micro_usd(text: object) -> int | None:
    """ "0.8048000000" as micro-dollars, rounded up; None for what is no amount of money."""
    if not isinstance(text, str) or not text.isascii() or not _NUMBER.fullmatch(text):
        return None
    return math.ceil(Decimal(text) * cost.MICRO)  # `//` on a Decimal would cut towards zero: too cheap


def _source(account: Account) -> str:
    return API if account.endpoint is None else REHEARSED


def _fresh(price: Price, type: str, today: date) -> Price | Unknown:
    if cost.is_too_old(price.as_of, today):
        return Unknown(f"the price of {type} is of {price.as_of}: {_too_old(price.as_of, today)}")
    return price


def _too_old(as_of: str, today: date) -> str:
    return f"{cost.age_days(as_of, today)} days old, and after {cost.TOO_OLD_DAYS} it is no price any more"


def _dearest(
    account: Account,
    region: str,
    today: date,
    service: str,
    unit: str,
    per: str,
    wanted: Mapping[str, str],
    usage: str = "",
    place: str = "regionCode",
) -> UnitPrice:
    found = [rate for rate in _rates(account, service, {**wanted, place: region}, per, usage) if rate > 0]
    if not found:
        raise UnknownPrice(f"AWS's price list has no price per {unit} in {region}")
    return UnitPrice(max(found), unit, f"{_source(account)}, {service}, {region}", today.isoformat())


def _rates(account: Account, service: str, wanted: Mapping[str, str], per: str, usage: str = "") -> Iterator[int]:
    """Every rate in micro-dollars that the list has for exactly this, zeros too."""
    for text in _products(account, service, wanted):
        yield from rates(text, wanted, per, usage)


def _products(account: Account, service: str, wanted: Mapping[str, str]) -> Iterator[str]:
    """What the list sends when it is asked for exactly this: JSON, of which `rates` believes what is about it."""
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in sorted(wanted.items())]
    for page in account.pages("GetProducts", 100, service="pricing", ServiceCode=service, Filters=filters, FormatVersion="aws_v1"):
        if "PriceList" not in page.data:  # what cannot be parsed comes as an empty answer, and that is not "no price"
            raise ProviderError("GetProducts: an answer that cannot be read", request_id=page.request_id)
        yield from map(str, page.data["PriceList"])


def rates(text: object, wanted: Mapping[str, str], per: str, usage: str = "") -> list[int]:
    """The rates of one product, if it is the wanted one; ProviderError where a price of it cannot be read."""
    try:
        product = json.loads(str(text))
        about = {"productFamily": product["product"].get("productFamily"), **product["product"]["attributes"]}
        dimensions = [d for term in product.get("terms", {}).get("OnDemand", {}).values() for d in term["priceDimensions"].values()]
        # Asked for by filter, and looked at again: a filter that was ignored would give us somebody else's price.
        if any(about.get(field) != value for field, value in wanted.items()) or not str(about.get("usagetype", "")).endswith(usage):
            return []
        found = [micro_usd(d["pricePerUnit"].get("USD")) for d in dimensions if d["unit"] == per]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise ProviderError(f"GetProducts: a product that cannot be read: {clean(str(text), limit=80)}", why=f"{type(e).__name__}") from e
    if None in found or len(found) != len(dimensions):
        raise ProviderError(f"GetProducts: a price that is not in dollars per {per}: {clean(str(dimensions), limit=200)}")
    return [rate for rate in found if rate is not None]
