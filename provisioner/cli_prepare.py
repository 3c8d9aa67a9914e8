"""The commands that prepare an account: `gpulease init aws` and `gpulease iam policy`. Options in, one call, an answer out."""

from __future__ import annotations

from typing import Annotated

import typer

from provisioner.options import PLAIN_CODES, AwsProfile, Json
from provisioner.terminal import askable, complain, confirm, ending, leave, show

init_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Prepare an account, once.")
iam_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Least-privilege policies.")

Regions = Annotated[list[str] | None, typer.Option("--region", help="AWS region; may be given several times.", metavar="REGION")]


@init_app.callback()
def init() -> None:
    """Prepare an account, once, so that the provider itself can end a machine that everything else forgot."""


@iam_app.callback()
def iam() -> None:
    """Least-privilege policies for AWS."""


@init_app.command("aws", epilog=PLAIN_CODES)
def init_aws(
    region: Regions = None,
    aws_profile: AwsProfile = None,
    endpoint: Annotated[
        str | None, typer.Option(help="A rehearsal cloud's address, from `gpulease rehearse serve`.", metavar="URL")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Undo what this command made, and nothing else.")] = False,
    as_json: Json = False,
) -> None:
    """Make what a scheduled termination needs: one role, and in each region a schedule group and a queue. Costs nothing.

    \b
        gpulease init aws --region us-east-1 --region us-west-2
        gpulease init aws --region us-east-1 --remove
    """
    from provisioner.prepare import init_aws

    with ending(as_json):
        code, record, text = init_aws(region or [], aws_profile, endpoint, remove=remove, ask=None if yes else _asked, tell=complain)
        leave(code, record if as_json else text)


def _asked(question: str) -> bool:
    """Only now, after the plan was shown: it can be read where nobody can be asked."""
    askable("what is made or removed in an account is confirmed once, and nothing was")
    return confirm(question)


@iam_app.command("policy", epilog=PLAIN_CODES)
def iam_policy(
    name: Annotated[str, typer.Argument(metavar="[runner|reaper|scheduler-role|init|auditor]", help="For whom.")] = "runner",
    region: Regions = None,
    type: Annotated[
        list[str] | None, typer.Option("--type", help="Instance type that may be launched; `g6.*` works too.", metavar="TYPE")
    ] = None,
    account: Annotated[str | None, typer.Option(help="Your account's number, for the ARNs.", metavar="ACCOUNT")] = None,
    fleet: Annotated[bool, typer.Option("--fleet", help="Also what `launch.fleet` needs; --type does not limit a fleet.")] = False,
    bucket: Annotated[
        list[str] | None,
        typer.Option("--bucket", help="For the auditor: where your trail writes; without it nothing in S3 is read.", metavar="NAME"),
    ] = None,
) -> None:
    """Print a policy that allows the calls of gpulease and nothing else, on what carries its tag.

    \b
        gpulease iam policy runner --region us-east-1 --type g6.xlarge > policy.json
        aws iam create-policy --policy-name gpulease-runner --policy-document file://policy.json
    """
    from provisioner.prepare import policy_text

    with ending(False):
        show(policy_text(name, region or [], type or [], account, fleet=fleet, buckets=bucket or [], tell=complain))
