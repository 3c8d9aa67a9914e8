"""From options to a cloud: which provider, reached how, as whom, and whether it is a rehearsal.

Everything that can be refused is refused here, before a lease exists. A rehearsal's cloud is a process of its own that
outlives the run, so that a crash can be rehearsed too; it is ended here once nothing is left in it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, build_opener

import cost
from provisioner import guards, ledger, plan, profile, providers, times
from provisioner.errors import RefusedError, UsageError
from provisioner.life import Access
from provisioner.model import Provider
from provisioner.render import plan_text

SPAN = re.compile(r"([0-9]{1,5})(s|m|h)?")
PLACE = re.compile(r"([a-z_][a-z0-9_-]{0,31})@(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9][A-Za-z0-9.-]{0,252}))(?::([0-9]{1,5}))?")
REHEARSAL_CIDR = "127.0.0.1/32"


@dataclass(frozen=True)
class Target:
    """What the options say: which profile, where, as whom."""

    profile: str
    budget: str | None
    minutes: int | None
    provider: str | None
    region: str | None
    aws_profile: str | None
    host: str | None
    identity: Path | None
    host_key: str | None
    rehearse: bool
    endpoint: str | None = None
    faults: str | None = None
    keep: str = "0"
    reach_from: str | None = None
    no_ingress: bool = False

    @property
    def keep_s(self) -> int:
        found = SPAN.fullmatch(self.keep)
        if not found:
            raise UsageError(f"--keep is {self.keep!r}", why="expected a time such as 90s, 30m or 2h", next="--keep 30m")
        return int(found[1]) * {"s": 1, "m": 60, "h": 3600, None: 60}[found[2]]

    @property
    def provider_name(self) -> str:
        return self.provider or ("static" if self.host else "aws")


@dataclass
class Ready:
    """A plan, and everything that is needed to run it."""

    plan: plan.Plan
    provider: Provider
    access: Access

    def plan_text(self) -> str:
        return plan_text(self.plan)

    def plan_record(self) -> dict[str, Any]:
        from provisioner.run import offer_record

        made = self.plan
        return {
            "schema": "gpulease/plan/1",
            "simulated": made.simulated,
            "profile": {"name": made.profile.name, "sha256": made.profile.sha256},
            "offers": [offer_record(offer) for offer in made.offers],
            "quote": made.quote.record(made.expected_seconds, made.max_seconds),
            "budgetMicroUsd": made.budget_micro_usd,
            "maxRunSeconds": made.max_seconds,
            "notes": list(made.notes),
        }


def launching(target: Target, ready: Ready, tell: Callable[[str], None] = lambda text: None) -> Access:
    """What only a launch needs to know of a real account: that we may log in, for long enough, and where we come from."""
    from provisioner import rehearsed

    provider: Any = ready.provider
    regions = [offer.region for offer in ready.plan.offers]
    waived, fleet = ready.plan.profile.waived, ready.plan.profile.launch.fleet
    if target.rehearse and provider.traits.schedules:
        rehearsed.prepare(provider, regions)
    if target.rehearse or provider.name != "aws":
        guards.check_fleet(provider, fleet)
        guards.check_schedule(provider, regions, waived)
        if doubt := getattr(provider, "doubt", ""):
            tell(doubt)
        return rehearsed.way_in(ready.access, provider, ready.plan.profile.launch.reach) if target.rehearse else ready.access
    from provisioner import caller
    from provisioner.providers import aws_login

    provider.identity()
    guards.check_fleet(provider, fleet)
    guarded = guards.at_the_provider(provider, regions, waived, fleet)
    warning = aws_login.require(provider.login(), ready.plan.max_seconds, time.time(), guarded)
    if warning:
        tell(warning)
    if not guarded or fleet:
        guards.check_schedule(provider, regions, waived)  # says what is missing, unless the profile waives it
    if provider.doubt:
        tell(provider.doubt)
    reach = ready.plan.profile.launch.reach
    if reach == "address":
        return replace(ready.access, ingress_cidr=target.reach_from or caller.cidr())
    from provisioner.remote import through

    through.check(reach)
    return replace(ready.access, reach=reach, route=through.route(reach, target.aws_profile))


@contextmanager
def planned(target: Target) -> Iterator[Ready]:
    """Everything that can be refused is refused here. A rehearsal's cloud lives from here until it has nothing left."""
    from provisioner.serving import spec_of

    check(target)
    wanted = profile.load(target.profile)
    wanted = wanted.rehearsed() if target.rehearse else wanted
    wanted = wanted.without_ingress() if target.no_ingress else wanted
    guards.check_waived(wanted.waived)
    spec_of(wanted)
    budget = _money(target.budget) if target.budget is not None else None
    seconds = target.minutes * 60 if target.minutes is not None else None
    with _cloud(target, wanted) as (provider, access):
        made = plan.make(wanted, provider, budget_micro_usd=budget, max_seconds=seconds, keep_s=target.keep_s)
        yield Ready(made, provider, access)


def check(target: Target) -> None:
    """Refuse options that do not go together, or would be silently without effect, before anything is looked at."""
    name = target.provider_name
    target.keep_s  # noqa: B018  a time that cannot be read is said first, not after the cloud was asked
    if target.rehearse and name != "aws":
        told = f"--provider is {target.provider}" if target.provider else "--host means a machine of your own"
        raise UsageError("--rehearse rehearses AWS", why=told, next="leave one of them out")
    if name not in providers.names():
        raise UsageError(f"no provider is called {name!r}", why=f"known: {', '.join(providers.names())}", next="gpulease show providers")
    for only, needs, why in (
        (("faults",), "--rehearse", "nothing is broken on purpose where it costs money"),
        (("endpoint",), "--rehearse", "only a rehearsal is at an address of its own; a run asks AWS"),
        (("host", "identity", "host_key"), "--provider static", "only a machine of your own has one"),
        (("region", "aws_profile", "reach_from", "no_ingress"), "--provider aws", "a machine of your own is where it is"),
    ):
        goes = target.rehearse if needs == "--rehearse" else name == needs.split()[1] or (needs.endswith("aws") and name != "static")
        if not goes and (given := [f"--{one.replace('_', '-')}" for one in only if getattr(target, one) not in (None, False)]):
            raise UsageError(f"{' and '.join(given)} {'needs' if len(given) == 1 else 'need'} {needs}", why=why, next=f"add {needs}")
    if not target.rehearse and os.environ.get(times.NAME):
        raise UsageError(
            f"{times.NAME} is set, and this is no rehearsal", why="the times of a real run do not change", next=f"unset {times.NAME}"
        )
    times.of(target.rehearse)
    useless = next((f"--{o.replace('_', '-')}" for o in ("aws_profile", "reach_from") if getattr(target, o)), None)
    if target.rehearse and useless:
        raise UsageError(f"{useless} has no meaning in a rehearsal", why="it uses no account and no address of yours", next="leave it out")
    if target.no_ingress and target.reach_from is not None:
        raise UsageError("--no-ingress and --reach-from", why="the one lets no address in, the other one", next="leave one of them out")
    if target.reach_from is not None:
        _cidr(target.reach_from)


def _cidr(text: str) -> None:
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as e:
        raise UsageError(
            f"--reach-from is {text!r}: {e}", why="expected an IPv4 address and /32", next="--reach-from 203.0.113.7/32"
        ) from e
    if network.prefixlen < 32:
        raise UsageError(f"--reach-from {text} is {network.num_addresses} addresses", why="port 22 is opened to one", next="ADDRESS/32")


@contextmanager
def _cloud(target: Target, wanted: profile.Profile) -> Iterator[tuple[Provider, Access]]:
    if target.rehearse:
        regions, faults = _regions(target, wanted) or ["us-east-1"], read_faults(target.faults)
        if wanted.launch.reach != "address" and target.endpoint is None:
            # What an account of the user's would have; a cloud that somebody serves is as they made it.
            faults = [{"connect_endpoints": dict.fromkeys(regions, "create-complete"), "session_manager": True}, *faults]
        with rehearsal(regions, target.endpoint, faults) as found:
            yield found
    elif target.provider_name == "static":
        yield _static(target)
    elif target.provider_name == "aws":
        yield _aws(target, wanted)
    else:
        yield providers.connect(target.provider_name, {}), Access()


@contextmanager
def rehearsal(regions: list[str], endpoint: str | None, faults: list[dict[str, Any]]) -> Iterator[tuple[Provider, Access]]:
    """The same provider, pointed at a cloud on this machine that outlives us, so that a crash can be rehearsed too."""
    from provisioner.rehearsal import client

    def reached(cloud: client.Rehearsal) -> tuple[Provider, Access]:
        provider = providers.connect("aws", {"region": regions[0], "regions": regions, "profile": None, "endpoint": cloud.endpoint})
        return provider, Access(route=cloud.route, ingress_cidr=REHEARSAL_CIDR)

    if endpoint is not None:
        theirs = client.attach(endpoint)
        found = reached(theirs)
        if cloud_at(endpoint) != "there":
            raise UsageError(
                f"no rehearsal answers at {endpoint}",
                why="asked it what it is",
                next="gpulease rehearse serve   prints the address of a new one; without --endpoint one is started for you",
            )
        if faults:
            theirs.faults(faults)
        yield found
        return
    ours = client.start(rehearsal_folder(), idle_exit=60.0, faults=faults)
    try:
        yield reached(ours)
    finally:
        _end_if_empty(ours)


def _end_if_empty(cloud: Any) -> None:
    """Something that is still held needs its cloud: the watchdog works on, and the cloud ends by itself when idle."""
    # A pretended cloud that does not answer, or does not end, must not take the place of how the run ended.
    with contextlib.suppress(OSError, ValueError, HTTPException):
        if not any(thing["gone"] is None for thing in cloud.truth() if thing.get("lease")):
            cloud.stop()


def cloud_has_ended(settings: Mapping[str, Any]) -> bool:
    """Were these the settings of a rehearsal whose cloud is no longer there, and everything in it with it?"""
    return settings.get("endpoint") is not None and cloud_at(str(settings["endpoint"])) == "gone"


def cloud_at(endpoint: str) -> str:
    """Is a rehearsal "there", is it "gone" (nobody listens, or somebody else does), or is that "unknown"?"""
    try:
        with build_opener(ProxyHandler({})).open(f"{endpoint.rstrip('/')}/_rehearsal/info", timeout=5.0) as answer:
            return "there" if answer.headers.get("X-Simulated") else "gone"
    except HTTPError as e:
        with e:
            return "there" if e.headers.get("X-Simulated") else "gone"
    except URLError as e:
        return "gone" if isinstance(e.reason, ConnectionRefusedError) else "unknown"
    except (OSError, ValueError):
        return "unknown"
    except HTTPException:
        return "gone"


def _aws(target: Target, wanted: profile.Profile) -> tuple[Provider, Access]:
    regions = _regions(target, wanted) or [default_region(target.aws_profile)]
    settings = {"region": regions[0], "regions": regions, "profile": target.aws_profile, "endpoint": None}
    return providers.connect("aws", settings), Access()


def _regions(target: Target, wanted: profile.Profile) -> list[str]:
    """Where a machine may be: the one that is named on the command line, else all that the profile names."""
    return [target.region] if target.region else list(wanted.requirements.regions)


def _static(target: Target) -> tuple[Provider, Access]:
    from provisioner.providers import static

    if not target.host:
        raise UsageError("--provider static needs --host", next="gpulease run PROFILE --provider static --host user@address")
    found = PLACE.fullmatch(target.host)
    if not found or not 0 < int(found[4] or 22) < 65536:
        raise UsageError(
            f"--host is {target.host!r}",
            why="expected user@address or user@address:port; an IPv6 address in brackets",
            next="--host ubuntu@203.0.113.9",
        )
    user, address, port = found[1], found[2] or found[3], int(found[4] or 22)
    identity = (target.identity or _only_key()).expanduser().resolve()
    if not identity.is_file():
        raise UsageError(f"--identity {identity} is not a file", why="it is the one private key that is offered", next="ls ~/.ssh")
    host_key = target.host_key or static.known_host_key(address, port)
    settings = {"host": f"{user}@{address}", "port": port, "identity": str(identity), "hostKey": host_key}
    return providers.connect("static", settings), Access(user=user, port=port, client_key=identity, host_key=host_key)


def _only_key() -> Path:
    keys = [path for name in ("id_ed25519", "id_ecdsa", "id_rsa") if (path := Path.home() / ".ssh" / name).is_file()]
    if len(keys) != 1:
        raise UsageError(
            f"which key opens the machine? {len(keys)} were found in ~/.ssh", why="exactly one key is ever offered", next="--identity FILE"
        )
    return keys[0]


def access_card(access: Access) -> dict[str, Any]:
    return {"user": access.user, "port": access.port, "reach": access.reach}


def rehearsal_folder() -> Path:
    return ledger.private(ledger.root() / "rehearsal")


def read_faults(text: str | None) -> list[dict[str, Any]]:
    """What --faults says, understood before any cloud is started for it."""
    from provisioner.rehearsal import faults

    if text is None:
        return []
    try:
        raw = json.loads(text if text.lstrip()[:1] in ("[", "{") else Path(text).read_text("utf-8"))
        faults.Plan().add(raw)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as e:
        raise UsageError(
            f"--faults cannot be read: {e}", why="expected a JSON list of faults, or a file of it", next="docs/rehearsal.md"
        ) from e
    found: list[dict[str, Any]] = raw if isinstance(raw, list) else [raw]
    return found


def _money(text: str) -> int:
    try:
        return cost.parse(text)
    except cost.MoneyError as e:
        raise UsageError(f"--budget: {e}", why="dollars are read exactly, or not at all", next="--budget 2.50") from e


def default_region(aws_profile: str | None) -> str:
    """The region that the user's AWS configuration names. UsageError where it names none."""
    if not (region := configured_region(aws_profile)):
        raise UsageError(
            "no AWS region is known",
            why="neither the profile, nor --region, nor your AWS configuration names one",
            next="--region us-east-1",
        )
    return region


def configured_region(aws_profile: str | None) -> str:
    """The same, or "" where it names none. RefusedError for a configuration that cannot be used."""
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        region = boto3.session.Session(profile_name=aws_profile).region_name
    except BotoCoreError as e:  # a profile that is not there, a file that cannot be parsed
        raise RefusedError(
            f"your AWS configuration cannot be used: {e}", why="~/.aws and the AWS_ variables", next="aws configure list"
        ) from e
    return str(region or "")


def newest(name: str | None) -> ledger.LeaseFolder:
    """The lease that is meant: by its name, else the newest."""
    if name is not None:
        return ledger.find(name)
    every = list(ledger.folders())
    if not every:
        raise RefusedError(
            "there are no leases here yet", why=f"looked in {ledger.root() / 'runs'}", next="gpulease run smoke --rehearse --yes"
        )
    return every[-1]
