"""What `gpulease init aws` makes, once per account and region, so that a machine can be ended without us.

One role for the account (EventBridge Scheduler takes it on; it may end what carries our tag), and in each region a schedule
group and a queue for what failed. Made by a command of its own and never by a run: a run that needs the right to make roles is
a run that may do anything, and a fresh role cannot be taken on for some seconds. None of it costs anything while it stands.

Three verbs over the same list of pieces. `look` says of each whether it is there, missing, different, or somebody else's (our
name without our tag: never touched). `make` does what is missing or different, and may be repeated. `remove` undoes what carries
our tag, and nothing while a schedule could still fire. What stops half-way says what stands.
This file must not ask the user anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from provisioner.errors import GpuleaseError, ProviderError, RefusedError, RunError
from provisioner.model import Json
from provisioner.providers.aws_client import Account
from provisioner.providers.aws_errors import not_found
from provisioner.providers.aws_launch import MANAGED
from provisioner.providers.aws_schedule import (
    GROUP,
    QUEUE,
    ROLE,
    ROLE_PATH,
    ROLE_POLICY,
    bounded,
    init_command,
    permissions,
    same_document,
    still_may_fire,
    trust,
)

THERE, MISSING, DIFFERENT, FOREIGN = "there", "missing", "differs", "not ours"
KEPT_S = 14 * 86_400
QUEUE_ATTRIBUTES = {"MessageRetentionPeriod": str(KEPT_S), "SqsManagedSseEnabled": "true"}
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Piece:
    what: str  # "role", "role policy", "schedule group" or "queue"
    name: str
    region: str  # "" for what an account has once
    state: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.what} {self.name}" + (f" in {self.region}" if self.region else "")

    def record(self) -> dict[str, Json]:
        return {"what": self.what, "name": self.name, "region": self.region or None, "state": self.state, "detail": self.detail or None}


class Site:
    """One account, and the regions that are meant."""

    def __init__(self, accounts: Sequence[Account]) -> None:
        self.accounts, self._first = tuple(accounts), accounts[0]
        caller = self._first.ask("GetCallerIdentity", service="sts").data
        self.account_id, self.partition = str(caller["Account"]), str(caller["Arn"]).split(":")[1]

    @property
    def command(self) -> str:
        return init_command(self._first, [account.region for account in self.accounts])

    def look(self) -> tuple[Piece, ...]:
        return (*self._role(), *(piece for account in self.accounts for piece in (_queue(account), _group(account))))

    def make(self, pieces: Iterable[Piece], tell: Tell) -> tuple[Piece, ...]:
        """Everything that is missing or different; the groups last, because a run looks at them to know that all is there."""
        wanted = [piece for piece in pieces if piece.state in (MISSING, DIFFERENT)]
        wanted.sort(key=lambda piece: piece.what == "schedule group")
        return self._each(wanted, self._make, "made", tell)

    def remove(self, pieces: Iterable[Piece], tell: Tell) -> tuple[Piece, ...]:
        """What carries our tag, the groups first, so that no run begins meanwhile; the role only when no other region uses it."""
        self._refuse_while_armed([piece for piece in pieces if piece.state in (THERE, DIFFERENT)])
        going, stays = self.going(pieces)
        if stays:
            tell(f"kept    role {ROLE}: {stays}")
        return self._each(going, self._remove, "removed", tell)

    def going(self, pieces: Iterable[Piece]) -> tuple[list[Piece], str]:
        """What of these `remove` takes away, in that order, and why the role stays; "" where it is not there or goes too."""
        order = {"schedule group": 0, "queue": 1, "role policy": 2, "role": 3}
        ours = sorted((piece for piece in pieces if piece.state in (THERE, DIFFERENT)), key=lambda piece: order[piece.what])
        elsewhere = self._other_regions() if any(not piece.region for piece in ours) else []
        if not elsewhere:
            return ours, ""
        return [piece for piece in ours if piece.region], f"{', '.join(elsewhere)} still {'use' if len(elsewhere) > 1 else 'uses'} it"

    def _each(self, pieces: Sequence[Piece], do: Callable[[Piece], None], done: str, tell: Tell) -> tuple[Piece, ...]:
        finished: list[Piece] = []
        for piece in pieces:
            try:
                do(piece)
            except GpuleaseError as e:
                stands = ", ".join(map(str, finished)) or "nothing"
                raise RunError(
                    f"{piece} could not be {done}: {e.what}",
                    why=f"{done} before that: {stands}; the rest is as it was, and costs nothing",
                    next=f"{e.next or 'put that right'}; the same command again goes on from there: {self.command}",
                ) from e
            finished.append(piece)
            tell(f"{done:7} {piece}")
        return tuple(finished)

    def _role(self) -> list[Piece]:
        try:
            role = self._first.ask("GetRole", service="iam", RoleName=ROLE).data["Role"]
        except ProviderError as e:
            if not not_found(e):
                raise
            return [Piece("role", ROLE, "", MISSING), Piece("role policy", ROLE_POLICY, "", MISSING)]
        if not _tagged(role.get("Tags", [])) or role.get("Path") != ROLE_PATH:
            return [Piece("role", ROLE, "", FOREIGN, f"it has no tag {MANAGED}=true, or not the path {ROLE_PATH}")]
        trusted = same_document(role.get("AssumeRolePolicyDocument"), trust(self.account_id))
        found = [Piece("role", ROLE, "", THERE if trusted else DIFFERENT, bounded(role) if trusted else "who may take it on was changed")]
        try:
            said = self._first.ask("GetRolePolicy", service="iam", RoleName=ROLE, PolicyName=ROLE_POLICY).data["PolicyDocument"]
        except ProviderError as e:
            if not not_found(e):
                raise
            return [*found, Piece("role policy", ROLE_POLICY, "", MISSING)]
        right = same_document(said, permissions(self.account_id, self.partition))
        return [*found, Piece("role policy", ROLE_POLICY, "", THERE if right else DIFFERENT, "" if right else "what it may do was changed")]

    def _make(self, piece: Piece) -> None:
        account = self._account(piece)
        match piece.what, piece.state:
            case "role", _ if piece.state == MISSING:
                document = json.dumps(trust(self.account_id))
                about = "gpulease: ends machines that outlived their deadline"
                tags = [{"Key": MANAGED, "Value": "true"}]
                account.create(
                    "CreateRole",
                    service="iam",
                    RoleName=ROLE,
                    Path=ROLE_PATH,
                    Description=about,
                    AssumeRolePolicyDocument=document,
                    Tags=tags,
                )
            case "role", _:
                document = json.dumps(trust(self.account_id))
                account.change("UpdateAssumeRolePolicy", service="iam", RoleName=ROLE, PolicyDocument=document)
            case "role policy", _:
                document = json.dumps(permissions(self.account_id, self.partition))
                account.change("PutRolePolicy", service="iam", RoleName=ROLE, PolicyName=ROLE_POLICY, PolicyDocument=document)
            case "queue", _ if piece.state == MISSING:
                account.create("CreateQueue", service="sqs", QueueName=QUEUE, Attributes=QUEUE_ATTRIBUTES, tags={MANAGED: "true"})
            case "queue", _:
                account.change("SetQueueAttributes", service="sqs", QueueUrl=_url(account), Attributes=QUEUE_ATTRIBUTES)
            case _:
                tags = [{"Key": MANAGED, "Value": "true"}]
                account.create("CreateScheduleGroup", service="scheduler", Name=GROUP, Tags=tags)

    def _remove(self, piece: Piece) -> None:
        account = self._account(piece)
        match piece.what:
            case "schedule group":
                account.change("DeleteScheduleGroup", service="scheduler", Name=GROUP)
            case "queue":
                account.change("DeleteQueue", service="sqs", QueueUrl=_url(account))
            case "role policy":
                account.change("DeleteRolePolicy", service="iam", RoleName=ROLE, PolicyName=ROLE_POLICY)
            case _:
                account.change("DeleteRole", service="iam", RoleName=ROLE)

    def _account(self, piece: Piece) -> Account:
        return next((account for account in self.accounts if account.region == piece.region), self._first)

    def _refuse_while_armed(self, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            if piece.what != "schedule group":
                continue
            pages = self._account(piece).pages("ListSchedules", 100, service="scheduler", GroupName=GROUP)
            names = [str(one["Name"]) for page in pages for one in page.data.get("Schedules", [])]
            if armed := [name for name in names if still_may_fire(name)]:
                raise RefusedError(
                    f"{len(armed)} schedule(s) in {piece.region} may still have a machine to end: {', '.join(armed[:3])}",
                    why="removing the group removes them; nothing was removed",
                    next="gpulease ls; gpulease reap   shows what is left, `gpulease reap --go` lets go of what is overdue",
                )

    def _other_regions(self) -> list[str]:
        """Where else in the account there is a group of ours; the role must stay for its schedules."""
        ours = {account.region for account in self.accounts}
        enabled = [str(one["RegionName"]) for one in self._first.ask("DescribeRegions").data.get("Regions", [])]
        others = [Account(region, self._first.profile, self._first.endpoint) for region in enabled if region not in ours]
        return [account.region for account in others if _group(account).state != MISSING]


def _group(account: Account) -> Piece:
    try:
        shown = account.ask("GetScheduleGroup", service="scheduler", Name=GROUP).data
    except ProviderError as e:
        if not not_found(e):
            raise
        return Piece("schedule group", GROUP, account.region, MISSING)
    tags = account.ask("ListTagsForResource", service="scheduler", ResourceArn=str(shown["Arn"])).data.get("Tags", [])
    if not _tagged(tags):
        return Piece("schedule group", GROUP, account.region, FOREIGN, f"it has no tag {MANAGED}=true")
    if shown.get("State") != "ACTIVE":
        return Piece("schedule group", GROUP, account.region, FOREIGN, f"it is {shown.get('State')}; wait until it is gone")
    return Piece("schedule group", GROUP, account.region, THERE)


def _queue(account: Account) -> Piece:
    try:
        url = _url(account)
    except ProviderError as e:
        if not not_found(e):
            raise
        return Piece("queue", QUEUE, account.region, MISSING)
    if account.ask("ListQueueTags", service="sqs", QueueUrl=url).data.get("Tags", {}).get(MANAGED) != "true":
        return Piece("queue", QUEUE, account.region, FOREIGN, f"it has no tag {MANAGED}=true")
    said = account.ask("GetQueueAttributes", service="sqs", QueueUrl=url, AttributeNames=list(QUEUE_ATTRIBUTES)).data.get("Attributes", {})
    wrong = [f"{name} is {said.get(name)}, should be {value}" for name, value in QUEUE_ATTRIBUTES.items() if said.get(name) != value]
    return Piece("queue", QUEUE, account.region, DIFFERENT if wrong else THERE, "; ".join(wrong))


def _url(account: Account) -> str:
    return str(account.ask("GetQueueUrl", service="sqs", QueueName=QUEUE).data["QueueUrl"])


def _tagged(tags: Iterable[Mapping[str, Any]]) -> bool:
    return any(tag.get("Key") == MANAGED and tag.get("Value") == "true" for tag in tags)
