"""The lists that `gpulease verify` holds prices against: what ships with gpulease, and AWS's own with the verifier's login.

AWS is asked once for each price, and only with `--online`; what keeps it from answering is a reason and never an error, because
nothing follows from an answer that did not come. It must not know what is concluded.
"""

from __future__ import annotations

import contextlib
from functools import cache

from cost import UnitPrice, UnknownPrice
from cost.prices import unit_price
from provisioner.errors import GpuleaseError
from provisioner.evidence.listprice import Lists
from provisioner.providers import aws_listed, aws_prices, aws_types
from provisioner.providers.aws_client import Account


def lists(online: bool, profile: str | None = None, endpoint: str | None = None) -> Lists:
    """What is known here; with `online` also what AWS says, in the account of that profile."""

    @cache
    def asked(component: str, type: str, region: str) -> UnitPrice | str:
        served = aws_prices.served_in(region)
        if served is None:
            return f"the prices of {region} are not in the list that can be asked"
        try:
            found = aws_listed.published(Account(served, profile, endpoint), component, type, region)
        except GpuleaseError as e:
            return f"AWS's price list could not be asked: {e.what}"
        return found if isinstance(found, UnitPrice) else found.why

    return Lists(shipped, asked if online else None)


def shipped(component: str, type: str, region: str) -> UnitPrice | None:
    """The price in the snapshot; that of a machine is of one region, whichever is asked about."""
    if component != "instance":
        with contextlib.suppress(UnknownPrice):
            return unit_price(component, region)
        return None
    row = aws_types.row_of(type)
    if row is None or row["microUsdPerHour"] is None or not row["priceAsOf"]:
        return None
    return UnitPrice(row["microUsdPerHour"], "instance", str(aws_types.catalog()["priceSource"]), str(row["priceAsOf"]))
