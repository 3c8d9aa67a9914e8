"""The guard that lives at AWS: a one-time EventBridge schedule that terminates the machine three minutes after its deadline.

It needs nothing of ours any more once it is made: not this computer, not these credentials, not the machine's own timers.
It needs what `gpulease init aws` makes once (aws_init): a role that may end what carries our tag and nothing else, a
schedule group, a queue for what failed. Whether they are there, and are what they should be, is looked at before anything is
rented, because a schedule with a wrong role is made without complaint, fires, and ends nothing.

*All that a later look needs is in the name*: lease, number and deadline. A list of schedules shows nothing else, and a
schedule has no tags. *Kept, not deleted, after it fired*: with DELETE it would vanish after its last failed try too, and
absence would look like success. Facts: the EventBridge Scheduler API reference; its clock is good to the minute.
This file must not know when to arm, nor that there are other guards.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from provisioner import times
from provisioner.errors import ProviderError, RefusedError
from provisioner.model import Json, LaunchSpec, Looked, Phase, Resource
from provisioner.providers.aws_client import Account, Answer, instant
from provisioner.providers.aws_errors import NotAsked, not_found

KIND = "schedule"
GROUP, QUEUE = "gpulease", "gpulease-schedules"
ROLE, ROLE_PATH, ROLE_POLICY = "gpulease-scheduler", "/gpulease/", "gpulease-scheduler"
SERVICE = "scheduler.amazonaws.com"
LATE_S = times.REAL.schedule_late_s
"""After the deadline the machine's own timer is first, so that the proof can tell which of the two it was."""

RETRY_S, RETRIES = 86_400, 185
"""The longest that EventBridge Scheduler goes on trying: a day, 185 times."""

NAME = re.compile(r"(r-\d{8}t\d{6}z-[0-9a-z]{8})-(\d{1,7})-(\d{8})t(\d{6})z")


def fires_at(deadline: str, account: Account | None = None) -> datetime:
    """Three minutes after the deadline; a rehearsal may shorten that."""
    late_s = LATE_S if account is None else times.of(account.endpoint is not None).schedule_late_s
    return datetime.fromtimestamp(datetime.fromisoformat(deadline).timestamp() + late_s, UTC)


def name_of(lease: str, token: str, deadline: str) -> str:
    """`lease-number-deadline`: the number is the journal's line for this create, so a second machine has a second name."""
    number = re.fullmatch(r"[^-]+-(\d{1,7})-.+", token)
    name = f"{lease}-{number[1] if number else 0}-{datetime.fromisoformat(deadline).astimezone(UTC):%Y%m%dt%H%M%Sz}"
    if not NAME.fullmatch(name) or len(name) > 64:
        raise NotAsked(f"a schedule cannot be called {name!r}")
    return name


def parameters(name: str, token: str, instance: str, fires: datetime, role: str, region: str) -> dict[str, Any]:
    """CreateSchedule, and what GetSchedule has to show afterwards."""
    _, partition, _, _, account, _ = role.split(":", 5)
    return {
        "Name": name,
        "GroupName": GROUP,
        "ClientToken": token,
        "Description": "gpulease: ends a machine that outlived its deadline",
        "State": "ENABLED",
        "ScheduleExpression": f"at({fires:%Y-%m-%dT%H:%M:%S})",
        "ScheduleExpressionTimezone": "UTC",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "ActionAfterCompletion": "NONE",
        "Target": {
            "Arn": f"arn:{partition}:scheduler:::aws-sdk:ec2:terminateInstances",
            "RoleArn": role,
            "Input": json.dumps({"InstanceIds": [instance]}),
            "RetryPolicy": {"MaximumEventAgeInSeconds": RETRY_S, "MaximumRetryAttempts": RETRIES},
            "DeadLetterConfig": {"Arn": f"arn:{partition}:sqs:{region}:{account}:{QUEUE}"},
        },
    }


def differences(wanted: Mapping[str, Any], shown: Mapping[str, Any]) -> list[str]:
    """What GetSchedule shows against what was asked for; empty when they agree. Absent counts as different."""
    found: list[str] = []

    def compare(where: str, asked: Any, seen: Any) -> None:
        if isinstance(asked, Mapping):
            for key, value in asked.items():
                compare(f"{where}.{key}".lstrip("."), value, seen.get(key) if isinstance(seen, Mapping) else None)
        elif asked != seen:
            found.append(f"{where} is {seen!r}, asked for {asked!r}")

    compare("", {key: value for key, value in wanted.items() if key not in ("ClientToken", "Description")}, shown)
    return found


def trust(account: str) -> dict[str, Any]:
    """Only EventBridge Scheduler, and only for schedules of this account."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": SERVICE},
                "Action": "sts:AssumeRole",
                "Condition": {"StringEquals": {"aws:SourceAccount": account}},
            }
        ],
    }


def permissions(account: str, partition: str = "aws") -> dict[str, Any]:
    """End what carries our tag, say what could not be ended, and nothing else."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "EndOnlyOurs",
                "Effect": "Allow",
                "Action": "ec2:TerminateInstances",
                "Resource": f"arn:{partition}:ec2:*:{account}:instance/*",
                "Condition": {"StringEquals": {"aws:ResourceTag/gpulease:managed": "true"}},
            },
            {
                "Sid": "SayWhatFailed",
                "Effect": "Allow",
                "Action": "sqs:SendMessage",
                "Resource": f"arn:{partition}:sqs:*:{account}:{QUEUE}",
            },
        ],
    }


def init_command(account: Account, regions: Sequence[str] = ()) -> str:
    words = ["gpulease init aws", *(f"--region {region}" for region in regions or (account.region,))]
    words += [f"--aws-profile {account.profile}"] if account.profile else []
    return " ".join([*words, *([f"--endpoint {account.endpoint}"] if account.endpoint else [])])


def role_of(account: Account, regions: Sequence[str] = ()) -> str:
    """The role's ARN, when it is there and is what `init` makes; else a refusal, before anything was asked for."""
    return look_at_role(account, regions)[0]


def bounded(role: Mapping[str, Any]) -> str:
    """A boundary takes away rights that the role's own policy goes on showing. What it says is not read: a word of doubt, or ""."""
    arn = role.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn")
    doubt = f"the role {ROLE} has a permissions boundary, {arn}: unless that allows ec2:TerminateInstances, the schedule ends nothing"
    return f"{doubt}. `gpulease drill --live` shows whether it does" if arn else ""


def look_at_role(account: Account, regions: Sequence[str] = ()) -> tuple[str, str]:
    """The role's ARN, and what is to be doubted of it."""
    next = init_command(account, regions)
    try:
        role = account.ask("GetRole", service="iam", RoleName=ROLE).data["Role"]
        said = account.ask("GetRolePolicy", service="iam", RoleName=ROLE, PolicyName=ROLE_POLICY).data["PolicyDocument"]
    except ProviderError as e:
        if not not_found(e):
            raise _refused(e, f"the role {ROLE} of the scheduled termination could not be looked at") from e
        raise RefusedError(
            f"the guard at AWS cannot be armed: the role {ROLE}, or its policy, is not there ({e.provider_code})",
            why="it ends a machine that everything else forgot; nothing was rented",
            next=f"{next}   makes it, once, at no cost; or waive it in the profile: waive: [{KIND}]",
        ) from e
    arn = str(role["Arn"])
    partition, owner = arn.split(":")[1], arn.split(":")[4]
    for what, is_, must in (
        ("policy", said, permissions(owner, partition)),
        ("trust policy", role.get("AssumeRolePolicyDocument"), trust(owner)),
    ):
        if not same_document(is_, must):
            raise RefusedError(
                f"the {what} of the role {ROLE} is not what `gpulease init aws` made",
                why="a schedule would be made without complaint, fire, and perhaps end nothing; nothing was rented",
                next=f"{next}   shows the difference and puts it right",
            )
    return arn, bounded(role)


def check_group(account: Account) -> None:
    """A refusal unless the schedule group of this region is there."""
    try:
        shown = account.ask("GetScheduleGroup", service="scheduler", Name=GROUP).data
    except ProviderError as e:
        if not not_found(e):
            raise _refused(e, f"the schedule group {GROUP} in {account.region} could not be looked at") from e
        shown = {"State": "missing"}
    if shown.get("State") != "ACTIVE":
        raise RefusedError(
            f"the guard at AWS cannot be armed in {account.region}: the schedule group {GROUP} is {shown.get('State')}",
            why="it ends a machine that everything else forgot; nothing was rented",
            next=f"{init_command(account)}   makes it, once, at no cost; or waive it in the profile: waive: [{KIND}]",
        )


def has_group(account: Account) -> bool:
    try:
        return bool(account.ask("GetScheduleGroup", service="scheduler", Name=GROUP).data)
    except ProviderError as e:
        if not_found(e):
            return False
        raise


def same_document(one: Any, other: Any) -> bool:
    """Two policies that say the same: the order of keys is nothing, and a list of one is that one."""
    return bool(_plain(one) == _plain(other))


def create(account: Account, spec: LaunchSpec, lease: str, token: str, made: Mapping[str, Resource], role: str) -> Resource:
    if "instance" not in made:
        raise NotAsked("there is no machine yet that a schedule could end")
    try:
        role = role or role_of(account)
    except RefusedError as e:
        raise NotAsked(e.what, why=e.why, next=e.next) from e
    instance, deadline = made["instance"].id, spec.deadline
    name = name_of(lease, token, deadline)
    fires = fires_at(deadline, account)
    answer = account.create("CreateSchedule", service="scheduler", **parameters(name, token, instance, fires, role, account.region))
    facts = {"instance": instance, "firesAt": instant(fires), "deadline": deadline, **answer.stamp()}
    return Resource(KIND, name, Phase.COMING, "asked for", token, False, account.region, lease, facts)


def verify(account: Account, schedule: Resource, role: str) -> list[str]:
    """Read it back; the differences as sentences."""
    facts = schedule.facts
    fires = fires_at(str(facts["deadline"]), account)
    wanted = parameters(schedule.id, schedule.token or "", str(facts["instance"]), fires, role, schedule.region or account.region)
    return differences(wanted, account.ask("GetSchedule", service="scheduler", GroupName=GROUP, Name=schedule.id).data)


def listed(account: Account, lease: str | None, cannot: Callable[[ProviderError], bool]) -> tuple[list[Resource], Looked, list[Answer]]:
    """Every schedule of ours in the region. Without a group there is none. Who cannot list is told so by `Looked`: a lease that
    made a schedule then counts as not looked at, and one that waived it does not."""
    where: dict[str, Any] = {"GroupName": GROUP} | ({"NamePrefix": f"{lease}-"} if lease is not None else {})
    found: list[Resource] = []
    answers: list[Answer] = []
    try:
        for answer in account.pages("ListSchedules", 100, service="scheduler", **where):
            answers.append(answer)
            found += [one for shown in answer.data.get("Schedules", []) if (one := _resource(shown, account, answer)) is not None]
    except ProviderError as e:
        if not_found(e):
            return [], Looked(KIND, account.region), answers
        if not cannot(e):
            raise
        return [], Looked(KIND, account.region, checked=False, reason=e.what), answers
    return found, Looked(KIND, account.region), answers


def observe(account: Account, resource: Resource) -> Resource:
    try:
        answer = account.ask("GetSchedule", service="scheduler", GroupName=GROUP, Name=resource.id)
    except ProviderError as e:
        if not not_found(e):
            raise
        stamp = {} if account.last is None else account.last.stamp()
        return replace(resource, phase=Phase.GONE, state="not-found", facts={**resource.facts, **stamp})
    seen = _resource(answer.data, account, answer)
    if seen is None:
        raise ProviderError(f"GetSchedule showed {answer.data.get('Name')!r}; expected {resource.id}", request_id=answer.request_id)
    return replace(seen, token=resource.token, facts={**resource.facts, **seen.facts})


def remove(account: Account, resource: Resource) -> dict[str, Json]:
    try:
        answer = account.change("DeleteSchedule", service="scheduler", GroupName=GROUP, Name=resource.id)
    except ProviderError as e:
        if not not_found(e):
            raise
        return {**({} if account.last is None else account.last.stamp()), "state": "not-found"}
    return answer.stamp()


def still_may_fire(name: str, now: float | None = None) -> bool:
    """Could a schedule of this name still do something, at its time or by trying again for a day?"""
    found = NAME.fullmatch(name)
    if found is None:
        return True  # not ours by its name: nothing is known of it
    return (time.time() if now is None else now) < fires_at(_deadline(found)).timestamp() + RETRY_S


def _resource(shown: Mapping[str, Any], account: Account, answer: Answer) -> Resource | None:
    """None for a schedule that somebody else put into our group: its name is not one that we give."""
    found = NAME.fullmatch(str(shown["Name"]))
    if found is None:
        return None
    facts: dict[str, Json] = {"deadline": _deadline(found), "firesAt": instant(fires_at(_deadline(found), account)), **answer.stamp()}
    state = str(shown.get("State", ""))
    return Resource(KIND, str(shown["Name"]), Phase.HERE, state, None, False, account.region, found[1], facts)


def _deadline(found: re.Match[str]) -> str:
    return f"{datetime.strptime(found[3] + found[4], '%Y%m%d%H%M%S'):%Y-%m-%dT%H:%M:%SZ}"


def _plain(value: Any) -> Any:
    if isinstance(value, str) and value[:1] == "{":
        value = json.loads(value)
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return _plain(value[0]) if len(value) == 1 else [_plain(one) for one in value]
    return value


def _refused(e: ProviderError, what: str) -> RefusedError:
    return RefusedError(f"{what}: {e.what}", why=f"{e.why}; nothing was rented", next=e.next or "try again")
