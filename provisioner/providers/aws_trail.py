"""What CloudTrail recorded, asked after a run: LookupEvents, which every account has for 90 days, and the files of a trail.

Only questions. LookupEvents answers two calls a second per account and region, so each page waits its turn (`sleep`). A trail's
files are taken as they lie in the bucket: digests with the signature that S3 keeps beside them, and the log files that they
name. Those hold every call of the account in that time, not ours alone; who asks for them is told so by the command.

This file must not know what the records are held against.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from provisioner.errors import ProviderError
from provisioner.providers.aws_client import Account

CALLS = (
    "RunInstances",
    "TerminateInstances",
    "CreateFleet",
    "DeleteFleets",
    "CreateSecurityGroup",
    "DeleteSecurityGroup",
    "CreateSchedule",
    "DeleteSchedule",
    "GetCallerIdentity",
    "BidEvictedEvent",
)
"""The calls of a run that change something, its last word, and AWS's own record of a spot machine that was taken back."""

PAUSE_S = 0.5
PAGE = 50
MOST_FILES, MOST_BYTES = 1000, 256 << 20
HOUR = timedelta(hours=1)
Sleep = Callable[[float], None]


@dataclass(frozen=True)
class Trail:
    """A trail whose files can be checked."""

    name: str
    bucket: str
    prefix: str


def events(account: Account, begins: datetime, ends: datetime, sleep: Sleep) -> Iterator[str]:
    """The text of every record of those calls in that time and region, as CloudTrail gives it."""
    for call in CALLS:
        attribute = [{"AttributeKey": "EventName", "AttributeValue": call}]
        pages = account.pages("LookupEvents", PAGE, service="cloudtrail", LookupAttributes=attribute, StartTime=begins, EndTime=ends)
        for page in pages:
            for event in page.data.get("Events", []):
                yield str(event.get("CloudTrailEvent", "")).replace("\n", " ")
            if account.endpoint is None:
                sleep(PAUSE_S)


def trail(account: Account) -> Trail | None:
    """A trail of this account that writes digests and covers that region; None where there is none. NotPermitted where denied."""
    said = account.ask("DescribeTrails", service="cloudtrail", includeShadowTrails=True).data.get("trailList", [])
    fit = [one for one in said if one.get("LogFileValidationEnabled") and one.get("S3BucketName") and not one.get("IsOrganizationTrail")]
    fit = [one for one in fit if one.get("IsMultiRegionTrail") or one.get("HomeRegion") == account.region]
    return Trail(str(fit[0]["Name"]), str(fit[0]["S3BucketName"]), str(fit[0].get("S3KeyPrefix") or "")) if fit else None


def files(account: Account, of: Trail, number: str, begins: datetime, ends: datetime) -> dict[str, bytes]:
    """The digests from the hour before `begins` to the first that reaches `ends`, their signatures, and their log files.

    By the names under which a bundle has them. `number` is the account's. ProviderError where something cannot be had.
    """
    found: dict[str, bytes] = {}
    for key in _digest_keys(account, of, number, begins, ends):
        data, beside = _object(account, of.bucket, key)
        name = key.rsplit("/", 1)[-1]
        found[f"digests/{name}"] = data
        signature = {"algorithm": beside.get("signature-algorithm", ""), "bucket": of.bucket, "key": key}
        text = json.dumps(signature | {"signature": beside.get("signature", "")}, sort_keys=True)
        found[f"digests/{name.removesuffix('.json.gz')}.sig.json"] = text.encode()
        for log in _named(data, key):
            found[f"logs/{log.rsplit('/', 1)[-1]}"] = _object(account, of.bucket, log)[0]
            _bounded(found)
    return found


def public_keys(account: Account, begins: datetime, ends: datetime) -> list[bytes]:
    """The keys that AWS signs that region's digests with, which are the same for every account."""
    answer = account.ask("ListPublicKeys", service="cloudtrail", StartTime=begins - HOUR, EndTime=ends + HOUR)
    return [bytes(one["Value"]) for one in answer.data.get("PublicKeyList", [])]


def _digest_keys(account: Account, of: Trail, number: str, begins: datetime, ends: datetime) -> list[str]:
    day, keys = (begins - HOUR).date(), list[str]()
    while day <= (ends + 2 * HOUR).date():
        above = f"{of.prefix}/" if of.prefix else ""
        prefix = f"{above}AWSLogs/{number}/CloudTrail-Digest/{account.region}/{day:%Y/%m/%d}/"
        keys += [key for key in _keys(account, of.bucket, prefix) if f"_{of.name}_" in key]
        day += timedelta(days=1)
    wanted: list[str] = []
    for key in sorted(keys):
        at = _ends_of(key)
        if at is None or at >= begins:
            wanted.append(key)
        if at is not None and at >= ends:
            break
    return wanted


def _keys(account: Account, bucket: str, prefix: str) -> Iterator[str]:
    more: dict[str, Any] = {}
    for _ in range(MOST_FILES):
        answer = account.ask("ListObjectsV2", service="s3", Bucket=bucket, Prefix=prefix, **more).data
        yield from (str(one["Key"]) for one in answer.get("Contents", []))
        if not answer.get("IsTruncated"):
            return
        more = {"ContinuationToken": answer["NextContinuationToken"]}
    raise ProviderError(f"s3://{bucket}/{prefix} has too many files to list")


def _object(account: Account, bucket: str, key: str) -> tuple[bytes, dict[str, str]]:
    answer = account.ask("GetObject", service="s3", Bucket=bucket, Key=key).data
    data = answer["Body"].read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ProviderError(f"s3://{bucket}/{key} is larger than {MOST_BYTES} bytes")
    return data, {str(name): str(value) for name, value in answer.get("Metadata", {}).items()}


def _named(digest: bytes, key: str) -> Sequence[str]:
    import gzip

    try:
        return [str(one["s3Object"]) for one in json.loads(gzip.decompress(digest))["logFiles"]]
    except (OSError, EOFError, ValueError, KeyError, TypeError) as e:
        raise ProviderError(f"the digest {key} cannot be read: {e}") from e


def _ends_of(key: str) -> datetime | None:
    """The time in a digest's name: `…_20261118T110000Z.json.gz`."""
    for part in reversed(key.removesuffix(".json.gz").split("_")):
        try:
            return datetime.strptime(part, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except ValueError:
            continue
    return None


def _bounded(found: dict[str, bytes]) -> None:
    if len(found) > MOST_FILES or sum(map(len, found.values())) > MOST_BYTES:
        raise ProviderError(
            f"CloudTrail's files of that time are more than {MOST_FILES} or larger than {MOST_BYTES >> 20} MiB together",
            next="gpulease proof corroborate LEASE, with the option --lookups-only",
        )
