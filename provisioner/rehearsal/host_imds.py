"""The instance metadata service of a simulated machine, version 2, as `curl` on the machine sees it.

A machine here is a process group on loopback, and 169.254.169.254 is not its own: on a rented computer it would even be
somebody else's. So nothing is sent there. The machine's `curl` (shims/curl) hands every call for that address to the machine's own
process, which answers as the service does: a token by PUT first, 401 without one, 404 for what there is not. Only the options of
curl that such scripts use are known; another one is refused aloud, because a script that quietly meant something else
would be found out on EC2.

Must not know clouds or SSH: what it tells was in the machine's description, or came later as a notice.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlsplit

from .host_spec import Spec

ADDRESS = "169.254.169.254"
LONGEST_S = 21_600
SIGNED = "dynamic/instance-identity/rsa2048"
_FLAGS = {"-s", "--silent", "-S", "--show-error", "-f", "--fail", "-L", "--location", "-g", "--globoff", "-q", "--http1.1"}
_VALUED = {
    "-X": "method",
    "--request": "method",
    "-H": "header",
    "--header": "header",
    "-m": "limit",
    "--max-time": "limit",
    "-w": "format",
    "--write-out": "format",
    "-o": "output",
    "--output": "output",
    "--url": "url",
    "--noproxy": "",
    "--connect-timeout": "",
    "--retry": "",
    "--retry-delay": "",
    "--retry-max-time": "",
    "-x": "",
    "--proxy": "",
}
Answer = tuple[int, str, str]


class NotSimulated(Exception):
    """An option of curl that is not known here."""


@dataclass
class _Asked:
    url: str = ""
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)
    format: str = ""
    output: str = ""
    limit: float = 300.0


class Metadata:
    def __init__(self, spec: Spec, silent: Callable[[], bool]) -> None:
        self._silent = silent
        self._open = spec.metadata.get("tokens") == "optional"
        self._off = spec.metadata.get("endpoint") == "disabled"
        self._tokens: dict[str, float] = {}
        self._lock = threading.Lock()
        self._told = _told(spec)

    def notice(self, notice: Mapping[str, str] | None) -> None:
        """EC2 wants the machine back: `{"action": "terminate", "time": "…Z"}`; None: it does not any more."""
        with self._lock:
            self._told.pop("meta-data/spot/instance-action", None)
            self._told.pop("meta-data/spot/termination-time", None)
            if notice is not None:
                self._told["meta-data/spot/instance-action"] = json.dumps(dict(notice))
                self._told["meta-data/spot/termination-time"] = notice.get("time", "")

    def curl(self, argv: Sequence[str]) -> Answer:
        """What curl prints and how it exits."""
        try:
            asked = _read(argv)
        except NotSimulated as no:
            return 2, "", f"SIMULATED: curl to the metadata service does not know {no}\n"
        loud = "-s" not in asked.flags or "-S" in asked.flags
        if self._silent():
            time.sleep(min(asked.limit, 300.0))
            return 28, "", f"curl: (28) Failed to connect to {ADDRESS} port 80: Connection timed out\n" if loud else ""
        status, body = self.answer(asked.method, urlsplit(asked.url).path, asked.headers)
        shown = asked.format.replace("%{http_code}", str(status)).replace("%{response_code}", str(status)).replace("\\n", "\n")
        if status >= 400 and "-f" in asked.flags:
            return 22, shown, f"curl: (22) The requested URL returned error: {status}\n" if loud else ""
        return 0, ("" if asked.output else body) + shown, ""

    def answer(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, str]:
        """Status and body; the names of headers are in lower case."""
        with self._lock:
            if self._off:
                return 403, ""
            if path == "/latest/api/token":
                return self._token(method, headers)
            if method != "GET":
                return 405, ""
            if not self._lets_in(headers.get("x-aws-ec2-metadata-token")):
                return 401, ""
            name = path.removeprefix("/latest/").strip("/")
            if path.rstrip("/") in ("", "/latest"):
                return 200, "dynamic\nmeta-data" if path.rstrip("/") else "latest"
            found = self._told.get(name) or self._signed(name)
            if found is not None:
                return 200, found
            inside = {rest.split("/")[0] + ("/" if "/" in rest else "") for rest in _below(name, (*self._told, SIGNED))}
            return (200, "\n".join(sorted(inside))) if inside else (404, "")

    def _signed(self, name: str) -> str | None:
        """The document as EC2 signs it, here with a key that everybody has."""
        if name != SIGNED:
            return None
        from .worthless import pkcs7

        return pkcs7(self._told["dynamic/instance-identity/document"].encode())

    def _token(self, method: str, headers: Mapping[str, str]) -> tuple[int, str]:
        if method != "PUT":
            return 405, ""
        if "x-forwarded-for" in headers:
            return 403, ""
        text = headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= LONGEST_S):
            return 400, ""
        now = time.monotonic()
        self._tokens = {token: end for token, end in self._tokens.items() if end > now}
        token = secrets.token_urlsafe(40)
        self._tokens[token] = now + int(text)
        return 200, token

    def _lets_in(self, token: str | None) -> bool:
        return self._open if token is None else self._tokens.get(token, 0.0) > time.monotonic()


def _below(name: str, told: Iterable[str]) -> list[str]:
    return [path.removeprefix(f"{name}/") for path in told if path.startswith(f"{name}/")]


def _told(spec: Spec) -> dict[str, str]:
    known = spec.metadata
    zone = known.get("zone", "us-east-1a")
    document = {
        "accountId": known.get("account", "123456789012"),
        "architecture": "x86_64",
        "availabilityZone": zone,
        "imageId": known.get("image", "ami-00000000000000000"),
        "instanceId": spec.instance,
        "instanceType": spec.type,
        "pendingTime": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "privateIp": known.get("private_ip", "10.0.0.1"),
        "region": known.get("region", zone[:-1]),
        "version": "2017-09-30",
        "simulated": "gpulease-rehearsal",
    }
    return {
        "meta-data/instance-id": spec.instance,
        "meta-data/instance-type": spec.type,
        "meta-data/instance-life-cycle": known.get("lifecycle", "on-demand"),
        "meta-data/ami-id": document["imageId"],
        "meta-data/local-ipv4": document["privateIp"],
        "meta-data/placement/availability-zone": zone,
        "meta-data/placement/region": document["region"],
        "dynamic/instance-identity/document": json.dumps(document, indent=2, sort_keys=True),
    }


def _read(argv: Sequence[str]) -> _Asked:
    asked, words = _Asked(), list(argv)
    while words:
        word = words.pop(0)
        if word.startswith("-") and not word.startswith("--") and len(word) > 2:
            # -sfX PUT: letters that stand together, the last of which may take the next word, or the rest of this one.
            first, rest = word[:2], word[2:]
            words[:0] = [rest] if first in _VALUED else [f"-{rest}"]
            word = first
        if word in _FLAGS:
            asked.flags.add({"--silent": "-s", "--show-error": "-S", "--fail": "-f"}.get(word, word))
        elif word in _VALUED:
            _take(asked, _VALUED[word], words.pop(0) if words else "")
        elif word.startswith("-"):
            raise NotSimulated(word)
        else:
            asked.url = word
    return asked


def _take(asked: _Asked, name: str, value: str) -> None:
    if name == "header":
        key, _, rest = value.partition(":")
        asked.headers[key.strip().lower()] = rest.strip()
    elif name == "limit":
        asked.limit = float(value) if value.replace(".", "", 1).isdigit() else asked.limit
    elif name == "output" and value != "/dev/null":
        raise NotSimulated(f"-o {value}")
    elif name:
        setattr(asked, name, value)
