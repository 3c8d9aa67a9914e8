"""Profile + offers + budget -> Plan: what would be rented, until when, for how much. Creates nothing.

The one place where dollars become an instant. What cannot be afforded, or not priced, is refused here, while it still
costs nothing. A plan's deadline is a duration until `run` fixes it to an instant just before the launch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cost
from provisioner.errors import ProviderError, RefusedError
from provisioner.model import Offer, Provider
from provisioner.profile import Profile
from provisioner.remote import through
from provisioner.runtimes import arguments

BOOT_AND_LOAD_S = {"aws": 12 * 60, "static": 60}
"""The least a run needs before its first answer: EC2 cold start with image and model load (reference figures: 8 to 12 min)."""

EVAL_S = 5 * 60
REHEARSAL_S = 60


IMAGE_GIB = 50
"""What the GPU image itself occupies where it cannot be asked; the deep-learning images are reported at 45 to 50 GiB."""


def volume_gib(needed_gib: int, image_gib: int = IMAGE_GIB) -> int:
    """The root volume for so many GiB *free*: the image beside it, and a tenth for what a file system keeps for itself."""
    return -(-(needed_gib + image_gib) * 11 // 10)


@dataclass(frozen=True)
class Plan:
    profile: Profile
    offers: tuple[Offer, ...]  # in the order in which they are asked for
    quotes: tuple[cost.Quote, ...]  # one for each of them
    budget_micro_usd: int
    max_seconds: int  # from launch to deadline
    expected_seconds: int
    simulated: bool
    left_out: tuple[str, ...] = ()  # offers that fit the profile and are not asked for, and why
    image_gib: int = IMAGE_GIB
    notes: tuple[str, ...] = ()  # what nobody could look up, so that the plan may not hold

    @property
    def disk_gib(self) -> int:
        """The size of the root volume to ask for."""
        return volume_gib(self.profile.requirements.disk_gib, self.image_gib)

    @property
    def offer(self) -> Offer:
        return self.offers[0]

    @property
    def quote(self) -> cost.Quote:
        """Of the first offer."""
        return self.quotes[0]

    @property
    def at_most_micro_usd(self) -> int:
        """With the dearest of the offers, ended by the last line of defence only."""
        return max(quote.at_most(self.max_seconds) for quote in self.quotes)

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
    limit = max_seconds or profile.max_seconds
    image_gib = _image_gib(profile, provider, offers[0].region)
    disk_gib = volume_gib(profile.requirements.disk_gib, image_gib)
    taken, left_out, seconds = _within(budget, offers, disk_gib, profile, limit, need, keep_s)
    if (longest := through.LONGEST_S.get(profile.launch.reach)) is not None and seconds > longest:
        raise RefusedError(
            f"the run may take {minutes(seconds)}, and a connection through an Instance Connect endpoint lasts {minutes(longest)}",
            why="AWS ends it then, whatever is going on; a run needs one connection for its whole length",
            next=f"the same command with --minutes {longest // 60}; or launch.reach: ssm, or address",
        )
    expected = min(seconds, need + EVAL_S + keep_s)
    return Plan(
        profile,
        tuple(offer for offer, _ in taken),
        tuple(quote for _, quote in taken),
        budget,
        seconds,
        expected,
        simulated,
        tuple(left_out),
        image_gib,
        _notes(profile, provider),
    )


def _notes(profile: Profile, provider: Provider) -> tuple[str, ...]:
    """What a plan rests on that was not looked up where it would be known."""
    unasked: tuple[str, ...] = getattr(provider, "unasked", ())
    known = "so prices are the snapshot's, and quotas, zones and the size of the image are not known"
    return tuple(f"{why}; {known}" for why in unasked[:1]) + tuple(filter(None, [unknown_release(profile)]))


def unknown_release(profile: Profile) -> str:
    """A word about a runtime.version whose flags are not the ones that are known here; nothing of it was checked."""
    name, version = profile.runtime.name, profile.runtime.version
    known = arguments.table(name).version
    if version.partition("+")[0] == known:
        return ""
    return f"runtime.version is {version}, and {name} {known} is known here: that it exists and takes these flags shows on the machine only"


def _within(
    budget: int, offers: Sequence[Offer], disk_gib: int, profile: Profile, limit: int, need: int, keep_s: int
) -> tuple[list[tuple[Offer, cost.Quote]], list[str], int]:
    """The offers that the budget covers, why the others are left out, and the time until the deadline.

    The first that can be afforded sets the deadline, which is one for the whole lease; a dearer one comes in only where
    the budget covers it until then.
    """
    taken: list[tuple[Offer, cost.Quote]] = []
    left_out: list[str] = []
    seconds = 0
    first: RefusedError | None = None
    for offer in offers:
        try:
            quote = quote_of(offer, disk_gib, profile.launch.reach)
            if not taken:
                seconds = cost.Budget(budget).seconds(quote, limit_seconds=limit, need_seconds=need + keep_s)
            elif (most := quote.at_most(seconds)) > budget:
                left_out.append(f"{offer_text(offer)}: {minutes(seconds)} of it may cost {cost.show(most)}")
                continue
        except cost.BudgetTooSmall as e:
            first = first or RefusedError(
                f"the budget or the time limit of {profile.name!r} is too small: {e}"
                + (f", {keep_s} s of them for --keep" if keep_s else ""),
                why=f"{offer.type} in {offer.region}, prices of {offer.price.as_of}",
                next="the same command with --budget USD or --minutes N" + (", or a shorter --keep" if keep_s else ""),
            )
            left_out.append(f"{offer_text(offer)}: {e}")
        except cost.UnknownPrice as e:
            first = first or RefusedError(str(e), why="an unknown price is not zero", next="name a region or type whose price is known")
            left_out.append(f"{offer_text(offer)}: {e}")
        else:
            taken.append((offer, quote))
    if not taken:
        assert first is not None, "there was an offer, and it was neither taken nor refused"
        raise first
    return taken, left_out, seconds


def offer_text(offer: Offer) -> str:
    """One offer, as the story and the lists name it."""
    return f"{offer.type} in {offer.zone or offer.region or 'place'}" + (", spot" if offer.spot else "")


def minutes(seconds: int) -> str:
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"


def needs_text(profile: Profile) -> str:
    """The requirements as a sentence."""
    need = profile.requirements
    gpu = "no GPU" if need.gpus == 0 else f"{need.gpus} × {need.gpu or 'any GPU'} with {need.vram_mib} MiB each"
    return f"it needs {gpu}, types {', '.join(need.types) or 'any'}, regions {', '.join(need.regions) or 'any'}"


def _image_gib(profile: Profile, provider: Provider, region: str) -> int:
    """The size of the image that will boot, so that the disk is asked for as it was quoted."""
    ask = getattr(provider, "image_gib", None)
    if ask is None:
        return IMAGE_GIB
    try:
        return int(ask(profile.launch.image, region))
    except RefusedError:
        if profile.launch.image is None:
            return IMAGE_GIB
        raise  # an image that the profile names and that is not there
    except ProviderError:
        return IMAGE_GIB  # a plan can be shown without an account; a launch with a larger image is refused


def quote_of(offer: Offer, disk_gib: int, reach: str = "address") -> cost.Quote:
    """What this machine costs, with its disk and its address, if it has one. UnknownPrice where one of the prices is not known."""
    if offer.provider == "static":
        return cost.own_host(offer.price)
    # A market that could not be asked is taken to ask the ceiling; what it may yet ask is still anything below.
    market = (offer.market or offer.price) if offer.spot else None
    return cost.quote(
        offer.price, region=offer.region, disk_gib=disk_gib, market=market, beside=offer.beside, public_ipv4=int(reach == "address")
    )
