"""CloudTrail as it would have recorded a story: events, log files, and digests signed with the rehearsal's key."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
from typing import Any

from provisioner.evidence.canonical import milliseconds, rfc3339
from provisioner.evidence.cloudtrail import EVENTS
from provisioner.evidence.digests import DIGESTS, LOGS
from provisioner.rehearsal import worthless
from tests.evidence.amazon import signed
from tests.evidence.bundles import state
from tests.evidence.journals import FILES
from tests.evidence.tape import INST, LEASE, REGION, Tape

ACCOUNT, BUCKET = "123456789012", "trail-bucket"
Event = dict[str, Any]


def story(**genesis: Any) -> Tape:
    """A run whose machine has its identity document, and whose sealed head was shown to AWS."""
    tape = Tape().genesis(**genesis).guards().launch().run().release().quiet().verdict()
    launched = next(e["body"]["facts"]["launchTime"] for e in tape.entries if "launchTime" in e["body"].get("facts", {}))
    tape.aws[f"aws/iid/{INST}.p7"] = signed(pendingTime=launched)
    return tape.end(files={**FILES, **tape.aws}).witnessed()


def rehearsed() -> Tape:
    return story(simulated=True, settings={"region": REGION, "endpoint": "http://127.0.0.1:4566"})


def events(tape: Tape) -> list[Event]:
    """What AWS recorded of that story."""
    predicate = state(tape)["predicate"]
    found: list[Event] = []
    for one in predicate["instances"]:
        made = {"instancesSet": {"items": [{"instanceId": one["id"], "currentState": {"code": 0, "name": "pending"}}]}}
        at = rfc3339((milliseconds(one["requestedAt"]) or 0) + 1000)
        asked = {"clientToken": one["clientToken"], "instanceType": one["type"]}
        found.append(event("RunInstances", one["requestIds"]["run"], at, asked, made, head_after(tape, one["createIntentSeq"])))
        seq = next(e["seq"] for e in tape.entries if e["kind"] == "intent" and e["body"]["op"] == "remove")
        ended = {"instancesSet": {"items": [{"instanceId": one["id"]}]}}
        found.append(
            event("TerminateInstances", one["requestIds"]["terminate"], one["terminateAcceptedAt"], ended, ended, head_after(tape, seq))
        )
    for anchor in predicate["anchors"]:
        if anchor["kind"] == "user-agent":
            found.append(event("GetCallerIdentity", anchor["requestId"], anchor["at"], None, None, anchor["headPrefix"]))
    return found


def head_after(tape: Tape, seq: int) -> str:
    return hashlib.sha256(tape.lines[seq]).hexdigest()[:32]


def event(name: str, request: str, at: str, asked: Any, answered: Any, head: str, **more: Any) -> Event:
    return {
        "eventVersion": "1.10",
        "userIdentity": {"type": "IAMUser", "accountId": ACCOUNT},
        "eventTime": at[:19] + "Z",
        "eventSource": ("sts" if name == "GetCallerIdentity" else "ec2") + ".amazonaws.com",
        "eventName": name,
        "awsRegion": REGION,
        "userAgent": f"Boto3/1.40 md/Botocore#1.40 gpulease/1.0.0 run/{LEASE} jh/{head}",
        "requestParameters": asked,
        "responseElements": answered,
        "requestID": request,
        "eventID": f"event-{request}",
        "readOnly": answered is None,
        **more,
    }


def copied(recorded: list[Event]) -> dict[str, bytes]:
    """As `proof corroborate` keeps what LookupEvents gave."""
    return {EVENTS: b"".join(json.dumps(one).encode() + b"\n" for one in recorded)}


def logged(recorded: list[Event], hours: tuple[str, ...]) -> dict[str, bytes]:
    """Log files and a chain of digests: one digest between each two of those times, the records in the first of them."""
    made: dict[str, bytes] = {}
    before: dict[str, Any] = {}
    for n, (begins, ends) in enumerate(itertools.pairwise(hours)):
        text = json.dumps({"Records": recorded if n == 0 else []}).encode()
        log = f"AWSLogs/{ACCOUNT}/CloudTrail/{REGION}/2026/11/18/{ACCOUNT}_CloudTrail_{REGION}_{n}.json.gz"
        made[LOGS + log.rsplit("/", 1)[-1]] = gzip.compress(text, mtime=0)
        key = f"AWSLogs/{ACCOUNT}/CloudTrail-Digest/{REGION}/2026/11/18/{ACCOUNT}_CloudTrail-Digest_{REGION}_{n}.json.gz"
        digest = {
            "awsAccountId": ACCOUNT,
            "digestStartTime": begins,
            "digestEndTime": ends,
            "digestS3Bucket": BUCKET,
            "digestS3Object": key,
            "digestSignatureAlgorithm": "SHA256withRSA",
            "previousDigestSignature": before.get("signature"),
            "previousDigestHashValue": before.get("sha256"),
            "logFiles": [{"s3Bucket": BUCKET, "s3Object": log, "hashValue": hashlib.sha256(text).hexdigest(), "hashAlgorithm": "SHA-256"}],
        }
        said = json.dumps(digest).encode()
        sha256 = hashlib.sha256(said).hexdigest()
        signature = worthless.signature(f"{ends}\n{BUCKET}/{key}\n{sha256}\n{before.get('signature') or 'null'}".encode())
        name = DIGESTS + key.rsplit("/", 1)[-1]
        made[name] = gzip.compress(said, mtime=0)
        beside = {"algorithm": "SHA256withRSA", "bucket": BUCKET, "key": key, "signature": signature}
        made[name.removesuffix(".json.gz") + ".sig.json"] = json.dumps(beside).encode()
        before = {"signature": signature, "sha256": sha256}
    return made


HOURS = ("2026-11-18T11:00:00Z", "2026-11-18T12:00:00Z", "2026-11-18T13:00:00Z", "2026-11-18T14:00:00Z")
