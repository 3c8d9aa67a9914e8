"""Schedules that fire, as a role whose policies decide; what a role may not do is tried again and then lies in the queue."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.rehearsal_endpoint.conftest import Cloud, code_of, wait_for

TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "scheduler.amazonaws.com"},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"aws:SourceAccount": "123456789012"}},
        }
    ],
}
MAY_END_OURS = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": "ec2:TerminateInstances",
            "Resource": "*",
            "Condition": {"StringEquals": {"aws:ResourceTag/gpulease:managed": "true"}},
        },
        {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": "arn:aws:sqs:*:123456789012:dead"},
    ],
}
OURS = [{"Key": "gpulease:managed", "Value": "true"}, {"Key": "gpulease:lease", "Value": "r-x"}]


class Site:
    """A role, a group and a queue, and schedules in them."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud, self.scheduler = cloud, cloud.service("scheduler")
        self.iam, self.sqs = cloud.service("iam"), cloud.service("sqs")
        made = self.iam.create_role(RoleName="ends", Path="/t/", AssumeRolePolicyDocument=json.dumps(TRUST))
        self.role = made["Role"]["Arn"]
        self.allow(MAY_END_OURS)
        self.queue = self.sqs.create_queue(QueueName="dead")["QueueUrl"]
        self.scheduler.create_schedule_group(Name="g", Tags=OURS)

    def allow(self, document: dict[str, Any]) -> None:
        self.iam.put_role_policy(RoleName="ends", PolicyName="p", PolicyDocument=json.dumps(document))

    def parameters(self, name: str, instance: str, seconds: int = 1, tries: int = 0, **more: Any) -> dict[str, Any]:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + seconds))
        return {
            "Name": name,
            "GroupName": "g",
            "ClientToken": name,
            "ScheduleExpression": f"at({at})",
            "FlexibleTimeWindow": {"Mode": "OFF"},
            "ActionAfterCompletion": "NONE",
            "Target": {
                "Arn": "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances",
                "RoleArn": self.role,
                "Input": json.dumps({"InstanceIds": [instance]}),
                "RetryPolicy": {"MaximumRetryAttempts": tries, "MaximumEventAgeInSeconds": 60},
                "DeadLetterConfig": {"Arn": "arn:aws:sqs:us-east-1:123456789012:dead"},
            },
            **more,
        }

    def dead(self) -> list[dict[str, Any]]:
        got: list[dict[str, Any]] = self.sqs.receive_message(QueueUrl=self.queue, MessageAttributeNames=["All"]).get("Messages", [])
        return got


@pytest.fixture
def site(cloud: Cloud) -> Iterator[Site]:
    found = Site(cloud)
    yield found
    found.scheduler.delete_schedule_group(Name="g")
    found.iam.delete_role_policy(RoleName="ends", PolicyName="p")
    found.iam.delete_role(RoleName="ends")
    found.sqs.delete_queue(QueueUrl=found.queue)


def ours(cloud: Cloud) -> str:
    return cloud.launch(TagSpecifications=[{"ResourceType": "instance", "Tags": OURS}])


def test_a_schedule_ends_the_machine_and_stays(cloud: Cloud, site: Site) -> None:
    instance = ours(cloud)
    site.scheduler.create_schedule(**site.parameters("fires", instance))
    ended = cloud.until(instance, "terminated")
    assert ended["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert cloud.truth(instance)["by"] == "schedule"
    assert site.scheduler.get_schedule(GroupName="g", Name="fires")["State"] == "ENABLED"
    assert cloud.truth("fires")["state"] == "fired"
    assert any(c["action"] == "TerminateInstances" and site.role in c["userAgent"] for c in cloud.rehearsal.log())


def test_a_schedule_that_deletes_itself_is_gone_after_it_fired(cloud: Cloud, site: Site) -> None:
    instance = ours(cloud)
    site.scheduler.create_schedule(**site.parameters("once", instance, ActionAfterCompletion="DELETE"))
    cloud.until(instance, "terminated")
    wait_for(lambda: not site.scheduler.list_schedules(GroupName="g")["Schedules"])


def test_a_deleted_schedule_does_not_fire(cloud: Cloud, site: Site) -> None:
    instance = ours(cloud)
    site.scheduler.create_schedule(**site.parameters("off", instance, seconds=1))
    site.scheduler.delete_schedule(GroupName="g", Name="off")
    time.sleep(1.5)
    assert cloud.describe(instance)["State"]["Name"] == "running"
    assert code_of(site.scheduler.get_schedule, GroupName="g", Name="off") == "ResourceNotFoundException"


def test_what_the_role_may_not_end_is_tried_again_and_then_lies_in_the_queue(cloud: Cloud, site: Site) -> None:
    stranger = cloud.launch()
    site.scheduler.create_schedule(**site.parameters("denied", stranger, tries=1))
    [message] = wait_for(site.dead)
    assert json.loads(message["Body"]) == {"InstanceIds": [stranger]}
    assert message["MessageAttributes"]["ERROR_CODE"]["StringValue"] == "UnauthorizedOperation"
    assert message["MessageAttributes"]["RETRY_ATTEMPTS"]["StringValue"] == "1"
    assert cloud.describe(stranger)["State"]["Name"] == "running"
    assert cloud.truth("denied")["state"] == "failed: UnauthorizedOperation"


def test_a_role_that_lost_its_permission_meanwhile_ends_nothing_until_it_has_it_again(cloud: Cloud, site: Site) -> None:
    instance = ours(cloud)
    site.scheduler.create_schedule(**site.parameters("late", instance, tries=5))
    site.iam.delete_role_policy(RoleName="ends", PolicyName="p")
    wait_for(lambda: cloud.truth("late")["state"].startswith("retrying"))
    assert cloud.describe(instance)["State"]["Name"] == "running"
    site.allow(MAY_END_OURS)
    cloud.until(instance, "terminated")


def test_what_aws_would_not_take_is_refused(cloud: Cloud, site: Site) -> None:
    create, good = site.scheduler.create_schedule, site.parameters("bad", "i-1", 60)

    def with_target(**more: Any) -> dict[str, Any]:
        return {**good, "Target": {**good["Target"], **more}}

    assert code_of(create, **{**good, "ScheduleExpression": "at(tomorrow)"}) == "ValidationException"
    assert code_of(create, **{**good, "ScheduleExpression": "rate(1 minutes)"}) == "UnsupportedOperation"
    assert code_of(create, **{**good, "GroupName": "nowhere"}) == "ResourceNotFoundException"
    assert code_of(create, **with_target(RoleArn="arn:aws:iam::123456789012:role/nobody")) == "ValidationException"
    elsewhere = json.dumps(TRUST).replace("123456789012", "210987654321")
    site.iam.update_assume_role_policy(RoleName="ends", PolicyDocument=elsewhere)
    assert code_of(create, **good) == "ValidationException"
    site.iam.update_assume_role_policy(RoleName="ends", PolicyDocument=json.dumps(TRUST))
    assert create(**good)["ScheduleArn"].endswith(":schedule/g/bad")


def test_a_token_makes_a_schedule_once_and_a_name_belongs_to_one(cloud: Cloud, site: Site) -> None:
    same = site.parameters("same", "i-1", 60)
    first = site.scheduler.create_schedule(**same)["ScheduleArn"]
    assert site.scheduler.create_schedule(**same)["ScheduleArn"] == first
    assert code_of(site.scheduler.create_schedule, **{**same, "ClientToken": "another"}) == "ConflictException"


def test_schedules_are_listed_by_prefix_and_page(cloud: Cloud, site: Site) -> None:
    for name in ("a-1", "a-2", "a-3", "b-1"):
        site.scheduler.create_schedule(**site.parameters(name, "i-1", 60))
    pages = list(site.scheduler.get_paginator("list_schedules").paginate(GroupName="g", NamePrefix="a-", PaginationConfig={"PageSize": 2}))
    assert [[one["Name"] for one in page["Schedules"]] for page in pages] == [["a-1", "a-2"], ["a-3"]]
    assert code_of(site.scheduler.list_schedules, GroupName="nowhere") == "ResourceNotFoundException"
