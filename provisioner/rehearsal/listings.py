"""Lists that EC2 has and moto has not, and lists in pages.

A tool that looks for what may still cost money asks for kinds of things that this cloud cannot make at all. "None" is the
true answer then, and it is given in EC2's grammar; asked for one by its id, EC2's refusal. Kinds that are not in the table are
refused as unsupported, so that nothing is called empty by accident.

Any list can come in pages: as many as `MaxResults` asks for, or as the `page_size` knob says although nobody asked, as EC2 may.
What the pages show is what there was when the first was asked for. Only the XML is cut; who made it does not matter.
"""

from __future__ import annotations

import json
import re
import secrets
import xml.etree.ElementTree as xml
from collections import OrderedDict
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from provisioner.rehearsal import engine
from provisioner.rehearsal.wire import EC2_NAMESPACE, Call, Refusal, Reply, ec2_answer

NONE_OF: dict[str, tuple[str, str]] = {  # action -> (the list's element, the parameter that names ids)
    "DescribeCapacityReservations": ("capacityReservationSet", "CapacityReservationId"),
    "DescribeCapacityReservationFleets": ("capacityReservationFleetSet", "CapacityReservationFleetId"),
    "DescribeCapacityBlocks": ("capacityBlockSet", "CapacityBlockId"),
    "DescribePlacementGroups": ("placementGroupSet", "GroupId"),
    "DescribeFastSnapshotRestores": ("fastSnapshotRestoreSet", ""),
    "DescribeLockedSnapshots": ("snapshotSet", "SnapshotId"),
    "ListSnapshotsInRecycleBin": ("snapshotSet", "SnapshotId"),
    "ListImagesInRecycleBin": ("imageSet", "ImageId"),
    "ListVolumesInRecycleBin": ("volumeSet", "VolumeId"),
    "DescribeClientVpnEndpoints": ("clientVpnEndpoint", "ClientVpnEndpointId"),
    "DescribeElasticGpus": ("elasticGpuSet", "ElasticGpuId"),
    "DescribeReservedInstances": ("reservedInstancesSet", "ReservedInstancesId"),
    "DescribeScheduledInstances": ("scheduledInstanceSet", "ScheduledInstanceId"),
    "DescribeHostReservations": ("hostReservationSet", "HostReservationIdSet"),
    "DescribeMacHosts": ("macHostSet", "HostId"),
    "DescribeTransitGatewayConnects": ("transitGatewayConnectSet", "TransitGatewayAttachmentIds"),
    "DescribeIpams": ("ipamSet", "IpamId"),
    "DescribeIpamPools": ("ipamPoolSet", "IpamPoolId"),
    "DescribePublicIpv4Pools": ("publicIpv4PoolSet", "PoolId"),
    "DescribeIpv6Pools": ("ipv6PoolSet", "PoolId"),
    "DescribeRouteServers": ("routeServerSet", "RouteServerId"),
    "DescribeVerifiedAccessInstances": ("verifiedAccessInstanceSet", "VerifiedAccessInstanceId"),
    "DescribeVerifiedAccessEndpoints": ("verifiedAccessEndpointSet", "VerifiedAccessEndpointId"),
    "DescribeNetworkInsightsPaths": ("networkInsightsPathSet", "NetworkInsightsPathId"),
    "DescribeVpcEndpointConnections": ("vpcEndpointConnectionSet", ""),
    "DescribeInstanceEventWindows": ("instanceEventWindowSet", "InstanceEventWindowId"),
    "DescribeImportImageTasks": ("importImageTaskSet", "ImportTaskId"),
    "DescribeImportSnapshotTasks": ("importSnapshotTaskSet", "ImportTaskId"),
    "DescribeExportTasks": ("exportTaskSet", "ExportTaskId"),
    "DescribeExportImageTasks": ("exportImageTaskSet", "ExportImageTaskId"),
    "DescribeStoreImageTasks": ("storeImageTaskResultSet", "ImageId"),
    "DescribeReplaceRootVolumeTasks": ("replaceRootVolumeTaskSet", "ReplaceRootVolumeTaskId"),
    "DescribeCapacityManagerDataExports": ("capacityManagerDataExportSet", "CapacityManagerDataExportId"),
}
_UNKNOWN = {  # the codes that EC2's list of them has; every other kind: InvalidParameterValue
    "DescribeCapacityReservations": "InvalidCapacityReservationId.NotFound",
    "DescribePlacementGroups": "InvalidPlacementGroup.Unknown",
    "DescribeReservedInstances": "InvalidReservedInstancesId",
}
_AT_LEAST_5 = {
    "DescribeInstances",
    "DescribeInstanceStatus",
    "DescribeVolumes",
    "DescribeNetworkInterfaces",
    "DescribeSecurityGroups",
    "DescribeSnapshots",
    "DescribeInstanceTypes",
    "DescribeInstanceTypeOfferings",
    "DescribeSubnets",
}
_NOT_WITH_IDS = {
    "DescribeInstances": "InstanceId",
    "DescribeInstanceStatus": "InstanceId",
    "DescribeVolumes": "VolumeId",
    "DescribeNetworkInterfaces": "NetworkInterfaceId",
}
_MOST = {"DescribeInstanceTypes": 100}
_KEPT = 200  # first pages whose others may still be asked for


class Filters:
    """What is legal to filter by, by action."""

    def __init__(self) -> None:
        self._legal: dict[str, list[str]] = json.loads((files("provisioner.rehearsal") / "filters.json").read_text())

    def check(self, call: Call) -> None:
        legal = self._legal.get(call.action)
        for name in call.filters():
            if legal is not None and name not in legal and not (name.startswith("tag:") and "tag-key" in legal):
                raise Refusal("InvalidParameterValue", f"The filter '{name}' is invalid")


def none(call: Call, backend: Any) -> Reply:
    """There is none of that kind."""
    element, ids = NONE_OF[call.action]
    if ids and (asked := call.many(ids)):
        raise Refusal(_UNKNOWN.get(call.action, "InvalidParameterValue"), f"'{asked[0]}' does not exist")
    return ec2_answer(call, f"<{element}/>")


def owned(call: Call, backend: Any) -> Reply:
    """DescribeSnapshots: moto lists everybody's, whoever's were asked for."""
    owners = {engine.ACCOUNT if owner == "self" else owner for owner in call.many("Owner")}
    reply = engine.ask(call)
    if not owners or reply.status != 200 or (found := items_of(reply.body)) is None:
        return reply
    theirs = [item for item in found[1] if (owner := re.search(rb"<ownerId>(\d*)</ownerId>", item)) and owner[1].decode() in owners]
    return ec2_answer(call, f"<{found[0]}>{b''.join(theirs).decode()}</{found[0]}>")


class Pages:
    """Answers cut in pieces. Under the cloud's lock."""

    def __init__(self) -> None:
        self._rest: OrderedDict[str, tuple[str, str, list[bytes]]] = OrderedDict()

    def cut(self, call: Call, page_size: int | None, ask: Callable[[Call], Reply]) -> Reply:
        size = self._size(call)
        token = call.params.get("NextToken", "")
        if token:
            known = self._rest.pop(token, None)
            if known is None or known[:2] != (call.action, call.region):
                raise Refusal("InvalidParameterValue", f"Unable to parse pagination token: '{token[:40]}'")
            return self._page(call, known[2], size or page_size)
        if size is None and page_size is None:
            return ask(call)
        bare = {key: value for key, value in call.params.items() if key not in ("MaxResults", "NextToken")}
        whole = ask(call.with_params(bare))
        if whole.status != 200 or (found := items_of(whole.body)) is None:
            return whole
        element, items = found
        return self._page(call, [element.encode(), *items], size or page_size)

    def _page(self, call: Call, kept: list[bytes], size: int | None) -> Reply:
        element, items = kept[0].decode(), kept[1:]
        now, later = items[:size], items[size:] if size else []
        more = ""
        if later:
            more = secrets.token_urlsafe(48)
            self._rest[more] = (call.action, call.region, [kept[0], *later])
            while len(self._rest) > _KEPT:
                self._rest.popitem(last=False)
            more = f"<nextToken>{more}</nextToken>"
        return ec2_answer(call, f"<{element}>{b''.join(now).decode()}</{element}>{more}")

    def _size(self, call: Call) -> int | None:
        text = call.params.get("MaxResults")
        if text is None:
            return None
        least, most = 5 if call.action in _AT_LEAST_5 else 1, _MOST.get(call.action, 1000)
        if not (text.isascii() and text.isdigit()) or not least <= int(text):
            raise Refusal(
                "InvalidParameterValue", f"Value ( {text} ) for parameter maxResults is invalid. Expecting a value of {least} or more."
            )
        if int(text) > most and call.action in _MOST:
            raise Refusal(
                "InvalidParameterValue", f"Value ( {text} ) for parameter maxResults is invalid. Expecting a value of {most} or less."
            )
        ids = _NOT_WITH_IDS.get(call.action, "")
        if ids and call.many(ids):
            raise Refusal("InvalidParameterCombination", f"The parameter {ids} cannot be used with the parameter maxResults")
        return min(int(text), most)


def items_of(body: bytes) -> tuple[str, list[bytes]] | None:
    """The list of an answer: its element and the text of each item. None where there is no list."""
    xml.register_namespace("", EC2_NAMESPACE)
    mark = f' xmlns="{EC2_NAMESPACE}"'.encode()
    for child in xml.fromstring(body):
        items = list(child)
        if items and all(item.tag.rpartition("}")[2] == "item" for item in items):
            name = child.tag.rpartition("}")[2]
            return name, [re.sub(re.escape(mark), b"", xml.tostring(item), count=1) for item in items]
    return None
