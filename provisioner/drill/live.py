"""The same drills on a real account: the smallest machine, real times, a ceiling in dollars that is typed before it is spent.

Nothing here is another path than the rehearsed one: the rows, the runs, the judging are those of `one.py`. What differs is
the machine (t3.nano with Ubuntu, by its public parameter), the times (nobody may shorten them at AWS), the witness (EC2
itself, as there is nobody above it), and that the day goes into drills.json. With `--endpoint` all of it runs against a
rehearsal, except that a rehearsal may be quick: so what is left unknown is AWS.

A deadline is at least twelve minutes, and a guard that is asked for after it has its own wait: about an hour for all.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cost
from provisioner import ledger, providers, times
from provisioner.drill import layers as L
from provisioner.drill.layers import Layer
from provisioner.drill.one import Ground, Row, Sleep, Tell, drill
from provisioner.drill.rehearsed import HELD, LATE_S, RUN_S, SET_UP_S, TIMES, budget_for, profile
from provisioner.drill.witness import Ec2
from provisioner.errors import RefusedError

TYPE = "t3.nano"
IMAGE = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
"""Canonical's own parameter: systemd, cloud-init and the user `ubuntu`, as on the image that a real run boots."""

MINUTES, SILENT_MINUTES = 13, 30
"""From launch to deadline. The drill of silence needs one that comes after 15 minutes of it."""

REAL_LATE_S, REAL_SET_UP_S, POLL_S = 600.0, 900.0, 5.0
AT_ONCE = 2
"""A new account has a quota of 5 vCPUs for such machines, and each has 2."""


@dataclass(frozen=True)
class Site:
    """Where it is done, as whom, and on what."""

    region: str
    aws_profile: str | None
    endpoint: str | None
    account: str
    arn: str
    image: str
    provider: Any

    @property
    def where(self) -> list[str]:
        if self.endpoint:
            return ["--rehearse", "--endpoint", self.endpoint, "--region", self.region]
        return ["--region", self.region, *(["--aws-profile", self.aws_profile] if self.aws_profile else [])]

    @property
    def simulated(self) -> bool:
        return self.endpoint is not None


def site(region: str, aws_profile: str | None, endpoint: str | None) -> Site:
    """Who we are and what would boot. Creates nothing."""
    provider: Any = providers.connect("aws", {"region": region, "profile": aws_profile, "endpoint": endpoint})
    who = provider.identity()
    image = provider.account_of(region).ask("GetParameter", service="ssm", Name=IMAGE).data["Parameter"]["Value"]
    return Site(region, aws_profile, endpoint, who.account, who.arn, str(image), provider)


def minutes(layer: Layer) -> int:
    return SILENT_MINUTES if layer.due == L.SILENCE else MINUTES


def ceiling(there: Site, wanted: Sequence[Layer], folder: Path) -> int:
    """The most that all of them can cost together, in micro-dollars, each ended by its last line of defence."""
    from provisioner.clouds import Target, planned

    total = 0
    for layer in wanted:
        path = str(_profile(there, layer, folder / "plan.yaml"))
        target = Target(
            path, None, minutes(layer), None, there.region, there.aws_profile, None, None, None, there.simulated, endpoint=there.endpoint
        )
        with planned(target) as ready:
            total += ready.plan.at_most_micro_usd
    return total


def check_login(there: Site, wanted: Sequence[Layer]) -> None:
    """Nobody logs in again half-way through a drill."""
    from provisioner.providers import aws_login

    if any(layer.fleet for layer in wanted):
        there.provider.check_fleet()
    if there.endpoint is None:
        longest = sum(minutes(layer) * 60 + 1200 for layer in wanted) // AT_ONCE
        aws_login.require(there.provider.login(), longest, time.time(), False)


def drill_all(there: Site, wanted: Sequence[Layer], sleep: Sleep, tell: Tell, folder: Path) -> list[Row]:
    from provisioner.drill.rehearsed import together

    turns = threading.BoundedSemaphore(AT_ONCE)
    free = threading.Semaphore(len(wanted))

    def one(layer: Layer) -> Row:
        with turns, _ground(there, layer, folder / layer.name) as ground:
            row = drill(layer, ground, sleep, tell, free)
            note(there, row)
            return row

    return together(wanted, one)


_NOTING = threading.Lock()


def note(there: Site, row: Row) -> None:
    """Into drills.json, as soon as it is known: a later drill that fails takes nothing away from this one."""
    from provisioner import drills, guards
    from provisioner.providers.aws_login import shown

    if not row.good or row.at is None or row.late_s is None or row.layer.name not in (*guards.NAMES, "reap"):
        return
    with _NOTING:
        drills.add(drills.Drill(there.account, there.region, row.layer.name, shown(int(row.at)), row.late_s, simulated=there.simulated))


@contextmanager
def _ground(there: Site, layer: Layer, folder: Path) -> Iterator[Ground]:
    folder.mkdir(mode=0o700, parents=True)
    state = folder / "state"
    state.mkdir(mode=0o700)
    path = str(_profile(there, layer, folder / "profile.yaml"))
    words, environment, route = ["--minutes", str(minutes(layer))], {}, None
    used, late_s, set_up_s, poll_s = times.REAL, REAL_LATE_S, REAL_SET_UP_S, POLL_S
    if there.endpoint is not None:
        from provisioner.rehearsal import client

        cloud = client.attach(there.endpoint)
        cloud.faults([HELD])
        words = ["--budget", budget_for(path, RUN_S, there.region, there.endpoint)]
        environment, route = {times.NAME: json.dumps(asdict(TIMES))}, cloud.route
        used, late_s, set_up_s, poll_s = TIMES, LATE_S, SET_UP_S, 0.5
    reap = ["reap", "{lease}", "--go", "--region", there.region, "--json"]
    reap += ["--endpoint", there.endpoint] if there.endpoint else ["--aws-profile", there.aws_profile] if there.aws_profile else []
    yield Ground(
        run=("run", *there.where, *words, "--yes", "--json"),
        reap=tuple(reap),
        profile=lambda layer: path,
        environment=environment,
        state=state,
        witness=Ec2(there.provider),
        route=route,
        times=used,
        set_up_s=set_up_s,
        late_s=late_s,
        poll_s=poll_s,
    )


def _profile(there: Site, layer: Layer, path: Path) -> Path:
    needs = {"types": [TYPE], "regions": [there.region], "gpu": None, "gpus": 0, "vram_gib": 0, "driver": None, "disk_gib": 8}
    changes = {"needs": needs, "launch": {"image": there.image, "fleet": layer.fleet}, "waive": list(layer.waive)}
    return profile(path, changes)


def confirmed(total_micro_usd: int, words: str | None, typed: Callable[[str], str]) -> None:
    """The amount itself has to be typed, so that it cannot be agreed to unread."""
    wanted = f"spend {cost.show(total_micro_usd)}"
    said = typed(f'type "{wanted}" to go on: ') if words is None else words
    if said.strip() != wanted:
        raise RefusedError("not started", why=f"{wanted!r} was not typed", next=f'gpulease drill --live --confirm "{wanted}"')


@contextmanager
def state(tell: Callable[[str], None]) -> Iterator[Path]:
    """The drills' own state folders, inside the user's: taken away once everything that they rented was seen gone, else kept.

    They hold the journals of machines that cost money. What is lost with them only `reap` could still find.
    """
    above = ledger.private(ledger.root() / "drills")
    folder = Path(tempfile.mkdtemp(prefix="drill-", dir=above))
    try:
        yield folder
    finally:
        if kept := [path for path in folder.glob("*/state/gpulease/runs/r-*") if "." not in path.name and _open(ledger.LeaseFolder(path))]:
            for path in kept:
                tell(f"not seen gone, so its journal is kept: XDG_STATE_HOME={path.parents[2]} gpulease release {path.name}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _open(lease: ledger.LeaseFolder) -> bool:
    stands = ledger.standing(lease)
    return stands.open or bool(stands.broken)
