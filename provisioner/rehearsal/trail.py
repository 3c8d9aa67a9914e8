"""CloudTrail as the rehearsal has it: a record of every call, LookupEvents, one trail with log files and signed digests. SIMULATED.

Records have the shape of AWS's, as far as anybody reads them here: who, when, which call, with what and with what answer, under
which request id and user agent. They are there at once; AWS takes minutes. Instead of an hour, a digest covers the time between
two askings for digests, so a chain is there when it is wanted. Its key is the one that everybody has (worthless).

Beside it the two calls of S3 that fetch files, and Cost Explorer's answer for machines: their time, each at least a minute,
at the rehearsal's own price. Must not know moto.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any
from xml.sax.saxutils import escape

from provisioner.rehearsal import worthless
from provisioner.rehearsal.account import ARN
from provisioner.rehearsal.engine import ACCOUNT
from provisioner.rehearsal.wire import Call, Refusal, Reply, json_answer

NAME, BUCKET = "gpulease-rehearsal", "gpulease-rehearsal-trail"
KEPT, PAGE = 50_000, 50
UNTOLD = frozenset({"cloudtrail", "s3", "ce"})
"""Calls that are not recorded here: asking what was recorded must not fill the record, and S3's are no management events."""

_INSTANCE = re.compile(rb"<instanceId>(i-[0-9a-f]+)</instanceId>")
_FLEET = re.compile(rb"<fleetId>(fleet-[0-9a-f-]+)</fleetId>")
_GROUP = re.compile(rb"<groupId>(sg-[0-9a-f]+)</groupId>")
Event = dict[str, Any]


class Trail:
    """What was called, and the files that say so."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._lock, self._clock = threading.Lock(), clock
        self._events: deque[Event] = deque(maxlen=KEPT)
        self._files: dict[str, tuple[bytes, dict[str, str]]] = {}
        self._covered: dict[str, float] = {}  # region -> until when a digest covers it
        self._last: dict[str, tuple[str, str, str]] = {}  # region -> key, sha256 and signature of its latest digest
        self._born = clock()

    def record(self, call: Call, reply: Reply, error: str | None) -> None:
        if call.service in UNTOLD:
            return
        with self._lock:
            self._events.append(_event(call, reply, error))

    def cloudtrail(self, call: Call) -> Reply:
        match call.action:
            case "LookupEvents":
                return self._lookup(call)
            case "DescribeTrails":
                trail = {"Name": NAME, "S3BucketName": BUCKET, "HomeRegion": "us-east-1", "IsMultiRegionTrail": True}
                arn = f"arn:aws:cloudtrail:us-east-1:{ACCOUNT}:trail/{NAME}"
                more = {"LogFileValidationEnabled": True, "TrailARN": arn, "IsOrganizationTrail": False}
                return json_answer({"trailList": [trail | more]})
            case "ListPublicKeys":
                der = worthless.public_key()
                key = {"Value": base64.b64encode(der).decode(), "Fingerprint": hashlib.md5(der, usedforsecurity=False).hexdigest()}
                return json_answer({"PublicKeyList": [key]})
        raise Refusal("UnsupportedOperation", f"the rehearsal has no cloudtrail:{call.action}")

    def s3(self, call: Call) -> Reply:
        if call.params.get("Bucket") != BUCKET:
            raise Refusal("NoSuchBucket", "The specified bucket does not exist", 404)
        if call.action == "ListBucket":
            prefix = call.params.get("prefix", "")
            with self._lock:
                self._close_period(prefix)
                keys = sorted(key for key in self._files if key.startswith(prefix))
            inner = "".join(f"<Contents><Key>{escape(key)}</Key><Size>{len(self._files[key][0])}</Size></Contents>" for key in keys)
            text = f"<ListBucketResult><Name>{BUCKET}</Name><IsTruncated>false</IsTruncated>{inner}</ListBucketResult>"
            return Reply(200, "application/xml", text.encode())
        if call.action == "GetObject":
            with self._lock:
                found = self._files.get(call.params.get("Key", ""))
            if found is None:
                raise Refusal("NoSuchKey", "The specified key does not exist.", 404)
            headers = tuple((f"x-amz-meta-{name}", value) for name, value in found[1].items())
            return Reply(200, "application/x-gzip", found[0], headers)
        raise Refusal("NotImplemented", f"the rehearsal has no s3:{call.action}", 501)

    def _lookup(self, call: Call) -> Reply:
        asked = {str(one.get("AttributeKey")): str(one.get("AttributeValue")) for one in call.document.get("LookupAttributes") or []}
        begins, ends = (float(call.document.get(name, default)) for name, default in (("StartTime", 0), ("EndTime", 1e11)))
        with self._lock:
            every = [e for e in reversed(self._events) if e["awsRegion"] == call.region and begins <= e["_at"] <= ends + 1]
        found = [e for e in every if all(str(_attribute(e, key)) == value for key, value in asked.items())]
        token = str(call.document.get("NextToken", "0"))
        first = int(token) if token.isdigit() else 0
        page: dict[str, Any] = {"Events": [_listed(e) for e in found[first : first + PAGE]]}
        if first + PAGE < len(found):
            page["NextToken"] = str(first + PAGE)
        return json_answer(page)

    def _close_period(self, prefix: str) -> None:
        """What was called since the last digest becomes one log file, and a digest over it."""
        asked = re.search(r"CloudTrail-Digest/([a-z0-9-]+)/", prefix)
        if asked is None:
            return
        region, begins, ends = asked[1], self._covered.get(asked[1], self._born), self._clock() + 1
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(ends))
        day = time.strftime("%Y/%m/%d", time.gmtime(ends))
        number = len(self._files)
        records = [_told(e) for e in self._events if e["awsRegion"] == region and int(begins) <= e["_at"] < ends]
        text = json.dumps({"Records": records}).encode()
        log = f"AWSLogs/{ACCOUNT}/CloudTrail/{region}/{day}/{ACCOUNT}_CloudTrail_{region}_{stamp}_{number}.json.gz"
        self._files[log] = gzip.compress(text), {}
        name = f"{ACCOUNT}_CloudTrail-Digest_{region}_{NAME}_us-east-1_{number}_{stamp}.json.gz"
        key = f"AWSLogs/{ACCOUNT}/CloudTrail-Digest/{region}/{day}/{name}"
        before = self._last.get(region, (None, None, None))
        until = _iso(ends)
        digest = {
            "awsAccountId": ACCOUNT,
            "digestStartTime": _iso(begins),
            "digestEndTime": until,
            "digestS3Bucket": BUCKET,
            "digestS3Object": key,
            "digestPublicKeyFingerprint": hashlib.md5(worthless.public_key(), usedforsecurity=False).hexdigest(),
            "digestSignatureAlgorithm": "SHA256withRSA",
            "previousDigestS3Object": before[0],
            "previousDigestHashValue": before[1],
            "previousDigestSignature": before[2],
            "logFiles": [{"s3Bucket": BUCKET, "s3Object": log, "hashValue": hashlib.sha256(text).hexdigest(), "hashAlgorithm": "SHA-256"}],
            "simulated": NAME,
        }
        said = json.dumps(digest).encode()
        sha256 = hashlib.sha256(said).hexdigest()
        signature = worthless.signature(f"{until}\n{BUCKET}/{key}\n{sha256}\n{before[2] or 'null'}".encode())
        self._files[key] = gzip.compress(said), {"signature": signature, "signature-algorithm": "SHA256withRSA"}
        self._covered[region], self._last[region] = ends, (key, sha256, signature)


def _event(call: Call, reply: Reply, error: str | None) -> Event:
    scheduled = call.by == "schedule"
    asked, answered = _asked(call), _answered(call, reply) if error is None and call.mutates else None
    who = {"type": "IAMUser", "arn": ARN, "accountId": ACCOUNT, "userName": "rehearsal"}
    event = {
        "eventVersion": "1.10",
        "userIdentity": {"type": "AWSService", "invokedBy": "scheduler.amazonaws.com"} if scheduled else who,
        "eventTime": _iso(call.at),
        "eventSource": f"{call.service}.amazonaws.com",
        "eventName": call.action,
        "awsRegion": call.region,
        "sourceIPAddress": "scheduler.amazonaws.com" if scheduled else "127.0.0.1",
        "userAgent": call.user_agent[:1024],
        "requestParameters": asked or None,
        "responseElements": answered,
        "requestID": call.request_id,
        "eventID": str(uuid.uuid4()),
        "readOnly": not call.mutates,
        "eventType": "AwsApiCall",
        "managementEvent": True,
        "recipientAccountId": ACCOUNT,
        "eventCategory": "Management",
        "simulated": NAME,
    }
    return event | ({} if error is None else {"errorCode": f"Client.{error}" if call.service == "ec2" else error}) | {"_at": call.at}


def _asked(call: Call) -> dict[str, Any]:
    asked: dict[str, Any] = {}
    if call.service == "scheduler":
        return {name: value for name, value in call.params.items() if name in ("Name", "GroupName", "ClientToken")}
    if call.action == "TerminateInstances":
        asked["instancesSet"] = {"items": [{"instanceId": id} for id in call.many("InstanceId")]}
    named = {
        "ClientToken": "clientToken",
        "InstanceType": "instanceType",
        "GroupId": "groupId",
        "GroupName": "groupName",
        "VolumeId": "volumeId",
    }
    return asked | {theirs: call.params[ours] for ours, theirs in named.items() if ours in call.params}


def _answered(call: Call, reply: Reply) -> dict[str, Any]:
    answer: dict[str, Any] = {"requestId": call.request_id}
    if call.action in ("RunInstances", "TerminateInstances"):
        ids = list(dict.fromkeys(id.decode() for id in _INSTANCE.findall(reply.body)))
        answer["instancesSet"] = {"items": [{"instanceId": id} for id in ids]}
    if call.action == "CreateFleet" and (fleet := _FLEET.search(reply.body)):
        return {"CreateFleetResponse": {"fleetId": fleet[1].decode(), "requestId": call.request_id}}
    if call.action == "CreateSecurityGroup" and (group := _GROUP.search(reply.body)):
        answer["groupId"] = group[1].decode()
    return answer


def _attribute(event: Event, key: str) -> object:
    names = {"EventName": "eventName", "EventSource": "eventSource", "EventId": "eventID"}
    if key == "ReadOnly":
        return str(event["readOnly"]).lower()
    if key not in names:
        raise Refusal("InvalidLookupAttributesException", f"the rehearsal cannot look up by {key}")
    return event[names[key]]


def _listed(event: Event) -> dict[str, Any]:
    return {
        "EventId": event["eventID"],
        "EventName": event["eventName"],
        "ReadOnly": str(event["readOnly"]).lower(),
        "EventTime": float(int(event["_at"])),
        "EventSource": event["eventSource"],
        "Username": event["userIdentity"].get("userName", ""),
        "Resources": [],
        "CloudTrailEvent": json.dumps(_told(event)),
    }


def _told(event: Mapping[str, Any]) -> Event:
    return {name: value for name, value in event.items() if name != "_at"}


def _iso(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
