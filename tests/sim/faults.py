"""Every way in which a request can go wrong, and what that says of whether it took effect.

The classes are those of a real client on a real network: AWS's own error answers, botocore's exceptions, answers that
cannot be read. Each is raised below `provisioner.providers.aws_client`, as botocore raises it, so that everything
above decides by itself what it means. `core` says what the same weather looks like one floor up, where a provider has
already put it into our words.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

BEFORE, AFTER, LATE = "before", "after", "late"
"""When it takes effect: not at all; at once, the answer lost; some time later, the answer lost."""

FOR_EVER = 10**6
TIMES = {1: "once", 3: "three times", FOR_EVER: "for ever"}


@dataclass(frozen=True)
class Class:
    name: str
    effect: str = BEFORE
    code: str = ""  # of an answer; "" where there was none
    status: int = 400
    botocore: str = ""  # the exception, where there was no answer
    sites: str = ""  # "": everywhere; "create", "change", "read", or the name of an operation
    core: str = "broken"  # one floor up: refused, full, denied, or broken


CLASSES = {
    c.name: c
    for c in (
        Class("throttled", code="RequestLimitExceeded", status=503),
        Class("throttled-after", AFTER, code="RequestLimitExceeded", status=503),
        Class("internal-error", code="InternalError", status=500),
        Class("internal-error-after", AFTER, code="InternalError", status=500),
        Class("unavailable", code="Unavailable", status=503),
        Class("connect-timeout", botocore="ConnectTimeoutError", core="refused"),
        Class("no-route", botocore="EndpointConnectionError", core="refused"),
        Class("tls-error", botocore="SSLError"),
        Class("reset-before", botocore="ConnectionClosedError"),
        Class("reset-after", AFTER, botocore="ConnectionClosedError"),
        Class("read-timeout-before", botocore="ReadTimeoutError"),
        Class("read-timeout-after", AFTER, botocore="ReadTimeoutError"),
        Class("read-timeout-late", LATE, botocore="ReadTimeoutError"),
        Class("not-xml", AFTER, botocore="ResponseParserError"),
        Class("expired-token", code="ExpiredToken", core="refused"),
        Class("no-credentials", botocore="NoCredentialsError", core="refused"),
        Class("clock-refused", code="RequestExpired", core="refused"),
        Class("denied", code="UnauthorizedOperation", status=403, core="denied"),
        Class("no-capacity", code="InsufficientInstanceCapacity", status=500, sites="RunInstances", core="full"),
        Class("no-quota", code="VcpuLimitExceeded", sites="RunInstances", core="refused"),
        Class("token-mismatch", code="IdempotentParameterMismatch", sites="RunInstances"),
        Class("in-use", code="DependencyViolation", sites="change"),
        Class("same-page-twice", AFTER, botocore="same-page", sites="list"),
        Class("no-answer-inside", AFTER, botocore="empty", sites="by-id"),
    )
}


def fits(c: Class, operation: str) -> bool:
    """May this class befall this operation?"""
    changing = operation.startswith(("Run", "Create", "Authorize", "Terminate", "Delete", "Cancel", "Release", "Deregister"))
    match c.sites:
        case "":
            return changing or c.effect != LATE
        case "change":
            return operation.startswith(("Delete", "Terminate"))
        case "list":
            return operation.startswith(("Describe", "List")) and operation != "DescribeInstanceAttribute"
        case "by-id":
            return operation in ("DescribeInstances", "DescribeVolumes", "DescribeNetworkInterfaces", "DescribeSecurityGroups")
        case site:
            return site == operation


@cache
def _named(name: str) -> Any:
    from botocore import exceptions, parsers

    return getattr(exceptions, name, None) or getattr(parsers, name)


def botocore_error(c: Class, operation: str, meta: dict[str, Any]) -> Exception:
    """As botocore raises it."""
    if c.code:
        from botocore.exceptions import ClientError

        words = f"simulated: {c.name}"
        return ClientError(
            {"Error": {"Code": c.code, "Message": words}, "ResponseMetadata": {**meta, "HTTPStatusCode": c.status}}, operation
        )
    kind = _named(c.botocore)
    if c.botocore == "ResponseParserError":
        error: Exception = kind("Unable to parse response (not well-formed): <html>")
    elif c.botocore == "NoCredentialsError":
        error = kind()
    else:
        error = kind(endpoint_url="https://ec2.us-east-1.amazonaws.com/", error="simulated")
    return error
