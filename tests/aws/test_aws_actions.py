"""The list of actions is the calls in the source, and each policy is made of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from provisioner.errors import UsageError
from provisioner.providers import aws_actions
from provisioner.providers.aws_inventory import MADE, OTHER
from provisioner.providers.aws_policy import LONGEST, document

PROVIDERS = Path(aws_actions.__file__).parent
BY_AWS = {"ec2:CreateTags", "iam:PassRole", "iam:TagRole", "scheduler:TagResource", "sqs:TagQueue"}
"""Asked for by AWS beside another call; never called."""

CARRIED = {"ec2-instance-connect:OpenTunnel", "ssm:StartSession"}
"""Called by the user's `aws` program, which carries a connection where no address may come in."""

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
    assert set(listed) == called() | BY_AWS | ACTED | CARRIED


@pytest.mark.parametrize("name", aws_actions.POLICIES)
def test_each_policy_allows_exactly_its_actions_without_a_wildcard(name: str) -> None:
    made = document(name, fleet=name == "runner", buckets=["a-trail"] if name == "auditor" else [])["Statement"]
    allowed = [a for s in made for a in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])]
    assert set(allowed) == set(aws_actions.of(name)) and not [a for a in allowed if "*" in a]
    sids = [s["Sid"] for s in made]
    assert len(sids) == len(set(sids)) and all(re.fullmatch("[A-Za-z0-9]+", sid) for sid in sids), "what IAM takes as a Sid"


def test_a_policy_fits_into_iam_with_everything_that_can_be_asked_for() -> None:
    most = document("runner", regions=["us-east-1", "us-west-2"], types=["g6.xlarge", "g6.2xlarge"], account="123456789012", fleet=True)
    assert len(json.dumps(most, separators=(",", ":"))) <= LONGEST == 6144


def test_a_runner_may_make_a_fleet_only_where_that_was_asked_for() -> None:
    """A fleet launches with AWS's own role: whoever may make one has no limit on types."""
    made = document("runner", types=["g6.*"])["Statement"]
    plain = [a for s in made for a in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])]
    assert set(plain) == set(aws_actions.of("runner")) - set(aws_actions.FLEET_ONLY)


WRONG = [
    {"regions": ["mars"]},
    {"types": ["x y"]},
    {"types": ["banana"]},
    {"types": ["*"]},
    {"account": "12"},
    {"buckets": ["*"]},
    {"buckets": ["My_Trail"]},
    {"buckets": ["a/b"]},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_limit_that_could_never_match_or_would_match_all_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"--(type|account|bucket) is|no AWS region 'mars'"):
        document("auditor" if "buckets" in wrong else "runner", **wrong)


def test_no_policy_for_a_name_or_a_limit_that_has_no_meaning() -> None:
    with pytest.raises(UsageError, match="no policy 'admin'"):
        document("admin")
    with pytest.raises(UsageError, match="--type"):
        document("reaper", types=["g6.xlarge"])
    with pytest.raises(UsageError, match="--bucket has no meaning"):
        document("runner", buckets=["a-trail"])


def test_an_auditor_without_a_bucket_may_read_nothing_in_s3() -> None:
    allowed = {a for s in document("auditor")["Statement"] for a in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])}
    assert allowed == {a for a in aws_actions.of("auditor") if not a.startswith("s3:")}


def test_named_regions_limit_all_that_is_regional() -> None:
    for statement in document("runner", regions=["eu-west-1"])["Statement"]:
        services = {a.split(":")[0] for a in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])}
        limited = statement.get("Condition", {}).get("StringEquals", {}).get("aws:RequestedRegion")
        assert limited == (None if services & {"iam", "sts", "pricing"} else ["eu-west-1"]), statement
