"""One file to hand over, made of a lease's evidence folder and of nothing else.

It is verified before it is written, so nobody hands over what does not hold; and it is written whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provisioner.clean import clean
from provisioner.clouds import newest
from provisioner.errors import RefusedError, RunError
from provisioner.ledger import LeaseFolder, private, root

if TYPE_CHECKING:
    from provisioner.evidence.keyless import Signing


def export_proof(
    name: str | None,
    to: Path | None,
    ssh_key: str | None = None,
    *,
    redact: bool = False,
    authority: str | None = None,
    keyless: Signing | None = None,
) -> tuple[dict[str, Any], str]:
    """Where it was written, as a record and in words."""
    from provisioner.evidence import archive, bundle, canonical, paper, sign, sshsig, timestamp, verify
    from provisioner.evidence.keyless import FILE

    folder = newest(name)
    if not folder.evidence.is_dir():
        raise RefusedError(f"lease {folder.id} has no proof yet", why=f"there is no {folder.evidence}", next=f"gpulease proof {folder.id}")
    report = verify.verify(folder.evidence)
    if report.exit:
        raise RunError(f"the proof of {folder.id} does not hold", why=report.problems[0].message, next=f"gpulease verify {folder.evidence}")
    # Under a name of its own: the full proof, written later, must not come to lie where the copy without names was taken from.
    path = Path(f"{folder.evidence.name}{'.redacted' if redact else ''}.zip") if to is None else to
    members = bundle.members(folder.evidence)
    lost: list[str] = []
    openings = path.with_name(f"{path.name}.openings.json")
    if redact:
        tier = str(report.json()["tier"])
        members, opened = _without_names(folder, members)
        _write(openings, json.dumps(opened, indent=1, sort_keys=True).encode())
        lost = [
            f"it costs  {tier} becomes client-signed: what AWS signed names the account, and AWS's log holds the first journal's heads"
            if tier != "client-signed"
            else "it costs  no tier; this proof could still have been corroborated, the copy cannot",
            f"keep      {openings}: it opens each commitment; give away one line of it at a time",
        ]
    if ssh_key is not None:
        payload, _ = sign.opened(members["statement.dsse.json"], members["signer.pub.json"])
        members["statement.sshsig"] = _signed_by_ssh(sign.pae(payload), ssh_key)
        sshsig.checked(members["statement.sshsig"], sign.pae(payload))
    if authority is not None:
        members[timestamp.FILE] = timestamp.fetched(authority, members["statement.dsse.json"])
    named = None
    if keyless is not None:  # last, because it cannot be taken back
        if not os.access(path.parent, os.W_OK):
            raise RefusedError(f"{path} cannot be written", why="asked before anything is published", next="gpulease export --to FILE")
        payload, _ = sign.opened(members["statement.dsse.json"], members["signer.pub.json"])
        members[FILE], named = keyless.sign(members["statement.dsse.json"], payload)
    data = archive.packed(members, folder.evidence.name)
    if path.suffix == ".pdf":
        stated = canonical.loads(sign.opened(members["statement.dsse.json"], members["signer.pub.json"])[0])
        data = paper.paper(stated, f"{folder.evidence.name}.zip", data)
    _write(path, data)
    line = f'you namespaces="{sshsig.NAMESPACE}" {sshsig.ed25519(sign.raw_key(members["signer.pub.json"])).line}'
    record = {"schema": "gpulease/export/1", "lease": folder.id, "path": str(path), "bytes": len(data), "tier": report.json()["tier"]}
    record |= {"tier": "client-signed", "openings": str(openings)} if redact else {}
    record |= {} if named is None else {"sigstore": {"identity": named.identity, "issuer": named.issuer}}
    whom = "" if named is None else f" --sigstore-identity {shlex.quote(named.identity)} --sigstore-issuer {shlex.quote(named.issuer)}"
    check = f"gpulease verify {path}" if path.suffix != ".pdf" else f"pdfdetach -saveall {path}, then gpulease verify"
    return record | {"allowedSigners": line}, "\n".join(
        [
            *lost,
            f"written   {path} ({len(data)} bytes)",
            f"check it  {check}{clean(whom, limit=600)}",
            f"whose     {line}",
            "          as a line of the file for verify --allowed-signers: give it to those who should know that it was you",
        ]
    )


def _without_names(folder: LeaseFolder, members: dict[str, bytes]) -> tuple[dict[str, bytes], dict[str, dict[str, str]]]:
    """The copy's files, signed anew over the first statement's digest, and what opens its commitments."""
    from provisioner.evidence import bundle, canonical, chain, page, redact, render, sign, statement

    keys, envelope = private(root() / "keys"), members["statement.dsse.json"]
    first = canonical.loads(sign.opened(envelope, members["signer.pub.json"])[0])
    kept = {name: data for name, data in members.items() if name in bundle.COVERED}
    made = redact.redacted(chain.read(members["journal.jsonl"]).entries, kept, sign.secret(keys, envelope))
    files = made.files | {"README.md": bundle.readme(folder.id)}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    results = files.get("results.json")
    stated = statement.build(made.entries, digests, producer=first["predicate"]["producer"], results=results)
    stated["predicate"]["supersedes"] = {"sha256": hashlib.sha256(envelope).hexdigest()}
    signed = sign.sign(stated, keys)
    rendered = {"report.md": render.report(stated, results), "report.html": page.page(stated, results)}
    proof = {"journal.jsonl": made.journal, "statement.dsse.json": signed.raw, "signer.pub.json": signed.public}
    return files | proof | rendered, made.openings


def _signed_by_ssh(message: bytes, key: str) -> bytes:
    """`ssh-keygen -Y sign` with a key file, or with the first key of the agent. It may ask for a passphrase, or for a touch."""
    from provisioner.evidence.sshsig import NAMESPACE

    with tempfile.TemporaryDirectory(prefix="gpulease-") as folder:
        if key == "agent":
            listed = _tool(["ssh-add", "-L"], b"", "the agent's keys cannot be listed")
            public = Path(folder) / "agent.pub"
            public.write_bytes(listed.splitlines()[0] + b"\n")
            key = str(public)
        return _tool(["ssh-keygen", "-Y", "sign", "-q", "-n", NAMESPACE, "-f", key], message, f"{key} did not sign")


def _tool(command: list[str], given: bytes, what: str) -> bytes:
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise RefusedError(what, why=f"{command[0]}: {e}", next="gpulease export   without --sign-ssh") from None
    if done.returncode or not done.stdout:
        why = clean(done.stderr.decode("utf-8", "replace"), limit=300).strip()
        raise RefusedError(what, why=f"{command[0]} ended with {done.returncode}: {why}", next="gpulease export --sign-ssh KEY")
    return done.stdout


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        os.replace(part, path)
    except OSError as e:
        part.unlink(missing_ok=True)
        raise RefusedError(f"{path} cannot be written", why=e.strerror or str(e), next="gpulease export --to FILE") from None
