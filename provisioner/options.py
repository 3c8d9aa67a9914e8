"""The options that several commands share, and the exit codes that each command's help ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MONEY_CODES = (
    "20 unproven: something may still cost money · 21 held: seen still there and billed · 22 leaving: not billed, not yet seen gone"
)
RUN_CODES = (
    "Exit codes: 0 done, everything seen gone · 1 a bug in gpulease · 2 usage · 3 missed a threshold of the profile · 4 refused before "
    "a machine was made · 5 went wrong after that · 6 stopped at the deadline or budget · 7 the spot machine was taken back · "
    f"129/130/143 SIGHUP/SIGINT/SIGTERM; in all of these everything was seen gone. Money outranks everything: {MONEY_CODES}."
)
PLAIN_CODES = "Exit codes: 0 done · 1 a bug in gpulease · 2 usage · 4 refused · 5 failed · 129/130/143 stopped by a signal."
PLAN_CODES = "Exit codes: 0 it could run · 1 a bug in gpulease · 2 usage · 4 refused · 129/130/143 stopped by a signal."
OFFER_CODES = (
    "Exit codes: 0 there is at least one offer · 1 a bug in gpulease · 2 usage · 4 there is none, or it was refused · 5 failed · "
    "129/130/143 stopped by a signal."
)
RELEASE_CODES = (
    "Exit codes: 0 everything seen gone · 1 a bug in gpulease · 2 usage · 4 another process has the lease, or its rehearsal cloud "
    f"ended before it was seen gone · {MONEY_CODES}."
)
REAP_CODES = (
    "Exit codes: 0 nothing is overdue, or all that was is seen gone · 1 a bug in gpulease · 2 usage · 4 refused · "
    f"{MONEY_CODES}, also when it was only looked at."
)
DRILL_CODES = (
    "Exit codes: 0 every layer ended its machine and every proof is true · 1 a bug in gpulease · 2 usage · 4 refused · 5 a layer did not, "
    "or a proof is not · 21 something of a real account's is still there · 129/130/143 stopped by a signal."
)
PROOF_CODES = (
    "Exit codes: 0 done · 1 a bug in gpulease · 2 usage · 4 there is no proof, or nobody left to ask · 5 the proof does not hold. "
    f"With --recheck: {MONEY_CODES}."
)
VERIFY_CODES = (
    "Exit codes: 0 consistent, and the required tier reached · 1 contradiction or tampering · 2 intact, tier not reached · "
    "3 cannot be read, or the command line cannot be understood."
)

Profile = Annotated[
    str, typer.Argument(metavar="PROFILE", help="A shipped profile's name (gpulease show profiles) or a path to a YAML file.")
]
LeaseName = Annotated[str, typer.Argument(metavar="LEASE", help="A lease's id, or an unambiguous beginning or end of one.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Budget = Annotated[str | None, typer.Option(help="Cap in US dollars, instead of the profile's.", metavar="USD")]
Minutes = Annotated[int | None, typer.Option(help="Time limit from launch, instead of the profile's.", min=5, max=1440)]
Rehearse = Annotated[
    bool, typer.Option("--rehearse", help="Rehearse on this machine: the same AWS code against an embedded cloud. Costs nothing.")
]
ProviderName = Annotated[str | None, typer.Option("--provider", help="aws, static, or a plugin's name.", metavar="NAME")]
Region = Annotated[str | None, typer.Option(help="AWS region.", metavar="REGION")]
AwsProfile = Annotated[str | None, typer.Option("--aws-profile", help="AWS credentials profile.", metavar="NAME")]
Host = Annotated[str | None, typer.Option(help="For --provider static: who and where.", metavar="USER@ADDRESS[:PORT]")]
Identity = Annotated[Path | None, typer.Option(help="For --provider static: the one private key to offer.", metavar="FILE")]
HostKey = Annotated[
    str | None,
    typer.Option("--host-key", help='For --provider static: "ssh-ed25519 AAAA…"; else ~/.ssh/known_hosts is read.', metavar="KEY"),
]
Faults = Annotated[
    str | None,
    typer.Option("--faults", help="For --rehearse: what is to go wrong, as JSON or a file of it (docs/rehearsal.md).", metavar="JSON|FILE"),
]
NoIngress = Annotated[
    bool, typer.Option("--no-ingress", help="Let no address in: through launch.reach, else your Instance Connect endpoint.")
]
Endpoint = Annotated[
    str | None, typer.Option("--endpoint", help="For --rehearse: a cloud that is already running (gpulease rehearse serve).", metavar="URL")
]
