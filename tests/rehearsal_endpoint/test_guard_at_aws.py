"""The guard at AWS with the engine around it: armed after the machine, read back, fires as the role, removed last."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from provisioner import closing, clouds, doctor, drills, guards, ledger, times
from provisioner.errors import RefusedError, RunError
from provisioner.journal import Journal, rfc3339
from provisioner.lease import Lease, hold, release
from provisioner.model import LaunchSpec, Offer, Outcome, Requirements, Verdict
from provisioner.providers import aws_schedule
from provisioner.providers.aws import AwsProvider
from provisioner.providers.aws_client import Account
from provisioner.providers.aws_init import Site
from provisioner.rehearsal import client, policy
from provisioner.rehearsal.client import Rehearsal
from provisioner.scope import SystemClock
from provisioner.secret import Secret
from tests.rehearsal_endpoint.conftest import QUICK, STANDIN, wait_for

REGION, ACCOUNT = "us-east-1", "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/gpulease/gpulease-scheduler"
DEADLINE, TOKEN = "2026-11-21T14:30:00.000Z", "7f3a9k2m-7-0123456789abcdef0123456789abcdef"
NAME = "r-20261121t140210z-7f3a9k2m-7-20261121t143000z"
CLOCK = SystemClock()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    made = client.start(tmp_path_factory.mktemp("cloud"), host_command=STANDIN, idle_exit=900, faults=[{"timing": QUICK}])
    site = Site([Account(REGION, None, made.endpoint)])
    site.make(site.look(), lambda text: None)
    yield made
    made.stop()


@pytest.fixture
def folder(cloud: Rehearsal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ledger.LeaseFolder]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    yield ledger.create({"provider": "aws", "settings": {}})
    cloud.faults(None)
    cloud.faults([{"timing": QUICK}])


@pytest.fixture
def provider(cloud: Rehearsal) -> AwsProvider:
    made = AwsProvider(REGION, endpoint=cloud.endpoint)
    made.check_schedule([REGION])
    return made


def spec(provider: AwsProvider, deadline: float) -> LaunchSpec:
    offer: Offer = provider.offers(Requirements(gpu="L4"))[0]
    return LaunchSpec(offer, 60, rfc3339(float(int(deadline))), Secret("{}"), ingress_cidr="203.0.113.7/32")


def rented(lease: Lease, asked: LaunchSpec) -> None:
    for kind in lease.provider.steps(asked):
        lease.create(kind, asked)


def bodies(folder: ledger.LeaseFolder, kind: str) -> list[dict[str, Any]]:
    return [e["body"] for e in ledger.standing(folder).entries if e["kind"] == kind]


def of(cloud: Rehearsal, id: str) -> dict[str, Any]:
    return next(entry for entry in cloud.truth() if entry["id"] == id)


def test_it_is_armed_read_back_and_removed_once_the_machine_is_seen_gone(
    cloud: Rehearsal, provider: AwsProvider, folder: ledger.LeaseFolder
) -> None:
    before = len(cloud.log())
    cloud.faults([{"timing": {"stopping_s": 1.5}}])  # long enough that whoever does not wait is seen
    drills.add(drills.Drill(ACCOUNT, REGION, "schedule", "2026-11-01T10:00:00Z", 2, True))
    with Journal(folder.journal, CLOCK) as journal:
        journal.append("genesis", {"lease": folder.id, "provider": "aws", "simulated": True})
        with hold(folder.id, provider, journal, CLOCK, patience=30) as lease:
            asked = spec(provider, time.time() + 3600)
            rented(lease, asked)
            said = guards.arm_schedule(lease, asked, (), time.sleep)
            machine, schedule = lease.made["instance"].id, lease.made["schedule"].id
        assert lease.verdict is Verdict.RELEASED
    assert machine in said and len(schedule) <= 64 and schedule.startswith(f"{folder.id}-")
    armed, back = bodies(folder, "guard")
    assert (armed["state"], back["state"]) == ("armed", "read-back")
    assert armed["firesAt"] == back["firesAt"] == rfc3339(int(datetime.fromisoformat(asked.deadline).timestamp()) + 180.0)[:19] + "Z"
    assert armed["drilled"] == {"date": "2026-11-01T10:00:00Z", "region": REGION, "secondsLate": 2}
    [deleted] = [entry for entry in cloud.log()[before:] if entry["action"] == "DeleteSchedule"]
    assert deleted["at"] >= of(cloud, machine)["gone"], "the guard stands until the machine is gone"
    assert of(cloud, schedule)["gone"] and {"class": "schedule", "op": "remove"}.items() <= bodies(folder, "done")[-1].items()


def test_it_ends_a_machine_that_nobody_looks_after(
    cloud: Rehearsal, provider: AwsProvider, folder: ledger.LeaseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(times.NAME, '{"schedule_late_s": 1}')
    with Journal(folder.journal, CLOCK) as journal:
        journal.append("genesis", {"lease": folder.id, "provider": "aws", "simulated": True})
        lease = Lease(folder.id, provider, journal, CLOCK)
        asked = spec(provider, time.time() + 3)
        rented(lease, asked)
        guards.arm_schedule(lease, asked, (), time.sleep)
        machine = lease.made["instance"].id
        ended = wait_for(lambda: entry if (entry := of(cloud, machine))["gone"] else None)
        assert ended["by"] == "schedule"
        # Kept after it fired, and taken away by whoever comes back.
        assert of(cloud, lease.made["schedule"].id)["state"] == "fired"
        assert release(folder.id, provider, journal, CLOCK, patience=30) is Verdict.RELEASED
        assert of(cloud, lease.made["schedule"].id)["gone"]
    assert closing.ended_by(ledger.standing(folder).entries) is Outcome.GUARD_FIRED


@pytest.mark.parametrize(
    ("action", "words"),
    [("CreateSchedule", "AccessDeniedException"), ("GetSchedule", "it could not be read back"), ("CreateSchedule", "Conflict")],
)
def test_one_that_is_not_armed_or_cannot_be_read_back_lets_go_of_the_machine(
    action: str, words: str, cloud: Rehearsal, provider: AwsProvider, folder: ledger.LeaseFolder
) -> None:
    code = "ConflictException" if words == "Conflict" else "AccessDeniedException"
    cloud.faults([{"action": action, "kind": "error", "code": code, "times": 1}])
    with Journal(folder.journal, CLOCK) as journal:
        journal.append("genesis", {"lease": folder.id, "provider": "aws", "simulated": True})
        with pytest.raises(RunError) as no, hold(folder.id, provider, journal, CLOCK, patience=40) as lease:
            asked = spec(provider, time.time() + 3600)
            rented(lease, asked)
            guards.arm_schedule(lease, asked, (), time.sleep)
        assert lease.verdict is Verdict.RELEASED
    assert words in no.value.what and "waive: [schedule]" in no.value.next and "guard schedule is not armed" in no.value.what
    assert bodies(folder, "guard")[-1]["state"] == "failed"
    assert of(cloud, lease.made["instance"].id)["gone"]


def test_a_waived_one_is_not_asked_for_and_said_to_be(cloud: Rehearsal, provider: AwsProvider, folder: ledger.LeaseFolder) -> None:
    before = len(cloud.log())
    with Journal(folder.journal, CLOCK) as journal:
        lease = Lease(folder.id, provider, journal, CLOCK)
        assert "waives" in guards.arm_schedule(lease, spec(provider, time.time() + 3600), ("schedule",), time.sleep)
    assert [(b["guard"], b["state"]) for b in bodies(folder, "guard")] == [("schedule", "waived")]
    assert not [entry for entry in cloud.log()[before:] if entry["service"] == "scheduler"]


def test_who_may_not_list_schedules_and_made_one_has_not_looked(
    cloud: Rehearsal, provider: AwsProvider, folder: ledger.LeaseFolder
) -> None:
    provider.traits = replace(provider.traits, settle_s=0.2)  # so that patience is enough for all else
    with Journal(folder.journal, CLOCK) as journal:
        journal.append("genesis", {"lease": folder.id, "provider": "aws", "simulated": True})
        lease = Lease(folder.id, provider, journal, CLOCK)
        asked = spec(provider, time.time() + 3600)
        rented(lease, asked)
        guards.arm_schedule(lease, asked, (), time.sleep)
        cloud.faults([{"action": "ListSchedules", "kind": "error", "code": "AccessDeniedException", "times": None}])
        assert release(folder.id, provider, journal, CLOCK, patience=8) is not Verdict.RELEASED
        cloud.faults(None)
        assert release(folder.id, provider, journal, CLOCK, patience=30) is Verdict.RELEASED


def parameters(**changes: Any) -> dict[str, Any]:
    made = aws_schedule.parameters(NAME, TOKEN, "i-1", aws_schedule.fires_at(DEADLINE), ROLE, REGION)
    return json.loads(json.dumps(made)) | changes  # type: ignore[no-any-return]


def test_what_is_asked_for_is_a_termination_three_minutes_after_the_deadline() -> None:
    asked = parameters()
    assert asked["ScheduleExpression"] == "at(2026-11-21T14:33:00)" and asked["ScheduleExpressionTimezone"] == "UTC"
    assert asked["ActionAfterCompletion"] == "NONE" and asked["FlexibleTimeWindow"] == {"Mode": "OFF"}
    target = asked["Target"]
    assert target["Arn"] == "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances" and json.loads(target["Input"]) == {"InstanceIds": ["i-1"]}
    assert target["RetryPolicy"] == {"MaximumEventAgeInSeconds": 86_400, "MaximumRetryAttempts": 185}
    assert aws_schedule.name_of("r-20261121t140210z-7f3a9k2m", TOKEN, DEADLINE) == NAME == asked["Name"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("ScheduleExpression", "at(2026-11-21T15:33:00)"),
        ("ScheduleExpressionTimezone", "Europe/Rome"),
        ("State", "DISABLED"),
        ("Target.RoleArn", "arn:aws:iam::123456789012:role/other"),
        ("Target.Input", '{"InstanceIds": ["i-2"]}'),
        ("Target.Arn", "arn:aws:scheduler:::aws-sdk:ec2:stopInstances"),
        ("Target.DeadLetterConfig", None),
        ("ActionAfterCompletion", "DELETE"),
    ],
)
def test_any_difference_that_is_read_back_is_a_sentence(path: str, value: Any) -> None:
    shown = parameters()
    assert aws_schedule.differences(parameters(), shown) == []
    *outer, last = path.split(".")
    at = shown[outer[0]] if outer else shown
    at[last] = value
    [sentence] = aws_schedule.differences(parameters(), shown)
    assert path in sentence and "asked for" in sentence


def test_the_role_may_end_what_carries_our_tag_and_nothing_else() -> None:
    documents = [policy.check(aws_schedule.permissions(ACCOUNT))]
    machine = f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/i-1"
    ours = {"aws:resourcetag/gpulease:managed": ["true"]}
    assert policy.allows(documents, policy.Ask("ec2:TerminateInstances", machine, ours))
    assert not policy.allows(documents, policy.Ask("ec2:TerminateInstances", machine))
    assert not policy.allows(documents, policy.Ask("ec2:StopInstances", machine, ours))
    assert not policy.allows(documents, policy.Ask("sqs:SendMessage", f"arn:aws:sqs:{REGION}:{ACCOUNT}:another"))


def test_only_the_scheduler_of_this_account_may_take_the_role_on() -> None:
    trust = policy.check(aws_schedule.trust(ACCOUNT))
    assert policy.trusts(trust, "scheduler.amazonaws.com", {"aws:sourceaccount": [ACCOUNT]})
    assert not policy.trusts(trust, "scheduler.amazonaws.com", {"aws:sourceaccount": ["210987654321"]})
    assert not policy.trusts(trust, "ec2.amazonaws.com", {"aws:sourceaccount": [ACCOUNT]})


def test_a_region_that_was_not_prepared_is_refused_with_the_command_that_prepares_it(cloud: Rehearsal) -> None:
    with pytest.raises(RefusedError) as no:
        AwsProvider("eu-west-1", endpoint=cloud.endpoint).check_schedule(["eu-west-1"])
    assert no.value.next.startswith(f"gpulease init aws --region eu-west-1 --endpoint {cloud.endpoint}")


def test_a_schedule_may_fire_until_its_last_try_is_a_day_old() -> None:
    fires = datetime(2026, 11, 21, 14, 33, tzinfo=UTC).timestamp()
    assert aws_schedule.still_may_fire(NAME, fires + 86_399) and not aws_schedule.still_may_fire(NAME, fires + 86_401)
    assert aws_schedule.still_may_fire("somebody-elses", fires + 1e9), "nothing is known of it"


def test_init_is_not_undone_while_a_schedule_may_still_have_a_machine_to_end(
    cloud: Rehearsal, provider: AwsProvider, folder: ledger.LeaseFolder
) -> None:
    site = Site([Account(REGION, None, cloud.endpoint)])
    with Journal(folder.journal, CLOCK) as journal:
        journal.append("genesis", {"lease": folder.id, "provider": "aws", "simulated": True})
        with hold(folder.id, provider, journal, CLOCK, patience=30) as lease:
            asked = spec(provider, time.time() + 3600)
            rented(lease, asked)
            guards.arm_schedule(lease, asked, (), time.sleep)
            with pytest.raises(RefusedError, match="may still have a machine to end"):
                site.remove(site.look(), lambda text: None)
            assert {piece.state for piece in site.look()} == {"there"}


def test_a_boundary_around_the_role_is_a_doubt_that_a_run_init_and_doctor_say(cloud: Rehearsal, tmp_path: Path) -> None:
    account, told = Account(REGION, None, cloud.endpoint), list[str]()
    boundary = f"arn:aws:iam::{ACCOUNT}:policy/no-ec2"
    account.change("PutRolePermissionsBoundary", service="iam", RoleName=aws_schedule.ROLE, PermissionsBoundary=boundary)
    try:
        target = clouds.Target("smoke", None, None, None, REGION, None, None, None, None, True, endpoint=cloud.endpoint)
        with clouds.planned(target) as ready:
            clouds.launching(target, ready, told.append)
        [role] = [piece.detail for piece in Site([account]).look() if piece.what == "role"]
        for said in (*told, role, doctor._prepared(AwsProvider(REGION, endpoint=cloud.endpoint))):
            assert boundary in said and "the schedule ends nothing" in said and "gpulease drill --live" in said
        assert len(told) == 1
    finally:
        account.change("DeleteRolePermissionsBoundary", service="iam", RoleName=aws_schedule.ROLE)


def test_init_that_stops_half_way_says_what_stands_and_goes_on_from_there(cloud: Rehearsal) -> None:
    site = Site([Account("eu-central-1", None, cloud.endpoint)])
    cloud.faults([{"action": "CreateScheduleGroup", "kind": "error", "code": "AccessDeniedException", "times": 1}])
    with pytest.raises(RunError) as no:
        site.make(site.look(), lambda text: None)
    assert "queue gpulease-schedules in eu-central-1" in no.value.why and "gpulease init aws --region eu-central-1" in no.value.next
    made = site.make(site.look(), lambda text: None)
    assert [str(piece) for piece in made] == ["schedule group gpulease in eu-central-1"]
    assert site.make(site.look(), lambda text: None) == ()


def test_a_group_of_that_name_that_is_not_ours_is_left_alone(cloud: Rehearsal) -> None:
    account = Account("eu-west-2", None, cloud.endpoint)
    account.create("CreateScheduleGroup", service="scheduler", Name="gpulease")
    site = Site([account])
    [group] = [piece for piece in site.look() if piece.what == "schedule group"]
    assert group.state == "not ours" and "gpulease:managed" in group.detail
    site.remove(site.look(), lambda text: None)
    assert account.ask("GetScheduleGroup", service="scheduler", Name="gpulease").data["State"] == "ACTIVE"
