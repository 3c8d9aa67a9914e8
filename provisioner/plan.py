"""Profile + offers + budget -> Plan: what would be rented, until when, for how much. Creates nothing.

The one place where dollars become an instant. What cannot be afforded, or not priced, is refused here, while it still
costs nothing. A plan's deadline is a duration until `run` fixes it to an instant just before the launch.
"""

from __future__ import annotations

from dataclasses import dataclass

import cost
from provisioner.errors import RefusedError
from provisioner.model import Offer, Provider
from provisioner.profile import Profile

BOOT_AND_LOAD_S = {"aws": 12 * 60, "static": 60}
"""The least a run needs before its first answer: EC2 cold start with image and model load (reference figures: 8 to 12 min)."""

EVAL_S = 5 * 60
REHEARSAL_S = 60


IMAGE_GIB = 50
"""What the GPU image itself occupies; the deep-learning images are reported at 45 to 50 GiB."""


def volume_gib(needed_gib: int) -> int:
    """The root volume for so many GiB *free*: the image beside it, and a tenth for what a file system keeps for itself."""
    return -(-(needed_gib + IMAGE_GIB) * 11 // 10)


@dataclass(frozen=True)
class Plan:
    profile: Profile
    offers: tuple[Offer, ...]  # in order of preference; the quote is for the first
    quote: cost.Quote
    budget_micro_usd: int
    max_seconds: int  # from launch to deadline
    expected_seconds: int
    simulated: bool

    @property
    def disk_gib(self) -> int:
        """The size of the root volume to ask for."""
        return volume_gib(self.profile.requirements.disk_gib)

    @property
    def offer(self) -> Offer:
        return self.offers[0]

    @property
    def at_most_micro_usd(self) -> int:
        return self.quote.at_most(self.max_seconds)

    @property
    def expected_micro_usd(self) -> int:
        return self.quote.expected(self.expected_seconds)


def make(
    profile: Profile, provider: Provider, *, budget_micro_usd: int | None = None, max_seconds: int | None = None, keep_s: int = 0
) -> Plan:
    """Raises RefusedError where no offer fits, a price is not known, or the money ends before the run could start."""
    budget = profile.budget_micro_usd if budget_micro_usd is None else budget_micro_usd
    offers = tuple(provider.offers(profile.requirements))
    if not offers:
        settings = provider.settings()
        where = ", ".join(settings.get("regions") or [settings.get("region") or ""])
        raise RefusedError(
            f"no offer of {provider.name}{f' in {where}' if where else ''} fits the profile {profile.name!r}",
            why=needs_text(profile),
            next=f"relax `needs` in {profile.source}, or name another region; gpulease show profiles lists the shipped ones",
        )
    simulated = provider.traits.simulated
    need = REHEARSAL_S if simulated else BOOT_AND_LOAD_S.get(provider.name, 12 * 60)
    try:
        quote = _quote(offers[0], profile.requirements.disk_gib)
        seconds = cost.Budget(budget).seconds(quote, limit_seconds=max_seconds or profile.max_seconds, need_seconds=need + keep_s)
    except cost.BudgetTooSmall as e:
        raise RefusedError(
            f"the budget or the time limit of {profile.name!r} is too small: {e}" + (f", {keep_s} s of them for --keep" if keep_s else ""),
            why=f"{offers[0].type} in {offers[0].region}, prices of {offers[0].price.as_of}",
            next="the same command with --budget USD or --minutes N" + (", or a shorter --keep" if keep_s else ""),
        ) from e
    except cost.UnknownPrice as e:
        raise RefusedError(str(e), why="an unknown price is not zero", next="name a region or type whose price is known") from e
    expected = min(seconds, need + EVAL_S + keep_s)
    return Plan(profile, offers, quote, budget, seconds, expected, simulated)


def needs_text(profile: Profile) -> str:
    """The requirements as a sentence."""
    need = profile.requirements
    gpu = "no GPU" if need.gpus == 0 else f"{need.gpus} × {need.gpu or 'any GPU'} with {need.vram_mib} MiB each"
    return f"it needs {gpu}, types {', '.join(need.types) or 'any'}, regions {', '.join(need.regions) or 'any'}"


def _quote(offer: Offer, disk_gib: int) -> cost.Quote:
    if offer.provider == "static":
        return cost.own_host(offer.price)
    return cost.quote(offer.price, region=offer.region, disk_gib=volume_gib(disk_gib))
