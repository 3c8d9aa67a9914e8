"""moto, started in about a third of its time, and asked one request at a time.

moto's EC2 is the grammar of this cloud. Two thirds of its start go into things nobody asked for: eleven fresh botocore
sessions that each parse an 8 MB service model to learn a list of regions (0.6 s), 90 files of instance type offerings
(0.1 s), 1301 images from 2017 on (0.2 s). They are answered here from one resolver, read on first use, and left out. Its
response classes are called directly: Flask, which only routes by host name, is not needed and not a requirement.

`load` belongs in the rehearsal's own process and nowhere else: it patches botocore and clears the AWS settings of the
environment, so that no profile, credential or endpoint of the user's can leak into a pretended cloud.
"""

from __future__ import annotations

import gc
import importlib
import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from provisioner.rehearsal.wire import EC2_NAMESPACE, Call, Refusal, Reply

ACCOUNT = "123456789012"
FLEET_ROLE, FLEET_PATH = "AWSServiceRoleForEC2Fleet", "/aws-service-role/ec2fleet.amazonaws.com/"
_RESPONSES = {
    "ec2": ("moto.ec2.responses", "EC2Response"),
    "sts": ("moto.sts.responses", "TokenResponse"),
    "ssm": ("moto.ssm.responses", "SimpleSystemManagerResponse"),
    "iam": ("moto.iam.responses", "IamResponse"),
    "sqs": ("moto.sqs.responses", "SQSResponse"),
}
_A_SET = re.compile(rb"'[\[{]'([^']*)'[\]}]'")  # moto prints Python sets of ids into its messages
_SAME_PREFIX = frozenset({"ec2", "sts", "ssm", "iam", "sqs"})  # services whose endpoint prefix is their name


def load(state: Path) -> None:
    """Import moto and make its first EC2 backend. About 0.7 s of one core; gc is off meanwhile."""
    no_images = state / "no-images.json"
    no_images.write_text("[]")
    for name in [name for name in os.environ if name.startswith(("AWS_", "MOTO_", "BOTO_"))]:
        del os.environ[name]
    os.environ.update(
        AWS_CONFIG_FILE=os.devnull,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull,
        AWS_EC2_METADATA_DISABLED="true",
        MOTO_AMIS_PATH=str(no_images),
    )
    gc.disable()
    try:
        _one_list_of_regions()
        with _offerings_on_first_use():
            importlib.import_module("moto.ec2.models")
        from moto.core.utils import get_service_model

        importlib.import_module("moto.ec2.responses")
        get_service_model("ec2")
        backend("us-east-1")
    finally:
        gc.enable()
        gc.freeze()  # what was loaded stays; the collector need not walk it again


def warm() -> None:
    """What a run asks for a second later (roles, queues), while nobody waits for it: a tenth of a second."""
    for service in ("iam", "sqs"):
        importlib.import_module(_RESPONSES[service][0])


def backend(region: str) -> Any:
    """moto's live EC2 objects of one region."""
    from moto.ec2.models import ec2_backends

    try:
        return ec2_backends[ACCOUNT][region]
    except KeyError:
        raise Refusal("AuthFailure", f"there is no region {region}", 401) from None


def regions() -> list[str]:
    """Those that have been used so far."""
    from moto.ec2.models import ec2_backends

    return list(ec2_backends[ACCOUNT].keys())


def ask(call: Call, params: Mapping[str, str] | None = None) -> Reply:
    """moto's answer to the call, with `params` instead of the form it came with where given.

    What moto has not got is a Refusal that says so, never an HTML page: an SDK must be able to read every answer.
    """
    from moto.core.request import Request

    module, name = _RESPONSES.get(call.service, ("", ""))
    if not module:
        raise Refusal("UnsupportedOperation", f"the rehearsal has no service {call.service}, so no {call.service}:{call.action}")

    class FromServer(Request):
        from_wsgi_server = True

    # Some clients ask in the query string; moto is always asked in the body.
    body = call.body or urlencode(call.params).encode() if params is None else urlencode(params).encode()
    kind = "application/x-amz-json-1.1" if call.protocol == "json" else "application/x-www-form-urlencoded; charset=utf-8"
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/",
        "SERVER_NAME": f"{call.service}.{call.region}.amazonaws.com",
        "SERVER_PORT": "443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": f"{call.service}.{call.region}.amazonaws.com",
        "HTTP_AUTHORIZATION": f"AWS4-HMAC-SHA256 Credential=AKIAREHEARSAL/20260101/{call.region}/{call.service}/aws4_request, Signature=0",
        "CONTENT_TYPE": kind,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        "wsgi.url_scheme": "https",
    }
    if call.protocol == "json":
        environ["HTTP_X_AMZ_TARGET"] = f"X.{call.action}"
    responses = getattr(importlib.import_module(module), name)
    try:
        status, headers, text = responses.dispatch(FromServer(environ), None, None)
    except NotImplementedError as gap:
        raise Refusal("UnsupportedOperation", f"the rehearsal cannot do this {call.service}:{call.action}: {gap}") from gap
    payload = text.encode() if isinstance(text, str) else bytes(text)
    if call.protocol == "ec2":
        # A client that is strict about names finds nothing in an answer without the slash.
        payload = payload.replace(f'xmlns="{EC2_NAMESPACE.rstrip("/")}"'.encode(), f'xmlns="{EC2_NAMESPACE}"'.encode(), 1)
        payload = payload.replace(b"<association/>", b"")  # EC2 leaves it out where there is none
        payload = payload.replace(b"<requestId>request-id</requestId>", f"<requestId>{call.request_id}</requestId>".encode())
        payload = payload.replace(b"<RequestID>request-id</RequestID>", f"<RequestID>{call.request_id}</RequestID>".encode())
        if int(status) >= 400:
            payload = _A_SET.sub(rb"'\1'", payload)
    return Reply(int(status), headers.get("Content-Type", headers.get("content-type", "text/xml")), payload)


def _one_list_of_regions() -> None:
    import botocore.session

    Session = botocore.session.Session
    resolver = Session()._get_internal_component("endpoint_resolver")  # type: ignore[attr-defined]
    slow = Session.get_available_regions

    def quick(self: Any, service_name: str, partition_name: str = "aws", allow_non_regional: bool = False) -> list[str]:
        if service_name in _SAME_PREFIX:
            found: list[str] = resolver.get_available_endpoints(service_name, partition_name, allow_non_regional)
            return found
        return slow(self, service_name, partition_name, allow_non_regional)

    Session.get_available_regions = quick  # type: ignore[method-assign]


class _Offerings(dict[str, Any]):
    """region -> offerings, read when asked for."""

    def __init__(self, location_type: str) -> None:
        super().__init__()
        self._location_type = location_type

    def __missing__(self, region: str) -> list[dict[str, str]]:
        from moto.utilities.utils import load_resource

        try:
            found: list[dict[str, str]] = load_resource(f"ec2/resources/instance_type_offerings/{self._location_type}/{region}.json")
        except FileNotFoundError:
            found = []
        for offering in found:
            offering["LocationType"] = self._location_type
        self[region] = found
        return found

    def get(self, region: str, default: Any = None) -> Any:
        return self[region] or default


@contextmanager
def _offerings_on_first_use() -> Iterator[None]:
    import moto.utilities.utils as utils

    eager = utils.load_resource
    utils.load_resource = lambda resource: [] if "instance_type_offerings" in resource else eager(resource)
    try:
        yield
    finally:
        utils.load_resource = eager
    from moto.ec2.models import instance_types

    vars(instance_types)["load_resource"] = eager
    for location_type in list(instance_types.INSTANCE_TYPE_OFFERINGS):
        instance_types.INSTANCE_TYPE_OFFERINGS[location_type] = _Offerings(location_type)
