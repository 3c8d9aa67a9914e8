"""The regions that AWS has, by the list inside botocore: what is refused where a name is written down for good.

Only for policies and for what is made once. Whatever looks, rents or lets go takes any name in the shape of one: a region may be newer
than the list, and a list must not be why a machine there is not ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache

from provisioner.errors import UsageError


@cache
def known() -> tuple[str, ...]:
    """The regions of every partition. Read without a session: whatever is wrong with the user's configuration is no part of it."""
    from botocore.loaders import create_loader

    return tuple(name for partition in create_loader().load_data("endpoints")["partitions"] for name in partition["regions"])


def nearest(region: str) -> str:
    """The known name that a misspelt one most likely means; "" where none is like it."""
    # Two letters that changed places are the usual mistake; by the measure of difflib us-esat-1 is nearer to us-west-1.
    near = [name for name in known() if sorted(name) == sorted(region)] or get_close_matches(region, known(), 1)
    return near[0] if near else ""


def check(regions: Iterable[str]) -> None:
    """UsageError for the first that is none, with the nearest that is."""
    for region in regions:
        if region not in known():
            near = nearest(region)
            why = f"nearest: {near}" if near else "no region is called anything like it"
            raise UsageError(
                f"there is no AWS region {region!r}",
                why=f"{why}; boto3 knows {len(known())}",
                next=f"--region {near or 'us-east-1'}",
            )
