"""What a call asks permission for, and whether the caller has it: the actions, resources and condition keys of each.

EC2 asks about every resource that a call touches: a launch about the instance, its disks, interfaces and group, the image
and the subnet, each with the tags it has or is to be born with, and once more about tagging (`ec2:CreateTags` with
`ec2:CreateAction`). Making a schedule also asks to pass its role on. The keys are those of the Service Authorization
Reference that gpulease's policies use; a call that is not listed here is asked for on `*` with the global keys.

Off until a policy is handed over (`POST /_rehearsal/policy`); what schedules do is always decided by their role. The refusal
has AWS's words, and on EC2 a blob behind them, which there only `sts:DecodeAuthorizationMessage` can read.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from provisioner.rehearsal import engine, policy
from provisioner.rehearsal.policy import Ask, Document
from provisioner.rehearsal.wire import Call, Refusal, numbered_groups

CALLER = f"arn:aws:iam::{engine.ACCOUNT}:user/rehearsal"
_Asks = Callable[[Call], Iterator[Ask]]
_NO_PERMISSION_NEEDED = ("sts:GetCallerIdentity",)
_BY_ID = {  # action -> (kind in the ARN, the parameter or its prefix)
    "TerminateInstances": ("instance", "InstanceId"),
    "StopInstances": ("instance", "InstanceId"),
    "StartInstances": ("instance", "InstanceId"),
    "DescribeInstanceAttribute": ("instance", "InstanceId"),
    "DeleteVolume": ("volume", "VolumeId"),
    "DeleteNetworkInterface": ("network-interface", "NetworkInterfaceId"),
    "DeleteSecurityGroup": ("security-group", "GroupId"),
    "AuthorizeSecurityGroupIngress": ("security-group", "GroupId"),
    "DeleteSnapshot": ("snapshot", "SnapshotId"),
    "DeleteLaunchTemplate": ("launch-template", "LaunchTemplateId"),
    "DeleteFleets": ("fleet", "FleetId"),
    "DeleteKeyPair": ("key-pair", "KeyPairId"),
    "ReleaseAddress": ("elastic-ip", "AllocationId"),
    "CancelSpotInstanceRequests": ("spot-instances-request", "SpotInstanceRequestId"),
}


def require(call: Call, documents: Sequence[Document], who: str = CALLER) -> list[str]:
    """The actions that the call asks for; a Refusal, in AWS's words, unless those policies allow them all."""
    wanted = list(asks(call))
    denied = policy.first_denied(documents, wanted)
    if denied is None or denied.action in _NO_PERMISSION_NEEDED:
        return list(dict.fromkeys(ask.action for ask in wanted))
    words = f"User: {who} is not authorized to perform: {denied.action} on resource: {denied.resource}"
    words += f" because no identity-based policy allows the {denied.action} action"
    if call.service != "ec2":
        raise Refusal("AccessDenied" if call.protocol == "query" else "AccessDeniedException", words, 403)
    blob = base64.b64encode(zlib.compress(json.dumps({"action": denied.action, "resource": denied.resource}).encode())).decode()
    words = f"You are not authorized to perform this operation. {words}. Encoded authorization failure message: {blob}"
    raise Refusal("UnauthorizedOperation", words, 403)


def role_documents(arn: str) -> tuple[Document, list[Document]] | None:
    """A role's trust policy and its inline policies; None when there is no such role."""
    from moto.iam.models import iam_backends

    for role in iam_backends[engine.ACCOUNT]["aws"].get_roles():
        if role.arn == arn:
            return _document(role.assume_role_policy_document), [_document(text) for text in role.policies.values()]
    return None


def asks(call: Call) -> Iterator[Ask]:
    """Everything that this call needs a yes for."""
    everywhere = {"aws:requestedregion": [call.region]}
    ec2: dict[str, _Asks] = {
        "RunInstances": _launch,
        "CreateSecurityGroup": _group,
        "CreateLaunchTemplate": _template,
        "CreateFleet": _fleet,
    }
    others: dict[str, _Asks] = {"scheduler": _schedule, "iam": _role, "sqs": _queue, "ssm": _ssm, "s3": _file}
    others["ec2-instance-connect"] = _tunnel
    make = ec2.get(call.action, _by_id) if call.service == "ec2" else others.get(call.service, _plain)
    for ask in make(call):
        yield Ask(ask.action, ask.resource, {**everywhere, **ask.context})


def _file(call: Call) -> Iterator[Ask]:
    key = f"/{call.params['Key']}" if "Key" in call.params else ""
    yield Ask(f"s3:{call.action}", f"arn:aws:s3:::{call.params.get('Bucket', '')}{key}")


def _plain(call: Call) -> Iterator[Ask]:
    yield Ask(f"{call.service}:{call.action}", "*")


def _by_id(call: Call) -> Iterator[Ask]:
    kind, name = _BY_ID.get(call.action, ("", ""))
    ids = [call.params[name]] if name in call.params else call.many(name) if name else []
    if not ids:
        yield from _plain(call)
    for id in ids:
        yield Ask(f"ec2:{call.action}", _arn(call, kind, id), _tags_of(call, id))


def _launch(call: Call) -> Iterator[Ask]:
    action, params = "ec2:RunInstances", call.params
    born, spot = _tags_at_birth(call), params.get("InstanceMarketOptions.MarketType") == "spot"
    type = {"ec2:instancetype": [params.get("InstanceType", "m1.small")], "ec2:markettype": ["spot" if spot else "on-demand"]}
    yield Ask(action, f"arn:aws:ec2:{call.region}::image/{params.get('ImageId', '')}", _tags_of(call, params.get("ImageId", "")))
    for kind in ("instance", "volume", "network-interface"):
        yield Ask(action, _arn(call, kind, "*"), {**(type if kind == "instance" else {}), **_asked_tags(born.get(kind))})
    if spot and "spot-instances-request" in born:  # untagged, EC2 does not ask about it
        yield Ask(action, _arn(call, "spot-instances-request", "*"), _asked_tags(born["spot-instances-request"]))
    interfaces = [fields for _, fields in numbered_groups(params, "NetworkInterface")]
    groups = call.many("SecurityGroupId") + [v for f in interfaces for k, v in f.items() if k.startswith("SecurityGroupId")]
    subnets = [params["SubnetId"]] if "SubnetId" in params else [f["SubnetId"] for f in interfaces if "SubnetId" in f]
    for kind, ids in (("security-group", groups or ["*"]), ("subnet", subnets or ["*"])):
        for id in ids:
            yield Ask(action, _arn(call, kind, id), _tags_of(call, id))
    yield from _tagging(call, born)


def _group(call: Call) -> Iterator[Ask]:
    born, vpc = _tags_at_birth(call), call.params.get("VpcId", "*")
    yield Ask("ec2:CreateSecurityGroup", _arn(call, "security-group", "*"), _asked_tags(born.get("security-group")))
    yield Ask("ec2:CreateSecurityGroup", _arn(call, "vpc", vpc), _tags_of(call, vpc))
    yield from _tagging(call, born)


def _template(call: Call) -> Iterator[Ask]:
    born = _tags_at_birth(call)
    yield Ask("ec2:CreateLaunchTemplate", _arn(call, "launch-template", "*"), _asked_tags(born.get("launch-template")))
    yield from _tagging(call, born)


def _fleet(call: Call) -> Iterator[Ask]:
    """About the fleet and its templates. What it launches later, the service's own role launches: nobody is asked about that."""
    born = _tags_at_birth(call)
    yield Ask("ec2:CreateFleet", _arn(call, "fleet", "*"), _asked_tags(born.get("fleet")))
    for _, config in numbered_groups(call.params, "LaunchTemplateConfigs"):
        id = config.get("LaunchTemplateSpecification.LaunchTemplateId", "*")
        yield Ask("ec2:CreateFleet", _arn(call, "launch-template", id), _tags_of(call, id))
    yield from _tagging(call, born)


def _tagging(call: Call, born: Mapping[str, Mapping[str, str]]) -> Iterator[Ask]:
    for kind, tags in born.items():
        yield Ask("ec2:CreateTags", _arn(call, kind, "*"), {"ec2:createaction": [call.action], **_asked_tags(tags)})


def _schedule(call: Call) -> Iterator[Ask]:
    action, here = f"scheduler:{call.action}", f"arn:aws:scheduler:{call.region}:{engine.ACCOUNT}"
    name = call.params.get("Name", "")
    if call.action.endswith("ScheduleGroup"):
        tags = {tag["Key"]: tag["Value"] for tag in call.document.get("Tags", [])}
        yield Ask(action, f"{here}:schedule-group/{name}", _asked_tags(tags or None))
        if tags:
            yield Ask("scheduler:TagResource", f"{here}:schedule-group/{name}", _asked_tags(tags))
    elif call.action == "ListSchedules":
        yield Ask(action, f"{here}:schedule/{call.params.get('ScheduleGroup', '*')}/*")
    elif name:
        group = call.params.get("groupName" if call.action != "CreateSchedule" else "GroupName", "default")
        yield Ask(action, f"{here}:schedule/{group}/{name}")
        if call.action == "CreateSchedule":
            role = str((call.document.get("Target") or {}).get("RoleArn", ""))
            yield Ask("iam:PassRole", role, {"iam:passedtoservice": ["scheduler.amazonaws.com"]})
    else:
        yield Ask(action, call.params.get("ResourceArn", "*"))


def _role(call: Call) -> Iterator[Ask]:
    from moto.iam.models import iam_backends

    name = call.params.get("RoleName")
    if name is None:
        yield from _plain(call)
        return
    if name == engine.FLEET_ROLE:
        yield Ask(f"iam:{call.action}", f"arn:aws:iam::{engine.ACCOUNT}:role{engine.FLEET_PATH}{name}")
        return
    path = call.params.get("Path", next((r.path for r in iam_backends[engine.ACCOUNT]["aws"].get_roles() if r.name == name), "/"))
    arn = f"arn:aws:iam::{engine.ACCOUNT}:role{path}{name}"
    tags = {fields["Key"]: fields["Value"] for _, fields in numbered_groups(call.params, "Tags.member")}
    yield Ask(f"iam:{call.action}", arn, _asked_tags(tags or None))
    if call.action == "CreateRole" and tags:
        yield Ask("iam:TagRole", arn, _asked_tags(tags))


def _queue(call: Call) -> Iterator[Ask]:
    name = call.params.get("QueueName") or call.params.get("QueueUrl", "").rpartition("/")[2]
    arn, tags = f"arn:aws:sqs:{call.region}:{engine.ACCOUNT}:{name}", call.document.get("tags", {})
    yield Ask(f"sqs:{call.action}", arn, _asked_tags(tags or None))
    if call.action == "CreateQueue" and tags:
        yield Ask("sqs:TagQueue", arn, _asked_tags(tags))


def _tunnel(call: Call) -> Iterator[Ask]:
    keys = {"remoteport": "remotePort", "privateipaddress": "privateIpAddress", "maxtunnelduration": "maxTunnelDuration"}
    context = {f"ec2-instance-connect:{key}": [call.params[name]] for key, name in keys.items() if name in call.params}
    id = call.params.get("instanceConnectEndpointId", "*")
    yield Ask(f"ec2-instance-connect:{call.action}", _arn(call, "instance-connect-endpoint", id), context)


def _ssm(call: Call) -> Iterator[Ask]:
    if call.action != "StartSession":
        yield from _parameter(call)
        return
    target = call.params.get("Target", "")
    tags = {key.replace("aws:", "ssm:", 1): values for key, values in _tags_of(call, target).items()}
    yield Ask("ssm:StartSession", _arn(call, "instance", target), {**_tags_of(call, target), **tags})
    yield Ask("ssm:StartSession", f"arn:aws:ssm:{call.region}::document/{call.params.get('DocumentName', '')}")


def _parameter(call: Call) -> Iterator[Ask]:
    name = call.params.get("Name", "")
    account = "" if name.startswith("/aws/") else engine.ACCOUNT
    yield Ask(f"ssm:{call.action}", f"arn:aws:ssm:{call.region}:{account}:parameter{name}" if name else "*")


def _arn(call: Call, kind: str, id: str) -> str:
    owner = "" if kind == "snapshot" else engine.ACCOUNT
    return f"arn:aws:ec2:{call.region}:{owner}:{kind}/{id}"


def _tags_of(call: Call, id: str) -> dict[str, list[str]]:
    """What is tagged already. Of nothing, or of what is not there, nothing is known."""
    tags: Mapping[str, str] = engine.backend(call.region).tags.get(id, {})
    return {f"aws:resourcetag/{key.lower()}": [value] for key, value in tags.items()}


def _asked_tags(tags: Mapping[str, str] | None) -> dict[str, list[str]]:
    if not tags:
        return {}
    return {"aws:tagkeys": list(tags), **{f"aws:requesttag/{key.lower()}": [value] for key, value in tags.items()}}


def _tags_at_birth(call: Call) -> dict[str, dict[str, str]]:
    born: dict[str, dict[str, str]] = {}
    for _, fields in numbered_groups(call.params, "TagSpecification"):
        pairs = numbered_groups(fields, "Tag")
        born.setdefault(fields.get("ResourceType", ""), {}).update({pair["Key"]: pair.get("Value", "") for _, pair in pairs})
    return born


def _document(text: Any) -> Document:
    loaded: Document = json.loads(text) if isinstance(text, str) else dict(text)
    return loaded
