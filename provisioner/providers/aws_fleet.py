"""The guard that is armed by the launch itself: an EC2 Fleet that makes one machine, and ends both at a time said when it was asked for.

`ValidUntil` with `TerminateInstancesWithExpiration` needs nothing of ours once CreateFleet was answered, or even when the answer was lost:
no schedule, no role that `init` makes, no machine that can still switch itself off. What it needs is the role that AWS itself
makes for fleets, once per account. Of the three types only `request` will do: `maintain` replaces what goes, and of `instant`
nobody says that it ends. The machine comes a moment later, described by a launch template, so tags and user-data are in that.

*It may make a machine for as long as it is there*: AWS says that a fleet which could have none tries again, and what one does after
its machine went is promised for spot machines only. So it is asked to go before its machine, and before the next offer is asked for.

Why it made none stands in its history, as text. Only a code of EC2's own that is found there is believed.
This file must not know when to let go.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from provisioner import times
from provisioner.clean import clean
from provisioner.errors import NoCapacity, NotCreated, NotPermitted, ProviderError, RefusedError
from provisioner.model import LaunchSpec, Resource
from provisioner.providers.aws_client import Account, instant
from provisioner.providers.aws_errors import CAPACITY, DENIED, REFUSED, REFUSED_FAMILIES, not_found
from provisioner.providers.aws_inventory import KINDS
from provisioner.providers.aws_kind import FLEET_ID, resource
from provisioner.providers.aws_launch import dollars, tags
from provisioner.secret import Secret

TEMPLATE, KIND = "launch-template", "fleet"
LATE_S = times.REAL.fleet_late_s
ROLE, ROLE_PATH, SERVICE = "AWSServiceRoleForEC2Fleet", "/aws-service-role/ec2fleet.amazonaws.com/", "ec2fleet.amazonaws.com"
CANNOT_TAG = frozenset({"network-interface"})
"""What the fleet's role may not tag (AWS's policy AWSEC2FleetServiceRolePolicy): asked for, the launch would be refused."""

OTHER_WORDS = {
    "iamFleetRoleInvalid": "UnauthorizedOperation",
    "spotFleetRequestConfigurationInvalid": "InvalidParameterValue",
    "spotInstanceCountLimitExceeded": "MaxSpotInstanceCountExceeded",
}
"""Sub-types of a fleet's events that say by themselves that it is the request, and not the offer, that cannot be had."""


def ends_at(deadline: str, account: Account) -> datetime:
    """Four minutes after the deadline, in whole seconds; a rehearsal may shorten that."""
    late_s = times.of(account.endpoint is not None).fleet_late_s
    return datetime.fromtimestamp(int(datetime.fromisoformat(deadline).timestamp()) + late_s, UTC)


def machine_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """RunInstances' parameters, less what a fleet decides itself or its role may not do: what its machine has to be."""
    made = {key: value for key, value in parameters.items() if key not in ("ClientToken", "MinCount", "MaxCount")}
    made["TagSpecifications"] = [one for one in made["TagSpecifications"] if one["ResourceType"] not in CANNOT_TAG]
    return made


def template_parameters(spec: LaunchSpec, lease: str, token: str, machine: Mapping[str, Any]) -> dict[str, Any]:
    """CreateLaunchTemplate. How it is bought is the fleet's to say, and user-data is not encoded for us here."""
    data = {key: value for key, value in machine.items() if key != "InstanceMarketOptions"}
    if "UserData" in data:
        data["UserData"] = Secret(base64.b64encode(data["UserData"].reveal_bytes()))
    return {
        "ClientToken": token,
        "LaunchTemplateName": f"gpulease-{lease}-{token.split('-')[1] if '-' in token else 0}",
        "LaunchTemplateData": data,
        "TagSpecifications": [{"ResourceType": TEMPLATE, "Tags": tags(lease, spec.deadline)}],
    }


def fleet_parameters(spec: LaunchSpec, lease: str, token: str, template: str, ends: datetime) -> dict[str, Any]:
    """CreateFleet: one machine, of one template, as it is bought, and the end of both."""
    config: dict[str, Any] = {"LaunchTemplateSpecification": {"LaunchTemplateId": template, "Version": "1"}}
    asked: dict[str, Any] = {
        "ClientToken": token,
        "Type": "request",
        "ValidUntil": ends,
        "TerminateInstancesWithExpiration": True,
        "LaunchTemplateConfigs": [config],
        "TargetCapacitySpecification": {
            "TotalTargetCapacity": 1,
            "DefaultTargetCapacityType": "spot" if spec.offer.spot else "on-demand",
        },
        "TagSpecifications": [{"ResourceType": KIND, "Tags": tags(lease, spec.deadline)}],
    }
    if spec.offer.spot:
        config["Overrides"] = [{"MaxPrice": dollars(spec.offer.price.micro_usd_per_hour)}]
        asked["SpotOptions"] = {"AllocationStrategy": "lowest-price", "InstanceInterruptionBehavior": "terminate"}
    return asked


def check_role(account: Account) -> None:
    """RefusedError when the role is not there. Who may not look is not refused: CreateFleet itself would say so, and make nothing."""
    try:
        account.ask("GetRole", service="iam", RoleName=ROLE)
    except NotPermitted:
        return
    except ProviderError as e:
        if not not_found(e):
            raise
        raise RefusedError(
            f"a machine cannot be asked for through a fleet: the account has no role {ROLE}",
            why="AWS makes it once per account, for whoever may; nothing was rented",
            next=f"aws iam create-service-linked-role --aws-service-name {SERVICE}; or without launch.fleet",
        ) from e


def verify(account: Account, fleet: Resource) -> list[str]:
    """Read it back; the differences as sentences."""
    found = account.ask("DescribeFleets", FleetIds=[fleet.id]).data.get("Fleets", [])
    if len(found) != 1:
        raise ProviderError(f"DescribeFleets showed {len(found)} of {fleet.id}; expected 1")
    return differences(found[0], ends_at(str(fleet.facts["deadline"]), account))


def differences(shown: Mapping[str, Any], ends: datetime) -> list[str]:
    """What DescribeFleets shows against what makes it a guard. Absent counts as different."""
    until = shown.get("ValidUntil")
    capacity = shown.get("TargetCapacitySpecification", {})
    seen = {
        "ValidUntil": instant(until) if isinstance(until, datetime) else until,
        "TerminateInstancesWithExpiration": shown.get("TerminateInstancesWithExpiration"),
        "Type": shown.get("Type"),
        "FleetState": shown.get("FleetState"),
        "TotalTargetCapacity": capacity.get("TotalTargetCapacity"),
    }
    wanted = {
        "ValidUntil": instant(ends),
        "TerminateInstancesWithExpiration": True,
        "Type": "request",
        "FleetState": "active",
        "TotalTargetCapacity": 1,
    }
    return [f"{name} is {seen[name]!r}, asked for {value!r}" for name, value in wanted.items() if seen[name] != value]


def made_by(account: Account, fleet: Resource) -> Resource | None:
    """The machine, from the fleet's own list and, because that may lag, from the tag that EC2 gives it. Else why there is none."""
    active = account.ask("DescribeFleetInstances", FleetId=fleet.id).data.get("ActiveInstances", [])
    where: dict[str, Any] = {"Filters": [{"Name": f"tag:{FLEET_ID}", "Values": [fleet.id]}]}
    if active:
        where = {"InstanceIds": [active[0]["InstanceId"]]}
    answer = account.ask("DescribeInstances", **where)
    kind = KINDS["instance"]
    for shown in kind.items(answer.data):
        seen = resource(kind, shown, account.region, answer.stamp())
        told = {name: fleet.facts[name] for name in ("imageName", "imageCreated", "imageOwner", "diskGib") if name in fleet.facts}
        # EC2 gives such a machine a token of its own; ours is the fleet's, which says what it was asked for as.
        return replace(seen, lease=fleet.lease or seen.lease, token=fleet.token, facts={**seen.facts, **told, "fleet": fleet.id})
    _why_none(account, fleet)
    return None


def _why_none(account: Account, fleet: Resource) -> None:
    """NotCreated when its history holds a code that says so. A capacity code is believed only when no other refusal stands beside it."""
    since = datetime.now(UTC) - timedelta(hours=47)  # events are kept for two days
    capacity: ProviderError | None = None
    for answer in account.pages("DescribeFleetHistory", 200, FleetId=fleet.id, StartTime=since):
        for event in answer.data.get("HistoryRecords", []):
            said = event.get("EventInformation", {})
            text = f"{said.get('EventSubType', '')}: {said.get('EventDescription', '')}"
            if (code := code_in(text)) in CAPACITY:
                capacity = NoCapacity(f"{fleet.id}: {clean(text, limit=400)}", why="EC2 says so in the fleet's history", provider_code=code)
            elif code:
                kind = NotCreated if code not in DENIED else _NotAllowed
                raise kind(f"{fleet.id}: {clean(text, limit=400)}", why="EC2 says so in the fleet's history", provider_code=code)
    if capacity is not None:
        raise capacity


def code_in(text: str) -> str:
    """An error code of EC2's that a text holds as a word of its own; one that is no matter of capacity first. "" when there is none."""
    words = re.findall(r"[A-Za-z][A-Za-z.]*[A-Za-z]", text)
    known = [OTHER_WORDS.get(word, word) for word in words]
    refused = [word for word in known if word in REFUSED | DENIED or word.startswith(REFUSED_FAMILIES)]
    return next((word for word in refused if word not in CAPACITY), refused[0] if refused else "")


class _NotAllowed(NotPermitted, NotCreated):
    """The fleet's own role, or an account policy, does not allow the launch."""
