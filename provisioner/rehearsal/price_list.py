"""AWS's price list as the rehearsal has it: GetProducts for machines, disks, addresses and traffic. SIMULATED.

The prices of us-east-1 are the ones that ship with gpulease; those of any other region are the same plus a few per
cent that follow from the region's name, so that failing over to another region shows. What the snapshot has no price
for has none here either. Beside the product that is asked for stand those that a careless filter would also catch:
Windows, a dedicated host, an unused reservation at $0.

Prices come as JSON inside JSON, as AWS sends them. It must not know machines or moto.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from provisioner.rehearsal.market import usd
from provisioner.rehearsal.wire import Call, Refusal, Reply, json_answer

SERVED_IN = ("us-east-1", "eu-central-1", "ap-south-1")
_NOTE = "SIMULATED by gpulease; no price of AWS"
_TERMS = ("TERM_MATCH", "EQUALS")


def pricing(call: Call) -> Reply:
    if call.region not in SERVED_IN:
        raise Refusal("UnrecognizedClientException", f"the price list is not served in {call.region}")
    if call.action != "GetProducts":
        raise Refusal("UnsupportedOperation", f"the rehearsal has no pricing:{call.action}")
    service = call.document.get("ServiceCode", "")
    if service not in ("AmazonEC2", "AmazonVPC", "AWSDataTransfer"):
        raise Refusal("InvalidParameterException", f"the rehearsal has no prices of {service!r}")
    wanted = _wanted(call.document.get("Filters", []))
    found = [product for product in _products(str(service), wanted) if _is(product, wanted)]
    size = min(int(call.document.get("MaxResults", 100)), 100)
    begin = _begin(call.document.get("NextToken"), len(found))
    page: dict[str, Any] = {"FormatVersion": "aws_v1", "PriceList": [json.dumps(product) for product in found[begin : begin + size]]}
    if begin + size < len(found):
        page["NextToken"] = f"page-{begin + size}"
    return json_answer(page)


def _wanted(filters: Any) -> dict[str, str]:
    wanted = {}
    for one in filters if isinstance(filters, list) else []:
        if one.get("Type") not in _TERMS:
            raise Refusal("InvalidParameterException", f"the rehearsal's price list has no filter type {one.get('Type')!r}")
        wanted[str(one.get("Field"))] = str(one.get("Value"))
    return wanted


def _begin(token: object, most: int) -> int:
    if token is None:
        return 0
    number = str(token).removeprefix("page-")
    if not number.isdigit() or int(number) > most:
        raise Refusal("InvalidNextTokenException", "Invalid NextToken")
    return int(number)


def _is(product: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    about = {**product["product"]["attributes"], "productFamily": product["product"].get("productFamily")}
    return all(about.get(field) == value for field, value in wanted.items())


def _products(service: str, wanted: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Of one region: a question that names none would be answered with the whole world's price list."""
    region = wanted.get("regionCode") or wanted.get("fromRegionCode")
    if not region:
        raise Refusal("InvalidParameterException", "the rehearsal's price list wants a regionCode or a fromRegionCode")
    if service == "AmazonEC2":
        for type, micro in _machines().items():
            if wanted.get("instanceType", type) == type and "volumeApiName" not in wanted:
                yield from _of_machine(type, region, _there(micro, region))
    for row, about, family, per in _BESIDE.get(service, ()):
        where = {"fromRegionCode": region} if service == "AWSDataTransfer" else {"regionCode": region}
        yield _product(service, {**about, **where}, family, per, _there(_beside()[row], region))


def _of_machine(type: str, region: str, micro: int) -> Iterator[dict[str, Any]]:
    about = {
        "instanceType": type,
        "regionCode": region,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
        "marketoption": "OnDemand",
        "licenseModel": "No License required",
        "usagetype": f"BoxUsage:{type}",
    }
    family = "Compute Instance"
    yield _product("AmazonEC2", about, family, "Hrs", micro)
    yield _product("AmazonEC2", {**about, "operatingSystem": "Windows"}, family, "Hrs", micro * 2)
    yield _product("AmazonEC2", {**about, "tenancy": "Dedicated"}, family, "Hrs", micro * 11 // 10)
    yield _product("AmazonEC2", {**about, "capacitystatus": "AllocatedCapacityReservation"}, family, "Hrs", 0)


_BESIDE: dict[str, tuple[tuple[str, dict[str, str], str, str], ...]] = {
    "AmazonEC2": (("disk", {"volumeApiName": "gp3", "usagetype": "EBS:VolumeUsage.gp3"}, "Storage", "GB-Mo"),),
    "AmazonVPC": (("public-ipv4", {"group": "VPCPublicIPv4Address", "usagetype": "PublicIPv4:InUseAddress"}, "", "Hrs"),),
    "AWSDataTransfer": (
        (
            "egress",
            {"transferType": "AWS Outbound", "toLocation": "External", "usagetype": "DataTransfer-Out-Bytes"},
            "Data Transfer",
            "GB",
        ),
    ),
}


def _product(service: str, about: Mapping[str, str], family: str, per: str, micro: int) -> dict[str, Any]:
    sku = hashlib.sha256(json.dumps([service, about], sort_keys=True).encode()).hexdigest()[:16].upper()
    rate = {"unit": per, "beginRange": "0", "endRange": "Inf", "pricePerUnit": {"USD": f"{usd(micro)}0000"}, "description": _NOTE}
    term = {"sku": sku, "effectiveDate": f"{_as_of()}T00:00:00Z", "priceDimensions": {f"{sku}.T.R": rate}}
    product: dict[str, Any] = {"sku": sku, "attributes": {**about, "note": _NOTE}}
    if family:
        product["productFamily"] = family
    return {
        "product": product,
        "serviceCode": service,
        "terms": {"OnDemand": {f"{sku}.T": term}},
        "version": "simulated",
        "publicationDate": f"{_as_of()}T00:00:00Z",
    }


def hourly(type: str, region: str) -> int:
    """What such a machine costs an hour there, in micro-dollars; 0 for what has no price."""
    return _there(_machines().get(type, 0), region)


def _there(micro: int, region: str) -> int:
    if region == "us-east-1" or micro == 0:
        return micro
    percent = 102 + hashlib.sha256(region.encode()).digest()[0] % 20
    return -(-micro * percent // 100)


@cache
def _catalog() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((files("provisioner") / "providers" / "aws_catalog.json").read_text("utf-8"))
    return found


@cache
def _machines() -> dict[str, int]:
    return {row["type"]: row["microUsdPerHour"] for row in _catalog()["types"] if row["microUsdPerHour"]}


@cache
def _as_of() -> str:
    return max(str(row["priceAsOf"]) for row in _catalog()["types"] if row["priceAsOf"])


@cache
def _beside() -> dict[str, int]:
    here = json.loads((files("cost") / "prices.json").read_text("utf-8"))["regions"]["us-east-1"]
    return {name: row["microUsd"] for name, row in here.items()}
