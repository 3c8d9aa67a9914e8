"""`gpulease offers`: what could be rented, as a table for a person and as a record for a program.

Nothing is decided here: the provider's survey says what is offered, in which order and why the rest is out. With a
profile the order is the one in which a run would try (its way to buy first); without one, cheapest first whatever the
way. The table shows money and place; what holds for all of it (where prices are from and how old they are, quotas)
stands once, above or below. Whatever was not asked, or not answered, is said before the table.
"""

from __future__ import annotations

import math
import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import cost
from provisioner import profile, providers
from provisioner.clean import clean
from provisioner.clouds import default_region, rehearsal
from provisioner.errors import Exit, RefusedError, UsageError
from provisioner.model import Requirements
from provisioner.profile_fields import family, gpus, nearest
from provisioner.render import SIMULATED, table

if TYPE_CHECKING:
    from provisioner.providers.aws import AwsProvider
    from provisioner.providers.aws_offers import Line, Out, Survey

MOST_ROWS, MOST_REASONS, WIDE = 24, 12, 120
FALLBACK_REGION = "us-east-1"
CEILING = f"{cost.SPOT_CEILING}the on-demand price, "  # as aws_offers begins the source of a ceiling; its own line explains it
SCHEMA = "gpulease/offers/1"


@dataclass(frozen=True)
class Wish:
    """What the command line says."""

    profile: str | None
    gpu: str | None
    gpus: int | None
    vram_gib: str | None
    types: tuple[str, ...]
    spot: bool
    regions: tuple[str, ...]
    aws_profile: str | None
    rehearse: bool
    endpoint: str | None


def look(wish: Wish) -> tuple[int, dict[str, Any], str]:
    if wish.endpoint is not None and not wish.rehearse:
        raise UsageError("--endpoint needs --rehearse", why="an endpoint is for rehearsals", next="add --rehearse")
    if wish.rehearse and wish.aws_profile is not None:
        raise UsageError("--aws-profile has no meaning in a rehearsal", why="it uses no account of yours", next="leave it out")
    need, notes = needed(wish)
    with _reached(wish, need) as provider:
        found = provider.survey(need)
    if wish.profile is None:
        found = replace(found, lines=tuple(sorted(found.lines, key=lambda line: line.expected)))
    code = Exit.OK if found.lines else Exit.REFUSED
    width = shutil.get_terminal_size((100, 24)).columns
    return int(code), record(found, need, notes, wish.rehearse), text(found, need, notes, wish.rehearse, width)


def needed(wish: Wish) -> tuple[Requirements, list[str]]:
    """The need, and what has to be said about how it came to be."""
    need = profile.load(wish.profile).requirements if wish.profile is not None else Requirements()
    notes: list[str] = []
    changes: dict[str, Any] = {}
    if wish.gpu is not None:
        changes["gpu"] = wish.gpu
    if wish.gpus is not None:
        changes["gpus"] = wish.gpus
    if wish.vram_gib is not None:
        changes["vram_mib"] = _mib(wish.vram_gib)
    if wish.types:
        changes["types"] = wish.types
    if wish.spot and "spot" not in need.purchase:
        changes["purchase"] = (*need.purchase, "spot")
    regions = list(wish.regions or need.regions)
    if not regions:
        regions = [_region(wish, notes)]
    return replace(need, **changes, regions=tuple(dict.fromkeys(regions))), notes


def _region(wish: Wish, notes: list[str]) -> str:
    if wish.rehearse:
        return FALLBACK_REGION
    try:
        return default_region(wish.aws_profile)
    except UsageError:
        notes.append(f"no region is named anywhere, so this is {FALLBACK_REGION}; --region names another, also several times")
        return FALLBACK_REGION


def _mib(text: str) -> int:
    if not re.fullmatch(r"\d{1,4}(\.\d{1,6})?", text) or not text.isascii():
        raise UsageError(f"--vram is {clean(text, limit=40)!r}", why="expected GiB per GPU, such as 20 or 22.5", next="--vram 20")
    return math.ceil(Decimal(text) * 1024)


@contextmanager
def _reached(wish: Wish, need: Requirements) -> Iterator[AwsProvider]:
    regions: Any = list(need.regions)
    if not wish.rehearse:
        yield _aws(providers.connect("aws", {"region": regions[0], "regions": regions, "profile": wish.aws_profile, "endpoint": None}))
        return
    with rehearsal(regions, wish.endpoint, []) as (provider, _):
        yield _aws(provider)


def _aws(provider: Any) -> AwsProvider:
    from provisioner.providers.aws import AwsProvider

    if not isinstance(provider, AwsProvider):
        raise RefusedError("offers are those of EC2", why=f"the provider is {provider.name}", next="gpulease plan PROFILE")
    return provider


# fmt: off
def record(found: Survey, need: Requirements, notes: Sequence[str], simulated: bool) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "simulated": simulated,
        "asked": found.asked,
        "need": {
            "gpu": need.gpu, "gpus": need.gpus, "vramMib": need.vram_mib, "types": list(need.types), "regions": list(need.regions),
            "purchase": list(need.purchase), "spotMaxMicroUsdPerHour": need.spot_max_micro_usd,
        },
        "notes": [*notes, *found.notes],
        "offers": [_line_record(line) for line in found.lines],
        "out": [
            {
                "kind": out.kind, "type": out.type, "region": out.region, "zone": out.zone,
                "purchase": _way(out.spot), "why": out.why, "next": out.next,
            }
            for out in found.out
        ],
    }


def _line_record(line: Line) -> dict[str, Any]:
    offer, quota, history = line.offer, line.quota, line.history
    return {
        "region": offer.region, "zone": offer.zone, "type": offer.type, "purchase": _way(offer.spot),
        "gpu": offer.gpu, "gpus": offer.gpus, "vramMib": offer.vram_mib, "vramVerified": line.type.verified,
        "ec2VramMib": line.type.ec2_mib, "vcpus": offer.vcpus,
        "expectedMicroUsdPerHour": line.expected,
        "mostMicroUsdPerHour": offer.price.micro_usd_per_hour,
        "price": {"source": offer.price.source, "asOf": offer.price.as_of},
        "marketMicroUsdPerHour": history.now if history else None,
        "lowestMicroUsdPerHour": history.low if history else None,
        "highestMicroUsdPerHour": history.high if history else None,
        "historyDays": history.days if history else None,
        "quota": {
            "code": quota.code, "limitVcpus": quota.limit, "usedVcpus": quota.used,
            "allows": quota.allows(offer.vcpus), "why": quota.why,
        },
    }
# fmt: on


def text(found: Survey, need: Requirements, notes: Sequence[str], simulated: bool, width: int) -> str:
    """As wide as the terminal; under 120 columns without what can be done without."""
    width = max(60, min(width, 160))
    parts = [SIMULATED] if simulated else []
    parts += [_wrap(note, width) for note in (*notes, *found.notes)]
    if found.lines:
        parts += ["", _table(found.lines, width)]
        parts += ["", *(_wrap(line, width, "  ") for line in _below(found.lines))]
    else:
        parts += ["", f"nothing fits: {_need_text(need)}"]
    if reasons := list(_reasons(found.out)):
        parts += ["", "out:"]
        parts += [_wrap(f"  {reason}", width, "    ") for reason in reasons[:MOST_REASONS]]
        if len(reasons) > MOST_REASONS:
            parts.append(f"  and {len(reasons) - MOST_REASONS} reasons more: --json has them all")
    elif not found.lines:
        parts.append(_wrap(_nothing_near(need), width, "  "))
    return "\n".join(parts).lstrip("\n")


def _table(lines: Sequence[Line], width: int) -> str:
    """With every zone where that fits, else with the first few, else with their number; last without what is said below too."""
    made = ""
    for most_zones, quota in ((99, True), (3, True), (0, True), (0, False)):
        made = _rows(lines, width, most_zones, quota)
        if max(map(len, made.splitlines())) <= width:
            break
    return made


def _rows(lines: Sequence[Line], width: int, most_zones: int, quota: bool) -> str:
    wide = width >= WIDE
    spot = any(line.offer.spot for line in lines)
    head = ["type", "gpu", "MiB", "buy", "$/h", *(["at most"] if spot else []), *(["7 days"] if spot and wide else [])]
    head += [*(["vcpus"] if wide else []), *(["quota"] if quota else []), "where"]
    rows = []
    groups = list(_grouped(lines))
    for group in groups[:MOST_ROWS]:
        line = group[0]
        offer, zones = line.offer, [(one.offer.zone or "").removeprefix(line.offer.region) for one in group]
        row = [offer.type, _gpu(line, wide), _memory(line), _way(offer.spot) if wide else _way(offer.spot).removeprefix("on-")]
        row += [_usd(line.expected) + _more(group) if not offer.spot or offer.market else f"<={_usd(line.expected)}"]
        row += [_usd(offer.price.micro_usd_per_hour)] if spot else []
        if spot and wide:
            past = [one.history for one in group if one.history is not None]
            row.append(f"{_usd(min(p.low for p in past))}-{_usd(max(p.high for p in past))}" if past else "")
        row += [str(offer.vcpus)] if wide else []
        rest = [f"+{len(zones) - most_zones}" if most_zones else f"({len(zones)})"] if len(zones) > most_zones else []
        row += [*([_allowed(line)] if quota else []), " ".join([offer.region, *zones[:most_zones], *rest]).rstrip()]
        rows.append(row)
    more = len(groups) - MOST_ROWS
    return table(rows, head) + (f"\nand {more} more lines: --json has them all" if more > 0 else "")


def _grouped(lines: Sequence[Line]) -> Iterator[list[Line]]:
    """What differs by nothing but its zone, and what the market asks there, is one line, where its cheapest zone stands."""
    groups: dict[tuple[object, ...], list[Line]] = {}
    for line in lines:
        offer = line.offer
        key = (offer.type, offer.region, offer.spot, offer.price, offer.market is None, line.quota)
        groups.setdefault(key, []).append(line)
    yield from groups.values()


def _more(group: Sequence[Line]) -> str:
    return "+" if any(one.expected > group[0].expected for one in group) else ""


def _below(lines: Sequence[Line]) -> Iterator[str]:
    """What holds for many lines, said once."""
    sources = dict.fromkeys((line.offer.price.source.removeprefix(CEILING), line.offer.price.as_of) for line in lines)
    for source, day in list(sources)[:4]:
        yield f"price: {source}, {day}"
    if any(line.offer.spot for line in lines):
        asked = any(line.history for line in lines)
        if asked:
            yield "spot: $/h is what the market asks now (+: in the cheapest zone; the zones stand in that order), at most the ceiling"
        else:
            yield "spot: the market could NOT be asked, so $/h is the ceiling of the request"
    quotas = {(line.quota.code, line.quota.region): line for line in lines}
    for line in quotas.values():
        quota = line.quota
        if quota.limit is not None and quota.used is not None:
            yield f"quota: {quota.code} in {quota.region}, {_way(quota.spot)}: {quota.used} of {quota.limit} vCPUs in use"
        else:
            limit = f"limit {quota.limit}, in use unknown" if quota.limit is not None else "unknown"
            yield f"quota: {quota.code or 'of this family'} in {quota.region}, {_way(quota.spot)}: {limit} ({clean(quota.why, limit=200)})"
    if any(not line.type.verified and line.offer.vram_mib for line in lines):
        yield "MiB: ? after a figure means that nobody has verified it on a machine"
    if any(line.offer.gpus and not line.offer.vram_mib for line in lines):
        yield "MiB: (EC2) is EC2's own figure; what the driver shows is not known"


def _reasons(outs: Sequence[Out]) -> Iterator[str]:
    """One sentence per reason, with everything it is about."""
    groups: dict[tuple[str, str], dict[str, None]] = {}
    for out in (one for one in outs if one.market is None):
        why = out.why.replace(out.type, "it") + (", spot" if out.spot else "")
        groups.setdefault((why, out.next), {})[f"{out.type} ({out.zone or out.region})"] = None
    for (why, next), names in groups.items():
        types = list(dict.fromkeys(name.split(" ")[0] for name in names))
        who = _named(types) if len(names) > 1 else "".join(names)
        yield f"{who}: {why}" + (f"; next: {next}" if next else "")
    yield from _too_dear([one for one in outs if one.market is not None])


def _named(types: Sequence[str]) -> str:
    return ", ".join(types[:3]) + (f" and {len(types) - 3} more" if len(types) > 3 else "")


def _too_dear(outs: Sequence[Out]) -> Iterator[str]:
    """Every zone has a price of its own, and all of them are above the one ceiling: the lowest says by how much."""
    by_region: dict[str, list[Out]] = {}
    for out in outs:
        by_region.setdefault(out.region, []).append(out)
    for region, found in by_region.items():
        lowest = min(found, key=lambda out: out.market or 0)
        which = f"the lowest of {len(found)}: {lowest.type} in {lowest.zone}" if len(found) > 1 else f"{lowest.type} in {lowest.zone}"
        types = _named(list(dict.fromkeys(out.type for out in sorted(found, key=lambda out: out.market or 0))))
        yield f"{types} ({region}): {lowest.why} ({which}); next: {lowest.next}"


def _nothing_near(need: Requirements) -> str:
    known = gpus()
    if need.gpu and need.gpu.lower() not in (name.lower() for name in known):
        hint = nearest(need.gpu, known) or f"known: {', '.join(sorted(known))}"
        return f"nothing is known to have a {clean(need.gpu, limit=40)}; {hint}"
    return "nothing comes near it, either"


def _need_text(need: Requirements) -> str:
    gpu = "no GPU" if need.gpus == 0 else f"{need.gpus} x {need.gpu or 'any GPU'}" + (f" with {need.vram_mib} MiB" if need.vram_mib else "")
    return f"{clean(gpu)}, types {', '.join(need.types) or 'any'}, in {', '.join(need.regions)}, {' or '.join(need.purchase)}"


def _gpu(line: Line, wide: bool) -> str:
    if not line.offer.gpus:
        return "none"
    name = clean(line.offer.gpu if wide else family(line.offer.gpu))
    return f"{line.offer.gpus} x {name}" if line.offer.gpus > 1 else name


def _memory(line: Line) -> str:
    if line.offer.vram_mib:
        return f"{line.offer.vram_mib}{'' if line.type.verified else ' ?'}"
    return f"{line.type.ec2_mib} (EC2)" if line.type.ec2_mib else "-" if not line.offer.gpus else "unknown"


def _allowed(line: Line) -> str:
    return "ok" if line.quota.allows(line.offer.vcpus) else "unknown"


def _way(spot: bool) -> str:
    return "spot" if spot else "on-demand"


def _usd(micro: int) -> str:
    """With at least four decimals, so that a column of them can be compared."""
    whole, _, part = cost.show_per_hour(micro).removeprefix("$").removesuffix("/h").partition(".")
    return f"{whole}.{part.ljust(4, '0')}"


def _wrap(line: str, width: int, indent: str = "  ") -> str:
    return textwrap.fill(clean(line) if not line.startswith("  ") else f"  {clean(line[2:])}", width, subsequent_indent=indent)
