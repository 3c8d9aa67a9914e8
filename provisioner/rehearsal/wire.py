"""AWS on the wire: what a request asks, and the shape in which each protocol answers and refuses.

Four protocols meet here: EC2's (form in, XML out, `<Response><Errors>` on refusal), the query protocol of STS and
IAM (form in, `<ErrorResponse>`), JSON with `X-Amz-Target` (SSM, SQS, and most newer services; `__type` on refusal), and
JSON behind REST paths (EventBridge Scheduler), where method and path say the action.
The service and region are read from the SigV4 credential scope, as the only thing a client with an endpoint URL
still says about them. Signatures are not checked: what is rehearsed is our own behaviour, not AWS's locks.

No state and no I/O; it must not know moto.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode
from xml.sax.saxutils import escape

_SCOPE = re.compile(r"Credential=(?P<key>[^/,\s]+)/\d{8}/(?P<region>[^/,\s]+)/(?P<service>[^/,\s]+)/aws4_request")
_NAMESPACES = {"sts": "https://sts.amazonaws.com/doc/2011-06-15/", "iam": "https://iam.amazonaws.com/doc/2010-05-08/"}
_DOES_NOT_CHANGE = ("Describe", "Get", "List", "Lookup", "Search", "Simulate")
_REST = {  # service -> (method, path, action); a group of the path is a parameter, as a field of the query is
    "scheduler": (
        ("POST", r"/schedules/(?P<Name>[^/]+)", "CreateSchedule"),
        ("GET", r"/schedules/(?P<Name>[^/]+)", "GetSchedule"),
        ("DELETE", r"/schedules/(?P<Name>[^/]+)", "DeleteSchedule"),
        ("GET", r"/schedules", "ListSchedules"),
        ("POST", r"/schedule-groups/(?P<Name>[^/]+)", "CreateScheduleGroup"),
        ("GET", r"/schedule-groups/(?P<Name>[^/]+)", "GetScheduleGroup"),
        ("DELETE", r"/schedule-groups/(?P<Name>[^/]+)", "DeleteScheduleGroup"),
        ("GET", r"/schedule-groups", "ListScheduleGroups"),
        ("GET", r"/tags/(?P<ResourceArn>.+)", "ListTagsForResource"),
        ("POST", r"/tags/(?P<ResourceArn>.+)", "TagResource"),
    ),
    "ec2-instance-connect": (("GET", r"/openTunnel", "OpenTunnel"),),
    "s3": (  # by the names of the permissions, which are not those of the calls
        ("GET", r"/(?P<Bucket>[^/]+)/?", "ListBucket"),
        ("GET", r"/(?P<Bucket>[^/]+)/(?P<Key>.+)", "GetObject"),
    ),
}
EC2_NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"


class Refusal(Exception):
    """A well-formed no, in AWS's own words for it."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status = code, message, status


@dataclass(frozen=True)
class Reply:
    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Call:
    """One API request, understood as far as every service shares it."""

    service: str
    region: str
    action: str
    params: Mapping[str, str]  # the form's fields; for JSON protocols the top-level strings
    protocol: str  # "ec2", "query" or "json"
    body: bytes = field(repr=False)
    document: Mapping[str, Any] = field(default_factory=dict, repr=False)  # JSON protocols only
    user_agent: str = ""
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    at: float = field(default_factory=time.time)
    by: str = "api"  # who asks: a client, or the cloud itself ("schedule")

    @property
    def mutates(self) -> bool:
        return not self.action.startswith(_DOES_NOT_CHANGE)

    def with_params(self, params: Mapping[str, str]) -> Call:
        """The same request with other parameters, as if it had come with them."""
        return replace(self, params=params, body=urlencode(params).encode())

    def many(self, prefix: str) -> list[str]:
        """`InstanceId.1=a&InstanceId.2=b` -> [a, b], in the order of the numbers."""
        return [value for _, value in numbered(self.params, prefix)]

    def filters(self) -> dict[str, list[str]]:
        """`Filter.1.Name=x&Filter.1.Value.1=y` -> {x: [y]}."""
        found: dict[str, list[str]] = {}
        for number, _ in numbered_groups(self.params, "Filter"):
            name = self.params.get(f"Filter.{number}.Name", "")
            found[name] = [value for _, value in numbered(self.params, f"Filter.{number}.Value")]
        return found


def parse(environ: Mapping[str, Any], body: bytes) -> Call:
    scope = _SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
    if scope is None:
        raise Refusal("AuthFailure", "the request carries no SigV4 credential scope", 401)
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    service, region = scope["service"].lower(), scope["region"]
    document: dict[str, Any] = {}
    if target:
        protocol, action = "json", target.rsplit(".", 1)[-1]
        document = _document(body)
        params = {key: value for key, value in document.items() if isinstance(value, str)}
    else:
        params = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        params.update(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
        protocol, action = ("ec2" if service == "ec2" else "query"), params.get("Action", "")
        if not action:  # REST: the path says what is asked
            protocol, (action, named) = "json", _rest(service, environ.get("REQUEST_METHOD", ""), environ.get("PATH_INFO", ""))
            query = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
            document = _document(body)
            params = {**{key: value for key, value in document.items() if isinstance(value, str)}, **query, **named}
    return Call(service, region, action, params, protocol, body, document, environ.get("HTTP_USER_AGENT", ""))


def _document(body: bytes) -> dict[str, Any]:
    try:
        loaded = json.loads(body or b"{}")
    except ValueError:
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _rest(service: str, method: str, path: str) -> tuple[str, dict[str, str]]:
    for how, pattern, action in _REST.get(service, ()):
        if how == method and (found := re.fullmatch(pattern, path)):
            return action, {key: unquote(value) for key, value in found.groupdict().items()}
    return f"{method} {path}", {}


def numbered(params: Mapping[str, str], prefix: str) -> list[tuple[int, str]]:
    """Every `prefix.N` with nothing after the number."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)")
    found = [(int(match[1]), value) for key, value in params.items() if (match := pattern.fullmatch(key))]
    return sorted(found)


def numbered_groups(params: Mapping[str, str], prefix: str) -> list[tuple[int, dict[str, str]]]:
    """Every `prefix.N.rest`, as N and {rest: value}."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.(.+)")
    groups: dict[int, dict[str, str]] = {}
    for key, value in params.items():
        if match := pattern.fullmatch(key):
            groups.setdefault(int(match[1]), {})[match[2]] = value
    return sorted(groups.items())


_OTHERWISE = {
    "RequestLimitExceeded": {"json": ("ThrottlingException", "Rate exceeded", 400), "query": ("Throttling", "Rate exceeded", 400)}
}


def spoken(error: Refusal, call: Call) -> Refusal:
    """EC2's refusal as the called service words it."""
    other = _OTHERWISE.get(error.code, {}).get(call.protocol)
    return Refusal(*other) if other else error


def refusal(call: Call | None, error: Refusal) -> Reply:
    """The no, in the shape the caller's protocol parses."""
    protocol, service = (call.protocol, call.service) if call else ("ec2", "ec2")
    request_id = call.request_id if call else str(uuid.uuid4())
    code, message = escape(error.code), escape(error.message)
    if service == "s3":
        text = f"<Error><Code>{code}</Code><Message>{message}</Message><RequestId>{request_id}</RequestId></Error>"
        return Reply(error.status, "application/xml", text.encode())
    if protocol == "json":
        body = json.dumps({"__type": error.code, "message": error.message}).encode()
        return Reply(error.status, "application/x-amz-json-1.1", body)
    if protocol == "query":
        kind = "Sender" if error.status < 500 else "Receiver"
        text = (
            f'<ErrorResponse xmlns="{_NAMESPACES.get(service, _NAMESPACES["sts"])}"><Error><Type>{kind}</Type>'
            f"<Code>{code}</Code><Message>{message}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
        )
    else:
        text = (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error><Code>{code}</Code>'
            f"<Message>{message}</Message></Error></Errors><RequestID>{request_id}</RequestID></Response>"
        )
    return Reply(error.status, "text/xml;charset=UTF-8", text.encode())


def ec2_answer(call: Call, inner: str) -> Reply:
    text = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<{call.action}Response xmlns="{EC2_NAMESPACE}">'
        f"<requestId>{call.request_id}</requestId>{inner}</{call.action}Response>"
    )
    return Reply(200, "text/xml;charset=UTF-8", text.encode())


def query_answer(call: Call, inner: str) -> Reply:
    text = (
        f'<{call.action}Response xmlns="{_NAMESPACES.get(call.service, "")}"><{call.action}Result>{inner}</{call.action}Result>'
        f"<ResponseMetadata><RequestId>{call.request_id}</RequestId></ResponseMetadata></{call.action}Response>"
    )
    return Reply(200, "text/xml", text.encode())


def json_answer(document: object) -> Reply:
    return Reply(200, "application/x-amz-json-1.1", json.dumps(document).encode())


def stamp(at: float | None) -> str | None:
    """RFC 3339 with milliseconds and a Z, or None."""
    if at is None:
        return None
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))
    return f"{whole}.{int(at * 1000) % 1000:03d}Z"
