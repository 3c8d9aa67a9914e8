"""Asking AWS what could be rented: types, zones, prices, spot market and quotas, of every region at once.

Two rounds, each as wide as it can be, because most of the time is spent waiting: first what types there are and what
runs already, then, for those that fit the need, where they are, what they cost and how many more are allowed. What is
not answered is not an error here: it is a `Place` that says so, because offers are shown without an account too. When
the very first answer is that nobody can be asked (no credentials, no network), nothing else is sent.

Decides nothing: what follows from it is `aws_offers`, which is pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime

from cost import Beside, Price
from provisioner.errors import ProviderError
from provisioner.model import Requirements
from provisioner.providers import aws_prices, aws_quotas, aws_regions, aws_spot, aws_types
from provisioner.providers.aws_client import Account
from provisioner.providers.aws_errors import CREDENTIALS, NEVER_SENT
from provisioner.providers.aws_offers import Place
from provisioner.providers.aws_prices import Unknown
from provisioner.providers.aws_quotas import Quota
from provisioner.providers.aws_types import Type

WORKERS = 8
NOBODY = NEVER_SENT | CREDENTIALS
HERE_ONLY = frozenset({"AuthFailure", "OptInRequired", "UnrecognizedClientException", "InvalidClientTokenId"})
"""What a region also says that is not enabled for the account: nothing follows about the others."""

MOST_NAMES = 100  # of types in one filter


def look(accounts: Sequence[Account], pricing: Callable[[str], Account], need: Requirements, now: datetime | None = None) -> list[Place]:
    """One place per region, in the order of `accounts`. `pricing` makes the account for a region of the Pricing API."""
    first, *others = looks = [_Look(account, pricing, need, now or datetime.now(UTC)) for account in accounts]
    first.find_types()
    if first.nobody and not first.here_only:
        return [one.unasked(first.nobody) for one in looks]
    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="offers")
    try:
        _all(pool, [*(one.find_types for one in others), *(one.find_running for one in looks)])
        _all(pool, [task for one in looks if not one.nobody for task in one.second()])
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # after a signal nothing more is asked
    return [one.unasked(one.nobody) if one.nobody else one.place() for one in looks]


def _all(pool: ThreadPoolExecutor, tasks: Iterable[Callable[[], None]]) -> None:
    waiting: list[Future[None]] = [pool.submit(task) for task in tasks]
    for one in waiting:
        one.result()


class _Look:
    """What is being found out about one region. Each task fills in its own part; none raises for an answer that is missing."""

    def __init__(self, account: Account, pricing: Callable[[str], Account], need: Requirements, now: datetime) -> None:
        self.account, self.need, self.now, self.region = account, need, now, account.region
        served = aws_prices.served_in(account.region)
        self.pricing = pricing(served) if served is not None else None
        self.types: dict[str, Type] = {}
        self.zones: dict[str, tuple[str, ...]] | None = {}
        self.prices: dict[str, Price | Unknown] = {}
        self.beside: Beside | Unknown = aws_prices.snapshot_beside(self.region, now.date())
        self.spot: Mapping[tuple[str, str], aws_spot.History] | None = None
        self.quotas: dict[bool, dict[str | None, Quota]] = {False: {}, True: {}}
        self.running: Mapping[str, int] | str = "not asked"
        self.notes: dict[str, None] = {}  # a set that keeps its order
        self.nobody, self.here_only = "", False
        self.asked = True

    def find_types(self) -> None:
        try:
            wanted = [{"Name": "instance-type", "Values": aws_types.patterns(self.need)[:MOST_NAMES]}]
            for page in self.account.pages("DescribeInstanceTypes", 100, Filters=wanted):
                self.types.update(aws_types.described(page.data))
        except ProviderError as e:
            if e.provider_code in NOBODY | HERE_ONLY:
                self.nobody, self.here_only = e.what, e.provider_code in HERE_ONLY
            self.types = aws_types.known()
            self._note(f"{self.region}: EC2 did not say which types there are, so the catalog does ({e.what})")

    def find_running(self) -> None:
        self.running = aws_quotas.in_use(self.account, aws_types.known())

    def second(self) -> list[Callable[[], None]]:
        fits = self._fits()
        if not fits:
            return []
        tasks: list[Callable[[], None]] = [lambda: self.find_zones(fits), self.find_beside]
        tasks += [lambda type=type: self.find_price(type) for type in fits]  # type: ignore[misc]
        if "spot" in self.need.purchase:
            tasks.append(lambda: self.find_spot(fits))
        for spot in sorted({way == "spot" for way in self.need.purchase}):
            for code in sorted({aws_quotas.code_of(type, spot) or "" for type in fits}):
                tasks.append(lambda code=code or None, spot=spot: self.find_quota(code, spot))  # type: ignore[misc]
        return tasks

    def find_zones(self, fits: Sequence[str]) -> None:
        zones: dict[str, list[str]] = {}
        try:
            for at in range(0, len(fits), MOST_NAMES):
                wanted = [{"Name": "instance-type", "Values": list(fits[at : at + MOST_NAMES])}]
                for page in self.account.pages("DescribeInstanceTypeOfferings", None, LocationType="availability-zone", Filters=wanted):
                    for offering in page.data.get("InstanceTypeOfferings", []):
                        zones.setdefault(str(offering["InstanceType"]), []).append(str(offering["Location"]))
        except ProviderError as e:
            self.zones = None  # only the zones stay unnamed; a launch still finds out for itself
            self._note(f"{self.region}: EC2 did not say which zones have the types ({e.what})")
        else:
            self.zones = {type: tuple(sorted(places)) for type, places in zones.items()}

    def find_price(self, type: str) -> None:
        today = self.now.date()
        try:
            if self.pricing is not None:
                self.prices[type] = aws_prices.machine(self.pricing, self.region, type, today)
                return
        except ProviderError as e:
            self._note(f"AWS's price list was not read ({e.what})")
        self.prices[type] = aws_prices.snapshot(self.region, type, today)

    def find_beside(self) -> None:
        try:
            if self.pricing is not None:
                asked = aws_prices.beside(self.pricing, self.region, self.now.date())
                # What the list does not show there may still be in the snapshot: these are few, and cents.
                self.beside = asked if isinstance(asked, Beside) or isinstance(self.beside, Unknown) else self.beside
        except ProviderError as e:
            self._note(f"AWS's price list was not read ({e.what})")

    def find_spot(self, fits: Sequence[str]) -> None:
        try:
            self.spot = aws_spot.history(self.account, fits, self.now)
        except ProviderError as e:
            self._note(f"{self.region}: EC2 did not say what the spot market asks ({e.what})")

    def find_quota(self, code: str | None, spot: bool) -> None:
        self.quotas[spot][code] = aws_quotas.limit(self.account, code, spot)

    def unasked(self, why: str) -> Place:
        """The catalog and the snapshot alone."""
        self.types, self.zones, self.asked, today = aws_types.known(), None, False, self.now.date()
        self.prices = {type: aws_prices.snapshot(self.region, type, today) for type in self._fits()}
        where, hint = (f" about {self.region}" if self.here_only else ""), _unheard_of(self.region)
        self.notes = {f"AWS {'did not answer' if self.here_only else 'was not asked'}{where}: {why}{hint}": None}
        return self.place()

    def place(self) -> Place:
        used = self.running
        quotas = {}
        for spot, by_code in self.quotas.items():
            for code, quota in by_code.items():
                known = used.get(code or "", 0) if isinstance(used, Mapping) else None
                why = quota.why or (used if isinstance(used, str) else "")
                quotas[spot, code] = Quota(code, self.region, spot, quota.limit, known, why)
        return Place(
            self.region, self.types, self.zones, self.prices, self.beside, self.spot, quotas, tuple(self.notes), self.asked, self.now.date()
        )

    def _fits(self) -> list[str]:
        return sorted(name for name, type in self.types.items() if aws_types.misfit(type, self.need) is None)

    def _note(self, text: str) -> None:
        self.notes[text] = None


def _unheard_of(region: str) -> str:
    """A word where botocore's own list has no region of that name: it is misspelt, or newer than the list."""
    if region in aws_regions.known():
        return ""
    near = aws_regions.nearest(region)
    return f"; botocore knows no region {region}" + (f", but {near}" if near else "")
