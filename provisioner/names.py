"""Whose account, whose address: kept out of the journal's free words when they are written.

The named fields of a journal are chosen one by one (`LaunchSpec.public`, a resource's facts). Words that a cloud, a library or a
machine said are not: "User: arn:aws:… is not authorized" names the account and the person. In such words an ARN, an account id
and an address become a commitment, `sha256:` of 16 random bytes, the field's name and the value, and what looks like a
credential becomes `[secret]`. The salts stay beside the journal in `openings.jsonl` (0600), which nothing seals or hands over:
who is given one line of it can check that one value. A salt that could not be kept is lost, and the words stay closed.

The way out of a lease never waits for this: nothing here raises. It must not know what the words are about.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
from pathlib import Path

WORDS = frozenset({"detail", "error", "message", "next", "problem", "reason", "refused", "what", "why"})
"""Fields of the journal that hold somebody's words. Ids, settings and facts are not among them: a later process reads those."""

LOOKS = {
    "arn": re.compile(r"arn:aws[\w-]*:[\w-]*:[\w-]*:\d{12}:[\w+=,.@/:-]+"),
    "accountId": re.compile(r"(?<![\w-])\d{12}(?![\w-])"),
    "address": re.compile(r"(?<![\w.])(?!127\.)(?!0\.0\.0\.0)\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\w.]*\d)"),
}
CREDENTIAL = re.compile(
    r"(?:\bhf_|\bsk-|\bgh[opsu]_|\bglpat-|\bxox[abp]-)[\w-]{8,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{12,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----(?:.|\n)*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|(?<=Bearer )[\w.~+/-]{8,}=*"
)


def commitment(name: str, value: str, salt: bytes) -> str:
    """What stands in place of a value; sixteen random bytes make it impossible to try all accounts there are."""
    return "sha256:" + hashlib.sha256(salt + name.encode() + value.encode()).hexdigest()


class Names:
    """The values met in one lease, each always under the same commitment."""

    def __init__(self, path: Path) -> None:
        self._path, self._known = path, dict[tuple[str, str], str]()
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            for line in path.read_bytes().splitlines():
                row = json.loads(line)
                self._known[row["field"], row["value"]] = row["commitment"]

    def hidden(self, text: str) -> str:
        """Those words without names."""
        text = CREDENTIAL.sub("[secret]", text)
        for field, pattern in LOOKS.items():
            text = pattern.sub(lambda found, field=field: self._instead(field, found[0]), text)  # type: ignore[misc]
        return text

    def _instead(self, field: str, value: str) -> str:
        if (known := self._known.get((field, value))) is not None:
            return known
        salt = secrets.token_bytes(16)
        made = self._known[field, value] = commitment(field, value, salt)
        row = json.dumps({"commitment": made, "field": field, "salt": salt.hex(), "value": value}) + "\n"
        with contextlib.suppress(OSError):  # a full disk keeps no opening, and the name is still not told
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.write(fd, row.encode())
            finally:
                os.close(fd)
        return made
