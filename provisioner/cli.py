"""The command line: typer commands, and nothing else.

Each command's help shows an example first and its exit codes last. Everything heavy is imported inside the command
that needs it, so that `--help` is quick. This file decides nothing about clouds or machines: it reads options, calls
one function of `commands`, and hands the answer to `terminal`.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from provisioner import __version__, cli_export, cli_offers, cli_proof
from provisioner.cli_prepare import iam_app, init_app
from provisioner.options import (
    DRILL_CODES,
    OFFER_CODES,
    PLAIN_CODES,
    PLAN_CODES,
    PROOF_CODES,
    REAP_CODES,
    RELEASE_CODES,
    RUN_CODES,
    VERIFY_CODES,
    AwsProfile,
    Budget,
    Endpoint,
    Faults,
    Host,
    HostKey,
    Identity,
    Json,
    LeaseName,
    Minutes,
    NoIngress,
    Profile,
    ProviderName,
    Region,
    Rehearse,
)
from provisioner.terminal import NOTHING_YET, askable, begin, confirm, ending, leave, show

app = typer.Typer(
    name="gpulease",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
rehearse_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The embedded cloud, on its own.")
app.add_typer(rehearse_app, name="rehearse")
app.add_typer(init_app, name="init")
app.add_typer(iam_app, name="iam")


@app.callback(invoke_without_command=True)
def top(context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False) -> None:
    """Rent a GPU, check it, serve a model, evaluate it, give it back, and prove that it is gone.

    \b
        gpulease run smoke --rehearse --yes     the whole life, on this machine, at no cost
    """
    if version:
        print(f"gpulease {__version__}")
        raise typer.Exit()


@app.command(epilog=PLAN_CODES)
def plan(
    profile: Profile,
    budget: Budget = None,
    minutes: Minutes = None,
    provider: ProviderName = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    host: Host = None,
    identity: Identity = None,
    host_key: HostKey = None,
    rehearse: Rehearse = False,
    endpoint: Endpoint = None,
    no_ingress: NoIngress = False,
    as_json: Json = False,
) -> None:
    """What would be rented, until when, for how much. Creates nothing.

    \b
        gpulease plan smoke
        gpulease plan qwen3-8b-l4 --budget 2.00 --minutes 60
    """
    from provisioner.clouds import Target, planned

    with ending(as_json, NOTHING_YET):
        where = (provider, region, aws_profile, host, identity, host_key, rehearse, endpoint)
        with planned(Target(profile, budget, minutes, *where, no_ingress=no_ingress)) as ready:
            show(ready.plan_record() if as_json else ready.plan_text())


app.command(epilog=OFFER_CODES)(cli_offers.offers)


@app.command(epilog=RUN_CODES)
def run(
    profile: Profile,
    budget: Budget = None,
    minutes: Minutes = None,
    keep: Annotated[str, typer.Option(help="Hold the tunnel open this long after the eval, for your own client.", metavar="30m")] = "0",
    provider: ProviderName = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    host: Host = None,
    identity: Identity = None,
    host_key: HostKey = None,
    rehearse: Rehearse = False,
    endpoint: Endpoint = None,
    faults: Faults = None,
    reach_from: Annotated[
        str | None,
        typer.Option("--reach-from", help="Who may reach the machine's port 22; else your own public address.", metavar="A.B.C.D/32"),
    ] = None,
    no_ingress: NoIngress = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Rent, verify, serve, evaluate, measure, let go, prove.

    \b
        gpulease run smoke --rehearse --yes                    on this machine, at no cost
        gpulease run qwen3-8b-l4 --budget 1.50 --keep 30m      on AWS
        gpulease run cpu-static --provider static --host me@box
    """
    from provisioner.clouds import Target
    from provisioner.commands import run_profile

    with ending(as_json, NOTHING_YET):
        where = (provider, region, aws_profile, host, identity, host_key, rehearse, endpoint)
        target = Target(profile, budget, minutes, *where, faults, keep, reach_from, no_ingress)
        if not yes:
            askable()
        code, record, text = run_profile(target, ask=None if yes else confirm)
        leave(code, record if as_json else text)


@app.command("ls", epilog=PLAIN_CODES)
def list_leases(every: Annotated[bool, typer.Option("--all", help="Also those seen gone.")] = False, as_json: Json = False) -> None:
    """Leases that are not seen gone: who looks after them, and what they cost.

    \b
        gpulease ls
        gpulease ls --all
    """
    from provisioner.listing import list_table

    with ending(as_json):
        record, text = list_table(every)
        show(record if as_json else text)


@app.command(epilog=RELEASE_CODES)
def release(
    lease: LeaseName,
    patience: Annotated[int, typer.Option(help="Seconds to go on looking.", min=0)] = 900,
    as_json: Json = False,
) -> None:
    """Let go of a lease now. Safe at any time, any number of times.

    \b
        gpulease release 7f3a9k2m
    """
    from provisioner.commands import release_lease

    with ending(as_json):
        code, record, text = release_lease(lease, patience)
        leave(code, record if as_json else text)


@app.command(epilog=REAP_CODES)
def reap(
    leases: Annotated[
        list[str] | None, typer.Argument(metavar="[LEASE]...", help="Only these, by id or an end of one; also in time.")
    ] = None,
    go: Annotated[bool, typer.Option("--go", help="Really let go. Without it only what would be done is shown.")] = False,
    region: Annotated[
        list[str] | None, typer.Option(help="Only there; may be given again. Without it in every region of the account.", metavar="REGION")
    ] = None,
    install: Annotated[str | None, typer.Option(help="Print what makes it run by itself: systemd, cron or github.", metavar="WAY")] = None,
    aws_profile: AwsProfile = None,
    endpoint: Annotated[
        str | None, typer.Option(help="A rehearsal cloud's address, from `gpulease rehearse serve`.", metavar="URL")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find leases by tag at the provider, whoever made them, and let go of what is overdue.

    \b
        gpulease reap                shows what is there and what is overdue
        gpulease reap --go           lets go of it
        gpulease reap --install cron
    """
    from provisioner.reap_command import install_text, reap_leases

    if install is not None:
        with ending(as_json):
            text = install_text(install, region or [], aws_profile)
            leave(0, {"schema": "gpulease/reap-install/1", "way": install, "text": text} if as_json else text)
    with ending(as_json, speaks_of_money=True):
        code, record, text = reap_leases(leases or [], go, region or [], aws_profile, endpoint)
        leave(code, record if as_json else text)


app.command(epilog=PROOF_CODES)(cli_proof.proof)
app.command(epilog=VERIFY_CODES)(cli_proof.verify)
app.command(epilog=PLAIN_CODES)(cli_export.export)


@app.command(epilog=PLAIN_CODES)
def report(
    leases: Annotated[
        list[str] | None, typer.Argument(metavar="[LEASE]...", help="Leases to report on; several are compared; none is the newest.")
    ] = None,
    as_json: Json = False,
) -> None:
    """The figures, recomputed from the raw samples.

    \b
        gpulease report
        gpulease report 7f3a9k2m 8b2c4d6e
    """
    from provisioner.commands import report_leases

    with ending(as_json):
        record, text = report_leases(leases or [])
        show(record if as_json else text)


@app.command(epilog="Exit codes: 0 all well · 2 usage · 4 something would stop a run.")
def doctor(
    profile: Annotated[str | None, typer.Argument(metavar="[PROFILE]", help="Also check that this profile could run.")] = None,
    provider: ProviderName = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    host: Host = None,
    identity: Identity = None,
    host_key: HostKey = None,
    as_json: Json = False,
) -> None:
    """Credentials, clock, state folder, watchdog, tools: what a run needs, before spending.

    \b
        gpulease doctor
        gpulease doctor qwen3-8b-l4 --region us-east-1
    """
    from provisioner.clouds import Target
    from provisioner.doctor import examine

    with ending(as_json):
        target = Target(profile or "", None, None, provider, region, aws_profile, host, identity, host_key, False)
        code, record, text = examine(target)
        leave(code, record if as_json else text)


@app.command(epilog=DRILL_CODES)
def drill(
    only: Annotated[list[str] | None, typer.Option("--only", help="Only this layer; may be given several times.", metavar="LAYER")] = None,
    live: Annotated[bool, typer.Option("--live", help="On your AWS account, for cents, after the amount was typed.")] = False,
    region: Region = None,
    aws_profile: AwsProfile = None,
    endpoint: Annotated[str | None, typer.Option(help="With --live: a rehearsal instead of AWS.", metavar="URL")] = None,
    amount: Annotated[str | None, typer.Option("--confirm", help="With --live: what would be typed.", metavar="WORDS")] = None,
    as_json: Json = False,
) -> None:
    """Make each guard fire, with all the others switched off: who ended the machine, how late, and is the proof true?

    \b
        gpulease drill                       all of them in a rehearsal, in about a minute and a half
        gpulease drill --only watchdog
        gpulease drill --live --region us-east-1
    """
    from provisioner.drill import drill_layers

    with ending(as_json, speaks_of_money=live):
        code, record, text = drill_layers(only or [], live, region, aws_profile, endpoint, amount)
        leave(code, record if as_json else text)


@app.command("show", epilog=PLAIN_CODES)
def show_shipped(
    what: Annotated[str, typer.Argument(metavar="profiles|playbooks|evals|providers|schema|auditor", help="What to show.")],
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Which one; for schema: profile, playbook, predicate.")] = None,
) -> None:
    """What ships with gpulease, and the JSON Schemas for an editor.

    \b
        gpulease show profiles
        gpulease show profile smoke
        gpulease show schema profile > profile.schema.json
        gpulease show auditor > verify_shutdown.py
    """
    from provisioner.shipped import shipped

    with ending(False):
        show(shipped(what, name))


@app.command(epilog="Exit codes: those of ssh · 2 usage · 4 the lease has no machine.", context_settings={"ignore_unknown_options": True})
def ssh(
    lease: LeaseName,
    command: Annotated[list[str] | None, typer.Argument(metavar="[COMMAND]...", help="To run there; none opens a shell.")] = None,
) -> None:
    """Open the lease's machine, with its pinned host key and its own key only.

    \b
        gpulease ssh 7f3a9k2m
        gpulease ssh 7f3a9k2m nvidia-smi
    """
    from provisioner.visit import open_ssh

    with ending(False):
        sys.exit(open_ssh(lease, command or []))


@app.command(epilog=PLAIN_CODES)
def logs(
    lease: Annotated[str | None, typer.Argument(metavar="[LEASE]", help="A lease; without it the newest one.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many, from the end.", min=1)] = 40,
) -> None:
    """The inference server's log and the watchdog's, as last saved.

    \b
        gpulease logs
        gpulease logs 7f3a9k2m --lines 200
    """
    from provisioner.visit import show_logs

    with ending(False):
        show(show_logs(lease, lines))


@rehearse_app.command("serve", epilog=PLAIN_CODES)
def rehearse_serve(
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 0,
    faults: Faults = None,
    idle_exit: Annotated[int, typer.Option(help="End after so many seconds without a request or a machine; 0: never.", min=0)] = 0,
) -> None:
    """An EC2-compatible endpoint on this machine whose instances are SSH hosts on loopback. SIMULATED.

    \b
        gpulease rehearse serve --port 5555
        AWS_ENDPOINT_URL=http://127.0.0.1:5555 aws ec2 describe-instances --region us-east-1
    """
    from provisioner.commands import serve_rehearsal

    with ending(False):
        sys.exit(serve_rehearsal(port, faults, idle_exit))


def main() -> None:
    begin(app, sys.argv[1:])
