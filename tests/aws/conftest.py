"""An EC2 for tests: moto on a real socket, behind a small server that records every request and breaks what it is told to.

What moto gets wrong is known and said where it matters: it honours no ClientToken, terminates at once, and lets a
security group go while it is in use. What a real EC2 says and moto cannot is answered here, as the XML that EC2 sends.
"""

from __future__ import annotations

import http.client
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl

import pytest

from cost import Price
from provisioner.model import LaunchSpec, Offer
from provisioner.providers.aws import AwsProvider
from provisioner.secret import Secret

os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"  # 1301 images that nobody here boots

IMAGE_NAME = "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) 20261009"
AMAZON = "898082745236"


@dataclass
class Request:
    action: str
    params: dict[str, str]
    agent: str
    region: str


@dataclass
class Wire:
    """What was sent, and what shall go wrong: a fault of an action, or of "region action", is used up one per request."""

    moto: tuple[str, int]
    requests: list[Request] = field(default_factory=list)
    faults: dict[str, list[str]] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)  # action -> the XML that EC2 answers with and moto cannot
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def sent(self, action: str) -> list[Request]:
        return [request for request in self.requests if request.action == action]

    def fault(self, action: str, *what: str) -> None:
        """ "drop" before it arrives, "lose" the answer, "html", or an error as "500 InternalError"."""
        self.faults.setdefault(action, []).extend(what)


def error_xml(code: str) -> bytes:
    return (
        f"<?xml version='1.0'?><Response><Errors><Error><Code>{code}</Code><Message>told to: {code}</Message></Error></Errors>"
        "<RequestID>r-told-to</RequestID></Response>"
    ).encode()


@pytest.fixture(scope="session")
def moto() -> Iterator[tuple[str, int]]:
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield host, port
    server.stop()


@pytest.fixture(scope="session")
def recorder(moto: tuple[str, int]) -> Iterator[Wire]:
    wire = Wire(moto)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(wire))
    server.daemon_threads = True
    wire.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield wire
    server.shutdown()
    server.server_close()


@pytest.fixture
def wire(recorder: Wire, monkeypatch: pytest.MonkeyPatch) -> Wire:
    """An empty cloud, nothing sent yet, and no credentials of the developer's anywhere in reach."""
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    # botocore's own pauses between the tries of a read; how many there are is tested, how long they are is not ours.
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda self, context: 0.0)
    _send(recorder.moto, b"", "/moto-api/reset")
    recorder.requests.clear()
    recorder.faults.clear()
    recorder.answers.clear()
    return recorder


@pytest.fixture
def provider(wire: Wire) -> AwsProvider:
    return AwsProvider("us-east-1", endpoint=wire.url)


@pytest.fixture
def image(wire: Wire) -> str:
    """The default image, as AWS publishes it: owned by Amazon, 45 GiB, under /dev/sda1."""
    from moto.ec2.models import ec2_backends

    backend = ec2_backends["123456789012"]["us-east-1"]
    made = backend.register_image(name=IMAGE_NAME, description="")
    made.owner_id, made.root_device_name, made.state = AMAZON, "/dev/sda1", "available"
    return str(made.id)


@pytest.fixture
def offer() -> Offer:
    return Offer("aws", "us-east-1", "g6.xlarge", "NVIDIA L4", 1, 23034, 4, Price(804_800, "test", "2026-07-20"), zone="us-east-1b")


@pytest.fixture
def spec(image: str, offer: Offer) -> LaunchSpec:
    return LaunchSpec(
        offer=offer,
        disk_gib=60,
        deadline="2030-11-21T15:00:00Z",
        user_data=Secret("#cloud-config\n{}\n"),
        ingress_cidr="203.0.113.7/32",
    )


def forget_clients() -> None:
    """As a new process would start: credentials and settings of the environment are read again."""
    from provisioner.providers import aws_client

    aws_client.forget()


def _send(
    moto: tuple[str, int], body: bytes, path: str = "/", headers: dict[str, str] | None = None, method: str = "POST"
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(*moto, timeout=30)
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    answer.data = answer.read()  # type: ignore[attr-defined]
    connection.close()
    return answer


def _handler(wire: Wire) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 65536  # headers and body in one segment: two would wait 40 ms for each other (Nagle)

        def do_GET(self) -> None:
            self.do_POST()

        def do_DELETE(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            params = dict(parse_qsl(body.decode(), keep_blank_values=True))
            action = params.get("Action") or self.headers.get("X-Amz-Target", "").rpartition(".")[2] or f"{self.command} {self.path}"
            # Credential=KEY/DAY/REGION/SERVICE/aws4_request
            region = self.headers.get("Authorization", "//").split("/")[2]
            wire.requests.append(Request(action, params, self.headers["User-Agent"], region))
            told = wire.faults.get(f"{region} {action}") or wire.faults.get(action) or []
            fault = told.pop(0) if told else ""
            if fault == "drop":
                self._drop()
            elif fault == "html":
                self._answer(500, b"<!doctype html><title>500</title>", "text/html")
            elif action in wire.answers:
                self._answer(200, wire.answers[action].encode(), "text/xml")
            elif fault and fault != "lose":
                status, code = fault.split(" ", 1)
                self._answer(int(status), error_xml(code), "text/xml")
            else:
                headers = {k: v for k, v in self.headers.items() if k.lower() != "content-length"}
                answer = _send(wire.moto, body, self.path, headers, self.command)
                if fault == "lose":
                    self._drop()
                else:
                    self._answer(answer.status, answer.data, answer.headers.get("Content-Type", "text/xml"))  # type: ignore[attr-defined]

        def _drop(self) -> None:
            self.close_connection = True
            self.connection.shutdown(2)

        def _answer(self, status: int, data: bytes, type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", type)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("x-amzn-requestid", f"req-{len(wire.requests)}")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    return Handler
