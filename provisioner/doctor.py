"""What a run needs, looked at before anything is spent: the state folder, a watchdog, ssh, credentials, the clock, a profile.

Each check says what it saw. "Could not tell" is its own answer and never "ok". Free of side effects but for a probe
file in the state folder and a watchdog that is started on a lease that asks for nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from provisioner import __version__, ledger
from provisioner.clouds import Target, check, cloud_has_ended, default_region, planned
from provisioner.errors import Exit, GpuleaseError, RefusedError
from provisioner.journal import instant
from provisioner.render import table

OK, BAD, UNKNOWN, SKIPPED = "ok", "WRONG", "unknown", "not asked"


@dataclass(frozen=True)
class Finding:
    check: str
    result: str
    saw: str
    next: str = ""


def examine(target: Target) -> tuple[int, dict[str, Any], str]:
    """Every check, whatever the ones before it found. UsageError for options that do not go together."""
    check(target)
    findings = list(_findings(target))
    bad = any(f.result == BAD for f in findings)
    rows: list[list[str]] = []
    for f in findings:
        rows.append([f.result, f.check, f.saw])
        if f.next and f.result != OK:
            rows.append(["", "", f"next: {f.next}"])  # a line of its own: it is there to be copied
    record = {"schema": "gpulease/doctor/1", "version": __version__, "ok": not bad, "findings": [vars(f) for f in findings]}
    return int(Exit.REFUSED if bad else Exit.OK), record, table(rows)


def _findings(target: Target) -> Iterator[Finding]:
    yield Finding("gpulease", OK, f"{__version__} on Python {sys.version.split()[0]}, {sys.platform}")
    yield _try("state folder", _state_folder)
    yield _try("file locks", _locks)
    yield _try("watchdog", _watchdog)
    yield _try("old leases", _old)
    ssh = shutil.which("ssh")
    yield Finding("ssh client", OK if ssh else UNKNOWN, ssh or "not found: only `gpulease ssh` needs it")
    if target.provider_name == "aws":
        yield from _aws(target)
    if target.host and not target.profile:
        yield Finding(target.host, SKIPPED, "name a profile: the machine is looked at with what the profile needs")
    if target.profile:
        notes: list[str] = []
        found = _try(f"profile {target.profile}", lambda: _profile(target, notes))
        yield replace(found, result=UNKNOWN, saw="; ".join([found.saw, *notes])) if notes and found.result == OK else found
    else:
        yield Finding("profile", SKIPPED, "name one to check that it could run")


def _try(check: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(check, OK, look())
    except GpuleaseError as e:
        return Finding(check, BAD, e.what + (f" ({e.why})" if e.why else ""), e.next)
    except OSError as e:
        return Finding(check, BAD, str(e))


def _state_folder() -> str:
    folder = ledger.root()
    free = shutil.disk_usage(folder).free
    if free < 256 << 20:
        raise RefusedError(f"{free >> 20} MiB free in {folder}; needs 256 MiB", next=f"df -h {folder}")
    return f"{folder}, private, {free >> 20} MiB free"


def _locks() -> str:
    """A file system without working locks (some network ones) cannot say who is alive."""
    with tempfile.TemporaryFile(dir=ledger.root()) as one:
        fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        other = os.open(f"/dev/fd/{one.fileno()}", os.O_RDONLY) if sys.platform == "linux" else -1
        if other >= 0:
            with contextlib.closing(os.fdopen(other)):
                try:
                    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return "one holder at a time"
                raise RefusedError(
                    "two holders got the same lock", why="this file system does not lock", next="set XDG_STATE_HOME to a local disk"
                )
    return "a lock was given; a second holder was not tried on this system"


def _watchdog() -> str:
    from provisioner import watchdog

    with tempfile.TemporaryDirectory(dir=ledger.root()) as path:
        folder = ledger.LeaseFolder(Path(path))
        began = time.monotonic()
        # On a folder without a journal nobody is alive and nothing was asked for, so it has nothing to do and ends.
        pid = watchdog.start(folder, time.time() + 60)
        took = time.monotonic() - began
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    return f"starts in {took * 1000:.0f} ms"


def _old() -> str:
    unseen = [s for s in map(ledger.standing, ledger.folders()) if s.open and not s.alive]
    orphans = [s.folder.id for s in unseen if s.broken or not cloud_has_ended(_settings(s))]
    if orphans:
        raise RefusedError(
            f"{len(orphans)} lease(s) not seen gone, and nobody looks after them: {', '.join(orphans[:3])}",
            next=f"gpulease release {orphans[0]}",
        )
    return "none is left over"


def costs_now() -> str:
    """What the leases here cost now, as far as their journals know: the last line of an error whose command has none of its own."""
    try:
        left = [s for s in map(ledger.standing, ledger.folders()) if (s.open or s.broken) and not cloud_has_ended(_settings(s))]
    except (GpuleaseError, OSError):
        return "not known: the leases of this computer cannot be read"
    if not left:
        return "nothing, as far as this computer knows: it has no lease that may still cost money"
    kept = sum(s.alive for s in left)
    names = ", ".join(s.folder.id for s in left[:3]) + (", …" if len(left) > 3 else "")
    return f"may cost money: {len(left)} lease(s) not seen gone ({names}), {kept} of them looked after; gpulease ls"


def _settings(stands: ledger.Standing) -> dict[str, Any]:
    genesis: dict[str, Any] = next((e["body"] for e in stands.entries if e["kind"] == "genesis"), {})
    return dict(genesis.get("settings") or {})


MOST_OFF_S = 300.0
"""AWS refuses requests whose time is further from its own."""


def _aws(target: Target) -> Iterator[Finding]:
    from provisioner import guards, providers
    from provisioner.providers import aws_login

    asked: list[Any] = []

    def identity() -> str:
        region = target.region or default_region(target.aws_profile)
        asked.append(providers.connect("aws", {"region": region, "profile": target.aws_profile, "endpoint": None}))
        who = asked[0].identity()
        return f"account {who.account}, {who.arn}, {region}"

    def clock() -> str:
        off = time.time() - instant(asked[0].account.last.date)
        if abs(off) > MOST_OFF_S:
            raise RefusedError(f"{off:+.0f} s from AWS's; at most {MOST_OFF_S:.0f} s", next="timedatectl set-ntp true")
        return f"{off:+.0f} s from AWS's"

    def login() -> str:
        if target.profile:
            with planned(target) as ready:
                wanted = ready.plan.profile
                guarded = guards.at_the_provider(asked[0], [asked[0].region], wanted.waived, wanted.launch.fleet)
                aws_login.require(found := asked[0].login(), ready.plan.max_seconds, time.time(), guarded)
                return str(found.text())
        aws_login.require(found := asked[0].login(), 0, time.time(), guards.at_the_provider(asked[0], [asked[0].region], ()))
        return str(found.text())

    yield _try("AWS credentials", identity)
    if asked and asked[0].account.last:
        yield _try("AWS login", login)
    last = asked[0].account.last if asked else None
    yield _try("clock", clock) if last and last.date else Finding("clock", UNKNOWN, "AWS gave no time to compare it with")
    if asked and asked[0].account_id:
        yield from _guards(asked[0], target)


def _guards(provider: Any, target: Target) -> Iterator[Finding]:
    """Is the account prepared, region by region, and which guards were ever made to fire in it?"""
    from provisioner import drills, guards, profile

    wanted = None
    with contextlib.suppress(GpuleaseError):  # the profile has a finding of its own
        wanted = profile.load(target.profile) if target.profile else None
    fleet = bool(wanted and wanted.launch.fleet)
    if fleet:
        yield _try("fleets at AWS", lambda: _fleets(provider))
    for region in (wanted.requirements.regions if wanted and not target.region else ()) or (provider.region,):
        if wanted and guards.SCHEDULE in wanted.waived:
            yield Finding(f"guard at AWS, {region}", SKIPPED, "the profile waives it")
        else:
            there = type(provider)(region, provider.account.profile, provider.account.endpoint)
            yield _try(f"guard at AWS, {region}", lambda there=there: _prepared(there))  # type: ignore[misc]
        names = [name for name in guards.NAMES if name != guards.FLEET or fleet]
        found = {name: drills.last(provider.account_id, region, name) for name in names}
        said = [f"{name} {drill.date[:10]}, {drill.seconds_late} s late" if drill else f"{name} undrilled" for name, drill in found.items()]
        drilled = all(found.values())
        yield Finding(f"guards drilled, {region}", OK if drilled else UNKNOWN, "; ".join(said), "" if drilled else "gpulease drill --live")


def _prepared(provider: Any) -> str:
    provider.check_schedule([provider.region])
    return "role, policy and schedule group are what `gpulease init aws` makes" + (f"; but {provider.doubt}" if provider.doubt else "")


def _fleets(provider: Any) -> str:
    provider.check_fleet()
    return "the role that AWS makes for fleets is there, as far as these credentials may look"


def _profile(target: Target, notes: list[str]) -> str:
    with planned(target) as ready:
        notes += ready.plan.notes
        return f"{ready.plan.offer.type} in {ready.plan.offer.region}, {len(ready.plan.offers)} offer(s)"
