"""Something that says it is amazonaws.com: a proxy with a certificate of its own, reached as a company's proxy would be.

Clients come here by what botocore documents, HTTPS_PROXY and AWS_CA_BUNDLE, and by nothing of ours: the provider under
test believes that it talks to AWS. STS and the SSO portal are answered here, by which keys and tokens are good at the
moment; EC2 and SSM are handed to a rehearsal, if there is one.
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

NAMES = ("*.amazonaws.com", "*.us-east-1.amazonaws.com", "portal.sso.us-east-1.amazonaws.com")


@dataclass
class Amazon:
    folder: Path
    rehearsal: str = ""
    good: dict[str, str] = field(default_factory=dict)  # access key -> whose it is
    tokens: set[str] = field(default_factory=set)  # SSO tokens that are good
    role_keys_last_s: int = 3600
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # (host, action, access key)

    def __post_init__(self) -> None:
        self.ca = _certificate(self.folder)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.ca, self.folder / "key.pem")
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def env(self, home: Path) -> dict[str, str]:
        """For a process that is to believe it: no settings of the developer's, and this as its way to the world."""
        import os

        clean = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "XDG_")) and "proxy" not in k.lower()}
        proxy = f"http://127.0.0.1:{self.server.server_address[1]}"
        return clean | {
            "HOME": str(home),
            "XDG_STATE_HOME": str(home / "state"),
            "HTTPS_PROXY": proxy,
            "NO_PROXY": "127.0.0.1",
            "AWS_CA_BUNDLE": str(self.ca),
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
        }

    def actions(self, host: str = "") -> list[str]:
        return [action for where, action, _ in self.asked if where.startswith(host)]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, host: str, path: str, headers: Any, body: bytes) -> tuple[int, str, bytes]:
        found = re.search(r"Credential=([A-Z0-9a-z]+)/", headers.get("Authorization", ""))
        key = found[1] if found else ""
        form = dict(parse_qsl(body.decode("utf-8", "replace")))
        action = form.get("Action") or headers.get("X-Amz-Target", "").rpartition(".")[2] or urlsplit(path).path
        self.asked.append((host, action, key))
        if host.startswith("portal.sso"):
            return self._role_keys(headers.get("x-amz-sso_bearer_token", ""))
        if key not in self.good:
            return 403, "text/xml", _error(host, "ExpiredToken", "The security token included in the request is expired")
        if action == "GetCallerIdentity":
            inner = f"<Arn>arn:aws:iam::123456789012:user/{self.good[key]}</Arn><UserId>U</UserId><Account>123456789012</Account>"
            return 200, "text/xml", _sts(action, inner)
        if action == "AssumeRole":
            self.good["ASIAROLE"] = "role"
            inner = (
                f"<Credentials><AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>s3cret</SecretAccessKey><SessionToken>t0ken</SessionToken>"
                f"<Expiration>{later(self.role_keys_last_s)}</Expiration></Credentials>"
            )
            return 200, "text/xml", _sts(action, inner)
        return self._hand_on(headers, body)

    def _role_keys(self, token: str) -> tuple[int, str, bytes]:
        if token not in self.tokens:
            return 401, "application/json", b'{"message":"Session token not found or invalid"}'
        self.good["ASIASSO"] = "sso"
        keys = {"accessKeyId": "ASIASSO", "secretAccessKey": "s3cret", "sessionToken": "t0ken"}
        end = int((time.time() + self.role_keys_last_s) * 1000)
        return 200, "application/json", json.dumps({"roleCredentials": {**keys, "expiration": end}}).encode()

    def _hand_on(self, headers: Any, body: bytes) -> tuple[int, str, bytes]:
        if not self.rehearsal:
            return 400, "text/xml", _error("ec2", "InvalidAction", "nobody is behind this")
        connection = http.client.HTTPConnection(urlsplit(self.rehearsal).netloc, timeout=30)
        kept = ("Authorization", "Content-Type", "X-Amz-Target", "X-Amz-Date", "User-Agent")
        connection.request("POST", "/", body, {k: headers[k] for k in kept if headers.get(k)})
        said = connection.getresponse()
        return said.status, said.headers.get("Content-Type", "text/xml"), said.read()


def later(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _sts(action: str, inner: str) -> bytes:
    return (
        f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result>{inner}</{action}Result>'
        f"<ResponseMetadata><RequestId>r-1</RequestId></ResponseMetadata></{action}Response>"
    ).encode()


def _error(host: str, code: str, message: str) -> bytes:
    if host.startswith("sts"):
        return f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>".encode()
    if host.startswith("ssm"):
        return json.dumps({"__type": code, "message": message}).encode()
    return f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors></Response>".encode()


def _handler(amazon: Amazon) -> type[BaseHTTPRequestHandler]:
    class Inner(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 65536

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, type, data = amazon.answer(self.headers["Host"].partition(":")[0], self.path, self.headers, body)
            self.send_response(status)
            self.send_header("Content-Type", type)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    class Proxy(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            self.connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            try:
                inside = amazon.context.wrap_socket(self.connection, server_side=True)
                Inner(inside, self.client_address, self.server)  # type: ignore[arg-type]
                inside.close()
            except (TimeoutError, ssl.SSLError, ConnectionError):
                pass  # the client has gone, which is its right
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    return Proxy


def _certificate(folder: Path) -> Path:
    """One self-signed certificate for all the names, which is its own authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "not amazon")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in NAMES]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    (folder / "ca.pem").write_bytes(made.public_bytes(pem))
    return folder / "ca.pem"
