"""Every API action that gpulease asks permission for: in which policy it stands, why, and what happens without it.

The one list. The policies are printed from it (aws_policy), docs/iam.md is made from it (tools/docs.py), a test compares it with
the calls in the source, and another with what a rehearsed life asked for: no more, no less. An action with `without` is
optional: then the run goes on and says what it could not see; without any other one a named step stops.

Five policies: `runner` rents, watches and lets go; `reaper` finds and lets go of what others forgot; `scheduler-role` is what the
schedule at AWS acts with; `init` is for the person who prepares an account, once; `auditor` asks for records and bills afterwards.
This file must not know ARNs or conditions.
"""

from __future__ import annotations

from dataclasses import dataclass

RUNNER, REAPER, ROLE, INIT, AUDITOR = "runner", "reaper", "scheduler-role", "init", "auditor"
POLICIES = {
    RUNNER: "rents, watches, lets go",
    REAPER: "finds what is overdue, and lets go of it",
    ROLE: "what the schedule at AWS acts with; `gpulease init aws` makes it",
    INIT: "prepares an account, once, by hand",
    AUDITOR: "adds to a proof what AWS itself recorded and billed; only asks",
}


@dataclass(frozen=True)
class Action:
    name: str  # "ec2:RunInstances"
    policies: tuple[str, ...]
    why: str
    without: str = ""  # "": it is needed


_BOTH = (RUNNER, REAPER)
_UNSEEN = "these kinds are not looked at, and the proof says so"
_FLEET = "needed only with `launch.fleet`; in the policy only with `--fleet`"
_BUCKET = "the proof is recorded at most, not corroborated; in the policy only with `--bucket`"
_ENDPOINT, _SSM = "needed only with `launch.reach: endpoint`", "needed only with `launch.reach: ssm`"
_STAYS = "such a thing stays, and the verdict says so; it is no kind that we make"

FLEET_ONLY = ("ec2:CreateLaunchTemplate", "ec2:CreateFleet", "ec2:DescribeFleetInstances", "ec2:DescribeFleetHistory")
BUCKET_ONLY = ("s3:ListBucket", "s3:GetObject")
OF_FLEETS = ("DescribeFleets", "DescribeLaunchTemplates", "DeleteFleets", "DeleteLaunchTemplate")


def _why(call: str, person: str) -> str:
    return f"what a launch through a fleet made, or a person {person}" if call in OF_FLEETS else f"what a person {person}"


def _or(call: str, without: str) -> str:
    if call not in OF_FLEETS:
        return without
    return f"needed with `launch.fleet`; else {_UNSEEN if without == _UNSEEN else 'such a thing stays'}"


LOOKS_FOR = (
    "DescribeAddresses",
    "DescribeCapacityReservationFleets",
    "DescribeCapacityReservations",
    "DescribeFleets",
    "DescribeHosts",
    "DescribeKeyPairs",
    "DescribeLaunchTemplates",
    "DescribeNatGateways",
    "DescribePlacementGroups",
    "DescribeSnapshots",
    "DescribeSpotFleetRequests",
    "DescribeSpotInstanceRequests",
    "DescribeVpcEndpoints",
)
WOULD_REMOVE = (
    "CancelCapacityReservation",
    "CancelCapacityReservationFleets",
    "CancelSpotFleetRequests",
    "CancelSpotInstanceRequests",
    "DeleteFleets",
    "DeleteInstanceConnectEndpoint",
    "DeleteKeyPair",
    "DeleteLaunchTemplate",
    "DeleteNatGateway",
    "DeletePlacementGroup",
    "DeleteSnapshot",
    "DeleteVpcEndpoints",
    "DeregisterImage",
    "ReleaseAddress",
    "ReleaseHosts",
)

ACTIONS = (
    Action(
        "sts:GetCallerIdentity",
        (RUNNER, REAPER, INIT, AUDITOR),
        "which account this is, and whether the login works",
        "AWS grants it to all",
    ),
    Action("ec2:DescribeRegions", (REAPER, INIT), "in which regions to look"),
    Action("ec2:DescribeInstanceTypeOfferings", (RUNNER,), "in which zones a type is offered", "offers name no zone"),
    Action("ec2:DescribeInstanceTypes", (RUNNER,), "what a type has", "the types of the shipped catalog"),
    Action("ec2:DescribeSpotPriceHistory", (RUNNER,), "what the spot market asks", "the market's price is unknown; only for spot"),
    Action("pricing:GetProducts", (RUNNER,), "list prices of today", "the dated prices that ship with gpulease, for us-east-1 alone"),
    Action("servicequotas:GetServiceQuota", (RUNNER,), "is there a vCPU quota for it?", "quotas are unknown"),
    Action("ec2:DescribeImages", _BOTH, "the image's disk and owner; images that a person tagged"),
    Action("ssm:GetParameter", (RUNNER,), "the newest GPU image", "the image is looked for by its name"),
    Action("ec2:DescribeInstanceConnectEndpoints", _BOTH, "the way in through an endpoint", _ENDPOINT),
    Action("ec2-instance-connect:OpenTunnel", (RUNNER,), "the way in through an endpoint; the `aws` program calls it", _ENDPOINT),
    Action("ssm:StartSession", (RUNNER,), "the way in through Session Manager; the `aws` program calls it", _SSM),
    Action("ec2:DescribeSubnets", (RUNNER,), "where an interface can be"),
    Action("ec2:CreateSecurityGroup", (RUNNER,), "port 22 from one address; not with a group of your own"),
    Action("ec2:AuthorizeSecurityGroupIngress", (RUNNER,), "port 22 from one address; not with a group of your own"),
    Action("ec2:RunInstances", (RUNNER,), "the machine"),
    Action("ec2:CreateLaunchTemplate", (RUNNER,), "what a fleet makes its machine from", _FLEET),
    Action("ec2:CreateFleet", (RUNNER,), "the machine, with an end that EC2 keeps", _FLEET),
    Action("ec2:DescribeFleetInstances", (RUNNER,), "which machine a fleet made", _FLEET),
    Action("ec2:DescribeFleetHistory", (RUNNER,), "why a fleet made none", _FLEET),
    Action("ec2:CreateTags", (RUNNER,), "tags at birth; AWS asks for it, it is never called"),
    Action("ec2:DescribeInstanceAttribute", (RUNNER,), "reads the launch back: does power-off terminate it?"),
    Action("ec2:DescribeInstances", _BOTH, "what is there"),
    Action("ec2:DescribeVolumes", _BOTH, "what is there"),
    Action("ec2:DescribeNetworkInterfaces", _BOTH, "what is there"),
    Action("ec2:DescribeSecurityGroups", _BOTH, "what is there"),
    Action("ec2:TerminateInstances", (*_BOTH, ROLE), "ends the machine"),
    Action("ec2:DeleteVolume", _BOTH, "a disk that did not go with its machine"),
    Action("ec2:DeleteNetworkInterface", _BOTH, "an interface that did not go with its machine"),
    Action("ec2:DeleteSecurityGroup", _BOTH, "the lease's group"),
    *(Action(f"ec2:{call}", _BOTH, _why(call, "may have tagged"), _or(call, _UNSEEN)) for call in LOOKS_FOR),
    *(Action(f"ec2:{call}", _BOTH, _why(call, "tagged as the lease's"), _or(call, _STAYS)) for call in WOULD_REMOVE),
    Action("iam:GetRole", (RUNNER, INIT), "is the scheduled termination's role there, and trusted right?"),
    Action("iam:GetRolePolicy", (RUNNER, INIT), "may that role do what it must, and no more?"),
    Action("iam:PassRole", (RUNNER,), "lets the schedule act as that role; AWS asks for it, it is never called"),
    Action("scheduler:GetScheduleGroup", (RUNNER, INIT), "is there a place for the schedule?"),
    Action("scheduler:CreateSchedule", (RUNNER,), "arms the guard at AWS"),
    Action("scheduler:GetSchedule", _BOTH, "reads that guard back"),
    Action("scheduler:ListSchedules", (*_BOTH, INIT), "which guards are still armed"),
    Action("scheduler:DeleteSchedule", _BOTH, "takes the guard away once the machine is seen gone"),
    Action("sqs:SendMessage", (ROLE,), "leaves word of a termination that failed"),
    Action("iam:CreateRole", (INIT,), "makes the role"),
    Action("iam:TagRole", (INIT,), "tags it at birth; AWS asks for it, it is never called"),
    Action("iam:UpdateAssumeRolePolicy", (INIT,), "puts right who may take it on"),
    Action("iam:PutRolePolicy", (INIT,), "says what it may do"),
    Action("iam:DeleteRolePolicy", (INIT,), "--remove"),
    Action("iam:DeleteRole", (INIT,), "--remove"),
    Action("scheduler:CreateScheduleGroup", (INIT,), "makes the group"),
    Action("scheduler:TagResource", (INIT,), "tags it at birth; AWS asks for it, it is never called"),
    Action("scheduler:ListTagsForResource", (INIT,), "is that group ours?"),
    Action("scheduler:DeleteScheduleGroup", (INIT,), "--remove"),
    Action("sqs:GetQueueUrl", (INIT,), "is the queue there?"),
    Action("sqs:GetQueueAttributes", (INIT,), "is the queue as it should be?"),
    Action("sqs:ListQueueTags", (INIT,), "is that queue ours?"),
    Action("sqs:CreateQueue", (INIT,), "makes the queue"),
    Action("sqs:TagQueue", (INIT,), "tags it at birth; AWS asks for it, it is never called"),
    Action("sqs:SetQueueAttributes", (INIT,), "puts the queue right"),
    Action("sqs:DeleteQueue", (INIT,), "--remove"),
    Action("cloudtrail:LookupEvents", (AUDITOR,), "what AWS recorded of a run's calls"),
    Action("cloudtrail:DescribeTrails", (AUDITOR,), "is there a trail with digests?", "the proof is recorded at most, not corroborated"),
    Action("s3:ListBucket", (AUDITOR,), "the trail's digests", _BUCKET),
    Action("s3:GetObject", (AUDITOR,), "the trail's digests and log files", _BUCKET),
    Action("ce:GetCostAndUsageWithResources", (AUDITOR,), "what was billed for a machine; a cent a call", "no bill beside the proof"),
    Action("cloudtrail:ListPublicKeys", (AUDITOR,), "the keys that digests are signed with", "bring them with --cloudtrail-keys"),
)


def of(policy: str) -> list[str]:
    return [action.name for action in ACTIONS if policy in action.policies]
