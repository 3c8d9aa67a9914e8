"""AWS's public prices as whoever checks a proof wants them: what one unit costs, and since when that is on the list.

The same questions as before a launch, with the date that stands beside each answer. The list can be asked for today's prices
only (what it said on another day is in files of hundreds of megabytes, which nobody fetches to compare three numbers).
This file must not know what the prices are held against.
"""

from __future__ import annotations

import json
from datetime import date

from cost import UnitPrice
from provisioner.errors import ProviderError
from provisioner.providers import aws_prices
from provisioner.providers.aws_client import Account
from provisioner.providers.aws_prices import Unknown


def published(account: Account, component: str, type: str, region: str) -> UnitPrice | Unknown:
    """The price of an "instance" of that type, of a GiB-month of "disk" or an hour of "public-ipv4"; or why there is none.

    `as_of` is the day since which it is on the list. Raises ProviderError where the list does not answer.
    """
    found = {(rate, _since(text)) for text, rates in aws_prices.listed(account, component, type, region) for rate in rates if rate > 0}
    prices = {rate for rate, _ in found}
    if not prices:
        return Unknown(f"AWS's price list has none for it in {region}")
    if component == "instance" and len(prices) > 1:
        return Unknown(f"AWS's price list has {len(prices)} different ones for it in {region}")
    most = max(prices)
    # The latest of several dates: on it the price was on the list in any case.
    return UnitPrice(most, component, aws_prices.API, max(since for rate, since in found if rate == most))


def _since(text: str) -> str:
    """The day from which the terms of a product hold; ProviderError where it does not say."""
    try:
        terms = json.loads(text)["terms"]["OnDemand"].values()
        return max(date.fromisoformat(str(term["effectiveDate"])[:10]).isoformat() for term in terms)
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise ProviderError("GetProducts: a price without the day from which it holds", why=type(e).__name__) from e
