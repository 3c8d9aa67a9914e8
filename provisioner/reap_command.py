"""`gpulease reap`: which regions to ask, and how what was found is said; and what makes it run by itself, printed.

A region that could not be looked at stands in the answer and in the exit code: whoever runs this every quarter of an
hour without looking must hear of it. What is printed by `--install` is text: nothing is installed, and it holds no secret.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

from provisioner import __version__, closing, providers
from provisioner.clouds import default_region
from provisioner.errors import UsageError
from provisioner.reap import Reaped, reap
from provisioner.render import SIMULATED, table
from provisioner.scope import Scope, cry, signals

Coded = tuple[int, dict[str, Any], str]
WAYS = ("systemd", "cron", "github")
EVERY_MIN = 15


def reap_leases(names: list[str], go: bool, regions: list[str], aws_profile: str | None, endpoint: str | None) -> Coded:
    def reach(where: Sequence[str]) -> Any:
        return providers.connect("aws", {"region": where[0], "regions": list(where), "profile": aws_profile, "endpoint": endpoint})

    began, off = time.monotonic(), tuple[str, ...]()
    if not regions:
        regions, off = reach(["us-east-1" if endpoint else default_region(aws_profile)]).enabled_regions()
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
        "exit": code,
    }
    return code, record, _reap_text(reaped, off, go=go, took_ms=took_ms, simulated=endpoint is not None)


def _reap_text(reaped: Reaped, off: Sequence[str], *, go: bool, took_ms: int, simulated: bool) -> str:
    rows = [
        [
            f.lease,
            f.state,
            f.deadline[:16].replace("T", " "),
            f"{len(f.resources)}: {', '.join(sorted({r.kind for r in f.resources}))}",
            ", ".join(sorted({r.region for r in f.resources})),
            f.said,
        ]
        for f in reaped.leases
    ]
    where = reaped.regions[0] if len(reaped.regions) == 1 else f"{len(reaped.regions)} regions"
    lines = [SIMULATED, ""] if simulated else []
    lines.append(
        table(rows, ("lease", "state", "deadline (UTC)", "resources", "region", "")) if rows else f"nothing of gpulease's in {where}"
    )
    lines += ["", f"looked in {where}: {reaped.answers} answers, {took_ms / 1000:.1f} s"]
    if off:
        lines.append(f"not opted in, so not looked at: {', '.join(off)}")
    lines += [f"UNCHECKED {one.region}: {one.why}" for one in reaped.unseen]
    lines += [f"{kind} could not be listed everywhere: {why}" for kind, why in sorted(reaped.unlisted.items())]
    if not go and any(f.due for f in reaped.leases):
        lines += ["", "nothing was touched; `gpulease reap --go` lets go of what is overdue"]
    return "\n".join(lines)


def install_text(way: str, regions: Sequence[str], aws_profile: str | None) -> str:
    """A text that makes `gpulease reap --go` run every quarter of an hour."""
    if way not in WAYS:
        raise UsageError(f"--install is {way!r}", why=f"expected {', '.join(WAYS)}", next="gpulease reap --install systemd")
    options = [word for region in regions for word in ("--region", region)]
    if way == "github":
        if aws_profile is not None:
            raise UsageError("--aws-profile has no meaning in a workflow", why="it takes on a role instead", next="leave it out")
        return GITHUB.format(version=__version__, region=(regions or ["us-east-1"])[0], command=" ".join(["gpulease reap --go", *options]))
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
    steps:
      - uses: aws-actions/configure-aws-credentials@v4
        with:
          role-to-assume: ${{{{ vars.GPULEASE_REAPER_ROLE }}}}
          aws-region: {region}
      - run: pipx install "gpulease=={version}"
      - run: {command}
"""
