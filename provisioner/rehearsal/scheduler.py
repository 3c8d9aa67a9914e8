"""EventBridge Scheduler, with the one thing that moto's lacks: its schedules fire.

One-time schedules (`at(…)`) whose target is EC2's TerminateInstances. At the time, the call is made as the schedule's role,
and the role's real policies decide: one that is missing, does not trust the service, or may not end this very instance fails
here as it would there. What fails is tried again (after 1, 2, 4 … s, at most 300) until the retry policy is used up, and
then lies in the dead-letter queue. `ActionAfterCompletion` NONE keeps a schedule that has fired, DELETE removes it,
also after its last failed try, which is why absence is never proof.

AWS promises the minute, not the second; here it is the second. Everything else about a schedule (rates, windows, other
targets) is refused as unsupported, never accepted and forgotten.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from provisioner.rehearsal import engine, policy
from provisioner.rehearsal.authorization import role_documents
from provisioner.rehearsal.lifecycle import Clock
from provisioner.rehearsal.truth import Truth
from provisioner.rehearsal.wire import Call, Refusal, Reply, json_answer

TERMINATE = "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances"
SERVICE = "scheduler.amazonaws.com"
MOST_AGE_S, MOST_TRIES = 86_400, 185
LONGEST_PAUSE_S = 300.0
_NAME = re.compile(r"[0-9a-zA-Z\-_.]{1,64}")
_AT = re.compile(r"at\((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\)")
_LEASE = re.compile(r"r-\d{8}t\d{6}z-[0-9a-z]{8}")


@dataclass
class _Group:
    arn: str
    tags: list[dict[str, str]]
    made: float


@dataclass
class _Schedule:
    region: str
    group: str
    name: str
    token: str
    fires: float  # seconds since 1970
    document: Mapping[str, Any] = field(repr=False)  # as it was asked for
    made: float = field(default_factory=time.time)
    tries: int = 0

    @property
    def arn(self) -> str:
        return f"arn:aws:scheduler:{self.region}:{engine.ACCOUNT}:schedule/{self.group}/{self.name}"

    @property
    def target(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.document["Target"]
        return found


class Scheduler:
    def __init__(self, lock: threading.RLock, clock: Clock, truth: Truth, act: Callable[[Call], Reply]) -> None:
        self._lock, self._clock, self._truth, self._act = lock, clock, truth, act
        self._groups: dict[tuple[str, str], _Group] = {}
        self._schedules: dict[tuple[str, str, str], _Schedule] = {}
        self._calls: dict[str, Callable[[Call], Reply]] = {
            "CreateScheduleGroup": self._create_group,
            "GetScheduleGroup": self._get_group,
            "DeleteScheduleGroup": self._delete_group,
            "ListScheduleGroups": self._list_groups,
            "ListTagsForResource": self._tags,
            "TagResource": self._tag,
            "CreateSchedule": self._create,
            "GetSchedule": self._get,
            "DeleteSchedule": self._delete,
            "ListSchedules": self._list,
        }

    def answer(self, call: Call) -> Reply:
        if call.action not in self._calls:
            raise Refusal("UnsupportedOperation", f"the rehearsal's scheduler has no {call.action}")
        engine.backend(call.region)  # refuses a region that does not exist
        with self._lock:
            return self._calls[call.action](call)

    def _create_group(self, call: Call) -> Reply:
        name = _name(call)
        if name == "default" or (call.region, name) in self._groups:
            raise Refusal("ConflictException", f"Schedule group {name} already exists.", 409)
        arn = f"arn:aws:scheduler:{call.region}:{engine.ACCOUNT}:schedule-group/{name}"
        self._groups[call.region, name] = _Group(arn, list(call.document.get("Tags", [])), time.time())
        return json_answer({"ScheduleGroupArn": arn})

    def _group(self, call: Call, name: str) -> _Group:
        if name == "default":
            return _Group(f"arn:aws:scheduler:{call.region}:{engine.ACCOUNT}:schedule-group/default", [], 0.0)
        if (call.region, name) not in self._groups:
            raise Refusal("ResourceNotFoundException", f"Schedule group {name} does not exist.", 404)
        return self._groups[call.region, name]

    def _get_group(self, call: Call) -> Reply:
        group = self._group(call, name := _name(call))
        return json_answer(_described_group(name, group))

    def _list_groups(self, call: Call) -> Reply:
        every = [(name, group) for (region, name), group in sorted(self._groups.items()) if region == call.region]
        every = [("default", self._group(call, "default")), *every]
        wanted = [one for one in every if one[0].startswith(call.params.get("NamePrefix", ""))]
        return json_answer({"ScheduleGroups": [_described_group(*one) for one in wanted]})

    def _delete_group(self, call: Call) -> Reply:
        name = _name(call)
        self._group(call, name)
        if name == "default":
            raise Refusal("ValidationException", "The default schedule group cannot be deleted.")
        del self._groups[call.region, name]
        for key in [key for key in self._schedules if key[:2] == (call.region, name)]:
            self._forget(self._schedules[key])
        return json_answer({})

    def _tags(self, call: Call) -> Reply:
        return json_answer({"Tags": self._by_arn(call).tags})

    def _tag(self, call: Call) -> Reply:
        group, new = self._by_arn(call), list(call.document.get("Tags", []))
        group.tags = [tag for tag in group.tags if tag["Key"] not in {one["Key"] for one in new}] + new
        return json_answer({})

    def _by_arn(self, call: Call) -> _Group:
        return self._group(call, call.params.get("ResourceArn", "").rpartition("/")[2])

    def _create(self, call: Call) -> Reply:
        group, name, asked = call.params.get("GroupName", "default"), _name(call), call.document
        self._group(call, group)
        token = str(asked.get("ClientToken", ""))
        if (old := self._schedules.get((call.region, group, name))) is not None:
            if token and old.token == token and old.document == asked:
                return json_answer({"ScheduleArn": old.arn})
            raise Refusal("ConflictException", f"Schedule {name} already exists.", 409)
        made = _Schedule(call.region, group, name, token, _checked(asked), asked)
        if not _may_take_on(str(made.target["RoleArn"])):
            raise Refusal("ValidationException", "The execution role you provide must allow AWS EventBridge Scheduler to assume the role.")
        self._schedules[call.region, group, name] = made
        self._show(made, "ENABLED")
        if asked.get("State", "ENABLED") == "ENABLED":
            # Never before its second: two clocks that differ by a microsecond would show an end before the time it was set for.
            self._clock.later(made.fires - time.time() + 0.02, lambda: self._fire(made))
        return json_answer({"ScheduleArn": made.arn})

    def _get(self, call: Call) -> Reply:
        one = self._find(call)
        shown = {key: value for key, value in one.document.items() if key not in ("ClientToken", "Name")}
        return json_answer(
            {
                "ActionAfterCompletion": "NONE",
                "ScheduleExpressionTimezone": "UTC",
                "State": "ENABLED",
                **shown,
                "Arn": one.arn,
                "Name": one.name,
                "GroupName": one.group,
                "CreationDate": int(one.made),
                "LastModificationDate": int(one.made),
            }
        )

    def _delete(self, call: Call) -> Reply:
        self._forget(self._find(call))
        return json_answer({})

    def _find(self, call: Call) -> _Schedule:
        group, name = call.params.get("groupName", "default"), _name(call)
        if (call.region, group, name) not in self._schedules:
            raise Refusal("ResourceNotFoundException", f"Schedule {name} does not exist.", 404)
        return self._schedules[call.region, group, name]

    def _list(self, call: Call) -> Reply:
        group, prefix = call.params.get("ScheduleGroup"), call.params.get("NamePrefix", "")
        if group is not None:
            self._group(call, group)
        after = call.params.get("NextToken", "")
        found = [
            one
            for key, one in sorted(self._schedules.items())
            if key[0] == call.region and group in (None, key[1]) and key[2].startswith(prefix) and f"{key[1]}/{key[2]}" > after
        ]
        most = min(int(call.params.get("MaxResults", 100)), 100)
        page: dict[str, Any] = {
            "Schedules": [
                {
                    "Arn": one.arn,
                    "Name": one.name,
                    "GroupName": one.group,
                    "State": one.document.get("State", "ENABLED"),
                    "Target": {"Arn": one.target["Arn"]},
                    "CreationDate": int(one.made),
                    "LastModificationDate": int(one.made),
                }
                for one in found[:most]
            ]
        }
        if len(found) > most:
            page["NextToken"] = f"{found[most - 1].group}/{found[most - 1].name}"
        return json_answer(page)

    def _fire(self, one: _Schedule) -> None:
        with self._lock:
            if self._schedules.get((one.region, one.group, one.name)) is not one:
                return  # it was deleted
            one.tries += 1
            try:
                self._terminate(one)
            except Refusal as no:
                self._failed(one, no)
            else:
                self._show(one, "fired")
                self._complete(one)

    def _terminate(self, one: _Schedule) -> None:
        role = str(one.target["RoleArn"])
        if not _may_take_on(role):
            raise Refusal("AccessDenied", f"{SERVICE} may not take on {role}", 403)
        ids = json.loads(one.target["Input"])["InstanceIds"]
        params = {"Action": "TerminateInstances", **{f"InstanceId.{n}": id for n, id in enumerate(ids, 1)}}
        self._act(Call("ec2", one.region, "TerminateInstances", params, "ec2", b"", {}, f"{SERVICE} {role}", by="schedule"))

    def _failed(self, one: _Schedule, no: Refusal) -> None:
        retry = one.target.get("RetryPolicy", {})
        tries, age = int(retry.get("MaximumRetryAttempts", MOST_TRIES)), int(retry.get("MaximumEventAgeInSeconds", MOST_AGE_S))
        pause = min(2.0 ** (one.tries - 1), LONGEST_PAUSE_S)
        if one.tries <= tries and time.time() + pause - one.fires < age:
            self._show(one, f"retrying: {no.code}")
            self._clock.later(pause, lambda: self._fire(one))
            return
        self._show(one, f"failed: {no.code}")
        if queue := one.target.get("DeadLetterConfig", {}).get("Arn"):
            _to_queue(str(queue), one, no)
        self._complete(one)

    def _complete(self, one: _Schedule) -> None:
        if one.document.get("ActionAfterCompletion", "NONE") == "DELETE":
            self._forget(one)

    def _forget(self, one: _Schedule) -> None:
        del self._schedules[one.region, one.group, one.name]
        self._truth.note("schedule", one.name, one.region, _lease(one.name), "gone", gone=True)

    def _show(self, one: _Schedule, state: str) -> None:
        detail = {"fires": int(one.fires), "tries": one.tries, "input": one.target["Input"]}
        self._truth.note("schedule", one.name, one.region, _lease(one.name), state, detail)


def _name(call: Call) -> str:
    name = call.params.get("Name", "")
    if not _NAME.fullmatch(name):
        raise Refusal("ValidationException", f"Invalid name {name!r}: 1 to 64 of letters, digits, '-', '_' and '.'")
    return name


def _lease(name: str) -> str:
    found = _LEASE.match(name)
    return found[0] if found else ""


def _described_group(name: str, group: _Group) -> dict[str, Any]:
    return {"Arn": group.arn, "Name": name, "State": "ACTIVE", "CreationDate": int(group.made), "LastModificationDate": int(group.made)}


def _checked(asked: Mapping[str, Any]) -> float:
    """When it fires; a Refusal for what AWS would not take, or the rehearsal cannot do."""
    target, retry = asked.get("Target") or {}, (asked.get("Target") or {}).get("RetryPolicy", {})
    for what, value, least, most in (
        ("MaximumEventAgeInSeconds", retry.get("MaximumEventAgeInSeconds", 60), 60, MOST_AGE_S),
        ("MaximumRetryAttempts", retry.get("MaximumRetryAttempts", 0), 0, MOST_TRIES),
    ):
        if not isinstance(value, int) or not least <= value <= most:
            raise Refusal("ValidationException", f"{what} is {value}; it must be {least} to {most}")
    if not re.fullmatch(r"arn:aws:iam::\d{12}:role/[\w+=,.@/-]+", str(target.get("RoleArn", ""))):
        raise Refusal("ValidationException", "Target.RoleArn is not the ARN of a role")
    if (asked.get("FlexibleTimeWindow") or {}).get("Mode") not in ("OFF", "FLEXIBLE"):
        raise Refusal("ValidationException", "FlexibleTimeWindow.Mode must be OFF or FLEXIBLE")
    if asked.get("ActionAfterCompletion", "NONE") not in ("NONE", "DELETE"):
        raise Refusal("ValidationException", "ActionAfterCompletion must be NONE or DELETE")
    if asked["FlexibleTimeWindow"]["Mode"] != "OFF" or target.get("Arn") != TERMINATE:
        raise Refusal("UnsupportedOperation", f"the rehearsal schedules only {TERMINATE}, without a flexible window")
    expression, zone = str(asked.get("ScheduleExpression", "")), str(asked.get("ScheduleExpressionTimezone", "UTC"))
    if expression.startswith(("rate(", "cron(")):
        raise Refusal("UnsupportedOperation", f"the rehearsal schedules at(…) only, not {expression}")
    try:
        ids = json.loads(target["Input"])["InstanceIds"]
        moment = datetime.fromisoformat(_AT.fullmatch(expression)[1])  # type: ignore[index]
        fires = moment.replace(tzinfo=UTC if zone == "UTC" else ZoneInfo(zone)).timestamp()
    except (KeyError, TypeError, ValueError, OSError) as e:
        raise Refusal("ValidationException", f"Invalid Schedule Expression {expression} in {zone}, or invalid Input: {e}") from e
    if not isinstance(ids, list) or not ids:
        raise Refusal("ValidationException", "Target.Input names no InstanceIds")
    return fires


def _may_take_on(role: str) -> bool:
    found = role_documents(role)
    return found is not None and policy.trusts(found[0], SERVICE, {"aws:sourceaccount": [engine.ACCOUNT]})


def _to_queue(queue: str, one: _Schedule, no: Refusal) -> None:
    """As AWS leaves it: the target's input, with the reason in the message's attributes. A queue that is not there loses it."""
    region, name = queue.split(":")[3], queue.rpartition(":")[2]
    documents = role_documents(str(one.target["RoleArn"]))
    if documents is None or not policy.allows(documents[1], policy.Ask("sqs:SendMessage", queue)):
        return
    said = {
        "ERROR_CODE": no.code,
        "ERROR_MESSAGE": no.message,
        "RETRY_ATTEMPTS": str(one.tries - 1),
        "SCHEDULE_ARN": one.arn,
        "TARGET_ARN": TERMINATE,
    }
    message = {
        "QueueUrl": f"https://sqs.{region}.amazonaws.com/{engine.ACCOUNT}/{name}",
        "MessageBody": str(one.target["Input"]),
        "MessageAttributes": {key: {"DataType": "String", "StringValue": value} for key, value in said.items()},
    }
    engine.ask(Call("sqs", region, "SendMessage", {}, "json", json.dumps(message).encode()))
