"""From options to a cloud: which provider, reached how, as whom, and whether it is a rehearsal.

Everything that can be refused is refused here, before a lease exists. A rehearsal's cloud is a process of its own that
outlives the run, so that a crash can be rehearsed too; it is ended here once nothing is left in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cost
from provisioner import guards, ledger, plan, profile, providers
from provisioner.errors import RefusedError, UsageError
from provisioner.life import Access
from provisioner.model import Provider
from provisioner.render import plan_text

SPAN = re.compile(r"([0-9]{1,5})(s|m|h)?")
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
        }


def launching(target: Target, ready: Ready) -> Access:
    """What only a launch needs to know of a real account: that we may log in, and where we come from."""
    provider: Any = ready.provider
    if target.rehearse or provider.name != "aws":
        return ready.access
    from provisioner import caller

    provider.identity()
    return replace(ready.access, ingress_cidr=target.reach_from or caller.cidr())


@contextmanager
def planned(target: Target) -> Iterator[Ready]:
    """Everything that can be refused is refused here. A rehearsal's cloud lives from here until it has nothing left."""
    from provisioner.serving import spec_of

    wanted = profile.load(target.profile)
    guards.check_waived(wanted.waived)
    if wanted.requirements.spot:
        raise RefusedError(
            "spot machines are not offered yet", why=f"profile {wanted.name!r} has spot: true", next="set spot: false in the profile"
        )
    spec_of(wanted)
    budget = _money(target.budget) if target.budget is not None else None
    seconds = target.minutes * 60 if target.minutes is not None else None
    if (target.faults or target.endpoint) and not target.rehearse:
        raise UsageError(
            "--faults and --endpoint need --rehearse", why="nothing is broken on purpose where it costs money", next="add --rehearse"
        )
    with _cloud(target, wanted) as (provider, access):
        made = plan.make(wanted, provider, budget_micro_usd=budget, max_seconds=seconds, keep_s=target.keep_s)
        yield Ready(made, provider, access)


@contextmanager
def _cloud(target: Target, wanted: profile.Profile) -> Iterator[tuple[Provider, Access]]:
    if target.rehearse:
        with _rehearsal(target, wanted) as found:
            yield found
    elif target.provider_name == "static":
        yield _static(target)
    elif target.provider_name == "aws":
        yield _aws(target, wanted)
    else:
        yield providers.connect(target.provider_name, {}), Access()


@contextmanager
def _rehearsal(target: Target, wanted: profile.Profile) -> Iterator[tuple[Provider, Access]]:
    """The same provider, pointed at a cloud on this machine that outlives us, so that a crash can be rehearsed too."""
    from provisioner.rehearsal import client

    if target.provider_name != "aws":
        raise UsageError("--rehearse rehearses AWS", why=f"--provider is {target.provider_name}", next="leave one of them out")
    if target.endpoint:
        cloud = client.attach(target.endpoint)
        if target.faults:
            cloud.faults(read_faults(target.faults))
    else:
        cloud = client.start(rehearsal_folder(), idle_exit=60.0, faults=read_faults(target.faults))
    region = target.region or next(iter(wanted.requirements.regions), "us-east-1")
    try:
        yield (
            providers.connect("aws", {"region": region, "profile": None, "endpoint": cloud.endpoint}),
            Access(route=cloud.route, ingress_cidr=REHEARSAL_CIDR),
        )
    finally:
        # Something that is still held needs its cloud: the watchdog works on, and the cloud ends by itself when idle.
        if not target.endpoint and not any(thing["gone"] is None for thing in cloud.truth() if thing.get("lease")):
            cloud.stop()


def _aws(target: Target, wanted: profile.Profile) -> tuple[Provider, Access]:
    region = target.region or next(iter(wanted.requirements.regions), None) or default_region(target.aws_profile)
    provider = providers.connect("aws", {"region": region, "profile": target.aws_profile, "endpoint": None})
    return provider, Access()


def _static(target: Target) -> tuple[Provider, Access]:
    from provisioner.providers import static

    if not target.host:
        raise UsageError("--provider static needs --host", next="gpulease run PROFILE --provider static --host user@address")
    found = re.fullmatch(r"([a-z_][a-z0-9_-]{0,31})@([A-Za-z0-9.:-]{1,253}?)(?::([0-9]{1,5}))?", target.host)
    if not found:
        raise UsageError(f"--host is {target.host!r}", why="expected user@address or user@address:port", next="--host ubuntu@203.0.113.9")
    user, address, port = found[1], found[2], int(found[3] or 22)
    identity = (target.identity or _only_key()).expanduser().resolve()
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
    return {"user": access.user, "port": access.port}


def rehearsal_folder() -> Path:
    return ledger.private(ledger.root() / "rehearsal")


def read_faults(text: str | None) -> list[dict[str, Any]]:
    if text is None:
        return []
    try:
        raw = json.loads(text if text.lstrip()[:1] in ("[", "{") else Path(text).read_text())
    except (OSError, ValueError) as e:
        raise UsageError(f"--faults cannot be read: {e}", next="docs/rehearsal.md") from e
    found: list[dict[str, Any]] = raw if isinstance(raw, list) else [raw]
    return found


def _money(text: str) -> int:
    try:
        return cost.parse(text)
    except cost.MoneyError as e:
        raise UsageError(f"--budget: {e}", next="--budget 2.50") from e


def default_region(aws_profile: str | None) -> str:
    import boto3

    region = boto3.session.Session(profile_name=aws_profile).region_name
    if not region:
        raise UsageError(
            "no AWS region is known",
            why="neither the profile, nor --region, nor your AWS configuration names one",
            next="--region us-east-1",
        )
    return str(region)
