"""Whether an account may run one more machine of a type: its vCPU quota, and what counts against it already.

EC2 counts vCPUs per region, group of families and way to buy. The quota is Service Quotas' to tell; what runs is
added up from DescribeInstances. *Unknown is never ok*: a denied or missing answer is a `Quota` without a limit or
without a use, and the only thing that may follow from it is a no (a limit that is too small even for an empty account).
This file must not know prices.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any

from provisioner.errors import ProviderError
from provisioner.providers.aws_client import Account
from provisioner.providers.aws_types import Type

_STANDARD = ("a", "c", "d", "h", "i", "im", "is", "m", "r", "t", "z")
_CODES: tuple[tuple[str, bool, tuple[str, ...]], ...] = (
    ("L-DB2E81BA", False, ("g", "gr", "vt")),
    ("L-3819A6DF", True, ("g", "gr", "vt")),
    ("L-417A185B", False, ("p",)),
    ("L-7212CCBC", True, ("p2", "p3", "p4")),  # p5 and later have spot quotas of their own
    ("L-1216C47A", False, _STANDARD),
    ("L-34B43A08", True, _STANDARD),
)


def code_of(type: str, spot: bool) -> str | None:
    """The quota that a type counts against; None where we do not know it."""
    found = re.match(r"([a-z]+)(\d*)", type)
    names = {found[1], found[1] + found[2]} if found else set()
    return next((code for code, of_spot, families in _CODES if of_spot == spot and names & set(families)), None)


@dataclass(frozen=True)
class Quota:
    """vCPUs allowed and in use, each None where nobody said."""

    code: str | None
    region: str
    spot: bool
    limit: int | None = None
    used: int | None = None
    why: str = ""  # why one of them is not known

    def allows(self, vcpus: int) -> bool | None:
        """True only where both figures are known; None: nobody can say."""
        if self.limit is not None and vcpus + (self.used or 0) > self.limit:
            return False
        return None if self.limit is None or self.used is None else True

    def text(self, vcpus: int) -> str:
        allowed = self.allows(vcpus)
        if allowed is None:
            return "unknown" if self.limit is None else f"unknown: limit {self.limit}"
        return f"{'ok' if allowed else 'too small'}: {self.used if self.used is not None else '?'} of {self.limit} used"

    def refusal(self, type: str, vcpus: int) -> str:
        in_use = "how many are in use is not known" if self.used is None else f"{self.used} in use"
        way = "spot" if self.spot else "on demand"
        return f"it takes {vcpus} vCPUs {way}; the quota {self.code} in {self.region} is {self.limit}, {in_use}"

    def ask_for(self, vcpus: int) -> str:
        """The command that asks AWS for enough."""
        return (
            f"aws service-quotas request-service-quota-increase --service-code ec2 --quota-code {self.code} "
            f"--desired-value {vcpus + (self.used or 0)} --region {self.region}   (or the console: Service Quotas, Amazon EC2)"
        )


def limit(account: Account, code: str | None, spot: bool) -> Quota:
    """What Service Quotas says. Never raises for an answer that does not come: that is a quota nobody knows."""
    unknown = Quota(code, account.region, spot)
    if code is None:
        return replace(unknown, why="no quota is known for this family")
    try:
        answer = account.ask("GetServiceQuota", service="service-quotas", ServiceCode="ec2", QuotaCode=code)
        value = Decimal(str(answer.data["Quota"]["Value"]))
        return (
            replace(unknown, limit=int(value)) if value.is_finite() and value >= 0 else replace(unknown, why=f"Service Quotas says {value}")
        )
    except ProviderError as e:
        return replace(unknown, why=e.what)
    except (KeyError, TypeError, InvalidOperation, ValueError) as e:
        return replace(unknown, why=f"Service Quotas gave no number: {type(e).__name__}")


def in_use(account: Account, types: Mapping[str, Type]) -> Mapping[str, int] | str:
    """vCPUs in use by quota code, or why that is not known."""
    states = {"Name": "instance-state-name", "Values": ["pending", "running"]}
    used: dict[str, int] = {}
    try:
        for page in account.pages("DescribeInstances", 1000, Filters=[states]):
            for instance in _instances(page.data):
                name, spot = str(instance.get("InstanceType", "")), instance.get("InstanceLifecycle") == "spot"
                code, vcpus = code_of(name, spot), _vcpus(instance, types)
                if code is None:
                    continue
                if vcpus is None:
                    return f"a {name} is running, and how many vCPUs it has is not known"
                used[code] = used.get(code, 0) + vcpus
    except ProviderError as e:
        return e.what
    return used


def _instances(data: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    return (instance for reservation in data.get("Reservations", []) for instance in reservation.get("Instances", []))


def _vcpus(instance: Mapping[str, Any], types: Mapping[str, Type]) -> int | None:
    """What EC2 counts: the vCPUs of the type, not those that CpuOptions left on."""
    name = str(instance.get("InstanceType", ""))
    if name in types:
        return types[name].vcpus
    options = instance.get("CpuOptions", {})
    cores, threads = options.get("CoreCount"), options.get("ThreadsPerCore")
    return cores * max(threads, 2) if isinstance(cores, int) and isinstance(threads, int) else None
