"""A time-stamping authority of the outside tool's: `openssl ts`, its keys made here, behind a real HTTP server on loopback."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

CONFIG = """[tsa]
default_tsa = here
[here]
serial = {folder}/serial
crypto_device = builtin
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha512
accuracy = secs:1
tsa_name = yes
ess_cert_id_alg = sha256
"""


def openssl(*arguments: object, given: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *map(str, arguments)], input=given, capture_output=True, check=True).stdout


class Authority:
    """A root, and a certificate under it that may stamp times."""

    def __init__(self, folder: Path, purpose: str = "critical,timeStamping") -> None:
        folder.mkdir()
        self.folder, self.root = folder, folder / "root.pem"
        new = ("-newkey", "rsa:2048", "-nodes")
        ca = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
        openssl("req", "-x509", *new, "-keyout", folder / "root.key", "-out", self.root, "-days", 3650, "-subj", "/CN=root of a test", *ca)
        openssl("req", *new, "-keyout", folder / "tsa.key", "-out", folder / "tsa.csr", "-subj", "/CN=authority of a test")
        (folder / "purpose").write_text(f"extendedKeyUsage={purpose}\n")
        made = ("-CA", self.root, "-CAkey", folder / "root.key", "-CAcreateserial", "-days", 3000, "-extfile", folder / "purpose")
        openssl("x509", "-req", "-in", folder / "tsa.csr", *made, "-out", folder / "tsa.pem")
        (folder / "openssl.cnf").write_text(CONFIG.format(folder=folder))
        (folder / "serial").write_text("01")

    def answer(self, query: bytes) -> bytes:
        (self.folder / "query").write_bytes(query)
        signer = ("-signer", self.folder / "tsa.pem", "-inkey", self.folder / "tsa.key")
        where = ("-config", self.folder / "openssl.cnf", "-section", "here", "-queryfile", self.folder / "query")
        return openssl("ts", "-reply", *where, *signer)

    def stamped(self, data: bytes, digest: str = "-sha256") -> bytes:
        """As somebody gets it who uses openssl on both sides."""
        (self.folder / "data").write_bytes(data)
        return self.answer(openssl("ts", "-query", "-data", self.folder / "data", digest, "-cert"))

    def takes(self, token: bytes, data: bytes) -> bool:
        """What openssl itself says of it."""
        (self.folder / "token").write_bytes(token)
        (self.folder / "data").write_bytes(data)
        command = ["openssl", "ts", "-verify", "-in", self.folder / "token", "-data", self.folder / "data", "-CAfile", self.root]
        return subprocess.run(command, capture_output=True).returncode == 0


@contextlib.contextmanager
def served(authority: Authority, spoil: object = None) -> Iterator[str]:
    """Its address. With `spoil` it answers with that instead."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = self.rfile.read(int(self.headers["Content-Length"]))
            said = spoil(query) if callable(spoil) else authority.answer(query)
            self.send_response(200 if self.headers["Content-Type"] == "application/timestamp-query" else 415)
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/tsr"
    finally:
        server.shutdown()
        server.server_close()
