"""The least-privilege IAM policies, made from the list of actions: which resources, and under which conditions.

Looking cannot be limited to resources. Making is limited to what is born with our tag (and, if asked, to some instance types:
the cheapest guard against a big bill that there is), changing and removing to what carries it, schedules to our group, the
role to its one name and service. With regions named, everything regional is limited to them; IAM and STS are not regional.

The conditions are decided in the rehearsal by its own evaluator; none was tried against a live account yet.
This file must not send anything.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from provisioner.errors import UsageError
from provisioner.providers import aws_actions, aws_fleet, aws_regions
from provisioner.providers.aws_launch import MANAGED
from provisioner.providers.aws_schedule import GROUP, QUEUE, ROLE, ROLE_PATH, SERVICE, permissions

Statement = dict[str, Any]

BY_TAG = frozenset(
    {
        *aws_actions.WOULD_REMOVE,
        "AuthorizeSecurityGroupIngress",
        "DeleteNetworkInterface",
        "DeleteSecurityGroup",
        "DeleteVolume",
        "TerminateInstances",
    }
)
BORN = ("instance", "volume", "network-interface", "spot-instances-request")
TAGS_AT_BIRTH = ("RunInstances", "CreateSecurityGroup", "CreateLaunchTemplate", "CreateFleet")
LONGEST = 6144
"""Characters of a managed policy, blanks aside: IAM takes no more. https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html"""
NOT_REGIONAL = frozenset({"iam", "sts", "pricing", "s3", "ce"})


def document(
    name: str,
    *,
    regions: Sequence[str] = (),
    types: Sequence[str] = (),
    account: str = "",
    fleet: bool = False,
    buckets: Sequence[str] = (),
) -> dict[str, Any]:
    """The policy of that name. Without an account its ARNs match any; the policy is attached in one anyway.

    `fleet` adds what `launch.fleet` needs. It is left out else, because a fleet launches with a role of AWS's own: whoever may
    make one has no limit on types or tags for what it launches. `buckets` are where the account's trails write: the auditor reads
    there and nowhere else, and without one nothing in S3. UsageError for a limit that would never match anything.
    """
    if name not in aws_actions.POLICIES:
        known = ", ".join(aws_actions.POLICIES)
        raise UsageError(f"there is no policy {name!r}", why=f"there are: {known}", next="gpulease iam policy runner")
    _check(regions, types, account, buckets)
    if name == aws_actions.ROLE:
        return permissions(account or "*")
    if (types or fleet) and name != aws_actions.RUNNER:
        option = "--type" if types else "--fleet"
        raise UsageError(f"{option} has no meaning for the policy {name}", why="only the runner launches anything", next="leave it out")
    if buckets and name != aws_actions.AUDITOR:
        raise UsageError(f"--bucket has no meaning for the policy {name}", why="only the auditor reads files", next="leave it out")
    owner, left_out = account or "*", (*(() if fleet else aws_actions.FLEET_ONLY), *(() if buckets else aws_actions.BUCKET_ONLY))
    actions = [a for a in aws_actions.of(name) if a not in left_out]
    made = [_look(actions), *_other(actions, owner, types), *_ours(actions, owner), *_prepare(actions, owner, name)]
    made += _records(actions, buckets)
    for statement in made:
        services = {action.split(":")[0] for action in _many(statement["Action"])}
        if regions and not services & NOT_REGIONAL:
            _condition(statement, "StringEquals", "aws:RequestedRegion", list(regions))
    return {"Version": "2012-10-17", "Statement": [_ordered(statement) for statement in made if statement["Action"]]}


def _look(actions: Sequence[str]) -> Statement:
    of_no_thing = ("scheduler:ListSchedules", "servicequotas:GetServiceQuota")
    names = [a for a in actions if a.startswith("ec2:Describe") or a in of_no_thing]
    return {"Sid": "Look", "Action": names, "Resource": "*"}


def _other(actions: Sequence[str], owner: str, types: Sequence[str]) -> list[Statement]:
    found: list[Statement] = []
    # The price list has its endpoint in two regions only, and STS and IAM in none: no condition on regions for these.
    anywhere = [a for a in ("sts:GetCallerIdentity", "pricing:GetProducts") if a in actions]
    found.append({"Sid": "WhoAmIAndWhatItCosts", "Action": anywhere, "Resource": "*"})
    if "ec2-instance-connect:OpenTunnel" in actions:
        ssh_only: Statement = {"NumericEquals": {"ec2-instance-connect:remotePort": "22"}}
        ours = {"StringEquals": {f"ssm:resourceTag/{MANAGED}": "true"}}
        endpoint = _ec2(owner, "instance-connect-endpoint")
        found += [
            {"Sid": "InThroughAnEndpoint", "Action": "ec2-instance-connect:OpenTunnel", "Resource": endpoint, "Condition": ssh_only},
            {"Sid": "InThroughASession", "Action": "ssm:StartSession", "Resource": _ec2(owner, "instance"), "Condition": ours},
        ]
    if "ec2:RunInstances" in actions:
        tagged = {"StringEquals": {f"aws:RequestTag/{MANAGED}": "true"}}
        machine: Statement = {
            "Sid": "LaunchOnlyTagged",
            "Action": "ec2:RunInstances",
            "Resource": _ec2(owner, "instance"),
            "Condition": tagged,
        }
        if types:
            _condition(machine, "StringLike", "ec2:InstanceType", list(types))
        found += [
            machine,
            {
                "Sid": "WithWhatIsBornTagged",
                "Action": ["ec2:RunInstances", "ec2:CreateSecurityGroup"],
                "Resource": [_ec2(owner, kind) for kind in (*BORN[1:], "security-group")],
                "Condition": tagged,
            },
            {
                "Sid": "OnWhatIsThere",
                "Action": "ec2:RunInstances",
                "Resource": ["arn:aws:ec2:*::image/*", _ec2("*", "subnet"), _ec2("*", "security-group")],
            },
            {"Sid": "GroupInAnyNetwork", "Action": "ec2:CreateSecurityGroup", "Resource": _ec2(owner, "vpc")},
            {
                "Sid": "TagOnlyAtBirth",
                "Action": "ec2:CreateTags",
                "Resource": _ec2(owner, "*"),
                "Condition": {"StringEquals": {"ec2:CreateAction": [a for a in TAGS_AT_BIRTH if f"ec2:{a}" in actions]}},
            },
        ]
    if "ec2:CreateFleet" in actions:
        found += [
            {
                "Sid": "TemplateOnlyTagged",
                "Action": "ec2:CreateLaunchTemplate",
                "Resource": _ec2(owner, "launch-template"),
                "Condition": tagged,
            },
            {"Sid": "FleetOnlyTagged", "Action": "ec2:CreateFleet", "Resource": _ec2(owner, "fleet"), "Condition": tagged},
            {
                "Sid": "FleetOnlyOfOurTemplates",
                "Action": ["ec2:CreateFleet", "ec2:RunInstances"],
                "Resource": _ec2(owner, "launch-template"),
                "Condition": {"StringEquals": {f"aws:ResourceTag/{MANAGED}": "true"}},
            },
        ]
    return found


def _check(regions: Sequence[str], types: Sequence[str], account: str, buckets: Sequence[str]) -> None:
    """A limit with a typing mistake in it would deny everything, and nobody would see why."""
    aws_regions.check(regions)
    for option, given, pattern, example in (
        ("--type", types, r"[a-z0-9*?-]+\.[a-z0-9*?-]+", "g6.xlarge or 'g6.*'"),
        # As S3 names them, and no star: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
        ("--bucket", buckets, r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "my-trail-bucket"),
        ("--account", [account] if account else [], r"[0-9]{12}", "123456789012"),
    ):
        if wrong := [one for one in given if not re.fullmatch(pattern, one)]:
            raise UsageError(f"{option} is {wrong[0]!r}", why="a policy with it would allow nothing", next=f"{option} {example}")


def _ours(actions: Sequence[str], owner: str) -> list[Statement]:
    removes = [a for a in actions if a.startswith("ec2:") and a.split(":")[1] in BY_TAG]
    tagged = {"StringEquals": {f"aws:ResourceTag/{MANAGED}": "true"}}
    found: list[Statement] = [
        {"Sid": "ChangeOnlyOurs", "Action": removes, "Resource": "arn:aws:ec2:*:*:*/*", "Condition": tagged},
        _by_name(actions, owner),
    ]
    if "iam:PassRole" in actions:
        role, absent = _roles(owner)
        found += [
            {"Sid": "TheirRole", "Action": ["iam:GetRole", "iam:GetRolePolicy"], "Resource": [role, absent]},
            {
                "Sid": "TheFleetsRole",
                "Action": "iam:GetRole",
                "Resource": [f"arn:aws:iam::{owner}:role{path}{aws_fleet.ROLE}" for path in (aws_fleet.ROLE_PATH, "/")],
            },
            {
                "Sid": "PassItToTheSchedulerOnly",
                "Action": "iam:PassRole",
                "Resource": role,
                "Condition": {"StringEquals": {"iam:PassedToService": SERVICE}},
            },
        ]
    return found


def _by_name(actions: Sequence[str], owner: str) -> Statement:
    """One statement for all that is limited by its name alone: no action here can be about another's kind of thing."""
    schedule = f"arn:aws:scheduler:*:{owner}:schedule/{GROUP}/*"
    named = {f"scheduler:{verb}Schedule": schedule for verb in ("Create", "Get", "Delete")} | {
        "scheduler:GetScheduleGroup": f"arn:aws:scheduler:*:{owner}:schedule-group/{GROUP}",
        "ssm:GetParameter": "arn:aws:ssm:*::parameter/aws/service/*",
        "ssm:StartSession": "arn:aws:ssm:*:*:document/AWS-StartSSHSession",
    }
    there = [a for a in actions if a in named] if "scheduler:GetSchedule" in actions else []
    return {"Sid": "OnlyTheseByName", "Action": there, "Resource": list(dict.fromkeys(named[a] for a in there))}


def _prepare(actions: Sequence[str], owner: str, name: str) -> list[Statement]:
    if name != aws_actions.INIT:
        return []
    places = {
        "iam": ("TheRole", _roles(owner)),
        "scheduler": ("TheGroup", f"arn:aws:scheduler:*:{owner}:schedule-group/{GROUP}"),
        "sqs": ("TheQueue", f"arn:aws:sqs:*:{owner}:{QUEUE}"),
    }
    return [
        {
            "Sid": sid,
            "Action": [a for a in actions if a.startswith(f"{service}:") and a != "scheduler:ListSchedules"],
            "Resource": resource,
        }
        for service, (sid, resource) in places.items()
    ]


def _records(actions: Sequence[str], buckets: Sequence[str]) -> list[Statement]:
    """Asking afterwards. Of files only those in the trails' buckets."""
    files = [f"arn:aws:s3:::{bucket}{end}" for bucket in buckets for end in ("", "/*")]
    return [
        {"Sid": "WhatWasRecorded", "Action": [a for a in actions if a.startswith("cloudtrail:")], "Resource": "*"},
        {"Sid": "WhatWasBilled", "Action": [a for a in actions if a.startswith("ce:")], "Resource": "*"},
        {"Sid": "TheTrailsFiles", "Action": [a for a in actions if a.startswith("s3:")], "Resource": files},
    ]


def _roles(owner: str) -> list[str]:
    """The role, and what AWS calls it while it is not there: without its path. Else a missing one would be "denied"."""
    return [f"arn:aws:iam::{owner}:role{path}{ROLE}" for path in (ROLE_PATH, "/")]


def _ec2(owner: str, kind: str) -> str:
    return f"arn:aws:ec2:*:{owner}:{kind}/*"


def _condition(statement: Statement, operator: str, key: str, values: list[str]) -> None:
    condition = {op: dict(keys) for op, keys in statement.get("Condition", {}).items()}
    condition.setdefault(operator, {})[key] = values
    statement["Condition"] = condition


def _ordered(statement: Statement) -> Statement:
    """As people write it: what for, what, on what, when. One action is written as one."""
    action = statement["Action"]
    made = {"Sid": statement["Sid"], "Effect": "Allow", "Action": action[0] if isinstance(action, list) and len(action) == 1 else action}
    return made | {key: statement[key] for key in ("Resource", "Condition") if key in statement}


def _many(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
