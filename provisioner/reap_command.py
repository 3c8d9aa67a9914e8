"""`gpulease reap`: which regions to ask, and how what was found is said; and what makes it run by itself, printed.

A region that could not be looked at stands in the answer and in the exit code: whoever runs this every quarter of an
hour without looking must hear of it. What is printed by `--install` is text: nothing is installed, and it holds no secret.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from typing import Any

from provisioner import closing, ledger, providers, times
from provisioner.clouds import configured_region
from provisioner.errors import ProviderError, UsageError
from provisioner.journal import instant, rfc3339
from provisioner.providers.aws_errors import CREDENTIALS
from provisioner.reap import Found, Reaped, reap
from provisioner.render import SIMULATED, table
from provisioner.scope import Scope, cry, signals

Coded = tuple[int, dict[str, Any], str]
WAYS = ("systemd", "cron", "github")
EVERY_MIN = 15
FIRST_REGION = "us-east-1"
"""Where it is asked which regions there are, if nothing names one: every account of AWS's main partition has it turned on."""
COLUMNS = 80


def reap_leases(names: list[str], go: bool, regions: list[str], aws_profile: str | None, endpoint: str | None) -> Coded:
    def reach(where: Sequence[str]) -> Any:
        return providers.connect("aws", {"region": where[0], "regions": list(where), "profile": aws_profile, "endpoint": endpoint})

    began, off = time.monotonic(), tuple[str, ...]()
    options = [word for region in regions for word in ("--region", region)]
    options += ["--aws-profile", aws_profile] if aws_profile else []
    options += ["--endpoint", endpoint] if endpoint else []
    if not regions:
        regions, off = _every_region(reach, FIRST_REGION if endpoint else configured_region(aws_profile))
    with contextlib.ExitStack() as calm:
        if go:
            calm.enter_context(signals(Scope(), lambda text: cry(f"{text}: this goes on until what is overdue is gone")))
        reaped = reap({region: reach([region]) for region in dict.fromkeys(regions)}, reach, names, go=go)
    code, took_ms = int(closing.worst(reaped.verdicts)), int((time.monotonic() - began) * 1000)
    record = {
        "schema": "gpulease/reap/1",
        "simulated": endpoint is not None,
        "regions": list(reaped.regions),
        "unchecked": [{"region": one.region, "why": one.why} for one in reaped.unseen],
        "notOptedIn": list(off),
        "unlistedKinds": dict(reaped.unlisted),
        "answers": reaped.answers,
        "tookMs": took_ms,
        "went": go,
        "leases": [f.record() for f in reaped.leases],
        "absent": list(reaped.absent),
        "exit": code,
    }
    return code, record, _reap_text(reaped, off, options, named=bool(names), go=go, took_ms=took_ms, simulated=endpoint is not None)


def _every_region(reach: Callable[[Sequence[str]], Any], configured: str) -> tuple[list[str], tuple[str, ...]]:
    """Where the account can have anything, and the regions that it never turned on."""
    try:
        regions, off = reach([configured or FIRST_REGION]).enabled_regions()
    except ProviderError as e:
        if not configured and e.provider_code in CREDENTIALS:
            # The logins of AWS's other partitions are known in their own regions only.
            asked = f"no region is configured, so {FIRST_REGION} was asked which there are; a login of GovCloud or China is not known there"
            e.why = f"{e.why}; {asked}" if e.why else asked
            e.next = f"gpulease reap --region us-gov-west-1, or whichever region knows the login; else: {e.next}"
        raise
    return list(regions), off


def _reap_text(reaped: Reaped, off: Sequence[str], options: Sequence[str], *, named: bool, go: bool, took_ms: int, simulated: bool) -> str:
    where = reaped.regions[0] if len(reaped.regions) == 1 else f"{len(reaped.regions)} regions"
    lines = [SIMULATED, ""] if simulated else []
    if reaped.leases:
        shown = table([(f.lease, f.state, f.deadline[:16].replace("T", " ")) for f in reaped.leases], ("lease", "state", "deadline (UTC)"))
        head, *rows = shown.splitlines()
        lines += [head, *(line for row, found in zip(rows, reaped.leases, strict=True) for line in (row, *_what(found)))]
    elif not named:
        lines.append(f"nothing of gpulease's in {where}")
    lines += [line for lease in reaped.absent for line in _absent(lease, where)]
    lines += ["", f"looked in {where}: {reaped.answers} answers, {took_ms / 1000:.1f} s"]
    if off:
        lines += _wrapped(f"not opted in, so not looked at: {', '.join(off)}")
    lines += [f"UNCHECKED {one.region}: {one.why}" for one in reaped.unseen]
    lines += [f"{kind} could not be listed everywhere: {why}" for kind, why in sorted(reaped.unlisted.items())]
    if not go and (due := [f.lease for f in reaped.leases if f.due]):
        command = shlex.join(["gpulease", "reap", *(due if named else ()), "--go", *options])
        lines += ["", f"nothing was touched; this lets go of {'it' if named else 'what is overdue'}:", f"  {command}"]
    if in_time := [f for f in reaped.leases if f.state == "in time"]:
        first = min(in_time, key=lambda f: instant(f.deadline))
        until = rfc3339(instant(first.deadline) + times.of(simulated).overdue_s)[:16].replace("T", " ")
        many = f"{len(in_time)} leases are" if len(in_time) > 1 else "1 lease is"
        lines += ["", f"{many} in time and left alone, until {until} UTC{' at the earliest' * (len(in_time) > 1)}; this ends one now:"]
        lines.append(f"  {shlex.join(['gpulease', 'reap', first.lease, '--go', *options])}")
    return "\n".join(lines)


def _what(found: Found) -> list[str]:
    """What there is of a lease and what became of it, below its line."""
    kinds, regions = (", ".join(sorted({str(getattr(r, name)) for r in found.resources})) for name in ("kind", "region"))
    return [*_wrapped(f"{len(found.resources)} in {regions}: {kinds}", "  "), *_wrapped(found.said, "  ")]


def _absent(lease: str, where: str) -> list[str]:
    folder = ledger.LeaseFolder(ledger.root() / "runs" / lease)
    text = f"nothing of {lease} was seen in {where}"
    if folder.path.is_dir() and ledger.standing(folder).open:
        return [f"{text}; its journal is here and not closed:", f"  gpulease release {lease}"]
    return [text]


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, COLUMNS, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def install_text(way: str, regions: Sequence[str], aws_profile: str | None) -> str:
    """A text that makes `gpulease reap --go` run every quarter of an hour."""
    if way not in WAYS:
        raise UsageError(f"--install is {way!r}", why=f"expected {', '.join(WAYS)}", next="gpulease reap --install systemd")
    options = [word for region in regions for word in ("--region", region)]
    if way == "github":
        if aws_profile is not None:
            raise UsageError("--aws-profile has no meaning in a workflow", why="it takes on a role instead", next="leave it out")
        return GITHUB.format(region=(regions or [FIRST_REGION])[0], command=" ".join([".venv/bin/gpulease reap --go", *options]))
    options += ["--aws-profile", aws_profile] if aws_profile is not None else []
    command = [*_gpulease(), "reap", "--go", *options]
    return SYSTEMD.format(command=" ".join(map(_unit_word, command)), minutes=EVERY_MIN) if way == "systemd" else _cron(command)


def _gpulease() -> list[str]:
    """This gpulease, by its whole path: neither cron nor systemd has the user's PATH."""
    found = shutil.which("gpulease")
    return [found] if found else [sys.executable, "-P", "-m", "provisioner"]


def _unit_word(word: str) -> str:
    """One word of a systemd command line: % and $ mean something there."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{word}"' if any(c in word for c in " \t'\"\\;") else word


def _cron(command: Sequence[str]) -> str:
    # An unescaped % ends the command in a crontab.
    line = " ".join(map(shlex.quote, command)).replace("%", "\\%")
    return f"""# `crontab -e`, and add this line. Cron mails what it prints: only what went wrong. Exit codes 20 to 22 are about money.
*/{EVERY_MIN} * * * * out=$({line} 2>&1) || echo "$out"
"""


SYSTEMD = """\
# ~/.config/systemd/user/gpulease-reap.service
[Unit]
Description=Let go of rented machines that are overdue

[Service]
Type=oneshot
ExecStart={command}
TimeoutStartSec=4h

# ~/.config/systemd/user/gpulease-reap.timer
[Unit]
Description=Look for overdue rented machines every {minutes} minutes

[Timer]
OnCalendar=*:0/{minutes}
RandomizedDelaySec=60
Persistent=true

[Install]
WantedBy=timers.target

# systemctl --user daemon-reload && systemctl --user enable --now gpulease-reap.timer
# loginctl enable-linger        so that it runs while nobody is logged in
# systemctl --user --failed     shows when something could not be let go of, or a region could not be looked at
"""

GITHUB = """\
# .github/workflows/gpulease-reap.yml
# The role is one that trusts this repository's workflows (OIDC) and has the policy of `gpulease iam policy reaper`.
# Its ARN stands in the repository variable GPULEASE_REAPER_ROLE: no key is stored anywhere.
# GitHub turns schedules off in repositories without activity: have a second way.
# Fill in OWNER/NAME and the commit. What runs in this job can act with the role, so it is the source that you read: never
# `pip install gpulease`, for a name at a package index is whoever's who took it, and packages are held to their hashes.
# Pin the two actions to full commits as well, if you can keep them current: a tag may be moved.
name: gpulease reap
on:
  schedule:
    - cron: "*/15 * * * *"
  workflow_dispatch: {{}}
permissions:
  id-token: write
  contents: read
concurrency:
  group: gpulease-reap
  cancel-in-progress: false
jobs:
  reap:
    runs-on: ubuntu-latest
    timeout-minutes: 60
    env:
      GPULEASE_COMMIT: ALL-40-DIGITS-OF-A-COMMIT
    steps:
      - uses: actions/checkout@v4
        with:
          repository: OWNER/NAME  # your copy of gpulease's source
          ref: ${{{{ env.GPULEASE_COMMIT }}}}
          persist-credentials: false
      - run: test "$(git rev-parse HEAD)" = "$GPULEASE_COMMIT"  # a branch or a tag would move
      - run: python3 -m venv .venv
      - run: .venv/bin/python -m pip install --require-hashes -r requirements.txt
      - run: .venv/bin/python -m pip install --no-deps --no-build-isolation -e .
      - uses: aws-actions/configure-aws-credentials@v4
        with:
          role-to-assume: ${{{{ vars.GPULEASE_REAPER_ROLE }}}}
          aws-region: {region}
      - run: {command}
"""
