"""Who vouches for a signature: the reader's own list of keys, never the bundle's word for itself.

A proof is signed with a key of its own, made here, and may be signed with an ssh key beside it; either counts. The time
that a line of allowed signers is held against is the one at which the signer says to have sealed: nothing else is known
of it. Whoever stole a key can say an earlier one, so a line is taken out when its key is lost, not only limited.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from provisioner.evidence.canonical import Malformed, loads, milliseconds, rfc3339
from provisioner.evidence.messages import problem
from provisioner.evidence.sign import Unsigned
from provisioner.evidence.sshsig import Key, Signer


def vouched_by(payload: bytes, keys: Sequence[Key], keyid: str, trusted: Collection[str] | None, signers: Sequence[Signer] | None) -> str:
    """The name under which the reader knows one of the keys; "" when nobody was named; `Unsigned` when none is known."""
    if trusted is None and signers is None:
        return ""
    if trusted is not None and keyid in trusted:
        return keyid
    allowed = [signer for key in keys for signer in signers or () if signer.may(key)]
    at = _sealed_at(payload)
    for signer in allowed:
        if signer.then(milliseconds(at) or 0):
            return signer.principal
    if allowed:
        since, until = ("ever" if ms is None else rfc3339(ms) for ms in (allowed[0].after, allowed[0].before))
        raise Unsigned(problem("E105", principal=allowed[0].principal, time=at, from_=since, to=until))
    named = sorted({*(trusted or ()), *(signer.principal for signer in signers or ())})
    signed = ", ".join([keyid, *(key.fingerprint for key in keys[1:])])
    raise Unsigned(problem("E102", keyid=signed, list=", ".join(named) or "none"))


def _sealed_at(payload: bytes) -> str:
    """When the signer says that it was; its signature was checked, its form was not."""
    try:
        said = loads(payload)["predicate"]["journal"]["lastAt"]
    except (Malformed, LookupError, TypeError):
        return ""
    return said if isinstance(said, str) else ""
