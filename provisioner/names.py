"""Whose account, whose address: kept out of the journal when it is written.

Two kinds of places. A field that is a name as a whole (`HIDDEN`: the machine's address, the account that owns its image) becomes
a commitment, `sha256:` of 16 random bytes, the field's name and the value. So does an ARN, an account id or an address in words
that a cloud, a library or a machine said: "User: arn:aws:… is not authorized" names the account and the person. What looks like
a credential there becomes `[secret]`. The salts stay beside the journal in `openings.jsonl` (0600), which nothing seals or hands
over: who is given one line of it can check that one value. A salt that could not be kept is lost, and its value stays closed.

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

HIDDEN = {"address": "address", "imageOwner": "accountId"}
"""Fields of the journal that are a name as a whole, and as what their commitment names them. They are the only ones that a later
process can do without: it has the opening, or asks the provider again. See docs/decisions/0011."""

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


OPENINGS = "openings.jsonl"
"""Beside the journal, 0600: one line a commitment, with its salt and the value."""

FORM = re.compile("sha256:[0-9a-f]{64}")


def openings(path: Path) -> dict[str, tuple[str, str]]:
    """commitment -> (field, value), of the lines there that are sound; a file that is lost or damaged has fewer, and is no error."""
    found: dict[str, tuple[str, str]] = {}
    with contextlib.suppress(OSError):
        # Not of a pipe or the like: nobody may wait here.
        for line in path.read_bytes().splitlines() if path.is_file() else ():
            with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
                row = json.loads(line)
                if commitment(row["field"], row["value"], bytes.fromhex(row["salt"])) == row["commitment"]:
                    found[row["commitment"]] = (row["field"], row["value"])
    return found


def opened(path: Path, value: str) -> str:
    """What a commitment stands for; the value itself where it is none; "" where no opening of it is left."""
    return openings(path).get(value, ("", ""))[1] if FORM.fullmatch(value) else value


class Names:
    """The values met in one lease, each always under the same commitment."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = {name: made for made, name in openings(path).items()}

    def hidden(self, text: str) -> str:
        """Those words without names."""
        text = CREDENTIAL.sub("[secret]", text)
        for field, pattern in LOOKS.items():
            text = pattern.sub(lambda found, field=field: self.instead(field, found[0]), text)  # type: ignore[misc]
        return text

    def instead(self, field: str, value: str) -> str:
        """The commitment to one value, whose opening is on disk before this returns, if the disk takes it at all."""
        if not value or FORM.fullmatch(value):  # a line that was read back and is written again
            return value
        if (known := self._known.get((field, value))) is not None:
            return known
        salt = secrets.token_bytes(16)
        made = self._known[field, value] = commitment(field, value, salt)
        row = json.dumps({"commitment": made, "field": field, "salt": salt.hex(), "value": value}) + "\n"
        with contextlib.suppress(OSError):  # a full disk keeps no opening, and the name is still not told
            _keep(self._path, row.encode())
        return made


def _keep(path: Path, row: bytes) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        size = os.fstat(fd).st_size
        torn = size and os.pread(fd, 1, size - 1) != b"\n"  # by a crash
        os.write(fd, b"\n" + row if torn else row)
        os.fsync(fd)
    finally:
        os.close(fd)
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)  # a new file is found after a power cut only if its folder was synced
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
