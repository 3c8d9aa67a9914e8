"""A proof for people who need not know whose account it was: names and addresses out, commitments in their place.

Account ids, ARNs, addresses, user names, hosts and buckets become `sha256:` of salt, field and value. The salts and values
are the openings, which stay with the owner: whoever is given one can check it, one at a time, and from the others learns
nothing. What was chained is chained anew and signed anew, over the digest of the first statement (`supersedes`), so the
copy verifies by itself; but AWS's own log holds heads of the first journal, and what AWS signed names the account. That is
the price: no copy like this is more than client-signed.

This file must not sign, and must not open anything.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from provisioner.evidence.canonical import dumps
from provisioner.journal import GENESIS, Entry
from provisioner.model import Json
from provisioner.names import FORM, LOOKS, commitment
from provisioner.secret import Secret

PRIVATE = frozenset(
    {"accountId", "address", "arn", "bucket", "callerArn", "host", "identity", "owner", "privateAddress", "publicIp", "sourceIp", "user"}
    | {"userName", "vpc", "subnet", "proxyCommand", "hostName"}
)
"""Fields whose value is replaced wherever it stands, whatever it looks like."""

SHORTEST = 4
"""A shorter value would be found in the middle of other words."""


@dataclass
class Redacted:
    journal: bytes
    entries: list[Entry]
    files: dict[str, bytes]
    openings: dict[str, dict[str, str]] = field(default_factory=dict)  # commitment: {field, salt, value}


def redacted(entries: Sequence[Entry], files: Mapping[str, bytes], secret: Secret) -> Redacted:
    """The copy. The salts come out of `secret`, so that the same secret makes the same copy."""
    texts = {name: data.decode("utf-8", "replace") for name, data in files.items()}
    found = dict(_found([entry["body"] for entry in entries]))
    for text in texts.values():
        found |= {value: name for value, name in _looking(text) if value not in found}
    made = Redacted(b"", [], {})
    instead: dict[str, str] = {}
    for value, name in found.items():
        salt = hmac.new(secret.reveal_bytes(), f"{name}\0{value}".encode(), hashlib.sha256).digest()[:16]
        instead[value] = commitment(name, value, salt)
        made.openings[instead[value]] = {"field": name, "salt": salt.hex(), "value": value}
    # The longest first: an ARN holds an account id, and both are replaced by one commitment.
    pattern = re.compile("|".join(re.escape(value) for value in sorted(instead, key=len, reverse=True)) or r"(?!)")
    made.files = {name: pattern.sub(lambda m: instead[m[0]], text).encode() for name, text in texts.items()}
    sealed = {name: hashlib.sha256(data).hexdigest() for name, data in made.files.items()}
    head, lines = GENESIS, []
    for seq, entry in enumerate(entries):
        body = _replaced(entry["body"], pattern, instead)
        if entry["kind"] == "anchor":
            body.pop("head", None)  # of the first journal, as the heads in tokens are
        if entry["kind"] == "seal":
            body["files"] = {name: sealed[name] for name in body["files"] if name in sealed}
        made.entries.append({**entry, "body": body, "prev": head, "seq": seq})
        lines.append(dumps(dict(made.entries[-1])) + b"\n")
        head = hashlib.sha256(lines[-1]).hexdigest()
    made.journal = b"".join(lines)
    return made


def _found(value: Json, name: str = "") -> Iterator[tuple[str, str]]:
    match value:
        case dict():
            for key, inner in value.items():
                yield from _found(inner, key)
        case list():
            for inner in value:
                yield from _found(inner, name)
        case str() if FORM.fullmatch(value):
            pass  # closed when it was written: what opens it is in the lease's own folder
        case str() if name in PRIVATE and len(value) >= SHORTEST:
            yield value, name
        case str():
            yield from _looking(value)
        case _:
            pass


def _looking(text: str) -> Iterator[tuple[str, str]]:
    for name, pattern in LOOKS.items():
        for match in pattern.finditer(text):
            yield match[0], name


def _replaced(value: Any, pattern: re.Pattern[str], instead: Mapping[str, str]) -> Any:
    match value:
        case dict():
            made = {name: _replaced(inner, pattern, instead) for name, inner in value.items()}
            if isinstance(made.get("token"), str):
                made["token"] = _headless(made["token"])
            return made
        case list():
            return [_replaced(inner, pattern, instead) for inner in value]
        case str():
            return pattern.sub(lambda m: instead[m[0]], value)
        case _:
            return value


def _headless(token: str) -> str:
    """A token without the head of the first journal: it would be no head of this one, and must not look like one."""
    before, _, head = token.rpartition("-")
    return f"{before}-first.{head}" if re.fullmatch("[0-9a-f]{32}", head) else token
