"""The list of actions is the calls in the source, and each policy is made of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from provisioner.errors import UsageError
from provisioner.providers import aws_actions
from provisioner.providers.aws_inventory import MADE, OTHER
from provisioner.providers.aws_policy import document

PROVIDERS = Path(aws_actions.__file__).parent
BY_AWS = {"ec2:CreateTags", "iam:PassRole", "iam:TagRole", "scheduler:TagResource", "sqs:TagQueue"}
"""Asked for by AWS beside another call; never called."""

CALLED_OTHERWISE = {"s3:ListObjectsV2": "s3:ListBucket"}
"""Calls whose permission has another name."""

ACTED = {"sqs:SendMessage"}
"""Done by EventBridge Scheduler, as the role."""


def called() -> set[str]:
    found = {f"ec2:{call}" for kind in (*MADE, *OTHER) for call in (kind.list_call, kind.remove_call)}
    for path in PROVIDERS.glob("aws*.py"):
        for name, rest in re.findall(r'\.(?:ask|create|change|pages)\(\s*"([A-Z]\w+)"([^)]*)', path.read_text("utf-8")):
            service = re.search(r'service="([\w-]+)"', rest)
            call = f"{service[1].replace('-', '') if service else 'ec2'}:{name}"
            found.add(CALLED_OTHERWISE.get(call, call))
    return found


def test_the_list_is_what_the_source_calls_no_more_and_no_less() -> None:
    listed = [action.name for action in aws_actions.ACTIONS]
    assert len(listed) == len(set(listed))
    assert set(listed) == called() | BY_AWS | ACTED


@pytest.mark.parametrize("name", aws_actions.POLICIES)
def test_each_policy_allows_exactly_its_actions_without_a_wildcard(name: str) -> None:
    allowed = [a for s in document(name)["Statement"] for a in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])]
    assert set(allowed) == set(aws_actions.of(name)) and not [a for a in allowed if "*" in a]
    sids = [s["Sid"] for s in document(name)["Statement"]]
    assert len(sids) == len(set(sids)) and all(re.fullmatch("[A-Za-z0-9]+", sid) for sid in sids), "what IAM takes as a Sid"


def test_no_policy_for_a_name_or_a_limit_that_has_no_meaning() -> None:
    with pytest.raises(UsageError, match="no policy 'admin'"):
        document("admin")
    with pytest.raises(UsageError, match="--type"):
        document("reaper", types=["g6.xlarge"])


def test_named_regions_limit_all_that_is_regional() -> None:
    for statement in document("runner", regions=["eu-west-1"])["Statement"]:
        services = {a.split(":")[0] for a in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])}
        limited = statement.get("Condition", {}).get("StringEquals", {}).get("aws:RequestedRegion")
        assert limited == (None if services & {"iam", "sts", "pricing"} else ["eu-west-1"]), statement
