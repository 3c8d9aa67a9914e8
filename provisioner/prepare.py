"""`gpulease init aws` and `gpulease iam policy`: what an account needs before the first run, and who may do what in it.

Between the command line and the provider's files: it gathers, asks through what it is given, and turns answers into text.
Making is a command of its own, so that no run ever needs the rights for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from provisioner.clouds import default_region
from provisioner.errors import Exit, GpuleaseError, RefusedError
from provisioner.render import SIMULATED, table

Coded = tuple[int, dict[str, Any], str]
FREE = (
    "costs nothing: a role, an empty schedule group and an empty queue have no price, and a schedule that fires is one of the "
    "14 million a month that are free"
)


def init_aws(
    regions: Sequence[str],
    aws_profile: str | None,
    endpoint: str | None,
    *,
    remove: bool,
    ask: Callable[[str], bool] | None,
    tell: Callable[[str], None],
) -> Coded:
    """Look, show, ask, do. Doing it again does only what is missing."""
    from provisioner.providers import aws_regions
    from provisioner.providers.aws_client import Account
    from provisioner.providers.aws_init import FOREIGN, THERE, Site

    named = tuple(dict.fromkeys(regions)) or ("us-east-1" if endpoint else default_region(aws_profile),)
    aws_regions.check(named)
    site = Site([Account(region, aws_profile, endpoint) for region in named])
    pieces = site.look()
    due, stays = site.going(pieces) if remove else ([p for p in pieces if p.state not in (THERE, FOREIGN)], "")
    strange = [p for p in pieces if p.state == FOREIGN]
    verb = {True: "remove", False: "make"}[remove]
    rows = [_row(p, remove, p in due, stays) for p in pieces]
    plan = f"account {site.account_id}" + (f"   {SIMULATED}" if endpoint else "") + "\n" + table(rows) + f"\n{FREE}"
    if strange and not remove:
        raise RefusedError(
            f"{strange[0]} is not gpulease's: {strange[0].detail}",
            why="something of that name was made by somebody else; nothing was changed",
            next="rename or remove it, if you know whose it is",
        )
    if due:
        tell(plan)
        if ask is not None and not ask(f"{verb} these {len(due)}? [y/N] " if len(due) > 1 else f"{verb} this one? [y/N] "):
            raise RefusedError(f"nothing was {_done(verb)}", why="the question was not answered with yes", next="--yes does not ask")
    finished = (site.remove if remove else site.make)(pieces, tell) if due else ()
    record = {
        "schema": "gpulease/init/1",
        "simulated": endpoint is not None,
        "account": site.account_id,
        "regions": list(named),
        "remove": remove,
        "pieces": [piece.record() for piece in (site.look() if finished else pieces)],
        "changed": [str(piece) for piece in finished],
    }
    if not due:
        why = f"the role stays, {stays}" if stays else f"{'none' if remove else 'all'} of it is there"
        return int(Exit.OK), record, f"{plan}\n\nnothing to {verb}: {why}"
    text = f"{_done(verb)}: {', '.join(map(str, finished)) or 'nothing'}"
    if not remove and any(piece.what == "role" for piece in finished):
        text += "\na new role may need some seconds before EventBridge Scheduler can take it on"
    return int(Exit.OK), record, text


def _done(verb: str) -> str:
    return {"make": "made", "remove": "removed"}[verb]


def _row(piece: Any, remove: bool, due: bool, stays: str) -> list[str]:
    """One line of the plan: what becomes of a piece, and why it is left where it is."""
    if remove:
        does, ours = "to remove" if due else {"missing": "is not there"}.get(piece.state, "stays"), piece.state in ("there", "differs")
    else:
        does, ours = {"missing": "to make", "differs": "to correct"}.get(piece.state, piece.state), False
    return [does, piece.what, piece.name, piece.region or "the account", stays if ours and not due else piece.detail]


def guard_at_aws(provider: Any, regions: Sequence[str]) -> dict[str, str]:
    """For each region, "" when a schedule can be armed there, else why not."""
    found: dict[str, str] = {}
    for region in regions:
        try:
            provider.check_schedule([region])
            found[region] = ""
        except GpuleaseError as e:
            found[region] = e.what
    return found


def policy_text(
    name: str,
    regions: Sequence[str],
    types: Sequence[str],
    account: str | None,
    *,
    fleet: bool,
    buckets: Sequence[str],
    tell: Callable[[str], None],
) -> str:
    """The policy as JSON, ready to be attached. What it cannot hold is told beside it."""
    from provisioner.providers.aws_actions import AUDITOR
    from provisioner.providers.aws_policy import LONGEST, document

    made = document(name, regions=regions, types=types, account=account or "", fleet=fleet, buckets=buckets)
    if name == AUDITOR and not buckets:
        tell("note: it reads nothing in S3. For a proof that is corroborated, name the bucket that your trail writes to: --bucket NAME")
    if types and fleet:
        tell(
            "note: --type does not limit what a fleet launches: AWS's own role for fleets launches it, with no right of the runner's asked"
        )
    if (size := len(json.dumps(made, separators=(",", ":")))) > LONGEST:
        tell(f"note: {size} characters; IAM takes {LONGEST} in a managed policy. Name fewer regions, or leave --account out")
    return json.dumps(made, indent=2)
