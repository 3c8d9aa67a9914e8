"""One file to hand over, made of a lease's evidence folder and of nothing else.

It is verified before it is written, so nobody hands over what does not hold; and it is written whole or not at all.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from provisioner.clean import clean
from provisioner.clouds import newest
from provisioner.errors import RefusedError, RunError


def export_proof(name: str | None, to: Path | None, ssh_key: str | None = None) -> tuple[dict[str, Any], str]:
    """Where it was written, as a record and in words."""
    from provisioner.evidence import archive, bundle, sign, sshsig, verify

    folder = newest(name)
    if not folder.evidence.is_dir():
        raise RefusedError(f"lease {folder.id} has no proof yet", why=f"there is no {folder.evidence}", next=f"gpulease proof {folder.id}")
    report = verify.verify(folder.evidence)
    if report.exit:
        raise RunError(f"the proof of {folder.id} does not hold", why=report.problems[0].message, next=f"gpulease verify {folder.evidence}")
    path = Path(f"{folder.evidence.name}.zip") if to is None else to
    members = bundle.members(folder.evidence)
    if ssh_key is not None:
        payload, _ = sign.opened(members["statement.dsse.json"], members["signer.pub.json"])
        members["statement.sshsig"] = _signed_by_ssh(sign.pae(payload), ssh_key)
        sshsig.checked(members["statement.sshsig"], sign.pae(payload))
    data = archive.packed(members, folder.evidence.name)
    _write(path, data)
    line = f'you namespaces="{sshsig.NAMESPACE}" {sshsig.ed25519(sign.raw_key(members["signer.pub.json"])).line}'
    record = {"schema": "gpulease/export/1", "lease": folder.id, "path": str(path), "bytes": len(data), "tier": report.json()["tier"]}
    return record | {"allowedSigners": line}, "\n".join(
        [
            f"written   {path} ({len(data)} bytes)",
            f"check it  gpulease verify {path}",
            f"whose     {line}",
            "          as a line of the file for verify --allowed-signers: give it to those who should know that it was you",
        ]
    )


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
