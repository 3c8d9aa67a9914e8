"""EC2 Instance Connect endpoints: there are those that a knob says, one in each region's default network.

`{"connect_endpoints": {"us-east-1": "create-complete"}}` makes one that can be found, in that state; null takes it away.
What goes through it is in `ways.py`.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from provisioner.rehearsal import engine
from provisioner.rehearsal.faults import Plan
from provisioner.rehearsal.wire import Call, Refusal, Reply, ec2_answer


class ConnectEndpoints:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def describe(self, call: Call, backend: Any) -> Reply:
        there = here(self._plan, call.region, backend)
        found = [] if there is None else [there]
        known = [one["instanceConnectEndpointId"] for one in found]
        if unknown := [id for id in call.many("InstanceConnectEndpointId") if id not in known]:
            raise Refusal("InvalidInstanceConnectEndpointId.NotFound", f"The instance connect endpoint ID '{unknown[0]}' does not exist")
        named = {"instance-connect-endpoint-id": "instanceConnectEndpointId", "subnet-id": "subnetId", "vpc-id": "vpcId", "state": "state"}
        for name, values in call.filters().items():
            found = [one for one in found if one.get(named.get(name, ""), "") in values]
        items = "".join(f"<item>{''.join(f'<{key}>{value}</{key}>' for key, value in one.items())}</item>" for one in found)
        return ec2_answer(call, f"<instanceConnectEndpointSet>{items}</instanceConnectEndpointSet>")


def here(plan: Plan, region: str, backend: Any) -> dict[str, str] | None:
    """The region's endpoint, in EC2's fields; None when there is none."""
    state = plan.world.connect_endpoints.get(region)
    return None if state is None else _fields(region, state, backend)


def groups(endpoint: dict[str, str]) -> list[str]:
    """The ids of its security groups."""
    return re.findall(r"<item>(sg-[0-9a-f]+)</item>", endpoint["securityGroupIdSet"])


def _fields(region: str, state: str, backend: Any) -> dict[str, str]:
    subnet = min(backend.get_default_subnets().values(), key=lambda one: str(one.availability_zone))
    id = f"eice-{hashlib.sha256(region.encode()).hexdigest()[:17]}"
    group = next((one for groups in backend.groups.values() for one in groups.values() if one.is_default), None)
    groups = f"<item>{group.id}</item>" if group else ""
    return {
        "ownerId": engine.ACCOUNT,
        "instanceConnectEndpointId": id,
        "instanceConnectEndpointArn": f"arn:aws:ec2:{region}:{engine.ACCOUNT}:instance-connect-endpoint/{id}",
        "state": state,
        "stateMessage": "",
        "dnsName": f"{id}.00000000.ec2-instance-connect-endpoint.{region}.amazonaws.com",
        "networkInterfaceIdSet": "",
        "vpcId": str(subnet.vpc_id),
        "availabilityZone": str(subnet.availability_zone),
        "createdAt": "2026-01-01T00:00:00.000Z",
        "subnetId": str(subnet.id),
        "preserveClientIp": "false",
        "securityGroupIdSet": groups,
        "tagSet": "",
    }
