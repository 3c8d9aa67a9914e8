"""The host key of a machine that we did not make: what the user's own `known_hosts` says, or what to do when it says nothing.

A key that is only scanned proves nothing, so it is never used by itself: it is shown, with its fingerprint and the
command that accepts it, and the user decides. Plain, bracketed and hashed entries are read; a revoked key is an error
and a certificate authority is not a host key. Must not write to any file of the user's.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path

from provisioner.errors import HostError, HostKeyError, RefusedError
from provisioner.remote import keys
from provisioner.remote.link import Route, direct, scan

PREFERRED = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")


def known_host_key(host: str, port: int = 22, path: Path | None = None) -> str | None:
    """The key line ("ssh-ed25519 AAAA…") that `~/.ssh/known_hosts` has for a host, the best type first; None without one."""
    path = path or Path("~/.ssh/known_hosts").expanduser()
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return find_host_key(text, host, port)


def find_host_key(text: str, host: str, port: int) -> str | None:
    """As `known_host_key`, in a text. HostKeyError when the only key it would give has been revoked."""
    name = host if port == 22 else f"[{host}]:{port}"
    found: dict[str, str] = {}
    revoked: set[str] = set()
    for line in text.splitlines():
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#") or words[1] not in PREFERRED or not _names(words[0], name):
            continue
        try:
            key = keys.public_line(f"{words[1]} {words[2]}")
        except RefusedError:
            continue  # a damaged line is not a key; the others still count
        if marker == "@revoked":
            revoked.add(key)
        elif not marker:
            found.setdefault(words[1], key)
    for kind in PREFERRED:
        if kind in found and found[kind] not in revoked:
            return found[kind]
    if found:
        raise HostKeyError(
            f"every key known for {name} was revoked", why=keys.fingerprint(next(iter(revoked))), next=f"ssh-keygen -F '{name}'"
        )
    return None


def scan_host_key(host: str, port: int = 22, *, route: Route = direct) -> str:
    """The key that the machine shows now. For a person to compare, not to trust."""
    return scan(host, port, route=route)


def host_key_or_refuse(host: str, port: int = 22, *, user: str = "", path: Path | None = None, route: Route = direct) -> str:
    """The known key, or RefusedError that shows the one seen and the exact command that accepts it."""
    known = known_host_key(host, port, path)
    if known is not None:
        return known
    what = f"the host key of {host} port {port} is not known"
    try:
        seen = scan_host_key(host, port, route=route)
    except HostError as e:
        raise RefusedError(f"{what}, and the machine does not show one", why=e.why, next=e.next) from e
    login = f"{user}@{host}" if user else host
    raise RefusedError(
        what,
        why=f"it shows {keys.fingerprint(seen)} ({keys.key_type(seen)}), which anybody in between could show as well",
        next=f"if that is the machine's own: ssh -p {port} {login} true, answer yes, and run this again; or --host-key '{seen}'",
    )


def _names(patterns: str, name: str) -> bool:
    if patterns.startswith("|1|"):
        _, _, salt, digest = [*patterns.split("|"), "", ""][:4]
        try:
            made = hmac.new(base64.b64decode(salt), name.encode(), hashlib.sha1).digest()
            return hmac.compare_digest(made, base64.b64decode(digest))
        except ValueError:
            return False
    return name in patterns.split(",")
